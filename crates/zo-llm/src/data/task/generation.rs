//! Tasks whose answers the model generates.

use serde_json::Value;

use super::example::{Example, Kind, Task};
use super::fields::{Fields, TaskError};
use crate::data::text::strip;

/// SQuAD: a question about a paragraph, answered in words from it.
///
/// Prompt `Title: {title}`, `Context: {context}`, `Question: {question}` and `Answer:`, a line each. Fields `title`, `context`, `question`,
/// `answers: {text: [..]}`, or an article of SQuAD's own file: `title`, `paragraphs: [{context, qas: [{question, answers: [{text}]}]}]`.
/// Questions without an answer are left out.
#[derive(Debug, Clone, Copy)]
pub struct Squad;

impl Task for Squad {
    fn name(&self) -> &str {
        "squad"
    }

    fn kind(&self) -> Kind {
        Kind::Generation
    }

    fn answer_fields(&self) -> Vec<&str> {
        vec!["answers"]
    }

    fn read(&self, row: &Fields<'_>) -> Result<Vec<Example>, TaskError> {
        let title = row.text("title")?;
        let mut examples = Vec::new();
        let mut push = |context: &str, question: &Fields<'_>| -> Result<(), TaskError> {
            let asked = strip(question.text("question")?);
            let prompt = format!("Title: {title}\nContext: {context}\nQuestion: {asked}\nAnswer:");
            examples.extend(answered(prompt, answers(question)?));
            Ok(())
        };
        if row.get("paragraphs").is_none() {
            push(row.text("context")?, row)?;
        } else {
            for paragraph in row.objects("paragraphs")? {
                let context = paragraph.text("context")?;
                for question in paragraph.objects("qas")? {
                    push(context, &question)?;
                }
            }
        }
        Ok(examples)
    }
}

/// DROP: a question that requires counting, sorting or arithmetic over a passage.
///
/// Prompt `Passage: {passage}`, `Question: {question}` and `Answer:`, a line each. Fields `passage`, `question`, `answers_spans:
/// {spans: [..]}`, or a section of DROP's own file: `passage`, `qa_pairs: [{question, answer, validated_answers}]`, each answer with
/// `number`, `date` and `spans`. As in MeZO, each of several spans is a separate reference. Questions without an answer are left out.
#[derive(Debug, Clone, Copy)]
pub struct DropQa;

impl Task for DropQa {
    fn name(&self) -> &str {
        "drop"
    }

    fn kind(&self) -> Kind {
        Kind::Generation
    }

    fn answer_fields(&self) -> Vec<&str> {
        vec!["answers_spans"]
    }

    fn read(&self, row: &Fields<'_>) -> Result<Vec<Example>, TaskError> {
        let passage = row.text("passage")?;
        let mut examples = Vec::new();
        let mut push = |question: &Fields<'_>, references: Vec<String>| -> Result<(), TaskError> {
            let asked = strip(question.text("question")?);
            let prompt = format!("Passage: {passage}\nQuestion: {asked}\nAnswer:");
            examples.extend(answered(prompt, references));
            Ok(())
        };
        if row.get("qa_pairs").is_none() {
            push(row, row.object("answers_spans")?.texts_or_numbers("spans")?)?;
            return Ok(examples);
        }
        for question in row.objects("qa_pairs")? {
            let mut references = spans(&question.object("answer")?)?;
            if question.get("validated_answers").is_some() {
                for answer in question.objects("validated_answers")? {
                    references.extend(spans(&answer)?);
                }
            }
            push(&question, references)?;
        }
        Ok(examples)
    }
}

/// SQuAD's answers: an object of lists in flat rows, a list of objects in its own file.
fn answers(question: &Fields<'_>) -> Result<Vec<String>, TaskError> {
    if !question.get("answers").is_some_and(Value::is_array) {
        let texts = question.object("answers")?.texts("text")?;
        return Ok(texts.into_iter().map(str::to_owned).collect());
    }
    let answers = question.objects("answers")?;
    let texts = answers.iter().map(|a| a.text("text").map(str::to_owned));
    texts.collect()
}

/// The texts of one of DROP's answers: its number, or else its date, and its spans. Unused parts may be empty or null; spans may be
/// absent beside a number or a date.
fn spans(answer: &Fields<'_>) -> Result<Vec<String>, TaskError> {
    let has = |name| answer.get(name).is_some();
    let mut number = match has("number") {
        true => answer.text_or_number("number")?,
        false => String::new(),
    };
    if number.is_empty() && has("date") {
        let date = answer.object("date")?;
        let given = ["day", "month", "year"].into_iter();
        let given = given.filter(|part| date.get(part).is_some());
        let parts: Result<Vec<_>, _> = given.map(|part| date.text_or_number(part)).collect();
        let parts = parts?.into_iter().filter(|part| !part.is_empty());
        number = parts.collect::<Vec<_>>().join(" ");
    }
    let mut texts = Vec::new();
    if has("spans") || number.is_empty() {
        texts = answer.texts_or_numbers("spans")?;
    }
    texts.insert(0, number);
    Ok(texts)
}

/// The example with these references, without duplicates; `None` if there are none.
fn answered(prompt: String, references: Vec<String>) -> Option<Example> {
    let mut distinct: Vec<String> = Vec::new();
    for reference in references {
        if !strip(&reference).is_empty() && !distinct.contains(&reference) {
            distinct.push(reference);
        }
    }
    (!distinct.is_empty()).then(|| Example::text(prompt, distinct))
}

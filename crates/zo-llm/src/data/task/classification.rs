//! Tasks with label words.
//!
//! Prompts and words are those of MeZO (arXiv 2305.17333, appendix on prompts), as its code writes them where the two differ.

use super::cloze::Cloze;
use super::example::{Example, Kind, Task};
use super::fields::{Fields, TaskError};
use crate::data::text::strip;

/// SST-2: is a film review positive?
///
/// Prompt `{sentence} It was`, then terrible or great; masked `{sentence} It was{mask}.`. Fields `sentence`, `label` (`negative` or `positive`, or 0 or 1 for them), in
/// GLUE's tsv, too.
#[derive(Debug, Clone, Copy)]
pub struct Sst2;

impl Task for Sst2 {
    fn name(&self) -> &str {
        "sst2"
    }

    fn kind(&self) -> Kind {
        Kind::Classification
    }

    fn label_words(&self) -> Vec<&str> {
        vec![" terrible", " great"]
    }

    fn read(&self, row: &Fields<'_>) -> Result<Vec<Example>, TaskError> {
        let sentence = row.text("sentence")?;
        let prompt = format!("{} It was", strip(sentence));
        let label = row.flag_named("label", ["negative", "positive"])?;
        let example = Example::choice(prompt, &self.label_words(), label);
        Ok(vec![example.with_cloze(Cloze::sentiment(sentence, None))])
    }
}

/// RTE: does a premise entail a hypothesis?
///
/// Prompt `{premise}`, new line, `Does this mean that "{hypothesis}" is true? Yes or No?`, new line; then Yes or No; masked `{premise}?{mask}, {hypothesis}`. Fields
/// `premise`, `hypothesis` (in GLUE `sentence1`, `sentence2`), `label`: `entailment` or `not_entailment`, or 0 or 1 for them.
#[derive(Debug, Clone, Copy)]
pub struct Rte;

impl Task for Rte {
    fn name(&self) -> &str {
        "rte"
    }

    fn kind(&self) -> Kind {
        Kind::Classification
    }

    fn label_words(&self) -> Vec<&str> {
        vec!["Yes", "No"]
    }

    fn read(&self, row: &Fields<'_>) -> Result<Vec<Example>, TaskError> {
        let premise = row.text(row.either("premise", "sentence1"))?;
        let hypothesis = row.text(row.either("hypothesis", "sentence2"))?;
        let prompt =
            format!("{premise}\nDoes this mean that \"{hypothesis}\" is true? Yes or No?\n");
        let label = row.class("label", &["entailment", "not_entailment"])?;
        let example = Example::choice(prompt, &self.label_words(), label);
        Ok(vec![
            example.with_cloze(Cloze::inference(premise, hypothesis)),
        ])
    }
}

/// CB: does a premise entail a hypothesis, contradict it, or neither?
///
/// Prompt `Suppose {premise} Can we infer that "{hypothesis}"? Yes, No, or Maybe?`, new line; then Yes, No or Maybe. Fields `premise`,
/// `hypothesis`, `label`: `entailment`, `contradiction` or `neutral`, or 0 to 2 for them.
#[derive(Debug, Clone, Copy)]
pub struct Cb;

impl Task for Cb {
    fn name(&self) -> &str {
        "cb"
    }

    fn kind(&self) -> Kind {
        Kind::Classification
    }

    fn label_words(&self) -> Vec<&str> {
        vec!["Yes", "No", "Maybe"]
    }

    fn read(&self, row: &Fields<'_>) -> Result<Vec<Example>, TaskError> {
        let (premise, hypothesis) = (row.text("premise")?, row.text("hypothesis")?);
        let prompt =
            format!("Suppose {premise} Can we infer that \"{hypothesis}\"? Yes, No, or Maybe?\n");
        let label = row.class("label", &["entailment", "contradiction", "neutral"])?;
        Ok(vec![Example::choice(prompt, &self.label_words(), label)])
    }
}

/// BoolQ: a passage and a yes/no question about it.
///
/// Prompt `{passage} {question}?` and a new line, then No or Yes. The question ends with one question mark and begins with a capital, as MeZO's
/// code writes it (its paper's table has neither). Fields `passage`,
/// `question`, `label` (in the data set's own release `answer`).
#[derive(Debug, Clone, Copy)]
pub struct BoolQ;

impl Task for BoolQ {
    fn name(&self) -> &str {
        "boolq"
    }

    fn kind(&self) -> Kind {
        Kind::Classification
    }

    fn label_words(&self) -> Vec<&str> {
        vec!["No", "Yes"]
    }

    fn answer_fields(&self) -> Vec<&str> {
        vec!["label", "answer"]
    }

    fn read(&self, row: &Fields<'_>) -> Result<Vec<Example>, TaskError> {
        yes_or_no(row, capitalised)
    }
}

/// The bundled rows, in BoolQ's layout, with the question as it stands: what the bundled model was trained on begins with a small letter.
#[derive(Debug, Clone, Copy)]
pub struct Opinions;

impl Task for Opinions {
    fn name(&self) -> &str {
        "opinions"
    }

    fn kind(&self) -> Kind {
        Kind::Classification
    }

    fn label_words(&self) -> Vec<&str> {
        vec!["No", "Yes"]
    }

    fn answer_fields(&self) -> Vec<&str> {
        vec!["label", "answer"]
    }

    fn read(&self, row: &Fields<'_>) -> Result<Vec<Example>, TaskError> {
        yes_or_no(row, str::to_owned)
    }
}

/// A passage and a question, which `spell` spells, without its question mark.
fn yes_or_no(row: &Fields<'_>, spell: impl Fn(&str) -> String) -> Result<Vec<Example>, TaskError> {
    let (passage, question) = (strip(row.text("passage")?), strip(row.text("question")?));
    let question = spell(question.trim_end_matches('?'));
    let prompt = format!("{passage} {question}?\n");
    let label = row.flag(row.either("label", "answer"))?;
    Ok(vec![Example::choice(prompt, &["No", "Yes"], label)])
}

/// The text with a capital first letter, as Python's `s[0].upper() + s[1:]`.
fn capitalised(text: &str) -> String {
    let mut rest = text.chars();
    let first = rest.next().map(|first| first.to_uppercase().to_string());
    format!("{}{}", first.unwrap_or_default(), rest.as_str())
}

/// WSC: does a pronoun refer to a noun phrase?
///
/// Prompt `{text}`, new line, `In the previous sentence, does the pronoun "{span2}" refer to {span1}? Yes or No?` with the pronoun in
/// lower case, new line; then No or Yes. Fields `text`, `span1_text`, `span2_text` (in SuperGLUE's files within `target`), `label`.
#[derive(Debug, Clone, Copy)]
pub struct Wsc;

impl Task for Wsc {
    fn name(&self) -> &str {
        "wsc"
    }

    fn kind(&self) -> Kind {
        Kind::Classification
    }

    fn label_words(&self) -> Vec<&str> {
        vec!["No", "Yes"]
    }

    fn read(&self, row: &Fields<'_>) -> Result<Vec<Example>, TaskError> {
        let spans = match row.get("target") {
            Some(_) => row.object("target")?,
            None => row.clone(),
        };
        let (noun, pronoun) = (spans.text("span1_text")?, spans.text("span2_text")?);
        let prompt = format!(
            "{}\nIn the previous sentence, does the pronoun \"{}\" refer to {noun}? Yes or No?\n",
            row.text("text")?,
            pronoun.to_lowercase()
        );
        let label = row.flag("label")?;
        Ok(vec![Example::choice(prompt, &self.label_words(), label)])
    }
}

/// WiC: does a word mean the same in two sentences?
///
/// Prompt `Does the word "{word}" have the same meaning in these two sentences? Yes, No?`, new line, the sentences, a new line after each;
/// then No or Yes. Fields `word`, `sentence1`, `sentence2`, `label`.
#[derive(Debug, Clone, Copy)]
pub struct Wic;

impl Task for Wic {
    fn name(&self) -> &str {
        "wic"
    }

    fn kind(&self) -> Kind {
        Kind::Classification
    }

    fn label_words(&self) -> Vec<&str> {
        vec!["No", "Yes"]
    }

    fn read(&self, row: &Fields<'_>) -> Result<Vec<Example>, TaskError> {
        let prompt = format!(
            "Does the word \"{}\" have the same meaning in these two sentences? Yes, No?\n{}\n{}\n",
            row.text("word")?,
            row.text("sentence1")?,
            row.text("sentence2")?
        );
        let label = row.flag("label")?;
        Ok(vec![Example::choice(prompt, &self.label_words(), label)])
    }
}

/// MultiRC: is this an answer to a question about a paragraph? Each answer is an example of its own.
///
/// Prompt `{paragraph}`, new line, `Question: {question}`, new line, `I found this answer "{answer}". Is that correct? Yes or No?`, new
/// line; then No or Yes. Fields `paragraph`, `question`, `answer`, `label`, or SuperGLUE's nested
/// `passage: {text, questions: [{question, answers: [{text, label}]}]}`.
#[derive(Debug, Clone, Copy)]
pub struct MultiRc;

impl Task for MultiRc {
    fn name(&self) -> &str {
        "multirc"
    }

    fn kind(&self) -> Kind {
        Kind::Classification
    }

    fn label_words(&self) -> Vec<&str> {
        vec!["No", "Yes"]
    }

    fn read(&self, row: &Fields<'_>) -> Result<Vec<Example>, TaskError> {
        let example = |paragraph: &str, question: &str, answer: &str, label: usize| {
            let prompt = format!(
                "{paragraph}\nQuestion: {question}\nI found this answer \"{answer}\". Is that correct? Yes or No?\n"
            );
            Example::choice(prompt, &self.label_words(), label)
        };
        if row.get("passage").is_none() {
            return Ok(vec![example(
                row.text("paragraph")?,
                row.text("question")?,
                row.text("answer")?,
                row.flag("label")?,
            )]);
        }
        let passage = row.object("passage")?;
        let paragraph = passage.text("text")?;
        let mut examples = Vec::new();
        for asked in passage.objects("questions")? {
            let question = asked.text("question")?;
            for answer in asked.objects("answers")? {
                let (text, label) = (answer.text("text")?, answer.flag("label")?);
                examples.push(example(paragraph, question, text, label));
            }
        }
        Ok(examples)
    }
}

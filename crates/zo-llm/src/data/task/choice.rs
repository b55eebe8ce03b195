//! Tasks whose rows bring their own options.

use super::example::{Answer, Example, Kind, Task};
use super::fields::{Fields, TaskError};
use crate::data::text::{is_space, strip};

/// COPA: which of two sentences is the cause, or the effect, of a premise?
///
/// Prompt `{premise} because` or `{premise} so`, the premise without its full stop; options the two sentences, their first word in lower
/// case unless it is "I". Fields `premise`, `choice1`, `choice2`, `question` (`cause` or `effect`), `label` (0 or 1, or
/// `choice1` or `choice2`).
#[derive(Debug, Clone, Copy)]
pub struct Copa;

impl Task for Copa {
    fn name(&self) -> &str {
        "copa"
    }

    fn kind(&self) -> Kind {
        Kind::MultipleChoice
    }

    fn read(&self, row: &Fields<'_>) -> Result<Vec<Example>, TaskError> {
        let premise = row.text("premise")?.trim_end_matches(is_space);
        let conjunction = match row.text("question")? {
            "cause" => "because",
            "effect" => "so",
            _ => return Err(row.wrong("question", "`cause` or `effect`")),
        };
        let premise = premise.strip_suffix('.').unwrap_or(premise);
        let option = |choice: &str| -> Result<String, TaskError> {
            Ok(format!(" {}", uncapitalised(strip(row.text(choice)?))))
        };
        let options = [option("choice1")?, option("choice2")?];
        let label = row.class("label", &["choice1", "choice2"])?;
        let prompt = format!("{premise} {conjunction}");
        Ok(vec![Example::choice(prompt, &options, label)])
    }
}

/// WinoGrande (ZO-Bench's): which of two names fills the gap in a sentence?
///
/// Prompt the sentence up to its `_`; options each name with the rest of the sentence. Fields `sentence`, `option1`, `option2`, `answer` (`1` or
/// `2`).
#[derive(Debug, Clone, Copy)]
pub struct WinoGrande;

impl Task for WinoGrande {
    fn name(&self) -> &str {
        "winogrande"
    }

    fn kind(&self) -> Kind {
        Kind::MultipleChoice
    }

    fn answer_fields(&self) -> Vec<&str> {
        vec!["answer"]
    }

    fn read(&self, row: &Fields<'_>) -> Result<Vec<Example>, TaskError> {
        let sentence = row.text("sentence")?;
        let parts: Vec<&str> = sentence.split('_').collect();
        let [before, after] = parts[..] else {
            return Err(row.wrong("sentence", "a sentence with one `_`"));
        };
        let prompt = before.trim_end_matches(is_space);
        let space = &before[prompt.len()..];
        let option = |name: &str| -> Result<String, TaskError> {
            Ok(format!("{space}{}{after}", row.text(name)?))
        };
        let options = [option("option1")?, option("option2")?];
        let label = match row.index("answer", 3)? {
            0 => return Err(row.wrong("answer", "1 or 2")),
            number => number - 1,
        };
        Ok(vec![Example::choice(prompt.to_owned(), &options, label)])
    }
}

fn uncapitalised(sentence: &str) -> String {
    let (first, rest) = sentence.split_at(sentence.find(' ').unwrap_or(sentence.len()));
    if first == "I" {
        sentence.to_owned()
    } else {
        format!("{}{rest}", first.to_lowercase())
    }
}

/// ReCoRD: which of a passage's names fills the gap in a sentence?
///
/// Prompt the passage with its `@highlight` lines as a list, and `-` on a new line; options the sentence with each name in place of
/// `@placeholder`, a space before it. The first name that is an answer is the label; other answers count as right, too. Answers
/// that are not among the passage's names become options as well.
///
/// Fields `passage`, `query`, `entities`, `answers`, the last two lists of names; or SuperGLUE's nested `passage: {text, entities:
/// [{start, end}]}` with positions in characters, the end included, and `qas: [{query, answers: [{text}]}]`.
#[derive(Debug, Clone, Copy)]
pub struct Record;

impl Task for Record {
    fn name(&self) -> &str {
        "record"
    }

    fn kind(&self) -> Kind {
        Kind::MultipleChoice
    }

    /// None: the answers are among the options.
    fn answer_fields(&self) -> Vec<&str> {
        Vec::new()
    }

    fn read(&self, row: &Fields<'_>) -> Result<Vec<Example>, TaskError> {
        if row.get("qas").is_none() {
            let (passage, entities) = (row.text("passage")?, row.texts("entities")?);
            let entities = entities.into_iter().map(str::to_owned).collect();
            return Ok(vec![gap(row, passage, entities, row.texts("answers")?)?]);
        }
        let passage = row.object("passage")?;
        let text = passage.text("text")?;
        let characters: Vec<char> = text.chars().collect();
        let mut entities: Vec<String> = Vec::new();
        for entity in passage.objects("entities")? {
            let start = entity.index("start", characters.len())?;
            let end = entity.index("end", characters.len())?;
            let name = characters
                .get(start..=end)
                .filter(|name| !name.is_empty())
                .ok_or_else(|| entity.wrong("end", "no less than `start`"))?;
            entities.push(name.iter().collect());
        }
        let questions = row.objects("qas")?;
        let examples = questions.iter().map(|question| {
            let answers = question.objects("answers")?;
            let answers = answers.iter().map(|answer| answer.text("text"));
            let answers: Vec<&str> = answers.collect::<Result<_, TaskError>>()?;
            gap(question, text, entities.clone(), answers)
        });
        examples.collect()
    }
}

/// The example of one sentence with a gap: `question` holds it in the field `query`.
fn gap(
    question: &Fields<'_>,
    passage: &str,
    mut names: Vec<String>,
    answers: Vec<&str>,
) -> Result<Example, TaskError> {
    const GAP: &str = "@placeholder";
    let query = question.text("query")?;
    if !query.contains(GAP) {
        return Err(question.wrong("query", "a sentence with `@placeholder`"));
    }
    names.extend(answers.iter().map(|answer| (*answer).to_owned()));
    let mut seen = std::collections::HashSet::new();
    names.retain(|name| seen.insert(name.clone()));
    let mut right = (0..names.len()).filter(|index| answers.contains(&names[*index].as_str()));
    let Some(label) = right.next() else {
        return Err(question.wrong("answers", "at least one answer"));
    };
    let also_right = right.collect();
    let options = names.iter().map(|name| query.replace(GAP, name));
    let options = options.map(|sentence| format!(" {sentence}")).collect();
    Ok(Example {
        prompt: format!("{}\n-", passage.replace("@highlight\n", "- ")),
        answer: Answer::Choice {
            options,
            label,
            also_right,
        },
        cloze: None,
    })
}

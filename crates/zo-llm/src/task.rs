//! Tasks: how a row of a data set becomes a prompt and the words that may follow it.

use serde_json::{Map, Value};
use thiserror::Error;

/// A prompt, the words that may continue it, and the right one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Example {
    /// What the model reads.
    pub prompt: String,
    /// The possible continuations, the same for every row of the task, leading space included where the prompt needs one.
    pub options: Vec<String>,
    /// Index of the right option.
    pub label: usize,
}

/// What is wrong with a task's name, or with a row.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TaskError {
    /// No task has this name.
    #[error("unknown task `{name}`: use one of {known}")]
    Unknown {
        /// The name.
        name: String,
        /// The names there are.
        known: String,
    },
    /// The row is not a JSON object.
    #[error("the row is not a JSON object: {0}")]
    NotAnObject(String),
    /// A field is missing.
    #[error("field `{0}` is missing")]
    Missing(&'static str),
    /// A field has the wrong type or value.
    #[error("field `{field}` is {found}, expected {expected}")]
    Field {
        /// Its name.
        field: &'static str,
        /// Its value.
        found: String,
        /// What it should be.
        expected: &'static str,
    },
}

/// A classification task with a fixed set of label words.
pub trait Task {
    /// The name on the command line.
    fn name(&self) -> &'static str;

    /// The label words in order of labels.
    fn options(&self) -> &'static [&'static str];

    /// The prompt of a row.
    ///
    /// # Errors
    /// If a field is missing or has the wrong type.
    fn prompt(&self, row: &Map<String, Value>) -> Result<String, TaskError>;

    /// Reads one line of a JSONL file. The label stands in the field `label`: an index or a boolean.
    ///
    /// # Errors
    /// If the line is no JSON object, or a field is missing or wrong.
    fn read(&self, line: &str) -> Result<Example, TaskError> {
        let row: Map<String, Value> = serde_json::from_str(line)
            .map_err(|error| TaskError::NotAnObject(error.to_string()))?;
        let options: Vec<String> = self.options().iter().map(|o| (*o).to_owned()).collect();
        let label = row.get("label").ok_or(TaskError::Missing("label"))?;
        let index = match label {
            Value::Bool(yes) => Some(usize::from(*yes)),
            number => number.as_u64().and_then(|n| usize::try_from(n).ok()),
        };
        let wrong = || TaskError::Field {
            field: "label",
            found: label.to_string(),
            expected: "the number of an option, counted from 0, or true or false",
        };
        let label = index.filter(|i| *i < options.len()).ok_or_else(wrong)?;
        Ok(Example {
            prompt: self.prompt(&row)?,
            options,
            label,
        })
    }
}

/// The task of this name.
///
/// # Errors
/// If there is none; the error lists those there are.
pub fn task(name: &str) -> Result<Box<dyn Task>, TaskError> {
    let tasks: [Box<dyn Task>; 2] = [Box::new(Sst2), Box::new(BoolQ)];
    let known: Vec<_> = tasks.iter().map(|task| task.name()).collect();
    let unknown = TaskError::Unknown {
        name: name.to_owned(),
        known: known.join(", "),
    };
    tasks
        .into_iter()
        .find(|task| task.name() == name)
        .ok_or(unknown)
}

fn text<'a>(row: &'a Map<String, Value>, field: &'static str) -> Result<&'a str, TaskError> {
    let value = row.get(field).ok_or(TaskError::Missing(field))?;
    value.as_str().ok_or_else(|| TaskError::Field {
        field,
        found: value.to_string(),
        expected: "a string",
    })
}

/// SST-2: is a film review positive? Fields `sentence`, `label`; MeZO's prompt `{sentence} It was`, then terrible or great.
#[derive(Debug, Clone, Copy)]
pub struct Sst2;

impl Task for Sst2 {
    fn name(&self) -> &'static str {
        "sst2"
    }

    fn options(&self) -> &'static [&'static str] {
        &[" terrible", " great"]
    }

    fn prompt(&self, row: &Map<String, Value>) -> Result<String, TaskError> {
        Ok(format!("{} It was", text(row, "sentence")?.trim()))
    }
}

/// BoolQ: a passage and a yes/no question about it. Fields `passage`, `question`, `label`; MeZO's prompt `{passage} {question}?` and a
/// new line, then No or Yes.
#[derive(Debug, Clone, Copy)]
pub struct BoolQ;

impl Task for BoolQ {
    fn name(&self) -> &'static str {
        "boolq"
    }

    fn options(&self) -> &'static [&'static str] {
        &["No", "Yes"]
    }

    fn prompt(&self, row: &Map<String, Value>) -> Result<String, TaskError> {
        let (passage, question) = (text(row, "passage")?.trim(), text(row, "question")?.trim());
        Ok(format!("{passage} {}?\n", question.trim_end_matches('?')))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(task: impl Task, line: &str) -> Result<Example, TaskError> {
        task.read(line)
    }

    #[test]
    fn prompts_follow_the_templates() {
        let example = read(Sst2, r#"{"sentence": " a gripping film . ", "label": 1}"#).unwrap();
        assert_eq!(example.prompt, "a gripping film . It was");
        assert_eq!((example.options[1].as_str(), example.label), (" great", 1));
        let line = r#"{"passage": "Anna ran.", "question": "did anna run", "label": false}"#;
        let example = read(BoolQ, line).unwrap();
        assert_eq!(
            (example.prompt.as_str(), example.label),
            ("Anna ran. did anna run?\n", 0)
        );
    }

    #[test]
    fn malformed_rows_name_the_field() {
        let message = |line| read(Sst2, line).unwrap_err().to_string();
        assert!(message(r#"{"label": 1}"#).contains("`sentence` is missing"));
        assert!(message(r#"{"sentence": 3, "label": 1}"#).contains("`sentence` is 3"));
        assert!(message(r#"{"sentence": "a"}"#).contains("`label` is missing"));
        assert!(message(r#"{"sentence": "a", "label": 2}"#).contains("`label` is 2"));
        assert!(message(r#"{"sentence": "a", "label": -1}"#).contains("`label` is -1"));
        assert!(message("{").contains("not a JSON object"));
        assert!(message("[]").contains("not a JSON object"));
    }

    #[test]
    fn an_unknown_task_is_told_the_known_ones() {
        let message = task("sst3").err().map(|error| error.to_string()).unwrap();
        assert!(
            message.contains("sst3") && message.contains("sst2, boolq"),
            "{message}"
        );
    }
}

//! What a task is, and what it turns a row into.

use serde_json::{Map, Value, json};

use super::cloze::Cloze;
use super::fields::{Fields, TaskError};

/// A prompt and what may follow it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Example {
    /// What the model reads. It does not end with a space: where one is needed, the continuation begins with it.
    pub prompt: String,
    /// What may follow, and what is right.
    pub answer: Answer,
    /// What masked language models read in place of the prompt; `None` where the task has nothing for them.
    pub cloze: Option<Cloze>,
}

/// What may follow a prompt, and what is right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// One of several given continuations.
    Choice {
        /// The continuations, each with its leading space where the prompt needs one.
        options: Vec<String>,
        /// Index of the right one, which training teaches.
        label: usize,
        /// Indices of others that also count as right (in ReCoRD, other names of the same person); usually none.
        also_right: Vec<usize>,
    },
    /// A text that the model writes.
    Text {
        /// Answers that count as right, without leading space; at least one. Training teaches the first.
        references: Vec<String>,
    },
}

impl Example {
    /// An example with given continuations, one of them right.
    pub fn choice(prompt: String, options: &[impl AsRef<str>], label: usize) -> Self {
        let options = options.iter().map(|o| o.as_ref().to_owned()).collect();
        let answer = Answer::Choice {
            options,
            label,
            also_right: Vec::new(),
        };
        Self {
            prompt,
            answer,
            cloze: None,
        }
    }

    /// An example whose answer the model writes.
    pub fn text(prompt: String, references: Vec<String>) -> Self {
        let answer = Answer::Text { references };
        Self {
            prompt,
            answer,
            cloze: None,
        }
    }

    /// The same example with a text for masked language models.
    #[must_use]
    pub fn with_cloze(self, cloze: Cloze) -> Self {
        Self {
            cloze: Some(cloze),
            ..self
        }
    }

    /// Index of the right option; `None` for a text.
    pub fn label(&self) -> Option<usize> {
        match &self.answer {
            Answer::Choice { label, .. } => Some(*label),
            Answer::Text { .. } => None,
        }
    }

    /// Whether a chosen option counts as right; never for a text.
    pub fn is_right(&self, option: usize) -> bool {
        match &self.answer {
            Answer::Choice {
                label, also_right, ..
            } => *label == option || also_right.contains(&option),
            Answer::Text { .. } => false,
        }
    }

    /// The continuation that training teaches: the right option, or the first reference in the task's format. `None` if there is
    /// none, which [`read_row`] rules out.
    pub fn target(&self, format: &AnswerFormat) -> Option<String> {
        match &self.answer {
            Answer::Choice { options, label, .. } => options.get(*label).cloned(),
            Answer::Text { references } => {
                let reference = references.first()?;
                Some(format!("{}{reference}{}", format.lead, format.stop))
            }
        }
    }

    fn check(&self, task: &dyn Task) -> Result<(), TaskError> {
        let bad = |reason: String| {
            let task = task.name().to_owned();
            Err(TaskError::Example { task, reason })
        };
        match (&self.answer, task.kind()) {
            (Answer::Text { references }, Kind::Generation) if references.is_empty() => {
                bad("it has no reference: give at least one".to_owned())
            }
            (Answer::Text { .. }, Kind::Generation) => Ok(()),
            (Answer::Text { .. }, kind) => bad(format!("its answer is a text in a {kind:?} task")),
            (Answer::Choice { .. }, Kind::Generation) => {
                bad("its answer is a choice in a Generation task".to_owned())
            }
            (
                Answer::Choice {
                    options,
                    label,
                    also_right,
                },
                kind,
            ) => {
                let count = options.len();
                let words = task.label_words();
                if let Some(index) = also_right.iter().chain([label]).find(|i| **i >= count) {
                    bad(format!("option {index} is right, but there are {count}"))
                } else if kind == Kind::Classification
                    && !options.iter().map(String::as_str).eq(words.iter().copied())
                {
                    bad(format!(
                        "its options are {options:?}, but the label words are {words:?}: they must be the same"
                    ))
                } else {
                    Ok(())
                }
            }
        }
    }
}

/// What a task asks of a model. It determines the training loss and the metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Which of the task's label words follows? Training: cross-entropy over the length-averaged log-probabilities of the words.
    /// Metric: accuracy.
    Classification,
    /// Which of the row's own options is the likeliest, by length-averaged log-probability? Training: language-model loss of the
    /// right one. Metric: accuracy.
    MultipleChoice,
    /// What text follows? Training: language-model loss of the first reference (teacher forcing). Metrics: F1 and exact match, see
    /// [`crate::metrics`].
    Generation,
}

/// The form of an answer that the model writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AnswerFormat {
    /// What separates prompt and answer. Default: a space.
    pub lead: &'static str,
    /// What ends an answer. Default: a new line.
    pub stop: &'static str,
    /// The maximum number of tokens generated per answer. Default 50.
    pub max_tokens: usize,
}

impl Default for AnswerFormat {
    fn default() -> Self {
        Self {
            lead: " ",
            stop: "\n",
            max_tokens: 50,
        }
    }
}

/// A task: prompts, continuations, and what is right.
pub trait Task {
    /// The name on the command line.
    fn name(&self) -> &str;

    /// What it asks of the model.
    fn kind(&self) -> Kind;

    /// The options of every example of a [`Kind::Classification`], in order of labels; other kinds have none (the default).
    fn label_words(&self) -> Vec<&str> {
        Vec::new()
    }

    /// The fields, of which a row has one, that say what is right and nothing else: rows without them can still be
    /// [predicted](crate::task::read_unlabelled). Default `label`.
    fn answer_fields(&self) -> Vec<&str> {
        vec!["label"]
    }

    /// Names for the columns of a csv file whose first line does not name them; none (the default): the first line always does.
    fn columns(&self) -> &[&str] {
        &[]
    }

    /// The examples in a row: one in a flat file, several where questions are nested below a passage.
    ///
    /// # Errors
    /// If a field is missing or has a wrong type or value.
    fn read(&self, row: &Fields<'_>) -> Result<Vec<Example>, TaskError>;

    /// How answers of a [`Kind::Generation`] are written. Default: up to 50 tokens, to the end of the line.
    fn answer_format(&self) -> AnswerFormat {
        AnswerFormat::default()
    }
}

/// The examples of a row, checked: they are of the task's kind, labels index the options, and a text has a reference.
///
/// # Errors
/// If the task refuses the row, or an example fails the check.
pub fn read_row(task: &dyn Task, row: &Map<String, Value>) -> Result<Vec<Example>, TaskError> {
    let examples = task.read(&Fields::new(row))?;
    for example in &examples {
        example.check(task)?;
    }
    Ok(examples)
}

/// The examples of a row that may not say what is right, and whether it does. Where it does not, the examples have an answer that means
/// nothing.
///
/// # Errors
/// As [`read_row`]. Tasks whose prompts or options depend on the answer need it.
pub fn read_unlabelled(
    task: &dyn Task,
    row: &Map<String, Value>,
) -> Result<(Vec<Example>, bool), TaskError> {
    let answers = task.answer_fields();
    // WinoGrande's way to hide an answer.
    let hidden = |name: &&str| row.get(*name).is_some_and(|value| value == "");
    let shown;
    let row = match answers.iter().any(hidden) {
        true => {
            let kept = row
                .iter()
                .filter(|(name, _)| !hidden(&name.as_str()) || !answers.contains(&name.as_str()));
            shown = kept
                .map(|(name, value)| (name.clone(), value.clone()))
                .collect();
            &shown
        }
        false => row,
    };
    let missing = match read_row(task, row) {
        Ok(examples) => return Ok((examples, true)),
        Err(TaskError::Missing { field, found }) => TaskError::Missing { field, found },
        Err(other) => return Err(other),
    };
    let given = |name: &&str| row.get(*name).is_some_and(|value| !value.is_null());
    if answers.iter().any(given) {
        return Err(missing);
    }
    // A number for options; for texts the forms in which the tasks expect them.
    let stand_ins: &[Value] = &match task.kind() {
        Kind::Generation => vec![
            json!("?"),
            json!({ "text": ["?"] }),
            json!({ "spans": ["?"] }),
        ],
        _ => vec![json!(0), json!(1)],
    };
    for name in answers {
        for stand_in in stand_ins {
            let mut row = row.clone();
            row.insert(name.to_owned(), stand_in.clone());
            match read_row(task, &row) {
                Ok(examples) => return Ok((examples, false)),
                // Something else is missing as well: that is what the reader must know.
                Err(TaskError::Missing { field, found })
                    if field.split('.').next() != Some(name) =>
                {
                    return Err(TaskError::Missing { field, found });
                }
                Err(_) => {}
            }
        }
    }
    Err(missing)
}

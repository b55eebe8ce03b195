//! Tasks: how a row of a data set becomes prompts, what may follow them, and what is right.
//!
//! [`rows`] reads the files of a data set, a [`Task`] makes [`Example`]s of each row, [`split`] draws rows by seed. [`task()`] finds
//! the eleven tasks of MeZO by name. A task of your own says how one row reads:
//!
//! ```
//! use serde_json::json;
//! use zo_llm::task::{Example, Fields, Kind, Task, TaskError, read_row};
//!
//! struct Spam;
//!
//! impl Task for Spam {
//!     fn name(&self) -> &str {
//!         "spam"
//!     }
//!     fn kind(&self) -> Kind {
//!         Kind::Classification
//!     }
//!     fn label_words(&self) -> &[&str] {
//!         &[" No", " Yes"]
//!     }
//!     fn read(&self, row: &Fields<'_>) -> Result<Vec<Example>, TaskError> {
//!         let prompt = format!("{} Is this spam?", row.text("mail")?);
//!         Ok(vec![Example::choice(prompt, self.label_words(), row.flag("label")?)])
//!     }
//! }
//!
//! let row = json!({"mail": "You won!", "label": true});
//! let examples = read_row(&Spam, row.as_object().unwrap())?;
//! assert_eq!(examples[0].prompt, "You won! Is this spam?");
//! assert_eq!(examples[0].label(), Some(1));
//! # Ok::<(), TaskError>(())
//! ```

pub mod rows;
pub mod split;

mod choice;
mod classification;
mod fields;
mod generation;

use serde_json::{Map, Value};

pub use choice::{Copa, Record};
pub use classification::{BoolQ, Cb, MultiRc, Rte, Sst2, Wic, Wsc};
pub use fields::{Fields, TaskError};
pub use generation::{DropQa, Squad};

/// A prompt and what may follow it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Example {
    /// What the model reads. It ends without a space: where one is due, the continuation begins with it.
    pub prompt: String,
    /// What may follow, and what is right.
    pub answer: Answer,
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
        /// Indices of others that count as right, too (in ReCoRD, other names of the same person); mostly none.
        also_right: Vec<usize>,
    },
    /// A text of the model's own.
    Text {
        /// Answers that count as right, without leading space; training teaches the first. At least one.
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
        Self { prompt, answer }
    }

    /// An example to which the model writes the answer.
    pub fn text(prompt: String, references: Vec<String>) -> Self {
        let answer = Answer::Text { references };
        Self { prompt, answer }
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
                let words = task.label_words().iter().copied();
                if let Some(index) = also_right.iter().chain([label]).find(|i| **i >= count) {
                    bad(format!("option {index} is right, but there are {count}"))
                } else if kind == Kind::Classification
                    && !options.iter().map(String::as_str).eq(words)
                {
                    let words = task.label_words();
                    bad(format!(
                        "its options are {options:?}, the label words {words:?}: they must be the same"
                    ))
                } else {
                    Ok(())
                }
            }
        }
    }
}

/// What a task asks of a model. It decides the training loss and the measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Which of the task's label words follows? Training: cross-entropy over the length-averaged log-probabilities of the words.
    /// Measure: accuracy.
    Classification,
    /// Which of the row's own options is the likeliest, by length-averaged log-probability? Training: language-model loss of the
    /// right one. Measure: accuracy.
    MultipleChoice,
    /// What text follows? Training: language-model loss of the first reference (teacher forcing). Measures: F1 and exact match, see
    /// [`crate::metrics`].
    Generation,
}

/// The form of an answer that the model writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AnswerFormat {
    /// What stands between prompt and answer. Default: a space.
    pub lead: &'static str,
    /// What ends an answer. Default: a new line.
    pub stop: &'static str,
    /// The most tokens generated for one. Default 50.
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
    fn label_words(&self) -> &[&str] {
        &[]
    }

    /// The examples that a row holds: one in a flat file, several where questions are nested below a passage.
    ///
    /// # Errors
    /// If a field is missing or has a wrong type or value.
    fn read(&self, row: &Fields<'_>) -> Result<Vec<Example>, TaskError>;

    /// How answers of a [`Kind::Generation`] are written. Default: up to 50 tokens, to the end of the line.
    fn answer_format(&self) -> AnswerFormat {
        AnswerFormat::default()
    }
}

/// The examples of a row, checked: they are of the task's kind, labels are among the options, and a text has a reference.
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

/// The tasks of MeZO, in the order of its tables.
pub fn tasks() -> [Box<dyn Task>; 11] {
    [
        Box::new(Sst2),
        Box::new(Rte),
        Box::new(Cb),
        Box::new(BoolQ),
        Box::new(Wsc),
        Box::new(Wic),
        Box::new(MultiRc),
        Box::new(Copa),
        Box::new(Record),
        Box::new(Squad),
        Box::new(DropQa),
    ]
}

/// The task of this name: sst2, rte, cb, boolq, wsc, wic, multirc, copa, record, squad or drop.
///
/// # Errors
/// If there is none; the error lists those there are.
pub fn task(name: &str) -> Result<Box<dyn Task>, TaskError> {
    let known = tasks().map(|task| task.name().to_owned()).join(", ");
    let found = tasks().into_iter().find(|task| task.name() == name);
    found.ok_or_else(|| TaskError::Unknown {
        name: name.to_owned(),
        known,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// A task that makes the example it holds of every row.
    struct Fixed(Kind, Example);

    impl Task for Fixed {
        fn name(&self) -> &str {
            "fixed"
        }

        fn kind(&self) -> Kind {
            self.0
        }

        fn label_words(&self) -> &[&str] {
            &["No", "Yes"]
        }

        fn read(&self, _: &Fields<'_>) -> Result<Vec<Example>, TaskError> {
            Ok(vec![self.1.clone()])
        }
    }

    fn choice(options: &[&str], label: usize) -> Example {
        Example::choice("Well?".to_owned(), options, label)
    }

    fn text(references: &[&str]) -> Example {
        let references = references.iter().map(|r| (*r).to_owned()).collect();
        Example::text("Well?".to_owned(), references)
    }

    #[test]
    fn examples_must_fit_their_task() {
        let check = |kind, example| read_row(&Fixed(kind, example), &Map::new());
        let refused = |kind, example: &Example, words: &str| {
            let message = check(kind, example.clone()).unwrap_err().to_string();
            assert!(
                message.contains("fixed") && message.contains(words),
                "{message}"
            );
        };
        let (class, pick, write) = (Kind::Classification, Kind::MultipleChoice, Kind::Generation);
        let good = choice(&["No", "Yes"], 1);
        assert_eq!(
            check(class, good.clone()).unwrap(),
            std::slice::from_ref(&good)
        );
        assert!(check(pick, choice(&["a", "b", "c"], 2)).is_ok());
        assert!(check(write, text(&[""])).is_ok());
        refused(class, &choice(&["No", "Yes"], 2), "option 2 is right");
        refused(class, &choice(&["Yes", "No"], 1), "label words");
        refused(pick, &choice(&[], 0), "there are 0");
        refused(pick, &text(&["a"]), "a text in a MultipleChoice task");
        refused(write, &good, "a choice");
        refused(write, &text(&[]), "no reference");
        let mut several = choice(&["a", "b", "c"], 0);
        if let Answer::Choice { also_right, .. } = &mut several.answer {
            also_right.extend([2, 3]);
        }
        refused(pick, &several, "option 3 is right");
    }

    #[test]
    fn targets_are_what_training_teaches() {
        let format = AnswerFormat::default();
        let (chosen, written) = (choice(&[" a", " b"], 1), text(&["Paris", "in Paris"]));
        assert_eq!(chosen.target(&format).as_deref(), Some(" b"));
        assert_eq!(written.target(&format).as_deref(), Some(" Paris\n"));
        assert_eq!((chosen.label(), written.label()), (Some(1), None));
        assert!(chosen.is_right(1) && !chosen.is_right(0) && !written.is_right(0));
        assert_eq!(choice(&[], 0).target(&format), None);
    }

    #[test]
    fn tasks_have_their_names() {
        for name in ["sst2", "rte", "cb", "boolq", "wsc", "wic", "multirc"] {
            let task = task(name).unwrap();
            assert_eq!((task.name(), task.kind()), (name, Kind::Classification));
            assert!(task.label_words().len() >= 2);
        }
        for (name, kind) in [
            ("copa", Kind::MultipleChoice),
            ("record", Kind::MultipleChoice),
            ("squad", Kind::Generation),
            ("drop", Kind::Generation),
        ] {
            let task = task(name).unwrap();
            assert_eq!((task.name(), task.kind()), (name, kind));
            assert!(task.label_words().is_empty());
        }
        let message = task("sst3").err().unwrap().to_string();
        assert!(
            message.contains("`sst3`") && message.contains("sst2, rte, cb, boolq"),
            "{message}"
        );
    }

    #[test]
    fn rows_of_a_task_of_ones_own_are_checked() {
        let row = json!({"anything": 1});
        let task = Fixed(Kind::Classification, choice(&["No", "Yes"], 0));
        let examples = read_row(&task, row.as_object().unwrap()).unwrap();
        assert_eq!(examples.len(), 1);
    }
}

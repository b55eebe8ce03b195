//! Tasks: how a row of a data set becomes prompts, what may follow them, and what is right.
//!
//! [`rows`] reads the files of a data set, a [`Task`] turns each row into [`Example`]s, [`split`] draws rows by seed. [`task()`] finds
//! MeZO's and ZO-Bench's tasks by name. Your own is a [`TemplateTask`], or defines how to read a row:
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
//!     fn label_words(&self) -> Vec<&str> {
//!         vec![" No", " Yes"]
//!     }
//!     fn read(&self, row: &Fields<'_>) -> Result<Vec<Example>, TaskError> {
//!         let prompt = format!("{} Is this spam?", row.text("mail")?);
//!         Ok(vec![Example::choice(prompt, &self.label_words(), row.flag("label")?)])
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
mod cloze;
mod example;
mod few_shot;
mod fields;
mod generation;
mod template;

pub use choice::{Copa, Record, WinoGrande};
pub use classification::{BoolQ, Cb, MultiRc, Opinions, Rte, Sst2, Wic, Wsc};
pub use cloze::{Cloze, Piece};
pub use example::{Answer, AnswerFormat, Example, Kind, Task, read_row, read_unlabelled};
pub use few_shot::{Mnli, Snli, Sst5, Trec};
pub use fields::{Fields, TaskError};
pub use generation::{DropQa, Squad};
pub use template::{TemplateError, TemplateTask};

/// The tasks of MeZO in the order of its tables, those for OPT before those for RoBERTa, ZO-Bench's WinoGrande, and that
/// of the bundled rows.
pub fn tasks() -> [Box<dyn Task>; 17] {
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
        Box::new(Sst5),
        Box::new(Snli),
        Box::new(Mnli),
        Box::new(Trec),
        Box::new(WinoGrande),
        Box::new(Opinions),
    ]
}

/// The task of this name: sst2, rte, cb, boolq, wsc, wic, multirc, copa, record, squad, drop, sst5, snli, mnli, trec,
/// winogrande or opinions.
///
/// # Errors
/// If there is none; the error lists the known names.
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
    use serde_json::{Map, json};

    /// A task that turns every row into the example it holds.
    struct Fixed(Kind, Example);

    impl Task for Fixed {
        fn name(&self) -> &str {
            "fixed"
        }

        fn kind(&self) -> Kind {
            self.0
        }

        fn label_words(&self) -> Vec<&str> {
            vec!["No", "Yes"]
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
        for name in [
            "sst2", "rte", "cb", "boolq", "wsc", "wic", "multirc", "sst5", "snli", "mnli", "trec",
        ] {
            let task = task(name).unwrap();
            assert_eq!((task.name(), task.kind()), (name, Kind::Classification));
            assert!(task.label_words().len() >= 2);
        }
        for (name, kind) in [
            ("copa", Kind::MultipleChoice),
            ("record", Kind::MultipleChoice),
            ("winogrande", Kind::MultipleChoice),
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
    fn rows_of_a_custom_task_are_checked() {
        let row = json!({"anything": 1});
        let task = Fixed(Kind::Classification, choice(&["No", "Yes"], 0));
        let examples = read_row(&task, row.as_object().unwrap()).unwrap();
        assert_eq!(examples.len(), 1);
    }
}

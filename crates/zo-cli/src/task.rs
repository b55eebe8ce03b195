//! `--task`, or a task of one's own by `--template`.

use clap::Args;
use zo_llm::task::{Task, TemplateTask, task};

use crate::bundled::{LAYOUT, TASK};
use crate::exit::Usage;
use crate::values;

/// The task.
#[derive(Args, Debug, Clone)]
pub struct TaskArgs {
    /// Task: how a row becomes a prompt, and what is right
    #[arg(long, help_heading = "Data", default_value = TASK, value_parser = values::tasks())]
    pub task: String,
    /// A task of your own: the prompt, with the fields of a row in braces, as in "{sentence} It was"
    #[arg(
        long,
        help_heading = "Data of your own",
        conflicts_with = "task",
        allow_hyphen_values = true
    )]
    pub template: Option<String>,
    /// Classification: the words to choose from, in the order of the labels
    #[arg(long, help_heading = "Data of your own", value_delimiter = ',', requires = "template", conflicts_with_all = ["options", "answer"])]
    pub words: Option<Vec<String>>,
    /// Classification and choice: the field that says what is right, by number from 0 or by name
    #[arg(
        long,
        help_heading = "Data of your own",
        requires = "template",
        default_value = "label",
        value_name = "FIELD"
    )]
    pub label: String,
    /// Classification: what the label's field says in place of the words, in the same order [default: the words]
    #[arg(
        long,
        help_heading = "Data of your own",
        value_delimiter = ',',
        requires = "words"
    )]
    pub labels: Option<Vec<String>>,
    /// Choice: the fields of the options, or one that holds a list of them
    #[arg(
        long,
        help_heading = "Data of your own",
        value_delimiter = ',',
        requires = "template",
        conflicts_with = "answer",
        value_name = "FIELDS"
    )]
    pub options: Option<Vec<String>>,
    /// Generation: the field of the answer
    #[arg(
        long,
        help_heading = "Data of your own",
        requires = "template",
        value_name = "FIELD"
    )]
    pub answer: Option<String>,
    /// Generation: tokens of an answer at most [default: 50]
    #[arg(
        long,
        help_heading = "Data of your own",
        requires = "answer",
        value_name = "N"
    )]
    pub answer_tokens: Option<usize>,
}

impl TaskArgs {
    /// The task.
    ///
    /// # Errors
    /// If its name is unknown, or the template makes no sense.
    pub fn task(&self) -> Result<Box<dyn Task>, Usage> {
        let Some(template) = &self.template else {
            return task(&self.task).map_err(Usage::of);
        };
        let own = match (&self.words, &self.options, &self.answer) {
            (Some(words), None, None) => {
                let own = TemplateTask::classification(template, words, &self.label);
                own.and_then(|own| match &self.labels {
                    Some(labels) => own.with_labels(labels),
                    None => Ok(own),
                })
            }
            (None, Some(options), None) => TemplateTask::choice(template, options, &self.label),
            (None, None, Some(answer)) => {
                let own = TemplateTask::generation(template, answer);
                own.map(|own| match self.answer_tokens {
                    Some(tokens) => own.with_max_tokens(tokens),
                    None => own,
                })
            }
            _ => {
                return Err(Usage(
                    "--template needs one of --words (which of these follows?), --options (which of a row's own?) and --answer (what text?)"
                        .to_owned(),
                ));
            }
        };
        Ok(Box::new(own.map_err(Usage::of)?))
    }

    /// Refuses the bundled rows for a task whose layout they do not have.
    pub(crate) fn check_bundled(&self, task: &dyn Task) -> Result<(), Usage> {
        if self.template.is_some() || [TASK, LAYOUT].contains(&task.name()) {
            return Ok(());
        }
        Err(Usage(format!(
            "--task {} needs --data, the folder of its rows: the bundled synthetic rows have only the layout of {LAYOUT}",
            task.name()
        )))
    }
}

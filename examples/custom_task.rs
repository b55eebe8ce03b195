//! A task of your own: all you have to say is how to read a row.
//!
//! ```text
//! cargo run --release --example custom_task
//! ```
//!
//! `Dataset::load` takes the task like one of the library's, and fine-tuning goes on from there as in `opt_superglue`.

use std::error::Error;
use std::path::Path;
use std::process::ExitCode;

use zo_cli::exit::exit;
use zo_llm::dataset::Split;
use zo_llm::task::rows::read_examples;
use zo_llm::task::{Answer, Example, Fields, Kind, Task, TaskError};

/// Has a ticket to be answered at once?
struct Urgency;

impl Task for Urgency {
    fn name(&self) -> &str {
        "urgency"
    }

    fn kind(&self) -> Kind {
        Kind::Classification
    }

    fn label_words(&self) -> Vec<&str> {
        vec![" later", " now"]
    }

    fn read(&self, row: &Fields<'_>) -> Result<Vec<Example>, TaskError> {
        let (customer, text) = (row.object("customer")?, row.text("text")?);
        let prompt = format!("{} writes: {text} I answer", customer.text("name")?);
        let label = row.class("answer", &["later", "now"])?;
        Ok(vec![Example::choice(prompt, &self.label_words(), label)])
    }
}

const TICKETS: &str = r#"
{"customer": {"name": "Ada"}, "text": "The server is down!", "answer": "now"}
{"customer": {"name": "Ben"}, "text": "Might the logo be larger?", "answer": "later"}
"#;

fn main() -> ExitCode {
    exit(run())
}

fn run() -> Result<(), Box<dyn Error>> {
    let dir = std::env::temp_dir().join(format!("custom-task-{}", std::process::id()));
    std::fs::create_dir_all(&dir)?;
    let shown = show(&dir, TICKETS);
    // The message for a row that does not fit.
    let refused = show(&dir, &TICKETS.replace("Ben\"", "Ben\", \"name\": 7"));
    std::fs::remove_dir_all(&dir)?;
    shown?;
    match refused {
        Err(error) => println!("refused: {error}"),
        Ok(()) => return Err("a number is not a name".into()),
    }
    Ok(())
}

fn show(dir: &Path, tickets: &str) -> Result<(), Box<dyn Error>> {
    std::fs::write(dir.join("train.jsonl"), tickets)?;
    for (example, place) in read_examples(&Urgency, dir, Split::Train, None)? {
        println!("{place}\n  {:?}", example.prompt);
        if let Answer::Choice { options, .. } = &example.answer {
            for (index, option) in options.iter().enumerate() {
                let verdict = ["wrong", "right"][usize::from(example.is_right(index))];
                println!("  {option:?} is {verdict}");
            }
        }
    }
    Ok(())
}

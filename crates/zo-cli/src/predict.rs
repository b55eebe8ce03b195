//! `zo predict`: labels and scores for rows that have none.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use serde_json::{Map, Value, json};
use thiserror::Error;
use zo_llm::dataset::{Encoding, Prediction, predict};
use zo_llm::replace::replace_bytes;
use zo_llm::task::rows::{RowExample, read_file};
use zo_llm::task::{Answer, Kind};

use crate::data::encode;
use crate::device::device;
use crate::exit::Usage;
use crate::model::ReadyArgs;
use crate::task::TaskArgs;

/// Write labels and scores, or generated answers, for rows that have none.
#[derive(Args, Debug, Clone)]
pub struct PredictArgs {
    /// Read flags from a TOML file, for example the run.toml of a run: what only training needs is passed over
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The model.
    #[command(flatten)]
    pub ready: ReadyArgs,
    /// The task.
    #[command(flatten)]
    pub task: TaskArgs,
    /// File of the rows, as jsonl, tsv, csv, json or parquet
    #[arg(long, value_name = "FILE")]
    pub input: PathBuf,
    /// File for the answers, whose ending says what it is: .jsonl or .csv. One that exists is replaced
    #[arg(long, value_name = "FILE", id = "output")]
    pub output: PathBuf,
    /// Rows computed at once
    #[arg(long, default_value_t = 16)]
    pub batch: usize,
    /// Cut prompts that do not fit into the context at the front
    #[arg(long, help_heading = "Data", num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false,
        hide_default_value = true, hide_possible_values = true, value_name = "BOOL", action = clap::ArgAction::Set)]
    pub cut: bool,
}

/// Why answers cannot be written.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum OutputError {
    /// The file cannot be written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A row cannot be written as values separated by commas.
    #[error("{path}: {source}")]
    Csv {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: Box<csv::Error>,
    },
}

#[derive(Clone, Copy)]
enum Format {
    Jsonl,
    Csv,
}

/// Predicts as the flags say.
///
/// # Errors
/// What is wrong with them, or what went wrong.
pub fn run(args: &PredictArgs) -> Result<(), Box<dyn Error>> {
    if args.batch == 0 {
        return Err(Usage("--batch is 0: it must be at least 1".to_owned()).into());
    }
    let format = match args.output.extension().and_then(|ending| ending.to_str()) {
        Some("jsonl" | "ndjson") => Format::Jsonl,
        Some("csv") => Format::Csv,
        _ => {
            return Err(Usage(format!(
                "--output {}: its name must end with .jsonl or .csv",
                args.output.display()
            ))
            .into());
        }
    };
    let device = device(&args.ready.model.device)?;
    let task = args.task.task()?;
    let task = task.as_ref();
    let rows = read_file(task, &args.input, None, false)?;
    let (checkpoint, _) = args.ready.load(&device)?;
    let (model, pad) = (&checkpoint.model, checkpoint.config.pad_token_id());
    let encoding = Encoding {
        cut: args.cut,
        ..Encoding::default()
    };
    let dataset = encode(
        task,
        &rows,
        &checkpoint.tokenizer,
        model.context(),
        &encoding,
    )?;
    let found = predict(model, &dataset, args.batch, pad, &device)?;
    let labels = match (task.kind(), &args.task.labels) {
        (Kind::Classification, Some(labels)) => labels.clone(),
        _ => Vec::new(),
    };
    let answered = rows.iter().zip(&found);
    let answered: Vec<_> = answered
        .map(|(row, found)| answer(row, found, &labels))
        .collect();
    write(&args.output, format, &answered)?;
    let right = (rows.iter().zip(&found)).filter(|(row, found)| {
        row.labelled
            && found
                .option
                .is_some_and(|option| row.example.is_right(option))
    });
    let labelled = rows.iter().filter(|row| row.labelled).count();
    let known = match (labelled, task.kind()) {
        (0, _) | (_, Kind::Generation) => String::new(),
        _ => format!(
            "; {} of {labelled} that say what is right are right",
            right.count()
        ),
    };
    println!("{} answers in {}{known}", rows.len(), args.output.display());
    Ok(())
}

/// What is written for a row: its fields, then what was found.
struct Answered {
    fields: Arc<Map<String, Value>>,
    found: Vec<(String, Value)>,
}

/// What was found for a row. Options go by `labels` if there are any.
fn answer(row: &RowExample, prediction: &Prediction, labels: &[String]) -> Answered {
    let mut found = Vec::new();
    let mut put = |name: &str, value: Value| {
        // The row's own fields stay as they are.
        let mut name = name.to_owned();
        while row.fields.contains_key(&name) {
            name.insert(0, '_');
        }
        found.push((name, value));
    };
    match &row.example.answer {
        Answer::Text { .. } => put("predicted", json!(prediction.text)),
        Answer::Choice { options, .. } => {
            let chosen = prediction.option;
            let named = |option: usize| {
                let name = labels.get(option).or(options.get(option));
                name.map_or("", |name| name.trim())
            };
            put("predicted", json!(chosen.map(named)));
            put("predicted_index", json!(chosen));
            put(
                "score",
                json!(chosen.map(|option| prediction.shares[option])),
            );
            put("scores", json!(prediction.shares));
        }
    }
    let fields = Arc::clone(&row.fields);
    Answered { fields, found }
}

/// Writes all rows or none.
fn write(path: &Path, format: Format, rows: &[Answered]) -> Result<(), OutputError> {
    let bytes = match format {
        Format::Jsonl => {
            let line = |row: &Answered| {
                let mut all = (*row.fields).clone();
                all.extend(row.found.iter().cloned());
                format!("{}\n", Value::Object(all))
            };
            rows.iter().map(line).collect::<String>().into_bytes()
        }
        Format::Csv => csv(rows).map_err(|source| OutputError::Csv {
            path: path.to_owned(),
            source: Box::new(source),
        })?,
    };
    replace_bytes(path, &bytes).map_err(|source| OutputError::Io {
        path: path.to_owned(),
        source,
    })
}

/// A column for each field of any row, then one for everything found; what is not a text is written as JSON.
fn csv(rows: &[Answered]) -> Result<Vec<u8>, csv::Error> {
    let fields = rows.iter().flat_map(|row| row.fields.keys());
    let found = rows
        .iter()
        .flat_map(|row| row.found.iter().map(|(name, _)| name));
    let mut columns: Vec<&String> = Vec::new();
    for name in fields.chain(found) {
        if !columns.contains(&name) {
            columns.push(name);
        }
    }
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(&columns)?;
    for row in rows {
        let cell = |name: &&String| {
            let found = row.found.iter().find(|(found, _)| found == *name);
            match found.map(|(_, value)| value).or(row.fields.get(*name)) {
                None | Some(Value::Null) => String::new(),
                Some(Value::String(text)) => text.clone(),
                Some(value) => value.to_string(),
            }
        };
        writer.write_record(columns.iter().map(cell))?;
    }
    writer
        .into_inner()
        .map_err(|error| error.into_error().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_those_of_all_rows() {
        let row = |fields: Value, found: &[(&str, Value)]| Answered {
            fields: Arc::new(fields.as_object().cloned().unwrap()),
            found: (found.iter())
                .map(|(name, value)| ((*name).to_owned(), value.clone()))
                .collect(),
        };
        let rows = [
            row(json!({"a": "x, \"y\"", "z": 1}), &[("p", json!("No"))]),
            row(json!({"z": null, "c": 2}), &[("p", json!([0.5]))]),
        ];
        let text = String::from_utf8(csv(&rows).unwrap()).unwrap();
        assert_eq!(text, "a,z,c,p\n\"x, \"\"y\"\"\",1,,No\n,,2,[0.5]\n");
    }
}

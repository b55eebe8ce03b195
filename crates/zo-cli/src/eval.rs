//! `zo eval`: how well a model does on held-out rows.

use std::error::Error;
use std::path::PathBuf;

use clap::Args;
use serde_json::json;
use zo_llm::dataset::{Encoding, Split, evaluate};

use crate::bundled;
use crate::data::{encode, rows_name};
use crate::device::device;
use crate::exit::Usage;
use crate::model::ReadyArgs;
use crate::output::write;
use crate::task::TaskArgs;
use zo_llm::task::rows::{read_file, read_split};

/// Evaluate a model, or one with an adapter, on held-out rows.
#[derive(Args, Debug, Clone)]
pub struct EvalArgs {
    /// Read flags from a TOML file, for example the run.toml of a run: what only training needs is passed over
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The model.
    #[command(flatten)]
    pub ready: ReadyArgs,
    /// The task.
    #[command(flatten)]
    pub task: TaskArgs,
    /// Folder of the data set, whose held-out rows are used [default: bundled synthetic rows]
    #[arg(long, help_heading = "Data")]
    pub data: Option<PathBuf>,
    /// File of the held-out rows, in place of the folder's
    #[arg(long, help_heading = "Data")]
    pub eval_file: Option<PathBuf>,
    /// Evaluate on the first N rows only
    #[arg(long, help_heading = "Data", value_name = "N")]
    pub eval_rows: Option<usize>,
    /// Cut prompts that do not fit into the context at the front
    #[arg(long, help_heading = "Data", num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false,
        hide_default_value = true, hide_possible_values = true, value_name = "BOOL", action = clap::ArgAction::Set)]
    pub cut: bool,
    /// Rows computed at once
    #[arg(long, default_value_t = 16)]
    pub batch: usize,
    /// Write the result to a JSON file as well
    #[arg(long, value_name = "FILE", id = "result")]
    pub result: Option<PathBuf>,
}

/// Evaluates as the flags say.
///
/// # Errors
/// What is wrong with them, or what went wrong.
pub fn run(args: &EvalArgs) -> Result<(), Box<dyn Error>> {
    if args.batch == 0 {
        return Err(Usage("--batch is 0: it must be at least 1".to_owned()).into());
    }
    let device = device(&args.ready.model.device)?;
    let task = args.task.task()?;
    let task = task.as_ref();
    let rows = match (&args.eval_file, &args.data) {
        (Some(file), _) => read_file(task, file, args.eval_rows, true)?,
        (None, Some(dir)) => read_split(task, dir, Split::Dev, args.eval_rows)?,
        (None, None) => {
            args.task.check_bundled(task)?;
            read_split(task, bundled::rows()?.path(), Split::Dev, args.eval_rows)?
        }
    };
    let (checkpoint, tuning) = args.ready.load(&device)?;
    let (model, config) = (&checkpoint.model, &checkpoint.config);
    let encoding = Encoding {
        cut: args.cut,
        ..Encoding::default()
    };
    let rows = encode(
        task,
        &rows,
        &checkpoint.tokenizer,
        model.context(),
        &encoding,
    )?;
    let found = evaluate(model, &rows, args.batch, config.pad_token_id(), &device)?;
    let name = match &args.eval_file {
        Some(_) => task.name().to_owned(),
        None => rows_name(args.data.as_deref(), task),
    };
    let tuned = tuning.map_or(String::new(), |tuning| format!(", {tuning} adapter"));
    let model = args.ready.model.name(args.ready.model.folder()?.as_deref());
    println!("{model}{tuned} on {} held-out rows of {name}", rows.len());
    println!("  accuracy  {:8.4}", found.accuracy);
    if let Some(f1) = found.f1 {
        println!("  F1        {f1:8.4}");
    }
    if let (Some(f1), Some(matthews)) = (found.macro_f1, found.matthews) {
        println!("  macro-F1  {f1:8.4}\n  Matthews  {matthews:8.4}");
    }
    println!("  loss      {:8.4}", found.loss);
    if let Some(note) = found.note() {
        eprintln!("note: {note}");
    }
    if let Some(path) = &args.result {
        let result = json!({
            "model": model, "task": name, "rows": rows.len(), "accuracy": found.accuracy, "f1": found.f1,
            "macro_f1": found.macro_f1, "matthews": found.matthews, "loss": found.loss,
            "note": found.note(),
        });
        write(path, &format!("{result:#}\n"))?;
    }
    Ok(())
}

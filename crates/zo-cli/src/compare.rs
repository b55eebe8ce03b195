//! `zo compare`: every method at an equal number of forwards, each at the best learning rate of a small grid.
//!
//! Without arguments: the bundled model and task. The learning rates tried are the method's own times 1/3, 1, 3 and 10; the one with the lowest loss
//! on the held-out rows for a separate seed is then run for every seed. Writes `compare.json`, `compare.md` and `compare.svg`.

use std::error::Error;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

use burn::module::Module;
use burn::tensor::Device;
use clap::Parser;
use serde::Serialize;
use zo_llm::dataset::{Dataset, Evaluation, Split};
use zo_llm::finetune::{Event, FinetuneConfig, finetune};
use zo_llm::{Checkpoint, Dtype, Tuning, load, task};
use zo_optim::Noise;

use crate::bundled;
use crate::data::rows_name;
use crate::methods::{self, Built, Choice, Flags, Shared, autodiff};
use crate::output::write;
use crate::plot;
use crate::run::new_folder;
use crate::values;

/// Compare the methods at an equal number of forwards.
#[derive(Parser, Debug)]
#[command(name = "compare")]
pub struct CompareArgs {
    /// Folder of the model, as Hugging Face lays it out [default: the bundled tiny OPT]
    #[arg(long)]
    model: Option<PathBuf>,
    /// Folder of the data set: train.* and dev.* [default: bundled synthetic rows in the layout of boolq]
    #[arg(long)]
    data: Option<PathBuf>,
    /// Task
    #[arg(long, default_value = bundled::TASK, value_parser = values::tasks())]
    task: String,
    /// Methods, separated by commas [default: every method this build has]
    #[arg(long, value_delimiter = ',', value_parser = values::methods(), hide_possible_values = true)]
    methods: Vec<String>,
    /// Evaluations of the objective in a run
    #[arg(long, default_value_t = 400)]
    forwards: usize,
    /// MeZO's learning rate, in the middle of its grid; those of other methods are in proportion [default: 1e-6; bundled: 1e-4]
    #[arg(long, allow_hyphen_values = true)]
    lr: Option<f64>,
    /// Factors on the learning rate
    #[arg(long, value_delimiter = ',', default_values_t = [1.0 / 3.0, 1.0, 3.0, 10.0])]
    grid: Vec<f64>,
    /// Seeds of the final runs: 0, 1, ..
    #[arg(long, default_value_t = 3)]
    seeds: u64,
    /// Noise
    #[arg(long, alias = "sampler", default_value = "gaussian", value_parser = values::of::<Noise>(&["gaussian", "rademacher"]))]
    noise: Noise,
    /// Rows in a batch
    #[arg(long, default_value_t = 16)]
    batch: usize,
    /// Train on the first N rows only
    #[arg(long)]
    train_rows: Option<usize>,
    /// Evaluate on the first N rows only
    #[arg(long)]
    eval_rows: Option<usize>,
    /// Folder for the results [default: one named by the time in runs]
    #[arg(long)]
    out: Option<PathBuf>,
}

/// A learning rate that was tried, and the loss it led to.
#[derive(Debug, Clone, Copy, Serialize)]
struct Tried {
    lr: f64,
    loss: f64,
}

/// The results of one method.
#[derive(Debug, Serialize)]
struct Row {
    method: &'static str,
    steps: usize,
    grid: Vec<Tried>,
    lr: f64,
    /// One for each seed; infinite, in JSON null, for a run that diverged, whose accuracy is NaN, in JSON null.
    losses: Vec<f64>,
    accuracies: Vec<f64>,
    /// Mean seconds of a run's steps.
    seconds: f64,
}

/// What all runs share.
struct Bench {
    args: CompareArgs,
    checkpoint: Checkpoint,
    train: Dataset,
    dev: Dataset,
    device: Device,
    /// What the rows are called.
    rows: String,
}

/// The seed the learning rates are compared with; not one of those reported.
const GRID_SEED: u64 = 1000;

/// Compares as the flags say.
///
/// # Errors
/// What is wrong with them, or what went wrong.
pub fn run(args: CompareArgs) -> Result<(), Box<dyn Error>> {
    let chosen = chosen_methods(&args.methods)?;
    let mezo_lr = match args.lr {
        Some(lr) => lr,
        None if args.model.is_none() => methods::BUNDLED_LR,
        None => 1e-6,
    };
    let device = Device::default();
    let checkpoint = match &args.model {
        Some(dir) => load(dir, Dtype::F32, &device)?,
        None => load(bundled::model()?.path(), Dtype::F32, &device)?,
    };
    let task = task::task(&args.task)?;
    let rows = rows_name(args.data.as_deref(), task.as_ref());
    let unpacked;
    let data = match &args.data {
        Some(dir) => dir,
        None => {
            unpacked = bundled::rows()?;
            unpacked.path()
        }
    };
    let read = |split, rows| {
        let context = checkpoint.config.context();
        Dataset::load(
            task.as_ref(),
            data,
            split,
            rows,
            &checkpoint.tokenizer,
            context,
        )
    };
    let (train, dev) = (
        read(Split::Train, args.train_rows)?,
        read(Split::Dev, args.eval_rows)?,
    );
    for factor in &args.grid {
        let lr = mezo_lr * factor;
        if !(lr >= 0.0 && lr.is_finite()) {
            return Err(format!(
                "--lr {mezo_lr} times {factor} of --grid is {lr}: learning rates must be finite and not negative"
            )
            .into());
        }
    }
    // Only now, when nothing can be refused any more.
    let out = new_folder(args.out.as_deref())?;
    let bench = Bench {
        args,
        checkpoint,
        train,
        dev,
        device,
        rows,
    };

    let mut rows = Vec::new();
    for method in chosen {
        let row = bench.method(&method, mezo_lr)?;
        println!("{}", line(&row));
        rows.push(row);
    }
    rows.sort_by(|a, b| mean(&a.losses).total_cmp(&mean(&b.losses)));
    let table = table(&rows, &bench);
    println!("\n{table}");
    write(&out.join("compare.md"), &table)?;
    write(
        &out.join("compare.json"),
        &serde_json::to_string_pretty(&rows)?,
    )?;
    let bars: Vec<_> = rows
        .iter()
        .map(|row| (row.method, row.losses.clone()))
        .collect();
    let title = format!(
        "Loss on held-out rows after {} forwards",
        bench.args.forwards
    );
    plot::comparison(&out.join("compare.svg"), &title, &bars)?;
    println!("{}: compare.md, compare.json, compare.svg", out.display());
    Ok(())
}

fn chosen_methods(names: &[String]) -> Result<Vec<Choice>, Box<dyn Error>> {
    if names.is_empty() {
        let builds = |choice: &Choice| choice.build(&Shared::default(), &Flags::default()).is_ok();
        let available = |choice: &Choice| choice.trains() && builds(choice);
        return Ok(methods::choices().into_iter().filter(available).collect());
    }
    let trains = |name: &String| {
        let method = methods::find(name)?;
        if method.trains() {
            return Ok(method);
        }
        Err(format!(
            "--methods {name}: it takes no steps to compare; try `zo train --method {name}`"
        )
        .into())
    };
    names.iter().map(trains).collect()
}

impl Bench {
    /// Tries the grid, then runs every seed at the best learning rate.
    fn method(&self, method: &Choice, mezo_lr: f64) -> Result<Row, Box<dyn Error>> {
        let middle = match self.build(method, 0)?.scale_free {
            Some(queries) => self.default_rate(method, Some(queries)),
            None => mezo_lr * method.lr_factor,
        };
        let mut grid = Vec::new();
        for factor in &self.args.grid {
            let lr = methods::rounded(middle * factor);
            let (evaluation, _) = self.run(method, lr, GRID_SEED)?;
            let loss = evaluation.map_or(f64::INFINITY, |evaluation| evaluation.loss);
            grid.push(Tried { lr, loss });
        }
        let best = grid.iter().min_by(|a, b| a.loss.total_cmp(&b.loss));
        let lr = best.ok_or("the grid of learning rates is empty")?.lr;
        let mut row = Row {
            method: method.name,
            steps: self.steps(&self.build(method, 0)?),
            grid,
            lr,
            losses: Vec::new(),
            accuracies: Vec::new(),
            seconds: 0.0,
        };
        for seed in 0..self.args.seeds {
            let (evaluation, seconds) = self.run(method, lr, seed)?;
            row.losses
                .push(evaluation.as_ref().map_or(f64::INFINITY, |e| e.loss));
            row.accuracies
                .push(evaluation.map_or(f64::NAN, |e| e.accuracy));
            row.seconds += seconds / self.args.seeds as f64;
        }
        Ok(row)
    }

    /// Of a method whose rate is the length of a step, and so not a multiple of MeZO's.
    fn default_rate(&self, method: &Choice, scale_free: Option<usize>) -> f64 {
        let (bundled, parameters) = (
            self.args.model.is_none(),
            self.checkpoint.model.num_params(),
        );
        methods::learning_rate(method, &Tuning::Full, parameters, bundled, scale_free)
    }

    fn build(&self, method: &Choice, seed: u64) -> Result<Built, Box<dyn Error>> {
        let shared = Shared {
            seed,
            ..Shared::default()
        };
        method.build(&shared.with_noise(self.args.noise), &Flags::default())
    }

    fn steps(&self, built: &Built) -> usize {
        (self.args.forwards / built.forwards_per_step).max(1)
    }

    /// The evaluation after one run, `None` if its loss stopped being finite; and the seconds of its steps.
    fn run(
        &self,
        method: &Choice,
        lr: f64,
        seed: u64,
    ) -> Result<(Option<Evaluation>, f64), Box<dyn Error>> {
        let mut built = self.build(method, seed)?;
        let config = FinetuneConfig {
            steps: self.steps(&built),
            batch: self.args.batch,
            eval_every: 0,
            eval_batch: self.args.batch,
            lr,
            seed,
            // Batches as the papers draw them.
            group_by_length: false,
            pad: self.checkpoint.config.pad_token_id(),
            autodiff_device: built.differentiates.then(|| autodiff(&self.device)),
            ..FinetuneConfig::default()
        };
        let (mut last, mut seconds) = (None, 0.0);
        // A clone shares the weights until the first pass, which then copies them.
        let model = self.checkpoint.model.clone();
        let done = finetune(
            model,
            &mut built.optimizer,
            [&self.train, &self.dev],
            &config,
            &self.device,
            &AtomicBool::new(false),
            |event| {
                match event {
                    Event::Evaluated { evaluation, .. } => last = Some(evaluation.clone()),
                    Event::Stepped { seconds: s, .. } => seconds += s,
                    _ => {}
                }
                Ok(())
            },
        );
        match done {
            Ok(_) => Ok((
                last.filter(|evaluation| evaluation.loss.is_finite()),
                seconds,
            )),
            Err(failed) if failed.error.is_divergence() => Ok((None, seconds)),
            Err(failed) => Err(failed.error.into()),
        }
    }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// Half the distance between the smallest and the largest.
fn spread(values: &[f64]) -> f64 {
    let largest = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    (largest - least) / 2.0
}

fn line(row: &Row) -> String {
    let grid: Vec<String> = (row.grid.iter())
        .map(|tried| format!("{:.1e}: {:.3}", tried.lr, tried.loss))
        .collect();
    format!(
        "{:18} {:5} steps  loss by lr {{{}}}",
        row.method,
        row.steps,
        grid.join(", ")
    )
}

fn table(rows: &[Row], bench: &Bench) -> String {
    let mut text = format!(
        "{}: {} forwards, {} seeds, {} held-out rows; mean and half the range over the seeds.\n\n\
         | method | steps | learning rate | loss | accuracy | seconds |\n|---|---|---|---|---|---|\n",
        bench.rows,
        bench.args.forwards,
        bench.args.seeds,
        bench.dev.len()
    );
    for row in rows {
        text += &format!(
            "| {} | {} | {:.1e} | {:.3} ± {:.3} | {:.3} ± {:.3} | {:.1} |\n",
            row.method,
            row.steps,
            row.lr,
            mean(&row.losses),
            spread(&row.losses),
            mean(&row.accuracies),
            spread(&row.accuracies),
            row.seconds
        );
    }
    text
}

//! Fine-tunes an OPT or Llama model on a SuperGLUE-style task by forward passes alone.
//!
//! ```text
//! cargo run --release --example opt_superglue
//! cargo run --release --example opt_superglue -- --model DIR --data DIR --task sst2 --lr 1e-6
//! ```
//!
//! Without arguments: a tiny pretrained OPT and a synthetic task, both bundled, on the CPU. `--model` takes a Hugging Face folder
//! (its `config.json` decides between OPT and Llama), `--data` one with `train.jsonl` and `dev.jsonl`.

#![cfg_attr(
    feature = "ndarray",
    allow(
        deprecated,
        reason = "burn deprecates its ndarray backend; it is supported here as long as burn has it"
    )
)]

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use burn::module::Module;
use burn::tensor::Device;
use clap::Parser;
use serde::Serialize;
use zo_examples::methods::{self, Flags, Shared, autodiff};
use zo_examples::run::{Measured, Run, default_out};
use zo_llm::batches::Order;
use zo_llm::dataset::{Dataset, Split};
use zo_llm::finetune::{FinetuneConfig, finetune};
use zo_llm::{Checkpoint, Dtype, load, task};
use zo_optim::Distribution;

/// Fine-tune a language model with forward passes alone.
#[derive(Parser, Debug)]
struct Args {
    /// Folder of the model, as Hugging Face lays it out [default: the bundled tiny OPT]
    #[arg(long)]
    model: Option<PathBuf>,
    /// Folder with train.jsonl and dev.jsonl [default: the bundled synthetic data]
    #[arg(long)]
    data: Option<PathBuf>,
    /// Task: sst2 or boolq
    #[arg(long, default_value = "boolq")]
    task: String,
    /// Method: see --method-help
    #[arg(long, default_value = "mezo")]
    method: String,
    /// List the methods, each with its own settings
    #[arg(long)]
    method_help: bool,
    #[command(flatten)]
    flags: Flags,
    /// Training steps; 0 only evaluates
    #[arg(long, default_value_t = 2000)]
    steps: usize,
    /// Learning rate [default: for MeZO 1e-6, for the bundled model 1e-4; others in proportion, see --method-help]
    #[arg(long)]
    lr: Option<f64>,
    /// Perturbation radius
    #[arg(long, default_value_t = 1e-3, allow_negative_numbers = true)]
    epsilon: f64,
    /// Rows in a batch
    #[arg(long, default_value_t = 16)]
    batch: usize,
    /// Random directions per step
    #[arg(long, default_value_t = 1)]
    queries: usize,
    /// Seed of the noise and of the order of the rows
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Noise: gaussian or rademacher
    #[arg(long, default_value = "gaussian")]
    sampler: Distribution,
    /// Train on the first N rows only
    #[arg(long)]
    train_rows: Option<usize>,
    /// Evaluate on the first N rows only
    #[arg(long)]
    eval_rows: Option<usize>,
    /// Steps between evaluations; 0 for the beginning and the end only [default: a tenth of the steps for the bundled model, else 0]
    #[arg(long)]
    eval_every: Option<usize>,
    /// Device: flex, ndarray, cuda or wgpu
    #[arg(long, default_value = "flex")]
    device: String,
    /// Type of the weights: f32, bf16 or f16
    #[arg(long, default_value = "f32")]
    dtype: Dtype,
    /// Draw all training rows alike, instead of in turn from each class
    #[arg(long)]
    unbalanced: bool,
    /// Folder for report.json, metrics.jsonl and training.svg [default: runs/<time>]
    #[arg(long)]
    out: Option<PathBuf>,
    /// Print nothing but errors
    #[arg(long)]
    quiet: bool,
}

/// `report.json`: what was asked for, and what was measured.
#[derive(Serialize)]
struct Report<'a> {
    model: String,
    architecture: String,
    task: &'a str,
    method: &'a str,
    sampler: String,
    device: &'a str,
    dtype: String,
    seed: u64,
    lr: f64,
    epsilon: f64,
    batch: usize,
    queries: usize,
    order: Order,
    parameters: usize,
    trained_parameters: usize,
    train_rows: usize,
    eval_rows: usize,
    #[serde(flatten)]
    measured: &'a Measured,
}

fn main() -> ExitCode {
    let args = Args::parse();
    if args.method_help {
        print!("{}", methods::help());
        return ExitCode::SUCCESS;
    }
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<(), Box<dyn Error>> {
    let bundled = args.model.is_none();
    let assets = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets");
    let model_dir = args
        .model
        .clone()
        .unwrap_or_else(|| assets.join("tiny-opt"));
    let data_dir = args
        .data
        .clone()
        .unwrap_or_else(|| assets.join("synthetic"));
    let method = methods::find(&args.method)?;
    let lr = args.lr.unwrap_or(if bundled {
        method.bundled_lr
    } else {
        1e-6 * method.bundled_lr / methods::BUNDLED_LR
    });
    let eval_every = args
        .eval_every
        .unwrap_or(if bundled { args.steps / 10 } else { 0 });

    // Everything that can be wrong is found before the first step.
    let device = device(&args.device)?;
    let task = task::task(&args.task)?;
    let shared = Shared {
        epsilon: args.epsilon,
        queries: args.queries,
        distribution: args.sampler,
        seed: args.seed,
    };
    let mut optim = method.build(&shared, &args.flags)?;
    let Checkpoint {
        config,
        model,
        tokenizer,
    } = load(&model_dir, args.dtype, &device)?;
    let read = |split, rows| {
        Dataset::load(
            task.as_ref(),
            &data_dir,
            split,
            rows,
            &tokenizer,
            config.context(),
        )
    };
    let (train, dev) = (
        read(Split::Train, args.train_rows)?,
        read(Split::Dev, args.eval_rows)?,
    );
    let parameters = model.num_params();

    let order = if args.unbalanced {
        Order::Shuffled
    } else {
        Order::Balanced
    };
    let finetuning = FinetuneConfig {
        steps: args.steps,
        batch: args.batch,
        eval_every,
        eval_batch: args.batch,
        order,
        seed: args.seed,
        pad: config.pad_token_id(),
        autodiff_device: method.differentiates().then(|| autodiff(&device)),
    };
    let out = args.out.clone().unwrap_or_else(default_out);
    let mut run = Run::start(&out, args.steps, args.quiet)?;
    let observe =
        |event: zo_llm::finetune::Event<'_>| run.observe(&event).map_err(|e| e.to_string());
    finetune(
        model,
        optim.as_mut(),
        |_| lr,
        [&train, &dev],
        &finetuning,
        &device,
        observe,
    )?;

    let title = format!("{} on {}, {} steps", args.method, task.name(), args.steps);
    let measured = run.finish(&title)?;
    let report = Report {
        model: model_dir
            .file_name()
            .unwrap_or(model_dir.as_os_str())
            .to_string_lossy()
            .into(),
        architecture: config.architecture().to_string(),
        task: task.name(),
        method: &args.method,
        sampler: args.sampler.to_string(),
        device: &args.device,
        dtype: args.dtype.to_string(),
        seed: args.seed,
        lr,
        epsilon: args.epsilon,
        batch: args.batch,
        queries: args.queries,
        order,
        parameters,
        trained_parameters: parameters,
        train_rows: train.len(),
        eval_rows: dev.len(),
        measured: &measured,
    };
    let json = serde_json::to_string_pretty(&report)?;
    std::fs::write(out.join("report.json"), json)?;
    if !args.quiet {
        print_table(&report, &out);
    }
    Ok(())
}

/// The device named by `--device`, if this build has it.
fn device(name: &str) -> Result<Device, Box<dyn Error>> {
    match name {
        #[cfg(feature = "flex")]
        "flex" => Ok(Device::flex()),
        #[cfg(feature = "ndarray")]
        "ndarray" => Ok(Device::ndarray()),
        #[cfg(feature = "cuda")]
        "cuda" => Ok(Device::cuda(burn::tensor::DeviceIndex::Default)),
        #[cfg(feature = "wgpu")]
        "wgpu" => Ok(Device::wgpu(burn::tensor::DeviceKind::DefaultDevice)),
        #[allow(
            unreachable_patterns,
            reason = "reached for the devices this build lacks"
        )]
        "flex" | "ndarray" | "cuda" | "wgpu" => {
            Err(format!("this build has no {name}: add `--features {name}` to cargo run").into())
        }
        other => Err(format!("unknown device `{other}`: use flex, ndarray, cuda or wgpu").into()),
    }
}

fn print_table(report: &Report<'_>, out: &Path) {
    let m = report.measured;
    println!(
        "{} ({}, {:.1} M parameters) on {}, {} steps of {}",
        report.model,
        report.architecture,
        report.parameters as f64 / 1e6,
        report.task,
        m.steps,
        report.method
    );
    println!("                       before     after");
    println!(
        "  accuracy           {:8.3}  {:8.3}   on {} held-out rows",
        m.accuracy_before, m.accuracy_after, report.eval_rows
    );
    println!(
        "  loss               {:8.4}  {:8.4}   on the same rows",
        m.eval_loss_before, m.eval_loss_after
    );
    if let (Some(first), Some(last)) = (m.loss_first, m.loss_last) {
        println!(
            "  training loss      {first:8.4}  {last:8.4}   first and last tenth of the steps"
        );
    }
    if let (Some(step), Some(forward), Some(sweep)) = (
        m.seconds_per_step,
        m.seconds_forward_per_step,
        m.seconds_sweep_per_step,
    ) {
        println!(
            "  seconds per step   {step:8.4}   forwards {forward:.4}, passes over the weights {sweep:.4}"
        );
    }
    if let (Some(peak), Some(evaluation)) = (m.peak_rss_mib, m.peak_rss_after_first_evaluation_mib)
    {
        println!(
            "  peak memory        {peak:5.0} MiB   {evaluation:.0} MiB after the first evaluation"
        );
    }
    println!(
        "  {}: report.json, metrics.jsonl, training.svg",
        out.display()
    );
}

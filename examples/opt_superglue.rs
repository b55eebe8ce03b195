//! Fine-tunes an OPT or Llama model on a SuperGLUE-style task by forward passes alone.
//!
//! ```text
//! cargo run --release --example opt_superglue
//! cargo run --release --example opt_superglue -- --model DIR --data DIR --task sst2
//! cargo run --release --features hub --example opt_superglue -- --model facebook/opt-125m --data DIR --task rte --tuning lora
//! ```
//!
//! Without arguments: a tiny pretrained OPT and a synthetic task, both bundled, on the CPU. `--model` takes a Hugging Face folder
//! (its `config.json` decides between OPT and Llama), or with the feature `hub` a name to download; `--data` takes the folder of a data
//! set as its authors or Hugging Face publish it. Ctrl-C finishes the step under way, saves and reports.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use burn::module::Module;
use clap::Parser;
use serde::Serialize;
use zo_examples::data::{DataArgs, Rows};
use zo_examples::device::device;
use zo_examples::methods::{self, Flags, Shared, autodiff};
use zo_examples::run::{Measured, Run, default_out};
use zo_examples::tune::TuneArgs;
use zo_llm::batches::Order;
use zo_llm::dataset::evaluate;
use zo_llm::finetune::{
    Evaluated, Event, FinetuneConfig, Finish, Objective, Outcome, Schedule, finetune,
};
use zo_llm::{Checkpoint, Dtype, Tuning, hub, load};
use zo_optim::{Distribution, Perturbation, Rounding, tensors};

/// Fine-tune a language model with forward passes alone.
#[derive(Parser, Debug)]
struct Args {
    /// Folder of the model, as Hugging Face lays it out, or its name on the hub (feature hub) [default: the bundled tiny OPT]
    #[arg(long)]
    model: Option<String>,
    #[command(flatten)]
    data: DataArgs,
    /// Method: see --method-help
    #[arg(long, default_value = "mezo")]
    method: String,
    /// List the methods, each with its own settings
    #[arg(long)]
    method_help: bool,
    #[command(flatten)]
    flags: Flags,
    #[command(flatten)]
    tune: TuneArgs,
    /// Training steps; 0 only evaluates
    #[arg(long, default_value_t = 2000)]
    steps: usize,
    /// Learning rate [default: by tuning, method and size of the model: see docs/src/hyper-parameters.md]
    #[arg(long)]
    lr: Option<f64>,
    /// How the learning rate goes: constant, linear or cosine
    #[arg(long, default_value = "constant")]
    schedule: Schedule,
    /// Steps in which the learning rate rises from 0
    #[arg(long, default_value_t = 0)]
    warmup: usize,
    /// Perturbation radius [default: 1e-3; lora 1e-2; prefix and prompt 1e-1; 3e-2 for accuracy on the bundled task]
    #[arg(long, allow_negative_numbers = true)]
    epsilon: Option<f64>,
    /// What a step minimises: loss, or 1 - accuracy or f1 on the batch, which have no derivative
    #[arg(long, default_value = "loss")]
    objective: String,
    /// Rows in a batch
    #[arg(long, default_value_t = 16)]
    batch: usize,
    /// Rows computed at once: a batch in parts takes the memory of one [default: the whole batch]
    #[arg(long)]
    micro_batch: Option<usize>,
    /// Random directions per step
    #[arg(long, default_value_t = 1)]
    queries: usize,
    /// Seed of the noise and of the order of the rows
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Noise: gaussian or rademacher
    #[arg(long, default_value = "gaussian")]
    sampler: Distribution,
    /// How updated weights are rounded to bf16 or f16: nearest or stochastic
    #[arg(long, default_value = "nearest")]
    rounding: Rounding,
    /// How weights are perturbed: in-place, or on-the-fly without writing them
    #[arg(long, default_value = "in-place")]
    perturb: Perturbation,
    /// Steps between evaluations; 0 for the beginning and the end only [default: a tenth of the steps for the bundled model, else 0]
    #[arg(long)]
    eval_every: Option<usize>,
    /// End with the weights of the best evaluation (they wait on disk)
    #[arg(long)]
    keep_best: bool,
    /// Stop after so many evaluations without a better one
    #[arg(long)]
    patience: Option<usize>,
    /// Steps between checkpoints; 0 for none
    #[arg(long, default_value_t = 0)]
    checkpoint_every: usize,
    /// Go on from the last checkpoint in --out
    #[arg(long, requires = "out")]
    resume: bool,
    /// Save what was tuned to --out: a folder `model` for transformers, or `adapter` for PEFT
    #[arg(long)]
    save: bool,
    /// Device: flex, ndarray, cuda or wgpu
    #[arg(long, default_value = "flex")]
    device: String,
    /// Type of the weights: f32, bf16 or f16
    #[arg(long, default_value = "f32")]
    dtype: Dtype,
    /// Draw all training rows alike, instead of in turn from each class
    #[arg(long)]
    unbalanced: bool,
    /// Put rows of like length into a batch, so that little is padded: true or false
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set)]
    group_by_length: bool,
    /// Folder for report.json, metrics.jsonl, predictions.json and training.svg [default: runs/<time>]
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
    tuning: String,
    objective: &'a str,
    schedule: String,
    sampler: String,
    rounding: String,
    perturb: String,
    device: &'a str,
    dtype: String,
    seed: u64,
    lr: f64,
    epsilon: f64,
    batch: usize,
    queries: usize,
    order: Order,
    group_by_length: bool,
    parameters: usize,
    trained_parameters: usize,
    train_rows: usize,
    eval_rows: usize,
    finish: Finish,
    best: Option<Evaluated>,
    saved: Option<PathBuf>,
    /// The score on the rows kept for the end, and their number.
    test: Option<Test>,
    #[serde(flatten)]
    measured: &'a Measured,
}

#[derive(Serialize)]
struct Test {
    rows: usize,
    accuracy: f64,
    f1: Option<f64>,
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
    // Everything that can be wrong is found before the first step.
    let bundled = args.model.is_none();
    let assets = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets");
    let method = methods::find(&args.method)?;
    let tuning = args.tune.tuning()?;
    if method.name == "hybrid" && tuning != Tuning::Full {
        return Err("--method hybrid chooses what trains by --top: use --tuning full".into());
    }
    let device = device(&args.device)?;
    let task = zo_llm::task::task(&args.data.task)?;
    let objective = args.objective(task.kind())?;
    let model_dir = match &args.model {
        Some(name) => hub::resolve(name)?,
        None => assets.join("tiny-opt"),
    };
    // A score moves only if answers change; the bundled model, which begins with the same answer to everything, must be moved far.
    let far = bundled && objective == Objective::Score;
    let epsilon = args
        .epsilon
        .unwrap_or(tuning.epsilon() * if far { 30.0 } else { 1.0 });
    let shared = Shared {
        epsilon,
        queries: args.queries,
        distribution: args.sampler,
        seed: args.seed,
        perturbation: args.perturb,
        trainable: tuning.trainable(),
        rounding: args.rounding,
    };
    let mut optim = method.build(&shared, &args.flags)?;
    let Checkpoint {
        mut config,
        model,
        tokenizer,
    } = load(&model_dir, args.dtype, &device)?;
    let parameters = model.num_params();
    let (model, tuning) = args.tune.apply(model, tuning, args.seed)?;
    if tuning == Tuning::Head {
        config.untie();
    }
    let trained = tensors(&model, &tuning.trainable())?;
    let trained = trained
        .iter()
        .filter(|tensor| tensor.trainable)
        .map(|tensor| tensor.elements());
    let trained_parameters: usize = trained.sum();
    let demonstrations = match method.name {
        "icl" => args.flags.demonstrations.unwrap_or(32),
        _ => 0,
    };
    let Rows { train, dev, test } = args.data.rows(
        task.as_ref(),
        &assets,
        &tokenizer,
        model.context(),
        demonstrations,
        args.seed,
    )?;

    let steps = if method.trains() { args.steps } else { 0 };
    let lr = args.lr.unwrap_or_else(|| {
        let lr = methods::learning_rate(method, &tuning, parameters, bundled);
        if far { 3.0 * lr } else { lr }
    });
    let eval_every = args
        .eval_every
        .unwrap_or(if bundled { steps / 10 } else { 0 });
    let out = args.out.clone().unwrap_or_else(default_out);
    let order = if args.unbalanced {
        Order::Shuffled
    } else {
        Order::Balanced
    };
    let saves = args.keep_best || args.resume || args.checkpoint_every > 0;
    let finetuning = FinetuneConfig {
        steps,
        batch: args.batch,
        micro_batch: args.micro_batch,
        lr,
        schedule: args.schedule,
        warmup: args.warmup,
        objective,
        eval_every,
        eval_batch: args.micro_batch.unwrap_or(args.batch),
        order,
        group_by_length: args.group_by_length,
        seed: args.seed,
        pad: config.pad_token_id(),
        autodiff_device: method.differentiates().then(|| autodiff(&device)),
        keep_best: args.keep_best,
        patience: args.patience,
        checkpoint_dir: saves.then(|| out.join("checkpoints")),
        checkpoint_every: args.checkpoint_every,
        resume: args.resume,
        trained: tuning.trainable(),
        method: serde_json::json!({
            "name": method.name, "flags": format!("{:?}", args.flags), "epsilon": epsilon,
            "queries": args.queries, "sampler": args.sampler.to_string(), "seed": args.seed,
            "rounding": args.rounding.to_string(),
        }),
    };
    let stop = Arc::new(AtomicBool::new(false));
    let asked = Arc::clone(&stop);
    ctrlc::set_handler(move || {
        // A second time means it.
        if asked.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
        eprintln!("finishing this step; press Ctrl-C again to leave at once");
    })?;
    let mut run = Run::start(&out, steps, args.quiet, args.resume)?;
    let observe = |event: Event<'_>| run.observe(&event).map_err(|e| e.to_string());
    let outcome = finetune(
        model,
        optim.as_mut(),
        [&train, &dev],
        &finetuning,
        &device,
        &stop,
        observe,
    );
    let Outcome {
        model,
        finish,
        best,
        ..
    } = outcome.map_err(|failed| failed.error)?;
    if let (true, Some(best)) = (args.keep_best && finish != Finish::Interrupted, &best) {
        run.kept(best);
    }
    let test = test.map(|test| -> Result<Test, Box<dyn Error>> {
        let found = evaluate(
            &model,
            &test,
            finetuning.eval_batch,
            finetuning.pad,
            &device,
        )?;
        Ok(Test {
            rows: test.len(),
            accuracy: found.accuracy,
            f1: found.f1,
        })
    });
    let test = test.transpose()?;
    let save = args.save || finish == Finish::Interrupted && !saves;
    let name = args.model.clone().unwrap_or_else(|| "tiny-opt".to_owned());
    let saved = match save {
        true => Some(args.tune.save(
            &out, &model_dir, &name, &config, &model, &tuning, args.dtype,
        )?),
        false => None,
    };

    let title = format!("{} on {}, {} steps", args.method, task.name(), steps);
    let measured = run.finish(&title)?;
    let report = Report {
        model: model_dir
            .file_name()
            .filter(|_| {
                args.model
                    .as_ref()
                    .is_none_or(|model| Path::new(model).is_dir())
            })
            .map_or(name.clone(), |folder| folder.to_string_lossy().into()),
        architecture: config.architecture().to_string(),
        task: task.name(),
        method: &args.method,
        tuning: tuning.to_string(),
        objective: &args.objective,
        schedule: args.schedule.to_string(),
        sampler: args.sampler.to_string(),
        rounding: args.rounding.to_string(),
        perturb: args.perturb.to_string(),
        device: &args.device,
        dtype: args.dtype.to_string(),
        seed: args.seed,
        lr,
        epsilon,
        batch: args.batch,
        queries: args.queries,
        order,
        group_by_length: args.group_by_length,
        parameters,
        trained_parameters,
        train_rows: train.len(),
        eval_rows: dev.len(),
        finish,
        best,
        saved,
        test,
        measured: &measured,
    };
    let json = serde_json::to_string_pretty(&report)?;
    std::fs::write(out.join("report.json"), json)?;
    if !args.quiet {
        print_table(&report, &out);
    }
    Ok(())
}

impl Args {
    /// What a step minimises.
    fn objective(&self, kind: zo_llm::task::Kind) -> Result<Objective, String> {
        let generates = kind == zo_llm::task::Kind::Generation;
        match (self.objective.as_str(), generates) {
            ("loss", _) => Ok(Objective::Loss),
            ("accuracy", false) | ("f1", true) => Ok(Objective::Score),
            ("accuracy", true) => Err(
                "--objective accuracy is for options: this task generates text, use f1".to_owned(),
            ),
            ("f1", false) => Err(
                "--objective f1 is for generated text: this task has options, use accuracy"
                    .to_owned(),
            ),
            (other, _) => Err(format!(
                "unknown objective `{other}`: use loss, accuracy or f1"
            )),
        }
    }
}

fn print_table(report: &Report<'_>, out: &Path) {
    let m = report.measured;
    println!(
        "{} ({}, {:.1} M parameters, {} tuning) on {}, {} steps of {}",
        report.model,
        report.architecture,
        report.parameters as f64 / 1e6,
        report.tuning,
        report.task,
        m.steps,
        report.method
    );
    println!("                       before     after");
    println!(
        "  accuracy           {:8.3}  {:8.3}   on {} held-out rows",
        m.accuracy_before, m.accuracy_after, report.eval_rows
    );
    if let (Some(before), Some(after)) = (m.f1_before, m.f1_after) {
        println!("  F1                 {before:8.3}  {after:8.3}   on the same rows");
    }
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
    if let Some(test) = &report.test {
        let f1 = test.f1.map_or(String::new(), |f1| format!(", F1 {f1:.3}"));
        println!(
            "  test accuracy      {:8.3}{f1}   on {} rows kept for the end",
            test.accuracy, test.rows
        );
    }
    if report.finish != Finish::Done {
        println!("  ended early after {} steps: {:?}", m.steps, report.finish);
    }
    if let Some(saved) = &report.saved {
        println!("  saved to {}", saved.display());
    }
    println!(
        "  {}: report.json, metrics.jsonl, training.svg",
        out.display()
    );
}

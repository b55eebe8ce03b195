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

mod args;
mod report;

use std::error::Error;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use burn::module::Module;
use clap::Parser;
use zo_examples::data::Rows;
use zo_examples::device::device;
use zo_examples::methods::{self, Shared, autodiff};
use zo_examples::run::{Run, default_out};
use zo_llm::batches::Order;
use zo_llm::dataset::evaluate;
use zo_llm::finetune::{Event, FinetuneConfig, Finish, Objective, Outcome, finetune};
use zo_llm::{CausalLm, Checkpoint, Tuning, hub, load};
use zo_optim::tensors;

use self::args::Args;
use self::report::{Report, Test};

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
    let title = format!("{} on {}, {} steps", args.method, task.name(), steps);
    let name = args.model.clone().unwrap_or_else(|| "tiny-opt".to_owned());
    let save = |model: &CausalLm| {
        let tune = &args.tune;
        tune.save(&out, &model_dir, &name, &config, model, &tuning, args.dtype)
    };
    let Outcome {
        model,
        finish,
        best,
        ..
    } = match outcome {
        Ok(outcome) => outcome,
        Err(failed) => {
            // What the run has found so far is kept, the weights if they were asked for. The step's error is the one to end with.
            if let Err(error) = run.finish(&title) {
                eprintln!("{error}");
            }
            if args.save {
                match save(&failed.model) {
                    Ok(dir) => eprintln!(
                        "{}: the weights, {} step(s) done",
                        dir.display(),
                        failed.step
                    ),
                    Err(error) => eprintln!("{error}"),
                }
            }
            return Err(failed.error.into());
        }
    };
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
    let wanted = args.save || finish == Finish::Interrupted && !saves;
    // If this fails, there is a report all the same.
    let saved = wanted.then(|| save(&model)).transpose();

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
        saved: saved.as_ref().ok().cloned().flatten(),
        test,
        measured: &measured,
    };
    let json = serde_json::to_string_pretty(&report)?;
    std::fs::write(out.join("report.json"), json)?;
    if !args.quiet {
        report.print(&out);
    }
    saved?;
    Ok(())
}

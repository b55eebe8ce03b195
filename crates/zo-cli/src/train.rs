//! `zo train`: fine-tunes a language model on a SuperGLUE-style task by forward passes alone.
//!
//! Without arguments: a tiny pretrained OPT and a synthetic task, both bundled, on the CPU. `--model` takes a Hugging Face folder
//! (its `config.json` says what it is), or with the feature `hub` a name to download; `--data` takes the folder of a data
//! set as its authors or Hugging Face publish it. Ctrl-C finishes the step under way, saves and reports.

mod args;
mod back_off;
mod base;
mod dry;
mod rate;
mod report;
mod resolved;
mod setup;

use std::borrow::Cow;
use std::error::Error;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use burn::module::Module;
use clap::{CommandFactory, Parser};
use serde_json::json;
use zo_llm::dataset::evaluate;
use zo_llm::finetune::{Event, FinetuneError, Finish, Outcome, RunError, finetune_on};
use zo_llm::tuning::lora;
use zo_llm::{CausalLm, Tuning};
use zo_optim::Banked;
use zo_optim::ranks::Communicator;

use crate::TRAJECTORY;
use crate::card::card;
use crate::config::expand;
use crate::dashboard;
use crate::exit::{Interrupted, Usage, exit, text};
use crate::memory::keep_freed;
use crate::methods;
use crate::output::write;
use crate::ranks::{self, Ranks};
use crate::run::{Folder, Run};

pub use self::args::TrainArgs;
use self::report::{Ending, Report, Test};
use self::resolved::Resolved;
use self::setup::{CHECKPOINTS, Plan, Setup, setup};

pub(crate) use self::base::Base;
use self::base::Whole;
pub use self::rate::{Searched, find as find_rate};
pub use self::report::BURN;

type Failure = Box<dyn Error>;

/// What stands above the file of a run's settings.
const RUN: &str = "This run with every default: zo train --config run.toml";

/// `zo train` as a program of its own, for `examples/opt_superglue`.
pub fn main() -> ExitCode {
    keep_freed();
    exit(parse(std::env::args_os().collect(), 1).and_then(|args| run(&args)))
}

/// The flags of a command line whose own flags begin at `first`, with those of its `--config`. What clap refuses ends the program, as does
/// `--help`.
fn parse(argv: Vec<OsString>, first: usize) -> Result<TrainArgs, Failure> {
    let command = TrainArgs::command();
    let argv = expand(&command, &command, argv, first).map_err(Usage::of)?;
    Ok(TrainArgs::parse_from(argv))
}

/// The settings that the flags come to, as the text of a file for `--config`. The model is not loaded.
///
/// # Errors
/// What is wrong with them, or with the model's configuration, where that decides the learning rate.
pub fn resolved(args: &TrainArgs) -> Result<String, Failure> {
    let plan = Plan::new(args)?;
    let lr = match args.lr {
        Some(lr) => lr,
        None => {
            // Its parameters are lazy: nothing is drawn.
            let model = CausalLm::new(&args.model.config()?, &plan.device)?;
            Searched::Given(plan.rate(args, model.num_params()))
        }
    };
    Ok(Resolved::new(args, &plan, lr).to_toml(RUN)?)
}

/// Trains as the flags say.
///
/// # Errors
/// What is wrong with them, or what went wrong.
pub fn run(args: &TrainArgs) -> Result<(), Failure> {
    if args.method_help {
        print!("{}", methods::help());
        return Ok(());
    }
    let ranks = Ranks::join(Duration::from_secs(args.rank_timeout))?;
    let trained = train(args, ranks.communicator());
    ranks.end(trained)
}

/// Trains with other ranks, if there are any.
fn train(args: &TrainArgs, ranks: &dyn Communicator) -> Result<(), Failure> {
    let args = &ranks::resolved(args, ranks.size())?;
    // Everything that can be wrong is found before a file is touched.
    let (mut setup, mut model) = setup(args)?;
    setup.ranks = ranks.size();
    if args.dry_run {
        return dry::run(args, setup, model);
    }
    let stop = stop_on_ctrl_c()?;
    if ranks.rank() > 0 {
        return follow(args, setup, model, ranks, &stop);
    }
    let mut folder = match &args.out {
        Some(out) if args.resume => Folder::of_resumed(out),
        out => Folder::claim(out.as_deref())?,
    };
    if setup.plan.saves {
        setup.plan.config.checkpoint_dir = Some(folder.path().join(CHECKPOINTS));
    }
    let (steps, task) = (setup.plan.config.steps, &setup.rows.about.name);
    let title = format!("{} on {task}, {steps} steps", args.method);
    loop {
        let (run, outcome) = attempt((args, ranks), &mut setup, &title, model, folder, &stop)?;
        match outcome {
            Ok(outcome) => return done(args, &setup, run, &title, outcome),
            Err(failed) if !run.has_begun() => {
                run.refused();
                return Err(failed.error.into());
            }
            Err(failed) if setup.backs_off(args.back_off, &failed) => {
                let said = setup.back_off(&failed);
                // Only one model at a time.
                drop(failed);
                folder = run.begin_again(&said)?;
                setup.plan.optimizer = setup.plan.optimizer(args)?;
                model = rate::model(args, &setup)?;
            }
            Err(failed) => return Err(failure(args, &setup, run, &title, failed)),
        }
    }
}

/// The part of a rank that writes nothing.
fn follow(
    args: &TrainArgs,
    mut setup: Setup,
    model: CausalLm,
    ranks: &dyn Communicator,
    stop: &AtomicBool,
) -> Result<(), Failure> {
    let Setup { plan, rows, .. } = &mut setup;
    // Where it would be; a run that is resumed may have something there.
    let out = args.out.clone().unwrap_or_default();
    if plan.saves {
        plan.config.checkpoint_dir = Some(out.join(CHECKPOINTS));
    }
    if let Some(trajectory) = &mut plan.config.trajectory {
        trajectory.path = out.join(TRAJECTORY);
    }
    let done = finetune_on(
        ranks,
        model,
        &mut plan.optimizer,
        [&rows.train, &rows.dev],
        &plan.config,
        &plan.device,
        stop,
        |_| Ok(()),
    );
    match done {
        Ok(done) if done.finish == Finish::Interrupted => Err(Interrupted.into()),
        Ok(_) => Ok(()),
        Err(failed) => Err(failed.error.into()),
    }
}

/// The run at the rate that `setup` has.
fn attempt(
    (args, ranks): (&TrainArgs, &dyn Communicator),
    setup: &mut Setup,
    title: &str,
    model: CausalLm,
    folder: Folder,
    stop: &AtomicBool,
) -> Result<(Run, Result<Outcome, RunError>), Failure> {
    let name = args.model.name(setup.model_dir.as_deref());
    let Setup { plan, rows, .. } = setup;
    let about = format!(
        "{title} at learning rate {}: {} tuning of {name}",
        plan.config.lr, plan.tuning
    );
    let lr = Searched::Given(plan.config.lr);
    let resolved = Resolved::new(args, plan, lr).to_toml(RUN)?;
    if let Some(trajectory) = &mut plan.config.trajectory {
        trajectory.path = folder.path().join(TRAJECTORY);
        trajectory.about = json!({ "run.toml": resolved });
    }
    let mut run = Run::start(folder, &about, &plan.config, args.quiet);
    let loggers = args.log.iter().map(|log| log.in_folder(run.out()));
    run.log_to(loggers.collect());
    let observe = |event: Event<'_>| {
        // A run that is refused leaves nothing.
        if !run.has_begun() {
            let path = run.out().join("run.toml");
            write(&path, &resolved).map_err(|e| e.to_string())?;
        }
        run.observe(&event).map_err(|e| e.to_string())
    };
    let outcome = finetune_on(
        ranks,
        model,
        &mut plan.optimizer,
        [&rows.train, &rows.dev],
        &plan.config,
        &plan.device,
        stop,
        observe,
    );
    Ok((run, outcome))
}

/// A flag that the first Ctrl-C raises. The second exits at once.
fn stop_on_ctrl_c() -> Result<Arc<AtomicBool>, Failure> {
    let stop = Arc::new(AtomicBool::new(false));
    let asked = Arc::clone(&stop);
    ctrlc::set_handler(move || {
        if asked.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
        eprintln!("finishing this step; press Ctrl-C again to exit at once");
    })?;
    Ok(stop)
}

/// The end of a run that was completed.
fn done(
    args: &TrainArgs,
    setup: &Setup,
    mut run: Run,
    title: &str,
    outcome: Outcome,
) -> Result<(), Failure> {
    let Outcome {
        model,
        finish,
        best,
        bank,
        ..
    } = outcome;
    let (batch, pad) = (setup.plan.config.eval_batch, setup.plan.config.pad);
    let on = |rows| evaluate(&model, rows, batch, pad, &setup.plan.device);
    if let (true, Some(best)) = (args.keep_best && finish != Finish::Interrupted, &best) {
        run.kept(best, || on(&setup.rows.dev))?;
    }
    let mut test = None;
    if let Some(rows) = &setup.rows.test {
        let found = on(rows)?;
        if let Some(note) = found.note() {
            run.note(format!("test rows: {note}"));
        }
        test = Some(Test {
            rows: rows.len(),
            accuracy: found.accuracy,
            f1: found.f1,
        });
    }
    // If saving fails, there is still a report.
    let wanted = args.save || finish == Finish::Interrupted && !setup.plan.saves;
    let saved = wanted.then(|| match run.ends_finite() {
        true => save(args, setup, run.out(), &model, &bank),
        false => {
            Err("the loss on the held-out rows is not finite: such weights are not saved".into())
        }
    });
    let saved = saved.transpose();
    let ending = Ending {
        finish: report::finish_name(finish),
        error: saved.as_ref().err().map(|error| text(error.as_ref())),
        best,
        saved: saved.as_ref().ok().cloned().flatten(),
        test,
    };
    write_report(args, setup, run, title, ending)?;
    saved?;
    match finish {
        Finish::Interrupted => Err(Interrupted.into()),
        _ => Ok(()),
    }
}

/// The end of a run that failed: what it has found so far is kept, and the weights if they were asked for and are worth keeping. The
/// run's error is the one to end with.
fn failure(
    args: &TrainArgs,
    setup: &Setup,
    mut run: Run,
    title: &str,
    failed: RunError,
) -> Failure {
    let diverged = failed.error.is_divergence();
    match &failed.best {
        None => run.ends_early(failed.step),
        Some(best) => {
            let (batch, pad) = (setup.plan.config.eval_batch, setup.plan.config.pad);
            let again = || {
                evaluate(
                    &failed.model,
                    &setup.rows.dev,
                    batch,
                    pad,
                    &setup.plan.device,
                )
            };
            if let Err(error) = run.kept(best, again) {
                told(&error);
            }
        }
    }
    let mut saved = None;
    if args.save && (!diverged || failed.best.is_some()) {
        match save(args, setup, run.out(), &failed.model, &[]) {
            Ok(dir) => saved = Some(dir),
            Err(error) => told(error.as_ref()),
        }
    }
    if args.save && saved.is_none() {
        run.note("the weights were not saved".to_owned());
    }
    let error: Failure = match failed.error {
        FinetuneError::Step(error) if diverged => format!(
            "the run diverged after {} steps: {}",
            failed.step,
            text(&error)
        )
        .into(),
        error => error.into(),
    };
    let ending = Ending {
        finish: if diverged { "diverged" } else { "failed" },
        error: Some(text(error.as_ref())),
        best: failed.best,
        saved,
        test: None,
    };
    if let Err(unwritten) = write_report(args, setup, run, title, ending) {
        told(unwritten.as_ref());
    }
    error
}

fn told(error: &dyn Error) {
    eprintln!("error: {}", text(error));
}

/// Saves what was tuned: an adapter where all of it is in `bank`.
fn save(
    args: &TrainArgs,
    setup: &Setup,
    out: &Path,
    model: &CausalLm,
    bank: &[Banked],
) -> Result<PathBuf, Failure> {
    let (mut model, mut tuning) = (Cow::Borrowed(model), Cow::Borrowed(&setup.plan.tuning));
    if setup.plan.adapts && !bank.is_empty() {
        let (adapted, config) = lora::from_bank(model.into_owned(), bank)?;
        (model, tuning) = (Cow::Owned(adapted), Cow::Owned(Tuning::Lora(config)));
    }
    let whole = Whole {
        dir: setup.model_dir.as_deref(),
        config: &setup.model_config,
        tuning: &tuning,
    };
    whole.save(args, out, &model)
}

fn write_report(
    args: &TrainArgs,
    setup: &Setup,
    run: Run,
    title: &str,
    ending: Ending,
) -> Result<(), Failure> {
    let out = run.out().to_owned();
    let ended = run.finish(title)?;
    let report = Report::new(args, setup, ending, &ended.measured);
    write(
        &out.join("report.json"),
        &serde_json::to_string_pretty(&report)?,
    )?;
    let page = dashboard::page(title, &report, &ended, &setup.rows.dev)?;
    write(&out.join(dashboard::FILE), &page)?;
    if let Some(saved) = report.saved() {
        let card = card(&serde_json::to_value(&report)?, saved);
        write(&saved.join("README.md"), &card)?;
    }
    if !args.quiet {
        report.print(&out);
    }
    Ok(())
}

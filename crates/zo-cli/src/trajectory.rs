//! `zo replay`, `zo verify`, `zo diff`: what can be made of the trajectory of a run.

use std::error::Error;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Instant;

use clap::Args;
use zo_llm::finetune::Evaluated;
use zo_optim::trajectory::{Field, Parting, RecordedStep, Replay, Trajectory};

use crate::TRAJECTORY;
use crate::exit::Differ;
use crate::train::Base;
use crate::values;

/// Compute the weights of any step of a run again, from its trajectory: without data and without a forward.
#[derive(Args, Debug, Clone)]
pub struct ReplayArgs {
    /// The run and its base.
    #[command(flatten)]
    pub base: BaseArgs,
    /// The number of steps after which to stop, or best for the best evaluation [default: all]
    #[arg(long, value_name = "STEP")]
    pub to: Option<To>,
    /// Folder to save to, as zo train --save does: a folder `model` for transformers, or `adapter` for PEFT
    #[arg(long, value_name = "DIR")]
    pub save: PathBuf,
    /// Add up many steps at a time: the weights are the run's but for its roundings, and their hashes are not compared
    #[arg(long)]
    pub fast: bool,
}

/// Compute the weights of a run again, and compare them with the hashes that it recorded.
#[derive(Args, Debug, Clone)]
pub struct VerifyArgs {
    /// The run and its base.
    #[command(flatten)]
    pub base: BaseArgs,
}

/// A run, and what it began with.
#[derive(Args, Debug, Clone)]
pub struct BaseArgs {
    /// Folder of the run, or its trajectory
    pub run: PathBuf,
    /// Folder of the model that the run began with [default: where it was then]
    #[arg(long, value_name = "DIR")]
    pub model: Option<String>,
    /// Where to compute: the bits are the run's where it computed [default: the run's]
    #[arg(long, value_parser = clap::builder::PossibleValuesParser::new(values::DEVICES))]
    pub device: Option<String>,
}

/// Say where two runs part: settings that differ, and the first step that does. The exit code is 0 if they are the same, and 1 if not.
#[derive(Args, Debug, Clone)]
pub struct DiffArgs {
    /// Folder of a run, or its trajectory
    pub first: PathBuf,
    /// Folder of another run, or its trajectory
    pub second: PathBuf,
}

/// Where a replay stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum To {
    /// After so many steps.
    Step(usize),
    /// At the best evaluation.
    Best,
}

impl FromStr for To {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "best" => Ok(Self::Best),
            number => number
                .parse()
                .map(Self::Step)
                .map_err(|_| "it must be a number of steps, or best".to_owned()),
        }
    }
}

type Failure = Box<dyn Error>;

/// Replays as the flags say.
///
/// # Errors
/// What is wrong with the trajectory, or with what the run began with.
pub fn replay(args: &ReplayArgs) -> Result<(), Failure> {
    let trajectory = read(&args.base.run)?;
    let steps = trajectory.steps().count();
    let to = match args.to {
        None => steps,
        Some(To::Step(to)) => to,
        Some(To::Best) => best(&trajectory)
            .ok_or("--to best: the trajectory holds no evaluation that is a number")?,
    };
    let how = match args.fast {
        true => Replay::Fast,
        false => Replay::Exact,
    };
    let (base, model, mut optimizer) = args.base.load(&trajectory)?;
    let start = Instant::now();
    let replayed = trajectory.replay(model, &mut optimizer, to, how)?;
    let seconds = start.elapsed().as_secs_f64();
    let checked = match args.fast {
        true => "fast, so no hash was compared".to_owned(),
        false => hashes(replayed.digests),
    };
    println!("replayed {to} of {steps} steps in {seconds:.3} s: {checked}");
    let saved = base.save(&args.save, &replayed.module)?;
    println!("saved: {}", saved.display());
    Ok(())
}

/// Replays a whole run and compares its hashes.
///
/// # Errors
/// The first hash that differs, or what is wrong with the trajectory or with what the run began with.
pub fn verify(args: &VerifyArgs) -> Result<(), Failure> {
    let trajectory = read(&args.base.run)?;
    let steps = trajectory.steps().count();
    let (_, model, mut optimizer) = args.base.load(&trajectory)?;
    let replayed = trajectory.replay(model, &mut optimizer, steps, Replay::Exact)?;
    println!("{steps} steps: {}", hashes(replayed.digests));
    Ok(())
}

fn hashes(number: usize) -> String {
    match number {
        1 => "the hash of the weights is the run's".to_owned(),
        number => format!("all {number} hashes of the weights are the run's"),
    }
}

/// Says where two runs part.
///
/// # Errors
/// If they do, or if a trajectory cannot be read.
pub fn diff(args: &DiffArgs) -> Result<(), Failure> {
    let [first, second] = [read(&args.first)?, read(&args.second)?];
    let found = first.compare(&second);
    // What is asked for is in the settings as well.
    let fields = (found.fields.iter()).filter(|field| !field.name.starts_with("run.about"));
    let fields: Vec<&Field> = fields.collect();
    for Field {
        name,
        first,
        second,
    } in &fields
    {
        println!("{name}: {first} | {second}");
    }
    if let Some(step) = found.weights {
        println!("hashes of the weights differ after {step} steps");
    }
    match &found.parting {
        None => println!("all {} steps are the same", first.steps().count()),
        Some(Parting {
            step,
            first,
            second,
        }) => {
            println!("{step} steps are the same; the next:");
            println!("  {}", Told(first.as_ref()));
            println!("  {}", Told(second.as_ref()));
        }
    }
    let same = fields.is_empty() && found.parting.is_none() && found.weights.is_none();
    match same {
        true => Ok(()),
        false => Err(Differ.into()),
    }
}

/// A step in words.
struct Told<'a>(Option<&'a RecordedStep>);

impl fmt::Display for Told<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(step) = self.0 else {
            return f.write_str("the run has ended");
        };
        let rested = if step.began_at_rest {
            ", from rest"
        } else {
            ""
        };
        write!(f, "lr {:e}, losses {:?}{rested}", step.lr, step.answers)
    }
}

/// The trajectory of a run's folder, or in a file.
fn read(run: &Path) -> Result<Trajectory, Failure> {
    let path = match run.is_dir() {
        true => run.join(TRAJECTORY),
        false => run.to_owned(),
    };
    let trajectory = Trajectory::read(&path)?;
    if let Some(torn) = trajectory.torn() {
        eprintln!(
            "note: {} ends in {} bytes of an incomplete record, which are left out",
            path.display(),
            torn.rest
        );
    }
    Ok(trajectory)
}

/// The step of the best evaluation.
fn best(trajectory: &Trajectory) -> Option<usize> {
    let evaluations = trajectory.evaluations();
    let evaluations = evaluations.map(|(step, score, loss)| Evaluated { step, score, loss });
    let counts = |evaluated: &Evaluated| !evaluated.score.is_nan() && !evaluated.loss.is_nan();
    let best = evaluations.filter(counts).reduce(|best, next| {
        if next.is_better_than(&best) {
            next
        } else {
            best
        }
    });
    best.map(|best| best.step)
}

impl BaseArgs {
    fn load(
        &self,
        trajectory: &Trajectory,
    ) -> Result<(Base, zo_llm::CausalLm, crate::methods::AnyOptimizer), Failure> {
        let about = &trajectory.header().run["about"]["run.toml"];
        let run = about.as_str().ok_or(
            "the trajectory was not written by zo train: replay it with zo_optim::trajectory, on the module of its run",
        )?;
        Base::new(run, self.model.as_deref(), self.device.as_deref())
    }
}

//! `--dry-run`: two steps, and nothing written.

use std::error::Error;
use std::sync::atomic::AtomicBool;

use zo_llm::CausalLm;
use zo_llm::finetune::{Event, FinetuneConfig, finetune};

use super::args::TrainArgs;
use super::rate::Searched;
use super::resolved::Resolved;
use super::setup::Setup;
use crate::memory::peak_rss_mib;
use crate::run::{Folder, duration};

/// Steps of a dry run: the first one warms up.
const STEPS: usize = 2;

/// Says what the run would be, and what it would take.
pub(super) fn run(
    args: &TrainArgs,
    mut setup: Setup,
    model: CausalLm,
) -> Result<(), Box<dyn Error>> {
    if let Some(out) = args.out.as_ref().filter(|_| !args.resume) {
        Folder::check(out)?;
    }
    let config = setup.plan.config.clone();
    print!(
        "{}",
        Resolved::new(args, &setup.plan, Searched::Given(config.lr)).to_toml("what would run")?
    );
    let rows = &setup.rows;
    println!(
        "\n# {} parameters, {} of them trained; {} rows to train on, {} held out",
        setup.parameters,
        setup.trained_parameters,
        rows.train.len(),
        rows.dev.len()
    );
    let short = FinetuneConfig {
        steps: config.steps.min(STEPS),
        warmup: 0,
        eval_every: 0,
        keep_best: false,
        patience: None,
        checkpoint_dir: None,
        checkpoint_every: 0,
        resume: false,
        trajectory: None,
        // The reward of the held-out rows is asked by their number: a prefix of them keeps those.
        ..config.clone()
    };
    let few: Vec<usize> = (0..rows.dev.len().min(config.eval_batch)).collect();
    let dev = rows.dev.subset(&few);
    let mut seconds = None;
    let done = finetune(
        model,
        &mut setup.plan.optimizer,
        [&rows.train, &dev],
        &short,
        &setup.plan.device,
        &AtomicBool::new(false),
        |event| {
            if let Event::Stepped { seconds: s, .. } = event {
                seconds = Some(s);
            }
            Ok(())
        },
    );
    done.map_err(|failed| failed.error)?;
    if let Some(seconds) = seconds {
        println!(
            "# {seconds:.3} seconds per step: {} steps take {}, evaluations apart",
            config.steps,
            duration(seconds * config.steps as f64)
        );
    }
    if let Some(peak) = peak_rss_mib() {
        println!("# {peak:.0} MiB of memory at most so far (on a GPU, its own comes on top)");
    }
    println!("# nothing was written");
    Ok(())
}

//! A run that is killed at random moments. The test starts itself as a separate process and kills it.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use zo_optim::ZeroOrder;
use zo_optim::noise::derive_seed;
use zo_optim::prelude::*;
use zo_optim::trainer::{Event, Finish, TrainerConfig};

use crate::{Told, bits, config, names, net, quiet, run, saving};

const NAME: &str = "killed::killed_at_ten_moments_a_run_ends_with_the_same_bits";
/// Tells the process which folder it is to work in.
const FOLDER: &str = "ZO_OPTIM_TEST_KILLED_RUN";
const KILLS: u64 = 10;
const STEPS: usize = 150;
/// Steps that one process does before it waits for its end, so that there are enough for all.
const STEPS_EACH: usize = 12;

fn plan() -> TrainerConfig {
    TrainerConfig {
        eval_every: 25,
        ..config(STEPS)
    }
}

fn resuming(dir: &Path) -> TrainerConfig {
    let config = TrainerConfig {
        checkpoint_every: 1,
        keep_best: true,
        resume: true,
        ..plan()
    };
    saving(config, dir)
}

/// Between most of its steps the weights are displaced, and an update waits.
fn optimizer() -> ZeroOrder {
    mezo().init().unwrap()
}

/// What the killed process does.
fn work(dir: &Path) {
    let mut left = STEPS_EACH;
    let observe = |event: Told<'_>| {
        if let Event::Stepped { .. } = event {
            left -= 1;
            if left == 0 {
                // Not forever, in case nobody is there to kill it.
                std::thread::sleep(Duration::from_secs(60));
                std::process::exit(1);
            }
        }
        Ok(())
    };
    run(net(1), &mut optimizer(), &resuming(dir), observe).unwrap();
}

/// Kills the process when the test fails, too.
struct Victim(Child);

impl Drop for Victim {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Steps in the last checkpoint.
fn saved(dir: &Path) -> usize {
    let steps = names(dir).into_iter();
    let steps = steps.filter_map(|name| name.strip_prefix("step-")?.parse().ok());
    steps.max().unwrap_or(0)
}

#[test]
fn killed_at_ten_moments_a_run_ends_with_the_same_bits() {
    if let Some(dir) = std::env::var_os(FOLDER) {
        return work(Path::new(&dir));
    }
    let best = tempfile::tempdir().unwrap();
    let whole = TrainerConfig {
        keep_best: true,
        ..saving(plan(), best.path())
    };
    let whole = run(net(1), &mut optimizer(), &whole, quiet).unwrap();

    let dir = tempfile::tempdir().unwrap();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let seed = now.as_nanos() as u64;
    let mut steps = Vec::new();
    for kill in 0..KILLS {
        let before = saved(dir.path());
        let victim = Command::new(std::env::current_exe().unwrap())
            .args([NAME, "--exact"])
            .env(FOLDER, dir.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let mut victim = Victim(victim.unwrap());
        let start = Instant::now();
        while saved(dir.path()) == before {
            assert!(victim.0.try_wait().unwrap().is_none(), "it ended by itself");
            assert!(start.elapsed() < Duration::from_secs(60), "it does nothing");
            std::thread::sleep(Duration::from_millis(1));
        }
        // From here to where it waits are ten steps and as many checkpoints.
        let pause = derive_seed(seed, kill, 0) % 10_000;
        std::thread::sleep(Duration::from_micros(pause));
        drop(victim);
        steps.push(saved(dir.path()));
    }
    assert!(steps.is_sorted() && steps[9] < STEPS, "{steps:?}");

    let config = resuming(dir.path());
    let mut resumed = None;
    let observe = |event: Told<'_>| {
        if let Event::Resumed { step, .. } = event {
            resumed = Some(step);
        }
        Ok(())
    };
    let end = run(net(1), &mut optimizer(), &config, observe).unwrap();
    assert_eq!(resumed, steps.last().copied());
    assert_eq!((end.finish, end.step), (Finish::Done, STEPS));
    assert_eq!(end.evaluations, whole.evaluations, "seed {seed}, {steps:?}");
    assert_eq!(
        bits(&end.model),
        bits(&whole.model),
        "seed {seed}, {steps:?}"
    );
}

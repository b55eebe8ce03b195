//! Runs that go on from their trajectory.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use zo_optim::prelude::*;
use zo_optim::trainer::{Event, Finish, TrainerConfig, TrajectoryConfig, fit, last_step};
use zo_optim::trajectory::{Replay, Trajectory};
use zo_optim::{Method, ZeroOrder};

use crate::resume::{interrupted, methods};
use crate::{Rows, Told, bits, config, half, names, net, quiet, resuming, run, saving};

const STEPS: usize = 13;

/// The configuration with a trajectory in `dir`.
fn recording(config: TrainerConfig, dir: &Path) -> TrainerConfig {
    let trajectory = TrajectoryConfig {
        digest_every: 4,
        ..TrajectoryConfig::new(dir.join("run"))
    };
    TrainerConfig {
        trajectory: Some(trajectory),
        ..config
    }
}

fn plan(lr: f64) -> TrainerConfig {
    TrainerConfig {
        lr,
        eval_every: 5,
        ..config(STEPS)
    }
}

fn build(method: &Method) -> ZeroOrder {
    method.init().unwrap()
}

/// Whether a run whose trajectory was cut off at a byte ends as one that was left alone, with the same file.
fn ends_the_same(name: &str, method: &Method, lr: f64, cuts: impl Fn(usize, usize) -> Vec<usize>) {
    let alone = run(net(1), &mut build(method), &plan(lr), quiet).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let config = recording(plan(lr), dir.path());
    let whole = run(net(1), &mut build(method), &config, quiet).unwrap();
    assert!(
        bits(&whole.model) == bits(&alone.model),
        "{name}: recording changes nothing"
    );
    let path = dir.path().join("run");
    let file = std::fs::read(&path).unwrap();
    let trajectory = Trajectory::read(&path).unwrap();
    let replayed = trajectory
        .replay(net(1), &mut build(method), STEPS, Replay::Exact)
        .unwrap();
    assert!(
        bits(&replayed.module) == bits(&whole.model),
        "{name} replayed"
    );
    // After 0, 4, 8 and 12 steps, and at the end.
    assert_eq!(replayed.digests, 5, "{name}");
    let length = u32::from_le_bytes(*file[8..].first_chunk().unwrap());
    let start = 8 + 4 + length as usize + 4;
    for cut in cuts(start, file.len()) {
        std::fs::write(&path, &file[..cut]).unwrap();
        let end = run(net(1), &mut build(method), &resuming(&config), quiet).unwrap();
        let place = format!("{name} cut at {cut} of {start}..{}", file.len());
        assert_eq!(end.evaluations, whole.evaluations, "{place}");
        assert!(bits(&end.model) == bits(&whole.model), "{place}");
        // Before its first hash, a file gets it after the evaluation.
        let same = std::fs::read(&path).unwrap() == file;
        assert!(same || cut < start + 42, "{place}: another file");
    }
    assert_eq!(names(dir.path()), ["run"]);
}

#[test]
fn cut_off_within_any_record_a_run_ends_with_the_same_bits() {
    ends_the_same("mezo", &mezo(), 1e-2, |start, end| {
        (start..=end).step_by(5).collect()
    });
}

#[test]
fn cut_off_at_some_bytes_every_method_ends_with_the_same_bits() {
    for (name, lr, method) in methods() {
        let cuts = |start: usize, end: usize| (start..=end).step_by(61).chain([end]).collect();
        ends_the_same(name, &method, lr, cuts);
    }
}

#[test]
fn a_run_goes_on_from_a_checkpoint_and_the_rest_of_its_trajectory() {
    for (name, lr, method) in methods() {
        let whole = run(net(1), &mut build(&method), &plan(lr), quiet).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let (checkpoints, file) = (dir.path().join("checkpoints"), dir.path().join("run"));
        let config = TrainerConfig {
            checkpoint_every: 4,
            keep_best: true,
            ..saving(recording(plan(lr), dir.path()), &checkpoints)
        };
        let dies = |event: Told<'_>| match event {
            Event::Stepped { report, .. } if report.step == 10 => Err("the plug".to_owned()),
            _ => Ok(()),
        };
        run(net(1), &mut build(&method), &config, dies).unwrap_err();
        let left = std::fs::read(&file).unwrap();
        assert_eq!(last_step(&file).unwrap().unwrap().step, 10);
        let again = |rest: &[u8], from| {
            std::fs::write(&file, rest).unwrap();
            let mut resumed = None;
            let observe = |event: Told<'_>| {
                if let Event::Resumed { step, .. } = event {
                    resumed = Some(step);
                }
                Ok(())
            };
            let end = run(net(1), &mut build(&method), &resuming(&config), observe).unwrap();
            assert_eq!(resumed, Some(from), "{name}");
            assert_eq!(end.evaluations, whole.evaluations, "{name} from {from}");
            let best = end.best.unwrap().step;
            let last = best != STEPS || bits(&end.model) == bits(&whole.model);
            assert!(last, "{name} from {from}");
        };
        // A power cut has taken the last evaluation, or also a part of the step before.
        again(&left[..left.len() - 1], 10);
        again(&left[..left.len() - 26], 9);
        // A trajectory that does not reach the checkpoint counts: without it, the file would have a hole.
        let few = &left[..left.len() - 190];
        std::fs::write(&file, few).unwrap();
        let from = last_step(&file).unwrap().unwrap().step;
        assert!((1..8).contains(&from), "{from}");
        again(few, from);
        let trajectory = Trajectory::read(&file).unwrap();
        let end = trajectory.replay(net(1), &mut build(&method), STEPS, Replay::Exact);
        assert!(
            bits(&end.unwrap().module) == bits(&whole.model),
            "{name} replayed"
        );
    }
}

#[test]
fn interrupted_runs_go_on_without_a_checkpoint() {
    for method in [mezo(), mezo().with_perturbation(Perturbation::OnTheFly)] {
        let whole = run(net(1), &mut build(&method), &plan(1e-2), quiet).unwrap();
        for cut in [0, 1, 4, 5, 7, 12] {
            let dir = tempfile::tempdir().unwrap();
            let config = recording(plan(1e-2), dir.path());
            let part = interrupted(net(1), &mut build(&method), &config, cut);
            assert_eq!((part.finish, part.step), (Finish::Interrupted, cut));
            let end = run(net(1), &mut build(&method), &resuming(&config), quiet).unwrap();
            assert!(
                bits(&end.model) == bits(&whole.model),
                "{method:?} after {cut}"
            );
        }
        // At a constant rate there may be more steps, as if there had been from the beginning.
        let dir = tempfile::tempdir().unwrap();
        let config = recording(plan(1e-2), dir.path());
        let short = TrainerConfig {
            steps: 10,
            ..config.clone()
        };
        run(net(1), &mut build(&method), &short, quiet).unwrap();
        let end = run(net(1), &mut build(&method), &resuming(&config), quiet).unwrap();
        assert!(
            bits(&end.model) == bits(&whole.model),
            "{method:?} in two parts"
        );
    }
}

#[test]
fn half_precision_goes_on_too() {
    let method = mezo()
        .with_epsilon(1e-2)
        .with_rounding(Rounding::Stochastic);
    let dir = tempfile::tempdir().unwrap();
    let config = recording(plan(1e-1), dir.path());
    let whole = run(half(net(1)), &mut build(&method), &config, quiet).unwrap();
    let file = std::fs::read(dir.path().join("run")).unwrap();
    std::fs::write(dir.path().join("run"), &file[..file.len() - 100]).unwrap();
    let end = run(half(net(1)), &mut build(&method), &resuming(&config), quiet).unwrap();
    assert!(bits(&end.model) == bits(&whole.model));
}

#[test]
fn what_is_not_the_same_run_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let config = recording(plan(1e-2), dir.path());
    let path = dir.path().join("run");
    run(net(1), &mut build(&mezo()), &config, quiet).unwrap();
    let file = std::fs::read(&path).unwrap();
    let refused = |method: &Method, config: &TrainerConfig, seed| {
        let error = run(net(seed), &mut build(method), config, quiet).unwrap_err();
        assert!(
            std::fs::read(&path)
                .unwrap()
                .starts_with(&file[..file.len() - 200])
        );
        error.error.to_string()
    };
    let error = refused(&mezo(), &config, 1);
    assert!(error.contains("exists: set `resume`"), "{error}");
    let other = TrainerConfig {
        lr: 2e-2,
        ..resuming(&config)
    };
    let error = refused(&mezo(), &other, 1);
    assert!(
        error.contains("its lr is 0.01, this run's is 0.02"),
        "{error}"
    );
    let fewer = TrainerConfig {
        steps: 5,
        ..resuming(&config)
    };
    let error = refused(&mezo(), &fewer, 1);
    assert!(
        error.contains("has done 13 steps, more than the 5"),
        "{error}"
    );
    // Settings that only the optimizer knows of, and weights.
    let longer = TrainerConfig {
        steps: 20,
        ..resuming(&config)
    };
    let error = refused(&mezo().with_epsilon(2e-3), &longer, 1);
    assert!(
        error.contains("`epsilon` is 0.001, expected 0.002"),
        "{error}"
    );
    let error = refused(&mezo(), &longer, 2);
    assert!(
        error.contains("after 0 step(s) the weights have the hash"),
        "{error}"
    );
    let mut damaged = file.clone();
    damaged[file.len() - 150] ^= 8;
    std::fs::write(&path, &damaged).unwrap();
    let error = refused(&mezo(), &longer, 1);
    assert!(error.contains("is damaged"), "{error}");
}

#[test]
fn no_steps_and_refused_runs_leave_no_trajectory() {
    let dir = tempfile::tempdir().unwrap();
    let none = recording(config(0), dir.path());
    run(net(1), &mut build(&mezo()), &none, quiet).unwrap();
    let bad = TrainerConfig {
        warmup: 30,
        ..recording(plan(1e-2), dir.path())
    };
    run(net(1), &mut build(&mezo()), &bad, quiet).unwrap_err();
    assert!(names(dir.path()).is_empty());
    // A folder that is not there is an error of the first evaluation, before a step is lost.
    let lost = recording(plan(1e-2), &dir.path().join("none"));
    let (never, mut rows) = (AtomicBool::new(false), Rows::default());
    let error = fit(net(1), &mut build(&mezo()), &mut rows, &lost, &never, quiet).unwrap_err();
    assert_eq!(error.step, 0);
    assert!(error.error.to_string().contains("none/run"), "{error}");
}

/// The trajectory knows of a better evaluation than the last checkpoint does.
#[test]
fn the_best_weights_outlive_the_process_that_evaluated_them() {
    let [(_, lr, method), ..] = methods();
    let (dir, alone) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let checkpoints = dir.path().join("checkpoints");
    let keeping = TrainerConfig {
        eval_every: 1,
        keep_best: true,
        // So large that the last weights are not the best.
        lr: 12.0 * lr,
        ..plan(lr)
    };
    let whole = saving(keeping.clone(), alone.path());
    let whole = run(net(1), &mut build(&method), &whole, quiet).unwrap();
    let best = whole.best.unwrap().step;
    assert!(best > 2 && best < STEPS - 1, "{best}");
    let config = TrainerConfig {
        checkpoint_every: best - 1,
        ..saving(recording(keeping, dir.path()), &checkpoints)
    };
    let dies_in = |step: usize| {
        move |event: Told<'_>| match event {
            Event::Stepped { report, .. } if report.step as usize == step => {
                Err("the plug".to_owned())
            }
            _ => Ok(()),
        }
    };
    run(net(1), &mut build(&method), &config, dies_in(best)).unwrap_err();
    std::fs::create_dir(checkpoints.join(best_name(0))).unwrap();
    let resuming = resuming(&config);
    run(net(1), &mut build(&method), &resuming, dies_in(best + 1)).unwrap_err();
    // The first is the best that the checkpoint knows of.
    let left = [best_name(best - 1), best_name(best)];
    let left = left.into_iter().chain([format!("step-{:06}", best - 1)]);
    assert_eq!(names(&checkpoints), left.collect::<Vec<_>>());

    let end = run(net(1), &mut build(&method), &resuming, quiet).unwrap();
    assert_eq!(end.best, whole.best);
    assert!(bits(&end.model) == bits(&whole.model));
}

fn best_name(step: usize) -> String {
    format!("best-{step:06}")
}

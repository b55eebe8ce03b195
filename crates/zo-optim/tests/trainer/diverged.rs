//! Runs whose weights become such that the loss is not finite.

use zo_optim::prelude::*;
use zo_optim::trainer::{
    CheckpointError, Event, RunError, TrainerConfig, TrainerError, last_checkpoint,
};

use crate::best::{SPOILED, Scripted, keeping, ranked};
use crate::{Net, NoRows, bits, config, names, net, quiet, resuming, run, saving};

fn follow(seeds: &[u64], config: &TrainerConfig) -> RunError<Net, NoRows> {
    let (seeds, step) = (seeds.to_vec(), 0);
    run(net(11), &mut Scripted { seeds, step }, config, quiet).unwrap_err()
}

fn says(error: &TrainerError<NoRows>, steps: usize, place: &str) {
    let TrainerError::Diverged { step, rows, loss } = error else {
        panic!("{error}")
    };
    assert_eq!((*step, *rows), (steps, place));
    assert!(loss.is_nan() && error.is_divergence());
    let message = error.to_string();
    assert!(message.contains("learning rate"), "{message}");
}

#[test]
fn a_checkpoint_never_holds_weights_that_diverged() {
    let dir = tempfile::tempdir().unwrap();
    let config = TrainerConfig {
        checkpoint_every: 1,
        ..saving(config(6), dir.path())
    };
    let error = follow(&[12, 13, SPOILED, 12], &config);
    says(&error.error, 3, "the next batch");
    assert_eq!((error.step, error.best), (3, None));
    assert_eq!(names(dir.path()), ["step-000002"], "not even a draft");
    let saved = last_checkpoint(dir.path()).unwrap().unwrap();
    assert_eq!((saved.step, &saved.settings["lr"]), (2, &1e-2.into()));
    assert!(saved.path.ends_with("step-000002"));

    // With fewer steps than were done there is nothing to continue.
    let fewer = TrainerConfig {
        steps: 1,
        ..resuming(&config)
    };
    let error = follow(&[12, 13, 11], &fewer).error;
    let TrainerError::Checkpoint(CheckpointError::Beyond { step, steps, .. }) = error else {
        panic!("{error}")
    };
    assert_eq!((step, steps), (2, 1));
}

#[test]
fn an_update_that_waits_is_looked_at_before_it_is_saved() {
    // The steps are finite; with the last update the loss overflows, and only then.
    let dir = tempfile::tempdir().unwrap();
    let config = TrainerConfig {
        checkpoint_every: 1,
        lr: 1e30,
        ..saving(config(6), dir.path())
    };
    let mut optim = mezo().init().unwrap();
    let error = run(net(1), &mut optim, &config, quiet).unwrap_err();
    let TrainerError::Diverged { step, rows, .. } = error.error else {
        panic!("{error}")
    };
    assert_eq!((step, rows), (1, "the next batch"));
    assert!(names(dir.path()).is_empty());
}

#[test]
fn a_run_that_diverges_ends_at_once_with_its_best_weights() {
    let [bad, fair, good] = ranked();
    let dir = tempfile::tempdir().unwrap();
    let error = follow(&[bad, good, fair, SPOILED, good], &keeping(5, dir.path()));
    says(&error.error, 4, "the held-out rows");
    assert_eq!(error.best.map(|best| best.step), Some(2));
    assert!(bits(&error.model) == bits(&net(good)));
    assert_eq!(
        names(dir.path()),
        ["best-000002"],
        "no checkpoint was asked for"
    );

    // At the last step, and without keeping the best.
    let error = follow(&[good, SPOILED], &config(2));
    says(&error.error, 2, "the held-out rows");
    assert_eq!(error.best, None);
}

#[test]
fn a_step_that_fails_for_its_loss_is_a_divergence_too() {
    let dir = tempfile::tempdir().unwrap();
    let config = TrainerConfig {
        lr: 1e300,
        ..keeping(3, dir.path())
    };
    let mut optim = mezo().init().unwrap();
    let error = run(net(1), &mut optim, &config, quiet).unwrap_err();
    assert!(error.error.is_divergence(), "{error}");
    assert_eq!(error.best.map(|best| best.step), Some(0));
    assert!(bits(&error.model) == bits(&net(1)));
    assert_eq!(names(dir.path()), ["best-000000"]);
}

#[test]
fn what_was_not_finite_from_the_start_is_not_the_best() {
    let dir = tempfile::tempdir().unwrap();
    let mut told = 0;
    let observe = |event: Event<'_, Vec<u64>>| {
        if let Event::Evaluated { evaluation, .. } = event {
            assert!(evaluation.loss.is_nan());
            told += 1;
        }
        Ok(())
    };
    let mut optim = Scripted {
        seeds: vec![SPOILED],
        step: 0,
    };
    let start = run(net(1), &mut optim, &config(1), quiet)
        .unwrap_err()
        .model;
    let only = keeping(0, dir.path());
    let done = run(start, &mut mezo().init().unwrap(), &only, observe).unwrap();
    assert_eq!((told, done.best), (1, None));
}

//! Runs whose weights become such that the loss is not finite.

use zo_core::ZoError;
use zo_llm::finetune::{
    CheckpointError, Event, FinetuneConfig, FinetuneError, Finish, RunError, last_checkpoint,
};

use crate::best::{SPOILED, Scripted, keeping, ranked};
use crate::{bits, config, data, mezo, model, names, quiet, run, saving, spoiled};

fn follow(seeds: &[u64], config: &FinetuneConfig) -> RunError {
    let (seeds, step) = (seeds.to_vec(), 0);
    let mut optim = Scripted { seeds, step };
    run(model(11), &mut optim, &data(), config, quiet).unwrap_err()
}

fn says(error: &FinetuneError, steps: usize, place: &str) {
    let FinetuneError::Diverged { step, rows, loss } = error else {
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
    let config = FinetuneConfig {
        checkpoint_every: 1,
        ..saving(config(6), dir.path())
    };
    let error = follow(&[12, 13, SPOILED, 12], &config);
    says(&error.error, 3, "the next batch");
    assert_eq!((error.step, error.best), (3, None));
    assert_eq!(names(dir.path()), ["step-000002"]);
    let saved = last_checkpoint(dir.path()).unwrap().unwrap();
    assert_eq!((saved.step, &saved.settings["lr"]), (2, &1e-3.into()));
    assert!(saved.path.ends_with("step-000002"));

    // With fewer steps than were done there is nothing to go on with.
    let fewer = FinetuneConfig {
        resume: true,
        steps: 1,
        ..config.clone()
    };
    let error = follow(&[12, 13, 11], &fewer).error;
    let FinetuneError::Checkpoint(CheckpointError::Beyond { step, steps, .. }) = error else {
        panic!("{error}")
    };
    assert_eq!((step, steps), (2, 1));
}

#[test]
fn a_run_that_diverges_ends_at_once_with_its_best_weights() {
    let data = data();
    let [bad, fair, good] = ranked(&data);
    let dir = tempfile::tempdir().unwrap();
    let error = follow(&[bad, good, fair, SPOILED, good], &keeping(5, dir.path()));
    says(&error.error, 4, "the held-out rows");
    assert_eq!(error.best.map(|best| best.step), Some(2));
    assert!(bits(&error.model) == bits(&model(good)));
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
    let config = FinetuneConfig {
        lr: 1e300,
        ..keeping(3, dir.path())
    };
    let mut optim = mezo();
    let error = run(model(1), &mut optim, &data(), &config, quiet).unwrap_err();
    assert!(error.error.is_divergence(), "{error}");
    assert_eq!(error.best.map(|best| best.step), Some(0));
    assert!(bits(&error.model) == bits(&model(1)));
    assert_eq!(names(dir.path()), ["best-000000"]);
}

#[test]
fn what_was_not_finite_from_the_start_is_said_and_is_no_best() {
    let (data, dir) = (data(), tempfile::tempdir().unwrap());
    let mut told = Vec::new();
    let observe = |event: Event<'_>| {
        if let Event::Evaluated { evaluation, .. } = event {
            told.push(evaluation.clone());
        }
        Ok(())
    };
    let mut optim = mezo();
    let only = keeping(0, dir.path());
    let done = run(spoiled(), &mut optim, &data, &only, observe).unwrap();
    assert_eq!((done.finish, done.best), (Finish::Done, None));
    let [evaluation] = &told[..] else {
        panic!("{told:?}")
    };
    assert!(evaluation.loss.is_nan() && evaluation.accuracy.is_nan());
    assert!(evaluation.predictions.iter().all(Option::is_none));
    let note = evaluation.note().unwrap();
    assert!(note.contains("8 of 8 rows"), "{note}");
    // To train it fails in the first step.
    let error = run(spoiled(), &mut optim, &data, &config(3), quiet).unwrap_err();
    let FinetuneError::Step(ZoError::NonFiniteLoss { step: 0, .. }) = error.error else {
        panic!("{error}")
    };
}

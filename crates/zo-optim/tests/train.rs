//! Zeroth-order training inside burn's `SupervisedTraining`.

#![cfg(all(feature = "train", feature = "flex"))]
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "train/setup.rs"]
mod setup;

use std::sync::{Arc, Mutex};

use burn::lr_scheduler::exponential::ExponentialLrSchedulerConfig;
use burn::module::Module;
use burn::train::checkpoint::KeepLastNCheckpoints;
use burn::train::metric::LossMetric;
use burn::train::metric::store::{Aggregate, Direction, EventStoreClient, Split};
use burn::train::{
    EarlyStoppingStrategy, Interrupter, MetricEarlyStoppingStrategy, StoppingCondition,
    TrainingStrategy,
};
use zo_optim::prelude::*;
use zo_optim::train::{StepMetric, TrainError, ZeroOrderStrategy};
use zo_optim::variants::{adam_window, momentum};

use setup::{
    Batch, Classifier, Reports, STEPS, launch, loader, logged, objective, training, training_on,
};

#[test]
fn a_model_learns_in_place_and_the_metrics_are_those_of_the_reports() {
    let directory = tempfile::tempdir().unwrap();
    let reports = Reports::default();
    let training = training(directory.path(), 6)
        .metric_train(reports.clone())
        .metric_train_numeric(StepMetric::projected_gradient())
        .metric_train_numeric(StepMetric::forwards_per_second())
        .metric_train_numeric(StepMetric::new("Passes", |report| report.passes as f64))
        .with_default_checkpointers();
    let optim = mezo().with_queries(8).init().unwrap();
    let (result, record) = launch(training, optim, 0.3, Classifier::new(0.05));
    assert!(result.error.is_none() && result.interrupted.is_none());
    assert_eq!(record.step as usize, 6 * STEPS);

    let reports = reports.take();
    assert_eq!(reports.len(), 6 * STEPS);
    for (number, report) in reports.iter().enumerate() {
        assert_eq!((report.step as usize, report.forwards), (number, 16));
        // Checkpoints included.
        assert_eq!(report.copied, 0, "step {number} was not in place");
    }
    for (epoch, reports) in (1..).zip(reports.chunks(STEPS)) {
        let (losses, _) = logged(directory.path(), "train", epoch, "Loss");
        let expected: Vec<f64> = reports.iter().map(StepReport::loss).collect();
        assert_eq!(losses, expected, "losses of epoch {epoch}");

        let (sizes, mean) = logged(directory.path(), "train", epoch, "Projected_Gradient");
        let of = |report: &StepReport| {
            let sizes = report.queries.iter().map(|q| q.projected_gradient.abs());
            sizes.sum::<f64>() / 8.0
        };
        let expected: Vec<f64> = reports.iter().map(of).collect();
        assert_eq!(sizes, expected, "projected gradients of epoch {epoch}");
        let expected = expected.iter().sum::<f64>() / STEPS as f64;
        assert!((mean - expected).abs() < 1e-12 * expected, "{mean}");

        let (_, rate) = logged(directory.path(), "train", epoch, "Forwards_per_Second");
        let seconds = |report: &StepReport| report.seconds_forward + report.seconds_sweep;
        let expected = 16.0 * STEPS as f64 / reports.iter().map(seconds).sum::<f64>();
        // Each step's time is rounded to microseconds.
        assert!((rate / expected - 1.0).abs() < 0.05, "{rate}, {expected}");

        let (passes, _) = logged(directory.path(), "train", epoch, "Passes");
        // The update of a step is made in the first pass of the next, or at the end of the epoch.
        assert_eq!(passes, [16.0; STEPS]);
    }
    let [(_, first), (_, last)] =
        [1, 6].map(|epoch| logged(directory.path(), "valid", epoch, "Loss"));
    assert!(last < 0.7 * first, "the loss was {first} and is {last}");
    let (_, accuracy) = logged(directory.path(), "valid", 6, "Accuracy");
    assert!(accuracy > 90.0, "accuracy {accuracy}");
}

#[test]
fn it_is_the_run_of_a_plain_loop() {
    let directory = tempfile::tempdir().unwrap();
    let config = mezo().with_queries(2).with_seed(3);
    let training = training_on(loader(None), directory.path(), 2);
    let (result, _) = launch(training, config.init().unwrap(), 0.1, Classifier::new(0.1));

    let optim = config.init().unwrap();
    let mut session = optim.session(Classifier::new(0.1)).unwrap();
    for _ in 0..2 {
        for batch in loader(None).iter() {
            let batch = batch.unwrap();
            let step = session.step(0.1, |model: &Classifier| model.loss(&batch));
            step.unwrap();
        }
        session.model();
    }
    assert_eq!(result.model.0.bits(), session.model().bits());
}

/// Four epochs at once, and two and two with a checkpoint between them, from another model.
fn resumes<O: ZerothOrderOptimizer + 'static>(make: impl Fn() -> O) {
    let scheduler = || ExponentialLrSchedulerConfig::new(0.2, 0.93).init().unwrap();
    let start = || Classifier::new(0.1);
    let directory = tempfile::tempdir().unwrap();
    let (whole, whole_record) = launch(
        training(&directory.path().join("whole"), 4),
        make(),
        scheduler(),
        start(),
    );
    let parts = directory.path().join("parts");
    let checkpointed = |epochs| {
        training(&parts, epochs)
            .with_default_checkpointers()
            .with_checkpointing_strategy(KeepLastNCheckpoints::new(1))
    };
    let (half, record) = launch(checkpointed(2), make(), scheduler(), start());
    assert_eq!(record.step as usize, 2 * STEPS);
    assert_ne!(half.model.0.bits(), whole.model.0.bits());

    let training = checkpointed(4).checkpoint(2);
    let (resumed, record) = launch(training, make(), scheduler(), Classifier::new(-7.0));
    assert!(resumed.error.is_none());
    assert_eq!(resumed.model.0.bits(), whole.model.0.bits());
    assert_eq!(record, whole_record);
    let kept = |epoch| {
        let folder = parts.join("checkpoint");
        ["model", "optim", "scheduler"]
            .map(|name| folder.join(format!("{name}-{epoch}.bpk")).exists())
    };
    assert_eq!([kept(3), kept(4)], [[false; 3], [true; 3]]);
}

#[test]
fn a_resumed_run_is_the_same_run() {
    resumes(|| mezo().with_seed(11).init().unwrap());
}

#[test]
fn a_resumed_run_has_its_window_of_seeds() {
    resumes(|| adam_window().init().unwrap());
}

#[test]
fn a_resumed_run_has_its_buffers() {
    resumes(|| momentum().init().unwrap());
}

#[test]
fn a_resumed_run_has_its_scores() {
    resumes(|| {
        curvzo()
            .with_mask(CurvatureSampling::new().with_adapt_every(7))
            .init()
            .unwrap()
    });
}

#[test]
fn checkpoints_that_do_not_fit_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let mezo = |seed| mezo().with_seed(seed).init().unwrap();
    let saved = training(directory.path(), 1).with_default_checkpointers();
    launch(saved, mezo(1), 0.1, Classifier::new(0.1));

    // Another seed.
    let strategy = Arc::new(ZeroOrderStrategy::new(mezo(2), 0.1, objective));
    let result = training(directory.path(), 2)
        .with_default_checkpointers()
        .checkpoint(1)
        .with_training_strategy(TrainingStrategy::Custom(strategy.clone()))
        .launch(strategy.learner(Classifier::new(0.1)));
    let message = result.error.unwrap().to_string();
    assert!(message.contains("resuming after epoch 1"), "{message}");
    assert!(message.contains("seed"), "{message}");
    let error = strategy.take_error();
    assert!(
        matches!(error, Some(TrainError::Record { epoch: 1, .. })),
        "{error:?}"
    );
    assert!(strategy.take_error().is_none());
    assert_eq!(strategy.record().step, 0);

    // No checkpointers: burn-train would go on from epoch 2 with what it was given.
    let training = training(directory.path(), 2).checkpoint(1);
    let (result, record) = launch(training, mezo(1), 0.1, Classifier::new(0.1));
    let message = result.error.unwrap().to_string();
    assert!(message.contains("with_default_checkpointers"), "{message}");
    assert_eq!(record.step, 0);
}

/// Stops after an epoch, if the metrics of that epoch are there.
#[derive(Clone)]
struct After(usize);

impl EarlyStoppingStrategy for After {
    fn should_stop(&mut self, epoch: usize, store: &EventStoreClient) -> bool {
        let metric = |name, split| store.find_metric(name, epoch, Aggregate::Mean, &split);
        metric("Loss", Split::Train).unwrap();
        metric("Accuracy", Split::Valid).unwrap();
        epoch == self.0
    }
}

#[test]
fn early_stopping_stops() {
    let directory = tempfile::tempdir().unwrap();
    let mezo = || mezo().with_queries(8).init().unwrap();
    let stopped = training(&directory.path().join("a"), 5).early_stopping(After(2));
    let (result, record) = launch(stopped, mezo(), 0.1, Classifier::new(0.1));
    assert!(result.error.is_none() && result.interrupted.is_none());
    assert_eq!(record.step as usize, 2 * STEPS);

    // At learning rate 0 every bit stays, and the first epoch is not improved on.
    let stopped =
        training(&directory.path().join("b"), 5).early_stopping(MetricEarlyStoppingStrategy::new(
            &LossMetric::new(),
            Aggregate::Mean,
            Direction::Lowest,
            Split::Valid,
            StoppingCondition::NoImprovementSince { n_epochs: 2 },
        ));
    let still = zo_optim::mezo().with_perturbation(Perturbation::OnTheFly);
    let (_, record) = launch(stopped, still.init().unwrap(), 0.0, Classifier::new(0.1));
    assert_eq!(record.step as usize, 3 * STEPS);
}

#[test]
fn the_interrupter_stops_between_steps() {
    let directory = tempfile::tempdir().unwrap();
    let interrupter = Interrupter::new();
    let evaluations = Mutex::new(0);
    let stop = interrupter.clone();
    // In the middle of the third step of the second epoch.
    let objective = move |model: &Classifier, batch: &Batch| {
        let mut evaluations = evaluations.lock().unwrap();
        *evaluations += 1;
        if *evaluations == 2 * (STEPS + 2) + 1 {
            stop.stop(Some("enough"));
        }
        model.loss(batch)
    };
    let optim = mezo().init().unwrap();
    let strategy = Arc::new(ZeroOrderStrategy::new(optim, 0.1, objective));
    let result = training(directory.path(), 5)
        .with_interrupter(interrupter)
        .with_training_strategy(TrainingStrategy::Custom(strategy.clone()))
        .launch(strategy.learner(Classifier::new(0.1)));
    assert_eq!(
        result.interrupted.unwrap().reason.as_deref(),
        Some("enough")
    );
    assert!(result.error.is_none());
    assert_eq!(strategy.record().step as usize, STEPS + 3);
}

/// Losses of which one is NaN: the first of a step.
fn nan_in_step(step: usize) -> impl Fn(&Classifier, &Batch) -> f64 {
    let evaluations = Mutex::new(0);
    move |model, batch| {
        let mut evaluations = evaluations.lock().unwrap();
        *evaluations += 1;
        if *evaluations == 2 * step + 1 {
            return f64::NAN;
        }
        model.loss(batch).into_scalar::<f64>()
    }
}

#[test]
fn a_failed_step_ends_the_training_with_the_model_before_it() {
    let directory = tempfile::tempdir().unwrap();
    let optim = mezo().init().unwrap();
    let strategy = Arc::new(ZeroOrderStrategy::new(optim, 0.1, nan_in_step(0)));
    let result = training(directory.path(), 2)
        .with_training_strategy(TrainingStrategy::Custom(strategy.clone()))
        .launch(strategy.learner(Classifier::new(0.1)));
    let message = result.error.unwrap().to_string();
    assert!(
        message.contains("step 0: the objective is NaN"),
        "{message}"
    );
    assert!(matches!(strategy.take_error(), Some(TrainError::Step(_))));
    assert_eq!(strategy.record().step, 0);
    let pairs = result
        .model
        .0
        .bits()
        .into_iter()
        .zip(Classifier::new(0.1).bits());
    for (end, start) in pairs {
        let (end, start) = (f32::from_bits(end), f32::from_bits(start));
        assert!((end - start).abs() < 1e-6, "{start} became {end}");
    }
}

#[test]
fn a_skipped_step_leaves_no_trace_in_the_metrics() {
    let directory = tempfile::tempdir().unwrap();
    let config = mezo().with_non_finite(NonFinite::Skip);
    let optim = config.init().unwrap();
    let strategy = Arc::new(ZeroOrderStrategy::new(optim, 0.1, nan_in_step(1)));
    let result = training(directory.path(), 1)
        .with_training_strategy(TrainingStrategy::Custom(strategy.clone()))
        .launch(strategy.learner(Classifier::new(0.1)));
    assert!(result.error.is_none());
    assert_eq!(strategy.record().step as usize, STEPS);
    let (losses, mean) = logged(directory.path(), "train", 1, "Loss");
    assert_eq!(losses.len(), STEPS - 1);
    assert!(mean.is_finite());
}

#[test]
fn gradient_accumulation_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let training = training(directory.path(), 1).grads_accumulation(4);
    let optim = mezo().init().unwrap();
    let (result, record) = launch(training, optim, 0.1, Classifier::new(0.1));
    let message = result.error.unwrap().to_string();
    assert!(message.contains("grads_accumulation(4)"), "{message}");
    assert_eq!(record.step, 0);
}

#[test]
fn a_model_on_an_autodiff_device_is_taken_off_it() {
    let directory = tempfile::tempdir().unwrap();
    let reports = Reports::default();
    let training = training(directory.path(), 1).metric_train(reports.clone());
    let model = Classifier::new(0.1).train();
    assert!(model.weight.val().device().is_autodiff());
    let optim = mezo().init().unwrap();
    let (result, _) = launch(training, optim, 0.1, model);
    assert!(result.error.is_none());
    assert!(!result.model.0.weight.val().device().is_autodiff());
    assert!(reports.take().iter().all(|report| report.copied == 0));
}

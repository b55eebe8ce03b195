//! Runs that are refused, before a file is touched and before the model is.

use std::sync::atomic::AtomicBool;

use burn::module::ParamGroup;
use serde_json::json;
use zo_optim::ZoError;
use zo_optim::prelude::*;
use zo_optim::trainer::{
    CheckpointError, Event, Schedule, TrainerConfig, TrainerError, fit, last_checkpoint,
};
use zo_optim::variants::momentum;

use crate::resume::interrupted;
use crate::{NoRows, Rows, Told, bits, config, names, net, quiet, resuming, run, saving};

fn refused(method: Method, config: &TrainerConfig) -> String {
    let mut optim = method.init().unwrap();
    let error = run(net(1), &mut optim, config, |event| match event {
        Event::Resumed { .. } | Event::Evaluated { .. } => Err("it began".to_owned()),
        _ => Ok(()),
    });
    let error = error.unwrap_err();
    assert_eq!((error.step, error.best), (0, None));
    assert!(bits(&error.model) == bits(&net(1)), "{error}");
    error.to_string()
}

#[test]
fn what_makes_no_sense_leaves_the_disk_as_it_was() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("run");
    let good = saving(config(3), &dir);
    let bad = TrainerConfig {
        lr: f64::NAN,
        ..good.clone()
    };
    assert!(refused(mezo(), &bad).starts_with("lr is NaN"));
    let nothing = mezo().with_trainable(ParamGroup::from_path("nothing"));
    let error = refused(nothing, &good);
    assert!(
        error.contains("no parameter of the module is trainable"),
        "{error}"
    );
    let bad = TrainerConfig {
        trained: ParamGroup::from_path("nothing"),
        ..good
    };
    let error = refused(mezo(), &bad);
    assert!(error.contains("none of the 4 parameters"), "{error}");
    assert!(!dir.exists());
}

#[test]
fn checkpoints_of_other_runs_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let plan = TrainerConfig {
        method: json!({"name": "mezo", "epsilon": 1e-3}),
        schedule: Schedule::Linear,
        ..saving(config(6), dir.path())
    };
    interrupted(net(1), &mut mezo().init().unwrap(), &plan, 3);
    let refuse = |config: &TrainerConfig| refused(mezo(), config);
    assert!(refuse(&plan).contains("step-000003 exists: set `resume`"));

    type Spoil = fn(&mut TrainerConfig);
    let others: [(&str, Spoil); 6] = [
        ("its lr is 0.01, this run's is 0.002", |c| c.lr = 2e-3),
        ("its steps is 6, this run's is 7", |c| c.steps = 7),
        (
            "its schedule is \"linear\", this run's is \"cosine\"",
            |c| c.schedule = Schedule::Cosine,
        ),
        ("its method.epsilon is 0.001, this run's is 0.01", |c| {
            c.method = json!({"name": "mezo", "epsilon": 1e-2});
        }),
        ("its eval_every is 0, this run's is 9", |c| c.eval_every = 9),
        ("its parameters.layers.0", |c| {
            c.trained = ParamGroup::from_path("head");
        }),
    ];
    for (expected, spoil) in others {
        let mut config = resuming(&plan);
        spoil(&mut config);
        let error = refuse(&config);
        assert!(error.contains(expected), "{error}");
    }
    let error = refused(mezo().with_seed(5), &resuming(&plan));
    assert!(error.contains("`seed` is 0, expected 5"), "{error}");
    let error = refused(momentum(), &resuming(&plan));
    assert!(error.contains("its setting `update"), "{error}");
    assert_eq!(names(dir.path()), ["step-000003"]);
}

#[test]
fn damaged_checkpoints_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let plan = saving(config(4), dir.path());
    interrupted(net(1), &mut momentum().init().unwrap(), &plan, 2);
    let folder = dir.path().join("step-000002");
    for name in [
        "optimizer.json-2.safetensors",
        "optimizer.json",
        "trained.safetensors",
        "state.json",
    ] {
        let path = folder.join(name);
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
        let error = refused(momentum(), &resuming(&plan));
        assert!(error.contains(name), "{error}");
        std::fs::write(&path, whole).unwrap();
    }
    run(
        net(1),
        &mut momentum().init().unwrap(),
        &resuming(&plan),
        quiet,
    )
    .unwrap();
    assert_eq!(names(dir.path()), ["step-000004"]);
}

#[test]
fn checkpoints_hold_what_trains() {
    let head = || ParamGroup::from_path("head");
    let dir = tempfile::tempdir().unwrap();
    let config = TrainerConfig {
        trained: head(),
        ..saving(config(6), dir.path())
    };
    let mut optim = mezo().with_trainable(head()).init().unwrap();
    run(net(1), &mut optim, &config, quiet).unwrap();
    let folder = last_checkpoint(dir.path()).unwrap().unwrap().path;
    let bytes = std::fs::read(folder.join("trained.safetensors")).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(file.names(), ["head"]);

    // An optimizer that trains more than that.
    let dir = tempfile::tempdir().unwrap();
    let config = TrainerConfig {
        checkpoint_dir: Some(dir.path().to_owned()),
        ..config
    };
    let error = run(net(1), &mut mezo().init().unwrap(), &config, quiet).unwrap_err();
    let TrainerError::Checkpoint(CheckpointError::Changed { path }) = &error.error else {
        panic!("{error}")
    };
    assert_eq!((path.as_str(), error.step), ("layers.0.weight", 6));
}

#[test]
fn failures_give_the_reason_and_the_model() {
    let observer = |event: Told<'_>| match event {
        Event::Stepped { report, .. } if report.step == 1 => Err("disk full".to_owned()),
        _ => Ok(()),
    };
    let mut optim = mezo().init().unwrap();
    let error = run(net(1), &mut optim, &config(3), observer).unwrap_err();
    assert_eq!((error.to_string().as_str(), error.step), ("disk full", 2));
    let whole = run(net(1), &mut mezo().init().unwrap(), &config(2), quiet).unwrap();
    assert!(bits(&error.model) == bits(&whole.model), "settled");
    let error = run(
        net(1),
        &mut mezo().init().unwrap(),
        &TrainerConfig {
            lr: 1e300,
            ..config(3)
        },
        quiet,
    );
    let TrainerError::Step(ZoError::Overflow { .. }) = error.unwrap_err().error else {
        panic!()
    };
    let (never, mut rows) = (AtomicBool::new(false), Rows { until: Some(2) });
    let mut optim = mezo().init().unwrap();
    let error = fit(net(1), &mut optim, &mut rows, &config(3), &never, quiet).unwrap_err();
    assert!(matches!(error.error, TrainerError::Task(NoRows)), "{error}");
    assert_eq!(error.step, 2);
}

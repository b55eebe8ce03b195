//! What a run logs.

use std::path::Path;

use serde_json::{Value, json};
use zo_optim::logger::{Csv, JsonLines, Logger};
use zo_optim::prelude::*;
use zo_optim::trainer::{Event, Schedule, TrainerConfig};

use crate::{Told, config, net, resuming, run, saving};

/// The lines of `metrics.jsonl` without seconds, which no two runs share.
fn lines(dir: &Path) -> Vec<Value> {
    let mut lines = JsonLines::new(dir.join("metrics.jsonl")).read().unwrap();
    for line in &mut lines {
        let line = line.as_object_mut().unwrap();
        line.retain(|name, _| !name.starts_with("seconds"));
    }
    lines
}

/// The steps of the table.
fn steps(dir: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(dir.join("metrics.csv")).unwrap();
    let steps = text.lines().map(|line| line.split(',').next().unwrap());
    steps.map(str::to_owned).collect()
}

/// A run that logs to `dir`, and whose plug is pulled after `last` steps.
fn logged(config: &TrainerConfig, dir: &Path, last: usize) -> bool {
    let mut log: Vec<Box<dyn Logger>> = vec![
        Box::new(JsonLines::new(dir.join("metrics.jsonl"))),
        Box::new(Csv::new(dir.join("metrics.csv"))),
    ];
    let observe = |event: Told<'_>| {
        event.log(&mut log).map_err(|error| error.to_string())?;
        match event {
            Event::Stepped { report, .. } if report.step + 1 == last as u64 => {
                Err("the plug was pulled".to_owned())
            }
            _ => Ok(()),
        }
    };
    run(net(1), &mut mezo().init().unwrap(), config, observe).is_ok()
}

#[test]
fn a_resumed_run_logs_each_step_once() {
    let plan = TrainerConfig {
        eval_every: 4,
        schedule: Schedule::Linear,
        checkpoint_every: 3,
        ..config(10)
    };
    let [whole, cut] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    assert!(logged(
        &saving(plan.clone(), &whole.path().join("a")),
        whole.path(),
        99
    ));
    let expected = lines(whole.path());
    // Evaluations after 0, 4, 8 and 10 steps.
    assert_eq!(expected.len(), 10 + 4);
    let values = |line: &Value, names: &[&str]| -> Vec<Value> {
        names.iter().map(|name| line[*name].clone()).collect()
    };
    let first = values(
        &expected[1],
        &["step", "forwards", "learning_rate", "skipped"],
    );
    assert_eq!(first, [json!(1), json!(2), json!(1e-2), json!(false)]);
    assert_eq!(expected[2]["learning_rate"], json!(1e-2 * 0.9));
    let [score, loss] = ["eval_score", "eval_loss"].map(|name| expected[0][name].as_f64().unwrap());
    assert!(loss > 0.0 && score == -loss);

    let config = saving(plan, &cut.path().join("a"));
    // Eight steps are logged, and six are in the checkpoint.
    assert!(!logged(&config, cut.path(), 8));
    assert_eq!(lines(cut.path()).last().unwrap()["step"], 8);
    assert!(logged(&resuming(&config), cut.path(), 99));
    assert_eq!(lines(cut.path()), expected);
    assert_eq!(steps(cut.path()), steps(whole.path()));
    // Without a checkpoint a run begins anew, and so does its log.
    std::fs::remove_dir_all(cut.path().join("a")).unwrap();
    assert!(logged(&resuming(&config), cut.path(), 99));
    assert_eq!(lines(cut.path()), expected);
}

//! Resumed runs.

use serde_json::Value;

use crate::{fails, files, json, lines, short, succeeds};

#[test]
fn without_a_checkpoint_there_is_nothing_to_resume() {
    let dir = tempfile::tempdir().unwrap();
    let error = fails(dir.path(), &short(&["--out", "a", "--resume"]));
    assert!(
        error.contains("a holds no trajectory and no checkpoint"),
        "{error}"
    );
    assert_eq!(dir.path().read_dir().unwrap().count(), 0);
    let without = ["--out", "a", "--trajectory", "false"];
    succeeds(dir.path(), &short(&without));
    let before = files(dir.path());
    let resume = [&without[..], &["--resume"]].concat();
    fails(dir.path(), &short(&resume));
    assert!(files(dir.path()) == before);
}

/// The lines of steps and evaluations, without what differs from process to process.
fn told(mut lines: Vec<Value>) -> Vec<Value> {
    for line in &mut lines {
        let line = line.as_object_mut().unwrap();
        line.retain(|name, _| !name.starts_with("seconds") && name != "peak_rss_mib");
    }
    lines
}

#[test]
fn the_bundled_model_goes_on_for_longer() {
    let dir = tempfile::tempdir().unwrap();
    let args = |steps: &'static str, more: &[&'static str]| {
        short(&[&["--checkpoint-every", "10", "--steps", steps], more].concat())
    };
    // A tenth of 20 steps is 2, of 30 it would be 3.
    let logs = ["--log", "csv,tensorboard", "--out", "a"];
    succeeds(dir.path(), &args("20", &logs));
    let first = json(&dir.path().join("a/report.json"));
    let chosen = json(&dir.path().join("a/predictions.json"));
    succeeds(
        dir.path(),
        &args("30", &[&logs[..], &["--resume"]].concat()),
    );
    // Steps, and evaluations after every second and before all.
    let table = std::fs::read_to_string(dir.path().join("a/metrics.csv")).unwrap();
    assert_eq!(table.lines().count(), 1 + 30 + 16);
    let events = dir.path().join("a/tensorboard").read_dir().unwrap();
    assert_eq!(events.count(), 1);
    let report = json(&dir.path().join("a/report.json"));
    assert_eq!([&report["steps"], &report["resumed_from"]], [30, 20]);
    assert_eq!(report["eval_every"], 2);
    assert_eq!(report["eval_loss_before"], first["eval_loss_before"]);
    assert_ne!(report["eval_loss_after"], first["eval_loss_after"]);
    let went_on = json(&dir.path().join("a/predictions.json"));
    assert_eq!(went_on["before"], chosen["before"]);
    assert_eq!(went_on["after"].as_array().unwrap().len(), 6);

    succeeds(
        dir.path(),
        &args("30", &["--out", "b", "--eval-every", "2"]),
    );
    let [a, b] = ["a", "b"].map(|name| told(lines(&dir.path().join(name).join("metrics.jsonl"))));
    assert_eq!(a, b, "like one that ran to the end at once");

    // Once more changes nothing but times.
    succeeds(dir.path(), &args("30", &["--out", "a", "--resume"]));
    assert_eq!(told(lines(&dir.path().join("a/metrics.jsonl"))), a);
    assert_eq!(json(&dir.path().join("a/predictions.json")), went_on);
    let before = files(dir.path());
    let error = fails(dir.path(), &args("10", &["--out", "a", "--resume"]));
    assert!(
        error.contains("has done 30 steps, more than the 10"),
        "{error}"
    );
    assert!(files(dir.path()) == before);
}

#[test]
fn checkpoints_of_other_runs_are_refused_and_stay() {
    let dir = tempfile::tempdir().unwrap();
    let plain = ["--out", "a", "--checkpoint-every", "2"];
    succeeds(dir.path(), &short(&plain));
    let before = files(dir.path());
    for (other, field) in [
        (&["--method", "gv"][..], "method.name"),
        (&["--difference", "one-sided"], "method.settings.difference"),
        (&["--epsilon", "1e-2"], "method.epsilon"),
        (&["--lr", "1e-3"], "lr"),
        (&["--seed", "3"], "seed"),
        (&["--tuning", "lora"], "lr"),
        (
            &["--tuning", "lora", "--epsilon", "1e-3", "--lr", "1e-4"],
            "parameters.",
        ),
        (&["--dtype", "bf16"], "parameters."),
        (&["--warmup", "2"], "warmup"),
        (&["--schedule", "cosine"], "schedule"),
        (&["--eval-every", "1"], "eval_every"),
        (&["--unbalanced"], "order"),
    ] {
        let args = short(&[&plain[..], &["--resume"], other].concat());
        let error = fails(dir.path(), &args);
        assert!(error.contains("belongs to another run: its "), "{error}");
        assert!(error.contains(field), "{field}: {error}");
        assert!(files(dir.path()) == before, "{other:?}");
    }
    let rows = |rows| short(&[&plain[..], &["--resume", "--train-rows", rows]].concat());
    let error = fails(dir.path(), &rows("12"));
    assert!(error.contains("its train."), "{error}");
    assert!(files(dir.path()) == before);
    // The same settings are still good.
    succeeds(dir.path(), &rows("16"));
}

//! Learning rates that are searched, and those that are wrong.

use crate::{fails, files, json, short, succeeds, text, zo};

#[test]
fn a_searched_rate_stands_in_the_report_and_is_not_searched_again() {
    let dir = tempfile::tempdir().unwrap();
    let auto = [
        "--lr",
        "auto",
        "--epsilon",
        "auto",
        "--checkpoint-every",
        "4",
        "--out",
        "a",
    ];
    let (_, said) = succeeds(dir.path(), &short(&auto));
    assert!(said.contains("found by"), "{said}");
    let report = json(&dir.path().join("a/report.json"));
    let search = &report["rate_search"];
    assert_eq!(report["lr"], search["lr"]);
    let forwards = search["forwards"].as_u64().unwrap();
    assert!((50..=100).contains(&forwards), "{forwards}");
    assert_eq!(report["epsilon"], report["epsilon_search"]["epsilon"]);
    // The search's forwards are not the run's.
    assert_eq!(
        (&report["forwards"], &report["steps"]),
        (&8.into(), &4.into())
    );
    let toml = std::fs::read_to_string(dir.path().join("a/run.toml")).unwrap();
    let lr = report["lr"].as_f64().unwrap();
    assert!(toml.contains(&format!("\nlr = {lr}\n")), "{toml}");

    // The weights are those that a run at this rate begins with and ends with.
    let (lr, epsilon) = (lr.to_string(), report["epsilon"].to_string());
    let given = ["--lr", &lr, "--epsilon", &epsilon, "--out", "b"];
    succeeds(dir.path(), &short(&given));
    let same = json(&dir.path().join("b/report.json"));
    assert_eq!(report["eval_loss_after"], same["eval_loss_after"]);

    let more = ["--steps", "6", "--resume"];
    let (_, said) = succeeds(dir.path(), &short(&[&auto[..], &more].concat()));
    assert!(!said.contains("found by"), "{said}");
    let resumed = json(&dir.path().join("a/report.json"));
    assert_eq!(resumed["lr"], report["lr"]);
    assert_eq!(resumed["epsilon"], report["epsilon"]);
}

#[test]
fn lr_find_draws_what_it_has_seen() {
    let dir = tempfile::tempdir().unwrap();
    let args = [&["lr-find"][..], &short(&["--steps", "400"])].concat();
    let output = zo(dir.path(), &args).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let said = text(&output.stdout);
    assert!(
        said.contains("learning rate ") && said.contains("curvature"),
        "{said}"
    );
    assert_eq!(
        files(dir.path()).len(),
        0,
        "nothing is written unless asked for"
    );
    let output = zo(dir.path(), &[&args[..], &["--out", "found"]].concat())
        .output()
        .unwrap();
    // The same seed finds the same.
    let again = text(&output.stdout);
    assert!(again.starts_with(&said), "{again}");
    let found = json(&dir.path().join("found/rates.json"));
    let svg = std::fs::read_to_string(dir.path().join("found/rates.svg")).unwrap();
    assert!(svg.starts_with("<svg") && svg.contains("learning rate"));
    let climb = found["climb"].as_array().unwrap();
    assert!(climb.len() > 3 && climb[0]["lr"].as_f64() < climb[1]["lr"].as_f64());
}

#[test]
fn a_rate_a_hundred_times_too_high_ends_the_run_within_20_steps() {
    let dir = tempfile::tempdir().unwrap();
    for (tuning, lr) in [("full", "1e-2"), ("lora", "4")] {
        let wild = [
            "--tuning", tuning, "--lr", lr, "--steps", "100", "--out", tuning,
        ];
        let error = fails(dir.path(), &wild);
        assert!(error.contains("error: "), "{error}");
        let report = json(&dir.path().join(tuning).join("report.json"));
        assert_eq!(report["finish"], "diverged", "{error}");
        assert!(
            report["steps"].as_u64().unwrap() <= 20,
            "{}",
            report["steps"]
        );
    }
}

#[test]
fn a_run_that_diverges_begins_again_at_a_lower_rate() {
    let dir = tempfile::tempdir().unwrap();
    let wild = [
        "--lr",
        "1",
        "--steps",
        "24",
        "--back-off",
        "--checkpoint-every",
        "12",
        "--eval-every",
        "0",
        "--log",
        "csv",
        "--out",
        "a",
    ];
    let (said, _) = succeeds(
        dir.path(),
        &[&["--eval-rows", "16", "--quiet"], &wild[..]].concat(),
    );
    assert!(said.contains("beginning again at 1e-1"), "{said}");
    let report = json(&dir.path().join("a/report.json"));
    let abandoned = report["abandoned"].as_array().unwrap();
    assert!((1..=3).contains(&abandoned.len()), "{abandoned:?}");
    assert_eq!(abandoned[0]["lr"], 1.0);
    let lr = report["lr"].as_f64().unwrap();
    assert_eq!(lr, 10f64.powi(-(abandoned.len() as i32)));
    // Nothing of the attempts before it is left: the run is the one that this rate gives.
    let metrics = std::fs::read_to_string(dir.path().join("a/metrics.jsonl")).unwrap();
    assert_eq!(metrics.lines().count(), 24 + 2);
    let table = std::fs::read_to_string(dir.path().join("a/metrics.csv")).unwrap();
    assert_eq!(table.lines().count(), 1 + 24 + 2);
    let toml = std::fs::read_to_string(dir.path().join("a/run.toml")).unwrap();
    assert!(toml.contains(&format!("\nlr = {lr}\n")), "{toml}");
    let lr = lr.to_string();
    let given = ["--lr", &lr, "--steps", "24", "--eval-every", "0"];
    let plain = [&["--eval-rows", "16", "--quiet", "--out", "b"], &given[..]].concat();
    succeeds(dir.path(), &plain);
    let same = json(&dir.path().join("b/report.json"));
    assert_eq!(report["eval_loss_after"], same["eval_loss_after"]);

    // Its checkpoint is at the rate that it ended with.
    let more = ["--steps", "30", "--resume"];
    succeeds(
        dir.path(),
        &[
            &["--eval-rows", "16", "--quiet"],
            &wild[..2],
            &more,
            &wild[4..],
        ]
        .concat(),
    );
    let resumed = json(&dir.path().join("a/report.json"));
    assert_eq!(
        (&resumed["lr"], &resumed["steps"]),
        (&report["lr"], &30.into())
    );

    // As often as asked, and no more.
    let once = ["--lr", "100", "--steps", "24", "--back-off=1", "--out", "c"];
    fails(dir.path(), &once);
    let report = json(&dir.path().join("c/report.json"));
    assert_eq!(
        (&report["finish"], &report["lr"]),
        (&"diverged".into(), &10.0.into())
    );
}

#[test]
fn a_rate_is_a_number_or_auto() {
    let dir = tempfile::tempdir().unwrap();
    let error = fails_by_usage(dir.path(), &short(&["--lr", "fast"]));
    assert!(error.contains("not a number, nor `auto`"), "{error}");
}

fn fails_by_usage(dir: &std::path::Path, args: &[&str]) -> String {
    let output = crate::run(dir, args);
    assert_eq!(output.status.code(), Some(2));
    text(&output.stderr)
}

//! Commands that are refused.

use std::path::Path;

use crate::{fails, files, json, short, succeeds};

#[test]
fn the_same_command_twice_destroys_nothing() {
    let dir = tempfile::tempdir().unwrap();
    for more in [
        &["--out", "a"][..],
        &["--out", "b", "--checkpoint-every", "2"],
    ] {
        succeeds(dir.path(), &short(more));
        let before = files(dir.path());
        let out = dir.path().join(more[1]);
        assert!(before.contains_key(&out.join("predictions.json")));
        let error = fails(dir.path(), &short(more));
        assert!(
            error.contains("of another run") && error.contains("--resume"),
            "{error}"
        );
        assert!(files(dir.path()) == before);
        // Nor does one that would be refused anywhere.
        for bad in [
            &["--lr", "-1"][..],
            &["--batch", "17"],
            &["--data", "nowhere"],
            &["--patience", "3", "--eval-every", "0"],
            &["--tuning", "lora", "--lora-rank", "0"],
        ] {
            fails(dir.path(), &short(&[more, bad].concat()));
            assert!(files(dir.path()) == before, "{bad:?}");
        }
    }
}

#[test]
fn what_is_refused_in_a_new_folder_leaves_no_folder() {
    let dir = tempfile::tempdir().unwrap();
    for bad in [
        &["--lr", "nan"][..],
        &["--batch", "17"],
        &["--warmup", "5"],
        &["--task", "sst2"],
        &["--train-rows", "0"],
        &["--micro-batch", "5"],
    ] {
        for out in [&[][..], &["--out", "x/y"], &["--out", "x/y", "--keep-best"]] {
            let args = short(&[out, bad].concat());
            fails(dir.path(), &args);
            assert_eq!(dir.path().read_dir().unwrap().count(), 0, "{args:?}");
        }
    }
}

#[test]
fn learning_rates_that_are_negative_or_not_finite_are_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    for rate in ["-1e-3", "nan", "inf", "-0.5"] {
        let error = fails(dir.path(), &short(&["--lr", rate]));
        assert!(
            error.contains("lr is ") && error.contains("not negative"),
            "{error}"
        );
    }
    let error = fails(dir.path(), &short(&["--epsilon", "-1e-3"]));
    assert!(error.contains("epsilon is -0.001"), "{error}");
    let beta = ["--method", "momentum", "--beta", "-0.5"];
    let error = fails(dir.path(), &short(&beta));
    assert!(error.contains("beta is -0.5"), "{error}");
}

#[test]
fn the_bundled_rows_serve_their_own_layout_alone() {
    let dir = tempfile::tempdir().unwrap();
    let error = fails(dir.path(), &short(&["--task", "sst2"]));
    assert!(error.contains("--task sst2 needs --data"), "{error}");
}

#[test]
fn runs_begun_in_the_same_second_have_folders_of_their_own() {
    let dir = tempfile::tempdir().unwrap();
    let evaluate = [
        "--steps",
        "0",
        "--eval-rows",
        "2",
        "--train-rows",
        "4",
        "--quiet",
    ];
    let start = || crate::command(dir.path(), &evaluate).spawn().unwrap();
    let runs: Vec<_> = (0..5).map(|_| start()).collect();
    for mut run in runs {
        assert!(run.wait().unwrap().success());
    }
    let folders: Vec<_> = dir.path().join("runs").read_dir().unwrap().collect();
    assert_eq!(folders.len(), 5);
    for folder in folders {
        let path = folder.unwrap().path();
        assert_eq!(json(&path.join("report.json"))["finish"], "done");
        assert_eq!(
            std::fs::read_to_string(path.join("metrics.jsonl"))
                .unwrap()
                .lines()
                .count(),
            1
        );
    }
}

#[test]
fn errors_are_shown_as_text() {
    let dir = tempfile::tempdir().unwrap();
    let error = fails(dir.path(), &["--model", "nowhere/at/all"]);
    assert!(!error.contains("{ ") && !error.contains("Io("), "{error}");
}

#[test]
fn a_folder_that_cannot_be_written_is_named() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("file"), "x").unwrap();
    let error = fails(dir.path(), &short(&["--out", "file"]));
    assert!(error.contains("error: file"), "{error}");
    assert_eq!(std::fs::read(dir.path().join("file")).unwrap(), b"x");
    assert_eq!(files(Path::new(dir.path())).len(), 1);
}

//! Files of flags, and what runs leave to be run again.

use std::path::Path;

use serde_json::Value;

use crate::{fails, files, json, short, succeeds, text, zo};

/// A report without times, memory, and what says where it went.
fn lasting(path: &Path) -> Value {
    let mut report = json(path);
    let fields = report.as_object_mut().unwrap();
    let passing = |name: &str| {
        name.contains("seconds") || name.contains("rss") || ["command", "saved"].contains(&name)
    };
    fields.retain(|name, _| !passing(name));
    report
}

#[test]
fn the_file_of_a_run_runs_it_again() {
    let dir = tempfile::tempdir().unwrap();
    for flags in [
        &[][..],
        &[
            "--method", "lezo", "--drop", "0.3", "--tuning", "lora", "--save",
        ],
        &[
            "--method",
            "gv",
            "--noise",
            "rademacher",
            "--keep-best",
            "--eval-every",
            "2",
        ],
        &[
            "--mask",
            "random-layers",
            "--objective",
            "accuracy",
            "--micro-batch",
            "2",
        ],
    ] {
        let number = dir.path().read_dir().unwrap().count();
        let [first, second] = ["first", "second"].map(|name| format!("{name}-{number}"));
        succeeds(dir.path(), &short(&[flags, &["--out", &first]].concat()));
        let file = format!("{first}/run.toml");
        succeeds(dir.path(), &["--config", &file, "--out", &second]);
        let of = |name: &str| dir.path().join(name);
        assert_eq!(
            lasting(&of(&first).join("report.json")),
            lasting(&of(&second).join("report.json"))
        );
        let read = |name: &str| std::fs::read_to_string(of(name).join("run.toml")).unwrap();
        assert_eq!(read(&first), read(&second));
        // Also by `zo config`, which writes nothing.
        let before = files(dir.path());
        let output = zo(dir.path(), &["config", "--config", &file])
            .output()
            .unwrap();
        assert_eq!(text(&output.stdout), read(&first));
        assert!(files(dir.path()) == before);
    }
}

#[test]
fn files_that_make_no_sense_are_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let refused = |content: &str| {
        std::fs::write(dir.path().join("run.toml"), content).unwrap();
        let output = crate::run(dir.path(), &["--config", "run.toml"]);
        assert_eq!(output.status.code(), Some(2), "{content}");
        text(&output.stderr)
    };
    let error = refused("stepps = 4");
    assert!(
        error.contains("run.toml: unknown key `stepps`") && error.contains("steps"),
        "{error}"
    );
    assert!(refused("steps = [").contains("not TOML"));
    let error = refused("[method]\nname = 'lezo'\nmask = { dorp = 0.5 }");
    assert!(
        error.contains("`mask.dorp`") && error.contains("drop, layers"),
        "{error}"
    );
    let error = refused("schedule = 'cosin'");
    assert!(error.contains("similar value exists: 'cosine'"), "{error}");
    let error = fails(dir.path(), &["--config", "nowhere.toml"]);
    assert!(error.contains("nowhere.toml"), "{error}");
    assert_eq!(dir.path().read_dir().unwrap().count(), 1);
}

#[test]
fn a_dry_run_writes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let args = [
        "--dry-run",
        "--steps",
        "5000",
        "--warmup",
        "100",
        "--out",
        "a",
        "--keep-best",
    ];
    let (_, told) = succeeds(dir.path(), &short(&args));
    assert!(
        told.contains("steps = 5000") && told.contains("warmup = 100"),
        "{told}"
    );
    assert!(
        told.contains("seconds per step: 5000 steps take "),
        "{told}"
    );
    assert!(
        told.contains("252352 parameters, 252352 of them trained"),
        "{told}"
    );
    if cfg!(target_os = "linux") {
        assert!(told.contains("MiB of memory"), "{told}");
    }
    assert_eq!(dir.path().read_dir().unwrap().count(), 0);
    // What the run itself would be refused for.
    succeeds(dir.path(), &short(&["--out", "a"]));
    let before = files(dir.path());
    assert!(fails(dir.path(), &short(&args)).contains("of another run"));
    assert!(files(dir.path()) == before);
}

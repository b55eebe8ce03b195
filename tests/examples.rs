//! The examples as their users meet them.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Once;

use serde_json::Value;

/// The built example of this name. Cargo builds examples before it runs the tests of a package, but not if it is told to run this test
/// alone.
fn example(name: &str) -> PathBuf {
    static BUILT: Once = Once::new();
    let test = std::env::current_exe().unwrap();
    let profile = test.parent().unwrap().parent().unwrap();
    let file = format!("{name}{}", std::env::consts::EXE_SUFFIX);
    let path = profile.join("examples").join(file);
    BUILT.call_once(|| {
        if !path.exists() {
            let mut cargo = Command::new(env!("CARGO"));
            cargo.args(["build", "--package", env!("CARGO_PKG_NAME"), "--examples"]);
            if profile.ends_with("release") {
                cargo.arg("--release");
            }
            assert!(cargo.status().unwrap().success());
        }
    });
    path
}

fn run(name: &str, args: &[&str]) -> Output {
    Command::new(example(name)).args(args).output().unwrap()
}

#[test]
fn a_failed_main_shows_the_text_of_the_error() {
    let output = run("drift", &["--epsilon", "0", "--steps", "1"]);
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success());
    assert!(
        errors.starts_with("error: epsilon is 0: it must be positive and finite"),
        "{errors}"
    );
}

/// `opt_superglue` is `zo train` under another name: same flags, same files, same result.
#[test]
fn the_first_example_is_the_program() {
    let dir = tempfile::tempdir().unwrap();
    let out = |name: &str| dir.path().join(name);
    let short = "--steps 4 --batch 4 --train-rows 16 --eval-rows 6 --method gv --candidates 2 --save --quiet";
    let args = |out: &Path| -> Vec<String> {
        let args = short.split(' ').map(str::to_owned);
        args.chain(["--out".to_owned(), out.display().to_string()])
            .collect()
    };
    let by_example = args(&out("example"));
    let by_example: Vec<&str> = by_example.iter().map(String::as_str).collect();
    let output = run("opt_superglue", &by_example);
    assert!(output.status.success(), "{output:?}");

    use clap::Parser;
    let program = [vec!["train".to_owned()], args(&out("program"))].concat();
    zo_cli::train::run(&zo_cli::train::TrainArgs::parse_from(program)).unwrap();
    let names = |name: &str| {
        let entries = out(name).read_dir().unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    assert_eq!(names("example"), names("program"));
    let report = |name: &str| -> Value {
        let text = std::fs::read(out(name).join("report.json")).unwrap();
        let mut report: Value = serde_json::from_slice(&text).unwrap();
        let fields = report.as_object_mut().unwrap();
        let own = |field: &str| field.contains("seconds") || field.contains("rss");
        fields.retain(|field, _| !own(field) && !["command", "saved"].contains(&field.as_str()));
        report
    };
    assert_eq!(report("example"), report("program"));
    let saved = |name: &str| std::fs::read(out(name).join("model/model.safetensors")).unwrap();
    assert_eq!(saved("example"), saved("program"));
}

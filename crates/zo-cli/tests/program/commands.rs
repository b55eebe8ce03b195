//! The commands, their exit codes, and what is saved to share.

use std::io::Write;
use std::process::Stdio;

use crate::{command, json, short, succeeds, text, zo};

#[test]
fn exit_codes_tell_usage_from_failure() {
    let dir = tempfile::tempdir().unwrap();
    let code = |args: &[&str]| zo(dir.path(), args).output().unwrap().status.code();
    assert_eq!(code(&["tasks"]), Some(0));
    assert_eq!(code(&[]), Some(2));
    assert_eq!(code(&["train", "--methd", "x"]), Some(2));
    assert_eq!(code(&["train", "--method", "lezzo"]), Some(2));
    assert_eq!(code(&["train", "--lr", "nan"]), Some(2));
    assert_eq!(code(&["train", "--method", "gv", "--drop", "0.5"]), Some(2));
    assert_eq!(code(&["train", "--task", "sst2"]), Some(2));
    assert_eq!(code(&["train", "--model", "nowhere/at/all"]), Some(1));
    assert_eq!(
        code(&["train", "--task", "sst2", "--data", "nowhere"]),
        Some(1)
    );
    assert_eq!(dir.path().read_dir().unwrap().count(), 0);
}

/// The first Ctrl-C ends the step, saves and reports.
#[cfg(unix)]
#[test]
fn an_interrupted_run_is_saved_and_says_so_by_its_code() {
    let dir = tempfile::tempdir().unwrap();
    let args = short(&["--steps", "100000", "--out", "a"]);
    let mut run = command(dir.path(), &args)
        .stderr(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let metrics = dir.path().join("a/metrics.jsonl");
    while std::fs::read_to_string(&metrics)
        .unwrap_or_default()
        .lines()
        .count()
        < 3
    {
        assert!(run.try_wait().unwrap().is_none());
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let kill = std::process::Command::new("kill")
        .args(["-INT", &run.id().to_string()])
        .status();
    assert!(kill.unwrap().success());
    assert_eq!(run.wait().unwrap().code(), Some(130));
    let report = json(&dir.path().join("a/report.json"));
    assert_eq!(report["finish"], "interrupted");
    assert!(dir.path().join("a/model/README.md").exists());
}

#[test]
fn prompts_are_completed() {
    let dir = tempfile::tempdir().unwrap();
    let out = |args: &[&str], input: &str| {
        let mut command = zo(
            dir.path(),
            &[&["generate", "--max-tokens", "4"], args].concat(),
        );
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut run = command.spawn().unwrap();
        run.stdin
            .take()
            .unwrap()
            .write_all(input.as_bytes())
            .unwrap();
        let output = run.wait_with_output().unwrap();
        assert!(output.status.success());
        text(&output.stdout)
    };
    let one = out(&["on friday clara toured the"], "");
    assert!(!one.trim().is_empty() && one.lines().count() == 1, "{one}");
    let two = out(&["--json"], "on friday clara toured the\nleo read the\n");
    let two: Vec<serde_json::Value> = two
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(two.len(), 2);
    assert_eq!(two[0]["text"].as_str(), Some(one.trim_end_matches('\n')));
    assert_eq!(two[1]["prompt"], "leo read the");
    let drawn = |seed: &str| out(&["leo", "--temperature", "2", "--seed", seed], "");
    assert_eq!(drawn("1"), drawn("1"));
    assert!((2..9).any(|seed| drawn("1") != drawn(&seed.to_string())));
}

#[test]
fn lists_and_completions_name_what_there_is() {
    let dir = tempfile::tempdir().unwrap();
    let out = |args: &[&str]| {
        let output = zo(dir.path(), args).output().unwrap();
        assert!(output.status.success());
        text(&output.stdout)
    };
    let methods = out(&["methods"]);
    assert!(
        methods.contains("--method lezo") && methods.contains("--drop"),
        "{methods}"
    );
    assert!(out(&["tasks"]).contains("--task squad"));
    assert!(out(&["completions", "powershell"]).contains("--reward"));
    for shell in ["bash", "zsh", "fish"] {
        let script = out(&["completions", shell]);
        for name in ["predict", "--reward", "sparse-magnitude", "on-the-fly"] {
            let name = if shell == "fish" {
                name.trim_start_matches('-')
            } else {
                name
            };
            assert!(script.contains(name), "{shell}: {name}");
        }
    }
    // Long words break where they must: no line is wider than asked for.
    for width in ["80", "120"] {
        let output = zo(dir.path(), &["train", "--help"])
            .env("COLUMNS", width)
            .output()
            .unwrap();
        let help = text(&output.stdout);
        let widest = help.lines().map(|line| line.chars().count()).max().unwrap();
        assert!(widest <= width.parse().unwrap(), "{width}: {widest}");
        for heading in [
            "Model:",
            "Data:",
            "Data of your own:",
            "Method:",
            "Tuning:",
            "Training:",
            "Evaluation:",
            "Files:",
        ] {
            assert!(help.lines().any(|line| line == heading), "{heading}");
        }
    }
}

#[test]
fn what_is_saved_has_a_card_and_shards() {
    let dir = tempfile::tempdir().unwrap();
    let args = [
        "--save",
        "--max-shard",
        "0.0004",
        "--seed",
        "7",
        "--out",
        "a",
    ];
    succeeds(dir.path(), &short(&args));
    let model = dir.path().join("a/model");
    let card = std::fs::read_to_string(model.join("README.md")).unwrap();
    let report = json(&dir.path().join("a/report.json"));
    for told in [
        "library_name: transformers",
        "base_model: \"tiny-opt\"",
        "| seed | 7 |",
        "| method | mezo |",
        &format!("zo-optim {}", env!("CARGO_PKG_VERSION")),
        &format!(
            "| loss | {:.4} | {:.4} |",
            report["eval_loss_before"].as_f64().unwrap(),
            report["eval_loss_after"].as_f64().unwrap()
        ),
        "AutoModelForCausalLM.from_pretrained(\".\")",
        "zo eval --config ../run.toml --model .",
    ] {
        assert!(card.contains(told), "{told}: {card}");
    }
    assert!(model.join("model.safetensors.index.json").exists());
    assert!(!model.join("model.safetensors").exists());
    // What the card says works, from the folder it stands in.
    let output = zo(&model, &["eval", "--config", "../run.toml", "--model", "."])
        .output()
        .unwrap();
    let told = text(&output.stdout);
    let accuracy = format!(
        "accuracy  {:8.4}",
        report["accuracy_after"].as_f64().unwrap()
    );
    assert!(told.contains(&accuracy), "{told}{}", text(&output.stderr));

    succeeds(
        dir.path(),
        &short(&["--save", "--tuning", "lora", "--out", "b"]),
    );
    let adapter = dir.path().join("b/adapter");
    let card = std::fs::read_to_string(adapter.join("README.md")).unwrap();
    assert!(
        card.contains("library_name: peft") && card.contains("PeftModel.from_pretrained"),
        "{card}"
    );
    assert!(
        card.contains("zo eval --config ../run.toml --adapter ."),
        "{card}"
    );
    let output = zo(
        &adapter,
        &["eval", "--config", "../run.toml", "--adapter", "."],
    )
    .output()
    .unwrap();
    let report = json(&dir.path().join("b/report.json"));
    let loss = format!(
        "loss      {:8.4}",
        report["eval_loss_after"].as_f64().unwrap()
    );
    assert!(
        text(&output.stdout).contains(&loss),
        "{}",
        text(&output.stderr)
    );
}

/// A subspace that is held for ever is an adapter; the program saves it and loads it with the same loss, and a resumed run ends with the same.
#[test]
fn a_subspace_that_is_never_left_is_saved_as_an_adapter() {
    let dir = tempfile::tempdir().unwrap();
    let never = |noise: &'static str, more: &[&'static str]| {
        let flags = ["--noise", noise, "--interval", "never", "--lr", "1e-2"];
        short(&[&flags[..], &["--eval-every", "2", "--save"], more].concat())
    };
    for (out, noise) in [("lozo", "lozo"), ("subzero", "subzero")] {
        succeeds(dir.path(), &never(noise, &["--rank", "2", "--out", out]));
        let folder = dir.path().join(out);
        let report = json(&folder.join("report.json"));
        assert_eq!(report["perturb"], "on-the-fly");
        let trained = report["trained_parameters"].as_u64().unwrap();
        assert!(trained > 0 && trained < report["parameters"].as_u64().unwrap());
        let before = report["eval_loss_before"].as_f64().unwrap();
        let after = report["eval_loss_after"].as_f64().unwrap();
        assert!((before - after).abs() > 1e-3, "{before} {after}");
        assert!(!folder.join("model").exists());
        let adapter = folder.join("adapter");
        let config = json(&adapter.join("adapter_config.json"));
        assert_eq!(config["r"], 2);
        let args = ["eval", "--config", "../run.toml", "--adapter", "."];
        let output = zo(&adapter, &args).output().unwrap();
        let told = text(&output.stdout);
        let loss = format!("loss      {after:8.4}");
        assert!(told.contains(&loss), "{told}{}", text(&output.stderr));
    }
    // Stopped in the middle and resumed, the same adapter comes out.
    let half = [
        "--rank",
        "2",
        "--steps",
        "2",
        "--checkpoint-every",
        "1",
        "--out",
        "again",
    ];
    succeeds(dir.path(), &never("lozo", &half));
    let rest = [
        "--rank",
        "2",
        "--resume",
        "--checkpoint-every",
        "1",
        "--out",
        "again",
    ];
    succeeds(dir.path(), &never("lozo", &rest));
    let weights = |out: &str| {
        let file = dir
            .path()
            .join(out)
            .join("adapter/adapter_model.safetensors");
        std::fs::read(file).unwrap()
    };
    assert_eq!(weights("again"), weights("lozo"));

    // Written in place, it is a model like any other.
    let written = ["--rank", "2", "--perturb", "in-place", "--out", "written"];
    succeeds(dir.path(), &never("lozo", &written));
    assert!(dir.path().join("written/model").exists());
    let report = json(&dir.path().join("written/report.json"));
    assert_eq!(report["trained_parameters"], report["parameters"]);
}

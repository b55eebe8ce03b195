//! Runs that are proved: replayed, verified, compared, and continued from their trajectory.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::{fails, files, json, lines, short, succeeds, text, zo};

const FILE: &str = "trajectory.zo";

/// What another command than `train` writes to standard output, if it succeeds.
fn done(dir: &Path, args: &[&str]) -> String {
    let output = zo(dir, args).output().unwrap();
    assert!(
        output.status.success(),
        "{args:?}: {}",
        text(&output.stderr)
    );
    text(&output.stdout)
}

/// What it writes to standard error and output, if it exits with code 1.
fn refused(dir: &Path, args: &[&str]) -> (String, String) {
    let output = zo(dir, args).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{args:?}");
    (text(&output.stderr), text(&output.stdout))
}

/// The files of a saved model, but for its card.
fn saved(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let named = files(dir).into_iter().map(|(path, bytes)| {
        let name = path.strip_prefix(dir).unwrap().display().to_string();
        (name, bytes)
    });
    named.filter(|(name, _)| name != "README.md").collect()
}

#[test]
fn a_run_is_rebuilt_from_its_losses() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    // In every precision, and where only an adapter trains.
    for (name, more, folder) in [
        ("full", &["--queries", "2"][..], "model"),
        (
            "half",
            &["--dtype", "bf16", "--rounding", "stochastic"],
            "model",
        ),
        ("lora", &["--tuning", "lora", "--method", "adam"], "adapter"),
        (
            "prefix",
            &["--tuning", "prefix", "--perturb", "on-the-fly"],
            "adapter",
        ),
        (
            "low",
            &["--method", "lozo", "--perturb", "on-the-fly"],
            "model",
        ),
    ] {
        let out = ["--out", name, "--save", "--steps", "6", "--eval-every", "4"];
        succeeds(dir, &short(&[&out, more].concat()));
        let told = done(dir, &["verify", name]);
        assert_eq!(told, "6 steps: all 2 hashes of the weights are the run's\n");
        let again = format!("{name}-again");
        let told = done(dir, &["replay", name, "--save", &again]);
        assert!(told.starts_with("replayed 6 of 6 steps in "), "{told}");
        let [run, replayed] = [name, &again].map(|run| saved(&dir.join(run).join(folder)));
        assert!(run == replayed, "{name}");
        assert!(run.len() > 1, "{name}: {run:?}");
    }
    // The weights after 4 steps are those of a run that ends there.
    let shorter = [
        "--out",
        "shorter",
        "--save",
        "--steps",
        "4",
        "--queries",
        "2",
    ];
    succeeds(
        dir,
        &short(&[&shorter[..], &["--eval-every", "4"]].concat()),
    );
    done(dir, &["replay", "full", "--to", "4", "--save", "four"]);
    let [four, shorter] = ["four", "shorter"].map(|run| saved(&dir.join(run).join("model")));
    assert!(four == shorter);
    done(
        dir,
        &[
            "replay",
            "full/trajectory.zo",
            "--to",
            "0",
            "--save",
            "none",
        ],
    );
    let base = include_bytes!(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/assets/tiny-opt/model.safetensors"
    ));
    let none = std::fs::read(dir.join("none/model/model.safetensors")).unwrap();
    let values = |file: &[u8]| {
        let tensors = safetensors::SafeTensors::deserialize(file).unwrap();
        let tensor = tensors.tensor("model.decoder.final_layer_norm.weight");
        tensor.unwrap().data().to_vec()
    };
    assert_eq!(values(&none), values(base));
    let told = done(dir, &["replay", "full", "--fast", "--save", "fast"]);
    assert!(told.contains("fast, so no hash was compared"), "{told}");
    let (errors, _) = refused(dir, &["replay", "full", "--to", "7", "--save", "x"]);
    assert!(
        errors.contains("has 6 step(s), and 7 are asked for"),
        "{errors}"
    );
    assert!(!dir.join("x").exists());
}

#[test]
fn the_best_weights_are_rebuilt_too() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let args = [
        "--out",
        "a",
        "--save",
        "--keep-best",
        "--steps",
        "8",
        "--eval-every",
        "2",
    ];
    succeeds(dir, &short(&[&args[..], &["--lr", "1e-3"]].concat()));
    let best = json(&dir.join("a/report.json"))["best"]["step"].as_u64();
    let told = done(dir, &["replay", "a", "--to", "best", "--save", "b"]);
    let expected = format!("replayed {} of 8 steps", best.unwrap());
    assert!(told.starts_with(&expected), "{told}, best {best:?}");
    assert!(saved(&dir.join("a/model")) == saved(&dir.join("b/model")));
}

#[test]
fn runs_are_compared() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    for (name, more) in [
        ("a", &[][..]),
        ("b", &[]),
        ("seeded", &["--seed", "3"]),
        ("longer", &["--steps", "6", "--eval-every", "4"]),
    ] {
        succeeds(
            dir,
            &short(&[&["--out", name, "--eval-every", "4"], more].concat()),
        );
    }
    assert_eq!(done(dir, &["diff", "a", "b"]), "all 4 steps are the same\n");
    let (errors, told) = refused(dir, &["diff", "a", "seeded"]);
    assert_eq!(errors, "");
    assert!(told.contains("optimizer.method.seed: 0 | 3\n"), "{told}");
    assert!(told.contains("run.settings.seed: 0 | 3\n"), "{told}");
    assert!(
        told.contains("\n0 steps are the same; the next:\n  lr "),
        "{told}"
    );
    let (_, told) = refused(dir, &["diff", "a", "longer"]);
    assert!(
        told.starts_with("4 steps are the same; the next:\n  the run has ended\n"),
        "{told}"
    );
    let (errors, _) = refused(dir, &["diff", "a", "nowhere"]);
    assert!(errors.contains("nowhere: "), "{errors}");
}

#[test]
fn cut_at_a_random_byte_a_run_goes_on_to_the_same_files() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let args = |out: &'static str, more: &[&'static str]| {
        let args = ["--out", out, "--save", "--steps", "9", "--eval-every", "3"];
        short(&[&args, more].concat())
    };
    succeeds(dir, &args("whole", &[]));
    let file = std::fs::read(dir.join("whole").join(FILE)).unwrap();
    let length = u32::from_le_bytes(*file[8..].first_chunk().unwrap());
    let start = 16 + length as usize;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let cut = start + now.subsec_nanos() as usize % (file.len() - start);
    succeeds(dir, &args("part", &[]));
    std::fs::write(dir.join("part").join(FILE), &file[..cut]).unwrap();
    succeeds(dir, &args("part", &["--resume"]));
    let [whole, part] = ["whole", "part"].map(|run| saved(&dir.join(run).join("model")));
    assert!(whole == part, "cut at {cut} of {}", file.len());
    let [whole, part] = ["whole", "part"].map(|run| {
        let lines = lines(&dir.join(run).join("metrics.jsonl"));
        let losses = lines.into_iter().map(|line| line["loss"].clone());
        losses.collect::<Vec<_>>()
    });
    assert_eq!(whole, part, "cut at {cut}");
    assert!(!dir.join("part/checkpoints").exists());
    done(dir, &["verify", "part"]);
    done(dir, &["diff", "whole", "part"]);
}

#[test]
fn what_is_wrong_with_a_trajectory_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    succeeds(dir, &short(&["--out", "a"]));
    let path = dir.join("a").join(FILE);
    let file = std::fs::read(&path).unwrap();
    std::fs::write(&path, &file[..file.len() - 50]).unwrap();
    let output = zo(dir, &["verify", "a"]).output().unwrap();
    assert!(output.status.success());
    let note = text(&output.stderr);
    assert!(note.contains("bytes of an incomplete record"), "{note}");
    let mut damaged = file.clone();
    damaged[file.len() - 50] ^= 1;
    std::fs::write(&path, &damaged).unwrap();
    let (errors, _) = refused(dir, &["verify", "a"]);
    assert!(
        errors.contains("record ") && errors.contains("is damaged"),
        "{errors}"
    );
    let error = fails(dir, &short(&["--out", "a", "--resume"]));
    assert!(error.contains("is damaged"), "{error}");
    std::fs::write(&path, &file).unwrap();
    // Other weights than the run began with.
    let other = dir.join("other");
    done(dir, &["replay", "a", "--save", "other"]);
    let other = other.join("model").display().to_string();
    let (errors, _) = refused(dir, &["verify", "a", "--model", &other]);
    assert!(
        errors.contains("after 0 step(s) the weights have the hash"),
        "{errors}"
    );
    // It can be left out.
    succeeds(dir, &short(&["--out", "b", "--trajectory", "false"]));
    assert!(!dir.join("b").join(FILE).exists());
    let (errors, _) = refused(dir, &["verify", "b"]);
    assert!(errors.contains("b/trajectory.zo: "), "{errors}");
}

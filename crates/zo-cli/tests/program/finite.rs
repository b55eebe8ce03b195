//! Models and runs whose numbers are not finite.

use std::path::Path;

use safetensors::SafeTensors;
use serde_json::Value;

use crate::{fails, json, lines, short, succeeds};

/// The bundled model with an enormous last normalisation: its weights are finite, and what it computes is not.
fn overflowing(dir: &Path) {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/tiny-opt");
    std::fs::create_dir(dir).unwrap();
    for entry in source.read_dir().unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, dir.join(path.file_name().unwrap())).unwrap();
    }
    let path = dir.join("model.safetensors");
    let bytes = std::fs::read(&path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let mut changed = bytes.clone();
    let named = file
        .iter()
        .filter(|(name, _)| name.contains("decoder.final_layer_norm"));
    for (_, view) in named {
        let start = view.data().as_ptr() as usize - bytes.as_ptr() as usize;
        for value in changed[start..][..view.data().len()].chunks_mut(4) {
            value.copy_from_slice(&3e38f32.to_le_bytes());
        }
    }
    assert_ne!(bytes, changed);
    std::fs::write(path, changed).unwrap();
}

#[test]
fn what_is_not_finite_stays_so_in_every_file() {
    let dir = tempfile::tempdir().unwrap();
    overflowing(&dir.path().join("huge"));
    let args = [
        "--model",
        "huge",
        "--steps",
        "0",
        "--eval-rows",
        "6",
        "--train-rows",
        "16",
        "--out",
        "a",
    ];
    let (errors, table) = succeeds(dir.path(), &args);
    assert!(
        errors.contains(
            "note: held-out rows after 0 steps: the scores of 6 of 6 rows are not finite"
        ),
        "{errors}"
    );
    assert!(
        table.contains("NaN       NaN") && table.contains("note: "),
        "{table}"
    );
    let out = dir.path().join("a");
    let report = json(&out.join("report.json"));
    for field in [
        "eval_loss_before",
        "eval_loss_after",
        "accuracy_before",
        "accuracy_after",
        "best",
    ] {
        assert_eq!(report[field], Value::Null, "{field}");
    }
    assert!(report["notes"][0].as_str().unwrap().contains("6 of 6 rows"));
    let [line] = &lines(&out.join("metrics.jsonl"))[..] else {
        panic!("one evaluation")
    };
    assert_eq!(
        [&line["eval_loss"], &line["eval_accuracy"]],
        [&Value::Null; 2]
    );
    assert!(line["note"].as_str().unwrap().contains("not finite"));
    assert_eq!(
        json(&out.join("predictions.json"))["before"],
        serde_json::json!([null, null, null, null, null, null])
    );
    assert!(
        !std::fs::read_to_string(out.join("training.svg"))
            .unwrap()
            .contains("NaN")
    );

    // Even with --quiet; and such weights are not saved.
    let args = [&args[..8], &["--out", "b", "--quiet", "--save"]].concat();
    let errors = fails(dir.path(), &args);
    assert!(
        errors.contains("note: ") && errors.contains("not saved"),
        "{errors}"
    );
    assert!(!dir.path().join("b/model").exists());
}

#[test]
fn a_run_that_diverges_says_so_at_once_and_keeps_what_was_good() {
    let dir = tempfile::tempdir().unwrap();
    let spoil = ["--lr", "1e30", "--checkpoint-every", "1", "--save"];
    let errors = fails(dir.path(), &short(&[&spoil[..], &["--out", "a"]].concat()));
    assert!(
        errors.contains("error: ") && errors.contains("step"),
        "{errors}"
    );
    let out = dir.path().join("a");
    let report = json(&out.join("report.json"));
    assert_eq!(report["finish"], "diverged");
    assert!(
        report["error"].as_str().unwrap().contains("lower"),
        "{report}"
    );
    assert_eq!([&report["saved"], &report["best"]], [&Value::Null; 2]);
    assert!(report["notes"][0].as_str().unwrap().contains("not saved"));
    // Its result was not evaluated, and is not the earlier one.
    assert!(report["eval_loss_before"].is_number());
    assert_eq!(
        [&report["eval_loss_after"], &report["accuracy_after"]],
        [&Value::Null; 2]
    );
    assert!(!out.join("model").exists());
    // Its weights were never worth a checkpoint.
    assert_eq!(out.join("checkpoints").read_dir().unwrap().count(), 0);
    assert!(out.join("training.svg").exists() && out.join("predictions.json").exists());

    // Without checkpoints the next step finds out.
    let errors = fails(dir.path(), &short(&["--lr", "1e30", "--out", "c"]));
    assert!(
        errors.contains("error: the run diverged after 1 steps: step 1: "),
        "{errors}"
    );
    let report = json(&dir.path().join("c/report.json"));
    assert_eq!(
        (&report["finish"], &report["steps"]),
        (&"diverged".into(), &1.into())
    );

    let best = ["--keep-best", "--eval-every", "1", "--out", "b"];
    let errors = fails(dir.path(), &short(&[&spoil[..], &best].concat()));
    assert!(errors.contains("diverged"), "{errors}");
    let out = dir.path().join("b");
    let report = json(&out.join("report.json"));
    assert_eq!(
        (&report["finish"], &report["best"]["step"]),
        (&"diverged".into(), &0.into())
    );
    assert_eq!(report["eval_loss_after"], report["eval_loss_before"]);
    assert!(out.join("checkpoints/best-000000").exists());
    // The best weights are those of the beginning, and they are saved.
    let saved = std::fs::read(out.join("model/model.safetensors")).unwrap();
    let saved = SafeTensors::deserialize(&saved).unwrap();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/tiny-opt/model.safetensors");
    let source = std::fs::read(source).unwrap();
    let source = SafeTensors::deserialize(&source).unwrap();
    for (name, view) in saved.iter() {
        assert_eq!(source.tensor(name).unwrap().data(), view.data(), "{name}");
    }
}

//! What a run says, and what it leaves behind.

use std::path::Path;

use serde_json::{Value, json};

use crate::{json, short, succeeds};

fn report(dir: &Path, more: &[&str]) -> (Value, String) {
    let out = format!("run-{}", dir.read_dir().unwrap().count());
    succeeds(dir, &short(&[more, &["--out", &out]].concat()));
    let path = dir.join(out).join("report.json");
    (json(&path), std::fs::read_to_string(path).unwrap())
}

#[test]
fn the_report_holds_the_whole_configuration() {
    let dir = tempfile::tempdir().unwrap();
    let (report, text) = report(
        dir.path(),
        &[
            "--method",
            "gv",
            "--candidates",
            "3",
            "--normalize",
            "--tuning",
            "lora",
            "--lora-rank",
            "4",
            "--warmup",
            "2",
            "--schedule",
            "linear",
            "--micro-batch",
            "2",
            "--rounding",
            "stochastic",
        ],
    );
    for (field, expected) in [
        ("method", json!("gv")),
        ("tuning", json!("lora")),
        ("lora_rank", json!(4)),
        ("lora_alpha", json!(16.0)),
        ("lora_targets", json!(["q_proj", "v_proj"])),
        ("lora_train_a", json!(false)),
        ("virtual_tokens", Value::Null),
        ("warmup", json!(2)),
        ("schedule", json!("linear")),
        ("micro_batch", json!(2)),
        ("batch", json!(4)),
        ("queries", json!(1)),
        ("device", json!("flex")),
        ("dtype", json!("f32")),
        ("rounding", json!("stochastic")),
        ("max_steps", json!(4)),
        ("eval_every", json!(0)),
        ("lr", json!(0.04)),
        ("epsilon", json!(0.01)),
        (
            "versions",
            json!({"zo-optim": env!("CARGO_PKG_VERSION"), "burn": "0.22.1"}),
        ),
        ("resumed_from", Value::Null),
        ("finish", json!("done")),
        ("error", Value::Null),
        ("notes", json!([])),
    ] {
        assert_eq!(report[field], expected, "{field}");
    }
    let method = &report["method_settings"];
    assert_eq!(
        [
            &method["sampler"]["candidates"],
            &method["sampler"]["normalize"],
            &method["sampler"]["alpha"],
            &method["difference"]
        ],
        [&json!(3), &json!(true), &json!(0.5), &json!("central")]
    );
    assert!(report["threads"].as_u64() > Some(0));
    let command = report["command"].as_array().unwrap();
    assert!(command.contains(&json!("--lora-rank")));
    for number in ["\"lr\": 0.04,", "\"epsilon\": 0.01,"] {
        assert!(text.contains(number), "{text}");
    }
}

#[test]
fn numbers_are_those_that_people_write() {
    let dir = tempfile::tempdir().unwrap();
    for (flags, expected) in [
        (&[][..], ["\"lr\": 0.0001,", "\"epsilon\": 0.001,"]),
        (
            &["--tuning", "prefix"],
            ["\"lr\": 0.7,", "\"epsilon\": 0.1,"],
        ),
        (
            &["--method", "momentum"],
            ["\"lr\": 0.00001,", "\"beta\": 0.9"],
        ),
        (
            &["--method", "lezo", "--tuning", "lora"],
            ["\"lr\": 0.12,", "\"drop\": 0.75"],
        ),
        (
            &["--objective", "accuracy"],
            ["\"lr\": 0.0003,", "\"epsilon\": 0.03,"],
        ),
        (&["--lr", "3e-7"], ["\"lr\": 3e-7,", "\"epsilon\": 0.001,"]),
    ] {
        let (_, text) = report(dir.path(), flags);
        for number in expected {
            // serde_json writes small numbers with an exponent.
            let short = number.replace("0.00001,", "1e-5,");
            assert!(
                text.contains(number) || text.contains(&short),
                "{number}: {text}"
            );
        }
        let settings = text.split("\"parameters\"").next().unwrap();
        assert!(
            !settings.contains("000000") && !settings.contains("999999"),
            "{settings}"
        );
    }
}

#[test]
fn rows_are_known_by_their_folder_and_a_fingerprint() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    std::fs::create_dir(&data).unwrap();
    let row = |text: &str, label: u8| format!("{{\"sentence\": \"{text}\", \"label\": {label}}}\n");
    let rows = row("good", 1) + &row("bad", 0) + &row("fine", 1) + &row("poor", 0);
    for file in ["train.jsonl", "dev.jsonl"] {
        std::fs::write(data.join(file), &rows).unwrap();
    }
    let evaluate = |number: &str| {
        let args = [
            "--data", "data", "--task", "sst2", "--steps", "0", "--batch", "2", "--out", number,
        ];
        let (_, table) = succeeds(dir.path(), &args);
        assert!(table.contains("on sst2, 0 steps"), "{table}");
        json(&dir.path().join(number).join("report.json"))
    };
    let first = evaluate("1");
    assert_eq!(first["task"], "sst2");
    let folder = data.canonicalize().unwrap();
    assert_eq!(first["data"]["folder"], json!(folder));
    assert_eq!(first["data"]["train"]["rows"], 4);
    let digest = |report: &Value, split: &str| report["data"][split]["digest"].clone();
    assert_eq!(digest(&first, "train"), digest(&evaluate("2"), "train"));
    std::fs::write(
        data.join("train.jsonl"),
        rows.replace("fine\", \"label\": 1", "fine\", \"label\": 0"),
    )
    .unwrap();
    let other = evaluate("3");
    assert_ne!(digest(&first, "train"), digest(&other, "train"));
    assert_eq!(digest(&first, "dev"), digest(&other, "dev"));
}

#[test]
fn the_bundled_rows_are_never_called_by_the_name_of_a_data_set_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (errors, table) = succeeds(dir.path(), &short(&["--out", "a"]));
    let out = dir.path().join("a");
    let plot = std::fs::read_to_string(out.join("training.svg")).unwrap();
    let report = std::fs::read_to_string(out.join("report.json")).unwrap();
    let page = std::fs::read_to_string(out.join("report.html")).unwrap();
    // It is one line of data.
    let page = page.replace("\",", "\",\n");
    for text in [errors, table, plot, report, page] {
        let named: Vec<_> = text.lines().filter(|line| line.contains("boolq")).collect();
        assert!(!named.is_empty(), "{text}");
        assert!(
            named
                .iter()
                .all(|line| line.contains("bundled synthetic rows")),
            "{named:?}"
        );
    }
    // Not via their folder either.
    let assets = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/synthetic");
    let (_, table) = succeeds(
        dir.path(),
        &short(&["--out", "b", "--data", assets.to_str().unwrap()]),
    );
    assert!(
        table.contains("on bundled synthetic rows (boolq's layout)"),
        "{table}"
    );
}

#[test]
fn lines_appear_without_a_terminal() {
    let dir = tempfile::tempdir().unwrap();
    let args = short(&["--out", "a", "--eval-every", "10", "--steps", "20"]);
    let (errors, table) = succeeds(dir.path(), &args);
    let lines: Vec<&str> = errors.lines().collect();
    assert!(
        lines[0].contains("mezo on bundled synthetic rows") && lines[0].contains("files go to a"),
        "{errors}"
    );
    let begin = |start: &str| lines.iter().filter(|line| line.starts_with(start)).count();
    assert_eq!(begin("step "), 10, "{errors}");
    assert_eq!(begin("step 4 of 20 (20 %)  loss "), 1, "{errors}");
    for step in [0, 10, 20] {
        let line = format!("held-out rows after {step} steps: accuracy ");
        assert_eq!(begin(&line), 1, "{errors}");
    }
    assert!(table.contains("held-out rows"), "{table}");
    let (errors, table) = succeeds(dir.path(), &short(&["--out", "b", "--quiet"]));
    assert_eq!((errors.as_str(), table.as_str()), ("", ""));
}

//! Data of one's own: templates, files, predictions, and rewards by a command.

use std::fmt::Write;
use std::path::Path;

use serde_json::Value;

use crate::{fails, files, json, lines, short, succeeds, text, zo};

/// A csv file with three classes.
fn reviews(path: &Path, rows: usize, label: bool) {
    let mut content = String::from(if label { "review,stars\n" } else { "review\n" });
    let said = [
        ("found it terrible", "low"),
        ("was there", "middle"),
        ("treasured it", "high"),
    ];
    for row in 0..rows {
        let (words, stars) = said[row % 3];
        let _ = match label {
            true => writeln!(content, "\"on friday clara, {words}.\",{stars}"),
            false => writeln!(content, "\"on friday clara, {words}.\""),
        };
    }
    std::fs::write(path, content).unwrap();
}

const TASK: [&str; 8] = [
    "--template",
    "{review} it was",
    "--words",
    "bad,fine,good",
    "--label",
    "stars",
    "--labels",
    "low,middle,high",
];

#[test]
fn three_classes_are_trained_evaluated_and_predicted() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    reviews(&path("train.csv"), 24, true);
    reviews(&path("held-out.csv"), 9, true);
    reviews(&path("new.csv"), 4, false);
    let files = [
        "--train-file",
        "train.csv",
        "--eval-file",
        "held-out.csv",
        "--steps",
        "4",
        "--batch",
        "6",
    ];
    let args = [&TASK[..], &files, &["--save", "--out", "a"]].concat();
    let (_, told) = succeeds(dir.path(), &args);
    assert!(told.contains("on template, 4 steps"), "{told}");
    let report = json(&path("a/report.json"));
    assert_eq!(report["data"]["template"], "{review} it was");
    assert_eq!(
        (&report["train_rows"], &report["eval_rows"]),
        (&24.into(), &9.into())
    );

    let run = ["--config", "a/run.toml", "--model", "a/model"];
    let args = [&["eval"], &run[..], &["--result", "e.json"]].concat();
    let output = zo(dir.path(), &args).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let found = json(&path("e.json"));
    let close = |a: &Value, b: &Value| (a.as_f64().unwrap() - b.as_f64().unwrap()).abs() < 1e-3;
    assert!(close(&found["loss"], &report["eval_loss_after"]), "{found}");
    assert_eq!(found["accuracy"], report["accuracy_after"]);

    let predicted = |output: &str, input: &str| {
        let args = [
            &["predict"],
            &run[..],
            &["--input", input, "--output", output],
        ]
        .concat();
        let output = zo(dir.path(), &args).output().unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stdout)
    };
    assert!(predicted("p.jsonl", "new.csv").contains("4 answers in p.jsonl"));
    let rows = lines(&path("p.jsonl"));
    assert_eq!(rows.len(), 4);
    for row in &rows {
        let shares: Vec<f64> = serde_json::from_value(row["scores"].clone()).unwrap();
        assert_eq!(shares.len(), 3);
        assert!((shares.iter().sum::<f64>() - 1.0).abs() < 1e-9);
        let index = row["predicted_index"].as_u64().unwrap() as usize;
        assert_eq!(row["predicted"], ["low", "middle", "high"][index]);
        assert_eq!(row["score"], shares[index]);
        assert!(
            row["review"]
                .as_str()
                .unwrap()
                .starts_with("on friday clara, ")
        );
    }
    predicted("p.csv", "new.csv");
    let csv = std::fs::read_to_string(path("p.csv")).unwrap();
    assert_eq!(
        csv.lines().next(),
        Some("review,predicted,predicted_index,score,scores")
    );
    assert_eq!(csv.lines().count(), 5);
    // Rows with labels: how many are right.
    let told = predicted("q.csv", "held-out.csv");
    let right = (9.0 * report["accuracy_after"].as_f64().unwrap()).round();
    assert!(told.contains(&format!("{right} of 9 that say")), "{told}");
}

#[test]
fn choices_and_texts_of_ones_own_are_trained() {
    let dir = tempfile::tempdir().unwrap();
    let row = "{\"q\": \"did clara like the castle\", \"a\": \"yes\", \"b\": \"no\", \"right\": \"b\", \"said\": [\"no\", \"no she did not\"]}\n";
    std::fs::write(dir.path().join("rows.jsonl"), row.repeat(8)).unwrap();
    let files = [
        "--train-file",
        "rows.jsonl",
        "--eval-file",
        "rows.jsonl",
        "--steps",
        "2",
        "--batch",
        "4",
    ];
    let choice = [
        "--template",
        "{q}?\\n",
        "--options",
        "a,b",
        "--label",
        "right",
        "--out",
        "c",
    ];
    succeeds(dir.path(), &[&choice[..], &files].concat());
    assert_eq!(json(&dir.path().join("c/report.json"))["eval_rows"], 8);
    let text = [
        "--template",
        "{q}?",
        "--answer",
        "said",
        "--answer-tokens",
        "4",
        "--out",
        "t",
    ];
    let (_, told) = succeeds(dir.path(), &[&text[..], &files].concat());
    assert!(told.contains("F1"), "{told}");
}

#[test]
fn what_is_wrong_with_ones_own_data_is_said_by_place() {
    let dir = tempfile::tempdir().unwrap();
    reviews(&dir.path().join("train.csv"), 6, true);
    let train = std::fs::read_to_string(dir.path().join("train.csv")).unwrap();
    let files = [
        "--train-file",
        "train.csv",
        "--eval-file",
        "train.csv",
        "--steps",
        "0",
        "--batch",
        "3",
    ];
    let refused = |content: &str, task: &[&str]| {
        std::fs::write(dir.path().join("train.csv"), content).unwrap();
        fails(dir.path(), &[task, &files[..]].concat())
    };
    let error = refused(&train.replacen("middle", "mdidle", 1), &TASK);
    assert!(
        error.contains(
            "train.csv, line 3: field `stars` is \"mdidle\", expected one of low, middle, high"
        ),
        "{error}"
    );
    let error = refused(&train.replace("review,", "text,"), &TASK);
    assert!(
        error.contains("line 2: field `review` is missing; there are `stars`, `text`"),
        "{error}"
    );
    let error = refused(&train, &["--template", "{review", "--words", "a,b"]);
    assert!(error.contains("`{` without its partner"), "{error}");
    let error = refused(&train, &["--template", "{review}"]);
    assert!(
        error.contains("--words") && error.contains("--answer"),
        "{error}"
    );
    let error = fails(dir.path(), &["--train-file", "train.csv"]);
    assert!(error.contains("--eval-file"), "{error}");
    std::fs::write(dir.path().join("rows.txt"), "x").unwrap();
    let args = [
        &TASK[..],
        &["--train-file", "rows.txt", "--eval-file", "rows.txt"],
    ]
    .concat();
    let error = fails(dir.path(), &args);
    assert!(
        error.contains("rows.txt: the name does not say") && error.contains(".csv"),
        "{error}"
    );
    let input = [
        "predict",
        "--input",
        "train.csv",
        "--output",
        "x.txt",
        "--template",
        "{review}",
        "--words",
        "a,b",
    ];
    let output = zo(dir.path(), &input).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains(".jsonl or .csv"));
    assert!(!dir.path().join("x.txt").exists());
}

/// The model begins with the same answer to everything: half of the rewards.
#[cfg(unix)]
#[test]
fn a_reward_by_a_shell_script_rises() {
    let dir = tempfile::tempdir().unwrap();
    let script = r#"
    # 1 for a right answer, 0 for a wrong one.
    while read -r line; do
        case "$line" in
            *'"answer":"Yes"'*'"label":1'*|*'"answer":"No"'*'"label":0'*) echo 1 ;;
            *) echo 0 ;;
        esac
    done
    "#;
    std::fs::write(dir.path().join("score.sh"), script).unwrap();
    let args = [
        "--reward",
        "sh score.sh",
        "--steps",
        "120",
        "--eval-every",
        "40",
        "--eval-rows",
        "100",
        "--out",
        "a",
    ];
    let (log, told) = succeeds(dir.path(), &args);
    assert!(
        log.contains("  reward ") && told.contains("  reward "),
        "{log}{told}"
    );
    let report = json(&dir.path().join("a/report.json"));
    let [before, after] =
        ["reward_before", "reward_after"].map(|name| report[name].as_f64().unwrap());
    assert!(after >= before + 0.1, "{before} to {after}");
    // It is what the script says, and here that is the accuracy.
    assert_eq!(report["reward_after"], report["accuracy_after"]);
    let last = lines(&dir.path().join("a/metrics.jsonl")).pop().unwrap();
    assert_eq!(last["eval_reward"], report["reward_after"]);
    assert_eq!(
        (&report["objective"], &report["reward"]),
        (&"reward".into(), &"sh score.sh".into())
    );
}

#[cfg(unix)]
#[test]
fn a_reward_that_is_none_ends_the_run_and_is_shown() {
    let dir = tempfile::tempdir().unwrap();
    for (command, said) in [
        ("echo no model; exit 4", "exit status: 4"),
        ("echo good", "`good` is not a number"),
        ("echo NaN", "NaN is not finite"),
        ("cat > /dev/null", "it printed nothing"),
        ("printf '1\\n2\\n'", "2 numbers"),
    ] {
        let error = fails(dir.path(), &short(&["--reward", command, "--out", "a"]));
        assert!(error.contains(said) && error.contains(command), "{error}");
    }
    // Generated texts are answers, too.
    let row = "{\"q\": \"did clara like it\", \"a\": \"no\"}\n";
    std::fs::write(dir.path().join("rows.jsonl"), row.repeat(4)).unwrap();
    let args = [
        "--template",
        "{q}?",
        "--answer",
        "a",
        "--answer-tokens",
        "3",
        "--train-file",
        "rows.jsonl",
        "--eval-file",
        "rows.jsonl",
        "--steps",
        "1",
        "--batch",
        "2",
        "--out",
        "g",
        "--reward",
        "tee -a seen.jsonl | wc -l",
    ];
    succeeds(dir.path(), &args);
    let seen = lines(&dir.path().join("seen.jsonl"));
    assert!(
        seen.iter()
            .all(|line| line["prompt"] == "did clara like it?"),
        "{seen:?}"
    );
    assert!(
        seen.iter()
            .all(|line| line["row"]["a"] == "no" && line["answer"].is_string())
    );
    // Both evaluations of all rows, and two of the batch.
    assert_eq!(seen.len(), 4 + 2 * 2 + 4);
    assert_eq!(
        json(&dir.path().join("g/report.json"))["reward_before"],
        4.0
    );
    assert!(files(dir.path()).len() > 3);
}

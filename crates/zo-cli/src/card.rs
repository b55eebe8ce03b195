//! The model card of what was saved: `README.md`, as Hugging Face shows it.

use std::fmt::Write;
use std::path::Path;

use serde_json::Value;

/// Settings that are told, by their names in the report.
const SETTINGS: [&str; 14] = [
    "method",
    "tuning",
    "objective",
    "reward",
    "max_steps",
    "steps",
    "lr",
    "schedule",
    "warmup",
    "epsilon",
    "queries",
    "batch",
    "dtype",
    "seed",
];

/// The card of a folder `saved` for the run with this report.
pub(crate) fn card(report: &Value, saved: &Path) -> String {
    let text = |field: &str| shown(&report[field]);
    let (model, task) = (text("model"), text("task"));
    let adapter = saved.ends_with("adapter");
    let library = if adapter { "peft" } else { "transformers" };
    let mut card = format!(
        "---\nlibrary_name: {library}\nbase_model: {}\ntags:\n- zeroth-order\n- zo-optim\n---\n\n",
        quoted(&model)
    );
    let what = if adapter {
        "An adapter for"
    } else {
        "A fine-tuned"
    };
    let _ = writeln!(
        card,
        "# {model}, tuned on {task}\n\n{what} {model} ({}), trained with forward passes alone by zo-optim {} (burn {}).\n",
        text("architecture"),
        shown(&report["versions"]["zo-optim"]),
        shown(&report["versions"]["burn"]),
    );
    let _ = writeln!(
        card,
        "## Scores\n\nOn {} held-out rows of {task}:\n\n| | before | after |\n|---|---|---|",
        text("eval_rows")
    );
    for (name, before, after) in [
        ("reward", "reward_before", "reward_after"),
        ("accuracy", "accuracy_before", "accuracy_after"),
        ("F1", "f1_before", "f1_after"),
        ("loss", "eval_loss_before", "eval_loss_after"),
    ] {
        if !report[after].is_null() {
            let _ = writeln!(
                card,
                "| {name} | {} | {} |",
                number(&report[before]),
                number(&report[after])
            );
        }
    }
    if let Some(step) = report["best"]["step"].as_u64()
        && report["keep_best"] == true
    {
        let _ = writeln!(
            card,
            "\nThe weights are those of the best evaluation, after {step} steps."
        );
    }
    if let Some(accuracy) = report["test"]["accuracy"].as_f64() {
        let rows = shown(&report["test"]["rows"]);
        let _ = writeln!(
            card,
            "\nAccuracy on {rows} rows kept for the end: {accuracy:.3}."
        );
    }
    let _ = writeln!(card, "\n## Settings\n\n| setting | value |\n|---|---|");
    for name in SETTINGS {
        if !report[name].is_null() {
            let _ = writeln!(card, "| {name} | {} |", cell(&text(name)));
        }
    }
    let _ = writeln!(
        card,
        "\nThe method in full: `{}`.\n",
        report["method_settings"]
    );
    let name = if report["model_folder"].is_null() && model == crate::bundled::MODEL {
        String::new()
    } else {
        format!(" --model {model}")
    };
    let _ = match adapter {
        true => writeln!(
            card,
            "## Load it\n\n```python\nfrom peft import PeftModel\nfrom transformers import AutoModelForCausalLM\n\n\
             model = AutoModelForCausalLM.from_pretrained({model:?})\nmodel = PeftModel.from_pretrained(model, \".\")\n```\n\n\
             ```sh\nzo eval --config ../run.toml{name} --adapter .\n```"
        ),
        false => writeln!(
            card,
            "## Load it\n\n```python\nfrom transformers import AutoModelForCausalLM, AutoTokenizer\n\n\
             model = AutoModelForCausalLM.from_pretrained(\".\")\ntokenizer = AutoTokenizer.from_pretrained(\".\")\n```\n\n\
             ```sh\nzo eval --config ../run.toml --model .\n```"
        ),
    };
    card
}

fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        value => value.to_string(),
    }
}

/// A number as a person reads it.
fn number(value: &Value) -> String {
    value
        .as_f64()
        .map_or("-".to_owned(), |value| format!("{value:.4}"))
}

/// A text in a cell of a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

/// A text in YAML.
fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

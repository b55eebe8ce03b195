//! `report.html`: a run on one page, in one file that loads nothing else.

use serde::Serialize;
use serde_json::{Value, json};
use zo_llm::dataset::Dataset;
use zo_llm::metrics::exact_match;
use zo_llm::task::Answer;

use crate::run::{Ended, Point, finite, smooth, thin};

/// The page in the folder of a run.
pub const FILE: &str = "report.html";

/// The page without its data.
const TEMPLATE: &str = include_str!("dashboard.html");

/// Where the data go.
const PLACE: &str = "{{data}}";

/// More points do not show.
const POINTS: usize = 2000;

/// Rows whose answers changed that are on the page; all are counted.
const ROWS: usize = 200;

/// Characters of a prompt.
const PROMPT: usize = 1200;

/// The page of a run. `report` is what `report.json` holds, `rows` are the held-out ones.
///
/// # Errors
/// If the report cannot be written as JSON.
pub fn page(
    title: &str,
    report: &impl Serialize,
    ended: &Ended,
    rows: &Dataset,
) -> Result<String, serde_json::Error> {
    let curves = &ended.curves;
    let raw = |points: &[Point]| thin(&finite(points), POINTS);
    let smoothed = |points: &[Point]| thin(&smooth(&finite(points)), POINTS);
    let data = json!({
        "title": title,
        "report": report,
        "score": curves.score_name(),
        "curves": {
            "loss": raw(&curves.losses),
            "loss_smooth": smoothed(&curves.losses),
            "gradient": raw(&curves.gradients),
            "gradient_smooth": smoothed(&curves.gradients),
            "learning_rate": raw(&curves.learning_rates),
            "eval_loss": raw(&curves.eval_losses),
            "score": raw(&curves.scores),
        },
        "answers": answers(&ended.predictions, rows),
    });
    Ok(fill(&data))
}

/// The template with its data.
fn fill(data: &Value) -> String {
    // Within JSON `<` is only in strings, and only `<` ends or changes what a browser takes for a script.
    let data = data.to_string().replace('<', "\\u003c");
    TEMPLATE.replacen(PLACE, &data, 1)
}

/// How answers to the held-out rows changed, and the first rows where they did.
fn answers(predictions: &Value, rows: &Dataset) -> Value {
    let of = |name: &str| predictions[name].as_array().map_or(&[][..], Vec::as_slice);
    let (before, after) = (of("before"), of("after"));
    let [mut fixed, mut broken, mut other] = [0; 3];
    let mut shown = Vec::new();
    for (row, (before, after)) in before.iter().zip(after).enumerate().take(rows.len()) {
        if before == after {
            continue;
        }
        let right = |answer: &Value| is_right(rows, row, answer);
        let (count, change) = match (right(before), right(after)) {
            (false, true) => (&mut fixed, "fixed"),
            (true, false) => (&mut broken, "broken"),
            _ => (&mut other, "other"),
        };
        *count += 1;
        if shown.len() < ROWS {
            shown.push(json!({
                "row": row,
                "change": change,
                "prompt": rows.prompt_text(row).map(|prompt| cut(&prompt)),
                "before": text(rows, row, before),
                "after": text(rows, row, after),
                "right": expected(rows, row),
            }));
        }
    }
    json!({
        "rows": before.len().min(after.len()),
        "fixed": fixed, "broken": broken, "other": other,
        "shown": shown,
    })
}

/// An option by its text, or a written answer.
fn text(rows: &Dataset, row: usize, answer: &Value) -> Option<String> {
    match answer.as_u64() {
        Some(option) => rows.option_text(row, option as usize).map(trimmed),
        None => answer.as_str().map(trimmed),
    }
}

fn trimmed(text: &str) -> String {
    text.trim().to_owned()
}

/// The answers that count as right.
fn expected(rows: &Dataset, row: usize) -> String {
    match &rows.examples[row].answer {
        Answer::Choice { options, label, .. } => trimmed(&options[*label]),
        Answer::Text { references } => references.join(" / "),
    }
}

fn is_right(rows: &Dataset, row: usize, answer: &Value) -> bool {
    let example = &rows.examples[row];
    match &example.answer {
        Answer::Choice { .. } => answer
            .as_u64()
            .is_some_and(|option| example.is_right(option as usize)),
        Answer::Text { references } => answer
            .as_str()
            .is_some_and(|answer| exact_match(answer, references)),
    }
}

/// A prompt without its middle, if it is long: what is asked is at its end.
fn cut(prompt: &str) -> String {
    let length = prompt.chars().count();
    if length <= PROMPT {
        return prompt.to_owned();
    }
    let start: String = prompt.chars().take(PROMPT / 2).collect();
    let end: String = prompt.chars().skip(length - PROMPT / 2).collect();
    format!("{start} [...] {end}")
}

#[cfg(test)]
mod tests;

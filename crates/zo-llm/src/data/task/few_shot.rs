//! The classification tasks that MeZO and LM-BFF give to RoBERTa, besides SST-2 and RTE.
//!
//! Masked language models read LM-BFF's prompts. For causal ones MeZO has none: SST-5 takes that of SST-2, SNLI and MNLI that of CB, TREC one
//! of ours.

use super::cloze::Cloze;
use super::example::{Example, Kind, Task};
use super::fields::{Fields, TaskError};
use crate::data::text::strip;

/// SST-5: how positive is a film review?
///
/// Prompt `{sentence} It was`, then terrible, bad, okay, good or great; masked `{sentence} It was{mask}.`. Fields `text` (or `sentence`),
/// `label`: `very negative`, `negative`, `neutral`, `positive` or `very positive`, or 0 to 4 for them. A csv file without names holds label
/// and text.
#[derive(Debug, Clone, Copy)]
pub struct Sst5;

impl Task for Sst5 {
    fn name(&self) -> &str {
        "sst5"
    }

    fn kind(&self) -> Kind {
        Kind::Classification
    }

    fn label_words(&self) -> Vec<&str> {
        vec![" terrible", " bad", " okay", " good", " great"]
    }

    fn columns(&self) -> &[&str] {
        &["label", "text"]
    }

    fn read(&self, row: &Fields<'_>) -> Result<Vec<Example>, TaskError> {
        const NAMES: [&str; 5] = [
            "very negative",
            "negative",
            "neutral",
            "positive",
            "very positive",
        ];
        let sentence = row.text(row.either("text", "sentence"))?;
        let label = row.class("label", &NAMES)?;
        let prompt = format!("{} It was", strip(sentence));
        let example = Example::choice(prompt, &self.label_words(), label);
        Ok(vec![
            example.with_cloze(Cloze::sentiment(sentence, Some(110))),
        ])
    }
}

/// SNLI: does a premise entail a hypothesis, contradict it, or neither?
///
/// Prompt `Suppose {premise} Can we infer that "{hypothesis}"? Yes, No, or Maybe?`, new line; then Yes, Maybe or No; masked
/// `{premise}?{mask}, {hypothesis}`. Fields `premise` and `hypothesis` (in GLUE's files `sentence1` and `sentence2`), `label` (or
/// `gold_label`): `entailment`, `neutral` or `contradiction`, or 0 to 2 for them. Rows on which the annotators disagreed (`-` or -1) are
/// left out.
#[derive(Debug, Clone, Copy)]
pub struct Snli;

/// MNLI: as [`Snli`], of several genres.
#[derive(Debug, Clone, Copy)]
pub struct Mnli;

/// The label words of entailment, neutral and contradiction.
const INFERENCE: [&str; 3] = ["Yes", "Maybe", "No"];

fn inference(row: &Fields<'_>) -> Result<Vec<Example>, TaskError> {
    let field = row.either("label", "gold_label");
    let undecided = |value: &serde_json::Value| value == "-" || value.as_f64() == Some(-1.0);
    if row.get(field).is_some_and(undecided) {
        return Ok(Vec::new());
    }
    let premise = row.text(row.either("premise", "sentence1"))?;
    let hypothesis = row.text(row.either("hypothesis", "sentence2"))?;
    let prompt =
        format!("Suppose {premise} Can we infer that \"{hypothesis}\"? Yes, No, or Maybe?\n");
    let label = row.class(field, &["entailment", "neutral", "contradiction"])?;
    let example = Example::choice(prompt, &INFERENCE, label);
    Ok(vec![
        example.with_cloze(Cloze::inference(premise, hypothesis)),
    ])
}

impl Task for Snli {
    fn name(&self) -> &str {
        "snli"
    }

    fn kind(&self) -> Kind {
        Kind::Classification
    }

    fn label_words(&self) -> Vec<&str> {
        INFERENCE.to_vec()
    }

    fn answer_fields(&self) -> Vec<&str> {
        vec!["label", "gold_label"]
    }

    fn read(&self, row: &Fields<'_>) -> Result<Vec<Example>, TaskError> {
        inference(row)
    }
}

impl Task for Mnli {
    fn name(&self) -> &str {
        "mnli"
    }

    fn kind(&self) -> Kind {
        Kind::Classification
    }

    fn label_words(&self) -> Vec<&str> {
        INFERENCE.to_vec()
    }

    fn answer_fields(&self) -> Vec<&str> {
        vec!["label", "gold_label"]
    }

    fn read(&self, row: &Fields<'_>) -> Result<Vec<Example>, TaskError> {
        inference(row)
    }
}

/// TREC: what kind of thing does a question ask for?
///
/// Prompt `{text} The answer is about a`, then the class as below, in lower case; masked `{mask}: {text}`, with Description, Entity, Expression, Human,
/// Location or Number. Fields `text` and `label`: `DESC`, `ENTY`, `ABBR`, `HUM`, `LOC` or `NUM`, or 0 to 5 for them in this order, LM-BFF's;
/// or `coarse_label` in the hub's order, in which `ABBR` is 0 and `DESC` 2. A csv file without names holds label and text.
#[derive(Debug, Clone, Copy)]
pub struct Trec;

impl Task for Trec {
    fn name(&self) -> &str {
        "trec"
    }

    fn kind(&self) -> Kind {
        Kind::Classification
    }

    fn label_words(&self) -> Vec<&str> {
        vec![
            " description",
            " entity",
            " expression",
            " human",
            " location",
            " number",
        ]
    }

    fn answer_fields(&self) -> Vec<&str> {
        vec!["label", "coarse_label"]
    }

    fn columns(&self) -> &[&str] {
        &["label", "text"]
    }

    fn read(&self, row: &Fields<'_>) -> Result<Vec<Example>, TaskError> {
        let question = row.text("text")?;
        let label = match row.either("label", "coarse_label") {
            "coarse_label" => {
                let hub = ["ABBR", "ENTY", "DESC", "HUM", "LOC", "NUM"];
                [2, 1, 0, 3, 4, 5][row.class("coarse_label", &hub)?]
            }
            label => row.class(label, &["DESC", "ENTY", "ABBR", "HUM", "LOC", "NUM"])?,
        };
        let prompt = format!("{} The answer is about a", strip(question));
        let example = Example::choice(prompt, &self.label_words(), label);
        let words = [
            "Description",
            "Entity",
            "Expression",
            "Human",
            "Location",
            "Number",
        ];
        Ok(vec![
            example.with_cloze(Cloze::kind_of(question).with_words(&words)),
        ])
    }
}

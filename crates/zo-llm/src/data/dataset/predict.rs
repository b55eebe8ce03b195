//! What a model answers, row by row.

use burn::tensor::Device;

use super::evaluate::option_scores;
use super::train_batch::chosen;
use super::{Dataset, DatasetError, TrainBatch};
use crate::data::task::Kind;
use crate::data::text::strip;
use crate::generate::generate;
use crate::model::CausalLm;

/// The answer to a row.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Prediction {
    /// Index of the option with the largest score; `None` where the scores say nothing, and for generation.
    pub option: Option<usize>,
    /// The share of each option: the softmax of the scores, which are length-averaged log-probabilities. Empty for generation.
    pub shares: Vec<f64>,
    /// The text that was generated, without white space around it.
    pub text: Option<String>,
}

/// What `model` answers to each row of `dataset`, in the order of the rows; `batch` rows are computed at a time. What the rows say is right
/// has no influence.
///
/// # Errors
/// If a batch cannot be built, or generation fails.
pub fn predict(
    model: &CausalLm,
    dataset: &Dataset,
    batch: usize,
    pad: u32,
    device: &Device,
) -> Result<Vec<Prediction>, DatasetError> {
    let mut found = vec![Prediction::default(); dataset.len()];
    for rows in dataset.length_buckets(batch) {
        let examples = rows.iter().map(|row| &dataset.examples[*row]);
        match dataset.kind {
            Kind::Generation => {
                let prompts: Vec<&[u32]> = examples.map(|example| example.prompt()).collect();
                let how = &dataset.generation;
                let texts = generate(model, &dataset.tokenizer, &prompts, how, device)?;
                for (row, text) in rows.iter().zip(texts) {
                    found[*row].text = Some(strip(&text.text).to_owned());
                }
            }
            Kind::MultipleChoice => {
                for (row, example) in rows.iter().zip(examples) {
                    let scores = option_scores(model, &example.sequences, batch, pad, device)?;
                    found[*row] = Prediction::of(&scores);
                }
            }
            Kind::Classification => {
                let scores = TrainBatch::new(dataset, &rows, pad, device)?.scores(model);
                let [_, options] = scores.dims();
                let scores: Vec<f32> = scores.into_data().iter().collect();
                for (row, scores) in rows.iter().zip(scores.chunks(options.max(1))) {
                    found[*row] = Prediction::of(scores);
                }
            }
        }
    }
    Ok(found)
}

impl Prediction {
    fn of(scores: &[f32]) -> Self {
        let top = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let weights = scores.iter().map(|score| f64::from(score - top).exp());
        let weights: Vec<f64> = weights.collect();
        let sum: f64 = weights.iter().sum();
        Self {
            option: chosen(scores),
            shares: weights.iter().map(|weight| weight / sum).collect(),
            text: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_the_softmax_of_the_scores() {
        let found = Prediction::of(&[0.0, 3f32.ln(), f32::NEG_INFINITY]);
        assert_eq!(found.option, Some(1));
        for (share, expected) in found.shares.iter().zip([0.25, 0.75, 0.0]) {
            assert!((share - expected).abs() < 1e-6, "{:?}", found.shares);
        }
        assert_eq!(Prediction::of(&[0.0, f32::NAN]).option, None);
    }
}

//! Rows of a data set as a model reads them, and the losses they give.

use std::borrow::Cow;

use burn::tensor::activation::log_softmax;
use burn::tensor::{Device, Int, Tensor, TensorData};

use super::{Dataset, DatasetError, EncodedExample, Sequence};
use crate::data::task::Kind;
use crate::model::CausalLm;
use crate::model::batch::{PaddingSide, TokenBatch};

/// Rows ready on a device, reusable for any number of forward passes.
#[derive(Debug, Clone)]
pub struct TrainBatch {
    tokens: TokenBatch,
    form: Form,
}

/// Which outputs of the model the rows need.
#[derive(Debug, Clone)]
#[allow(clippy::large_enum_variant, reason = "there is one per batch")]
enum Form {
    /// Logits of one token per label word, after the prompt or in its gap.
    Words {
        words: Vec<u32>,
        labels: Vec<usize>,
        /// Where the gap of each row is.
        gaps: Option<Vec<usize>>,
    },
    /// Mean log-probabilities of continuations.
    Continuations {
        last: Vec<Vec<u32>>,
        /// `[continuations, tokens of all of them]`: takes the mean over the tokens of each.
        mean: Tensor<2>,
        /// The right option of each row, whose options are consecutive in the batch; `None` where each row has only the
        /// right continuation.
        labels: Option<Vec<usize>>,
    },
}

impl TrainBatch {
    /// The rows `rows` of `dataset`. `pad` fills short sequences; the model never sees it.
    ///
    /// # Errors
    /// If there are no rows, or the rows of a classification task differ in their number of options.
    pub fn new(
        dataset: &Dataset,
        rows: &[usize],
        pad: u32,
        device: &Device,
    ) -> Result<Self, DatasetError> {
        let examples: Vec<&EncodedExample> =
            rows.iter().map(|row| &dataset.examples[*row]).collect();
        let batch = |sequences: &[&[u32]]| match dataset.mask {
            Some(_) => TokenBatch::new(sequences, pad, PaddingSide::Right, device),
            None => TokenBatch::sharing(sequences, pad, PaddingSide::Right, device),
        };
        if let Some(words) = &dataset.words {
            let prompts: Vec<&[u32]> = examples.iter().map(|e| e.prompt()).collect();
            let labels = examples.iter().map(|e| e.label()).collect();
            let words = words.clone();
            let gap = |example: &&EncodedExample| example.sequences[0].prompt;
            let gaps = dataset.mask.map(|_| examples.iter().map(gap).collect());
            return Ok(Self {
                tokens: batch(&prompts)?,
                form: Form::Words {
                    words,
                    labels,
                    gaps,
                },
            });
        }
        if dataset.kind == Kind::Classification {
            let options = examples
                .iter()
                .map(|e| e.sequences.len())
                .collect::<Vec<_>>();
            if let Some(row) = options.iter().position(|count| *count != options[0]) {
                return Err(DatasetError::Options {
                    row: rows[row],
                    options: options[row],
                    expected: options[0],
                });
            }
            let sequences: Vec<&Sequence> = examples.iter().flat_map(|e| &e.sequences).collect();
            let labels = examples.iter().map(|e| e.label()).collect();
            return Self::scored(&sequences, pad, Some(labels), device);
        }
        let sequences: Vec<&Sequence> = examples.iter().map(|e| e.target()).collect();
        Self::scored(&sequences, pad, None, device)
    }

    /// All of `sequences` scored by the mean log-probability of their last tokens.
    pub(super) fn scored(
        sequences: &[&Sequence],
        pad: u32,
        labels: Option<Vec<usize>>,
        device: &Device,
    ) -> Result<Self, DatasetError> {
        let tokens: Vec<&[u32]> = sequences.iter().map(|s| &s.tokens[..]).collect();
        let last: Vec<Vec<u32>> = sequences.iter().map(|s| s.last().to_vec()).collect();
        let total: usize = last.iter().map(Vec::len).sum();
        let (mut mean, mut first) = (vec![0.0f32; last.len() * total], 0);
        for (option, tokens) in last.iter().enumerate() {
            let share = 1.0 / tokens.len() as f32;
            mean[option * total + first..][..tokens.len()].fill(share);
            first += tokens.len();
        }
        let mean = Tensor::from_data(TensorData::new(mean, [last.len(), total]), device);
        Ok(Self {
            tokens: TokenBatch::sharing(&tokens, pad, PaddingSide::Right, device)?,
            form: Form::Continuations { last, mean, labels },
        })
    }

    /// The mean loss of the rows, `[1]`, f32: for classification the cross-entropy over the options' length-averaged
    /// log-probabilities, for multiple choice and generation the negative mean log-probability of the right continuation's tokens, as
    /// MeZO trains them (except that each row weighs the same, not each token).
    pub fn loss(&self, model: &CausalLm) -> Tensor<1> {
        self.loss_of(self.scores(model))
    }

    /// [`Self::loss`] at as many displacements as `model` is [shown at](zo_core::Objective::losses) at once, by one forward of as many times
    /// the rows.
    pub fn losses(&self, model: &CausalLm, displacements: usize) -> Vec<Tensor<1>> {
        let scores = self.scores_at(model, displacements);
        let each = scores.chunk(displacements, 0).into_iter();
        each.map(|scores| self.loss_of(scores)).collect()
    }

    /// The loss for these scores.
    fn loss_of(&self, scores: Tensor<2>) -> Tensor<1> {
        match &self.form {
            Form::Words { labels, .. } => option_loss(scores, labels),
            Form::Continuations {
                labels: Some(labels),
                ..
            } => option_loss(scores, labels),
            Form::Continuations { labels: None, .. } => -scores.mean(),
        }
    }

    /// A score for each option, `[rows, options]`: their differences are those of the length-averaged log-probabilities. Rows with only
    /// the right continuation have its mean log-probability, `[rows, 1]`.
    pub fn scores(&self, model: &CausalLm) -> Tensor<2> {
        self.scores_at(model, 1)
    }

    /// The scores at each displacement, one after the other.
    fn scores_at(&self, model: &CausalLm, displacements: usize) -> Tensor<2> {
        let tokens = match displacements {
            1 => Cow::Borrowed(&self.tokens),
            _ => Cow::Owned(self.tokens.repeated(displacements)),
        };
        match &self.form {
            Form::Words {
                words,
                gaps: Some(gaps),
                ..
            } => model.logits_at(&tokens, &gaps.repeat(displacements), words),
            Form::Words { words, .. } => model.last_logits(&tokens, words),
            Form::Continuations { last, mean, labels } => {
                let rows = labels.as_ref().map_or(last.len(), Vec::len).max(1);
                let [options, total] = mean.dims();
                let all: Vec<&[u32]> = last.iter().map(Vec::as_slice).collect();
                let each = model.log_probs(&tokens, &all.repeat(displacements));
                let each = each.reshape([displacements, total]).transpose();
                let scores = mean.clone().matmul(each).transpose();
                scores.reshape([displacements * rows, options / rows])
            }
        }
    }

    /// What the head's matrix sees where the label words are predicted, `[rows, width]`; `None` where the words have several tokens.
    pub(crate) fn features(&self, model: &CausalLm) -> Option<Tensor<2>> {
        match &self.form {
            Form::Words {
                gaps: Some(gaps), ..
            } => Some(model.hidden_at(&self.tokens, gaps)),
            Form::Words { .. } => Some(model.last_hidden(&self.tokens)),
            Form::Continuations { .. } => None,
        }
    }

    /// Number of tokens of a forward pass, with and without padding.
    pub fn tokens(&self) -> [usize; 2] {
        [self.tokens.padded_tokens(), self.tokens.real_tokens()]
    }
}

/// Cross-entropy over the options, mean over the rows: `[1]`, f32. `scores` is `[rows, options]`: logits, or log-probabilities.
pub fn option_loss(scores: Tensor<2>, labels: &[usize]) -> Tensor<1> {
    let labels: Vec<i64> = labels.iter().map(|label| *label as i64).collect();
    let rows = labels.len();
    let index = TensorData::new(labels, [rows, 1]);
    let index = Tensor::<2, Int>::from_data(index, &scores.device());
    -log_softmax(scores, 1).gather(1, index).mean()
}

/// The option with the largest score of each row, the first of equals. `scores` is `[rows, options]`. `None` for a row whose scores say
/// nothing: one of them is NaN or infinity, or all are minus infinity.
pub fn predictions(scores: Tensor<2>) -> Vec<Option<usize>> {
    let [_, options] = scores.dims();
    let scores: Vec<f32> = scores.into_data().iter().collect();
    scores.chunks(options.max(1)).map(chosen).collect()
}

/// The largest of these scores: see [`predictions`].
pub(super) fn chosen(scores: &[f32]) -> Option<usize> {
    let mut best = None;
    for (option, score) in scores.iter().enumerate() {
        if score.is_nan() || *score == f32::INFINITY {
            return None;
        }
        if *score > best.map_or(f32::NEG_INFINITY, |best: usize| scores[best]) {
            best = Some(option);
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loss_and_predictions_of_known_scores() {
        let scores = Tensor::<2>::from_floats([[0.0, 0.0], [2.0, 0.0]], &Device::default());
        let loss = option_loss(scores.clone(), &[1, 0]).into_scalar::<f32>();
        let expected = (2f32.ln() + (1.0 + (-2f32).exp()).ln()) / 2.0;
        assert!((loss - expected).abs() < 1e-6, "{loss}");
        assert_eq!(predictions(scores), [Some(0), Some(0)]);
    }

    #[test]
    fn what_is_not_finite_chooses_nothing() {
        let (nan, inf) = (f32::NAN, f32::INFINITY);
        let scores = [
            [1.0, 2.0],
            [nan, 2.0],
            [2.0, nan],
            [inf, 0.0],
            [-inf, 0.0],
            [-inf, -inf],
        ];
        let scores = Tensor::<2>::from_floats(scores, &Device::default());
        let expected = [Some(1), None, None, None, Some(1), None];
        assert_eq!(predictions(scores), expected);
    }
}

//! How well a model does on a data set.

use burn::tensor::Device;

use super::train_batch::predictions;
use super::{Dataset, DatasetError, Sequence, TrainBatch};
use crate::generate::generate;
use crate::metrics::{exact_match, f1};
use crate::model::CausalLm;
use crate::task::{Answer, Kind};
use crate::text::strip;

/// How well a model does.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Evaluation {
    /// Share of rows that are right: the option with the largest score, or an answer that matches a reference exactly.
    pub accuracy: f64,
    /// For generation the mean F1 over the rows' answers.
    pub f1: Option<f64>,
    /// Mean loss over the rows: see [`TrainBatch::loss`].
    pub loss: f64,
    /// Index of the option chosen for each row, in the order of the rows. None for generation.
    pub predictions: Vec<usize>,
    /// The answer to each row, for generation.
    pub answers: Vec<String>,
}

impl Evaluation {
    /// What the papers report: F1 for generation, accuracy for the others.
    pub fn score(&self) -> f64 {
        self.f1.unwrap_or(self.accuracy)
    }
}

/// Evaluates `model` on all rows, `batch` at a time, rows of like length together. `pad` fills short rows.
///
/// # Errors
/// If a batch cannot be built, or nothing generated.
pub fn evaluate(
    model: &CausalLm,
    dataset: &Dataset,
    batch: usize,
    pad: u32,
    device: &Device,
) -> Result<Evaluation, DatasetError> {
    let every: Vec<usize> = (0..dataset.len()).collect();
    evaluate_rows(model, dataset, &every, batch, pad, device)
}

/// [`evaluate`] on the rows `rows` only: what is said of rows is in their order.
///
/// # Errors
/// As there.
pub fn evaluate_rows(
    model: &CausalLm,
    dataset: &Dataset,
    rows: &[usize],
    batch: usize,
    pad: u32,
    device: &Device,
) -> Result<Evaluation, DatasetError> {
    let mut evaluation = Evaluation {
        predictions: vec![
            0;
            if dataset.kind == Kind::Generation {
                0
            } else {
                rows.len()
            }
        ],
        answers: vec![
            String::new();
            if dataset.kind == Kind::Generation {
                rows.len()
            } else {
                0
            }
        ],
        ..Evaluation::default()
    };
    let (mut right, mut sum, mut f1_sum) = (0.0, 0.0, 0.0);
    for places in dataset.length_buckets_of(rows, batch) {
        let bucket: Vec<usize> = places.iter().map(|place| rows[*place]).collect();
        let examples: Vec<_> = bucket.iter().map(|row| &dataset.examples[*row]).collect();
        if dataset.kind == Kind::MultipleChoice {
            // As many options as each row has.
            for (place, example) in places.iter().zip(&examples) {
                let scores = option_scores(model, &example.sequences, batch, pad, device)?;
                let best = (0..scores.len())
                    .fold(0, |best, i| if scores[i] > scores[best] { i } else { best });
                evaluation.predictions[*place] = best;
                right += f64::from(u8::from(example.is_right(best)));
                sum -= f64::from(scores[example.label()]);
            }
            continue;
        }
        let ready = TrainBatch::new(dataset, &bucket, pad, device)?;
        if dataset.kind == Kind::Classification {
            let scores = ready.scores(model);
            let labels: Vec<usize> = examples.iter().map(|e| e.label()).collect();
            let loss = super::option_loss(scores.clone(), &labels).into_scalar::<f32>();
            sum += f64::from(loss) * bucket.len() as f64;
            for ((place, example), best) in places.iter().zip(&examples).zip(predictions(scores)) {
                evaluation.predictions[*place] = best;
                right += f64::from(u8::from(example.is_right(best)));
            }
            continue;
        }
        let loss = ready.scores(model).sum().into_scalar::<f32>();
        sum -= f64::from(loss);
        let prompts: Vec<&[u32]> = examples.iter().map(|e| e.prompt()).collect();
        let texts = generate(
            model,
            &dataset.tokenizer,
            &prompts,
            &dataset.generation,
            device,
        )?;
        for ((place, example), text) in places.iter().zip(&examples).zip(texts) {
            let answer = strip(&text.text).to_owned();
            if let Answer::Text { references } = &example.answer {
                right += f64::from(u8::from(exact_match(&answer, references)));
                f1_sum += f1(&answer, references);
            }
            evaluation.answers[*place] = answer;
        }
    }
    let count = rows.len().max(1) as f64;
    evaluation.accuracy = right / count;
    evaluation.loss = sum / count;
    evaluation.f1 = (dataset.kind == Kind::Generation).then_some(f1_sum / count);
    Ok(evaluation)
}

/// The mean log-probability of each continuation, `batch` sequences at a time.
fn option_scores(
    model: &CausalLm,
    options: &[Sequence],
    batch: usize,
    pad: u32,
    device: &Device,
) -> Result<Vec<f32>, DatasetError> {
    let mut scores = Vec::with_capacity(options.len());
    for options in options.chunks(batch.max(1)) {
        let options: Vec<&Sequence> = options.iter().collect();
        let ready = TrainBatch::scored(&options, pad, None, device)?;
        scores.extend(ready.scores(model).into_data().iter::<f32>());
    }
    Ok(scores)
}

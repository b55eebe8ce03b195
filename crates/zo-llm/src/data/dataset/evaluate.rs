//! How well a model does on a data set.

use burn::tensor::Device;

use super::train_batch::{chosen, predictions};
use super::{Dataset, DatasetError, EncodedExample, Sequence, TrainBatch};
use crate::data::metrics::{exact_match, f1, macro_f1, matthews};
use crate::data::task::{Answer, Kind};
use crate::data::text::strip;
use crate::generate::generate;
use crate::model::CausalLm;

/// How well a model does. If scores are not finite, the averages are NaN: no row is left out silently.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Evaluation {
    /// Share of rows that are right: the option with the largest score, or an answer that matches a reference exactly.
    pub accuracy: f64,
    /// For generation, the mean F1 of the answers.
    pub f1: Option<f64>,
    /// For classification, the mean over the classes of their F1 scores.
    pub macro_f1: Option<f64>,
    /// For classification, Matthews' correlation of labels and predictions.
    pub matthews: Option<f64>,
    /// Mean loss over the rows: see [`TrainBatch::loss`].
    pub loss: f64,
    /// Index of the option chosen for each row, in the order of the rows; `None` where the scores say nothing (NaN, or infinite). Empty
    /// for generation.
    pub predictions: Vec<Option<usize>>,
    /// The answer to each row, for generation; `None` where the model's scores say nothing.
    pub answers: Vec<Option<String>>,
    /// The mean reward of the answers, where that is what is trained for.
    pub reward: Option<f64>,
    /// Rows whose scores are not finite.
    pub not_finite: usize,
}

impl Evaluation {
    /// The reward if there is one, else what the papers report: F1 for generation, accuracy for the others.
    pub fn score(&self) -> f64 {
        self.reward.or(self.f1).unwrap_or(self.accuracy)
    }

    /// A warning about an evaluation that is not finite; `None` for one that is.
    pub fn note(&self) -> Option<String> {
        let rows = self.predictions.len().max(self.answers.len());
        if self.not_finite > 0 {
            return Some(format!(
                "the scores of {} of {rows} rows are not finite (NaN or infinite)",
                self.not_finite
            ));
        }
        (!self.loss.is_finite()).then(|| format!("the mean loss of {rows} rows is {}", self.loss))
    }
}

/// Evaluates `model` on all rows, `batch` at a time, rows of similar length together. `pad` fills short rows.
///
/// # Errors
/// If a batch cannot be built, or generation fails.
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

/// [`evaluate`] on the rows `rows` only; results per row are in their order.
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
    let generates = dataset.kind == Kind::Generation;
    let mut evaluation = Evaluation::default();
    if generates {
        evaluation.answers = vec![None; rows.len()];
    } else {
        evaluation.predictions = vec![None; rows.len()];
    }
    let (mut right, mut sum, mut f1_sum) = (0.0, 0.0, 0.0);
    for places in dataset.length_buckets_of(rows, batch) {
        let bucket: Vec<usize> = places.iter().map(|place| rows[*place]).collect();
        let examples: Vec<_> = bucket.iter().map(|row| &dataset.examples[*row]).collect();
        let mut choose = |place: usize, example: &EncodedExample, option: Option<usize>| {
            evaluation.predictions[place] = option;
            let is_right = option.is_some_and(|option| example.is_right(option));
            right += f64::from(u8::from(is_right));
            evaluation.not_finite += usize::from(option.is_none());
        };
        if dataset.kind == Kind::MultipleChoice {
            // The number of options each row has.
            for (place, example) in places.iter().zip(&examples) {
                let scores = option_scores(model, &example.sequences, batch, pad, device)?;
                choose(*place, example, chosen(&scores));
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
            for ((place, example), option) in places.iter().zip(&examples).zip(predictions(scores))
            {
                choose(*place, example, option);
            }
            continue;
        }
        let scores: Vec<f32> = ready.scores(model).into_data().iter().collect();
        sum -= scores.iter().map(|score| f64::from(*score)).sum::<f64>();
        // Whatever a model with non-finite scores writes is not its answer.
        let finite = places.iter().zip(&examples).zip(&scores);
        let finite: Vec<_> = finite
            .filter_map(|(row, score)| (!score.is_nan()).then_some(row))
            .collect();
        evaluation.not_finite += places.len() - finite.len();
        if finite.is_empty() {
            continue;
        }
        let prompts: Vec<&[u32]> = finite.iter().map(|(_, e)| e.prompt()).collect();
        let texts = generate(
            model,
            &dataset.tokenizer,
            &prompts,
            &dataset.generation,
            device,
        )?;
        for ((place, example), text) in finite.into_iter().zip(texts) {
            let answer = strip(&text.text).to_owned();
            if let Answer::Text { references } = &example.answer {
                right += f64::from(u8::from(exact_match(&answer, references)));
                f1_sum += f1(&answer, references);
            }
            evaluation.answers[*place] = Some(answer);
        }
    }
    let count = match evaluation.not_finite {
        0 => rows.len().max(1) as f64,
        _ => f64::NAN,
    };
    evaluation.accuracy = right / count;
    evaluation.loss = sum / rows.len().max(1) as f64;
    evaluation.f1 = generates.then_some(f1_sum / count);
    if dataset.kind == Kind::Classification {
        let labels = rows.iter().map(|row| dataset.examples[*row].label());
        let labels: Vec<usize> = labels.collect();
        evaluation.macro_f1 = Some(macro_f1(&labels, &evaluation.predictions));
        evaluation.matthews = Some(matthews(&labels, &evaluation.predictions));
    }
    Ok(evaluation)
}

/// The mean log-probability of each continuation, `batch` sequences at a time.
pub(super) fn option_scores(
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

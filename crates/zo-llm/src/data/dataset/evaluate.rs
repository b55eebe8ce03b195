//! How well a model does on a data set.

use burn::tensor::Device;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use zo_optim::ranks::{Communicator, RankError, exchange};

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
    let buckets = dataset.length_buckets_of(rows, batch);
    let mut found = Vec::with_capacity(rows.len());
    for places in &buckets {
        found.extend(evaluate_bucket(
            model, dataset, rows, places, batch, pad, device,
        )?);
    }
    Ok(tally(dataset, rows, found))
}

/// [`evaluate`] with other ranks, which hold the same weights and call it as well. Each evaluates some batches, and all find the same, bit for
/// bit what one would find.
///
/// # Errors
/// As there, and if another rank is gone.
pub fn evaluate_on(
    ranks: &dyn Communicator,
    model: &CausalLm,
    dataset: &Dataset,
    batch: usize,
    pad: u32,
    device: &Device,
) -> Result<Evaluation, SharedError> {
    let rows: Vec<usize> = (0..dataset.len()).collect();
    let buckets = dataset.length_buckets_of(&rows, batch);
    let mine = buckets.iter().skip(ranks.rank()).step_by(ranks.size());
    let mut own = Vec::new();
    for places in mine {
        own.extend(evaluate_bucket(
            model, dataset, &rows, places, batch, pad, device,
        )?);
    }
    let own = serde_json::to_vec(&own).map_err(unreadable)?;
    let all = exchange(ranks, &own)?;
    let mut all = all
        .iter()
        .map(|found| {
            Ok(serde_json::from_slice::<Vec<Row>>(found)
                .map_err(unreadable)?
                .into_iter())
        })
        .collect::<Result<Vec<_>, RankError>>()?;
    let size = all.len();
    let in_order = buckets.iter().enumerate().flat_map(|(number, places)| {
        let found = all[number % size].by_ref().take(places.len());
        found.collect::<Vec<_>>()
    });
    let found = in_order.collect();
    Ok(tally(dataset, &rows, found))
}

fn unreadable(error: serde_json::Error) -> RankError {
    RankError::Library(format!("the results of rows do not arrive whole: {error}"))
}

/// Why rows could not be evaluated with other ranks.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SharedError {
    /// A batch could not be built, or generation failed.
    #[error(transparent)]
    Dataset(#[from] DatasetError),
    /// Another rank is gone.
    #[error(transparent)]
    Rank(#[from] RankError),
}

/// What was found for a row.
#[derive(Debug, Serialize, Deserialize)]
struct Row {
    /// Its place among the rows.
    place: usize,
    /// The option chosen, if options are.
    option: Option<usize>,
    /// The answer generated, if answers are.
    answer: Option<String>,
    right: bool,
    f1: f64,
    /// What it adds to the sum of losses: bits, for JSON has no NaN. That of a batch is its first row's.
    loss: u64,
}

impl Row {
    fn new(place: usize) -> Self {
        Self {
            place,
            option: None,
            answer: None,
            right: false,
            f1: 0.0,
            loss: 0.0_f64.to_bits(),
        }
    }

    fn choosing(place: usize, example: &EncodedExample, option: Option<usize>) -> Self {
        Self {
            option,
            right: option.is_some_and(|option| example.is_right(option)),
            ..Self::new(place)
        }
    }
}

/// What `model` makes of the rows at `places` of `rows`, which are one batch.
fn evaluate_bucket(
    model: &CausalLm,
    dataset: &Dataset,
    rows: &[usize],
    places: &[usize],
    batch: usize,
    pad: u32,
    device: &Device,
) -> Result<Vec<Row>, DatasetError> {
    let bucket: Vec<usize> = places.iter().map(|place| rows[*place]).collect();
    let examples: Vec<_> = bucket.iter().map(|row| &dataset.examples[*row]).collect();
    let mut found = Vec::with_capacity(places.len());
    if dataset.kind == Kind::MultipleChoice {
        // The number of options each row has.
        for (place, example) in places.iter().zip(&examples) {
            let scores = option_scores(model, &example.sequences, batch, pad, device)?;
            let mut row = Row::choosing(*place, example, chosen(&scores));
            row.loss = (-f64::from(scores[example.label()])).to_bits();
            found.push(row);
        }
        return Ok(found);
    }
    let ready = TrainBatch::new(dataset, &bucket, pad, device)?;
    let loss;
    if dataset.kind == Kind::Classification {
        let scores = ready.scores(model);
        let labels: Vec<usize> = examples.iter().map(|e| e.label()).collect();
        let mean = super::option_loss(scores.clone(), &labels).into_scalar::<f32>();
        loss = f64::from(mean) * bucket.len() as f64;
        for ((place, example), option) in places.iter().zip(&examples).zip(predictions(scores)) {
            found.push(Row::choosing(*place, example, option));
        }
    } else {
        let scores: Vec<f32> = ready.scores(model).into_data().iter().collect();
        loss = -scores.iter().map(|score| f64::from(*score)).sum::<f64>();
        found.extend(places.iter().map(|place| Row::new(*place)));
        // Whatever a model with non-finite scores writes is not its answer.
        let finite = found.iter_mut().zip(&examples).zip(&scores);
        let finite: Vec<_> = finite
            .filter_map(|(row, score)| (!score.is_nan()).then_some(row))
            .collect();
        if !finite.is_empty() {
            let prompts: Vec<&[u32]> = finite.iter().map(|(_, e)| e.prompt()).collect();
            let (tokenizer, generation) = (&dataset.tokenizer, &dataset.generation);
            let texts = generate(model, tokenizer, &prompts, generation, device)?;
            for ((row, example), text) in finite.into_iter().zip(texts) {
                let answer = strip(&text.text).to_owned();
                if let Answer::Text { references } = &example.answer {
                    row.right = exact_match(&answer, references);
                    row.f1 = f1(&answer, references);
                }
                row.answer = Some(answer);
            }
        }
    }
    if let Some(first) = found.first_mut() {
        first.loss = loss.to_bits();
    }
    Ok(found)
}

/// What the rows come to, found in this order.
fn tally(dataset: &Dataset, rows: &[usize], found: Vec<Row>) -> Evaluation {
    let generates = dataset.kind == Kind::Generation;
    let mut evaluation = Evaluation::default();
    if generates {
        evaluation.answers = vec![None; rows.len()];
    } else {
        evaluation.predictions = vec![None; rows.len()];
    }
    let (mut right, mut sum, mut f1_sum) = (0.0, 0.0, 0.0);
    for row in found {
        right += f64::from(u8::from(row.right));
        sum += f64::from_bits(row.loss);
        f1_sum += row.f1;
        let silent = if generates {
            row.answer.is_none()
        } else {
            row.option.is_none()
        };
        evaluation.not_finite += usize::from(silent);
        match generates {
            true => evaluation.answers[row.place] = row.answer,
            false => evaluation.predictions[row.place] = row.option,
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
    evaluation
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

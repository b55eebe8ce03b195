//! Linear probing: the head's rows of the label words are fitted to what the model computes for the training rows, by logistic regression.
//!
//! The baseline of MeZO's paper (arXiv 2305.17333, appendix on baselines), after Kumar et al. 2022: nothing but those rows changes.

use burn::module::Param;
use burn::tensor::{Device, Tensor, TensorData};
use linfa::traits::Fit;
use linfa_logistic::{LogisticRegression, MultiLogisticRegression};
use linfa_ndarray::{Array1, Array2, Axis};
use thiserror::Error;

use crate::dataset::{Dataset, DatasetError, TrainBatch};
use crate::model::CausalLm;

/// The strengths that are tried, as inverses of the penalty: scikit-learn's `Cs=10`.
const STRENGTHS: [f64; 10] = [
    1e-4,
    7.742_636_826_811_27e-4,
    5.994_842_503_189_409e-3,
    4.641_588_833_612_779e-2,
    3.593_813_663_804_626e-1,
    2.782_559_402_207_126,
    2.154_434_690_031_882e1,
    1.668_100_537_200_059e2,
    1.291_549_665_014_884e3,
    1e4,
];

/// Parts of the training rows, of which each is held out once: scikit-learn's `cv=5`.
const FOLDS: usize = 5;

/// Steps of the solver at most, MeZO's `max_iter`, and the gradient at which it ends.
const STEPS: u64 = 5000;
const TOLERANCE: f64 = 1e-4;

/// Why a model cannot be probed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ProbeError {
    /// The rows have no label words, or words of several tokens.
    #[error(
        "linear probing needs a classification task in which each label word is a single token after the prompt: use another task, or \
         another method"
    )]
    NoWords,
    /// Only one class is there.
    #[error("the training rows have labels of one class only: linear probing needs two at least")]
    OneClass,
    /// The model's outputs are not finite.
    #[error(
        "what the model computes for training row {row} is not finite: check its weights and their float type"
    )]
    NotFinite {
        /// The row, from 0.
        row: usize,
    },
    /// The solver failed.
    #[error("the logistic regression failed: {0}; use more rows of each class")]
    Solver(String),
    /// A batch could not be built.
    #[error(transparent)]
    Dataset(#[from] DatasetError),
}

/// The fitted rows of the head.
#[derive(Debug, Clone, PartialEq)]
pub struct Probe {
    /// The tokens of the label words.
    pub words: Vec<u32>,
    /// Their rows, `[words, width]`: zero for a class without training rows.
    pub weights: Vec<Vec<f32>>,
    /// Their biases, in a masked language model; causal heads have none.
    pub bias: Option<Vec<f32>>,
    /// The inverse of the penalty `|weights|^2 / 2` that did best, of ten from 1e-4 to 1e4.
    pub strength: f64,
    /// Its mean accuracy on rows that were held out in turn; `None` where a class has one row only, so that strength 1 was taken unseen.
    pub held_out_accuracy: Option<f64>,
}

/// Fits the head's rows of the label words to the rows of `train`, computed `batch` at a time; `pad` fills short ones.
///
/// What the head's matrix sees where the option is predicted is the input of a logistic regression with a squared penalty, solved by L-BFGS
/// (linfa). Its strength is that of ten with the best mean accuracy in five-fold cross-validation, with folds in the order of the rows, each
/// class spread over all of them; of equal ones the smallest. With two classes one vector w is fitted, and the rows become `-w / 2`
/// and `w / 2`.
///
/// # Errors
/// If the task has no label words of a single token, there is only one class, or what the model computes is not finite.
pub fn linear_probe(
    model: &CausalLm,
    train: &Dataset,
    batch: usize,
    pad: u32,
    device: &Device,
) -> Result<Probe, ProbeError> {
    let words = train.words.clone().ok_or(ProbeError::NoWords)?;
    let labels = train.labels();
    let every: Vec<usize> = (0..train.len()).collect();
    let mut rows: Vec<f64> = Vec::new();
    let mut width = 0;
    for part in every.chunks(batch.max(1)) {
        let features = TrainBatch::new(train, part, pad, device)?.features(model);
        let features = features.ok_or(ProbeError::NoWords)?;
        width = features.dims()[1];
        rows.extend(features.into_data().iter::<f32>().map(f64::from));
    }
    if let Some(at) = rows.iter().position(|value| !value.is_finite()) {
        return Err(ProbeError::NotFinite { row: at / width });
    }
    let features = Array2::from_shape_vec((labels.len(), width), rows)
        .map_err(|error| ProbeError::Solver(error.to_string()))?;
    let fit = Regression {
        features,
        labels,
        classes: words.len(),
        intercept: model.is_masked(),
    };
    let (strength, held_out_accuracy) = fit.strength()?;
    let every: Vec<usize> = (0..fit.labels.len()).collect();
    let Linear { weights, bias } = fit.on(&every, strength)?;
    let narrow = |row: &[f64]| row.iter().map(|value| *value as f32).collect::<Vec<_>>();
    Ok(Probe {
        words,
        weights: weights
            .rows()
            .into_iter()
            .map(|row| narrow(&row.to_vec()))
            .collect(),
        bias: fit.intercept.then(|| narrow(&bias.to_vec())),
        strength,
        held_out_accuracy,
    })
}

impl Probe {
    /// The model with these rows in its head, which becomes a matrix of its own. To save the model, its configuration must then say so, too.
    pub fn apply(&self, mut model: CausalLm) -> CausalLm {
        model.untie();
        let head = model.head();
        let (shape, device, dtype) = (head.dims(), head.device(), head.dtype());
        let mut values: Vec<f32> = head.into_data().iter().collect();
        for (word, row) in self.words.iter().zip(&self.weights) {
            values[*word as usize * shape[1]..][..shape[1]].copy_from_slice(row);
        }
        let values = Tensor::<2>::from_data(TensorData::new(values, shape), &device).cast(dtype);
        if let Some(head) = model.lm_head() {
            head.weight = Param::from_tensor(values);
        }
        if let (Some(bias), Some(parameter)) = (&self.bias, model.head_bias_parameter()) {
            let all = parameter.val();
            let (shape, dtype) = (all.dims(), all.dtype());
            let mut values: Vec<f32> = all.into_data().iter().collect();
            for (word, value) in self.words.iter().zip(bias) {
                values[*word as usize] = *value;
            }
            let values =
                Tensor::<1>::from_data(TensorData::new(values, shape), &device).cast(dtype);
            *parameter = Param::from_tensor(values);
        }
        model
    }
}

/// Rows `[classes, width]`, and a bias for each.
struct Linear {
    weights: Array2<f64>,
    bias: Array1<f64>,
}

impl Linear {
    /// The class with the largest score.
    fn class(&self, features: linfa_ndarray::ArrayView1<'_, f64>) -> usize {
        let scores = self.weights.dot(&features) + &self.bias;
        let best = scores.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
        best.map_or(0, |(class, _)| class)
    }
}

/// The problem.
struct Regression {
    /// `[rows, width]`.
    features: Array2<f64>,
    labels: Vec<usize>,
    classes: usize,
    intercept: bool,
}

impl Regression {
    /// The best strength, and its accuracy on rows that were held out.
    fn strength(&self) -> Result<(f64, Option<f64>), ProbeError> {
        let counts =
            (0..self.classes).map(|class| self.labels.iter().filter(|l| **l == class).count());
        let present: Vec<usize> = counts.filter(|count| *count > 0).collect();
        if present.len() < 2 {
            return Err(ProbeError::OneClass);
        }
        let folds = present.iter().copied().min().unwrap_or(0).min(FOLDS);
        if folds < 2 {
            return Ok((1.0, None));
        }
        let fold_of = folds_of(&self.labels, self.classes, folds);
        let mut best = (0.0, -1.0);
        for strength in STRENGTHS {
            let mut sum = 0.0;
            for fold in 0..folds {
                let rows = |held_out: bool| -> Vec<usize> {
                    let all = fold_of.iter().enumerate();
                    let chosen = all.filter(|(_, own)| (**own == fold) == held_out);
                    chosen.map(|(row, _)| row).collect()
                };
                let fitted = self.on(&rows(false), strength)?;
                let tested = rows(true);
                let right = tested
                    .iter()
                    .filter(|row| fitted.class(self.features.row(**row)) == self.labels[**row]);
                sum += right.count() as f64 / tested.len().max(1) as f64;
            }
            let accuracy = sum / folds as f64;
            if accuracy > best.1 {
                best = (strength, accuracy);
            }
        }
        Ok((best.0, Some(best.1)))
    }

    /// Fitted to some of the rows.
    fn on(&self, rows: &[usize], strength: f64) -> Result<Linear, ProbeError> {
        let features = self.features.select(Axis(0), rows);
        let labels: Array1<usize> = rows.iter().map(|row| self.labels[*row]).collect();
        let mut present = labels.to_vec();
        present.sort_unstable();
        present.dedup();
        let failed = |error: linfa_logistic::error::Error| ProbeError::Solver(error.to_string());
        let data = linfa::Dataset::new(features, labels);
        let mut weights = Array2::zeros((self.classes, self.features.ncols()));
        let mut bias = Array1::zeros(self.classes);
        if let [first, second] = present[..] {
            let solver = LogisticRegression::default()
                .alpha(1.0 / strength)
                .with_intercept(self.intercept)
                .max_iterations(STEPS)
                .gradient_tolerance(TOLERANCE);
            let fitted = solver.fit(&data).map_err(failed)?;
            let positive = fitted.labels().pos.class;
            let sign = if positive == second { 0.5 } else { -0.5 };
            for (class, sign) in [(second, sign), (first, -sign)] {
                weights.row_mut(class).assign(&(fitted.params() * sign));
                bias[class] = fitted.intercept() * sign;
            }
        } else {
            let solver = MultiLogisticRegression::default()
                .alpha(1.0 / strength)
                .with_intercept(self.intercept)
                .max_iterations(STEPS)
                .gradient_tolerance(TOLERANCE);
            let fitted = solver.fit(&data).map_err(failed)?;
            for (place, class) in fitted.classes().iter().enumerate() {
                weights
                    .row_mut(*class)
                    .assign(&fitted.params().column(place));
                bias[*class] = fitted.intercept()[place];
            }
        }
        Ok(Linear { weights, bias })
    }
}

/// The fold of each row: each class is spread over all of them, in the order of the rows, as scikit-learn does without shuffling.
fn folds_of(labels: &[usize], classes: usize, folds: usize) -> Vec<usize> {
    let mut sorted = labels.to_vec();
    let place = |label: &usize| labels.iter().position(|other| other == label);
    let first: Vec<_> = (0..classes).map(|label| place(&label)).collect();
    sorted.sort_by_key(|label| first[*label]);
    let mut next: Vec<Vec<usize>> = vec![Vec::new(); classes];
    for fold in (0..folds).rev() {
        for label in sorted.iter().skip(fold).step_by(folds) {
            next[*label].push(fold);
        }
    }
    // The first rows of a class are in the first fold.
    let take = |label: &usize| next[*label].pop().unwrap_or(0);
    labels.iter().map(take).collect()
}

#[cfg(test)]
mod tests;

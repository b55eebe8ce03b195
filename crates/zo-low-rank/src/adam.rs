//! Adam in the subspace: SubZero+.

use derive_setters::Setters;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use zo_core::{
    Basis, Buffers, Change, ConfigError, Needs, RecordError, TensorInfo, UpdateContext, UpdateRule,
    ZoError,
};

use crate::state::{Moments, State};

/// SubZero+'s Adam, on the coordinates of the estimate in the subspace that the noise holds.
///
/// ```text
/// m <- beta_1 m + (1 - beta_1) C,   v <- beta_2 v + (1 - beta_2) C^2        C the estimate's coordinates, r x r
/// S = m / (1 - beta_1^t) / (sqrt(v / (1 - beta_2^t)) + epsilon)
/// theta <- theta - lr sqrt(m n) / r U S V^T
/// ```
///
/// A refresh begins anew with moments of 0, where noise is of low rank: those of another subspace say nothing about this one. f32, in host
/// memory: `2 r r` numbers a matrix with SubZero's noise, `2 m r` with LOZO's, and twice what a dense tensor has.
///
/// The learning rate is the length of a step in each weight, as Adam's is, the same for dense tensors. SubZero+'s paper (arXiv 2608.15665)
/// goes along `U S V^T`: its learning rates are `sqrt(m n) / r` times as large.
#[derive(Debug, Clone, Setters, Serialize, Deserialize)]
#[setters(prefix = "with_")]
pub struct SubspaceAdam {
    /// The share of the first moment that is kept per step. Default 0.9.
    pub beta_1: f64,
    /// The share of the second moment that is kept per step. Default 0.95.
    pub beta_2: f64,
    /// Keeps the quotient finite, in units of coordinates of the gradient. Default 1e-8.
    pub adam_epsilon: f64,
    #[serde(skip)]
    #[setters(skip)]
    state: State<2>,
}

impl Default for SubspaceAdam {
    fn default() -> Self {
        Self {
            beta_1: 0.9,
            beta_2: 0.95,
            adam_epsilon: 1e-8,
            state: State::default(),
        }
    }
}

impl SubspaceAdam {
    /// The paper's.
    pub fn new() -> Self {
        Self::default()
    }

    fn moved(
        &self,
        tensor: &TensorInfo,
        old: Option<&Moments<2>>,
        basis: &Basis,
        estimate: &[f32],
    ) -> (Moments<2>, Vec<f32>) {
        let goes_on = |old: &&Moments<2>| old.basis == *basis || !basis.is_low_rank(&tensor.shape);
        let old = old.filter(goes_on);
        let steps = old.map_or(0, |old| old.steps).saturating_add(1);
        let moment = |place: usize, beta: f64, f: fn(f32) -> f32| -> Vec<f32> {
            let (kept, share) = (beta as f32, (1.0 - beta) as f32);
            let new = estimate.iter().map(|c| share * f(*c));
            match old {
                None => new.collect(),
                Some(old) => {
                    let old = old.values[place].iter();
                    old.zip(new).map(|(old, new)| kept * old + new).collect()
                }
            }
        };
        let first = moment(0, self.beta_1, |c| c);
        let second = moment(1, self.beta_2, |c| c * c);
        let powers = |beta: f64| 1.0 - beta.powi(i32::try_from(steps).unwrap_or(i32::MAX));
        let unbias = [self.beta_1, self.beta_2].map(|beta| powers(beta) as f32);
        let epsilon = self.adam_epsilon as f32;
        let step = first.iter().zip(&second).map(|(m, v)| {
            let deviation = (v / unbias[1]).sqrt();
            (m / unbias[0]) / (deviation + epsilon)
        });
        let step = step.collect();
        let moments = Moments {
            basis: basis.clone(),
            steps,
            values: [first.into(), second.into()],
        };
        (moments, step)
    }
}

const NAMES: [&str; 2] = ["m.", "v."];

impl UpdateRule for SubspaceAdam {
    fn update(&mut self, step: &mut UpdateContext<'_>) -> Result<Change<'_>, ZoError> {
        let mut state = std::mem::take(&mut self.state);
        let change = state.step(step, |tensor, old, basis, c| {
            self.moved(tensor, old, basis, &c)
        });
        self.state = state;
        change
    }

    fn check(&self, tensors: &[TensorInfo]) -> Result<(), ZoError> {
        self.state.check(tensors)
    }

    fn needs(&self) -> Needs {
        Needs {
            basis: true,
            ..Needs::default()
        }
    }

    fn validate(&self) -> Result<(), ConfigError> {
        for (name, beta) in [("beta_1", self.beta_1), ("beta_2", self.beta_2)] {
            ConfigError::check(name, beta, (0.0..1.0).contains(&beta), "from 0 to below 1")?;
        }
        let (epsilon, largest) = (self.adam_epsilon, f64::from(f32::MAX));
        let valid = epsilon >= f64::from(f32::MIN_POSITIVE) && epsilon <= largest;
        let expected = "positive, and a number that f32 can hold";
        ConfigError::check("adam_epsilon", epsilon, valid, expected)
    }

    fn record(&self) -> Value {
        self.state.record()
    }

    fn buffers(&self) -> Buffers {
        self.state.buffers(NAMES)
    }

    fn load_record(&mut self, record: Value, buffers: Buffers) -> Result<(), RecordError> {
        self.state = State::load(record, buffers, NAMES)?;
        Ok(())
    }
}

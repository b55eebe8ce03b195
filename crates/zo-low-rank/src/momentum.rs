//! Momentum in the subspace: LOZO-M.

use derive_setters::Setters;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use zo_core::{
    Basis, Buffers, Change, ConfigError, Needs, RecordError, TensorInfo, UpdateContext, UpdateRule,
    ZoError,
};

use crate::state::{Moments, State};

/// LOZO-M's momentum, in the coordinates of the subspace that the noise holds.
///
/// ```text
/// N <- beta N + (1 - beta) C         C the estimate's coordinates; N = C in the first step
/// theta <- theta - lr N R
/// ```
///
/// At a refresh N is carried over into the new subspace, `N <- N R_old R_new^T / n` (for SubZero's noise from both sides). f32, in host memory:
/// `m r` numbers a matrix with LOZO's noise, `r r` with SubZero's, and what a dense tensor has. Where a mask leaves tensors out of a step,
/// their momentum waits.
///
/// Chen et al. 2025 (arXiv 2410.07698), LOZO-M.
#[derive(Debug, Clone, Setters, Serialize, Deserialize)]
#[setters(prefix = "with_")]
pub struct SubspaceMomentum {
    /// The share of the momentum that is kept per step. Default 0.9.
    pub beta: f64,
    #[serde(skip)]
    #[setters(skip)]
    state: State<1>,
}

impl Default for SubspaceMomentum {
    fn default() -> Self {
        Self {
            beta: 0.9,
            state: State::default(),
        }
    }
}

impl SubspaceMomentum {
    /// The paper's.
    pub fn new() -> Self {
        Self::default()
    }

    fn moved(
        &self,
        tensor: &TensorInfo,
        old: Option<&Moments<1>>,
        basis: &Basis,
        estimate: Vec<f32>,
    ) -> (Moments<1>, Vec<f32>) {
        let (beta, share) = (self.beta as f32, (1.0 - self.beta) as f32);
        let momentum = match old {
            None => estimate,
            Some(old) => {
                let [values] = &old.values;
                let carried = match old.basis == *basis {
                    true => values.to_vec(),
                    false => basis.project(&old.basis, tensor.key, &tensor.shape, values),
                };
                let pairs = carried.iter().zip(&estimate);
                pairs.map(|(n, c)| beta * n + share * c).collect()
            }
        };
        let moments = Moments {
            basis: basis.clone(),
            steps: old.map_or(0, |old| old.steps).saturating_add(1),
            values: [momentum.as_slice().into()],
        };
        (moments, momentum)
    }
}

const NAMES: [&str; 1] = [""];

impl UpdateRule for SubspaceMomentum {
    fn update(&mut self, step: &mut UpdateContext<'_>) -> Result<Change<'_>, ZoError> {
        let mut state = std::mem::take(&mut self.state);
        let change = state.step(step, |tensor, old, basis, c| {
            self.moved(tensor, old, basis, c)
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
        let valid = (0.0..1.0).contains(&self.beta);
        ConfigError::check("beta", self.beta, valid, "from 0 to below 1")
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

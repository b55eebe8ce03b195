//! What moves in a step: tensors, and elements of them.

use serde::{Deserialize, Serialize};

use crate::error::{ConfigError, ZoError};
use crate::tensors::TensorInfo;

/// Which elements of a tensor move. Never stored: each pass works them out anew.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Elements {
    /// All of them.
    #[default]
    All,
    /// Each with probability `keep`, independently; a function of `seed`, the tensor's path and the element's index.
    Random {
        /// The seed of the choice.
        seed: u64,
        /// The probability of moving, in (0, 1].
        keep: f64,
    },
    /// Those with `|theta_i| <= threshold`, theta being the unperturbed weights.
    Small {
        /// The largest magnitude that moves.
        threshold: f64,
    },
    /// Those with `|theta_i| > threshold`.
    Large {
        /// The largest magnitude that does not move.
        threshold: f64,
    },
}

impl Elements {
    /// Whether the choice depends on the weights, so that it cannot be repeated once they have changed.
    pub(crate) fn depends_on_weights(&self) -> bool {
        matches!(self, Self::Small { .. } | Self::Large { .. })
    }
}

/// How a chosen tensor takes part.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Choice {
    /// The factor on its update. Other than 1 it corrects for the probability of being chosen (Horvitz and Thompson 1952); the
    /// perturbation itself is never scaled.
    pub scale: f64,
    /// Which of its elements move.
    pub elements: Elements,
}

impl Choice {
    /// All elements, with factor 1.
    pub const WHOLE: Self = Self::scaled(1.0);

    /// All elements, with this factor on the update.
    pub const fn scaled(scale: f64) -> Self {
        let elements = Elements::All;
        Self { scale, elements }
    }

    /// Some elements, with factor 1.
    pub const fn some(elements: Elements) -> Self {
        let scale = 1.0;
        Self { scale, elements }
    }
}

/// A mask's choice: one entry for each tensor, `None` if it is not touched at all.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Selection(pub Vec<Option<Choice>>);

impl Selection {
    /// Every tensor as a whole.
    pub fn all(tensors: usize) -> Self {
        Self(vec![Some(Choice::WHOLE); tensors])
    }

    /// What `choose` says about each tensor.
    pub fn of(tensors: &[TensorInfo], choose: impl FnMut(&TensorInfo) -> Option<Choice>) -> Self {
        Self(tensors.iter().map(choose).collect())
    }

    /// How tensor number `tensor` takes part, if it does.
    pub fn get(&self, tensor: usize) -> Option<&Choice> {
        self.0.get(tensor)?.as_ref()
    }

    /// Whether some of its elements are chosen by magnitude.
    pub(crate) fn depends_on_weights(&self) -> bool {
        let mut choices = self.0.iter().flatten();
        choices.any(|choice| choice.elements.depends_on_weights())
    }

    /// Checks a mask's answer.
    ///
    /// # Errors
    /// If there is not exactly one entry per tensor, or a number in them makes no sense.
    pub(crate) fn check(&self, tensors: &[TensorInfo]) -> Result<(), ZoError> {
        let bad = |reason: String| {
            Err(ConfigError::incompatible("the mask and this module", reason).into())
        };
        if self.0.len() != tensors.len() {
            return bad(format!(
                "its selection has {} entries and the module {} float parameters: return one entry per parameter",
                self.0.len(),
                tensors.len()
            ));
        }
        for (choice, tensor) in self.0.iter().zip(tensors) {
            let Some(choice) = choice else { continue };
            let fits = match choice.elements {
                Elements::All => true,
                Elements::Random { keep, .. } => keep > 0.0 && keep <= 1.0,
                Elements::Small { threshold } | Elements::Large { threshold } => {
                    !threshold.is_nan()
                }
            };
            if !choice.scale.is_finite() || !fits {
                return bad(format!(
                    "its choice for `{}` is {choice:?}: a scale must be finite, `keep` above 0 and at most 1, and a threshold a number",
                    tensor.path
                ));
            }
        }
        Ok(())
    }

    /// The same tensors and elements with factor 1: what is perturbed.
    #[must_use]
    pub(crate) fn unscaled(&self) -> Self {
        let one = |choice: &Option<Choice>| choice.map(|choice| Choice::some(choice.elements));
        Self(self.0.iter().map(one).collect())
    }
}

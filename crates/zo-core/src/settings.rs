//! The settings every method shares.

use burn::module::ParamGroup;
use serde::{Deserialize, Serialize};

use crate::difference::Difference;
use crate::error::ConfigError;
use crate::on_the_fly::Perturbation;
use crate::seeds::Seeds;
use crate::tensors::TensorInfo;

/// What to do when the objective returns NaN or an infinity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NonFinite {
    /// The step fails and gives the module back.
    #[default]
    Error,
    /// The step leaves the weights as they were and says so in its report.
    Skip,
}

/// How updated weights are rounded to their dtype. Displaced weights are always rounded to nearest, because they have to come back.
///
/// It matters for bf16 and f16. f32 and f64 weights are computed in their own precision, which leaves nothing to round.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rounding {
    /// To the nearest, ties to even: an update of less than half the distance to the next float is lost, and lost again in every step.
    #[default]
    Nearest,
    /// Up or down at random, so that the mean is the exact result (in f32): one that lies a hundredth of the way to the next float goes
    /// there in one step out of a hundred. The bits are [`rounding_bits`](crate::noise::rounding_bits), with a seed of its own for each
    /// update. Not available to update rules that keep buffers.
    Stochastic,
}

impl std::fmt::Display for Rounding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Nearest => "nearest",
            Self::Stochastic => "stochastic",
        })
    }
}

impl std::str::FromStr for Rounding {
    type Err = ConfigError;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        match name {
            "nearest" => Ok(Self::Nearest),
            "stochastic" => Ok(Self::Stochastic),
            other => {
                let known = ["nearest", "stochastic"];
                Err(ConfigError::unknown("rounding", other, known))
            }
        }
    }
}

/// The settings every zeroth-order method shares.
///
/// In JSON and TOML all have defaults. Which parameters train, and which decay in groups, is not among them: groups can name ids, which are
/// new in every process.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Settings {
    /// The perturbation radius, in units of weights.
    pub(crate) epsilon: f64,
    /// Random directions per step (q of n-SPSA); the estimate is their mean.
    pub(crate) queries: usize,
    /// How losses become a derivative.
    pub(crate) difference: Difference,
    /// The seed all noise of the run derives from.
    pub(crate) seed: u64,
    /// Which parameters train.
    #[serde(skip, default = "ParamGroup::all")]
    pub(crate) trainable: ParamGroup,
    /// Weight decay of parameters that no group of `weight_decay_groups` matches.
    pub(crate) weight_decay: f64,
    /// Weight decay by group; the first match counts.
    #[serde(skip)]
    pub(crate) weight_decay_groups: Vec<(ParamGroup, f64)>,
    /// What to do about a loss that is not finite.
    pub(crate) non_finite: NonFinite,
    /// How updated weights are rounded to their dtype.
    pub(crate) rounding: Rounding,
    /// How weights are displaced for an evaluation.
    pub(crate) perturbation: Perturbation,
}

impl Default for Settings {
    /// MeZO's: epsilon 1e-3, one query, central difference, no weight decay, all parameters, seed 0, rounding to nearest, in place.
    fn default() -> Self {
        Self {
            epsilon: 1e-3,
            queries: 1,
            difference: Difference::Central,
            seed: 0,
            trainable: ParamGroup::all(),
            weight_decay: 0.0,
            weight_decay_groups: Vec::new(),
            non_finite: NonFinite::Error,
            rounding: Rounding::Nearest,
            perturbation: Perturbation::InPlace,
        }
    }
}

impl Settings {
    /// Checks every value.
    ///
    /// # Errors
    /// Names the first value that makes no sense.
    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        let (epsilon, queries) = (self.epsilon, self.queries);
        let valid = epsilon > 0.0 && epsilon.is_finite();
        let expected = "positive and finite (MeZO uses 1e-3 for full fine-tuning)";
        ConfigError::check("epsilon", epsilon, valid, expected)?;
        let expected = "at least 1: a step needs a random direction";
        ConfigError::check("queries", queries, queries > 0, expected)?;
        match self.decays().find(|d| !(*d >= 0.0 && d.is_finite())) {
            None => Ok(()),
            Some(bad) => {
                let expected = "finite and not negative (0 switches it off)";
                Err(ConfigError::setting("weight_decay", bad, expected))
            }
        }
    }

    /// The weight decay of each group, and that of the rest.
    pub(crate) fn decays(&self) -> impl Iterator<Item = f64> {
        let grouped = self.weight_decay_groups.iter().map(|(_, decay)| *decay);
        grouped.chain([self.weight_decay])
    }

    /// The seed of the stochastic rounding of update number `update` of step `step`, if it is rounded that way.
    pub(crate) fn rounding_seed(&self, step: u64, update: usize) -> Option<u64> {
        let stochastic = self.rounding == Rounding::Stochastic;
        stochastic.then(|| Seeds::for_rounding(self.seed, step, update))
    }

    /// The weight decay of a parameter.
    pub(crate) fn weight_decay_of(&self, tensor: &TensorInfo) -> f64 {
        self.weight_decay_groups
            .iter()
            .find(|(group, _)| group.matches(&tensor.id, Some(&tensor.path)))
            .map_or(self.weight_decay, |(_, decay)| *decay)
    }
}

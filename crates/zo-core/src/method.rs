//! Methods as values: settings, noise, and three parts.

use std::fmt;

use burn::module::ParamGroup;
use serde::{Deserialize, Serialize};

use crate::difference::Difference;
use crate::error::ConfigError;
use crate::mask::{self, Dense, SparsityMask};
use crate::noise::Noise;
use crate::on_the_fly::Perturbation;
use crate::part::{Needs, PartConfig};
use crate::sampler::{self, PerturbationSampler};
use crate::settings::{NonFinite, Rounding, Settings};
use crate::update::{self, Sgd, UpdateRule};

/// A zeroth-order method: the settings all methods share, its noise, and its sampler, mask and update rule.
///
/// The papers' methods are functions that give one of these: `mezo()`, `lezo()`, and so on. Parts combine freely, but for what
/// `init` refuses with the reason.
///
/// ```
/// use zo_core::{Method, Noise};
///
/// # fn main() -> Result<(), zo_core::ConfigError> {
/// let optim = Method::new().with_noise(Noise::Rademacher).with_epsilon(1e-2).with_seed(3).init()?;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Method {
    /// What all methods share.
    pub settings: Settings,
    /// What draws fresh directions. Default [`Noise::Gaussian`].
    pub noise: Box<dyn PerturbationSampler>,
    /// What decides among several of them. Default none: each query takes a fresh one.
    pub sampler: Option<Box<dyn PerturbationSampler>>,
    /// What moves. Default [`Dense`].
    pub mask: Box<dyn SparsityMask>,
    /// How the estimate changes the weights. Default [`Sgd`].
    pub update: Box<dyn UpdateRule>,
}

/// MeZO.
impl Default for Method {
    fn default() -> Self {
        Self::from(Settings::default())
    }
}

/// MeZO with these settings.
impl From<Settings> for Method {
    fn from(settings: Settings) -> Self {
        Self {
            settings,
            noise: Box::new(Noise::Gaussian),
            sampler: None,
            mask: Box::new(Dense),
            update: Box::new(Sgd),
        }
    }
}

impl fmt::Debug for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.config().fmt(f)
    }
}

/// Setters of [`Settings`].
macro_rules! settings {
    ($($(#[$attribute:meta])* $setter:ident: $field:ident, $type:ty;)*) => {
        $($(#[$attribute])*
        #[must_use]
        pub fn $setter(mut self, $field: $type) -> Self {
            self.settings.$field = $field;
            self
        })*
    };
}

impl Method {
    /// MeZO: fresh Gaussian noise on all tensors, SGD.
    pub fn new() -> Self {
        Self::default()
    }

    settings! {
        /// The perturbation radius, in units of weights. Default 1e-3.
        with_epsilon: epsilon, f64;
        /// Random directions per step; the estimate is their mean. Default 1.
        with_queries: queries, usize;
        /// How losses become a derivative. Default central.
        with_difference: difference, Difference;
        /// The seed of the run. Default 0.
        with_seed: seed, u64;
        /// Which parameters train. Default all.
        with_trainable: trainable, ParamGroup;
        /// Weight decay, applied as `lr * weight_decay * theta`. Default 0.
        with_weight_decay: weight_decay, f64;
        /// Weight decay of parameter groups, in place of `weight_decay`; the first match counts. Default none.
        with_weight_decay_groups: weight_decay_groups, Vec<(ParamGroup, f64)>;
        /// What to do about a loss that is not finite. Default an error.
        with_non_finite: non_finite, NonFinite;
        /// How updated weights are rounded to their dtype: it matters for bf16 and f16. Default to nearest.
        with_rounding: rounding, Rounding;
        /// How weights are displaced for an evaluation. Default in place.
        with_perturbation: perturbation, Perturbation;
    }

    /// What draws fresh directions.
    #[must_use]
    pub fn with_noise(self, noise: impl PerturbationSampler + 'static) -> Self {
        let noise = Box::new(noise);
        Self { noise, ..self }
    }

    /// What decides among several fresh directions.
    #[must_use]
    pub fn with_sampler(self, sampler: impl PerturbationSampler + 'static) -> Self {
        let sampler: Option<Box<dyn PerturbationSampler>> = Some(Box::new(sampler));
        Self { sampler, ..self }
    }

    /// What moves.
    #[must_use]
    pub fn with_mask(self, mask: impl SparsityMask + 'static) -> Self {
        let mask = Box::new(mask);
        Self { mask, ..self }
    }

    /// How the estimate changes the weights.
    #[must_use]
    pub fn with_update(self, update: impl UpdateRule + 'static) -> Self {
        let update = Box::new(update);
        Self { update, ..self }
    }

    /// Checks every setting, and whether the parts go together.
    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        self.settings.validate()?;
        self.noise.validate()?;
        self.sampler.iter().try_for_each(|s| s.validate())?;
        self.mask.validate()?;
        self.update.validate()?;
        let needs = [self.mask.needs(), self.update.needs()];
        let stochastic = self.settings.rounding == Rounding::Stochastic;
        match refusal(needs, stochastic) {
            None => Ok(()),
            Some((parts, reason)) => Err(ConfigError::Incompatible { parts, reason }),
        }
    }

    /// Evaluations of the objective in a step; with a mask of several rounds, in each of them.
    pub fn forwards(&self) -> usize {
        let candidates = self
            .sampler
            .as_ref()
            .map_or(0, |sampler| sampler.forwards());
        let queries = self.settings.queries;
        let drawn = queries * (candidates + self.noise.forwards());
        drawn + self.settings.difference.forwards(queries) + self.update.forwards()
    }

    /// The whole configuration, defaults included.
    pub fn config(&self) -> MethodConfig {
        MethodConfig {
            settings: self.settings.clone(),
            noise: sampler::config_of(&*self.noise),
            sampler: (self.sampler.as_ref()).map(|sampler| sampler::config_of(&**sampler)),
            mask: mask::config_of(&*self.mask),
            update: update::config_of(&*self.update),
        }
    }
}

/// What does not go together, and why.
fn refusal([mask, update]: [Needs; 2], stochastic: bool) -> Option<(&'static str, &'static str)> {
    let table = [
        (
            update.past_estimates && mask.magnitudes,
            "an update rule that rebuilds past estimates, and a mask by magnitude",
            "the weights that chose the elements of past steps are gone; use the form with buffers",
        ),
        (
            mask.magnitudes && mask.updates_each_round,
            "a mask by magnitude, and one that updates after each round",
            "a step that fails in a later round could not find the elements of earlier ones again",
        ),
        (
            update.buffers && mask.updates_each_round,
            "an update rule that keeps buffers, and a mask that updates after each round",
            "a step that fails in a later round could not take the buffers back; use the form with a window",
        ),
        (
            update.buffers && stochastic,
            "an update rule that keeps buffers, and stochastic rounding",
            "such a rule computes whole tensors, which are rounded to nearest; use the form with a window, or `Rounding::Nearest`",
        ),
    ];
    let found = table.into_iter().find(|(refused, ..)| *refused);
    found.map(|(_, parts, reason)| (parts, reason))
}

/// A [`Method`] by names and numbers: what records and reports hold, and what a [`Registry`](crate::Registry) builds methods from.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct MethodConfig {
    /// What all methods share. (Which parameters train, and decay in groups, is a matter of code: see [`Settings`].)
    #[serde(flatten)]
    pub settings: Settings,
    /// What draws fresh directions.
    pub noise: PartConfig,
    /// What decides among several of them, if anything.
    pub sampler: Option<PartConfig>,
    /// What moves.
    pub mask: PartConfig,
    /// How the estimate changes the weights.
    pub update: PartConfig,
}

//! Methods as values: settings, noise, and three parts.

use std::fmt;

use burn::module::ParamGroup;
use serde::Serialize;
use serde_json::Value;

use crate::coefficients::{self, CoefficientRule, Mean};
use crate::difference::Difference;
use crate::error::ConfigError;
use crate::mask::{self, Dense, SparsityMask};
use crate::noise::Noise;
use crate::on_the_fly::Perturbation;
use crate::part::{Needs, PartConfig};
use crate::sampler::{self, PerturbationSampler};
use crate::settings::{NonFinite, Rounding, Settings};
use crate::update::{self, Sgd, UpdateRule};

/// A zeroth-order method: the settings all methods share, its noise, and its sampler, mask, coefficient rule and update rule.
///
/// The papers' methods are functions that return one of these: `mezo()`, `lezo()`, and so on. Parts combine freely, except for
/// what `init` refuses, with the reason.
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
    pub(crate) settings: Settings,
    /// What draws fresh directions. Default [`Noise::Gaussian`].
    pub(crate) noise: Box<dyn PerturbationSampler>,
    /// What decides among several of them. Default none: each query takes a fresh one.
    pub(crate) sampler: Option<Box<dyn PerturbationSampler>>,
    /// What moves. Default [`Dense`].
    pub(crate) mask: Box<dyn SparsityMask>,
    /// How losses become coefficients. Default [`Mean`].
    pub(crate) coefficients: Box<dyn CoefficientRule>,
    /// How the estimate changes the weights. Default [`Sgd`].
    pub(crate) update: Box<dyn UpdateRule>,
}

/// MeZO.
impl Default for Method {
    fn default() -> Self {
        Self {
            settings: Settings::default(),
            noise: Box::new(Noise::Gaussian),
            sampler: None,
            mask: Box::new(Dense),
            coefficients: Box::new(Mean),
            update: Box::new(Sgd),
        }
    }
}

impl fmt::Debug for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.resolved().fmt(f)
    }
}

/// Setters of `Settings`.
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
    #[cfg(test)]
    pub(crate) fn of(settings: Settings) -> Self {
        let method = Self::default();
        Self { settings, ..method }
    }

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

    /// How the losses of a step become the coefficients of its directions.
    #[must_use]
    pub fn with_coefficients(self, rule: impl CoefficientRule + 'static) -> Self {
        let coefficients = Box::new(rule);
        Self {
            coefficients,
            ..self
        }
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
        let Settings {
            difference,
            queries,
            ..
        } = self.settings;
        self.coefficients.validate(difference, queries)?;
        self.update.validate()?;
        let needs = [self.noise.needs(), self.mask.needs(), self.update.needs()];
        if needs[0].curvature && difference != Difference::Central {
            return Err(ConfigError::incompatible(
                "a noise that is scaled by the curvature, and a difference that is not central",
                "the curvature along a direction takes the losses on both sides and between them",
            ));
        }
        let stochastic = self.settings.rounding == Rounding::Stochastic;
        match refusal(needs, stochastic, self.noise.holds_basis()) {
            None => Ok(()),
            Some((parts, reason)) => Err(ConfigError::incompatible(parts, reason)),
        }
    }

    /// The sampler, mask, coefficient rule and update rule of another method, with these settings and this noise.
    #[doc(hidden)]
    #[must_use]
    pub fn with_parts_of(self, other: &Self) -> Self {
        Self {
            sampler: other.sampler.clone(),
            mask: other.mask.clone(),
            coefficients: other.coefficients.clone(),
            update: other.update.clone(),
            ..self
        }
    }

    /// Evaluations of the objective in a step; with a mask of several rounds, in each of them.
    pub fn forwards(&self) -> usize {
        let candidates = self
            .sampler
            .as_ref()
            .map_or(0, |sampler| sampler.forwards());
        let queries = self.settings.queries;
        let drawn = queries * (candidates + self.noise.forwards()) + self.noise.forwards_in_step();
        let measured = self.settings.difference.forwards(queries);
        drawn + measured + self.coefficients.forwards() + self.update.forwards()
    }

    /// Whether the learning rate is the length of a step in each weight, whatever the scale of the loss, and how many directions share it.
    #[doc(hidden)]
    pub fn scale_free(&self) -> Option<usize> {
        let free = self.coefficients.is_scale_free();
        free.then_some(self.settings.queries)
    }

    /// Which parameters train.
    #[doc(hidden)]
    pub fn trainable(&self) -> &ParamGroup {
        &self.settings.trainable
    }

    /// What is done about a loss that is not finite.
    #[doc(hidden)]
    pub fn non_finite(&self) -> NonFinite {
        self.settings.non_finite
    }

    /// The method by names and numbers, defaults included: what records and reports hold, and what a [`Registry`](crate::Registry) builds
    /// the same method from. (Which parameters train, and which decay in groups, is a matter of code.)
    pub fn config(&self) -> Value {
        serde_json::to_value(self.resolved()).unwrap_or_default()
    }

    pub(crate) fn resolved(&self) -> MethodConfig {
        MethodConfig {
            settings: self.settings.clone(),
            noise: sampler::config_of(&*self.noise),
            sampler: (self.sampler.as_ref()).map(|sampler| sampler::config_of(&**sampler)),
            mask: mask::config_of(&*self.mask),
            coefficients: coefficients::config_of(&*self.coefficients),
            update: update::config_of(&*self.update),
        }
    }
}

/// What does not go together, and why.
fn refusal(
    [noise, mask, update]: [Needs; 3],
    stochastic: bool,
    holds_basis: bool,
) -> Option<(&'static str, &'static str)> {
    let table = [
        (
            update.basis && !holds_basis,
            "an update rule that works in a subspace, and a noise that holds none",
            "there are no coordinates to keep its state in; use a noise of low rank (lozo, subzero), or the rule for whole tensors",
        ),
        (
            update.basis && mask.elements,
            "an update rule that works in a subspace, and a mask that chooses elements",
            "what is left of a direction on some elements lies in no subspace; use a mask that chooses whole tensors",
        ),
        (
            noise.curvature && mask.elements,
            "a noise that is scaled by the curvature, and a mask that chooses elements",
            "the curvature would be learned of elements that did not move; use a mask that chooses whole tensors",
        ),
        (
            noise.buffers && update.past_estimates,
            "a noise that keeps buffers, and an update rule that rebuilds past estimates",
            "the buffers that scaled past directions are gone; use the noise with a window, or the rule with buffers",
        ),
        (
            update.past_estimates && mask.magnitudes,
            "an update rule that rebuilds past estimates, and a mask by magnitude",
            "the weights that chose the elements of past steps are gone; use the form with buffers",
        ),
        (
            mask.magnitudes && mask.updates_each_round,
            "a mask by magnitude, and one that updates after each round",
            "a step that fails in a later round could not find the elements of earlier rounds again",
        ),
        (
            update.buffers && mask.updates_each_round,
            "an update rule that keeps buffers, and a mask that updates after each round",
            "a step that fails in a later round could not restore the buffers; use the form with a window",
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

/// A [`Method`] by names and numbers.
#[derive(Debug, Serialize)]
pub(crate) struct MethodConfig {
    #[serde(flatten)]
    settings: Settings,
    pub(crate) noise: PartConfig,
    pub(crate) sampler: Option<PartConfig>,
    pub(crate) mask: PartConfig,
    pub(crate) coefficients: PartConfig,
    pub(crate) update: PartConfig,
}

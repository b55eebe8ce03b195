//! CurvZO: tensors sampled by their curvature.
//!
//! Wang, Chen, Tang 2026 (arXiv 2603.21725), in its block-wise form: one score per tensor.
//!
//! ```text
//! pi_i = min(1, c sqrt(s_i)),  c such that sum_i pi_i = budget
//! b_i ~ Bernoulli(pi_i) independently; z' = z on the tensors with b_i = 1
//! g = (L(theta + eps z') - L(theta - eps z')) / (2 eps)                     2 forwards
//! theta_i <- theta_i - lr g z_i / pi_i                  (Horvitz-Thompson: unbiased to O(eps^2))
//! s_i <- (1 - beta) s_i + beta (g / rms(g))^2 mean(z_i^2)  for the tensors with b_i = 1
//! ```
//!
//! See [`CurvatureSampling`] for the details, and for where this follows the paper rather than a known port of its code.

mod scores;

use std::collections::BTreeMap;

use derive_setters::Setters;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use zo_core::{
    Choice, ConfigError, Method, Observation, Preset, RecordError, Registry, SelectContext,
    Selection, SparsityMask, TensorInfo, ZoError, from_record,
};

use crate::scores::{inclusion_probabilities, target_share};

/// CurvZO: fresh noise on tensors sampled by curvature, SGD.
pub fn curvzo() -> Method {
    Method::new().with_mask(CurvatureSampling::new())
}

/// Adds this crate's method and mask.
pub fn register(registry: Registry) -> Registry {
    registry
        .with_mask::<CurvatureSampling>("tensors sampled by their curvature")
        .with_preset(Preset {
            name: "curvzo",
            about: "tensors sampled by their curvature",
            method: curvzo,
            lr_factor: 2.0,
        })
}

/// Samples tensors with probability proportional to the root of their curvature score.
///
/// - If no tensor enters, the likeliest one does; its probability of entering includes that case.
/// - A score estimates the Fisher diagonal of its tensor, the mean over its elements: `g^2 z^2` has expectation `|grad|^2 + 2 grad_i^2`. It
///   is averaged over the steps its tensor took part in; tensors that sit out keep theirs.
/// - Only ratios of scores matter, and `g` shrinks as training goes on: `g` is measured in units of its own root mean square, and scores
///   begin at 1, the value of a tensor like all the others. (A port begins at 0.01, samples with `s` instead of `sqrt(s)`, and does not divide
///   by the number of elements, so that it favours large tensors.)
/// - The mean of `z_i^2` is exact for tensors of up to 4096 elements and for Rademacher noise, else its expectation, 1: see
///   [`Direction::mean_square`](zo_core::Direction::mean_square).
/// - Every `adapt_every` steps the budget moves by a tenth of the way to `0.1 + 0.7 (0.7 d_eff / n + 0.3 (1 - H))`, within 0.1 and 0.8 of the
///   n tensors: `d_eff = (sum sqrt s)^2 / sum s` is the effective support and `H` the entropy of the scores over its largest value. A budget
///   of 1 is not adapted.
///
/// The state is one number per tensor, saved with the optimizer.
#[derive(Debug, Clone, Setters, Serialize, Deserialize)]
#[setters(prefix = "with_")]
pub struct CurvatureSampling {
    /// The initial budget, as a share of the tensors that train; 1 is MeZO. Default 0.4.
    pub budget: f64,
    /// Steps between adaptations of the budget; 0 keeps it as it is. Default 20.
    pub adapt_every: usize,
    /// The rate beta of the moving averages. Default 0.1.
    pub rate: f64,
    /// The largest factor on an update, in place of `1 / pi` where that is larger: it tames spikes at the price of a bias. Default none.
    pub clip: Option<f64>,
    #[serde(skip)]
    #[setters(skip)]
    state: State,
}

impl Default for CurvatureSampling {
    fn default() -> Self {
        Self {
            budget: 0.4,
            adapt_every: 20,
            rate: 0.1,
            clip: None,
            state: State::default(),
        }
    }
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct State {
    /// The current budget, if it was adapted.
    budget: Option<f64>,
    /// Moving average of g^2.
    mean_square: Option<f64>,
    steps: usize,
    /// By module path.
    scores: BTreeMap<String, f64>,
}

impl CurvatureSampling {
    /// With the defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// The current budget, as a share of the tensors that train.
    pub fn adapted_budget(&self) -> f64 {
        self.state.budget.unwrap_or(self.budget)
    }

    /// The score of the tensor at this module path; 1 if it never took part.
    pub fn score(&self, path: &str) -> f64 {
        self.state.scores.get(path).copied().unwrap_or(1.0)
    }

    fn scores(&self, tensors: &[TensorInfo]) -> Vec<f64> {
        let trainable = tensors.iter().filter(|tensor| tensor.trainable);
        trainable.map(|tensor| self.score(&tensor.path)).collect()
    }
}

impl SparsityMask for CurvatureSampling {
    fn select(&mut self, step: &mut SelectContext<'_>) -> Result<Selection, ZoError> {
        let (tensors, budget) = (step.tensors(), self.adapted_budget());
        if budget == 1.0 {
            return Ok(Selection::all(tensors.len()));
        }
        let scores = self.scores(tensors);
        let pi = inclusion_probabilities(&scores, budget * scores.len() as f64);
        let mut enters: Vec<bool> = pi.iter().map(|pi| step.uniform() < *pi).collect();
        let likeliest = (0..pi.len()).max_by(|a, b| pi[*a].total_cmp(&pi[*b]));
        let likeliest = likeliest.unwrap_or(0);
        let nobody: f64 = pi.iter().map(|pi| 1.0 - pi).product();
        if !enters.contains(&true) {
            enters[likeliest] = true;
        }
        let mut next = 0;
        let choose = |tensor: &TensorInfo| {
            if !tensor.trainable {
                return None;
            }
            let i = next;
            next += 1;
            let pi = if i == likeliest {
                pi[i] + nobody
            } else {
                pi[i]
            };
            let scale = (1.0 / pi).min(self.clip.unwrap_or(f64::INFINITY));
            enters[i].then_some(Choice::scaled(scale))
        };
        Ok(Selection(tensors.iter().map(choose).collect()))
    }

    fn observe(&mut self, observation: &Observation<'_>) {
        let Observation {
            tensors,
            selection,
            queries,
        } = *observation;
        let beta = self.rate;
        let state = &mut self.state;
        for query in queries {
            let square = query.projected_gradient.powi(2);
            let mean = state
                .mean_square
                .map_or(square, |mean| (1.0 - beta) * mean + beta * square);
            state.mean_square = Some(mean);
            if mean == 0.0 {
                continue;
            }
            let relative = square / mean;
            for (number, tensor) in tensors.iter().enumerate() {
                if tensor.trainable && selection.get(number).is_some() {
                    let energy = query.direction.mean_square(tensor);
                    let score = state.scores.entry(tensor.path.clone()).or_insert(1.0);
                    *score = (1.0 - beta) * *score + beta * relative * energy;
                }
            }
        }
        state.steps = state.steps.saturating_add(1);
        let adapts = self.adapt_every > 0 && state.steps.is_multiple_of(self.adapt_every);
        let budget = self.adapted_budget();
        if adapts && budget < 1.0 {
            let target = target_share(&self.scores(tensors));
            self.state.budget = Some((0.9 * budget + 0.1 * target).clamp(0.1, 0.8));
        }
    }

    fn validate(&self) -> Result<(), ConfigError> {
        let share = |name, value: f64| {
            ConfigError::check(
                name,
                value,
                value > 0.0 && value <= 1.0,
                "above 0 and at most 1",
            )
        };
        share("budget", self.budget)?;
        share("rate", self.rate)?;
        let clip = self.clip.unwrap_or(1.0);
        let expected = "at least 1: no update is scaled by less";
        ConfigError::check("clip", clip, clip >= 1.0, expected)
    }

    fn record(&self) -> Value {
        serde_json::json!(self.state)
    }

    fn load_record(&mut self, record: Value) -> Result<(), RecordError> {
        let state: State = from_record("mask", record)?;
        let positive = |score: &f64| *score > 0.0 && score.is_finite();
        if !(state.budget.as_ref().is_none_or(positive) && state.scores.values().all(positive)) {
            let found = "a budget or a score that is not positive and finite";
            return Err(RecordError::mismatch(
                "mask",
                found,
                "the state of this mask",
            ));
        }
        self.state = state;
        Ok(())
    }
}

/// The README's example, as a doctest.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use burn::module::ParamId;
    use burn::tensor::{DType, Shape};

    use zo_core::Query;

    use super::*;

    fn tensors(n: usize) -> Vec<TensorInfo> {
        let tensor = |i| {
            TensorInfo::new(
                &format!("t{i}"),
                ParamId::new(),
                Shape::new([4]),
                DType::F32,
            )
        };
        (0..n).map(tensor).collect()
    }

    fn query(seed: u64, projected_gradient: f64) -> Query {
        Query {
            direction: zo_core::Direction::noise(zo_core::Noise::Rademacher, seed),
            loss_plus: 0.0,
            loss_other: 0.0,
            projected_gradient,
        }
    }

    /// Every twentieth step, by a tenth of the way to the target; a tensor that stayed out keeps its score.
    #[test]
    fn the_budget_adapts_by_a_tenth_every_twenty_steps() {
        let tensors = tensors(5);
        let mut mask = CurvatureSampling::new().with_budget(0.3);
        let selection = |step: u64| {
            let enters = |i: u64| (i != 3 && (i + step).is_multiple_of(2)).then_some(Choice::WHOLE);
            Selection((0..5).map(enters).collect())
        };
        for step in 0..40 {
            let before = mask.adapted_budget();
            let g = if step % 4 == 0 { -7.0 } else { 2.0 };
            mask.observe(&Observation {
                tensors: &tensors,
                selection: &selection(step),
                queries: &[query(step, g)],
            });
            if (step + 1) % 20 != 0 {
                assert_eq!(mask.adapted_budget(), before, "step {step}");
                continue;
            }
            let target = target_share(&mask.scores(&tensors));
            assert_eq!(mask.adapted_budget(), 0.9 * before + 0.1 * target);
            assert_ne!(mask.adapted_budget(), before);
        }
        assert_eq!(mask.score("t3"), 1.0);
        assert_ne!(mask.score("t0"), 1.0);
        let mut fixed = CurvatureSampling::new()
            .with_budget(0.3)
            .with_adapt_every(0);
        for step in 0..40 {
            fixed.observe(&Observation {
                tensors: &tensors,
                selection: &selection(step),
                queries: &[query(step, 2.0)],
            });
        }
        assert_eq!(fixed.adapted_budget(), 0.3);
    }

    #[test]
    fn states_that_make_no_sense_are_refused() {
        let mut mask = CurvatureSampling::new();
        let good = mask.record();
        for (place, value) in [("budget", -1.0), ("budget", 0.0)] {
            let mut bad = good.clone();
            bad[place] = value.into();
            assert!(mask.load_record(bad).is_err());
        }
        let mut bad = good.clone();
        bad["scores"] = serde_json::json!({ "t0": 0.0 });
        assert!(mask.load_record(bad).is_err());
        assert_eq!(mask.record(), good);
    }
}

//! MeZO-GV: the guiding vector.
//!
//! Jin, Cen, Tan 2026 (arXiv 2601.04710). Each query first ranks M candidate directions by their one-sided losses, on the step's batch:
//!
//! ```text
//! l_i = L(theta + eps z_i),  i = 1..M                                       M forwards
//! v = mean of z_i over the floor(alpha M) lowest losses - mean of z_i over the rest
//! g = (L(theta + eps v) - L(theta - eps v)) / (2 eps)                       2 forwards
//! theta <- theta - lr g v
//! ```
//!
//! M + 2 forwards and M + 3 passes per query (the last pass of a query is the first of the next). `v` is never stored: it is a
//! [`Direction`] of M seeds. It works with any noise and any mask.
//!
//! The estimate is biased on purpose: `v` leans on the gradient, so that `|cos(v, grad L)|` grows with M. At M = 2 there is no choice to
//! make: `v` is `z_1 - z_2` or its opposite, and `g v` is the same for both. The estimate is then MeZO's along a difference of two noise
//! vectors, `E[g v] = 2 grad L`; guidance begins with a one-sided difference, or with M of 4 or more.

use derive_setters::Setters;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use zo_core::{
    ConfigError, Direction, Method, PerturbationSampler, Preset, RecordError, Registry,
    SampleContext, ZoError, from_record, share_of,
};

/// MeZO-GV: a guiding vector for each query, all tensors, SGD. The paper uses learning rates of 1e-7 to 5e-7 for full fine-tuning of
/// OPT-13B, and half as many steps as MeZO at M = 2, so that the number of forwards is the same.
pub fn mezo_gv() -> Method {
    Method::new().with_sampler(GuidingVector::new())
}

/// Adds this crate's method and sampler.
pub fn register(registry: Registry) -> Registry {
    registry
        .with_sampler::<GuidingVector>("better candidates minus worse ones")
        .with_preset(Preset {
            name: "gv",
            about: "guiding vector: better candidates minus worse ones",
            method: mezo_gv,
            lr_factor: 1.0,
        })
}

/// Samples guiding vectors: see the [crate].
#[derive(Debug, Clone, Setters, Serialize, Deserialize)]
#[setters(prefix = "with_")]
pub struct GuidingVector {
    /// Candidates M per query, at least 2. Default 2 (the paper: 2 or 4).
    pub candidates: usize,
    /// The share of candidates that are averaged with a plus sign: `floor(alpha M)` of them, at least 1 and at most M - 1. Default 0.5.
    pub alpha: f64,
    /// Whether `v` is scaled to the size of one noise vector. Default no, as in the paper, where `v` is `sqrt(2)` times as long at M = 2.
    pub normalize: bool,
    /// Whether the best candidate of a query is a candidate of the next one as well, so that only M - 1 are new: the variant that the authors'
    /// trainer runs by default. Default no, as in the paper.
    pub history: bool,
    /// The best candidate so far, if it is kept.
    #[serde(skip)]
    #[setters(skip)]
    best: Option<Direction>,
}

impl Default for GuidingVector {
    fn default() -> Self {
        Self {
            candidates: 2,
            alpha: 0.5,
            normalize: false,
            history: false,
            best: None,
        }
    }
}

impl GuidingVector {
    /// The paper's.
    pub fn new() -> Self {
        Self::default()
    }

    /// Candidates with a plus sign.
    fn low(&self) -> usize {
        share_of(self.alpha.max(0.0), self.candidates)
    }
}

impl PerturbationSampler for GuidingVector {
    fn sample(&mut self, query: &mut SampleContext<'_>) -> Result<Direction, ZoError> {
        let mut kept = self.best.clone();
        let candidates = (0..self.candidates).map(|_| match kept.take() {
            Some(z) => Ok(z),
            None => query.noise(),
        });
        let candidates: Vec<Direction> = candidates.collect::<Result<_, _>>()?;
        let displaced = candidates.iter().map(|z| z.scaled(query.epsilon()));
        let losses = query.losses_at(&displaced.collect::<Vec<_>>())?;
        let mut ranked: Vec<(f64, Direction)> = losses.into_iter().zip(candidates).collect();
        // Stable: among equal losses the earlier candidate counts as lower.
        ranked.sort_by(|(a, _), (b, _)| a.total_cmp(b));
        let (low, high) = (self.low() as f64, (self.candidates - self.low()) as f64);
        let mut v = Direction::zero();
        for (rank, (_, z)) in ranked.iter().enumerate() {
            let weight = if rank < self.low() {
                1.0 / low
            } else {
                -1.0 / high
            };
            v = v.plus(weight, z);
        }
        if self.normalize {
            // Independent candidates of unit variance: each element of v has variance 1/low + 1/high.
            v = v.scaled((1.0 / low + 1.0 / high).sqrt().recip());
        }
        if self.history {
            self.best = ranked.into_iter().next().map(|(_, z)| z);
        }
        Ok(v)
    }

    fn validate(&self) -> Result<(), ConfigError> {
        let candidates = self.candidates;
        let expected = "at least 2: the guiding vector is a difference";
        ConfigError::check("candidates", candidates, candidates > 1, expected)?;
        let valid = (1..candidates).contains(&self.low());
        let expected = "such that floor(alpha candidates) is at least 1 and below candidates";
        ConfigError::check("alpha", self.alpha, valid, expected)
    }

    fn forwards(&self) -> usize {
        self.candidates
    }

    fn record(&self) -> Value {
        serde_json::json!({ "best": self.best })
    }

    fn load_record(&mut self, record: Value) -> Result<(), RecordError> {
        #[derive(Deserialize)]
        struct Saved {
            best: Option<Direction>,
        }
        self.best = from_record::<Saved>("sampler", record)?.best;
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

    use super::*;
    use zo_core::testing::Script;

    fn coefficients(direction: &Direction) -> Vec<f64> {
        direction
            .terms()
            .iter()
            .map(|term| term.coefficient)
            .collect()
    }

    #[test]
    fn low_losses_get_a_plus_and_the_rest_a_minus() {
        let losses = [3.0, 1.0, 5.0, 2.0, 4.0];
        let mut sampler = GuidingVector::new().with_candidates(5);
        let mut script = Script::new(0.5, &losses);
        let v = script.sample(&mut sampler, 0).unwrap();
        // floor(0.5 * 5) = 2 lowest: candidates 1 and 3; terms are in order of rank
        let third = -1.0 / 3.0;
        assert_eq!(coefficients(&v), [0.5, 0.5, third, third, third]);
        let candidates: Vec<u64> = script.asked.iter().map(|d| d.terms()[0].seed).collect();
        let order: Vec<u64> = v.terms().iter().map(|term| term.seed).collect();
        assert_eq!(order, [1, 3, 0, 4, 2].map(|i| candidates[i]));
        assert!(script.asked.iter().all(|d| coefficients(d) == [0.5]));
        let normalized = Script::new(0.5, &losses).sample(&mut sampler.with_normalize(true), 0);
        let squares: f64 = coefficients(&normalized.unwrap())
            .iter()
            .map(|c| c * c)
            .sum();
        assert!((squares - 1.0).abs() < 1e-12, "as long as one noise vector");
    }

    /// Of equal losses the earlier candidate counts as lower.
    #[test]
    fn equal_losses_keep_the_order_of_the_candidates() {
        let mut sampler = GuidingVector::new().with_candidates(4);
        let mut script = Script::new(0.5, &[1.0, 2.0, 1.0, 1.0]);
        let v = script.sample(&mut sampler, 0).unwrap();
        let candidates: Vec<u64> = script.asked.iter().map(|d| d.terms()[0].seed).collect();
        let order: Vec<u64> = v.terms().iter().map(|term| term.seed).collect();
        assert_eq!(order, [0, 2, 3, 1].map(|i| candidates[i]));
        assert_eq!(coefficients(&v), [0.5, 0.5, -0.5, -0.5]);
    }

    #[test]
    fn history_keeps_the_best_candidate_and_saves_it() {
        let mut sampler = GuidingVector::new().with_history(true);
        let mut first = Script::new(0.5, &[2.0, 1.0]);
        first.sample(&mut sampler, 0).unwrap();
        let best = first.asked[1].scaled(2.0);
        let record = sampler.record();
        let mut again = GuidingVector::new().with_history(true);
        again.load_record(record).unwrap();
        for sampler in [&mut sampler, &mut again] {
            let mut second = Script::new(0.5, &[2.0, 1.0]);
            second.sample(sampler, 1).unwrap();
            assert_eq!(second.asked[0], best.scaled(0.5), "the best comes back");
            assert_ne!(second.asked[1], second.asked[0], "with a new one");
        }
        assert!(again.load_record(Value::from(3)).is_err());
    }

    #[test]
    fn settings_are_checked() {
        for (candidates, alpha) in [
            (1, 0.5),
            (0, 0.5),
            (2, 0.4),
            (2, 1.0),
            (4, f64::NAN),
            (4, -1.0),
        ] {
            let sampler = GuidingVector::new()
                .with_candidates(candidates)
                .with_alpha(alpha);
            let error = Method::new().with_sampler(sampler).init().unwrap_err();
            let error = error.to_string();
            assert!(
                error.contains("candidates") || error.contains("alpha"),
                "{error}"
            );
        }
    }
}

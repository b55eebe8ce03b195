//! MeZO-Greedy: the best of M candidates.
//!
//! Jin, Cen, Tan 2026 (arXiv 2601.04710). Each query first evaluates M candidate directions one-sidedly, on the step's batch, and keeps
//! the best:
//!
//! ```text
//! z* = argmin_i L(theta + eps z_i),  i = 1..M                               M forwards
//! g = (L(theta + eps z*) - L(theta - eps z*)) / (2 eps)                     2 forwards
//! theta <- theta - lr g z*
//! ```
//!
//! M + 2 forwards and M + 3 passes per query, one fewer when the last candidate is the best. It works with any noise and any mask. The
//! estimate is biased on purpose: `|cos(z*, grad L)|` grows like `sqrt(2 log M)`.

use derive_setters::Setters;
use serde::{Deserialize, Serialize};
use zo_core::{
    ConfigError, Direction, Method, PerturbationSampler, Preset, Registry, SampleContext, ZoError,
};

/// MeZO-Greedy: the best of M candidates for each query, all tensors, SGD.
pub fn mezo_greedy() -> Method {
    Method::new().with_sampler(Greedy::new())
}

/// Adds this crate's method and sampler.
pub fn register(registry: Registry) -> Registry {
    registry
        .with_sampler::<Greedy>("the best of M candidates")
        .with_preset(Preset {
            name: "greedy",
            about: "the best of M candidates",
            method: mezo_greedy,
            lr_factor: 3.0,
        })
}

/// Samples the best of several candidates: see the [crate].
#[derive(Debug, Clone, PartialEq, Eq, Setters, Serialize, Deserialize)]
#[setters(prefix = "with_")]
pub struct Greedy {
    /// Candidates M per query, at least 1. Default 2 (the paper: 2 or 4).
    pub candidates: usize,
}

impl Default for Greedy {
    fn default() -> Self {
        Self { candidates: 2 }
    }
}

impl Greedy {
    /// The paper's.
    pub fn new() -> Self {
        Self::default()
    }
}

impl PerturbationSampler for Greedy {
    fn sample(&mut self, query: &mut SampleContext<'_>) -> Result<Direction, ZoError> {
        let candidates = (0..self.candidates).map(|_| query.noise());
        let candidates: Vec<Direction> = candidates.collect::<Result<_, _>>()?;
        let displaced = candidates.iter().map(|z| z.scaled(query.epsilon()));
        let losses = query.losses_at(&displaced.collect::<Vec<_>>())?;
        let ranked = losses.into_iter().zip(candidates);
        // Among equal losses the first counts.
        let best = ranked.min_by(|(a, _), (b, _)| a.total_cmp(b));
        Ok(best.map_or_else(Direction::zero, |(_, z)| z))
    }

    fn validate(&self) -> Result<(), ConfigError> {
        let candidates = self.candidates;
        ConfigError::check("candidates", candidates, candidates > 0, "at least 1")
    }

    fn forwards(&self) -> usize {
        self.candidates
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

    fn best(losses: &[f64]) -> Result<usize, ZoError> {
        let mut sampler = Greedy::new().with_candidates(losses.len());
        let mut script = Script::new(0.5, losses);
        let chosen = script.sample(&mut sampler, 5)?.scaled(0.5);
        Ok(script
            .asked
            .iter()
            .position(|asked| *asked == chosen)
            .unwrap())
    }

    #[test]
    fn the_first_of_the_lowest_losses_is_chosen() {
        let infinity = f64::INFINITY;
        assert_eq!(best(&[3.0, 1.0, 2.0]).unwrap(), 1);
        assert_eq!(best(&[2.0, 1.0, 1.0, 1.0]).unwrap(), 1);
        assert_eq!(best(&[infinity, 2.0]).unwrap(), 1);
        assert_eq!(best(&[2.0, infinity]).unwrap(), 0);
        assert_eq!(best(&[infinity, infinity]).unwrap(), 0);
        assert!(best(&[1.0, f64::NAN]).is_err());
        assert!(best(&[1.0, f64::NEG_INFINITY]).is_err());
    }
}

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
//! M + 2 forwards and M + 3 passes a query, one fewer when the last candidate is the best. It works over any inner sampler and with any
//! mask. The estimate is biased on purpose: `|cos(z*, grad L)|` grows like `sqrt(2 log M)`.

#![cfg_attr(
    feature = "ndarray",
    allow(
        deprecated,
        reason = "burn deprecates its ndarray backend; it is supported here as long as burn has it"
    )
)]

use zo_core::{
    ConfigError, Dense, Direction, PerturbationSampler, Probe, RecordError, Seeds, Sgd, ZeroOrder,
    ZoError,
};

/// MeZO-Greedy: the best of M candidates for each query, all tensors, SGD.
pub type MezoGreedy = ZeroOrder<Greedy<zo_core::Distribution>, Dense, Sgd>;

zo_core::method_config! {
    /// Configuration of [`MezoGreedy`].
    pub struct MezoGreedyConfig {
        /// Candidates M per query, at least 1. Default 2 (the paper: 2 or 4).
        #[config(default = 2)]
        pub candidates: usize,
    }
}

impl MezoGreedyConfig {
    /// The sampler, over an inner sampler of your choice.
    ///
    /// # Errors
    /// If there is no candidate.
    pub fn sampler<S: PerturbationSampler>(&self, inner: S) -> Result<Greedy<S>, ConfigError> {
        let candidates = self.candidates;
        if candidates == 0 {
            return Err(ConfigError::Setting {
                name: "candidates",
                value: candidates.to_string(),
                expected: "at least 1",
            });
        }
        Ok(Greedy { inner, candidates })
    }

    /// Builds the optimizer.
    ///
    /// # Errors
    /// If a value makes no sense.
    pub fn init(&self) -> Result<MezoGreedy, ConfigError> {
        let sampler = self.sampler(self.distribution)?;
        ZeroOrder::new(self.settings(), sampler, Dense, Sgd)
    }
}

/// Samples the best of several candidates: see the [crate].
#[derive(Debug, Clone)]
pub struct Greedy<S> {
    inner: S,
    candidates: usize,
}

impl<S: PerturbationSampler + Clone> PerturbationSampler for Greedy<S> {
    fn sample(&mut self, seeds: &mut Seeds, probe: &mut dyn Probe) -> Result<Direction, ZoError> {
        let mut best: Option<(f64, Direction)> = None;
        for _ in 0..self.candidates {
            let z = self.inner.sample(seeds, probe)?;
            let loss = probe.rank_at(&z.scaled(probe.epsilon()))?;
            // Of equal losses the first counts.
            if best.as_ref().is_none_or(|(least, _)| loss < *least) {
                best = Some((loss, z));
            }
        }
        Ok(best.map_or_else(Direction::zero, |(_, z)| z))
    }

    fn describe(&self) -> serde_json::Value {
        serde_json::json!({ "greedy": {
            "candidates": self.candidates,
            "inner": self.inner.describe(),
        } })
    }

    fn record(&self) -> serde_json::Value {
        self.inner.record()
    }

    fn load_record(&mut self, record: serde_json::Value) -> Result<(), RecordError> {
        self.inner.load_record(record)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use zo_core::{Distribution, MaskedDirection};

    /// Losses that are given, in the order of the calls.
    struct Script(Vec<f64>);

    impl Probe for Script {
        fn loss_at(&mut self, _: &Direction) -> Result<f64, ZoError> {
            match self.0.remove(0) {
                loss if loss.is_finite() => Ok(loss),
                value => Err(ZoError::NonFiniteLoss {
                    step: 0,
                    value,
                    displaced: true,
                }),
            }
        }
        fn loss_after(&mut self, _: &MaskedDirection) -> Result<f64, ZoError> {
            unreachable!("a sampler makes no updates")
        }
        fn loss_here(&mut self) -> Result<f64, ZoError> {
            unreachable!("candidates are compared with each other")
        }
        fn derivative_along(&mut self, _: &Direction) -> Result<(f64, f64), ZoError> {
            unreachable!("candidates are compared by their losses")
        }
        fn epsilon(&self) -> f64 {
            0.5
        }
    }

    fn best(losses: &[f64]) -> Result<usize, ZoError> {
        let config = MezoGreedyConfig::new().with_candidates(losses.len());
        let mut sampler = config.sampler(Distribution::Gaussian).unwrap();
        let chosen = sampler.sample(&mut Seeds::new(3, 5), &mut Script(losses.to_vec()))?;
        let mut seeds = Seeds::new(3, 5);
        let drawn: Vec<u64> = losses.iter().map(|_| seeds.draw()).collect();
        let seed = chosen.terms()[0].seed;
        Ok(drawn.iter().position(|drawn| *drawn == seed).unwrap())
    }

    #[test]
    fn the_first_of_the_least_losses_is_chosen() {
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

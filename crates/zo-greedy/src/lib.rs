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

impl<S: PerturbationSampler> PerturbationSampler for Greedy<S> {
    fn sample(&mut self, seeds: &mut Seeds, probe: &mut dyn Probe) -> Result<Direction, ZoError> {
        let mut best = (f64::INFINITY, Direction::zero());
        for _ in 0..self.candidates {
            let z = self.inner.sample(seeds, probe)?;
            let loss = probe.loss_at(&z.scaled(probe.epsilon()))?;
            if loss < best.0 {
                best = (loss, z);
            }
        }
        Ok(best.1)
    }

    fn record(&self) -> serde_json::Value {
        self.inner.record()
    }

    fn load_record(&mut self, record: serde_json::Value) -> Result<(), RecordError> {
        self.inner.load_record(record)
    }
}

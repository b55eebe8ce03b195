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
//! M + 2 forwards and M + 3 passes a query (the last pass of a query is the first of the next). `v` is never stored: it is a
//! [`Direction`] of M seeds. It works over any inner sampler and with any mask.
//!
//! The estimate is biased on purpose: `v` leans on the gradient, so that `|cos(v, grad L)|` grows with M. At M = 2 there is no choice to
//! make: `v` is `z_1 - z_2` or its opposite, and `g v` is the same for both. The estimate is then MeZO's along a difference of two noise
//! vectors, `E[g v] = 2 grad L`; a one-sided difference, or M of 4 and more, is where guidance begins.

#![cfg_attr(
    feature = "ndarray",
    allow(
        deprecated,
        reason = "burn deprecates its ndarray backend; it is supported here as long as burn has it"
    )
)]

use serde_json::Value;
use zo_core::{
    ConfigError, Dense, Direction, PerturbationSampler, Probe, RecordError, Seeds, Sgd, ZeroOrder,
    ZoError,
};

/// MeZO-GV: a guiding vector for each query, all tensors, SGD.
pub type MezoGv = ZeroOrder<GuidingVector<zo_core::Distribution>, Dense, Sgd>;

zo_core::method_config! {
    /// Configuration of [`MezoGv`]. The paper uses learning rates of 1e-7 to 5e-7 for full fine-tuning of OPT-13B, and half as many steps
    /// as MeZO at M = 2, so that the number of forwards is the same.
    pub struct MezoGvConfig {
        /// Candidates M per query, at least 2. Default 2 (the paper: 2 or 4).
        #[config(default = 2)]
        pub candidates: usize,
        /// The share of candidates that are averaged with a plus sign: `floor(alpha M)` of them, at least 1 and at most M - 1. Default
        /// 0.5.
        #[config(default = 0.5)]
        pub alpha: f64,
        /// Whether `v` is scaled to the size of one noise vector. Default no, as in the paper, where `v` is `sqrt(2)` times as long at
        /// M = 2.
        #[config(default = false)]
        pub normalize: bool,
        /// Whether the best candidate of a query is a candidate of the next again, so that only M - 1 are new: the variant that the
        /// authors' trainer runs by default. Default no, as in the paper.
        #[config(default = false)]
        pub history: bool,
    }
}

impl MezoGvConfig {
    /// The sampler, over an inner sampler of your choice.
    ///
    /// # Errors
    /// If there are fewer than 2 candidates, or `alpha` puts all of them on one side.
    pub fn sampler<S: PerturbationSampler>(
        &self,
        inner: S,
    ) -> Result<GuidingVector<S>, ConfigError> {
        let low = zo_core::share_of(self.alpha.max(0.0), self.candidates);
        if self.candidates < 2 {
            return Err(ConfigError::Setting {
                name: "candidates",
                value: self.candidates.to_string(),
                expected: "at least 2: the guiding vector is a difference",
            });
        }
        if !(1..self.candidates).contains(&low) {
            return Err(ConfigError::Setting {
                name: "alpha",
                value: self.alpha.to_string(),
                expected: "such that floor(alpha candidates) is at least 1 and below candidates",
            });
        }
        Ok(GuidingVector {
            inner,
            candidates: self.candidates,
            low,
            normalize: self.normalize,
            history: self.history,
            best: None,
        })
    }

    /// Builds the optimizer.
    ///
    /// # Errors
    /// If a value makes no sense.
    pub fn init(&self) -> Result<MezoGv, ConfigError> {
        let sampler = self.sampler(self.distribution)?;
        ZeroOrder::new(self.settings(), sampler, Dense, Sgd)
    }
}

/// Samples guiding vectors: see the [crate].
#[derive(Debug, Clone)]
pub struct GuidingVector<S> {
    inner: S,
    candidates: usize,
    /// Candidates with a plus sign.
    low: usize,
    normalize: bool,
    history: bool,
    /// The best candidate so far, if it is kept.
    best: Option<Direction>,
}

impl<S: PerturbationSampler + Clone> PerturbationSampler for GuidingVector<S> {
    fn sample(&mut self, seeds: &mut Seeds, probe: &mut dyn Probe) -> Result<Direction, ZoError> {
        let mut ranked = Vec::with_capacity(self.candidates);
        let mut kept = self.best.clone();
        for _ in 0..self.candidates {
            let z = match kept.take() {
                Some(z) => z,
                None => self.inner.sample(seeds, probe)?,
            };
            let loss = probe.rank_at(&z.scaled(probe.epsilon()))?;
            ranked.push((loss, z));
        }
        // Stable: of equal losses the earlier candidate counts as lower.
        ranked.sort_by(|(a, _), (b, _)| a.total_cmp(b));
        let (low, high) = (self.low as f64, (self.candidates - self.low) as f64);
        let mut v = Direction::zero();
        for (rank, (_, z)) in ranked.iter().enumerate() {
            let weight = if rank < self.low {
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

    fn describe(&self) -> Value {
        serde_json::json!({ "guiding-vector": {
            "candidates": self.candidates,
            "low": self.low,
            "normalize": self.normalize,
            "history": self.history,
            "inner": self.inner.describe(),
        } })
    }

    fn record(&self) -> Value {
        serde_json::json!({ "best": self.best, "inner": self.inner.record() })
    }

    fn load_record(&mut self, record: Value) -> Result<(), RecordError> {
        #[derive(serde::Deserialize)]
        struct Saved {
            best: Option<Direction>,
            inner: Value,
        }
        let saved: Saved = zo_core::from_record("sampler", record)?;
        self.inner.load_record(saved.inner)?;
        self.best = saved.best;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zo_core::Distribution::Gaussian;

    /// Losses that are given, in the order of the calls.
    struct Script(Vec<f64>, Vec<Direction>);

    impl Probe for Script {
        fn loss_at(&mut self, displacement: &Direction) -> Result<f64, ZoError> {
            self.1.push(displacement.clone());
            Ok(self.0.remove(0))
        }
        fn loss_after(&mut self, _: &zo_core::MaskedDirection) -> Result<f64, ZoError> {
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

    fn coefficients(direction: &Direction) -> Vec<f64> {
        direction
            .terms()
            .iter()
            .map(|term| term.coefficient)
            .collect()
    }

    #[test]
    fn low_losses_get_a_plus_and_the_rest_a_minus() {
        let config = MezoGvConfig::new().with_candidates(5).with_alpha(0.5);
        let mut sampler = config.sampler(Gaussian).unwrap();
        let mut script = Script(vec![3.0, 1.0, 5.0, 2.0, 4.0], Vec::new());
        let mut seeds = Seeds::new(0, 0);
        let v = sampler.sample(&mut seeds, &mut script).unwrap();
        // floor(0.5 * 5) = 2 lowest: candidates 1 and 3; terms stand in the order of the ranks
        let third = -1.0 / 3.0;
        assert_eq!(coefficients(&v), [0.5, 0.5, third, third, third]);
        let candidates: Vec<u64> = script.1.iter().map(|d| d.terms()[0].seed).collect();
        let order: Vec<u64> = v.terms().iter().map(|term| term.seed).collect();
        assert_eq!(order, [1, 3, 0, 4, 2].map(|i| candidates[i]));
        assert!(script.1.iter().all(|d| coefficients(d) == [0.5]));
        let normalized = config
            .with_normalize(true)
            .sampler(Gaussian)
            .unwrap()
            .sample(
                &mut Seeds::new(0, 0),
                &mut Script(vec![3.0, 1.0, 5.0, 2.0, 4.0], Vec::new()),
            );
        let squares: f64 = coefficients(&normalized.unwrap())
            .iter()
            .map(|c| c * c)
            .sum();
        assert!((squares - 1.0).abs() < 1e-12, "as long as one noise vector");
    }

    #[test]
    fn history_keeps_the_best_candidate_and_saves_it() {
        let config = MezoGvConfig::new().with_history(true);
        let mut sampler = config.sampler(Gaussian).unwrap();
        let first = &mut Script(vec![2.0, 1.0], Vec::new());
        sampler.sample(&mut Seeds::new(0, 0), first).unwrap();
        let best = first.1[1].scaled(2.0);
        let record = sampler.record();
        let mut again = config.sampler(Gaussian).unwrap();
        again.load_record(record).unwrap();
        for sampler in [&mut sampler, &mut again] {
            let mut second = Script(vec![2.0, 1.0], Vec::new());
            sampler.sample(&mut Seeds::new(0, 1), &mut second).unwrap();
            assert_eq!(second.1[0], best.scaled(0.5), "the best comes back");
            assert_ne!(second.1[1], second.1[0], "with one that is new");
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
            let config = MezoGvConfig::new()
                .with_candidates(candidates)
                .with_alpha(alpha);
            let error = config.init().unwrap_err().to_string();
            assert!(
                error.contains("candidates") || error.contains("alpha"),
                "{error}"
            );
        }
    }
}

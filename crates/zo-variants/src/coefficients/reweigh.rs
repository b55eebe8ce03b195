//! Rules that change each derivative by itself, or by what steps before have seen.

use derive_setters::Setters;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use zo_core::{
    CoefficientContext, CoefficientRule, ConfigError, Difference, RecordError, ZoError, from_record,
};

/// QZO's: each derivative within a bound. For Gaussian directions and a linear loss the mean of the estimate is then
/// `erf(bound / (sqrt(2) |g|))` times the gradient g: biased, but bounded.
#[derive(Debug, Clone, Copy, PartialEq, Setters, Serialize, Deserialize)]
#[setters(prefix = "with_")]
pub struct Clip {
    /// The largest magnitude of a derivative, in units of loss. Default 100.
    pub bound: f64,
}

impl Default for Clip {
    fn default() -> Self {
        Self { bound: 100.0 }
    }
}

impl Clip {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }
}

impl CoefficientRule for Clip {
    fn coefficients(&mut self, step: &mut CoefficientContext<'_>) -> Result<Vec<f64>, ZoError> {
        let clipped = |g: f64| g.clamp(-self.bound, self.bound);
        let queries = step.queries().iter();
        Ok(queries.map(|q| clipped(q.projected_gradient)).collect())
    }

    fn validate(&self, _: Difference, _: usize) -> Result<(), ConfigError> {
        ConfigError::check("bound", self.bound, self.bound > 0.0, "above 0")
    }
}

/// 1.5-SPSA's: directions along which the loss curves sharply count less. Takes central differences and the loss at the weights, one
/// forward more per step.
#[derive(Debug, Clone, Copy, PartialEq, Setters, Serialize, Deserialize)]
#[setters(prefix = "with_")]
pub struct CurvatureWeight {
    /// The power of the curvature that divides. 0 is plain SPSA. Default 0.1.
    pub exponent: f64,
}

impl Default for CurvatureWeight {
    fn default() -> Self {
        Self { exponent: 0.1 }
    }
}

impl CurvatureWeight {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }
}

impl CoefficientRule for CurvatureWeight {
    fn coefficients(&mut self, step: &mut CoefficientContext<'_>) -> Result<Vec<f64>, ZoError> {
        let (here, square) = (step.loss_here()?, step.epsilon().powi(2));
        let queries = step.queries().iter().map(|query| {
            let curvature = (query.loss_plus - 2.0 * here + query.loss_other).abs() / square;
            query.projected_gradient / curvature.max(1.0).powf(self.exponent)
        });
        Ok(queries.collect())
    }

    fn validate(&self, difference: Difference, _: usize) -> Result<(), ConfigError> {
        if difference != Difference::Central {
            let parts =
                "the coefficient rule curvature-weight and a difference that is not central";
            let reason = "the curvature along a direction takes the losses on both of its sides";
            return Err(ConfigError::incompatible(parts, reason));
        }
        let valid = self.exponent >= 0.0 && self.exponent.is_finite();
        ConfigError::check("exponent", self.exponent, valid, "finite and not negative")
    }

    fn forwards(&self) -> usize {
        1
    }
}

/// MEAZO's (Dbouk et al. 2026): divided by the root of a running mean of the squared mean derivative, one number for all weights, corrected
/// for its start at 0. The step then hardly depends on the scale of the loss.
#[derive(Debug, Clone, Copy, PartialEq, Setters, Serialize, Deserialize)]
#[setters(prefix = "with_")]
pub struct RunningScale {
    /// How much of the past each step keeps. Default 0.99.
    pub beta: f64,
    /// Added to the root. Default 1e-8.
    pub zeta: f64,
    #[serde(skip)]
    #[setters(skip)]
    square: f64,
    #[serde(skip)]
    #[setters(skip)]
    steps: i32,
}

impl Default for RunningScale {
    fn default() -> Self {
        Self {
            beta: 0.99,
            zeta: 1e-8,
            square: 0.0,
            steps: 0,
        }
    }
}

impl RunningScale {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }
}

impl CoefficientRule for RunningScale {
    fn coefficients(&mut self, step: &mut CoefficientContext<'_>) -> Result<Vec<f64>, ZoError> {
        let queries = step.queries();
        let derivatives = || queries.iter().map(|query| query.projected_gradient);
        let mean = derivatives().sum::<f64>() / queries.len() as f64;
        self.square = self.beta * self.square + (1.0 - self.beta) * mean * mean;
        // A count that stops at its largest: by then the correction is 1.
        self.steps = self.steps.saturating_add(1);
        let corrected = self.square / (1.0 - self.beta.powi(self.steps));
        let scale = corrected.sqrt() + self.zeta;
        Ok(derivatives().map(|g| g / scale).collect())
    }

    fn is_scale_free(&self) -> bool {
        true
    }

    fn validate(&self, _: Difference, _: usize) -> Result<(), ConfigError> {
        let valid = (0.0..1.0).contains(&self.beta);
        ConfigError::check("beta", self.beta, valid, "from 0 to below 1")?;
        let valid = self.zeta > 0.0 && self.zeta.is_finite();
        ConfigError::check("zeta", self.zeta, valid, "finite and above 0")
    }

    fn record(&self) -> Value {
        json!({ "square": self.square, "steps": self.steps })
    }

    fn load_record(&mut self, record: Value) -> Result<(), RecordError> {
        #[derive(Deserialize)]
        struct Saved {
            square: f64,
            steps: i32,
        }
        let Saved { square, steps } = from_record("coefficient rule", record)?;
        if !(steps >= 0 && square >= 0.0 && square.is_finite()) {
            let found = format!("a mean square of {square} after {steps} step(s)");
            let expected = "numbers that are finite and not negative";
            return Err(RecordError::mismatch("coefficient rule", found, expected));
        }
        (self.square, self.steps) = (square, steps);
        Ok(())
    }
}

/// BSZO's: the posterior mean of a derivative that was measured with noise, under a prior around 0.
#[derive(Debug, Clone, Copy, PartialEq, Setters, Serialize, Deserialize)]
#[setters(prefix = "with_")]
pub struct Shrinkage {
    /// The standard deviation of derivatives. Default 1.
    pub prior_deviation: f64,
    /// The standard deviation of the noise in a measured derivative. 0 is plain SPSA. Default 1.
    pub noise_deviation: f64,
}

impl Default for Shrinkage {
    fn default() -> Self {
        Self {
            prior_deviation: 1.0,
            noise_deviation: 1.0,
        }
    }
}

impl Shrinkage {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }
}

impl CoefficientRule for Shrinkage {
    fn coefficients(&mut self, step: &mut CoefficientContext<'_>) -> Result<Vec<f64>, ZoError> {
        let kept = 1.0 / (1.0 + (self.noise_deviation / self.prior_deviation).powi(2));
        let queries = step.queries().iter();
        Ok(queries.map(|q| kept * q.projected_gradient).collect())
    }

    fn validate(&self, _: Difference, _: usize) -> Result<(), ConfigError> {
        let (prior, noise) = (self.prior_deviation, self.noise_deviation);
        let valid = prior > 0.0 && prior.is_finite();
        ConfigError::check("prior_deviation", prior, valid, "finite and above 0")?;
        let valid = noise >= 0.0 && noise.is_finite();
        ConfigError::check("noise_deviation", noise, valid, "finite and not negative")
    }
}

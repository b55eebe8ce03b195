//! Rules that compare the losses of a step with each other.

use serde::{Deserialize, Serialize};
use zo_core::{CoefficientContext, CoefficientRule, ConfigError, Difference, Query, ZoError};

/// FZOO's (Dang et al. 2025, Algorithm 1): divided by the standard deviation of the displaced losses (that of a sample, with q - 1). The step
/// then depends neither on epsilon nor on the scale of the loss. Losses that are all equal say nothing: the step changes nothing. Use
/// at least four one-sided queries: the deviation of two losses is often close to 0, and the step then long.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Normalized;

/// Each loss against the mean of the others (arXiv 1909.11827, "leave one out"): unbiased, and a constant added to the loss changes nothing.
/// Without a loss at the weights themselves, use [`Difference::OnePoint`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaveOneOut;

/// Standardized losses, as evolution strategies use them: less their mean, divided by their standard deviation (that of a population, with
/// q). Losses that are all equal say nothing: the step changes nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ZScore;

/// Mean and sum of squared deviations, both relative to the first loss: losses that are equal deviate by nothing at all.
struct Spread {
    origin: f64,
    mean: f64,
    squares: f64,
    count: f64,
}

impl Spread {
    fn of(losses: &[f64]) -> Self {
        let (origin, count) = (losses.first().copied().unwrap_or(0.0), losses.len() as f64);
        let deviations = || losses.iter().map(|loss| loss - origin);
        let mean = deviations().sum::<f64>() / count;
        let squares = deviations().map(|d| (d - mean).powi(2)).sum();
        Self {
            origin,
            mean,
            squares,
            count,
        }
    }

    /// The loss less the mean.
    fn centred(&self, loss: f64) -> f64 {
        loss - self.origin - self.mean
    }

    fn sample_deviation(&self) -> f64 {
        (self.squares / (self.count - 1.0)).sqrt()
    }

    fn deviation(&self) -> f64 {
        (self.squares / self.count).sqrt()
    }
}

/// `1 / scale`, or 0 where that would be infinite.
fn divide(scale: f64) -> f64 {
    if scale > 0.0 { scale.recip() } else { 0.0 }
}

/// `f` of each query.
fn each(queries: &[Query], f: impl Fn(&Query) -> f64) -> Result<Vec<f64>, ZoError> {
    Ok(queries.iter().map(f).collect())
}

/// Those whose losses are at displaced points.
const DIFFERENCES: [Difference; 3] = [
    Difference::OnePoint,
    Difference::OneSided,
    Difference::Central,
];

/// Half the distance between the losses of a central query.
fn half_difference(query: &Query) -> f64 {
    (query.loss_plus - query.loss_other) / 2.0
}

/// A rule over the losses of a step needs two of them.
fn check(
    rule: &str,
    difference: Difference,
    queries: usize,
    allowed: &[Difference],
) -> Result<(), ConfigError> {
    if !allowed.contains(&difference) {
        let found = serde_json::to_value(difference).unwrap_or_default();
        let parts = format!("the coefficient rule {rule} and the difference {found}");
        let allowed = serde_json::to_value(allowed).unwrap_or_default();
        let reason = format!("it compares losses of other points: use one of {allowed}");
        return Err(ConfigError::incompatible(parts, reason));
    }
    if difference != Difference::Central && queries < 2 {
        let expected = format!(
            "at least 2 with the coefficient rule {rule}, which compares their losses (or use a central difference)"
        );
        return Err(ConfigError::setting("queries", queries, &expected));
    }
    Ok(())
}

impl CoefficientRule for Normalized {
    fn coefficients(&mut self, step: &mut CoefficientContext<'_>) -> Result<Vec<f64>, ZoError> {
        let scale = divide(Spread::of(&step.displaced_losses()).sample_deviation());
        if step.difference() == Difference::Central {
            return each(step.queries(), |query| scale * half_difference(query));
        }
        each(step.queries(), |query| {
            scale * (query.loss_plus - query.loss_other)
        })
    }

    fn is_scale_free(&self) -> bool {
        true
    }

    fn validate(&self, difference: Difference, queries: usize) -> Result<(), ConfigError> {
        // FZOO compares with the loss at the weights, which one-point queries do not have.
        check(&self.name(), difference, queries, &DIFFERENCES[1..])
    }
}

impl CoefficientRule for LeaveOneOut {
    fn coefficients(&mut self, step: &mut CoefficientContext<'_>) -> Result<Vec<f64>, ZoError> {
        if step.difference() == Difference::Central {
            return each(step.queries(), |query| query.projected_gradient);
        }
        let spread = Spread::of(&step.displaced_losses());
        // l_k less the mean of the others is q / (q - 1) times l_k less the mean of all.
        let scale = spread.count / ((spread.count - 1.0) * step.epsilon());
        each(step.queries(), |query| {
            scale * spread.centred(query.loss_plus)
        })
    }

    fn validate(&self, difference: Difference, queries: usize) -> Result<(), ConfigError> {
        check(&self.name(), difference, queries, &DIFFERENCES)
    }
}

impl CoefficientRule for ZScore {
    fn coefficients(&mut self, step: &mut CoefficientContext<'_>) -> Result<Vec<f64>, ZoError> {
        let spread = Spread::of(&step.displaced_losses());
        let scale = divide(spread.deviation());
        if step.difference() == Difference::Central {
            return each(step.queries(), |query| scale * half_difference(query));
        }
        each(step.queries(), |query| {
            scale * spread.centred(query.loss_plus)
        })
    }

    fn is_scale_free(&self) -> bool {
        true
    }

    fn validate(&self, difference: Difference, queries: usize) -> Result<(), ConfigError> {
        check(&self.name(), difference, queries, &DIFFERENCES)
    }
}

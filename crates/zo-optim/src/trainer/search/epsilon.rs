//! A perturbation radius found by forwards.

use burn::module::{Module, ParamGroup};
use serde::{Deserialize, Serialize};
use zo_core::{StepError, ZerothOrderOptimizer};
use zo_mezo::mezo;

use super::{BeginError, QUERIES, SearchError, or_nan};
use crate::trainer::task::Task;

/// The radii that are compared.
const RADII: [f64; 6] = [1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0];

/// A radius, and the derivatives there.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct RadiusPoint {
    /// The radius.
    pub epsilon: f64,
    /// The root mean square of the derivatives along the directions; NaN (in JSON null) if a loss was not finite.
    #[serde(deserialize_with = "or_nan")]
    pub gradient_rms: f64,
    /// How far they are from those at the neighbouring radii, root mean square, as a share of those.
    #[serde(deserialize_with = "or_nan")]
    pub disagreement: f64,
}

/// What a search for a radius has found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FoundEpsilon {
    /// The radius.
    pub epsilon: f64,
    /// Evaluations of the objective that it took: 48.
    pub forwards: usize,
    /// All that were compared.
    pub points: Vec<RadiusPoint>,
}

/// Finds a perturbation radius: the one at which derivatives along the same directions agree best with those at a tenth and at ten times the
/// radius. Below it the losses' rounding shows, above it their curvature. `model` is the run's, the directions are Gaussian, on the batch of the
/// first step.
///
/// # Errors
/// If there is no model or batch, the directions cannot be measured, or no radius gives finite losses that differ.
pub fn find_epsilon<M: Module, T: Task<M>>(
    model: impl FnOnce() -> Result<M, BeginError>,
    task: &mut T,
    trained: &ParamGroup,
    seed: u64,
) -> Result<FoundEpsilon, SearchError<T::Error>> {
    let mut model = model().map_err(SearchError::Begin)?;
    let batch = task.batch(0).map_err(SearchError::Task)?;
    let (mut forwards, mut loss) = (0, f64::NAN);
    let mut measured: Vec<Option<Vec<f64>>> = Vec::new();
    for epsilon in RADII {
        // The same seed and step: the same directions.
        let prober = mezo()
            .with_epsilon(epsilon)
            .with_queries(QUERIES)
            .with_seed(seed)
            .with_trainable(trained.clone());
        let objective = |module: &M| {
            forwards += 1;
            task.objective(module, &batch)
        };
        let derivatives;
        (model, derivatives) = match prober.init()?.step(0.0, model, objective) {
            Ok((model, report)) => {
                loss = report.loss();
                let derivatives = report.queries.iter().map(|q| q.projected_gradient);
                (model, Some(derivatives.collect()))
            }
            Err(StepError { module, error }) if error.is_non_finite() => (module, None),
            Err(StepError { error, .. }) => return Err(error.into()),
        };
        measured.push(derivatives);
    }
    let points: Vec<RadiusPoint> = (0..RADII.len())
        .map(|place| RadiusPoint {
            epsilon: RADII[place],
            gradient_rms: measured[place].as_deref().map_or(f64::NAN, rms),
            disagreement: disagreement(&measured, place),
        })
        .collect();
    let inner = points[1..RADII.len() - 1].iter();
    let best = inner
        .filter(|point| point.disagreement.is_finite())
        .min_by(|a, b| a.disagreement.total_cmp(&b.disagreement));
    let epsilon = best.ok_or(SearchError::Flat { loss })?.epsilon;
    Ok(FoundEpsilon {
        epsilon,
        forwards,
        points,
    })
}

fn rms(values: &[f64]) -> f64 {
    let squared = values.iter().map(|value| value * value).sum::<f64>();
    (squared / values.len() as f64).sqrt()
}

/// How far the derivatives at a radius are from those at its two neighbours. NaN at the ends, and where one is not known or all are 0.
fn disagreement(measured: &[Option<Vec<f64>>], place: usize) -> f64 {
    let neighbours = place.checked_sub(1).and_then(|before| {
        let before = measured[before].as_deref()?;
        Some((before, measured.get(place + 1)?.as_deref()?))
    });
    let (Some(here), Some((before, after))) = (measured[place].as_deref(), neighbours) else {
        return f64::NAN;
    };
    let apart = |other: &[f64]| {
        let differences = here.iter().zip(other).map(|(a, b)| a - b);
        rms(&differences.collect::<Vec<_>>())
    };
    apart(before).max(apart(after)) / rms(here)
}

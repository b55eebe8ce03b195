//! A learning rate found by forwards.

mod epsilon;
mod measure;

use burn::module::{Module, ParamGroup};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use zo_core::{ConfigError, ZerothOrderOptimizer, ZoError};

use super::error::CheckpointError;
use super::task::Task;
use measure::{QUERIES, Search, mean};

pub use epsilon::{FoundEpsilon, RadiusPoint, find_epsilon};

/// The run that a learning rate is searched for. docs/src/learning-rate.md says how it is found, and when it cannot be.
#[derive(Debug, Clone)]
pub struct RateSearch {
    /// Steps of the run, each weighed by the square of the schedule's factor: the number of steps if the rate is constant. The search takes
    /// as many forwards as a twentieth of them, at least 100.
    pub steps: f64,
    /// The perturbation radius.
    pub epsilon: f64,
    /// The parameters that train.
    pub trained: ParamGroup,
    /// The seed of the directions that are probed.
    pub seed: u64,
}

/// A rate and the loss there.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct RatePoint {
    /// The learning rate.
    pub lr: f64,
    /// The loss: NaN where it was not finite (in JSON null).
    #[serde(deserialize_with = "or_nan")]
    pub loss: f64,
}

fn or_nan<'de, D: serde::Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    Ok(Option::<f64>::deserialize(from)?.unwrap_or(f64::NAN))
}

/// What a search has found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FoundRate {
    /// The learning rate: the lowest of the first three limits, or [`saturated`](Self::saturated) if that is higher; at most the climb's.
    pub lr: f64,
    /// The rate at which the run's steps, were they noise alone, would raise the loss by half.
    pub limit_heat: f64,
    /// The rate at which such noise leads to weights whose derivatives have not grown too much.
    pub limit_drift: f64,
    /// The rate at which such noise would move a weight by twice its size; infinite (in JSON null) if all weights are 0.
    #[serde(deserialize_with = "or_infinite")]
    pub limit_size: f64,
    /// The rate at which noise raises the loss by half although every direction is damped: with few weights, higher than the others.
    pub saturated: f64,
    /// A quarter of the rate at which the loss rises at once; infinite (in JSON null) if it never did.
    #[serde(deserialize_with = "or_infinite")]
    pub limit_climb: f64,
    /// Evaluations of the objective that it took.
    pub forwards: usize,
    /// The loss at the beginning.
    pub loss: f64,
    /// The root mean square of the derivative along a direction.
    pub gradient_rms: f64,
    /// The mean second derivative along a direction, which is the trace of the Hessian, and its standard error.
    pub curvature: [f64; 2],
    /// The root mean square of the trained weights that are not 0.
    pub weight_rms: f64,
    /// How far a step moves a weight, root mean square, at learning rate 1.
    pub step_rms: f64,
    /// Where noise leads.
    pub drift: Vec<Drifted>,
    /// Losses on one batch while the rate rises step by step, until the loss does.
    pub climb: Vec<RatePoint>,
}

/// The model after noise.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Drifted {
    /// How far it has moved a weight, root mean square.
    pub distance: f64,
    /// The loss there.
    #[serde(deserialize_with = "or_nan")]
    pub loss: f64,
    /// The root mean square of the derivatives there.
    #[serde(deserialize_with = "or_nan")]
    pub gradient_rms: f64,
}

fn or_infinite<'de, D: serde::Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    Ok(Option::<f64>::deserialize(from)?.unwrap_or(f64::INFINITY))
}

/// Why there is no model or optimizer: the caller's reason.
pub type BeginError = Box<dyn std::error::Error + Send + Sync>;

/// Why no learning rate was found; `E` is the error of the [`Task`].
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SearchError<E: std::error::Error + 'static> {
    /// A setting makes no sense.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// There is no model or optimizer to search with.
    #[error(transparent)]
    Begin(BeginError),
    /// A step failed.
    #[error(transparent)]
    Step(#[from] ZoError),
    /// The task has no batch.
    #[error(transparent)]
    Task(E),
    /// The weights cannot be read.
    #[error(transparent)]
    Weights(#[from] CheckpointError),
    /// The loss is not finite before any step.
    #[error(
        "the loss is not finite before any step: there is no learning rate to find; check the weights and the rows, or lower epsilon"
    )]
    NotFinite,
    /// Nothing changes the loss.
    #[error(
        "the loss, {loss}, does not change within epsilon, or steps move no weight: there is no learning rate to find; raise epsilon, or give \
         the learning rate"
    )]
    Flat {
        /// The loss.
        loss: f64,
    },
}

/// The share of the forwards that goes into probes.
const PROBING: f64 = 0.4;
/// By how much noise may raise the loss over the run, as a share of the loss.
const HEAT: f64 = 0.5;
/// How far it may move a weight, as a multiple of its size.
const SIZE: f64 = 2.0;
/// The fewest and the most steps of a climb, and its range: from a tenth of the rate to a thousand times as much.
const CLIMB: [usize; 2] = [6, 40];
const RANGE: [f64; 2] = [0.1, 1e4];

/// Finds a learning rate for a run of `task`: how fast the run may go before the noise of its steps outweighs what they gain.
///
/// `begin` returns the model that the run will start with and its optimizer before the first step, each time anew: what the search does to them
/// is thrown away. The batches are those of the run's first steps.
///
/// # Errors
/// If there is no model or batch, a step cannot be taken, the loss is not finite to begin with, or nothing changes it.
pub fn find_rate<M, T, O>(
    begin: impl FnMut() -> Result<(M, O), BeginError>,
    task: &mut T,
    run: RateSearch,
) -> Result<FoundRate, SearchError<T::Error>>
where
    M: Module,
    T: Task<M>,
    O: ZerothOrderOptimizer,
{
    let mut search = Search {
        task,
        begin,
        run,
        forwards: 0,
    };
    let batches = (PROBING * search.budget(2) as f64) as usize / (2 * QUERIES + 1);
    let probed = search.probe(0.0, batches)?;
    if !probed.loss().is_finite() {
        return Err(SearchError::NotFinite);
    }
    let (loss, gradient_rms) = (probed.loss(), probed.gradient_rms());
    let curvature = mean(&probed.curvatures);
    let stride = search.stride(gradient_rms)?;
    let (weight_rms, step_rms, of_step) = (stride.weight_rms, stride.step_rms, stride.forwards);
    if step_rms == 0.0 || gradient_rms == 0.0 {
        return Err(SearchError::Flat { loss });
    }
    // Not what was measured, but what it may be: a rate that is too low only costs time.
    let bend = curvature[0].max(0.0) + curvature[1];
    let of_distance = 1.0 / (search.run.steps.max(1.0).sqrt() * step_rms);
    let distance = (2.0 * HEAT * loss.abs() / bend).sqrt();
    let (drift, borne) = search.drift(distance, gradient_rms)?;
    let size = if weight_rms > 0.0 {
        SIZE * weight_rms
    } else {
        f64::INFINITY
    };
    let saturated = 4.0 * HEAT * loss.abs() / (stride.weights * step_rms * gradient_rms);
    let mut found = FoundRate {
        lr: f64::max(distance.min(borne).min(size) * of_distance, saturated),
        limit_heat: distance * of_distance,
        limit_drift: borne * of_distance,
        limit_size: size * of_distance,
        saturated,
        limit_climb: f64::INFINITY,
        forwards: 0,
        loss,
        gradient_rms,
        curvature,
        weight_rms,
        step_rms,
        drift,
        climb: Vec::new(),
    };
    if !(found.lr > 0.0 && found.lr.is_finite()) {
        return Err(SearchError::Flat { loss });
    }
    let left = search.budget(of_step).saturating_sub(search.forwards);
    let steps = (left / of_step.max(1)).min(CLIMB[1]);
    if steps >= CLIMB[0] {
        let rose;
        (found.climb, rose) = search.climb(found.lr, steps)?;
        if let (true, Some(last)) = (rose, found.climb.last()) {
            found.limit_climb = 0.25 * last.lr;
        }
    }
    found.lr = found.lr.min(found.limit_climb);
    found.forwards = search.forwards;
    Ok(found)
}

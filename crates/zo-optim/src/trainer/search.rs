//! A learning rate found by forwards.

mod epsilon;

use burn::module::{Module, ParamGroup};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use zo_core::{
    ConfigError, Loss, Perturbed, StepError, StepReport, ZeroOrder, ZerothOrderOptimizer, ZoError,
};
use zo_mezo::mezo;

use super::error::CheckpointError;
use super::task::Task;
use super::weights::visit;

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
    /// The learning rate: the lowest of the three limits.
    pub lr: f64,
    /// The rate at which noise raises the loss by half of what it is at the beginning, over the run.
    pub limit_heat: f64,
    /// The rate at which noise moves a weight by 0.8 of its size, over the run.
    pub limit_walk: f64,
    /// A tenth of the rate at which the loss rises at once; infinite (in JSON null) if it never did.
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
    /// The root mean square of the weights that are not 0.
    pub weight_rms: f64,
    /// How far a step moves a weight, root mean square, at learning rate 1.
    pub step_rms: f64,
    /// Losses on one batch while the rate rises step by step, until the loss does.
    pub climb: Vec<RatePoint>,
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

/// Directions that are probed on a batch, by two losses each, and one without displacement.
const QUERIES: usize = 4;
/// The share of the forwards that goes into probes.
const PROBING: f64 = 0.45;
/// Steps that tell how far the method moves weights.
const STEPS: usize = 8;
/// How far one of them is to move a weight, as a share of its size, if a step is a projected gradient.
const STRIDE: f64 = 1e-3;
/// By how much noise may raise the loss over the run, as a share of the loss.
const HEAT: f64 = 0.5;
/// How far noise may move a weight over the run, as a share of its size.
const WALK: f64 = 0.8;
/// The share of the loss by which it must rise to end a climb.
const RISE: f64 = 0.1;
/// The fewest and the most steps of a climb, and its range: from a tenth of the rate to a thousand times as much.
const CLIMB: [usize; 2] = [6, 40];
const RANGE: [f64; 2] = [0.1, 1e4];
/// Weights that are looked at in a tensor.
const SAMPLE: usize = 4096;

/// A model at the beginning of the run, and an optimizer.
struct Trial<'a, M, T, O> {
    task: &'a mut T,
    optim: O,
    held: Perturbed<M>,
    forwards: &'a mut usize,
}

impl<M: Module, T: Task<M>, O: ZerothOrderOptimizer> Trial<'_, M, T, O> {
    /// A step on batch `batch`. `None` if the loss or a weight is no longer finite.
    fn step(&mut self, lr: f64, batch: usize) -> Result<Option<StepReport>, SearchError<T::Error>> {
        let batch = self.task.batch(batch).map_err(SearchError::Task)?;
        let (task, mut forwards) = (&*self.task, 0);
        let objective = |module: &M| {
            forwards += 1;
            task.objective(module, &batch)
        };
        let stepped = self.optim.step_on(lr, &mut self.held, objective);
        *self.forwards += forwards;
        match stepped {
            Ok(report) => Ok((!report.skipped && report.loss().is_finite()).then_some(report)),
            Err(error) if error.is_non_finite() || matches!(error, ZoError::Overflow { .. }) => {
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The loss where the weights are.
    fn loss(&mut self, batch: usize) -> Result<f64, SearchError<T::Error>> {
        let batch = self.task.batch(batch).map_err(SearchError::Task)?;
        *self.forwards += 1;
        let loss = self.task.objective(self.held.at_rest(), &batch).value();
        Ok(loss.map_err(ZoError::from)?)
    }
}

/// Weights of the tensors that train, and how many they stand for.
struct Sample(Vec<(f64, Vec<f64>)>);

impl Sample {
    fn of<M: Module>(module: &M, trained: &ParamGroup) -> Result<Self, CheckpointError> {
        let mut all = Vec::new();
        visit(module, trained, &mut |parameter| {
            if parameter.trains {
                let size = parameter.shape.iter().product::<usize>();
                let values = parameter.values(Some(SAMPLE))?;
                let values: Vec<f64> = values.iter::<f64>().collect();
                all.push((size as f64 / values.len().max(1) as f64, values));
            }
            Ok(())
        })?;
        Ok(Self(all))
    }

    /// The mean of `f` of the weights, and of those where it is not 0.
    fn mean(&self, f: impl Fn(usize, usize, f64) -> f64) -> [f64; 2] {
        let (mut sum, mut all, mut some) = (0.0, 0.0, 0.0);
        for (tensor, (share, values)) in self.0.iter().enumerate() {
            for (index, value) in values.iter().enumerate() {
                let value = f(tensor, index, *value);
                sum += share * value;
                all += share;
                some += if value == 0.0 { 0.0 } else { *share };
            }
        }
        [all, some].map(|count| if count > 0.0 { sum / count } else { 0.0 })
    }

    fn rms(&self) -> f64 {
        self.mean(|_, _, w| w * w)[1].sqrt()
    }

    fn distance_squared(&self, other: &Self) -> f64 {
        self.mean(|tensor, index, w| (w - other.0[tensor].1[index]).powi(2))[0]
    }
}

/// Mean, and its standard error.
fn mean(values: &[f64]) -> [f64; 2] {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let squared = values
        .iter()
        .map(|value| (value - mean).powi(2))
        .sum::<f64>();
    [mean, (squared / (count - 1.0).max(1.0) / count).sqrt()]
}

/// What probes tell.
struct Probed {
    loss: f64,
    gradient_rms: f64,
    curvature: [f64; 2],
}

struct Search<'a, T, F> {
    task: &'a mut T,
    begin: F,
    run: RateSearch,
    forwards: usize,
}

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
    let probed = search.probe()?;
    let (weight_rms, step_rms, of_step) = search.stride(&probed)?;
    let steps = search.run.steps.max(1.0);
    let flat = SearchError::Flat { loss: probed.loss };
    // Not what was measured, but what it may be: a rate that is too low only costs time.
    let curvature = probed.curvature[0].max(0.0) + probed.curvature[1];
    if step_rms == 0.0 || probed.gradient_rms == 0.0 {
        return Err(flat);
    }
    let limit_heat = (2.0 * HEAT * probed.loss.abs() / (steps * curvature)).sqrt() / step_rms;
    let limit_walk = WALK * weight_rms / (steps.sqrt() * step_rms);
    let mut found = FoundRate {
        lr: f64::min(limit_heat, limit_walk),
        limit_heat,
        limit_walk,
        limit_climb: f64::INFINITY,
        forwards: 0,
        loss: probed.loss,
        gradient_rms: probed.gradient_rms,
        curvature: probed.curvature,
        weight_rms,
        step_rms,
        climb: Vec::new(),
    };
    let left = search.budget(of_step).saturating_sub(search.forwards);
    let steps = (left / of_step.max(1)).min(CLIMB[1]);
    if steps >= CLIMB[0] && found.lr.is_finite() {
        let rose;
        (found.climb, rose) = search.climb(found.lr, steps)?;
        if let (true, Some(last)) = (rose, found.climb.last()) {
            found.limit_climb = 0.1 * last.lr;
        }
    }
    found.lr = found.lr.min(found.limit_climb);
    found.forwards = search.forwards;
    if !(found.lr > 0.0 && found.lr.is_finite()) {
        return Err(flat);
    }
    Ok(found)
}

impl<M, T, O, F> Search<'_, T, F>
where
    M: Module,
    T: Task<M>,
    O: ZerothOrderOptimizer,
    F: FnMut() -> Result<(M, O), BeginError>,
{
    /// Forwards that the search may take, if those of a step are so many.
    fn budget(&self, of_step: usize) -> usize {
        (self.run.steps * of_step as f64 / 20.0).max(100.0) as usize
    }

    fn trial(&mut self) -> Result<Trial<'_, M, T, O>, SearchError<T::Error>> {
        let (model, optim) = (self.begin)().map_err(SearchError::Begin)?;
        let held = optim
            .hold(model)
            .map_err(|StepError { error, .. }| SearchError::Step(error))?;
        Ok(Trial {
            task: self.task,
            optim,
            held: held.lazy(),
            forwards: &mut self.forwards,
        })
    }

    /// First and second derivatives along random directions, each batch with a few of its own.
    fn probe(&mut self) -> Result<Probed, SearchError<T::Error>> {
        let batches = (PROBING * self.budget(2) as f64) as usize / (2 * QUERIES + 1);
        let prober = mezo()
            .with_epsilon(self.run.epsilon)
            .with_queries(QUERIES)
            .with_seed(self.run.seed)
            .with_trainable(self.run.trained.clone());
        let optim: ZeroOrder = prober.init()?;
        let (model, _) = (self.begin)().map_err(SearchError::Begin)?;
        let held = optim
            .hold(model)
            .map_err(|StepError { error, .. }| SearchError::Step(error))?;
        let mut trial = Trial {
            task: self.task,
            optim,
            held,
            forwards: &mut self.forwards,
        };
        let (mut losses, mut squares, mut curvatures) = (vec![], vec![], vec![]);
        for batch in 0..batches {
            let here = trial.loss(batch)?;
            let Some(report) = trial.step(0.0, batch)?.filter(|_| here.is_finite()) else {
                return Err(SearchError::NotFinite);
            };
            losses.push(here);
            for query in &report.queries {
                squares.push(query.projected_gradient.powi(2));
                let bend = query.loss_plus + query.loss_other - 2.0 * here;
                curvatures.push(bend / self.run.epsilon.powi(2));
            }
        }
        Ok(Probed {
            loss: mean(&losses)[0],
            gradient_rms: mean(&squares)[0].sqrt(),
            curvature: mean(&curvatures),
        })
    }

    /// The size of the weights, how far the method's steps move them at learning rate 1, and the forwards of a step.
    fn stride(&mut self, probed: &Probed) -> Result<(f64, f64, usize), SearchError<T::Error>> {
        let trained = self.run.trained.clone();
        let mut trial = self.trial()?;
        let before = Sample::of(trial.held.at_rest(), &trained)?;
        let weight_rms = before.rms();
        // A prefix or a factor that begins at 0 has no size yet.
        let size = if weight_rms > 0.0 { weight_rms } else { 1e-2 };
        let lr = STRIDE * size / probed.gradient_rms.max(1e-3);
        let (mut taken, mut forwards) = (0, 0);
        for batch in 0..STEPS {
            let Some(report) = trial.step(lr, batch)? else {
                break;
            };
            taken += 1;
            forwards = report.forwards;
        }
        let moved = Sample::of(trial.held.at_rest(), &trained)?.distance_squared(&before);
        let step_rms = (moved / taken.max(1) as f64).sqrt() / lr;
        Ok((weight_rms, step_rms, forwards))
    }

    /// Raises the rate step by step until the loss rises, and says whether it did. A point's loss is that after steps at its rate and the lower
    /// ones.
    fn climb(
        &mut self,
        lr: f64,
        steps: usize,
    ) -> Result<(Vec<RatePoint>, bool), SearchError<T::Error>> {
        let factor = RANGE[1].powf(1.0 / (steps - 1) as f64);
        let mut trial = self.trial()?;
        let (mut points, mut bound) = (vec![], f64::INFINITY);
        let mut lr = RANGE[0] * lr;
        for step in 0..steps {
            // The loss of a step is that before its update.
            let report = trial.step(lr, 0)?;
            let loss = report.as_ref().map_or(f64::NAN, StepReport::loss);
            if step == 0 {
                bound = loss + RISE * loss.abs();
            } else {
                points.push(RatePoint {
                    lr: lr / factor,
                    loss,
                });
            }
            if loss.is_nan() || loss > bound {
                return Ok((points, true));
            }
            lr *= factor;
        }
        Ok((points, false))
    }
}

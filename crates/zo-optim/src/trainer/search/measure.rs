//! What a search measures.

use burn::module::{Module, ModuleMapper, Param, ParamGroup};
use burn::tensor::Tensor;
use zo_core::backend::{Sweep, sweep};
use zo_core::noise::{TensorKey, derive_seed};
use zo_core::{
    Direction, Loss, Noise, Objective, Perturbed, Query, StepError, StepReport,
    ZerothOrderOptimizer, ZoError,
};
use zo_mezo::mezo;

use super::{BeginError, Drifted, RANGE, RatePoint, RateSearch, SearchError};
use crate::trainer::sample::Sample;
use crate::trainer::task::{OnBatch, Task};

/// Directions that are probed on a batch, by two losses each, and one without displacement.
pub(super) const QUERIES: usize = 4;
/// Steps that tell how far the method moves weights.
const STEPS: usize = 6;
/// How far one of them is to move a weight, if a step is a projected gradient: a share of epsilon.
const STRIDE: f64 = 0.1;
/// By how much noise may raise the square of the derivatives, and what is too much more than that, given how few are measured.
const GROWTH: f64 = 2.25;
const TOO_MUCH: f64 = 4.0;
/// Places where noise leads that are looked at, and batches there.
const PLACES: usize = 3;
const BATCHES: usize = 1;
/// The share of the loss by which it must rise to end a climb.
const RISE: f64 = 0.1;
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
        let (task, batch) = (&*self.task, &batch);
        let objective = Counted {
            objective: OnBatch {
                task,
                batches: std::slice::from_ref(batch),
                shard: 0,
                team: None,
            },
            forwards: self.forwards,
        };
        match self.optim.step_on(lr, &mut self.held, objective) {
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

/// An objective whose evaluations are counted, those of a step that fails as well.
struct Counted<'a, O> {
    objective: O,
    forwards: &'a mut usize,
}

impl<M, O: Objective<M>> Objective<M> for Counted<'_, O> {
    type Loss = O::Loss;

    fn loss(&mut self, module: &M) -> O::Loss {
        *self.forwards += 1;
        self.objective.loss(module)
    }

    fn at_once(&self) -> usize {
        self.objective.at_once()
    }

    fn losses(&mut self, module: &M, displacements: usize) -> Vec<O::Loss> {
        *self.forwards += displacements;
        self.objective.losses(module, displacements)
    }
}

/// Adds Gaussian noise to what trains.
struct Drift<'a> {
    path: Vec<String>,
    trained: &'a ParamGroup,
    noise: Direction,
}

impl ModuleMapper for Drift<'_> {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let path = self.path.join(".");
        if !self.trained.matches(&param.id, Some(&path)) {
            return param;
        }
        let moves = Sweep::new(TensorKey::new(&path), 1.0, &Direction::zero(), &self.noise);
        param.map(|weights| sweep(weights, moves))
    }
}

/// Mean, and its standard error.
pub(super) fn mean(values: &[f64]) -> [f64; 2] {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let squared = values
        .iter()
        .map(|value| (value - mean).powi(2))
        .sum::<f64>();
    [mean, (squared / (count - 1.0).max(1.0) / count).sqrt()]
}

/// What probes tell.
pub(super) struct Probed {
    losses: Vec<f64>,
    gradients: Vec<f64>,
    pub(super) curvatures: Vec<f64>,
}

impl Probed {
    pub(super) fn loss(&self) -> f64 {
        mean(&self.losses)[0]
    }

    pub(super) fn gradient_rms(&self) -> f64 {
        let squares: Vec<f64> = self.gradients.iter().map(|g| g * g).collect();
        mean(&squares)[0].sqrt()
    }
}

/// The weights and a step.
pub(super) struct Stride {
    /// How many train.
    pub(super) weights: f64,
    /// Their root mean square where they are not 0.
    pub(super) weight_rms: f64,
    /// How far a step moves one at learning rate 1, root mean square.
    pub(super) step_rms: f64,
    /// Forwards of a step.
    pub(super) forwards: usize,
}

/// A search under way.
pub(super) struct Search<'a, T, F> {
    pub(super) task: &'a mut T,
    pub(super) begin: F,
    pub(super) run: RateSearch,
    pub(super) forwards: usize,
}

impl<M, T, O, F> Search<'_, T, F>
where
    M: Module,
    T: Task<M>,
    O: ZerothOrderOptimizer,
    F: FnMut() -> Result<(M, O), BeginError>,
{
    /// Forwards that the search may take, if those of a step are so many.
    pub(super) fn budget(&self, of_step: usize) -> usize {
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

    /// Derivatives along random directions, each batch with a few of its own, after noise that moves weights by `distance`. The losses are not
    /// finite if one is not.
    pub(super) fn probe(
        &mut self,
        distance: f64,
        batches: usize,
    ) -> Result<Probed, SearchError<T::Error>> {
        let (mut model, _) = (self.begin)().map_err(SearchError::Begin)?;
        if distance > 0.0 {
            // Another seed than those of probes.
            let seed = derive_seed(self.run.seed, u64::MAX, 0);
            model = model.map(&mut Drift {
                path: Vec::new(),
                trained: &self.run.trained,
                noise: Direction::noise(Noise::Gaussian, seed).scaled(distance),
            });
        }
        let prober = mezo()
            .with_epsilon(self.run.epsilon)
            .with_queries(QUERIES)
            .with_seed(self.run.seed)
            .with_trainable(self.run.trained.clone());
        let optim = prober.init()?;
        let held = optim.hold(model);
        let held = held.map_err(|StepError { error, .. }| SearchError::Step(error))?;
        let mut trial = Trial {
            task: self.task,
            optim,
            held,
            forwards: &mut self.forwards,
        };
        let mut probed = Probed {
            losses: vec![],
            gradients: vec![],
            curvatures: vec![],
        };
        for batch in 0..batches.max(1) {
            let here = trial.loss(batch)?;
            let Some(report) = trial.step(0.0, batch)?.filter(|_| here.is_finite()) else {
                probed.losses = vec![f64::NAN];
                return Ok(probed);
            };
            probed.losses.push(here);
            let bend = |q: &Query| q.loss_plus + q.loss_other - 2.0 * here;
            let bends = report.queries.iter().map(bend);
            probed
                .curvatures
                .extend(bends.map(|bend| bend / self.run.epsilon.powi(2)));
            let gradients = report.queries.iter().map(|q| q.projected_gradient);
            probed.gradients.extend(gradients);
        }
        Ok(probed)
    }

    /// What the weights are, and what the method's steps do to them.
    pub(super) fn stride(&mut self, gradient_rms: f64) -> Result<Stride, SearchError<T::Error>> {
        let trained = self.run.trained.clone();
        let lr = STRIDE * self.run.epsilon / gradient_rms.max(1e-3);
        let mut trial = self.trial()?;
        let before = Sample::of(trial.held.at_rest(), &trained, SAMPLE)?;
        let (mut taken, mut forwards) = (0, 0);
        for batch in 0..STEPS {
            let Some(report) = trial.step(lr, batch)? else {
                break;
            };
            taken += 1;
            forwards = report.forwards;
        }
        let moved = Sample::of(trial.held.at_rest(), &trained, SAMPLE)?.distance_squared(&before);
        let step_rms = (moved / taken.max(1) as f64).sqrt() / lr;
        Ok(Stride {
            weights: before.count(),
            weight_rms: before.rms(),
            step_rms,
            forwards,
        })
    }

    /// How far noise may lead before the derivatives have grown too much: at most `distance`.
    pub(super) fn drift(
        &mut self,
        mut distance: f64,
        gradient_rms: f64,
    ) -> Result<(Vec<Drifted>, f64), SearchError<T::Error>> {
        let mut places = Vec::new();
        let (mut fine, mut bad) = (0.0, f64::INFINITY);
        for _ in 0..PLACES {
            let probed = self.probe(distance, BATCHES)?;
            let place = Drifted {
                distance,
                loss: probed.loss(),
                gradient_rms: probed.gradient_rms(),
            };
            places.push(place);
            let growth = (place.gradient_rms / gradient_rms).powi(2);
            if growth <= TOO_MUCH {
                fine = distance;
                if bad / fine <= 3.0 || bad.is_infinite() {
                    break;
                }
                distance = (fine * bad).sqrt();
            } else {
                bad = distance;
                // If it grows with the square of the distance; it may grow faster, and beyond what is finite, nothing is known.
                let over = (growth - 1.0) / (GROWTH - 1.0);
                let shorter = if over.is_finite() {
                    over.powf(-0.5).max(0.1)
                } else {
                    0.1
                };
                distance *= shorter;
                if fine > 0.0 {
                    break;
                }
            }
        }
        Ok((places, if fine > 0.0 { fine } else { distance }))
    }

    /// Raises the rate step by step until the loss rises, and says whether it did. A point's loss is that after steps at its rate and the lower
    /// ones.
    pub(super) fn climb(
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

//! The zeroth-order step. The whole algorithm is `ZeroOrder::estimate` and `ZeroOrder::step`.

use std::time::{Duration, Instant};

use burn::module::Module;

use crate::direction::Direction;
use crate::error::{ConfigError, RecordError, StepError, ZoError};
use crate::mask::{Selection, SparsityMask};
use crate::objective::Loss;
use crate::perturbed::{Motion, Perturbed};
use crate::record::OptimizerRecord;
use crate::report::{QueryReport, StepReport};
use crate::sampler::{PerturbationSampler, Probe, Seeds};
use crate::settings::{NonFinite, Settings};
use crate::tensors::{TensorInfo, tensors};
use crate::update::{Update, UpdateRule};

/// What a user holds: an optimizer that trains a module by evaluating an objective, without gradients.
pub trait ZerothOrderOptimizer {
    /// One step on `module` at learning rate `lr` (any of burn's schedulers gives one). `objective` is evaluated a few times, each
    /// time with other weights; it must use the same batch every time.
    ///
    /// The weights are written in place if nothing else holds them; a clone of the module keeps its values and costs memory.
    ///
    /// # Errors
    /// [`StepError`] holds the module, restored. The optimizer does not count a failed step: trying again draws the same noise.
    fn step<M: Module, L: Loss>(
        &mut self,
        lr: f64,
        module: M,
        objective: impl FnMut(&M) -> L,
    ) -> Result<(M, StepReport), StepError<M>>;

    /// The state to save.
    fn record(&self) -> OptimizerRecord;

    /// Takes up a saved state, so that the run goes on as if it had not stopped.
    ///
    /// # Errors
    /// If the record was written by another kind of optimizer, or for another seed.
    fn load_record(&mut self, record: OptimizerRecord) -> Result<(), RecordError>;
}

/// A zeroth-order method, put together from its four parts.
///
/// Named methods are type aliases of this: MeZO is `ZeroOrder<Distribution, Dense, Sgd>`.
#[derive(Debug, Clone)]
pub struct ZeroOrder<S, K, U> {
    settings: Settings,
    sampler: S,
    mask: K,
    update: U,
    step: u64,
}

impl<S, K, U> ZeroOrder<S, K, U>
where
    S: PerturbationSampler,
    K: SparsityMask,
    U: UpdateRule,
{
    /// Puts a method together.
    ///
    /// # Errors
    /// If a setting makes no sense.
    pub fn new(settings: Settings, sampler: S, mask: K, update: U) -> Result<Self, ConfigError> {
        settings.validate()?;
        Ok(Self {
            settings,
            sampler,
            mask,
            update,
            step: 0,
        })
    }

    /// The settings.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The gradient estimate `1/q sum_k g_k z_k`, g_k being the derivative along the direction z_k.
    fn estimate<M: Module, L: Loss>(
        &mut self,
        seeds: &mut Seeds,
        walk: &mut Walk<M, impl FnMut(&M) -> L>,
    ) -> Result<Direction, ZoError> {
        let mut gradient = Direction::zero();
        for _ in 0..self.settings.queries {
            let z = self.sampler.sample(seeds, walk)?;
            let query = self.settings.difference.measure(z, walk)?;
            let share = query.projected_gradient / self.settings.queries as f64;
            gradient = gradient.plus(share, &query.direction);
            walk.queries.push(query);
        }
        Ok(gradient)
    }

    /// Which tensors move, and how.
    fn motions(&self, tensors: &[TensorInfo], selection: &Selection) -> Vec<Option<Motion>> {
        let motion = |(tensor, scale): (&TensorInfo, &Option<f64>)| {
            let scale = scale.filter(|_| tensor.trainable)?;
            let weight_decay = self.settings.weight_decay_of(tensor);
            Some(Motion {
                key: tensor.key,
                scale,
                weight_decay,
            })
        };
        tensors.iter().zip(&selection.0).map(motion).collect()
    }
}

impl<S, K, U> ZerothOrderOptimizer for ZeroOrder<S, K, U>
where
    S: PerturbationSampler,
    K: SparsityMask,
    U: UpdateRule,
{
    fn step<M: Module, L: Loss>(
        &mut self,
        lr: f64,
        module: M,
        objective: impl FnMut(&M) -> L,
    ) -> Result<(M, StepReport), StepError<M>> {
        let tensors = match tensors(&module, &self.settings.trainable) {
            Ok(tensors) if lr.is_finite() => tensors,
            Ok(_) => {
                return Err(StepError {
                    module,
                    error: ZoError::LearningRate(lr),
                });
            }
            Err(error) => return Err(StepError { module, error }),
        };
        let (run, step) = (self.settings.seed, self.step);
        let selection = self.mask.select(&tensors, &mut Seeds::for_mask(run, step));
        let perturbed = Perturbed::new(module, self.motions(&tensors, &selection));
        let mut walk = Walk::new(perturbed, objective, self.settings.epsilon, step);

        let (update, skipped) = match self.estimate(&mut Seeds::new(run, step), &mut walk) {
            Ok(gradient) => (self.update.update(lr, &gradient), false),
            Err(ZoError::NonFiniteLoss { .. }) if self.settings.non_finite == NonFinite::Skip => {
                (Update::none(), true)
            }
            Err(error) => {
                return Err(StepError {
                    module: walk.perturbed.restore(),
                    error,
                });
            }
        };
        walk.perturbed.update(&update);
        if !skipped {
            self.mask.observe(&tensors, &selection, &walk.queries);
        }
        self.step += 1;
        Ok(walk.finish(skipped))
    }

    fn record(&self) -> OptimizerRecord {
        OptimizerRecord {
            version: OptimizerRecord::VERSION,
            step: self.step,
            seed: self.settings.seed,
            sampler: self.sampler.record(),
            mask: self.mask.record(),
            update: self.update.record(),
        }
    }

    fn load_record(&mut self, record: OptimizerRecord) -> Result<(), RecordError> {
        record.check("version", record.version, OptimizerRecord::VERSION)?;
        record.check("seed", record.seed, self.settings.seed)?;
        self.sampler.load_record(record.sampler)?;
        self.mask.load_record(record.mask)?;
        self.update.load_record(record.update)?;
        self.step = record.step;
        Ok(())
    }
}

/// A module on its way through the displacements of one step, and the losses met there.
struct Walk<M, F> {
    perturbed: Perturbed<M>,
    objective: F,
    epsilon: f64,
    step: u64,
    loss_here: Option<f64>,
    queries: Vec<QueryReport>,
    forwards: usize,
    forward_time: Duration,
}

impl<M: Module, L: Loss, F: FnMut(&M) -> L> Walk<M, F> {
    fn new(perturbed: Perturbed<M>, objective: F, epsilon: f64, step: u64) -> Self {
        Self {
            perturbed,
            objective,
            epsilon,
            step,
            loss_here: None,
            queries: Vec::new(),
            forwards: 0,
            forward_time: Duration::ZERO,
        }
    }

    fn finish(self, skipped: bool) -> (M, StepReport) {
        let report = StepReport {
            step: self.step,
            queries: self.queries,
            loss_unperturbed: self.loss_here,
            forwards: self.forwards,
            passes: self.perturbed.passes(),
            skipped,
            copied: self.perturbed.copied(),
            seconds_forward: self.forward_time.as_secs_f64(),
            seconds_sweep: self.perturbed.busy().as_secs_f64(),
        };
        (self.perturbed.restore(), report)
    }
}

impl<M: Module, L: Loss, F: FnMut(&M) -> L> Probe for Walk<M, F> {
    fn loss_at(&mut self, displacement: &Direction) -> Result<f64, ZoError> {
        self.perturbed.move_to(displacement);
        let start = Instant::now();
        let value = (self.objective)(self.perturbed.module()).value()?;
        self.forward_time += start.elapsed();
        self.forwards += 1;
        if value.is_finite() {
            return Ok(value);
        }
        let terms = displacement.terms().len();
        Err(ZoError::NonFiniteLoss {
            step: self.step,
            value,
            terms,
        })
    }

    fn loss_here(&mut self) -> Result<f64, ZoError> {
        if let Some(loss) = self.loss_here {
            return Ok(loss);
        }
        let loss = self.loss_at(&Direction::zero())?;
        self.loss_here = Some(loss);
        Ok(loss)
    }

    fn epsilon(&self) -> f64 {
        self.epsilon
    }
}

#[cfg(test)]
mod tests;

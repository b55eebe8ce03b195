//! The zeroth-order step. The whole algorithm is `ZeroOrder::estimate` and `ZeroOrder::descend`.

use burn::module::Module;
use serde_json::{Value, json};

use crate::error::{ConfigError, JvpError, RecordError, StepError, ZoError};
use crate::mask::SparsityMask;
use crate::model::{ModelRecord, check_same, model_of};
use crate::objective::{JvpObjective, Loss, LossObjective, Objective};
use crate::perturbed::Perturbed;
use crate::record::OptimizerRecord;
use crate::report::StepReport;
use crate::sampler::{PerturbationSampler, Seeds};
use crate::settings::{NonFinite, Rounding, Settings};
use crate::tangent::{Jvp, Tangent};
use crate::tensors::{TensorInfo, tensors};
use crate::update::{Estimate, Measured, UpdateRule};
use crate::walk::Walk;

/// What a user holds: an optimizer that trains a module by evaluating an objective, without gradients.
pub trait ZerothOrderOptimizer {
    /// One step on `module` at learning rate `lr` (any of burn's schedulers gives one). `objective` is evaluated a few times, each
    /// time with other weights; it must use the same batch every time.
    ///
    /// The weights are written in place if nothing else holds them; a clone of the module keeps its values and costs memory. With
    /// [`Perturbation::OnTheFly`](crate::Perturbation::OnTheFly) only the update writes them.
    ///
    /// # Errors
    /// [`StepError`] holds the module, restored. The optimizer is what it was before a failed step: trying again draws the same noise.
    fn step<M: Module, L: Loss>(
        &mut self,
        lr: f64,
        module: M,
        objective: impl FnMut(&M) -> L,
    ) -> Result<(M, StepReport), StepError<M>>;

    /// Steps done, those skipped included: the number of the next one, from 0.
    fn steps(&self) -> u64;

    /// Counts a step without taking it, for optimizers that are parts of others: the next step draws other noise. Gives the number of the
    /// step left out.
    fn skip(&mut self) -> u64;

    /// The state to save.
    fn record(&self) -> OptimizerRecord;

    /// Restores a saved state, so that the run goes on as if it had not stopped.
    ///
    /// # Errors
    /// If the record was written by another method, with other settings, or for another seed. The optimizer is then what it was. (That a
    /// record belongs to another model is found by the next step, which fails and changes nothing.)
    fn load_record(&mut self, record: OptimizerRecord) -> Result<(), RecordError>;
}

/// A zeroth-order method, put together from its four parts.
///
/// Named methods are type aliases of this: MeZO is `ZeroOrder<Distribution, Dense, Sgd>`. A [`session`](Self::session) makes its steps in
/// fewer passes.
#[derive(Debug, Clone)]
pub struct ZeroOrder<S, K, U> {
    settings: Settings,
    sampler: S,
    mask: K,
    update: U,
    step: u64,
    /// The model of the steps done.
    model: Option<ModelRecord>,
    /// Whether `model` came with a record, so that the next step has to be one of the same model.
    loaded: bool,
    /// Whether no step of this optimizer has succeeded yet.
    first: bool,
}

/// The parts of an optimizer as they were before a step.
struct Snapshot<S, K, U> {
    sampler: S,
    mask: K,
    /// `None` for rules that keep buffers: those change when nothing can fail any more.
    update: Option<U>,
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
    /// If a setting makes no sense, or if the parts do not go together.
    pub fn new(settings: Settings, sampler: S, mask: K, update: U) -> Result<Self, ConfigError> {
        settings.validate()?;
        if update.replays() && mask.depends_on_weights() {
            return Err(ConfigError::Incompatible {
                parts: "an update rule that rebuilds past estimates, and a mask by magnitude",
                reason: "the weights that chose the elements of past steps are gone; use the form with buffers",
            });
        }
        if mask.depends_on_weights() && mask.updates_each_round() {
            return Err(ConfigError::Incompatible {
                parts: "a mask by magnitude, and one that updates after each round",
                reason: "a step that fails in a later round could not find the elements of earlier ones again",
            });
        }
        if update.keeps_buffers() && mask.updates_each_round() {
            return Err(ConfigError::Incompatible {
                parts: "an update rule that keeps buffers, and a mask that updates after each round",
                reason: "a step that fails in a later round could not take the buffers back; use the form with a window",
            });
        }
        if update.keeps_buffers() && settings.rounding == Rounding::Stochastic {
            return Err(ConfigError::Incompatible {
                parts: "an update rule that keeps buffers, and stochastic rounding",
                reason: "such a rule computes whole tensors, which are rounded to nearest; use the form with a window, or `Rounding::Nearest`",
            });
        }
        Ok(Self {
            settings,
            sampler,
            mask,
            update,
            step: 0,
            model: None,
            loaded: false,
            first: true,
        })
    }

    /// The settings.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The estimate `1/q sum_k g_k z_k` on what the mask has selected, g_k being the derivative along the direction z_k.
    fn estimate<M: Module>(
        &mut self,
        seeds: &mut Seeds,
        walk: &mut Walk<'_, M, impl Objective<M>>,
    ) -> Result<Estimate, ZoError> {
        let mut estimate = self.no_estimate();
        for _ in 0..self.settings.queries {
            let z = self.sampler.sample(seeds, walk)?;
            let query = self.settings.difference.measure(z, walk)?;
            walk.check_query(&query)?;
            estimate.queries.push(Measured {
                projected_gradient: query.projected_gradient,
                direction: walk.masked(&query.direction),
                share: 1.0 / self.settings.queries as f64,
            });
            walk.queries.push(query);
        }
        Ok(estimate)
    }

    fn no_estimate(&self) -> Estimate {
        Estimate {
            step: self.step,
            queries: Vec::new(),
        }
    }

    /// Selects, estimates, updates: once, or once for each round of the mask.
    fn descend<M: Module>(
        &mut self,
        lr: f64,
        walk: &mut Walk<'_, M, impl Objective<M>>,
    ) -> Result<(), ZoError> {
        let (run, step) = (self.settings.seed, self.step);
        let (mut seeds, mut mask_seeds) = (Seeds::new(run, step), Seeds::for_mask(run, step));
        self.update.check(walk.tensors())?;
        let rounds = self.mask.rounds(walk.tensors())?;
        let mut estimate = self.no_estimate();
        for round in 0..rounds {
            mask_seeds.begin_round(round);
            let tensors = walk.tensors_shared();
            let selection = self.mask.select(&tensors, walk, &mut mask_seeds)?;
            walk.select(selection)?;
            estimate
                .queries
                .extend(self.estimate(&mut seeds, walk)?.queries);
            if round + 1 == rounds || self.mask.updates_each_round() {
                let update = self.update.update(lr, &estimate, walk)?;
                walk.update(update)?;
                estimate = self.no_estimate();
            }
        }
        Ok(())
    }

    /// `module` at its weights, ready for steps of this optimizer.
    pub(crate) fn hold<M: Module>(&self, module: M) -> Result<Perturbed<M>, StepError<M>> {
        let perturbation = self.settings.perturbation;
        let tensors = tensors(&module, &self.settings.trainable).and_then(|tensors| {
            perturbation.check(&tensors)?;
            Ok(tensors)
        });
        match tensors {
            Ok(tensors) => Ok(Perturbed::new(module, tensors.into()).perturbing(perturbation)),
            Err(error) => Err(StepError { module, error }),
        }
    }

    /// One step, for [`step`](ZerothOrderOptimizer::step) and for sessions. If it fails, the module stands at its weights.
    pub(crate) fn step_on<M: Module>(
        &mut self,
        lr: f64,
        perturbed: &mut Perturbed<M>,
        objective: impl Objective<M>,
    ) -> Result<StepReport, ZoError> {
        if !(lr >= 0.0 && lr.is_finite()) {
            return Err(ZoError::LearningRate(lr));
        }
        if let Some(weight_decay) = self.settings.decays().find(|decay| lr * decay >= 1.0) {
            return Err(ZoError::Decay { lr, weight_decay });
        }
        self.recognise(perturbed.tensors())?;
        let before = self.snapshot();
        let (settings, step) = (self.settings.clone(), self.step);
        let mut walk = Walk::new(perturbed, objective, settings, step, self.first);
        let skipped = match self.descend(lr, &mut walk) {
            Ok(()) => false,
            Err(error) => {
                walk.undo();
                self.go_back(before);
                let skip = self.settings.non_finite == NonFinite::Skip;
                if !(skip && error.is_non_finite()) {
                    return Err(error);
                }
                true
            }
        };
        if !skipped {
            for (selection, queries) in walk.observations() {
                self.mask.observe(walk.tensors(), selection, queries);
            }
            self.first = false;
        }
        self.step += 1;
        Ok(walk.report(skipped))
    }

    /// Whether these are the tensors that the record, if one was loaded, belongs to. From then on they are.
    fn recognise(&mut self, tensors: &[TensorInfo]) -> Result<(), ZoError> {
        let model = model_of(tensors, &self.settings);
        if let Some(known) = self.model.as_ref().filter(|_| self.loaded) {
            check_same(known, &model)?;
        }
        self.model = Some(model);
        self.loaded = false;
        Ok(())
    }

    fn snapshot(&self) -> Snapshot<S, K, U> {
        Snapshot {
            sampler: dyn_clone::clone(&self.sampler),
            mask: dyn_clone::clone(&self.mask),
            update: (!self.update.keeps_buffers()).then(|| dyn_clone::clone(&self.update)),
        }
    }

    fn go_back(&mut self, before: Snapshot<S, K, U>) {
        self.sampler = before.sampler;
        self.mask = before.mask;
        if let Some(update) = before.update {
            self.update = update;
        }
    }

    /// The method and its settings, for records.
    fn method(&self) -> Value {
        json!({
            "settings": self.settings.describe(),
            "sampler": self.sampler.describe(),
            "mask": self.mask.describe(),
            "update": self.update.describe(),
        })
    }

    fn step_with<M: Module>(
        &mut self,
        lr: f64,
        module: M,
        objective: impl Objective<M>,
    ) -> Result<(M, StepReport), StepError<M>> {
        let mut held = self.hold(module)?;
        match self.step_on(lr, &mut held, objective) {
            Ok(report) => Ok((held.restore(), report)),
            Err(error) => {
                let module = held.restore();
                Err(StepError { module, error })
            }
        }
    }

    /// As [`step`](ZerothOrderOptimizer::step), with an objective that computes the derivative along a given tangent itself: for
    /// [`Difference::Exact`](crate::Difference::Exact), the forward gradient.
    ///
    /// # Errors
    /// As [`step`](ZerothOrderOptimizer::step).
    pub fn step_jvp<M: Module, E: Into<JvpError>>(
        &mut self,
        lr: f64,
        module: M,
        objective: impl FnMut(&M, &Tangent<'_>) -> Result<Jvp, E>,
    ) -> Result<(M, StepReport), StepError<M>> {
        self.step_with(lr, module, JvpObjective(objective))
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
        self.step_with(lr, module, LossObjective(objective))
    }

    fn steps(&self) -> u64 {
        self.step
    }

    fn skip(&mut self) -> u64 {
        self.step += 1;
        self.step - 1
    }

    fn record(&self) -> OptimizerRecord {
        OptimizerRecord {
            version: OptimizerRecord::VERSION,
            method: self.method(),
            model: self.model.clone(),
            step: self.step,
            seed: self.settings.seed,
            sampler: self.sampler.record(),
            mask: self.mask.record(),
            update: self.update.record(),
            buffers: self.update.buffers(),
        }
    }

    fn load_record(&mut self, record: OptimizerRecord) -> Result<(), RecordError> {
        record.check("version", record.version, OptimizerRecord::VERSION)?;
        record.check_method(&self.method())?;
        record.check("seed", record.seed, self.settings.seed)?;
        let mut sampler = dyn_clone::clone(&self.sampler);
        let mut mask = dyn_clone::clone(&self.mask);
        sampler.load_record(record.sampler)?;
        mask.load_record(record.mask)?;
        self.update.load_record(record.update, record.buffers)?;
        (self.sampler, self.mask) = (sampler, mask);
        (self.step, self.model) = (record.step, record.model);
        (self.loaded, self.first) = (true, true);
        Ok(())
    }
}

#[cfg(test)]
mod tests;

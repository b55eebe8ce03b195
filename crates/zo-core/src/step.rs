//! The zeroth-order step. The whole algorithm is `ZeroOrder::estimate` and `ZeroOrder::descend`.

use burn::module::Module;
use serde_json::Map;

use crate::coefficients::CoefficientRule;
use crate::error::{ConfigError, RecordError, StepError, ZoError};
use crate::evaluator::Evaluator;
use crate::journal::Journal;
use crate::mask::{SelectContext, SparsityMask};
use crate::method::Method;
use crate::model::{ModelRecord, check_same, model_of};
use crate::objective::{JvpObjective, Losses, Numbers, Objective, RecordedObjective};
use crate::optimizer::{Session, ZerothOrderOptimizer};
use crate::perturbed::Perturbed;
use crate::record::{Buffers, OptimizerRecord, from_record};
use crate::report::StepReport;
use crate::sampler::{PerturbationSampler, SampleContext};
use crate::seeds::Seeds;
use crate::settings::{NonFinite, Settings};
use crate::tangent::Tangent;
use crate::tensors::TensorInfo;
use crate::update::{Estimate, UpdateContext, UpdateRule};

/// What the names of the noise's buffers begin with in a record.
const NOISE: &str = "noise.";

/// A zeroth-order optimizer: a [`Method`] at work.
///
/// A [`session`](ZerothOrderOptimizer::session) takes its steps in fewer passes.
#[derive(Debug, Clone)]
pub struct ZeroOrder {
    method: Method,
    step: u64,
    /// The model of the steps done.
    model: Option<ModelRecord>,
    /// Whether `model` came with a record, so that the next step has to be one of the same model.
    loaded: bool,
    /// Whether no step of this optimizer has succeeded yet.
    first: bool,
}

/// The parts of an optimizer as they were before a step.
struct Snapshot {
    /// `None` for parts that keep buffers: those change when nothing can fail any more. So does `update`.
    noise: Option<Box<dyn PerturbationSampler>>,
    sampler: Option<Box<dyn PerturbationSampler>>,
    mask: Box<dyn SparsityMask>,
    coefficients: Box<dyn CoefficientRule>,
    update: Option<Box<dyn UpdateRule>>,
}

impl Method {
    /// Builds the optimizer.
    ///
    /// # Errors
    /// If a setting makes no sense, or if the parts do not go together.
    pub fn init(&self) -> Result<ZeroOrder, ConfigError> {
        self.validate()?;
        Ok(ZeroOrder {
            method: self.clone(),
            step: 0,
            model: None,
            loaded: false,
            first: true,
        })
    }
}

impl ZeroOrder {
    pub(crate) fn settings(&self) -> &Settings {
        &self.method.settings
    }

    /// The method at work.
    pub fn method(&self) -> &Method {
        &self.method
    }

    /// The estimate `1/q sum_k g_k z_k` on what the mask has selected, g_k being the derivative along the direction z_k.
    fn estimate<M: Module>(
        &mut self,
        seeds: &mut Seeds,
        at: &mut Evaluator<'_, M, impl Numbers<M>>,
        journal: &mut Journal,
        estimate: &mut Estimate,
    ) -> Result<(), ZoError> {
        let Method {
            settings,
            noise,
            sampler,
            ..
        } = &mut self.method;
        let mut left = settings.queries;
        // The order of evaluations is that of queries one at a time, which a replay takes: those that evaluate before they are measured
        // are measured before the next is drawn.
        let evaluates = sampler.is_some() || noise.forwards() > 0;
        while left > 0 {
            let together = match !evaluates && at.measures_together() {
                true => left,
                false => 1,
            };
            let mut sample = || {
                let mut context = SampleContext::new(seeds, &mut **noise, at);
                match sampler {
                    Some(sampler) => sampler.sample(&mut context),
                    None => context.noise(),
                }
            };
            let z = (0..together).map(|_| sample()).collect::<Result<_, _>>()?;
            for query in settings.difference.measure(z, at)? {
                at.check_query(&query)?;
                estimate.push(query.clone(), journal.masked(&query.direction));
                journal.queries.push(query);
            }
            left -= together;
        }
        Ok(())
    }

    /// Selects, estimates, weighs, updates: once, or once for each round of the mask.
    fn descend<M: Module>(
        &mut self,
        lr: f64,
        at: &mut Evaluator<'_, M, impl Numbers<M>>,
        journal: &mut Journal,
    ) -> Result<(), ZoError> {
        let (run, step, tensors) = (self.settings().seed, self.step, at.tensors());
        let (mut seeds, mut mask_seeds) = (Seeds::new(run, step), Seeds::for_mask(run, step));
        self.method.update.check(&tensors)?;
        let rounds = self.method.mask.rounds(&tensors)?;
        let updates_each_round = self.method.mask.needs().updates_each_round;
        let mut estimate = Estimate::new(step, self.settings().queries);
        for round in 0..rounds {
            mask_seeds.begin_round(round);
            let mut context = SelectContext::new(&tensors, &mut mask_seeds, at);
            let selection = self.method.mask.select(&mut context)?;
            at.look_through(&selection);
            journal.select(selection, &tensors)?;
            self.estimate(&mut seeds, at, journal, &mut estimate)?;
            if round + 1 == rounds || updates_each_round {
                let Method {
                    settings,
                    coefficients,
                    update,
                    ..
                } = &mut self.method;
                estimate.weigh(&mut **coefficients, settings.difference, at)?;
                let mut context = UpdateContext::new(lr, &tensors, &estimate, at);
                let change = update.update(&mut context)?;
                journal.update((step, lr), change, settings, at)?;
                estimate = Estimate::new(step, self.settings().queries);
            }
        }
        Ok(())
    }

    /// One step on a module that is held. If it fails, the module stands at its weights.
    fn step_held<M: Module>(
        &mut self,
        lr: f64,
        held: &mut Perturbed<M>,
        objective: impl Numbers<M>,
    ) -> Result<StepReport, ZoError> {
        if !(lr >= 0.0 && lr.is_finite()) {
            let expected = "finite and not negative";
            return Err(ConfigError::setting("the learning rate", lr, expected).into());
        }
        if let Some(weight_decay) = self.settings().decays().find(|decay| lr * decay >= 1.0) {
            let expected = format!(
                "below 1 / {lr}, the learning rate: a step would decay weights to nothing or beyond"
            );
            return Err(ConfigError::setting("weight_decay", weight_decay, &expected).into());
        }
        self.recognise(held.tensors())?;
        let before = self.snapshot();
        let recorded = objective.is_recorded();
        let (epsilon, step) = (self.settings().epsilon, self.step);
        let mut at = Evaluator::new(held, objective, epsilon, step, self.first);
        let mut journal = Journal::default();
        let skipped = match self.descend(lr, &mut at, &mut journal) {
            Ok(()) => false,
            Err(error) => {
                journal.undo(at.perturbed);
                self.go_back(before);
                let skip = self.settings().non_finite == NonFinite::Skip;
                if !(skip && error.is_non_finite()) {
                    return Err(error);
                }
                if !at.can_skip() {
                    let parts =
                        "`NonFinite::Skip`, and queries or candidates that are split in place";
                    let reason = format!(
                        "{error}; a replay of the step would round the weights in another way. Use `Perturbation::OnTheFly`, or split rows"
                    );
                    return Err(ConfigError::incompatible(parts, reason).into());
                }
                true
            }
        };
        if !skipped {
            for observation in journal.observations(&at.tensors()) {
                self.method.mask.observe(&observation);
                self.method.noise.observe(&observation);
            }
            self.first &= recorded;
        }
        self.step += 1;
        let kappa = journal.kappa(epsilon).filter(|_| !skipped);
        Ok(at.report(journal.queries, skipped, kappa))
    }

    /// Whether these are the tensors that a loaded record, if any, belongs to. From then on they are the model's.
    fn recognise(&mut self, tensors: &[TensorInfo]) -> Result<(), ZoError> {
        let model = model_of(tensors, self.settings());
        if let Some(known) = self.model.as_ref().filter(|_| self.loaded) {
            check_same(known, &model)?;
        }
        self.model = Some(model);
        self.loaded = false;
        Ok(())
    }

    fn snapshot(&self) -> Snapshot {
        let Method {
            noise,
            sampler,
            mask,
            coefficients,
            update,
            ..
        } = &self.method;
        Snapshot {
            noise: (!noise.needs().buffers).then(|| noise.clone()),
            sampler: sampler.clone(),
            mask: mask.clone(),
            coefficients: coefficients.clone(),
            update: (!update.needs().buffers).then(|| update.clone()),
        }
    }

    fn go_back(&mut self, before: Snapshot) {
        if let Some(noise) = before.noise {
            self.method.noise = noise;
        }
        self.method.sampler = before.sampler;
        self.method.mask = before.mask;
        self.method.coefficients = before.coefficients;
        if let Some(update) = before.update {
            self.method.update = update;
        }
    }

    /// As [`step`](ZerothOrderOptimizer::step), with an objective that itself computes the derivative along a given tangent, a Jacobian-vector
    /// product: for [`Difference::Exact`](crate::Difference::Exact), the forward gradient. It returns L(theta) and `d/dt L(theta + t v)` at
    /// t = 0, v being the tangent.
    ///
    /// # Errors
    /// As [`step`](ZerothOrderOptimizer::step).
    pub fn step_jvp<M: Module, E: Into<Box<dyn std::error::Error + Send + Sync>>>(
        &mut self,
        lr: f64,
        module: M,
        objective: impl FnMut(&M, &Tangent<'_>) -> Result<(f64, f64), E>,
    ) -> Result<(M, StepReport), StepError<M>> {
        let mut held = self.hold(module)?;
        let report = self.step_held(lr, &mut held, JvpObjective(objective));
        held.end(report)
    }
}

impl ZerothOrderOptimizer for ZeroOrder {
    fn hold<M: Module>(&self, module: M) -> Result<Perturbed<M>, StepError<M>> {
        let Settings {
            trainable,
            perturbation,
            ..
        } = self.settings();
        let held = Perturbed::hold(module, trainable, *perturbation)?;
        held.along(self.method.noise.holds_one_basis())
    }

    fn step_on<M: Module>(
        &mut self,
        lr: f64,
        held: &mut Perturbed<M>,
        objective: impl Objective<M>,
    ) -> Result<StepReport, ZoError> {
        self.step_held(lr, held, Losses(objective))
    }

    fn replays(&self) -> bool {
        true
    }

    fn replay_on<M: Module>(
        &mut self,
        lr: f64,
        held: &mut Perturbed<M>,
        answers: &[f64],
    ) -> Result<StepReport, ZoError> {
        let mut objective = RecordedObjective::new(answers);
        let report = self.step_held(lr, held, &mut objective)?;
        objective.check_spent()?;
        Ok(report)
    }

    fn steps(&self) -> u64 {
        self.step
    }

    fn skip(&mut self) -> u64 {
        self.step += 1;
        self.step - 1
    }

    fn record(&self) -> OptimizerRecord {
        let Method {
            noise,
            sampler,
            mask,
            coefficients,
            update,
            ..
        } = &self.method;
        let sampler = sampler.as_ref().map(|sampler| sampler.record());
        let parts = [
            ("noise", noise.record()),
            ("sampler", sampler.unwrap_or_default()),
            ("mask", mask.record()),
            ("coefficients", coefficients.record()),
            ("update", update.record()),
        ];
        let own = noise.buffers().into_iter();
        let own = own.map(|(name, values)| (format!("{NOISE}{name}"), values));
        OptimizerRecord {
            version: OptimizerRecord::VERSION,
            method: self.method.config(),
            model: (self.model.as_ref())
                .map(|model| serde_json::to_value(model).unwrap_or_default())
                .unwrap_or_default(),
            step: self.step,
            parts: Map::from_iter(parts.map(|(part, state)| (part.to_owned(), state))),
            buffers: update.buffers().into_iter().chain(own).collect(),
        }
    }

    fn load_record(&mut self, record: OptimizerRecord) -> Result<(), RecordError> {
        record.check_version()?;
        record.check_method(&self.method.config())?;
        let before = self.snapshot();
        let loaded = self.load_parts(record);
        if loaded.is_err() {
            self.go_back(before);
        }
        loaded
    }
}

impl ZeroOrder {
    /// Restores each part; the update rule, which keeps what it was if that fails, is the last.
    fn load_parts(&mut self, record: OptimizerRecord) -> Result<(), RecordError> {
        let mut parts = record.parts;
        let mut state = |part: &str| parts.remove(part).unwrap_or_default();
        let model = from_record::<Option<ModelRecord>>("model", record.model)?;
        let method = &mut self.method;
        let (own, buffers): (Buffers, Buffers) =
            (record.buffers.into_iter()).partition(|(name, _)| name.starts_with(NOISE));
        let own = own.into_iter();
        let own = own.map(|(name, values)| (name[NOISE.len()..].to_owned(), values));
        method.noise.load_record(state("noise"))?;
        method.noise.load_buffers(own.collect())?;
        if let Some(sampler) = &mut method.sampler {
            sampler.load_record(state("sampler"))?;
        }
        method.mask.load_record(state("mask"))?;
        let coefficients = state("coefficients");
        method.coefficients.load_record(coefficients)?;
        method.update.load_record(state("update"), buffers)?;
        (self.step, self.model) = (record.step, model);
        (self.loaded, self.first) = (true, true);
        Ok(())
    }
}

impl<M: Module> Session<M, ZeroOrder> {
    /// As [`step`](Self::step), with the derivative computed by the objective itself: see [`ZeroOrder::step_jvp`].
    ///
    /// # Errors
    /// As [`step`](Self::step).
    pub fn step_jvp<E: Into<Box<dyn std::error::Error + Send + Sync>>>(
        &mut self,
        lr: f64,
        objective: impl FnMut(&M, &Tangent<'_>) -> Result<(f64, f64), E>,
    ) -> Result<StepReport, ZoError> {
        let objective = JvpObjective(objective);
        self.optimizer.step_held(lr, &mut self.held, objective)
    }
}

#[cfg(test)]
mod tests;

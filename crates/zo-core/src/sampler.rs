//! Perturbation samplers: along which direction a step probes the loss.

use dyn_clone::DynClone;
use serde_json::Value;

use crate::direction::Direction;
use crate::error::{ConfigError, RecordError, ZoError};
use crate::mask::Observation;
use crate::noise::Noise;
use crate::oracle::{Oracle, worst};
use crate::part::{Needs, PartConfig, name_of, stateless};
use crate::record::Buffers;
use crate::seeds::Seeds;
use crate::update::no_buffers;

/// Chooses the direction `z` of a query.
///
/// A method has two of them. Its *noise* draws fresh vectors: [`Noise`], or one of your own. Its *sampler*, if it has one, decides among
/// several of those, and may evaluate the loss before it does. For an unbiased estimate `E[z z^T]` must be the identity and `z` must not
/// depend on the losses.
///
/// ```
/// use serde::{Deserialize, Serialize};
/// use zo_core::{Direction, PerturbationSampler, SampleContext, ZoError};
///
/// /// The mean of `of` vectors of the method's noise, at the length of one.
/// #[derive(Debug, Clone, Serialize, Deserialize)]
/// struct Averaged { of: usize }
///
/// impl Default for Averaged {
///     fn default() -> Self { Self { of: 2 } }
/// }
///
/// impl PerturbationSampler for Averaged {
///     fn sample(&mut self, query: &mut SampleContext<'_>) -> Result<Direction, ZoError> {
///         let mut sum = Direction::zero();
///         for _ in 0..self.of {
///             sum = sum.plus((self.of as f64).sqrt().recip(), &query.noise()?);
///         }
///         Ok(sum)
///     }
/// }
/// ```
///
/// A sampler is its settings, which [`Serialize`](serde::Serialize) shows, and fields with `#[serde(skip)]` for what it remembers. It is
/// `Clone`: a step that fails goes back to a clone from before.
pub trait PerturbationSampler: DynClone + erased_serde::Serialize + Send {
    /// The direction of one query.
    ///
    /// # Errors
    /// If an evaluation fails.
    fn sample(&mut self, query: &mut SampleContext<'_>) -> Result<Direction, ZoError>;

    /// Whether all directions of a step, as a noise draws them, lie in one held [basis](crate::Basis). By default not.
    fn holds_basis(&self) -> bool {
        false
    }

    /// Whether it is one basis for the whole run, so that what is learnt can stay beside weights that cannot be written. By default not.
    fn holds_one_basis(&self) -> bool {
        false
    }

    /// What it requires of the other parts. By default nothing.
    fn needs(&self) -> Needs {
        Needs::default()
    }

    /// The scalars measured in a step that succeeded, in one of its rounds, for a noise that learns. By default ignored; samplers are not told.
    fn observe(&mut self, observation: &Observation<'_>) {
        let _ = observation;
    }

    /// The name in configurations and records: by default that of the type, in kebab-case.
    fn name(&self) -> String {
        name_of::<Self>()
    }

    /// Checks the settings; called when a method is built.
    ///
    /// # Errors
    /// Names the first setting that makes no sense.
    fn validate(&self) -> Result<(), ConfigError> {
        Ok(())
    }

    /// Evaluations of the loss for one direction. By default none.
    fn forwards(&self) -> usize {
        0
    }

    /// Evaluations of the loss in a step, however many directions are drawn. By default none.
    fn forwards_in_step(&self) -> usize {
        0
    }

    /// The state to save: by default none.
    fn record(&self) -> Value {
        Value::Null
    }

    /// Restores a saved state.
    ///
    /// # Errors
    /// If the record was not written by this sampler.
    fn load_record(&mut self, record: Value) -> Result<(), RecordError> {
        stateless("sampler", &record)
    }

    /// The buffers of a noise to save: by default none. One that [has some](Needs::buffers) is not cloned before a step: it changes in
    /// [`observe`](Self::observe), when nothing can fail any more.
    fn buffers(&self) -> Buffers {
        Buffers::default()
    }

    /// Restores them, after [`load_record`](Self::load_record).
    ///
    /// # Errors
    /// If they were not written by this noise.
    fn load_buffers(&mut self, buffers: Buffers) -> Result<(), RecordError> {
        no_buffers(&buffers)
    }
}

dyn_clone::clone_trait_object!(PerturbationSampler);

/// The name and the settings of a sampler.
pub(crate) fn config_of(sampler: &dyn PerturbationSampler) -> PartConfig {
    PartConfig::of(sampler.name(), sampler)
}

/// What a [`PerturbationSampler`] is given for one query.
pub struct SampleContext<'a> {
    seeds: &'a mut Seeds,
    /// `None` for the noise itself.
    noise: Option<&'a mut dyn PerturbationSampler>,
    oracle: &'a mut dyn Oracle,
}

impl<'a> SampleContext<'a> {
    pub(crate) fn new(
        seeds: &'a mut Seeds,
        noise: &'a mut dyn PerturbationSampler,
        oracle: &'a mut dyn Oracle,
    ) -> Self {
        let noise = Some(noise);
        Self {
            seeds,
            noise,
            oracle,
        }
    }

    /// A fresh vector of the method's noise.
    ///
    /// # Errors
    /// If the noise evaluates the loss and that fails, or if this sampler *is* the method's noise.
    pub fn noise(&mut self) -> Result<Direction, ZoError> {
        let noise = self.noise.as_deref_mut().ok_or_else(|| {
            ConfigError::incompatible(
                "a sampler that draws from the noise, and this method, whose noise it is",
                "make it the method's sampler, and make its noise `Noise::Gaussian` or another one that draws on its own",
            )
        })?;
        noise.sample(&mut SampleContext {
            seeds: self.seeds,
            noise: None,
            oracle: self.oracle,
        })
    }

    /// The next seed: a pure function of the run's seed, the step's number, and how many were already drawn in this step.
    pub fn seed(&mut self) -> u64 {
        self.seeds.draw()
    }

    /// The seed of what is drawn anew in the steps that are multiples of `interval`, and held between them; in step 0 alone if it is 0. A
    /// pure function of the run's seed and the step's number: a run that is resumed within an interval goes on with the same, and the
    /// direction that is probed cannot be another than the one that is updated along.
    pub fn held_seed(&self, interval: u64) -> u64 {
        let step = self.seeds.step();
        self.seeds
            .held(step - step.checked_rem(interval).unwrap_or(step))
    }

    /// A number from the uniform distribution over [0, 1): the upper 53 bits of the next seed.
    pub fn uniform(&mut self) -> f64 {
        self.seeds.uniform()
    }

    /// The step's number, from 0.
    pub fn step(&self) -> u64 {
        self.seeds.step()
    }

    /// The perturbation radius.
    pub fn epsilon(&self) -> f64 {
        self.oracle.epsilon()
    }

    /// L(theta), evaluated at most once in a step.
    ///
    /// # Errors
    /// If the objective fails or is not finite.
    pub fn loss_here(&mut self) -> Result<f64, ZoError> {
        self.oracle.loss_here()
    }

    /// L(theta + displacement) on this step's batch, the displacement being seen through the step's mask. For candidates that are compared
    /// with each other: infinity is a loss like any other, the worst.
    ///
    /// # Errors
    /// If the objective fails or returns NaN, or if the displacement does not fit the weights' dtype.
    pub fn loss_at(&mut self, displacement: &Direction) -> Result<f64, ZoError> {
        worst(self.oracle.loss_at(displacement), true)
    }

    /// [`loss_at`](Self::loss_at) each of these displacements, in their order: several in one evaluation, where the
    /// [objective](crate::Objective::losses) can.
    ///
    /// # Errors
    /// As [`loss_at`](Self::loss_at).
    pub fn losses_at(&mut self, displacements: &[Direction]) -> Result<Vec<f64>, ZoError> {
        self.oracle.losses_at(displacements, true)
    }
}

/// A fresh noise vector for every query: SPSA (Spall 1992).
impl PerturbationSampler for Noise {
    fn sample(&mut self, query: &mut SampleContext<'_>) -> Result<Direction, ZoError> {
        Ok(Direction::noise(*self, query.seed()))
    }

    fn name(&self) -> String {
        self.to_string()
    }
}

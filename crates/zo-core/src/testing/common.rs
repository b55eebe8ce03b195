//! The checks that every optimizer passes.

mod checks;

use burn::module::ParamGroup;
use burn::tensor::{DType, Device};

use super::toy::{Target, toy};
use super::{Failure, ensure};
use crate::difference::Difference;
use crate::method::Method;
use crate::optimizer::ZerothOrderOptimizer;

use checks::{run, value};

/// What an optimizer is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Setup {
    /// The seed of the run.
    pub seed: u64,
    /// Random directions per step.
    pub queries: usize,
    /// Whether losses are compared with L(theta), where the method's difference is central by default.
    pub one_sided: bool,
    /// Whether weights decay, each group at its own rate.
    pub decays: bool,
}

impl Setup {
    fn plain(seed: u64) -> Self {
        Self {
            seed,
            queries: 1,
            one_sided: false,
            decays: false,
        }
    }

    /// How losses become a derivative.
    pub fn difference(self) -> Difference {
        match self.one_sided {
            true => Difference::OneSided,
            false => Difference::Central,
        }
    }

    /// The weight decay of parameters that are in no group.
    pub fn weight_decay(self) -> f64 {
        if self.decays { 0.5 } else { 0.0 }
    }

    /// The weight decay of groups, some of them overlapping.
    pub fn weight_decay_groups(self) -> Vec<(ParamGroup, f64)> {
        let groups = [("norm", 0.0), ("head", 0.25), ("layers", 0.75)];
        let group = |(name, decay)| (ParamGroup::from_predicate(name), decay);
        if self.decays {
            groups.map(group).to_vec()
        } else {
            Vec::new()
        }
    }

    /// Puts all of it into a method; its difference stays unless [`one_sided`](Self::one_sided) asks for another.
    pub fn apply(self, mut method: Method) -> Method {
        let settings = &mut method.settings;
        if self.one_sided {
            settings.difference = Difference::OneSided;
        }
        settings.seed = self.seed;
        settings.queries = self.queries;
        settings.weight_decay = self.weight_decay();
        settings.weight_decay_groups = self.weight_decay_groups();
        method
    }
}

/// How the length of a step depends on the scale of the loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Scaling {
    /// In proportion, as in SGD: a loss twice as large takes half the learning rate.
    #[default]
    Linear,
    /// Not at all, as in Adam.
    Free,
    /// One part in proportion, another not at all: not checked; nor is weight decay, which each part has of its own.
    Mixed,
}

/// How [`check_common`] runs an optimizer.
#[derive(Debug, Clone)]
pub struct Common {
    /// The initial learning rate; it falls to 0 linearly. Default 0.01.
    pub lr: f64,
    /// Steps to the minimum. Default 1500.
    pub steps: usize,
    /// The share of a target's first value that counts as its minimum. Default 0.02; more for masks that keep some weights away from it.
    pub reach: f64,
    /// The devices to run on. Default burn's default device.
    pub devices: Vec<Device>,
    /// The dtypes to keep, on the first device, besides f32. Default none.
    pub dtypes: Vec<DType>,
    /// How the learning rate follows the scale of the loss. Default linear.
    pub scaling: Scaling,
    /// Whether to run the checks that take thousands of further steps. Default yes.
    pub thorough: bool,
}

impl Default for Common {
    fn default() -> Self {
        Self {
            lr: 0.01,
            steps: 1500,
            reach: 0.02,
            devices: vec![Device::default()],
            dtypes: Vec::new(),
            scaling: Scaling::Linear,
            thorough: true,
        }
    }
}

/// Checks, on a [`toy`]:
///
/// - on each device, each [`Target`] falls to `reach` of where it began; with one-sided differences too, and with losses (and gradients) a
///   thousand times smaller and larger;
/// - with 1 and with 3 queries, for seed 0 and the largest possible, two runs of a seed are the same, bit for bit, and another seed gives
///   another run;
/// - saving after 31 steps, loading and going on for 30 changes nothing, bit for bit;
/// - at learning rate 0 the weights stay where they are, within rounding; in half precision over 200 steps, and without a bias;
/// - an objective that returns NaN, at whichever evaluation, gives the module back within rounding, and the step does not count: tried
///   again on the same weights, it is the step of an optimizer that never failed, bit for bit; at the first step and at a later one;
/// - weights that move decay, each at the rate of the first group it matches, and no others;
/// - tensors that begin as zeros train, in later steps too;
/// - dtypes and shapes are kept, and half-precision weights move.
///
/// # Errors
/// The first check that fails.
pub fn check_common<O: ZerothOrderOptimizer>(
    make: impl Fn(Setup) -> O,
    options: &Common,
) -> Result<(), Failure> {
    for device in &options.devices {
        for target in Target::ALL {
            falls(&make, Setup::plain(1), target, 1.0, options, device)?;
        }
    }
    let device = &options.devices[0];
    for setup in [
        Setup::plain(0),
        Setup {
            queries: 3,
            ..Setup::plain(u64::MAX)
        },
    ] {
        checks::repeats(&make, setup, options, device)?;
        checks::resumes(&make, setup, options, device)?;
        checks::restores(&make, setup, options, device)?;
        checks::survives_nan(&make, setup, options, device)?;
    }
    if options.scaling != Scaling::Mixed {
        checks::decays(&make, options, device)?;
    }
    checks::trains_zeros(&make, options, device)?;
    for dtype in &options.dtypes {
        checks::keeps_dtype(&make, *dtype, options, device)?;
        if options.thorough {
            checks::restores_half_precision(&make, *dtype, device)?;
        }
    }
    if options.thorough {
        let one_sided = Setup {
            one_sided: true,
            ..Setup::plain(1)
        };
        falls(&make, one_sided, Target::Ellipsoid, 1.0, options, device)?;
        if options.scaling != Scaling::Mixed {
            for scale in [1e-3, 1e3] {
                let setup = Setup::plain(1);
                falls(&make, setup, Target::Sphere, scale, options, device)?;
            }
        }
    }
    Ok(())
}

/// `scale` times the target falls to its minimum.
fn falls<O: ZerothOrderOptimizer>(
    make: &impl Fn(Setup) -> O,
    setup: Setup,
    target: Target,
    scale: f64,
    options: &Common,
    device: &Device,
) -> Result<(), Failure> {
    let lr = match options.scaling {
        Scaling::Free => options.lr,
        Scaling::Linear | Scaling::Mixed => options.lr / scale,
    };
    let begin = value(target, &toy(device));
    let end = run(&mut make(setup), toy(device), lr, options.steps, |toy| {
        target.loss(toy) * scale as f32
    })?;
    let end = value(target, &end);
    ensure(end < options.reach * begin, "the minimum", || {
        format!(
            "{target:?} times {scale} went from {begin} to {end} in {} steps ({setup:?})",
            options.steps
        )
    })
}

//! `--method` and its settings: every method of the library by its name on the command line.

mod flags;

use std::error::Error;

use burn::module::ParamGroup;
use burn::tensor::Device;
use clap::Args;
use zo_llm::Tuning;
#[cfg(feature = "autodiff")]
use zo_llm::backpropagation::Backpropagation;
use zo_llm::finetune::LmOptimizer;
use zo_optim::variants::*;
use zo_optim::*;

pub use flags::Flags;

type Failure = Box<dyn Error>;

/// The settings every method shares.
#[derive(Debug, Clone)]
pub struct Shared {
    /// The perturbation radius.
    pub epsilon: f64,
    /// Random directions per step.
    pub queries: usize,
    /// The noise.
    pub distribution: Distribution,
    /// The seed of the run.
    pub seed: u64,
    /// How weights are displaced.
    pub perturbation: Perturbation,
    /// What trains.
    pub trainable: ParamGroup,
    /// How updated weights are rounded.
    pub rounding: Rounding,
}

/// A method's name, what it is, and the flags it has besides the shared ones.
#[derive(Debug)]
pub struct Method {
    /// The name for `--method`.
    pub name: &'static str,
    /// One line.
    pub about: &'static str,
    /// Its own flags, without the dashes.
    pub flags: &'static [&'static str],
    /// Its learning rate for the bundled model. For other models it is taken in the same proportion to MeZO's.
    pub bundled_lr: f64,
    /// Evaluations of the objective in a step of q queries and M candidates: (each query, each candidate of a query, each step).
    forwards: [usize; 3],
}

/// The learning rate of MeZO for the bundled model.
pub const BUNDLED_LR: f64 = 1e-4;

const fn method(
    name: &'static str,
    about: &'static str,
    flags: &'static [&'static str],
    bundled_lr: f64,
    forwards: [usize; 3],
) -> Method {
    Method {
        name,
        about,
        flags,
        bundled_lr,
        forwards,
    }
}

const FINITE: &str = "difference";
const LAYERS: &[&str] = &[FINITE, "drop", "layers"];

/// Every method.
pub const METHODS: &[Method] = &[
    method(
        "mezo",
        "ZO-SGD along fresh noise",
        &[FINITE],
        BUNDLED_LR,
        [2, 0, 0],
    ),
    method(
        "gv",
        "guiding vector: better candidates minus worse ones",
        &[FINITE, "candidates", "alpha", "normalize", "history"],
        BUNDLED_LR,
        [2, 1, 0],
    ),
    method(
        "greedy",
        "the best of M candidates",
        &[FINITE, "candidates"],
        3e-4,
        [2, 1, 0],
    ),
    method(
        "lezo",
        "a random subset of the layers in each step",
        LAYERS,
        3e-4,
        [2, 0, 0],
    ),
    method(
        "adalezo",
        "layers drawn by how much they moved the loss",
        &[
            FINITE,
            "share",
            "exploration",
            "temperature",
            "clip",
            "layers",
        ],
        BUNDLED_LR,
        [2, 0, 0],
    ),
    method(
        "curvzo",
        "tensors sampled by their curvature",
        &[FINITE, "budget", "adapt-every", "rate", "clip"],
        2e-4,
        [2, 0, 0],
    ),
    method(
        "momentum",
        "momentum in a buffer",
        &[FINITE, "beta", "dampening"],
        1e-5,
        [2, 0, 0],
    ),
    method(
        "momentum-window",
        "momentum from the seeds of the last steps",
        &[FINITE, "beta", "dampening", "window"],
        1e-5,
        [2, 0, 0],
    ),
    method(
        "adam",
        "Adam with its moments in buffers",
        &[FINITE, "beta-1", "beta-2", "adam-epsilon"],
        5e-4,
        [2, 0, 0],
    ),
    method(
        "adam-window",
        "Adam from the seeds of the last steps",
        &[FINITE, "beta-1", "beta-2", "adam-epsilon", "window"],
        5e-4,
        [2, 0, 0],
    ),
    method(
        "sign",
        "the sign of the projected gradient",
        &[FINITE],
        1e-3,
        [2, 0, 0],
    ),
    method(
        "sign-elementwise",
        "the sign of each element",
        &[FINITE],
        1e-3,
        [2, 0, 0],
    ),
    method(
        "conservative",
        "the best of staying, stepping back and stepping ahead",
        &[FINITE],
        3e-4,
        [2, 0, 3],
    ),
    method(
        "block-wise",
        "one block of weights at a time",
        &[FINITE, "block-order", "layers"],
        1e-3,
        [2, 0, 0],
    ),
    method(
        "sparse-random",
        "a random share of the elements",
        &[FINITE, "sparsity"],
        1e-3,
        [2, 0, 0],
    ),
    method(
        "sparse-magnitude",
        "the largest elements of each tensor, or of all",
        &[FINITE, "sparsity", "global", "refresh"],
        3e-3,
        [2, 0, 0],
    ),
    method(
        "sparse-mezo",
        "the smallest elements of each tensor",
        &[FINITE, "sparsity", "refresh"],
        1e-3,
        [2, 0, 0],
    ),
    method(
        "forward-gradient",
        "exact directional derivatives (needs the feature autodiff)",
        &[],
        BUNDLED_LR,
        [1, 0, 0],
    ),
    method(
        "hybrid",
        "MeZO below, burn's Adam on top (needs the feature autodiff)",
        &[FINITE, "top", "top-rate"],
        BUNDLED_LR,
        [2, 0, 1],
    ),
    method(
        "first-order-adam",
        "backpropagation with burn's Adam, to compare with (needs the feature autodiff)",
        &[],
        BUNDLED_LR,
        [0, 0, 1],
    ),
    method(
        "zero-shot",
        "no training: the model as it is",
        &[],
        BUNDLED_LR,
        [0, 0, 0],
    ),
    method(
        "icl",
        "no training: solved examples before each prompt",
        &["demonstrations"],
        BUNDLED_LR,
        [0, 0, 0],
    ),
];

/// The method of this name.
///
/// # Errors
/// If there is none; the error lists those there are.
pub fn find(name: &str) -> Result<&'static Method, Failure> {
    METHODS
        .iter()
        .find(|method| method.name == name)
        .ok_or_else(|| {
            let known: Vec<_> = METHODS.iter().map(|method| method.name).collect();
            format!("unknown method `{name}`: use one of {}", known.join(", ")).into()
        })
}

/// The learning rate unless told otherwise. For the bundled model it is the method's own. For others it is 5e-6 up to half a billion
/// parameters and 1e-6 beyond (MeZO's grid for full fine-tuning of OPT holds 1e-6 and 1e-7), times the method's proportion to MeZO's for
/// the bundled model. Virtual tokens multiply it by 1000 and LoRA by 100, as in MeZO's grids; smaller models have LoRA factors of their own.
pub fn learning_rate(method: &Method, tuning: &Tuning, parameters: usize, bundled: bool) -> f64 {
    let (full, lora) = match (bundled, parameters) {
        (true, _) => (BUNDLED_LR, 50.0),
        (_, ..500_000_000) => (5e-6, 200.0),
        _ => (1e-6, 100.0),
    };
    let factor = match tuning {
        Tuning::Full | Tuning::Head => 1.0,
        Tuning::Lora(_) => lora,
        Tuning::Prefix { .. } | Tuning::Prompt { .. } => 1000.0,
    };
    full * factor * method.bundled_lr / BUNDLED_LR
}

/// Every method with its flags, for `--method-help`.
pub fn help() -> String {
    let command = <Flags as Args>::augment_args(clap::Command::new("methods"));
    let mut text = String::from("Methods, each with its own flags:\n");
    for method in METHODS {
        let (name, about, lr) = (method.name, method.about, method.bundled_lr);
        text += &format!("\n  --method {name:18} {about} (--lr {lr:e} for the bundled model)\n");
        for flag in method.flags {
            let argument = command.get_arguments().find(|a| a.get_long() == Some(flag));
            let about = argument
                .and_then(clap::Arg::get_help)
                .map(ToString::to_string);
            text += &format!("      --{flag:18} {}\n", about.unwrap_or_default());
        }
    }
    text
}

/// The autodiff device of `device`, if this build can differentiate; else the device itself.
pub fn autodiff(device: &Device) -> Device {
    #[cfg(feature = "autodiff")]
    return device.clone().autodiff();
    #[cfg(not(feature = "autodiff"))]
    device.clone()
}

impl Method {
    /// Evaluations of the objective in a step with central differences (block-wise: for each block of a step).
    pub fn forwards_per_step(&self, queries: usize, flags: &Flags) -> usize {
        let [query, candidate, step] = self.forwards;
        queries * (query + candidate * flags.candidates.unwrap_or(2)) + step
    }

    /// Whether it needs an objective that can be differentiated.
    pub fn differentiates(&self) -> bool {
        matches!(
            self.name,
            "forward-gradient" | "hybrid" | "first-order-adam"
        )
    }

    /// Whether it changes the model at all.
    pub fn trains(&self) -> bool {
        !matches!(self.name, "zero-shot" | "icl")
    }

    /// Builds the optimizer.
    ///
    /// # Errors
    /// If a setting makes no sense, or is none of this method's.
    pub fn build(&self, shared: &Shared, flags: &Flags) -> Result<Box<dyn LmOptimizer>, Failure> {
        if let Some(foreign) = flags.given().iter().find(|flag| !self.flags.contains(flag)) {
            let own: Vec<String> = self.flags.iter().map(|flag| format!("--{flag}")).collect();
            let own = if own.is_empty() {
                "no flags".to_owned()
            } else {
                own.join(", ")
            };
            return Err(format!(
                "--{foreign} has no effect on --method {}: it has {own} (see --method-help)",
                self.name
            )
            .into());
        }
        /// A configuration with the shared settings.
        macro_rules! shared {
            ($config:expr) => {
                $config
                    .with_epsilon(shared.epsilon)
                    .with_queries(shared.queries)
                    .with_distribution(shared.distribution)
                    .with_seed(shared.seed)
                    .with_perturbation(shared.perturbation)
                    .with_trainable(shared.trainable.clone())
                    .with_rounding(shared.rounding)
                    .with_difference(flags.difference()?)
            };
        }
        /// Overrides the defaults by the flags that were given.
        macro_rules! given {
            ($config:ident: $($field:ident),*) => {
                $(if let Some(value) = flags.$field.clone() { $config.$field = value; })*
            };
        }
        Ok(match self.name {
            "mezo" => Box::new(shared!(MezoConfig::new()).init()?),
            "gv" => {
                let mut config = shared!(MezoGvConfig::new())
                    .with_normalize(flags.normalize)
                    .with_history(flags.history);
                given!(config: candidates, alpha);
                Box::new(config.init()?)
            }
            "greedy" => {
                let mut config = shared!(MezoGreedyConfig::new());
                given!(config: candidates);
                Box::new(config.init()?)
            }
            "lezo" => {
                let mut config = shared!(LezoConfig::new()).with_layers(flags.layers()?);
                given!(config: drop);
                Box::new(config.init()?)
            }
            "adalezo" => {
                let mut config = shared!(AdaLezoConfig::new()).with_layers(flags.layers()?);
                given!(config: share, exploration, temperature, clip);
                Box::new(config.init()?)
            }
            "curvzo" => {
                let mut config = shared!(CurvZoConfig::new()).with_clip(flags.clip);
                given!(config: budget, adapt_every, rate);
                Box::new(config.init()?)
            }
            "momentum" | "momentum-window" => {
                let mut config = shared!(MomentumConfig::new());
                given!(config: beta, dampening, window);
                match self.name {
                    "momentum" => Box::new(config.init()?),
                    _ => Box::new(config.init_window()?),
                }
            }
            "adam" | "adam-window" => {
                let mut config = shared!(AdamConfig::new());
                given!(config: beta_1, beta_2, adam_epsilon, window);
                match self.name {
                    "adam" => Box::new(config.init()?),
                    _ => Box::new(config.init_window()?),
                }
            }
            "sign" => Box::new(shared!(SignConfig::new()).init()?),
            "sign-elementwise" => Box::new(
                shared!(SignConfig::new())
                    .with_kind(SignKind::Elementwise)
                    .init()?,
            ),
            "conservative" => Box::new(shared!(ConservativeConfig::new()).init()?),
            "block-wise" => {
                let config = shared!(BlockWiseConfig::new());
                let config = config
                    .with_order(flags.block_order()?)
                    .with_blocks(flags.layers()?);
                Box::new(config.init()?)
            }
            "sparse-random" | "sparse-magnitude" | "sparse-mezo" => {
                let kind = match self.name {
                    "sparse-random" => SparseKind::Random,
                    "sparse-mezo" => SparseKind::SmallWeights,
                    _ if flags.global => SparseKind::GlobalMagnitude,
                    _ => SparseKind::Magnitude,
                };
                let mut config = shared!(SparseConfig::new()).with_kind(kind);
                given!(config: sparsity, refresh);
                Box::new(config.init()?)
            }
            "forward-gradient" => {
                self.need_autodiff()?;
                Box::new(shared!(ForwardGradientConfig::new()).init()?)
            }
            // Never asked for a step.
            "zero-shot" | "icl" => Box::new(shared!(MezoConfig::new()).init()?),
            _ => return self.first_order(shared, flags),
        })
    }

    fn need_autodiff(&self) -> Result<(), Failure> {
        if cfg!(feature = "autodiff") {
            return Ok(());
        }
        Err(format!(
            "this build cannot differentiate: add `--features autodiff` for --method {}",
            self.name
        )
        .into())
    }

    #[cfg(not(feature = "autodiff"))]
    fn first_order(&self, _: &Shared, _: &Flags) -> Result<Box<dyn LmOptimizer>, Failure> {
        self.need_autodiff()?;
        unreachable!("the feature is off")
    }

    #[cfg(feature = "autodiff")]
    fn first_order(&self, shared: &Shared, flags: &Flags) -> Result<Box<dyn LmOptimizer>, Failure> {
        let adam = burn::optim::AdamConfig::new().init();
        if self.name == "first-order-adam" {
            let trainable = shared.trainable.clone();
            return Ok(Box::new(Backpropagation::new(adam, trainable)));
        }
        let top = flags.top.clone();
        let top = top.map_or_else(
            || ParamGroup::from_any_predicates(vec!["decoder.final_layer_norm", "Llama.norm"]),
            ParamGroup::from_predicate,
        );
        let config = HybridConfig::new(top)
            .with_top_rate(flags.top_rate.unwrap_or(10.0))
            .with_epsilon(shared.epsilon)
            .with_queries(shared.queries)
            .with_distribution(shared.distribution)
            .with_seed(shared.seed)
            .with_perturbation(shared.perturbation)
            .with_trainable(shared.trainable.clone())
            .with_rounding(shared.rounding)
            .with_difference(flags.difference()?);
        Ok(Box::new(config.init(adam)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shared() -> Shared {
        Shared {
            epsilon: 1e-3,
            queries: 1,
            distribution: Distribution::Gaussian,
            seed: 0,
            perturbation: Perturbation::InPlace,
            trainable: ParamGroup::all(),
            rounding: Rounding::Nearest,
        }
    }

    #[test]
    fn every_method_builds_and_every_flag_is_some_methods() {
        for method in METHODS {
            let built = method.build(&shared(), &Flags::default());
            assert!(built.is_ok() || (method.differentiates() && cfg!(not(feature = "autodiff"))));
        }
        let command = <Flags as Args>::augment_args(clap::Command::new("methods"));
        let known = |flag: &str| METHODS.iter().any(|method| method.flags.contains(&flag));
        for argument in command.get_arguments() {
            assert!(
                argument.get_long().is_some_and(known),
                "{argument} belongs to no method"
            );
        }
    }

    #[test]
    fn a_flag_of_another_method_is_refused() {
        let flags = Flags {
            drop: Some(0.5),
            ..Flags::default()
        };
        let message = |name| match find(name).and_then(|method| method.build(&shared(), &flags)) {
            Ok(_) => String::new(),
            Err(error) => error.to_string(),
        };
        assert!(message("gv").contains("--drop has no effect on --method gv"));
        assert_eq!(message("lezo"), "");
        assert!(message("mezzo").contains("use one of mezo, gv"));
        assert!(help().contains("--drop"));
    }
}

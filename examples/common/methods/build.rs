//! A method's optimizer, from the settings and flags.

#[cfg(feature = "autodiff")]
use burn::module::ParamGroup;
use serde::Serialize;
use serde_json::Value;
#[cfg(feature = "autodiff")]
use zo_llm::backpropagation::Backpropagation;
use zo_llm::finetune::LmOptimizer;
use zo_optim::variants::*;
use zo_optim::*;

use super::{Failure, Flags, Method, Shared};

/// A configuration with the shared settings.
macro_rules! with_shared {
    ($config:expr, $shared:ident, $flags:ident) => {
        $config
            .with_epsilon($shared.epsilon)
            .with_queries($shared.queries)
            .with_noise($shared.noise)
            .with_seed($shared.seed)
            .with_perturbation($shared.perturbation)
            .with_trainable($shared.trainable.clone())
            .with_rounding($shared.rounding)
            .with_difference($flags.difference()?)
    };
}

/// A method's optimizer, and the whole configuration that it was built from, defaults included.
pub struct Built {
    /// The optimizer.
    pub optimizer: Box<dyn LmOptimizer>,
    /// Its configuration as JSON.
    pub settings: Value,
}

impl Built {
    fn new(
        optimizer: impl LmOptimizer + 'static,
        config: &impl Serialize,
    ) -> Result<Self, Failure> {
        // By way of the text: numbers of f32 become those that people write, 1e-5 and not 0.000009999999747378752.
        let settings = serde_json::from_str(&serde_json::to_string(config)?)?;
        Ok(Self {
            optimizer: Box::new(optimizer),
            settings,
        })
    }
}

impl Method {
    /// Builds the optimizer.
    ///
    /// # Errors
    /// If a setting makes no sense, or is none of this method's.
    pub fn build(&self, shared: &Shared, flags: &Flags) -> Result<Built, Failure> {
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
        macro_rules! shared {
            ($config:expr) => {
                with_shared!($config, shared, flags)
            };
        }
        /// Overrides the defaults by the flags that were given.
        macro_rules! given {
            ($config:ident: $($field:ident),*) => {
                $(if let Some(value) = flags.$field.clone() { $config.$field = value; })*
            };
        }
        match self.name {
            // The last two are never asked for a step.
            "mezo" | "zero-shot" | "icl" => {
                let config = shared!(MezoConfig::new());
                Built::new(config.init()?, &config)
            }
            "gv" => {
                let mut config = shared!(MezoGvConfig::new())
                    .with_normalize(flags.normalize)
                    .with_history(flags.history);
                given!(config: candidates, alpha);
                Built::new(config.init()?, &config)
            }
            "greedy" => {
                let mut config = shared!(MezoGreedyConfig::new());
                given!(config: candidates);
                Built::new(config.init()?, &config)
            }
            "lezo" => {
                let mut config = shared!(LezoConfig::new()).with_layers(flags.layers()?);
                given!(config: drop);
                Built::new(config.init()?, &config)
            }
            "adalezo" => {
                let mut config = shared!(AdaLezoConfig::new()).with_layers(flags.layers()?);
                given!(config: share, exploration, temperature, clip);
                Built::new(config.init()?, &config)
            }
            "curvzo" => {
                let mut config = shared!(CurvZoConfig::new()).with_clip(flags.clip);
                given!(config: budget, adapt_every, rate);
                Built::new(config.init()?, &config)
            }
            "momentum" | "momentum-window" => {
                let mut config = shared!(MomentumConfig::new());
                given!(config: beta, dampening, window);
                match self.name {
                    "momentum" => Built::new(config.init()?, &config),
                    _ => Built::new(config.init_window()?, &config),
                }
            }
            "adam" | "adam-window" => {
                let mut config = shared!(AdamConfig::new());
                given!(config: beta_1, beta_2, adam_epsilon, window);
                match self.name {
                    "adam" => Built::new(config.init()?, &config),
                    _ => Built::new(config.init_window()?, &config),
                }
            }
            "sign" => {
                let config = shared!(SignConfig::new());
                Built::new(config.init()?, &config)
            }
            "sign-elementwise" => {
                let config = shared!(SignConfig::new()).with_kind(SignKind::Elementwise);
                Built::new(config.init()?, &config)
            }
            "conservative" => {
                let config = shared!(ConservativeConfig::new());
                Built::new(config.init()?, &config)
            }
            "block-wise" => {
                let config = shared!(BlockWiseConfig::new());
                let config = config
                    .with_order(flags.block_order()?)
                    .with_blocks(flags.layers()?);
                Built::new(config.init()?, &config)
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
                Built::new(config.init()?, &config)
            }
            "forward-gradient" => {
                self.need_autodiff()?;
                let config = shared!(ForwardGradientConfig::new());
                Built::new(config.init()?, &config)
            }
            _ => self.first_order(shared, flags),
        }
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
    fn first_order(&self, _: &Shared, _: &Flags) -> Result<Built, Failure> {
        self.need_autodiff()?;
        unreachable!("the feature is off")
    }

    #[cfg(feature = "autodiff")]
    fn first_order(&self, shared: &Shared, flags: &Flags) -> Result<Built, Failure> {
        let config = burn::optim::AdamConfig::new();
        let adam = config.init();
        if self.name == "first-order-adam" {
            let trainable = shared.trainable.clone();
            return Built::new(Backpropagation::new(adam, trainable), &config);
        }
        let top = flags.top.clone();
        let top = top.map_or_else(
            || ParamGroup::from_any_predicates(vec!["decoder.final_layer_norm", "Llama.norm"]),
            ParamGroup::from_predicate,
        );
        let config = with_shared!(HybridConfig::new(top), shared, flags)
            .with_top_rate(flags.top_rate.unwrap_or(10.0));
        Built::new(config.init(adam)?, &config)
    }
}

//! The flags of single methods.

use clap::Args;
use zo_optim::variants::BlockOrder;
use zo_optim::{Difference, Layers};

use super::Failure;

/// Settings of single methods. Those that are not given have the defaults of the method's configuration.
#[derive(Args, Debug, Clone, Default)]
pub struct Flags {
    /// How losses become a derivative: central or one-sided
    #[arg(long, hide = true)]
    pub difference: Option<String>,
    /// gv, greedy: candidates per query [default: 2]
    #[arg(long, hide = true)]
    pub candidates: Option<usize>,
    /// gv: the share of candidates with a plus sign [default: 0.5]
    #[arg(long, hide = true, allow_hyphen_values = true)]
    pub alpha: Option<f64>,
    /// gv: scale the guiding vector to the size of one noise vector
    #[arg(long, hide = true)]
    pub normalize: bool,
    /// gv: keep the best candidate for the next query
    #[arg(long, hide = true)]
    pub history: bool,
    /// lezo: the share of layers that are dropped [default: 0.75]
    #[arg(long, hide = true, allow_hyphen_values = true)]
    pub drop: Option<f64>,
    /// lezo, adalezo, block-wise: blocks, children or modules [default: blocks]
    #[arg(long, hide = true)]
    pub layers: Option<String>,
    /// adalezo: draws in a step, as a share of the layers [default: 0.2]
    #[arg(long, hide = true, allow_hyphen_values = true)]
    pub share: Option<f64>,
    /// adalezo: the share of uniform draws [default: 0.1]
    #[arg(long, hide = true, allow_hyphen_values = true)]
    pub exploration: Option<f64>,
    /// adalezo: the temperature of the softmax [default: 0.6]
    #[arg(long, hide = true, allow_hyphen_values = true)]
    pub temperature: Option<f64>,
    /// adalezo, curvzo: the largest factor on an update [default: 4; curvzo: none]
    #[arg(long, hide = true, allow_hyphen_values = true)]
    pub clip: Option<f64>,
    /// curvzo: the budget to begin with, as a share of the tensors [default: 0.4]
    #[arg(long, hide = true, allow_hyphen_values = true)]
    pub budget: Option<f64>,
    /// curvzo: steps between adaptations of the budget, 0 for none [default: 20]
    #[arg(long, hide = true)]
    pub adapt_every: Option<usize>,
    /// curvzo: the rate of the moving averages [default: 0.1]
    #[arg(long, hide = true, allow_hyphen_values = true)]
    pub rate: Option<f64>,
    /// momentum, momentum-window: the share that is kept [default: 0.9]
    #[arg(long, hide = true, allow_hyphen_values = true)]
    pub beta: Option<f64>,
    /// momentum, momentum-window: the share of the new estimate that is left out [default: 0]
    #[arg(long, hide = true, allow_hyphen_values = true)]
    pub dampening: Option<f64>,
    /// momentum-window, adam-window: steps in the window [default: 16]
    #[arg(long, hide = true)]
    pub window: Option<usize>,
    /// adam, adam-window: the rate of the first moment [default: 0.9]
    #[arg(long, hide = true, allow_hyphen_values = true)]
    pub beta_1: Option<f64>,
    /// adam, adam-window: the rate of the second moment [default: 0.999]
    #[arg(long, hide = true, allow_hyphen_values = true)]
    pub beta_2: Option<f64>,
    /// adam, adam-window: added to the root of the second moment [default: 1e-8]
    #[arg(long, hide = true, allow_hyphen_values = true)]
    pub adam_epsilon: Option<f64>,
    /// block-wise: cyclic, all-at-once or all-after [default: cyclic]
    #[arg(long, hide = true)]
    pub block_order: Option<String>,
    /// sparse-*: the share of elements that do not move [default: 0.8]
    #[arg(long, hide = true, allow_hyphen_values = true)]
    pub sparsity: Option<f64>,
    /// sparse-magnitude: compare the elements of all tensors
    #[arg(long, hide = true)]
    pub global: bool,
    /// sparse-magnitude, sparse-mezo: steps between computations of the quantiles, 0 for the first step only [default: 0]
    #[arg(long, hide = true)]
    pub refresh: Option<u64>,
    /// hybrid: the tensors that Adam trains, those with this text in their path [default: the final normalization]
    #[arg(long, hide = true)]
    pub top: Option<String>,
    /// hybrid: Adam's learning rate as a multiple of --lr [default: 10]
    #[arg(long, hide = true, allow_hyphen_values = true)]
    pub top_rate: Option<f64>,
    /// icl: solved examples before each prompt, cut to the context [default: 32]
    #[arg(long, hide = true)]
    pub demonstrations: Option<usize>,
}

impl Flags {
    /// The names of the flags that were given.
    pub(super) fn given(&self) -> Vec<&'static str> {
        let given = [
            ("difference", self.difference.is_some()),
            ("candidates", self.candidates.is_some()),
            ("alpha", self.alpha.is_some()),
            ("normalize", self.normalize),
            ("history", self.history),
            ("drop", self.drop.is_some()),
            ("layers", self.layers.is_some()),
            ("share", self.share.is_some()),
            ("exploration", self.exploration.is_some()),
            ("temperature", self.temperature.is_some()),
            ("clip", self.clip.is_some()),
            ("budget", self.budget.is_some()),
            ("adapt-every", self.adapt_every.is_some()),
            ("rate", self.rate.is_some()),
            ("beta", self.beta.is_some()),
            ("dampening", self.dampening.is_some()),
            ("window", self.window.is_some()),
            ("beta-1", self.beta_1.is_some()),
            ("beta-2", self.beta_2.is_some()),
            ("adam-epsilon", self.adam_epsilon.is_some()),
            ("block-order", self.block_order.is_some()),
            ("sparsity", self.sparsity.is_some()),
            ("global", self.global),
            ("refresh", self.refresh.is_some()),
            ("top", self.top.is_some()),
            ("top-rate", self.top_rate.is_some()),
            ("demonstrations", self.demonstrations.is_some()),
        ];
        given
            .into_iter()
            .filter_map(|(name, given)| given.then_some(name))
            .collect()
    }

    pub(super) fn difference(&self) -> Result<Difference, Failure> {
        match self.difference.as_deref() {
            None | Some("central") => Ok(Difference::Central),
            Some("one-sided") => Ok(Difference::OneSided),
            Some(other) => {
                Err(format!("unknown difference `{other}`: use central or one-sided").into())
            }
        }
    }

    pub(super) fn layers(&self) -> Result<Layers, Failure> {
        match self.layers.as_deref() {
            None | Some("blocks") => Ok(Layers::Blocks),
            Some("children") => Ok(Layers::Children),
            Some("modules") => Ok(Layers::Modules),
            Some(other) => {
                Err(format!("unknown layers `{other}`: use blocks, children or modules").into())
            }
        }
    }

    pub(super) fn block_order(&self) -> Result<BlockOrder, Failure> {
        match self.block_order.as_deref() {
            None | Some("cyclic") => Ok(BlockOrder::Cyclic),
            Some("all-at-once") => Ok(BlockOrder::AllAtOnce),
            Some("all-after") => Ok(BlockOrder::AllAfter),
            Some(other) => Err(format!(
                "unknown block order `{other}`: use cyclic, all-at-once or all-after"
            )
            .into()),
        }
    }
}

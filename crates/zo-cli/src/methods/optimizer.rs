//! The optimizers that a run can have.

use burn::module::Module;
use zo_optim::{
    Method, Objective, OptimizerRecord, Perturbed, RecordError, StepError, StepReport, ZeroOrder,
    ZerothOrderOptimizer, ZoError,
};

use super::{Failure, Flags, Shared};

/// What burn's Adam trains in a hybrid run without `--top`: the last normalization, or a masked model's head.
#[cfg(feature = "autodiff")]
const TOP: [&str; 3] = ["decoder.final_layer_norm", "Llama.norm", "Roberta.lm_head"];

/// One of the optimizers that a run can have.
pub enum AnyOptimizer {
    /// A method of the registry.
    ZerothOrder(Box<ZeroOrder>),
    /// A method below, burn's Adam on top.
    #[cfg(feature = "autodiff")]
    Hybrid(Box<zo_optim::variants::Hybrid<ZeroOrder>>),
    /// burn's Adam.
    #[cfg(feature = "autodiff")]
    FirstOrder(Box<zo_llm::backpropagation::Backpropagation>),
}

impl AnyOptimizer {
    #[cfg(feature = "autodiff")]
    pub(super) fn hybrid(method: &Method, flags: &Flags) -> Result<Self, Failure> {
        use burn::module::ParamGroup;
        let top = flags.top.clone();
        let top = top.map_or_else(
            || ParamGroup::from_any_predicates(TOP.to_vec()),
            ParamGroup::from_predicate,
        );
        let config = zo_optim::variants::HybridConfig::new(top).with_top_rate(flags.top_rate());
        let adam = burn::optim::AdamConfig::new().init();
        Ok(Self::Hybrid(Box::new(config.init(method, adam)?)))
    }

    #[cfg(not(feature = "autodiff"))]
    pub(super) fn hybrid(_: &Method, _: &Flags) -> Result<Self, Failure> {
        Err("this build cannot differentiate: add `--features autodiff`".into())
    }

    #[cfg(feature = "autodiff")]
    pub(super) fn first_order(shared: &Shared) -> Result<(Self, serde_json::Value), Failure> {
        let config = burn::optim::AdamConfig::new();
        let trainable = shared.trainable.clone();
        let optimizer = zo_llm::backpropagation::Backpropagation::new(config.init(), trainable);
        // By way of text: f32 numbers become those that people write, 1e-5 and not 0.000009999999747378752.
        let settings = serde_json::from_str(&serde_json::to_string(&config)?)?;
        Ok((Self::FirstOrder(Box::new(optimizer)), settings))
    }

    #[cfg(not(feature = "autodiff"))]
    pub(super) fn first_order(_: &Shared) -> Result<(Self, serde_json::Value), Failure> {
        Err("this build cannot differentiate: add `--features autodiff`".into())
    }
}

/// Forwards a call.
macro_rules! each {
    ($self:ident, $optimizer:ident => $call:expr) => {
        match $self {
            Self::ZerothOrder($optimizer) => $call,
            #[cfg(feature = "autodiff")]
            Self::Hybrid($optimizer) => $call,
            #[cfg(feature = "autodiff")]
            Self::FirstOrder($optimizer) => $call,
        }
    };
}

impl ZerothOrderOptimizer for AnyOptimizer {
    fn hold<M: Module>(&self, module: M) -> Result<Perturbed<M>, StepError<M>> {
        each!(self, optimizer => optimizer.hold(module))
    }

    fn step_on<M: Module>(
        &mut self,
        lr: f64,
        held: &mut Perturbed<M>,
        objective: impl Objective<M>,
    ) -> Result<StepReport, ZoError> {
        each!(self, optimizer => optimizer.step_on(lr, held, objective))
    }

    fn replays(&self) -> bool {
        each!(self, optimizer => optimizer.replays())
    }

    fn replay_on<M: Module>(
        &mut self,
        lr: f64,
        held: &mut Perturbed<M>,
        answers: &[f64],
    ) -> Result<StepReport, ZoError> {
        each!(self, optimizer => optimizer.replay_on(lr, held, answers))
    }

    fn steps(&self) -> u64 {
        each!(self, optimizer => optimizer.steps())
    }

    fn skip(&mut self) -> u64 {
        each!(self, optimizer => optimizer.skip())
    }

    fn record(&self) -> OptimizerRecord {
        each!(self, optimizer => optimizer.record())
    }

    fn load_record(&mut self, record: OptimizerRecord) -> Result<(), RecordError> {
        each!(self, optimizer => optimizer.load_record(record))
    }
}

#[cfg(all(test, feature = "autodiff"))]
mod tests {
    use burn::module::ParamGroup;
    use burn::tensor::Device;
    use zo_llm::{CausalLm, ModelConfig};

    use super::TOP;

    #[test]
    fn a_model_of_every_kind_has_a_top() {
        let sizes = r#""vocab_size": 8, "hidden_size": 4, "num_hidden_layers": 2, "num_attention_heads": 1,
            "max_position_embeddings": 8, "pad_token_id": 1, "bos_token_id": 2, "eos_token_id": 2"#;
        let top = ParamGroup::from_any_predicates(TOP.to_vec());
        for (kind, rest) in [
            ("opt", r#""ffn_dim": 4, "word_embed_proj_dim": 4"#),
            ("llama", r#""intermediate_size": 4, "rms_norm_eps": 1e-6"#),
            ("roberta", r#""intermediate_size": 4"#),
        ] {
            let config = format!(r#"{{"model_type": "{kind}", {sizes}, {rest}}}"#);
            let config = ModelConfig::from_json(&config).unwrap();
            let model = CausalLm::new(&config, &Device::flex()).unwrap();
            let found = zo_optim::tensors(&model, &top).unwrap();
            let below = |path: &str| path.contains("layer.") || path.contains("layers.");
            let mut trained = found.iter().filter(|tensor| tensor.trainable);
            assert!(trained.all(|tensor| !below(&tensor.path)), "{kind}");
        }
    }
}

//! Tiny models with known weights, and ways to inspect them.

use std::collections::BTreeMap;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Device, Tensor, TensorData};
use zo_llm::tuning::lora::{self, LoraConfig, LoraError};
use zo_llm::{CausalLm, LlamaConfig, ModelConfig, OptConfig, PaddingSide, TokenBatch};

/// Changes the values of parameters, given their path.
pub(crate) struct Edit<F> {
    path: Vec<String>,
    edit: F,
}

impl<F: FnMut(&str, Vec<f32>) -> Vec<f32>> ModuleMapper for Edit<F> {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let path = self.path.join(".");
        param.map(|tensor| {
            let (shape, device, dtype) = (tensor.shape(), tensor.device(), tensor.dtype());
            let values: Vec<f32> = tensor.into_data().iter::<f32>().collect();
            let data = TensorData::new((self.edit)(&path, values), shape);
            Tensor::from_data(data, (&device, dtype))
        })
    }
}

pub(crate) fn edit(model: CausalLm, edit: impl FnMut(&str, Vec<f32>) -> Vec<f32>) -> CausalLm {
    let path = Vec::new();
    model.map(&mut Edit { path, edit })
}

/// Shape and values of a parameter.
pub(crate) type Values = (Vec<usize>, Vec<f32>);

/// All parameters by their paths.
pub(crate) fn values(model: &CausalLm) -> BTreeMap<String, Values> {
    #[derive(Default)]
    struct All {
        path: Vec<String>,
        found: BTreeMap<String, Values>,
    }
    impl ModuleVisitor for All {
        fn enter_module(&mut self, name: &str, _: &str) {
            self.path.push(name.to_owned());
        }
        fn exit_module(&mut self, _: &str, _: &str) {
            self.path.pop();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let shape = param.shape().to_vec();
            let values = param.val().into_data().iter::<f32>().collect();
            self.found.insert(self.path.join("."), (shape, values));
        }
    }
    let mut all = All::default();
    model.visit(&mut all);
    all.found
}

pub(crate) fn configs() -> [ModelConfig; 2] {
    let mut llama = LlamaConfig::new(61, 16, 24, 2, 4, 24);
    llama.num_key_value_heads = 2;
    [
        ModelConfig::Opt(OptConfig::new(61, 16, 2, 4, 24)),
        ModelConfig::Llama(llama),
    ]
}

/// The same weights each time.
pub(crate) fn model_on(config: &ModelConfig, device: &Device) -> CausalLm {
    let mut next = 0u32;
    edit(CausalLm::new(config, device).unwrap(), |path, values| {
        let around = if path.contains("norm.weight") {
            1.0
        } else {
            0.0
        };
        let value = |_| {
            next += 1;
            around + 0.3 * (0.7 * next as f32).sin()
        };
        values.into_iter().map(value).collect()
    })
}

pub(crate) fn model(config: &ModelConfig) -> CausalLm {
    model_on(config, &Device::default())
}

/// Adapters whose B is not zero.
pub(crate) fn adapted(config: &ModelConfig, lora: &LoraConfig) -> CausalLm {
    changed(lora::apply(model(config), lora, 3).unwrap())
}

pub(crate) fn changed(model: CausalLm) -> CausalLm {
    let mut next = 0u32;
    edit(model, |path, mut values| {
        if path.ends_with(".lora.b") {
            for value in &mut values {
                next += 1;
                *value = 0.4 * (0.9 * next as f32).cos();
            }
        }
        values
    })
}

pub(crate) fn logits_on(model: &CausalLm, device: &Device) -> Vec<f32> {
    let rows: [Vec<u32>; 2] = [vec![5, 9, 2, 33, 60], vec![7, 7, 12]];
    let batch = TokenBatch::new(&rows, 1, PaddingSide::Right, device).unwrap();
    let logits = model.logits(&batch).into_data();
    // The last two positions of the second row are padding.
    logits.iter::<f32>().take(8 * 61).collect()
}

pub(crate) fn logits(model: &CausalLm) -> Vec<f32> {
    logits_on(model, &Device::default())
}

pub(crate) fn difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    let pairs = a.iter().zip(b);
    pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[track_caller]
pub(crate) fn says<T>(result: Result<T, LoraError>, parts: &[&str]) {
    let message = result.map(|_| ()).unwrap_err().to_string();
    for part in parts {
        assert!(message.contains(part), "no {part:?} in: {message}");
    }
}

pub(crate) fn rslora() -> LoraConfig {
    let targets = ["fc2", "down_proj", "layers.1.self_attn.v_proj"];
    LoraConfig::new()
        .with_rank(3)
        .with_alpha(-1.5)
        .with_targets(targets.map(str::to_owned).to_vec())
        .with_rslora(true)
}

/// [`rslora`] without the target that only the other architecture has.
pub(crate) fn rslora_of(config: &ModelConfig) -> LoraConfig {
    let mut lora = rslora();
    let other = match config {
        ModelConfig::Opt(_) => "down_proj",
        ModelConfig::Llama(_) | ModelConfig::Roberta(_) => "fc2",
    };
    lora.targets.retain(|target| target != other);
    lora
}

//! Each family is trained, masked, saved and loaded as what it is.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::collections::BTreeMap;

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Device, Tensor};
use common::{CASES, Golden, MASKED, copy, edit, edit_config, golden};
use serde_json::Value;
use zo_llm::tuning::LoraConfig;
use zo_llm::{CausalLm, Dtype, PaddingSide, TokenBatch, Tuning, load_model, save_model};
use zo_optim::prelude::*;

/// One folder of each family.
const FAMILIES: [&str; 7] = [
    "opt-pre-norm",
    "llama-gqa-shards",
    "mistral-window",
    "qwen2-tied",
    "qwen3-bias-alternating",
    "roberta-tied",
    "gemma3-alternating",
];

fn plain(case: &str) -> CausalLm {
    load_model(&golden(case), Dtype::F32, &Device::default())
        .unwrap()
        .1
}

/// The bits of every parameter, by its path.
fn bits(model: &CausalLm) -> BTreeMap<String, Vec<u8>> {
    #[derive(Default)]
    struct All(Vec<String>, BTreeMap<String, Vec<u8>>);
    impl ModuleVisitor for All {
        fn enter_module(&mut self, name: &str, _: &str) {
            self.0.push(name.to_owned());
        }
        fn exit_module(&mut self, _: &str, _: &str) {
            self.0.pop();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let bytes = param.val().into_data().as_bytes().to_vec();
            self.1.insert(self.0.join("."), bytes);
        }
    }
    let mut all = All::default();
    model.visit(&mut all);
    all.1
}

/// The paths of the parameters that differ.
fn changed(before: &BTreeMap<String, Vec<u8>>, after: &BTreeMap<String, Vec<u8>>) -> Vec<String> {
    assert_eq!(before.len(), after.len());
    let paths = before.iter().filter(|(path, bits)| after[*path] != **bits);
    paths.map(|(path, _)| path.clone()).collect()
}

/// The model after `steps` steps of a method, and what its last step swept.
fn train(method: Method, model: CausalLm, steps: usize) -> (CausalLm, StepReport) {
    let device = Device::default();
    let rows = [vec![5, 6, 7, 8, 9, 10, 11, 12], vec![8, 9, 4], vec![21]];
    let batch = TokenBatch::new(&rows, 0, PaddingSide::Right, &device).unwrap();
    let loss = |model: &CausalLm| {
        let scores = model.last_logits(&batch, &[3, 4, 5]);
        zo_llm::dataset::option_loss(scores, &[0, 2, 1])
    };
    let mut optim = method.with_seed(7).init().unwrap();
    let (mut model, mut last) = (model, None);
    for _ in 0..steps {
        let (next, report) = optim.step(1e-3, model, loss).unwrap();
        (model, last) = (next, Some(report));
    }
    (model, last.unwrap())
}

fn tunings() -> [Tuning; 5] {
    [
        Tuning::Full,
        Tuning::Lora(LoraConfig::default().with_rank(2)),
        Tuning::Prefix { length: 3 },
        Tuning::Prompt { length: 3 },
        Tuning::Head,
    ]
}

#[test]
fn every_method_trains_every_family() {
    for case in FAMILIES {
        for preset in zo_optim::registry().presets() {
            let method = (preset.method)();
            if method.config()["difference"] == "exact" {
                // Needs a Jacobian-vector product.
                continue;
            }
            let (before, model) = (bits(&plain(case)), plain(case));
            let (model, report) = train(method.with_epsilon(1e-2), model, 3);
            assert!(report.loss().is_finite(), "{case} {}", preset.name);
            assert!(
                !changed(&before, &bits(&model)).is_empty(),
                "{case} {}",
                preset.name
            );
        }
    }
}

#[test]
fn what_is_tuned_moves_and_nothing_else() {
    for case in CASES.into_iter().chain(MASKED) {
        for tuning in tunings() {
            let tuned = tuning.apply(plain(case), 3).unwrap();
            let before = bits(&tuned);
            let method = mezo().with_epsilon(1e-2).with_trainable(tuning.trainable());
            let (after, report) = train(method, tuned, 1);
            let moved = changed(&before, &bits(&after));
            let part = match &tuning {
                Tuning::Full => "",
                Tuning::Lora(_) => ".lora.b",
                Tuning::Prefix { .. } => ".self_attn.prefix.",
                Tuning::Prompt { .. } => "prompt",
                Tuning::Head => "lm_head.",
            };
            let expected: Vec<&String> = before.keys().filter(|p| p.contains(part)).collect();
            assert_eq!(
                moved.iter().collect::<Vec<_>>(),
                expected,
                "{case} {tuning}"
            );
            let weights = expected.iter().map(|path| before[*path].len() / 4);
            let weights = weights.sum::<usize>() * report.passes;
            assert_eq!(report.swept, weights as u64, "{case} {tuning}");
        }
    }
}

#[test]
fn a_layer_mask_takes_whole_blocks() {
    for case in FAMILIES {
        let before = bits(&plain(case));
        let method = Method::new()
            .with_epsilon(1e-2)
            .with_mask(RandomLayers::new().with_drop(0.5));
        let (after, report) = train(method, plain(case), 1);
        let moved = changed(&before, &bits(&after));
        let number = |part: &str| part.parse::<u8>().ok();
        let block = |path: &str| path.split('.').find_map(number);
        let kept: Vec<u8> = moved.iter().filter_map(|path| block(path)).collect();
        let expected: Vec<&String> = before
            .keys()
            .filter(|path| block(path).is_none_or(|layer| kept.contains(&layer)))
            .collect();
        assert_eq!(moved.iter().collect::<Vec<_>>(), expected, "{case}");
        assert!(moved.len() < before.len(), "{case}");
        let weights = expected.iter().map(|path| before[*path].len() / 4);
        let weights = weights.sum::<usize>() * report.passes;
        assert_eq!(report.swept, weights as u64, "{case}");
    }
}

#[test]
fn saved_models_keep_their_family() {
    let device = Device::default();
    for case in CASES.into_iter().chain(MASKED) {
        let (config, model) = load_model(&golden(case), Dtype::F32, &device).unwrap();
        let dir = tempfile::tempdir().unwrap();
        save_model(dir.path(), &config, &model, Dtype::F32).unwrap();
        let read = |dir: &std::path::Path| -> Value {
            let text = std::fs::read_to_string(dir.join("config.json")).unwrap();
            serde_json::from_str(&text).unwrap()
        };
        let (original, saved) = (read(&golden(case)), read(dir.path()));
        for field in ["architectures", "model_type"] {
            assert_eq!(original[field], saved[field], "{case}");
        }
        let (again, loaded) = load_model(dir.path(), Dtype::F32, &device).unwrap();
        assert_eq!(again, config, "{case}");
        assert!(changed(&bits(&model), &bits(&loaded)).is_empty(), "{case}");
    }
}

#[test]
fn folders_of_a_model_without_a_head_load() {
    let device = Device::default();
    for (case, class) in [
        ("mistral-head-dim", "Mistral"),
        ("qwen2-tied", "Qwen2"),
        ("qwen3-head-dim", "Qwen3"),
        ("llama-tied-head-dim", "Llama"),
    ] {
        let dir = copy(case);
        edit(dir.path(), |tensors| {
            *tensors = std::mem::take(tensors)
                .into_iter()
                .map(|(name, tensor)| (name.trim_start_matches("model.").to_owned(), tensor))
                .collect();
        });
        edit_config(
            dir.path(),
            &format!("{class}ForCausalLM"),
            &format!("{class}Model"),
        );
        let (_, model) = load_model(dir.path(), Dtype::F32, &device).unwrap();
        assert!(
            Golden::read(case).difference(&model, &device) <= 1e-4,
            "{case}"
        );
    }
}

//! Logits compared with those of transformers, on every CPU backend that is compiled in.

#![cfg_attr(
    feature = "ndarray",
    allow(
        deprecated,
        reason = "burn deprecates its ndarray backend; it is supported here as long as burn has it"
    )
)]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Device, Tensor};
use common::{CASES, DYNAMIC, Golden, MASKED, copy, edit, edit_config, golden};
use zo_llm::{CausalLm, Dtype, PaddingSide, TokenBatch, load_model};

const TOLERANCE: f32 = 1e-4;

fn check(device: &Device) {
    for case in CASES.into_iter().chain(DYNAMIC).chain(MASKED) {
        let (_, model) = load_model(&golden(case), Dtype::F32, device).unwrap();
        let difference = Golden::read(case).difference(&model, device);
        assert!(difference <= TOLERANCE, "{case}: {difference}");
    }
}

#[cfg(feature = "flex")]
#[test]
fn flex_agrees_with_transformers() {
    check(&Device::flex());
}

#[cfg(feature = "ndarray")]
#[test]
fn ndarray_agrees_with_transformers() {
    check(&Device::ndarray());
}

fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().iter::<f32>().collect()
}

fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter()
        .zip(b)
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, f32::max)
}

fn model(case: &str) -> CausalLm {
    load_model(&golden(case), Dtype::F32, &Device::default())
        .unwrap()
        .1
}

/// Sequences of many lengths, long enough to be split into several parts.
fn sequences() -> Vec<Vec<u32>> {
    (0..40)
        .map(|row| {
            (0..1 + row * 7 % 23)
                .map(|at| 3 + (row * 31 + at * 17) % 58)
                .collect()
        })
        .collect()
}

#[test]
fn last_logits_are_the_logits_of_the_last_real_position() {
    let device = Device::default();
    let tokens = [7, 3, 60];
    for case in CASES.into_iter().chain(MASKED) {
        let model = model(case);
        for side in [PaddingSide::Left, PaddingSide::Right] {
            let sequences = sequences();
            let batch = TokenBatch::new(&sequences, 0, side, &device).unwrap();
            let [_, seq, vocab] = model.logits(&batch).dims();
            let all = values(model.logits(&batch));
            let expected: Vec<f32> = sequences
                .iter()
                .enumerate()
                .flat_map(|(row, sequence)| {
                    let last = if side == PaddingSide::Left {
                        seq - 1
                    } else {
                        sequence.len() - 1
                    };
                    tokens.map(|token| all[(row * seq + last) * vocab + token as usize])
                })
                .collect();
            let found = model.last_logits(&batch, &tokens);
            assert_eq!(found.dims(), [sequences.len(), tokens.len()]);
            let difference = largest_difference(&values(found), &expected);
            assert!(difference < 1e-5, "{case} {side:?}: {difference}");
        }
    }
}

/// More rows in one part than are computed at a time.
#[cfg(feature = "flex")]
#[test]
fn many_rows_are_what_they_are_alone() {
    let device = Device::flex();
    let one_thread = rayon::ThreadPoolBuilder::new().num_threads(1);
    let one_thread = one_thread.build().unwrap();
    for case in CASES.into_iter().chain(MASKED) {
        let (_, model) = load_model(&golden(case), Dtype::F32, &device).unwrap();
        let sequences = sequences();
        let rows: usize = sequences.iter().map(Vec::len).sum();
        assert!(rows > 400, "only {rows} rows");
        let logits = |sequences: &[Vec<u32>]| {
            one_thread.install(|| {
                let batch = TokenBatch::new(sequences, 1, PaddingSide::Right, &device).unwrap();
                model.logits(&batch)
            })
        };
        let all = logits(&sequences);
        for (row, sequence) in sequences.iter().enumerate() {
            let [found, alone] = [
                all.clone().narrow(0, row, 1),
                logits(std::slice::from_ref(sequence)),
            ];
            let found = found.narrow(1, 0, sequence.len());
            let difference = largest_difference(&values(found), &values(alone));
            assert!(difference < 1e-5, "{case}, sequence {row}: {difference}");
        }
    }
}

#[test]
fn logits_at_a_mask_are_those_of_its_position() {
    let device = Device::default();
    let tokens = [7, 3, 60];
    for case in MASKED {
        let model = model(case);
        let sequences = sequences();
        let batch = TokenBatch::new(&sequences, 1, PaddingSide::Right, &device).unwrap();
        let [_, seq, vocab] = model.logits(&batch).dims();
        let all = values(model.logits(&batch));
        let at: Vec<usize> = sequences.iter().map(|row| row.len() * 2 / 3).collect();
        let rows = at.iter().enumerate();
        let expected: Vec<f32> = rows
            .flat_map(|(row, at)| tokens.map(|t| all[(row * seq + at) * vocab + t as usize]))
            .collect();
        let found = values(model.logits_at(&batch, &at, &tokens));
        let difference = largest_difference(&found, &expected);
        assert!(difference < 1e-5, "{case}: {difference}");
    }
}

#[test]
fn a_sequence_does_not_notice_its_batch() {
    let device = Device::default();
    for case in CASES.into_iter().chain(MASKED) {
        let model = model(case);
        let sequences = sequences();
        let together = TokenBatch::new(&sequences, 0, PaddingSide::Right, &device).unwrap();
        let together = values(model.last_logits(&together, &[5, 6]));
        for (row, sequence) in sequences.iter().enumerate() {
            let alone = TokenBatch::new(
                std::slice::from_ref(sequence),
                0,
                PaddingSide::Left,
                &device,
            )
            .unwrap();
            let alone = values(model.last_logits(&alone, &[5, 6]));
            let difference = largest_difference(&alone, &together[2 * row..2 * row + 2]);
            assert!(difference < 1e-5, "{case} row {row}: {difference}");
        }
    }
}

#[cfg(feature = "flex")]
#[test]
fn half_precision_stays_near() {
    let device = Device::flex();
    for case in CASES.into_iter().chain(MASKED) {
        let golden_file = Golden::read(case);
        for (dtype, tolerance) in [(Dtype::Bf16, 0.15), (Dtype::F16, 0.02)] {
            let (_, model) = load_model(&golden(case), dtype, &device).unwrap();
            let difference = golden_file.difference(&model, &device);
            assert!(
                difference < tolerance && difference > 0.0,
                "{case} {dtype}: {difference}"
            );
        }
    }
}

#[test]
fn any_float_type_may_be_stored() {
    let device = Device::default();
    let dir = copy("llama-tied-head-dim");
    edit(dir.path(), |tensors| {
        for (index, (dtype, _, data)) in tensors.values_mut().enumerate() {
            let values = data
                .chunks(4)
                .map(|b| f32::from_le_bytes(b.try_into().unwrap()));
            (*dtype, *data) = match index % 3 {
                0 => (
                    safetensors::Dtype::F64,
                    values.flat_map(|v| f64::from(v).to_le_bytes()).collect(),
                ),
                1 => (
                    safetensors::Dtype::F16,
                    values
                        .flat_map(|v| half::f16::from_f32(v).to_le_bytes())
                        .collect(),
                ),
                _ => (
                    safetensors::Dtype::BF16,
                    values
                        .flat_map(|v| half::bf16::from_f32(v).to_le_bytes())
                        .collect(),
                ),
            };
        }
    });
    let (_, model) = load_model(dir.path(), Dtype::F32, &device).unwrap();
    assert!(Golden::read("llama-tied-head-dim").difference(&model, &device) < 0.1);
}

#[test]
fn old_names_and_leftovers_are_accepted() {
    let device = Device::default();
    let dir = copy("opt-pre-norm");
    edit(dir.path(), |tensors| {
        let copy = tensors["model.decoder.embed_tokens.weight"].clone();
        *tensors = std::mem::take(tensors)
            .into_iter()
            .map(|(name, tensor)| (name.trim_start_matches("model.").to_owned(), tensor))
            .collect();
        tensors.insert("lm_head.weight".to_owned(), copy);
    });
    let (_, model) = load_model(dir.path(), Dtype::F32, &device).unwrap();
    assert!(Golden::read("opt-pre-norm").difference(&model, &device) <= TOLERANCE);

    let dir = copy("llama3-rope-scaling");
    edit(dir.path(), |tensors| {
        // Stored unscaled.
        let plain = (0..4).map(|pair| 5e5f32.powf(-(pair as f32) / 4.0));
        let bytes = plain.flat_map(f32::to_le_bytes).collect();
        let buffer = (safetensors::Dtype::F32, vec![4], bytes);
        tensors.insert(
            "model.layers.0.self_attn.rotary_emb.inv_freq".to_owned(),
            buffer,
        );
    });
    edit_config(dir.path(), "\"rope_parameters\"", "\"rope_scaling\"");
    let (_, model) = load_model(dir.path(), Dtype::F32, &device).unwrap();
    assert!(Golden::read("llama3-rope-scaling").difference(&model, &device) <= TOLERANCE);
}

/// Seeded noise is keyed by these paths: changing one changes every trajectory.
#[test]
fn parameter_paths_are_pinned() {
    #[derive(Default)]
    struct Paths {
        stack: Vec<String>,
        paths: Vec<String>,
    }
    impl ModuleVisitor for Paths {
        fn enter_module(&mut self, name: &str, _: &str) {
            self.stack.push(name.to_owned());
        }
        fn exit_module(&mut self, _: &str, _: &str) {
            self.stack.pop();
        }
        fn visit_float<const D: usize>(&mut self, _: &Param<Tensor<D>>) {
            self.paths.push(self.stack.join("."));
        }
    }
    let paths = |case| {
        let mut visitor = Paths::default();
        model(case).visit(&mut visitor);
        let second_block = |path: &String| path.contains(".layers.1.");
        visitor.paths.retain(|path| !second_block(path));
        visitor.paths
    };
    let opt = paths("opt-post-norm-projected");
    let mut expected = vec![
        "Opt.decoder.embed_tokens.weight".to_owned(),
        "Opt.decoder.embed_positions.weight".to_owned(),
        "Opt.decoder.project_in.weight".to_owned(),
    ];
    let layers = [
        "self_attn.q_proj",
        "self_attn.k_proj",
        "self_attn.v_proj",
        "self_attn.out_proj",
    ];
    let layers =
        layers
            .into_iter()
            .chain(["self_attn_layer_norm", "fc1", "fc2", "final_layer_norm"]);
    for layer in layers {
        expected.extend(
            ["weight", "bias"].map(|field| format!("Opt.decoder.layers.0.{layer}.{field}")),
        );
    }
    expected.push("Opt.decoder.project_out.weight".to_owned());
    assert_eq!(opt, expected);
    assert!(paths("opt-pre-norm").contains(&"Opt.decoder.final_layer_norm.weight".to_owned()));
    assert!(paths("opt-gelu-no-bias-untied").contains(&"Opt.lm_head.weight".to_owned()));

    assert_eq!(
        paths("llama3-rope-scaling"),
        [
            "Llama.embed_tokens.weight",
            "Llama.layers.0.input_layernorm.weight",
            "Llama.layers.0.self_attn.q_proj.weight",
            "Llama.layers.0.self_attn.k_proj.weight",
            "Llama.layers.0.self_attn.v_proj.weight",
            "Llama.layers.0.self_attn.o_proj.weight",
            "Llama.layers.0.post_attention_layernorm.weight",
            "Llama.layers.0.mlp.gate_proj.weight",
            "Llama.layers.0.mlp.up_proj.weight",
            "Llama.layers.0.mlp.down_proj.weight",
            "Llama.norm.weight",
            "Llama.lm_head.weight",
        ]
    );
}

#[test]
#[should_panic(expected = "token id 61 is outside the vocabulary of 61")]
fn an_id_outside_the_vocabulary_panics() {
    let batch = TokenBatch::new(&[[61]], 0, PaddingSide::Right, &Device::default()).unwrap();
    model("opt-pre-norm").hidden(&batch);
}

#[test]
#[should_panic(expected = "a sequence of 25 tokens exceeds the model's context of 24")]
fn a_sequence_beyond_the_context_panics() {
    let batch = TokenBatch::new(&[[5; 25]], 0, PaddingSide::Right, &Device::default()).unwrap();
    model("llama-tied-head-dim").last_logits(&batch, &[3]);
}

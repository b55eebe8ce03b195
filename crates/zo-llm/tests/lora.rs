//! LoRA adapters: what they compute, that only they are tuned, and their files, including PEFT's.

#![cfg_attr(
    feature = "ndarray",
    allow(
        deprecated,
        reason = "burn deprecates its ndarray backend; it is supported here as long as burn has it"
    )
)]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;
#[path = "lora/files.rs"]
mod files;
#[path = "lora/helpers.rs"]
mod helpers;
#[path = "lora/peft.rs"]
mod peft;
#[path = "common/torch.rs"]
mod torch;

use burn::tensor::Device;
use helpers::{adapted, configs, difference, edit, logits, model, rslora_of, says, values};
use zo_llm::tuning::lora::{self, LoraConfig};
use zo_llm::{CausalLm, Dtype, ModelConfig, load_model, save_model};

#[test]
fn adapters_change_nothing_at_first() {
    for config in &configs() {
        let plain = model(config);
        let before = logits(&plain);
        assert!(before.iter().any(|logit| (logit - before[0]).abs() > 0.1));
        let model = lora::apply(plain, &LoraConfig::new(), 0).unwrap();
        assert_eq!(logits(&model), before);

        let all = values(&model);
        let a: Vec<f32> = (all.iter())
            .filter(|(path, _)| path.ends_with(".lora.a"))
            .flat_map(|(_, (shape, values))| {
                assert_eq!(shape, &[16, 8]);
                values.clone()
            })
            .collect();
        // Uniform within 1 / sqrt(16): 512 values.
        assert_eq!(a.len(), 4 * 16 * 8);
        let largest = a.iter().fold(0f32, |largest, a| largest.max(a.abs()));
        assert!(largest <= 0.25 && largest > 0.24, "{largest}");
        let mean = a.iter().sum::<f32>() / a.len() as f32;
        let square = a.iter().map(|a| a * a).sum::<f32>() / a.len() as f32;
        assert!(mean.abs() < 0.03, "{mean}");
        assert!((square - 0.0625 / 3.0).abs() < 0.004, "{square}");
        let b = all.iter().filter(|(path, _)| path.ends_with(".lora.b"));
        assert!(b.clone().all(|(_, (_, b))| b.iter().all(|b| *b == 0.0)));
        assert_eq!(b.count(), 4);
    }
}

#[test]
fn the_seed_decides() {
    for config in &configs() {
        let apply = |targets: &[&str], seed| {
            let targets = targets.iter().map(|target| (*target).to_owned()).collect();
            let lora = LoraConfig::new().with_targets(targets);
            values(&lora::apply(model(config), &lora, seed).unwrap())
        };
        let all = apply(&["q_proj", "v_proj"], 5);
        assert_eq!(all, apply(&["v_proj", "q_proj"], 5));
        assert_ne!(all, apply(&["q_proj", "v_proj"], 6));
        // A layer's adapter does not depend on the others, and no two are the same.
        let a: Vec<_> = (all.iter())
            .filter(|(path, _)| path.ends_with(".lora.a"))
            .collect();
        let alone = apply(&["q_proj"], 5);
        for (number, (path, values)) in a.iter().enumerate() {
            if path.contains("q_proj") {
                assert_eq!(alone.get(*path), Some(*values));
            }
            assert!(a[..number].iter().all(|(_, other)| other != values));
        }
    }
}

/// Logits of the model whose weights `W + scale A B` are computed here.
fn by_hand(adapted: &CausalLm, config: &ModelConfig, scale: f64) -> Vec<f32> {
    let all = values(adapted);
    let mut changed = 0;
    let model = edit(model(config), |path, mut weights| {
        let Some((a_shape, a)) = all.get(&format!("{path}.lora.a")) else {
            return weights;
        };
        let (b_shape, b) = &all[&format!("{path}.lora.b")];
        let (d_in, rank, d_out) = (a_shape[0], a_shape[1], b_shape[1]);
        assert_eq!((b_shape[0], weights.len()), (rank, d_in * d_out));
        for (index, weight) in weights.iter_mut().enumerate() {
            let (row, column) = (index / d_out, index % d_out);
            let product =
                (0..rank).map(|k| f64::from(a[row * rank + k]) * f64::from(b[k * d_out + column]));
            *weight = (f64::from(*weight) + scale * product.sum::<f64>()) as f32;
        }
        changed += 1;
        weights
    });
    assert!(changed > 0);
    logits(&model)
}

#[test]
fn adapters_add_their_scaled_product() {
    for config in &configs() {
        let before = logits(&model(config));
        let default = LoraConfig::new();
        let other = rslora_of(config);
        assert_eq!(default.scale(), 2.0);
        assert!((other.scale() - -1.5 / 3f64.sqrt()).abs() < 1e-12);
        for lora in [default, other] {
            let adapted = adapted(config, &lora);
            let found = logits(&adapted);
            assert!(difference(&found, &before) > 0.01);
            let expected = by_hand(&adapted, config, lora.scale());
            assert!(difference(&found, &expected) < 1e-4);

            // Merged, it is a plain model.
            let merged = lora::merge(adapted);
            assert_eq!(logits(&merged), found);
            let names = |model: &CausalLm| values(model).into_keys().collect::<Vec<_>>();
            assert_eq!(names(&merged), names(&model(config)));
            let dir = tempfile::tempdir().unwrap();
            save_model(dir.path(), config, &merged, Dtype::F32).unwrap();
            let (_, loaded) = load_model(dir.path(), Dtype::F32, &Device::default()).unwrap();
            assert_eq!(logits(&loaded), found);
        }
    }
}

#[cfg(feature = "flex")]
#[test]
fn a_step_moves_the_factors_alone_and_in_place() {
    use helpers::model_on;
    use zo_core::{Method, ZerothOrderOptimizer};
    use zo_llm::{PaddingSide, TokenBatch};

    let device = Device::flex();
    for (config, train_a) in configs()
        .iter()
        .flat_map(|config| [(config, false), (config, true)])
    {
        let lora = LoraConfig::new().with_train_a(train_a);
        let start = || lora::apply(model_on(config, &device), &lora, 0).unwrap();
        let tensors = zo_core::tensors(&start(), &lora.trainable()).unwrap();
        let trained: Vec<_> = tensors.iter().filter(|tensor| tensor.trainable).collect();
        assert_eq!(trained.len(), if train_a { 2 * 2 * 2 } else { 2 * 2 });
        for tensor in &tensors {
            let a = train_a && tensor.path.ends_with(".lora.a");
            let factor = a || tensor.path.ends_with(".lora.b");
            assert_eq!(tensor.trainable, factor, "{}", tensor.path);
        }
        let elements: usize = trained.iter().map(|tensor| tensor.elements()).sum();

        let run = || {
            let method = Method::new().with_trainable(lora.trainable());
            let mut optim = method.with_epsilon(1e-2).with_seed(7).init().unwrap();
            let rows: [Vec<u32>; 1] = [vec![5, 9, 2, 33, 60]];
            let batch = TokenBatch::new(&rows, 1, PaddingSide::Right, &device).unwrap();
            let mut model = start();
            for _ in 0..3 {
                let loss = |model: &CausalLm| model.logits(&batch).square().mean();
                let (next, report) = optim.step(1e-2, model, loss).unwrap();
                assert_eq!((report.passes, report.copied), (3, 0));
                assert_eq!(report.swept, 3 * elements as u64);
                model = next;
            }
            values(&model)
        };
        let (before, after) = (values(&start()), run());
        for tensor in &tensors {
            let moved = before[&tensor.path] != after[&tensor.path];
            assert_eq!(moved, tensor.trainable, "{}", tensor.path);
        }
        assert_eq!(after, run(), "a run repeats bit for bit");
    }
}

/// The models read every weight through `val()`: whatever is tuned, they see the same perturbation on the fly as in place.
#[cfg(feature = "flex")]
#[test]
fn a_step_on_the_fly_is_the_one_in_place() {
    use helpers::model_on;
    use zo_core::{Method, Perturbation, ZerothOrderOptimizer};
    use zo_llm::{PaddingSide, TokenBatch, Tuning};

    let device = Device::flex();
    let rows: [Vec<u32>; 1] = [vec![5, 9, 2, 33, 60]];
    let batch = TokenBatch::new(&rows, 1, PaddingSide::Right, &device).unwrap();
    for config in &configs() {
        for tuning in [
            Tuning::Full,
            Tuning::Lora(LoraConfig::new()),
            Tuning::Prefix { length: 2 },
            Tuning::Prompt { length: 2 },
            Tuning::Head,
        ] {
            let run = |perturbation| {
                let method = Method::new()
                    .with_trainable(tuning.trainable())
                    .with_epsilon(1e-2)
                    .with_seed(7)
                    .with_perturbation(perturbation);
                let mut optim = method.init().unwrap();
                let model = tuning.apply(model_on(config, &device), 0).unwrap();
                let loss = |model: &CausalLm| model.logits(&batch).square().mean();
                let (model, report) = optim.step(1e-3, model, loss).unwrap();
                let query = &report.queries[0];
                let losses = [query.loss_plus, query.loss_other];
                (losses, values(&model), report.passes)
            };
            let (losses, end, _) = run(Perturbation::InPlace);
            let (flying, flying_end, passes) = run(Perturbation::OnTheFly);
            assert!(losses[0] != losses[1], "{tuning}");
            for (a, b) in losses.iter().zip(flying) {
                assert!((a - b).abs() <= 1e-5 * a.abs(), "{tuning}: {a}, {b}");
            }
            assert_eq!(passes, 1);
            assert!(end.keys().eq(flying_end.keys()));
            let pairs = end.values().zip(flying_end.values());
            for (a, b) in pairs.flat_map(|(a, b)| a.1.iter().zip(&b.1)) {
                assert!((a - b).abs() < 1e-4, "{tuning}: {a}, {b}");
            }
        }
    }
}

#[test]
fn configurations_that_make_no_sense_are_refused() {
    let [opt, llama] = &configs();
    let apply = |lora: LoraConfig| lora::apply(model(llama), &lora, 0);
    says(apply(LoraConfig::new().with_rank(0)), &["rank is 0"]);
    for alpha in [0.0, f64::NAN, f64::INFINITY] {
        let config = LoraConfig::new().with_alpha(alpha);
        says(apply(config), &["alpha", &alpha.to_string()]);
    }
    says(apply(LoraConfig::new().with_targets(vec![])), &["target"]);
    // v_proj is [16, 8]: two heads share each key.
    says(
        apply(LoraConfig::new().with_rank(9)),
        &[
            "rank is 9",
            "model.layers.0.self_attn.v_proj",
            "[16, 8]",
            "at most 8",
        ],
    );
    let targets = |name: &str| LoraConfig::new().with_targets(vec![name.to_owned()]);
    for unknown in ["query", "proj", "", "embed_tokens", "q_proj.weight"] {
        says(
            apply(targets(unknown)),
            &[
                &format!("`{unknown}`"),
                "down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj",
            ],
        );
    }
    says(
        lora::apply(model(opt), &targets("o_proj"), 0),
        &["fc1, fc2, k_proj, out_proj, q_proj, v_proj"],
    );
    let once = lora::apply(model(llama), &LoraConfig::new(), 0).unwrap();
    says(
        lora::apply(once, &targets("o_proj"), 0),
        &["already", "layers.0.self_attn.q_proj.weight.lora.a"],
    );
}

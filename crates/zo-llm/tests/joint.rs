//! Models at several displacements in one forward.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::path::Path;
use std::sync::atomic::AtomicBool;

use burn::tensor::{DType, Device, Tensor};
use common::{CASES, Golden, MASKED, golden};
use serde_json::Value;
use zo_core::{Difference, Method, Objective, Perturbation, StepReport, ZerothOrderOptimizer};
use zo_llm::dataset::{Dataset, Encoding, Split};
use zo_llm::finetune::{Event, FinetuneConfig, finetune};
use zo_llm::task::rows::read_examples;
use zo_llm::task::task;
use zo_llm::tuning::LoraConfig;
use zo_llm::{CausalLm, Checkpoint, Dtype, TokenBatch, Tuning, load, load_model};
use zo_optim::low_rank::{Interval, Lozo, Subzero};

fn model(case: &str, dtype: Dtype) -> CausalLm {
    load_model(&golden(case), dtype, &Device::default())
        .unwrap()
        .1
}

/// Every way in which objectives look at a model.
struct Views {
    batch: TokenBatch,
    at_once: usize,
}

impl Views {
    fn new(case: &str, at_once: usize) -> Self {
        let golden = Golden::read(case);
        // Long enough for two parts.
        let (mut ids, mut mask) = (golden.ids, golden.mask);
        while ids.len() * ids[0].len() < 800 {
            ids.extend_from_within(..);
            mask.extend_from_within(..);
        }
        let batch = TokenBatch::from_mask(&ids, &mask, &Device::default()).unwrap();
        Self { batch, at_once }
    }

    fn at(&self, model: &CausalLm, displacements: usize) -> Vec<f64> {
        let batch = self.batch.repeated(displacements);
        let rows = batch.shape()[0];
        let all = model.logits(&batch).cast(DType::F32);
        let some = match model.is_masked() {
            true => model.logits_at(&batch, &vec![1; rows], &[1, 4]),
            false => model.last_logits(&batch, &[1, 4]),
        };
        let log_probs = (!model.is_masked()).then(|| {
            let last = vec![[3u32, 5].as_slice(); rows];
            model.log_probs(&batch, &last)
        });
        let number = |x: Tensor<1>| f64::from(x.mean().into_scalar::<f32>());
        let of = |k: usize| {
            let all = all.clone().chunk(displacements, 0).swap_remove(k);
            let some = some.clone().chunk(displacements, 0).swap_remove(k);
            let log_probs = log_probs
                .clone()
                .map(|x| x.chunk(displacements, 0).swap_remove(k));
            number(all.square().flatten(0, 2)) + number(some.square().flatten(0, 1))
                - log_probs.map_or(0.0, number)
        };
        (0..displacements).map(of).collect()
    }
}

impl Objective<CausalLm> for Views {
    type Loss = f64;

    fn loss(&mut self, model: &CausalLm) -> f64 {
        self.at(model, 1)[0]
    }

    fn at_once(&self) -> usize {
        self.at_once
    }

    fn losses(&mut self, model: &CausalLm, displacements: usize) -> Vec<f64> {
        self.at(model, displacements)
    }
}

/// Large displacements, so that no sign or group can be taken for another; a bank from the second step on.
fn methods() -> [Method; 3] {
    let lozo = Method::new().with_noise(Lozo::new().with_rank(2).with_interval(Interval::Never));
    let subzero = Subzero::new().with_rank(3).with_interval(Interval::Never);
    let one_sided = Method::new().with_noise(subzero.clone()).with_queries(4);
    [
        lozo,
        Method::new().with_noise(subzero),
        one_sided.with_difference(Difference::OneSided),
    ]
    .map(|method| {
        method
            .with_epsilon(5e-2)
            .with_seed(3)
            .with_perturbation(Perturbation::OnTheFly)
    })
}

fn steps(case: &str, dtype: Dtype, method: &Method, at_once: usize) -> Vec<StepReport> {
    let optim = method.clone().init().unwrap();
    let mut session = optim.session(model(case, dtype)).unwrap();
    let step = |_| session.step_on(1e-4, Views::new(case, at_once)).unwrap();
    (0..3).map(step).collect()
}

fn losses(reports: &[StepReport]) -> Vec<f64> {
    let queries = reports.iter().flat_map(|report| &report.queries);
    queries
        .flat_map(|query| [query.loss_plus, query.loss_other])
        .collect()
}

#[test]
fn one_forward_gives_the_losses_of_two() {
    for case in CASES.into_iter().chain(MASKED) {
        for method in methods() {
            let single = steps(case, Dtype::F32, &method, 1);
            let expected = losses(&single);
            for at_once in [2, 5] {
                let reports = steps(case, Dtype::F32, &method, at_once);
                for report in &reports {
                    assert!(
                        report.evaluations < report.forwards,
                        "{case}: one at a time"
                    );
                    assert_eq!((report.forwards, report.passes), (single[0].forwards, 0));
                }
                let found = losses(&reports);
                for (place, (pair, expected)) in found.chunks(2).zip(expected.chunks(2)).enumerate()
                {
                    // Steps amplify the rounding of those before.
                    let bound = if place == 0 { 5e-6 } else { 1e-4 };
                    let apart = (expected[0] - expected[1]).abs();
                    for (a, b) in pair.iter().zip(expected) {
                        let bound = (bound * b.abs()).min(apart / 4.0);
                        assert!(
                            (a - b).abs() <= bound,
                            "{case}, {at_once}, {place}: {a} {b}"
                        );
                    }
                }
            }
        }
    }
}

/// Half precision is rounded elsewhere; the difference of the two losses is what counts.
#[test]
fn half_precision_agrees_as_far_as_it_goes() {
    for case in [
        "opt-pre-norm",
        "llama-gqa-shards",
        "gemma3-scaled",
        "roberta-tied",
    ] {
        for dtype in [Dtype::Bf16, Dtype::F16] {
            let method = &methods()[0];
            let slope =
                |at_once| steps(case, dtype, method, at_once)[0].queries[0].projected_gradient;
            let (one, two) = (slope(1), slope(2));
            assert!(
                (one - two).abs() < 0.05 * one.abs() + 0.05,
                "{case} {dtype:?}: {one} {two}"
            );
        }
    }
}

/// Rows of every task, by the objective of fine-tuning.
#[test]
fn fine_tuning_evaluates_both_signs_in_one_forward() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let folders = ["agreement", "masked"].into_iter().flat_map(|kind| {
        let entries = std::fs::read_dir(tests.join(kind)).unwrap();
        entries.map(|entry| entry.unwrap().path())
    });
    let mut tried = 0;
    for folder in folders.filter(|folder| !folder.join("adapter").exists()) {
        let text = std::fs::read_to_string(folder.join("expected.json")).unwrap();
        let expected: Value = serde_json::from_str(&text).unwrap();
        let device = Device::default();
        let Checkpoint {
            config,
            model,
            tokenizer,
        } = load(&folder.join("model"), Dtype::F32, &device).unwrap();
        let task = task(expected["task"].as_str().unwrap()).unwrap();
        let rows = read_examples(task.as_ref(), &folder.join("data"), Split::Train, None).unwrap();
        let encoding = Encoding {
            cut: expected["cut"].as_bool() == Some(true),
            ..Encoding::default()
        };
        let data = Dataset::encode(task.as_ref(), &rows, &tokenizer, model.context(), &encoding);
        // Some folders hold a row that is to be refused.
        let Some(data) = data.ok().filter(|data| data.len() > 1) else {
            continue;
        };
        let run = |micro_batch, rows_at_once| {
            let config = FinetuneConfig {
                steps: 2,
                batch: 2,
                micro_batch,
                rows_at_once,
                lr: 1e-3,
                pad: config.pad_token_id(),
                ..FinetuneConfig::default()
            };
            let method = Method::new()
                .with_noise(Lozo::new().with_rank(1))
                .with_epsilon(5e-2)
                .with_perturbation(Perturbation::OnTheFly);
            let mut optim = method.init().unwrap();
            let mut reports = Vec::new();
            let observe = |event: Event<'_>| {
                if let Event::Stepped { report, .. } = event {
                    reports.push(report.clone());
                }
                Ok(())
            };
            let stop = AtomicBool::new(false);
            let data = [&data, &data];
            finetune(
                model.clone(),
                &mut optim,
                data,
                &config,
                &device,
                &stop,
                observe,
            )
            .unwrap();
            reports
        };
        let single = run(None, Some(2));
        assert_eq!(single[0].evaluations, 2);
        for reports in [run(None, None), run(Some(1), Some(2))] {
            assert_eq!((reports[0].forwards, reports[0].evaluations), (2, 1));
            for (found, expected) in losses(&reports).iter().zip(losses(&single)) {
                let near = (found - expected).abs() < 2e-5 * expected.abs().max(1.0);
                assert!(near, "{}: {found} {expected}", folder.display());
            }
            let apart = losses(&single);
            assert!((apart[0] - apart[1]).abs() > 1e-4, "{}", folder.display());
        }
        tried += 1;
    }
    assert!(tried > 5, "{tried}");
}

/// What has no side path is read by `val`, which has one value: such steps evaluate one displacement at a time.
#[test]
fn adapters_and_prompts_are_evaluated_one_at_a_time() {
    let case = "opt-pre-norm";
    for tuning in [
        Tuning::Lora(LoraConfig::default().with_rank(2)),
        Tuning::Prefix { length: 3 },
        Tuning::Prompt { length: 4 },
    ] {
        let method = methods()[0].clone().with_trainable(tuning.trainable());
        let run = |at_once| {
            let model = tuning.apply(model(case, Dtype::F32), 1).unwrap();
            let mut session = method.clone().init().unwrap().session(model).unwrap();
            let step = |_| session.step_on(1e-3, Views::new(case, at_once)).unwrap();
            (0..3).map(step).collect::<Vec<_>>()
        };
        let (one, two) = (run(1), run(2));
        assert_eq!(losses(&one), losses(&two), "{tuning:?}");
        assert!(two.iter().all(|report| report.evaluations == 2));
    }
}

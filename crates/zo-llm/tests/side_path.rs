//! Models displaced by noise of low rank without a weight being written: the side path.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamGroup, Quantizer};
use burn::tensor::quantization::{Calibration, QuantValue};
use burn::tensor::{DType, Device, Tensor, TensorData};
use common::{CASES, Golden, golden};
use zo_core::testing::flat;
use zo_core::{Method, Perturbation, Session, StepReport, ZeroOrder, ZerothOrderOptimizer};
use zo_llm::tuning::lora;
use zo_llm::{CausalLm, Dtype, TokenBatch, load_model};
use zo_optim::low_rank::{Interval, Lozo, Subzero};

fn model(case: &str) -> CausalLm {
    load_model(&golden(case), Dtype::F32, &Device::default())
        .unwrap()
        .1
}

/// Every way in which objectives look at a model.
fn loss(model: &CausalLm, batch: &TokenBatch) -> f64 {
    let number = |tensor: Tensor<1>| f64::from(tensor.into_scalar::<f32>());
    let rows = batch.shape()[0];
    let last = vec![[3u32, 5].as_slice(); rows];
    let log_probs = model.log_probs(batch, &last).mean();
    let logits = model.last_logits(batch, &[1, 4]).square().mean();
    let all = model.logits(batch).cast(DType::F32).square().mean();
    number(logits) + number(all) - number(log_probs)
}

fn lozo() -> Method {
    Method::new().with_noise(Lozo::new().with_rank(2).with_interval(Interval::Steps(4)))
}

fn subzero() -> Method {
    Method::new().with_noise(
        Subzero::new()
            .with_rank(3)
            .with_interval(Interval::Steps(4)),
    )
}

fn batch(case: &str) -> TokenBatch {
    Golden::read(case).batch(&Device::default())
}

fn session(
    method: &Method,
    perturbation: Perturbation,
    model: CausalLm,
) -> Session<CausalLm, ZeroOrder> {
    let method = method.clone().with_epsilon(1e-2).with_seed(3);
    let optim = method.with_perturbation(perturbation).init().unwrap();
    optim.session(model).unwrap()
}

fn steps(
    session: &mut Session<CausalLm, ZeroOrder>,
    batch: &TokenBatch,
    lr: f64,
    steps: usize,
) -> Vec<StepReport> {
    let step = |_| {
        session
            .step(lr, |model: &CausalLm| loss(model, batch))
            .unwrap()
    };
    (0..steps).map(step).collect()
}

#[test]
fn the_side_path_is_the_in_place_pass_within_rounding() {
    for case in CASES {
        for method in [lozo(), subzero()] {
            let batch = batch(case);
            let run = |perturbation| {
                let mut session = session(&method, perturbation, model(case));
                let reports = steps(&mut session, &batch, 1e-3, 6);
                let losses = reports.iter().flat_map(|report| {
                    let query = &report.queries[0];
                    [query.loss_plus, query.loss_other]
                });
                (losses.collect::<Vec<_>>(), flat(session.model()))
            };
            let (written, end) = run(Perturbation::InPlace);
            let (beside, other_end) = run(Perturbation::OnTheFly);
            assert!(written[0] != written[1]);
            // Steps amplify the rounding of those before.
            for (place, (a, b)) in written.iter().zip(&beside).enumerate() {
                let bound = if place < 2 { 2e-5 } else { 2e-4 };
                assert!((a - b).abs() <= bound * a.abs(), "{case}: {a} {b}");
            }
            for (a, b) in end.iter().zip(&other_end) {
                assert!((a - b).abs() <= 1e-3, "{case}: {a} {b}");
            }
        }
    }
}

/// Within an interval a step makes no pass, no displaced weight is computed, and the stored weights keep their bits; a refresh folds the
/// bank in one pass.
#[test]
fn an_interval_writes_no_weight_and_a_refresh_folds_the_bank() {
    for case in CASES {
        for method in [lozo(), subzero()] {
            let (batch, start) = (batch(case), model(case));
            let from = flat(&start);
            let mut session = session(&method, Perturbation::OnTheFly, start);
            let largest = 64 * 64;
            for report in steps(&mut session, &batch, 1e-2, 4) {
                assert_eq!((report.passes, report.copied), (0, 0));
                // Coordinates and small tensors: less than any product of sizes would take.
                assert!(report.swept < 40 * largest, "{}", report.swept);
            }
            assert_eq!(flat(session.stored().0), from, "{case}");
            // Step 4 is a refresh; its own update waits again.
            let passes: Vec<usize> = steps(&mut session, &batch, 1e-2, 2)
                .iter()
                .map(|report| report.passes)
                .collect();
            assert_eq!(passes, [1, 0]);
            let folded = flat(session.stored().0);
            assert_ne!(folded, from);
            let before = session.passes();
            assert_ne!(flat(session.model()), folded);
            assert_eq!(session.passes(), before + 1);
        }
    }
}

/// Over half precision: the thin path is f32, so that losses follow those of the f32 model, weights keep their bits, and updates are kept that
/// are far too small for them.
#[test]
fn half_precision_bases_keep_their_bits_and_updates_are_not_lost() {
    for case in CASES {
        for dtype in [Dtype::Bf16, Dtype::F16] {
            let load = |dtype| {
                load_model(&golden(case), dtype, &Device::default())
                    .unwrap()
                    .1
            };
            let batch = batch(case);
            let slope = |dtype: Dtype| {
                let mut session = session(&lozo(), Perturbation::OnTheFly, load(dtype));
                let reports = steps(&mut session, &batch, 1e-2, 1);
                reports[0].queries[0].projected_gradient
            };
            let (half, full) = (slope(dtype), slope(Dtype::F32));
            assert!(
                (half - full).abs() <= 0.3 * full.abs() + 0.5,
                "{case}: {half} {full}"
            );
            let start = load(dtype);
            let from = flat(&start);
            let mut session = session(&lozo(), Perturbation::OnTheFly, start);
            // Updates of about 1e-6 in weights of about 1e-2.
            for report in steps(&mut session, &batch, 1e-6, 3) {
                assert_eq!(report.passes, 0);
            }
            assert_eq!(flat(session.stored().0), from);
            let (_, position) = session.stored();
            assert!(!position.is_at_rest(), "the updates are in the bank");
        }
    }
}

/// A subspace that is never left is a LoRA adapter: the model that the session shows, saved in PEFT's layout and loaded again.
#[test]
fn a_bank_that_is_never_folded_is_a_lora_adapter() {
    let linear =
        || ParamGroup::from_any_predicates(vec!["_proj.weight", "fc1.weight", "fc2.weight"]);
    for case in CASES {
        let noises: [Method; 2] = [
            Method::new().with_noise(Lozo::new().with_interval(Interval::Never)),
            Method::new().with_noise(Subzero::new().with_rank(2).with_interval(Interval::Never)),
        ];
        for method in noises {
            let (batch, start) = (batch(case), model(case));
            let before = loss(&start, &batch);
            let method = method.with_trainable(linear());
            let mut session = session(&method, Perturbation::OnTheFly, start);
            steps(&mut session, &batch, 0.1, 8);
            let bank = session.bank();
            let base = session.stored().0.clone();
            let (adapted, config) = lora::from_bank(base.clone(), &bank).unwrap();
            let folder = tempfile::tempdir().unwrap();
            lora::save_adapter(folder.path(), &adapted, &config, "base").unwrap();
            let (again, loaded) = lora::load_adapter(folder.path(), base).unwrap();
            assert_eq!((loaded.rank, loaded.scale()), (2, 1.0));
            let expected = loss(session.model(), &batch);
            assert!(
                (expected - before).abs() > 1e-4 * before.abs(),
                "it has learnt something"
            );
            for model in [&adapted, &again] {
                let found = loss(model, &batch);
                assert!(
                    (found - expected).abs() < 2e-5 * expected.abs(),
                    "{case}: {found} {expected}"
                );
            }
        }
    }
    // Embeddings and norms are not linear layers.
    let (case, all) = (CASES[0], lozo());
    let mut session = session(&all, Perturbation::OnTheFly, model(case));
    steps(&mut session, &batch(case), 1e-2, 1);
    let error = lora::from_bank(model(case), &session.bank()).unwrap_err();
    assert!(error.to_string().contains("parameter group"), "{error}");
    let error = lora::from_bank(model(case), &[]).unwrap_err();
    assert!(error.to_string().contains("is empty"), "{error}");
}

/// The numbers of quantized weights.
#[derive(Default)]
struct Quantized(Vec<TensorData>);

impl ModuleVisitor for Quantized {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if matches!(param.dtype(), DType::QFloat(_)) {
            self.0.push(param.base().into_data());
        }
    }
}

fn quantized(model: &CausalLm) -> Vec<TensorData> {
    let mut found = Quantized::default();
    model.visit(&mut found);
    found.0
}

struct Dequantize;

impl ModuleMapper for Dequantize {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.map(Tensor::dequantize)
    }
}

/// Linear layers, and then embeddings and tied heads as well, quantized by burn: their bits stay, the steps are those beside the numbers they stand
/// for, and the model that leaves the session has learnt what the session had.
#[test]
fn quantized_bases_keep_their_bits_and_learn() {
    let scheme = Device::default().settings().quantization.scheme;
    let tables = || {
        let names = vec![
            "_proj.weight",
            "fc1.weight",
            "fc2.weight",
            "embed_tokens.weight",
        ];
        ParamGroup::from_any_predicates(names)
    };
    for case in CASES {
        let linear = lora::linear_weights(&model(case), 2);
        for group in [linear, tables()] {
            let scheme = scheme.with_value(QuantValue::Q8S);
            let mut quantizer = Quantizer::new(Calibration::MinMax, scheme);
            let start = model(case).quantize_weights_group(&mut quantizer, group.clone());
            let (batch, bits) = (batch(case), quantized(&start));
            assert!(!bits.is_empty());
            let dense = start.clone().map(&mut Dequantize);
            let noise = Lozo::new().with_interval(Interval::Never);
            let method = Method::new().with_noise(noise).with_trainable(group);
            let before = loss(&start, &batch);
            let mut beside = session(&method, Perturbation::OnTheFly, start);
            let mut written = session(&method, Perturbation::OnTheFly, dense);
            let run = |session: &mut _| steps(session, &batch, 0.05, 6);
            let reports = run(&mut beside).into_iter().zip(run(&mut written));
            for (here, there) in reports {
                assert_eq!((here.passes, here.copied), (0, 0));
                let [a, b] = [&here, &there].map(|report| report.queries[0].loss_plus);
                assert!((a - b).abs() <= 2e-4 * b.abs(), "{case}: {a} {b}");
            }
            assert_eq!(quantized(beside.stored().0), bits, "{case}");
            let shown = loss(beside.model(), &batch);
            assert!(
                (shown - before).abs() > 1e-4 * before.abs(),
                "{case}: it has learnt"
            );
            let (_, model) = beside.into_parts();
            assert_eq!(quantized(&model), bits, "{case}");
            let after = loss(&model, &batch);
            assert!(
                (after - shown).abs() <= 2e-5 * shown.abs(),
                "{case}: {after} {shown}"
            );
        }
    }
}

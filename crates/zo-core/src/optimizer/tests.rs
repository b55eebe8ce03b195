use burn::module::{Module, Param};
use burn::tensor::{DType, Device, Tensor};

use serde::Serialize;

use super::*;
use crate::change::Change;
use crate::difference::Difference;
use crate::error::ObjectiveError;
use crate::mask::{Dense, SelectContext, SparsityMask};
use crate::method::Method;
use crate::part::Needs;
use crate::selection::{Choice, Elements, Selection};
use crate::settings::Settings;
use crate::step::ZeroOrder;
use crate::tangent::Tangent;
use crate::tensors::TensorInfo;
use crate::testing::flat;
use crate::update::{UpdateContext, UpdateRule};

mod failures;

#[derive(Module, Debug)]
struct Net {
    a: Param<Tensor<2>>,
    b: Param<Tensor<1>>,
}

const WEIGHTS: [usize; 2] = [4000, 777];
const LR: f64 = 2e-4;

fn devices() -> Vec<Device> {
    vec![
        #[cfg(feature = "flex")]
        Device::flex(),
        #[cfg(feature = "ndarray")]
        Device::ndarray(),
    ]
}

/// Weights of many sizes, from 1e-6 to 10.
fn net_of(device: &Device, dtype: DType) -> Net {
    let fill = |n: usize| -> Tensor<1> {
        let size = |i: usize| 10f32.powi(1 - (i % 8) as i32);
        let weights: Vec<f32> = (0..n)
            .map(|i| size(i) * if i % 3 == 0 { -0.7 } else { 0.9 })
            .collect();
        Tensor::<1>::from_floats(weights.as_slice(), device).cast(dtype)
    };
    let [a, b] = WEIGHTS.map(fill);
    Net {
        a: Param::from_tensor(a.reshape([50, 80])),
        b: Param::from_tensor(b),
    }
}

fn net() -> Net {
    net_of(&devices()[0], DType::F32)
}

fn with(settings: Settings, mask: impl SparsityMask + 'static) -> ZeroOrder {
    Method::of(settings).with_mask(mask).init().unwrap()
}

fn mezo() -> ZeroOrder {
    with(Settings::default(), Dense)
}

/// Losses that do not look at the weights, so that two ways of taking the same steps differ only by rounding. At epsilon 1e-3 the central
/// differences are 2 and -3.5.
fn scripted() -> impl FnMut(&Net) -> f64 {
    let mut calls = 0u32;
    move |_: &Net| {
        calls += 1;
        f64::from(calls * 7 % 11) * 1e-3
    }
}

/// Weights and reports of steps one by one, without a session.
fn one_by_one(
    mut optim: ZeroOrder,
    mut net: Net,
    lr: f64,
    steps: usize,
    mut objective: impl FnMut(&Net) -> f64,
) -> (Vec<f64>, Vec<StepReport>) {
    let mut reports = Vec::new();
    for _ in 0..steps {
        let (next, report) = optim.step(lr, net, &mut objective).unwrap();
        net = next;
        reports.push(report);
    }
    (flat(&net), reports)
}

/// A session after some steps, and their reports.
fn in_session(
    optim: ZeroOrder,
    net: Net,
    lr: f64,
    steps: usize,
    mut objective: impl FnMut(&Net) -> f64,
) -> (Session<Net, ZeroOrder>, Vec<StepReport>) {
    let mut session = optim.session(net).unwrap();
    let mut reports = Vec::new();
    for _ in 0..steps {
        reports.push(session.step(lr, &mut objective).unwrap());
    }
    (session, reports)
}

fn passes(reports: &[StepReport]) -> Vec<usize> {
    reports.iter().map(|report| report.passes).collect()
}

/// The spacing of floats with `bits` significant bits at `x`.
fn ulp(x: f64, bits: i32) -> f64 {
    2f64.powi(x.abs().max(1e-38).log2().floor() as i32 - bits + 1)
}

/// Within 4 ulp of |w| + 6 epsilon, times the root of the number of moves: rounding errors add up like a random walk.
fn assert_close(a: &[f64], b: &[f64], bits: i32, moves: usize) {
    assert_eq!(a.len(), b.len());
    for (i, (a, b)) in a.iter().zip(b).enumerate() {
        let size = a.abs().max(b.abs()) + 6e-3;
        let bound = 4.0 * ulp(size, bits) * (moves as f64).sqrt();
        assert!((a - b).abs() <= bound, "weight {i}: {a} and {b}");
    }
}

#[test]
fn two_passes_per_step_and_the_same_weights() {
    let cases = devices().into_iter().map(|d| (d, DType::F32, 24));
    #[cfg(feature = "flex")]
    let cases = cases.chain([(Device::flex(), DType::F64, 53)]);
    let steps = 50;
    for (device, dtype, bits) in cases {
        let net = || net_of(&device, dtype);
        for (queries, weight_decay) in [(1, 0.0), (1, 50.0), (3, 0.0)] {
            let settings = Settings {
                queries,
                weight_decay,
                ..Settings::default()
            };
            let optim = || with(settings.clone(), Dense);
            let (expected, alone) = one_by_one(optim(), net(), LR, steps, scripted());
            let (mut session, reports) = in_session(optim(), net(), LR, steps, scripted());
            assert_eq!(passes(&alone), vec![2 * queries + 1; steps]);
            assert_eq!(passes(&reports), vec![2 * queries; steps]);
            for (own, alone) in reports.iter().zip(&alone) {
                assert_eq!(own.queries, alone.queries);
                assert_eq!((own.step, own.copied), (alone.step, 0));
            }
            let weights = flat(session.model());
            assert_eq!(session.passes(), 2 * queries * steps + 1);
            assert_close(&weights, &expected, bits, steps * queries);
            let moved = weights.iter().zip(flat(&net())).map(|(a, b)| (a - b).abs());
            assert!(moved.fold(0.0, f64::max) > 1e-3);
        }
    }
}

/// Where nothing is updated there is nothing to round.
#[test]
fn at_lr_0_the_weights_are_the_same_bit_for_bit() {
    let (expected, _) = one_by_one(mezo(), net(), 0.0, 20, scripted());
    let (mut session, reports) = in_session(mezo(), net(), 0.0, 20, scripted());
    assert_eq!(passes(&reports), [2; 20]);
    assert_eq!(flat(session.model()), expected);
}

#[test]
fn the_model_is_read_at_its_weights_and_the_session_goes_on() {
    let (mut session, _) = in_session(mezo(), net(), LR, 3, scripted());
    assert_eq!(session.passes(), 6);
    let once = flat(session.model());
    assert_eq!(flat(session.model()), once);
    assert_eq!(session.passes(), 7, "the second look takes no pass");
    // A clone keeps its values: the next pass writes each tensor elsewhere, once.
    let (kept, record) = (session.model().clone(), session.optimizer().record());
    let mut objective = scripted();
    for copied in [2, 0, 0, 0] {
        let report = session.step(LR, &mut objective).unwrap();
        assert_eq!((report.passes, report.copied), (2, copied));
    }
    assert_eq!(flat(&kept), once);
    // A session that begins with what was read and recorded goes the same way.
    let mut optim = mezo();
    optim.load_record(record).unwrap();
    let (mut resumed, _) = in_session(optim, kept, LR, 4, scripted());
    let (optim, module) = session.into_parts();
    assert_eq!(optim.record().step, 7);
    assert_eq!(flat(&module), flat(resumed.model()));
}

/// Two rounds, one for each tensor, each with an update.
#[derive(Clone, Serialize)]
struct Turns;

impl SparsityMask for Turns {
    fn select(&mut self, step: &mut SelectContext<'_>) -> Result<Selection, ZoError> {
        let choose = |number: usize| (number == step.round()).then_some(Choice::scaled(2.0));
        Ok(Selection((0..step.tensors().len()).map(choose).collect()))
    }

    fn rounds(&self, tensors: &[TensorInfo]) -> Result<usize, ZoError> {
        Ok(tensors.len())
    }

    fn needs(&self) -> Needs {
        Needs {
            updates_each_round: true,
            ..Needs::default()
        }
    }
}

fn in_turns() -> ZeroOrder {
    let settings = Settings {
        weight_decay: 50.0,
        ..Settings::default()
    };
    with(settings, Turns)
}

#[test]
fn updates_between_rounds_wait_too() {
    let (steps, lr) = (50, LR / 4.0);
    let (expected, alone) = one_by_one(in_turns(), net(), lr, steps, scripted());
    let (mut session, reports) = in_session(in_turns(), net(), lr, steps, scripted());
    assert_eq!(passes(&alone), vec![6; steps]);
    assert_eq!(passes(&reports), vec![4; steps]);
    // For each tensor to +eps, with the update of the other, and to -eps. The first has no update to make.
    let [a, b] = WEIGHTS.map(|n| n as u64);
    assert_eq!(reports[0].swept, (a + a) + (a + b + b));
    assert_eq!(reports[1].swept, (a + b + a) + (a + b + b));
    assert_close(&flat(session.model()), &expected, 24, steps);
}

/// Small weights in odd steps, all in even ones.
#[derive(Clone, Serialize)]
struct SmallAtTimes;

impl SparsityMask for SmallAtTimes {
    fn select(&mut self, step: &mut SelectContext<'_>) -> Result<Selection, ZoError> {
        let threshold = 0.5;
        let choice = match step.step() % 2 {
            0 => Choice::WHOLE,
            _ => Choice::some(Elements::Small { threshold }),
        };
        Ok(Selection(vec![Some(choice); step.tensors().len()]))
    }

    fn needs(&self) -> Needs {
        Needs {
            magnitudes: true,
            ..Needs::default()
        }
    }
}

/// `theta - lr sign(g z)`
#[derive(Clone, Serialize)]
struct Signs;

impl UpdateRule for Signs {
    fn update(&mut self, step: &mut UpdateContext<'_>) -> Result<Change<'_>, ZoError> {
        let (rate, of) = (-step.lr(), step.estimate().gradient());
        Ok(Change::Sign { rate, of })
    }
}

/// Where an update cannot wait, or must not for long, the passes do what those of separate steps do.
#[test]
fn what_cannot_wait_is_the_same_bit_for_bit() {
    let by_magnitude = || with(Settings::default(), SmallAtTimes);
    let (expected, _) = one_by_one(by_magnitude(), net(), LR, 6, scripted());
    let (mut session, reports) = in_session(by_magnitude(), net(), LR, 6, scripted());
    assert_eq!(passes(&reports), [2, 4, 2, 4, 2, 4]);
    assert_eq!(flat(session.model()), expected);

    let signs = || Method::new().with_update(Signs).init().unwrap();
    let (expected, _) = one_by_one(signs(), net(), LR, 4, scripted());
    let (mut session, reports) = in_session(signs(), net(), LR, 4, scripted());
    assert_eq!(passes(&reports), [3; 4]);
    assert_eq!(flat(session.model()), expected);

    let settings = Settings {
        difference: Difference::OneSided,
        queries: 2,
        ..Settings::default()
    };
    let one_sided = || with(settings.clone(), Dense);
    let (expected, alone) = one_by_one(one_sided(), net(), LR, 4, scripted());
    let (mut session, reports) = in_session(one_sided(), net(), LR, 4, scripted());
    assert_eq!(passes(&alone), [3; 4]);
    assert_eq!(passes(&reports), [2, 3, 3, 3]);
    assert_eq!(flat(session.model()), expected);
}

#[test]
fn exact_derivatives_are_taken_at_the_weights() {
    let settings = Settings {
        difference: Difference::Exact,
        ..Settings::default()
    };
    // The derivative depends on the weights: elsewhere the steps would be different.
    let jvp = |net: &Net, tangent: &Tangent<'_>| -> Result<(f64, f64), ObjectiveError> {
        let loss = net.b.val().square().sum().into_scalar::<f32>();
        let product = net.b.val() * tangent.of(&net.b);
        let derivative = 2.0 * product.sum().into_scalar::<f32>();
        Ok((f64::from(loss), f64::from(derivative)))
    };
    let (mut optim, mut module) = (with(settings.clone(), Dense), net());
    let mut session = with(settings, Dense).session(net()).unwrap();
    for step in 0..3 {
        module = optim.step_jvp(LR, module, jvp).unwrap().0;
        let report = session.step_jvp(LR, jvp).unwrap();
        assert_eq!(report.passes, usize::from(step > 0));
    }
    assert_eq!(flat(session.model()), flat(&module));
}

/// bf16 weights near 0.1 are 2^-11 apart. Updates of a twentieth of that are lost where `theta` itself is rounded. Rounded at the displaced
/// point, which the noise of the next step puts anywhere between two floats, they are kept on average.
#[cfg(feature = "flex")]
#[test]
fn a_session_keeps_small_updates_of_half_precision_weights_on_average() {
    use crate::noise::{Noise, TensorKey, value};
    let (device, steps, spacing) = (Device::flex(), 50, 2f64.powi(-11));
    let (lr, n) = (0.05 * spacing, 4000);
    let start = || Net {
        a: Param::from_tensor(Tensor::<2>::full([1, 1], 0.1, &device).cast(DType::BF16)),
        b: Param::from_tensor(Tensor::<1>::full([n], 0.1, &device).cast(DType::BF16)),
    };
    // The derivative is 1 in every step.
    let losses = || {
        let mut sign = -1.0f64;
        move |_: &Net| {
            sign = -sign;
            sign * 1e-3
        }
    };
    let begin = flat(&start());
    let (alone, _) = one_by_one(mezo(), start(), lr, steps, losses());
    let moved = alone.iter().zip(&begin).filter(|(a, b)| a != b).count();
    assert!(moved < n / 50, "{moved} of {n} weights moved");
    let (mut session, reports) = in_session(mezo(), start(), lr, steps, losses());
    let weights = flat(session.model());
    // The regression of what happened on the sum of the updates: 1, with a standard deviation of 0.065.
    let (mut product, mut square) = (0.0, 0.0);
    for i in 0..n {
        let noise = |report: &StepReport| {
            let seed = report.queries[0].direction.terms()[0].seed;
            let z = value(Noise::Gaussian, seed, TensorKey::new("b"), i as u64);
            f64::from(z)
        };
        let update = -lr * reports.iter().map(noise).sum::<f64>();
        product += update * (weights[1 + i] - begin[1 + i]);
        square += update * update;
    }
    let slope = product / square;
    assert!((slope - 1.0).abs() < 0.3, "{slope}");
}

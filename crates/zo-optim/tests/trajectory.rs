//! Every method of the registry: recorded for 50 steps, and replayed to the weights of any step.

#![allow(clippy::unwrap_used, reason = "tests")]
#![cfg_attr(
    feature = "ndarray",
    allow(
        deprecated,
        reason = "burn deprecates its ndarray backend; it is supported here as long as burn has it"
    )
)]

use std::convert::Infallible;
use std::path::Path;

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{DType, Device, Tensor};
use serde_json::Value;
use zo_optim::testing::{Target, Toy, flat, toy};
use zo_optim::trajectory::{Replay, Replayed, Trajectory, TrajectoryWriter};
use zo_optim::*;

const STEPS: usize = 50;
/// After these steps the weights are looked at, which rounds them.
const LOOKS: [usize; 2] = [20, 37];

/// Radius and rate: displacements must move half-precision weights.
const EPSILON: f64 = 1e-2;
const LR: f64 = 2e-3;

fn base(device: &Device, dtype: DType) -> Toy {
    struct Cast(DType);
    impl ModuleMapper for Cast {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            param.map(|tensor| tensor.cast(self.0))
        }
    }
    toy(device).map(&mut Cast(dtype))
}

/// The methods of the registry, and some of their parts that a preset lacks.
fn methods() -> Vec<(String, Method)> {
    let presets = registry().presets().to_vec();
    let presets = presets.iter().map(|preset| {
        let method = (preset.method)().with_epsilon(EPSILON);
        (preset.name.to_owned(), method)
    });
    let on_the_fly = |method: Method| method.with_perturbation(Perturbation::OnTheFly);
    let more = [
        ("mezo on the fly", on_the_fly(mezo())),
        ("lozo on the fly", on_the_fly(low_rank::lozo())),
        ("adam on the fly", on_the_fly(variants::adam())),
        (
            "mezo with decay",
            mezo().with_weight_decay(0.5).with_queries(3),
        ),
        ("lezo with decay", lezo().with_weight_decay(0.5)),
        (
            "mezo of seed 7, one-sided",
            mezo().with_seed(7).with_difference(Difference::OneSided),
        ),
        (
            "stochastic rounding",
            mezo().with_rounding(Rounding::Stochastic),
        ),
        (
            "gv with history",
            mezo_gv().with_sampler(GuidingVector::new().with_history(true)),
        ),
    ];
    let more = more.map(|(name, method)| (name.to_owned(), method.with_epsilon(EPSILON)));
    presets.chain(more).collect()
}

/// A run that is recorded.
struct Run {
    dir: tempfile::TempDir,
    weights: Vec<f64>,
    passes: usize,
}

impl Run {
    fn new(method: &Method, base: Toy, steps: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run");
        let mut session = method.init().unwrap().session(base).unwrap();
        let mut writer = TrajectoryWriter::of_session(&path, &mut session, Value::Null).unwrap();
        let exact = method.config()["difference"] == "exact";
        let loss = |toy: &Toy| f64::from(Target::Ellipsoid.loss(toy).into_scalar::<f32>());
        let mut passes = 0;
        for step in 1..=steps {
            let report = match exact {
                true => session.step_jvp(LR, |toy: &Toy, _| {
                    let loss = loss(toy);
                    Ok::<_, Infallible>((loss, f64::from((loss * 7.3).sin() as f32)))
                }),
                false => session.step(LR, loss),
            };
            let report = report.unwrap();
            passes += report.passes;
            writer.step(LR, &report).unwrap();
            if LOOKS.contains(&step) {
                session.model();
            }
            if step % 10 == 0 {
                writer.digest_session(&mut session).unwrap();
            }
        }
        let weights = flat(session.model());
        writer.digest_session(&mut session).unwrap();
        Self {
            dir,
            weights,
            passes,
        }
    }

    fn read(&self) -> Trajectory {
        Trajectory::read(self.dir.path().join("run")).unwrap()
    }

    fn replay(&self, method: &Method, base: Toy, to: usize, how: Replay) -> Replayed<Toy> {
        let mut optim = method.init().unwrap();
        let replayed = self.read().replay(base, &mut optim, to, how).unwrap();
        assert_eq!(optim.steps(), to as u64);
        replayed
    }
}

fn same_bits(name: &str, device: &Device, dtype: DType) {
    let (_, method) = methods()
        .into_iter()
        .find(|(known, _)| known == name)
        .unwrap();
    let base = || base(device, dtype);
    let run = Run::new(&method, base(), STEPS);
    let started = flat(&base());
    assert_ne!(run.weights, started, "{name} in {dtype:?} moves");
    let end = run.replay(&method, base(), STEPS, Replay::Exact);
    assert!(flat(&end.module) == run.weights, "{name} in {dtype:?}");
    assert_eq!(end.digests, 7, "the first, five on the way, the last");
    let short = Run::new(&method, base(), 13);
    let short_again = run.replay(&method, base(), 13, Replay::Exact);
    assert!(
        flat(&short_again.module) == short.weights,
        "{name} in {dtype:?} after 13 steps"
    );
    let begin = run.replay(&method, base(), 0, Replay::Exact);
    assert!(
        flat(&begin.module) == started,
        "{name} in {dtype:?} after 0 steps"
    );
}

#[cfg(feature = "flex")]
#[test]
fn every_method_replays_to_the_same_bits() {
    for (name, _) in methods() {
        for dtype in [DType::F32, DType::BF16, DType::F16] {
            same_bits(&name, &Device::flex(), dtype);
        }
    }
}

#[cfg(feature = "ndarray")]
#[test]
fn every_method_replays_to_the_same_bits_on_ndarray() {
    for (name, _) in methods() {
        same_bits(&name, &Device::ndarray(), DType::F32);
    }
}

/// The spacing of floats with this many bits at `x`.
fn ulp(x: f64, bits: i32) -> f64 {
    2f64.powi(x.abs().log2().floor() as i32 - bits + 1)
}

/// The page promises, for each weight, one spacing of floats per pass of the run.
#[cfg(feature = "flex")]
#[test]
fn a_fast_replay_stays_within_its_bound() {
    for (dtype, bits) in [(DType::F32, 24), (DType::BF16, 8), (DType::F16, 11)] {
        for (name, method) in methods() {
            let base = || base(&Device::flex(), dtype);
            let run = Run::new(&method, base(), STEPS);
            let fast = run.replay(&method, base(), STEPS, Replay::Fast).module;
            // Which weights move is decided by their magnitude, to the last bit.
            if method.config()["mask"]["kind"] == "magnitude" || name.contains("sparse") {
                continue;
            }
            let (fast, start) = (flat(&fast), flat(&base()));
            // A weight is rounded where it is largest: displaced by a Gaussian, or by a sum of several.
            let reach = 20.0 * EPSILON;
            let (mut worst, mut moved) = (0f64, 0f64);
            for ((fast, run), start) in fast.iter().zip(&run.weights).zip(&start) {
                let spacing = ulp(fast.abs().max(run.abs()) + reach, bits);
                worst = worst.max((fast - run).abs() / spacing);
                moved = moved.max((run - start).abs() / spacing);
            }
            let passes = run.passes.max(STEPS) as f64;
            println!("{dtype:?} {name}: {worst:.2} ulp in {passes} passes, {moved:.0} moved");
            assert!(
                worst <= passes,
                "{name} in {dtype:?}: {worst} ulp in {passes} passes"
            );
            if dtype == DType::F32 {
                // They add up like a random walk.
                let walk = 2.0 * passes.sqrt();
                assert!(worst <= walk, "{name}: {worst} ulp in {passes} passes");
                assert!(moved > 20.0 * walk, "{name} moves by {moved} ulp only");
            }
        }
    }
}

/// Runs that were recorded once, in `tests/trajectories`. If one of them has another hash, the noise or the arithmetic has changed: raise
/// the version, and record them again with `ZO_RECORD=1`.
#[cfg(feature = "flex")]
#[test]
fn recorded_runs_replay_to_the_hashes_they_had() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/trajectories");
    for (name, dtype) in [
        ("mezo", DType::F32),
        ("gv", DType::F32),
        ("lozo", DType::F32),
        ("adam", DType::F32),
        ("lezo with decay", DType::F16),
        ("stochastic rounding", DType::BF16),
    ] {
        let (_, method) = methods()
            .into_iter()
            .find(|(known, _)| known == name)
            .unwrap();
        let base = || base(&Device::flex(), dtype);
        let path = dir.join(format!("{}.zo", name.replace(' ', "-")));
        if std::env::var_os("ZO_RECORD").is_some() {
            let run = Run::new(&method, base(), STEPS);
            std::fs::copy(run.dir.path().join("run"), &path).unwrap();
        }
        let mut optim = method.init().unwrap();
        let trajectory = Trajectory::read(&path).unwrap();
        let replayed = trajectory.replay(base(), &mut optim, STEPS, Replay::Exact);
        assert_eq!(replayed.unwrap().digests, 7, "{name}");
    }
}

/// The table of the page *A run you can prove*, which has these rows (`tests/told.rs` of the workspace).
#[cfg(feature = "flex")]
#[test]
fn bytes_per_step_are_those_of_the_page() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/trajectories/bytes.md");
    let page = std::fs::read_to_string(page).unwrap();
    let mut missing = String::new();
    for preset in registry().presets() {
        let method = (preset.method)().with_epsilon(EPSILON);
        let size = |steps| {
            let run = Run::new(&method, base(&Device::flex(), DType::F32), steps);
            let length = std::fs::metadata(run.dir.path().join("run")).unwrap().len();
            let answers = run
                .read()
                .steps()
                .map(|step| step.answers.len())
                .sum::<usize>();
            (length, answers)
        };
        // None of these steps is followed by a hash.
        let ((short, few), (long, many)) = (size(1), size(9));
        let answers = (many - few) / 8;
        let (single, double) = ((long - short) / 8, (long - short) / 8 + 4 * answers as u64);
        let row = format!("| `{}` | {answers} | {single} | {double} |", preset.name);
        if !page.contains(&row) {
            missing += &format!("{row}\n");
        }
    }
    assert!(missing.is_empty(), "bytes.md lacks\n{missing}");
}

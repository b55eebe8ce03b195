mod forged;

use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::tensor::Device;
use serde_json::json;

use super::*;
use crate::testing::{Target, Toy, flat, toy};
use crate::{Difference, Method, NonFinite, Perturbation, ZeroOrder, ZerothOrderOptimizer};

const LR: f64 = 0.01;

fn objective(toy: &Toy) -> burn::tensor::Tensor<1> {
    Target::Ellipsoid.loss(toy)
}

fn base() -> Toy {
    toy(&Device::flex())
}

/// A folder, and a trajectory in it.
struct Recorded {
    _dir: tempfile::TempDir,
    path: PathBuf,
    /// The weights after each step, looked at or not.
    end: Vec<f64>,
}

/// Steps of a session. After each of `looks` its weights are looked at, and a hash is recorded.
fn record(method: &Method, steps: usize, looks: &[usize]) -> Recorded {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run.trajectory");
    let mut session = method.init().unwrap().session(base()).unwrap();
    let mut writer = TrajectoryWriter::of_session(&path, &mut session, json!("test")).unwrap();
    for step in 1..=steps {
        let report = session.step(LR, objective).unwrap();
        writer.step(LR, &report).unwrap();
        if looks.contains(&step) {
            session.model();
            writer.evaluation(0.5, 1.0 / 3.0).unwrap();
            writer.digest_session(&mut session).unwrap();
        }
    }
    writer.digest_session(&mut session).unwrap();
    Recorded {
        _dir: dir,
        path,
        end: flat(session.model()),
    }
}

fn replayed(path: &Path, method: &Method, to: usize) -> Result<Replayed<Toy>, ReplayError> {
    let trajectory = Trajectory::read(path).unwrap();
    let mut optim = method.init().unwrap();
    trajectory.replay(base(), &mut optim, to, Replay::Exact)
}

#[test]
fn looks_at_the_weights_are_part_of_a_run() {
    let method = Method::new().with_queries(2).with_weight_decay(0.5);
    let run = record(&method, 12, &[3, 7, 8]);
    let again = replayed(&run.path, &method, 12).unwrap();
    assert_eq!(flat(&again.module), run.end);
    // The first, three looks, and the last.
    assert_eq!(again.digests, 5);
    let undisturbed = record(&method, 12, &[]);
    assert_ne!(undisturbed.end, run.end, "looking rounds");
    let trajectory = Trajectory::read(&run.path).unwrap();
    let rested: Vec<bool> = trajectory.steps().map(|step| step.began_at_rest).collect();
    let at = |n: usize| [0, 3, 7, 8].contains(&n);
    assert_eq!(rested, (0..12).map(at).collect::<Vec<_>>());
    let evaluations: Vec<_> = trajectory.evaluations().collect();
    assert_eq!(evaluations, [3, 7, 8].map(|step| (step, 0.5, 1.0 / 3.0)));
}

#[test]
fn steps_one_by_one_and_steps_on_the_fly_are_replayed_as_they_were() {
    let in_place = Method::new();
    let one_sided = Method::new().with_difference(Difference::OneSided);
    let on_the_fly = Method::new().with_perturbation(Perturbation::OnTheFly);
    for method in [in_place, one_sided, on_the_fly] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run.trajectory");
        let mut optim = method.init().unwrap();
        let mut held = optim.hold(base()).unwrap();
        let mut writer = TrajectoryWriter::create(&path, &optim, &mut held, json!(null)).unwrap();
        for _ in 0..10 {
            let report = optim.step_on(LR, &mut held, objective).unwrap();
            writer.step(LR, &report).unwrap();
        }
        writer.digest(&mut held).unwrap();
        let again = replayed(&path, &method, 10).unwrap();
        assert_eq!(flat(&again.module), flat(held.at_rest()), "{method:?}");
        assert!(!Trajectory::read(&path).unwrap().header().session);
    }
}

#[test]
fn steps_that_were_skipped_are_skipped_again() {
    let method = Method::new().with_non_finite(NonFinite::Skip);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run.trajectory");
    let mut session = method.init().unwrap().session(base()).unwrap();
    let mut writer = TrajectoryWriter::of_session(&path, &mut session, json!(null)).unwrap();
    let mut calls = 0;
    for _ in 0..9 {
        let report = session.step(LR, |toy: &Toy| {
            calls += 1;
            match calls % 5 {
                0 => f64::NAN,
                _ => objective(toy).into_scalar::<f32>().into(),
            }
        });
        writer.step(LR, &report.unwrap()).unwrap();
    }
    let again = replayed(&path, &method, 9).unwrap();
    assert_eq!(flat(&again.module), flat(session.model()));
}

/// What a step is recorded in.
#[test]
fn a_step_of_mezo_takes_18_bytes() {
    let (short, long) = (
        record(&Method::new(), 5, &[]),
        record(&Method::new(), 25, &[]),
    );
    let size = |run: &Recorded| std::fs::metadata(&run.path).unwrap().len();
    assert_eq!(size(&long) - size(&short), 20 * 18);
}

/// A run with other bytes.
fn altered(run: &Recorded, bytes: &[u8]) -> Result<Trajectory, TrajectoryError> {
    super::reader::parse(&run.path, bytes).map(|(trajectory, _)| trajectory)
}

#[test]
fn every_byte_that_is_altered_is_found() {
    let run = record(&Method::new(), 6, &[2]);
    let bytes = std::fs::read(&run.path).unwrap();
    let whole = Trajectory::read(&run.path).unwrap();
    let start = bytes.len() - records_of(&bytes);
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut other = bytes.clone();
            other[at] ^= 1 << bit;
            match altered(&run, &other) {
                Err(TrajectoryError::Header { .. }) => assert!(at < start),
                Err(TrajectoryError::Damaged { offset, .. }) => {
                    assert!(
                        offset <= at && at < offset + 60,
                        "byte {at}, record at {offset}"
                    );
                }
                other => panic!("byte {at}, bit {bit}: {other:?}"),
            }
        }
        let mut zeroed = bytes.clone();
        if std::mem::take(&mut zeroed[at]) != 0 {
            assert!(altered(&run, &zeroed).is_err(), "byte {at} as zero");
        }
    }
    assert_eq!(altered(&run, &bytes).unwrap(), whole);
}

/// Bytes of all records.
fn records_of(bytes: &[u8]) -> usize {
    let length = u32::from_le_bytes(*bytes[8..].first_chunk().unwrap());
    bytes.len() - (8 + 4 + length as usize + 4)
}

#[test]
fn a_record_that_is_missing_or_elsewhere_is_found() {
    let run = record(&Method::new(), 6, &[]);
    let bytes = std::fs::read(&run.path).unwrap();
    // The last record is a hash: 5 + 1 + 32 + 4 bytes.
    let end = bytes.len() - 42;
    let (before, last) = (end - 36, end - 18);
    let without = [&bytes[..before], &bytes[last..]].concat();
    let swapped = [
        &bytes[..before],
        &bytes[last..end],
        &bytes[before..last],
        &bytes[end..],
    ]
    .concat();
    for other in [without, swapped] {
        let error = altered(&run, &other).unwrap_err().to_string();
        assert!(error.contains("record 5,"), "{error}");
        assert!(
            error.contains("checksum") && error.contains("4 step(s)"),
            "{error}"
        );
    }
}

#[test]
fn a_file_that_was_cut_off_goes_on_to_the_same_bits() {
    let method = Method::new();
    let run = record(&method, 6, &[2]);
    let bytes = std::fs::read(&run.path).unwrap();
    let start = bytes.len() - records_of(&bytes);
    for cut in 0..bytes.len() {
        let path = run.path.with_extension("cut");
        std::fs::write(&path, &bytes[..cut]).unwrap();
        if cut < start {
            let error = Trajectory::read(&path).unwrap_err();
            assert!(matches!(error, TrajectoryError::Header { .. }), "{error}");
            continue;
        }
        let (trajectory, mut writer) = TrajectoryWriter::resume(&path).unwrap();
        let done = trajectory.steps().count();
        assert_eq!(std::fs::metadata(&path).unwrap().len(), {
            (cut - trajectory.torn().map_or(0, |torn| torn.rest)) as u64
        });
        let mut optim = method.init().unwrap();
        let mut held = optim.hold(base()).unwrap().lazy();
        (trajectory.replay_on(&mut optim, &mut held, 0..done, Replay::Exact, |_| {})).unwrap();
        let evaluated = trajectory.evaluations().count();
        let hashed = trajectory.records().len() - done - evaluated;
        if hashed == 0 {
            writer.digest(&mut held).unwrap();
        }
        for step in done..=6 {
            if step == 2 {
                // What the run did after its second step, as far as it was lost.
                held.at_rest();
                if evaluated < 1 {
                    writer.evaluation(0.5, 1.0 / 3.0).unwrap();
                }
                if hashed < 2 {
                    writer.digest(&mut held).unwrap();
                }
            }
            if step < 6 {
                let report = optim.step_on(LR, &mut held, objective).unwrap();
                writer.step(LR, &report).unwrap();
            }
        }
        if hashed < 3 {
            writer.digest(&mut held).unwrap();
        }
        assert!(std::fs::read(&path).unwrap() == bytes, "cut at {cut}");
    }
}

#[test]
fn sectors_that_were_never_written_are_cut_off() {
    let run = record(&Method::new(), 100, &[]);
    let bytes = std::fs::read(&run.path).unwrap();
    let border = bytes.len() / 512 * 512;
    let mut torn = bytes.clone();
    torn[border..].fill(0);
    torn.resize(border + 2048, 0);
    let found = altered(&run, &torn).unwrap();
    assert!(found.torn().unwrap().whole <= border);
    let steps = Trajectory::read(&run.path).unwrap();
    let lost = 100 - found.steps().count();
    assert!(
        (1..=(bytes.len() - border) / 18 + 1).contains(&lost),
        "{lost}"
    );
    assert!(found.steps().eq(steps.steps().take(100 - lost)));
    // Zeros elsewhere are damage.
    let mut damaged = bytes.clone();
    damaged[border - 100..border].fill(0);
    assert!(matches!(
        altered(&run, &damaged),
        Err(TrajectoryError::Damaged { .. })
    ));
}

#[test]
fn what_is_not_the_run_is_refused() {
    let method = Method::new();
    let run = record(&method, 5, &[]);
    let refused = |optim: &Method, module: Toy, to| {
        let trajectory = Trajectory::read(&run.path).unwrap();
        let mut optim = optim.init().unwrap();
        let replayed = trajectory.replay(module, &mut optim, to, Replay::Exact);
        replayed.unwrap_err().to_string()
    };
    let error = refused(&method.clone().with_epsilon(2e-3), base(), 5);
    assert!(
        error.contains("`epsilon` is 0.001, expected 0.002"),
        "{error}"
    );
    let error = refused(&method, base(), 6);
    assert!(
        error.contains("has 5 step(s), and 6 are asked for"),
        "{error}"
    );
    let mut other = base();
    other.head = other.head.map(|head| head * 2.0);
    let error = refused(&method, other, 5);
    assert!(
        error.contains("after 0 step(s) the weights have the hash"),
        "{error}"
    );
    let mut other = base();
    other.layers.pop();
    let error = refused(&method, other, 5);
    assert!(
        error.contains("`layers.3.attention` is `head`, F32 [6], here"),
        "{error}"
    );
    // A record that was forged, checksums and all.
    let trajectory = Trajectory::read(&run.path).unwrap();
    let mut forged = trajectory.clone();
    forged.records = (trajectory.records.iter().cloned())
        .map(|record| match record {
            Record::Step(step) => Record::Step(RecordedStep {
                answers: vec![step.answers[0] + 0.5, step.answers[1]],
                ..step
            }),
            other => other,
        })
        .collect();
    let replayed = forged.replay(base(), &mut method.init().unwrap(), 5, Replay::Exact);
    let error = replayed.unwrap_err().to_string();
    assert!(
        error.contains("after 5 step(s)") && error.contains("(after 0 they were"),
        "{error}"
    );
    forged
        .records
        .retain(|record| !matches!(record, Record::Digest { .. }));
    for answers in [1, 3] {
        if let Some(Record::Step(step)) = forged.records.last_mut() {
            step.answers.resize(answers, 0.5);
        }
        let replayed = forged.replay(base(), &mut method.init().unwrap(), 5, Replay::Exact);
        let error = replayed.unwrap_err().to_string();
        let told = format!("has {answers} answer(s) of the objective, and the step asks for 2");
        assert!(
            error.contains("step 4 ") && error.contains(&told),
            "{error}"
        );
    }
}

#[test]
fn another_version_is_refused_by_name() {
    let run = record(&Method::new(), 1, &[]);
    let bytes = std::fs::read(&run.path).unwrap();
    let place = b"\"noise\":1";
    let from = bytes.windows(place.len()).position(|found| found == place);
    let mut other = bytes.clone();
    other[from.unwrap() + place.len() - 1] = b'2';
    let length = u32::from_le_bytes(*bytes[8..].first_chunk().unwrap()) as usize;
    let mut checksum = crc32fast::Hasher::new();
    checksum.update(&other[..12 + length]);
    other[12 + length..16 + length].copy_from_slice(&checksum.finalize().to_le_bytes());
    let error = altered(&run, &other).unwrap_err().to_string();
    assert!(
        error.contains("with noise 2, and this build has noise 1"),
        "{error}"
    );
}

#[test]
fn an_optimizer_without_replay_has_no_trajectory() {
    struct Other(ZeroOrder);
    impl ZerothOrderOptimizer for Other {
        fn hold<M: Module>(&self, module: M) -> Result<crate::Perturbed<M>, crate::StepError<M>> {
            self.0.hold(module)
        }
        fn step_on<M: Module>(
            &mut self,
            lr: f64,
            held: &mut crate::Perturbed<M>,
            objective: impl crate::Objective<M>,
        ) -> Result<crate::StepReport, crate::ZoError> {
            self.0.step_on(lr, held, objective)
        }
        fn steps(&self) -> u64 {
            self.0.steps()
        }
        fn skip(&mut self) -> u64 {
            self.0.skip()
        }
        fn record(&self) -> crate::OptimizerRecord {
            self.0.record()
        }
        fn load_record(
            &mut self,
            record: crate::OptimizerRecord,
        ) -> Result<(), crate::RecordError> {
            self.0.load_record(record)
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run.trajectory");
    let mut other = Other(Method::new().init().unwrap());
    let mut held = other.hold(base()).unwrap();
    let error = TrajectoryWriter::create(&path, &other, &mut held, json!(null)).unwrap_err();
    assert!(error.to_string().contains("cannot be replayed"), "{error}");
    assert!(!path.exists());
    let error = other.replay_on(LR, &mut held, &[]).unwrap_err().to_string();
    assert!(error.contains("cannot be combined"), "{error}");
}

#[test]
fn two_runs_part_where_they_differ() {
    let run = record(&Method::new(), 8, &[4]);
    let same = record(&Method::new(), 8, &[4]);
    let read = |run: &Recorded| Trajectory::read(&run.path).unwrap();
    assert!(read(&run).compare(&read(&same)).is_same());
    let other = record(&Method::new().with_seed(5), 8, &[4]);
    let found = read(&run).compare(&read(&other));
    let [field] = &found.fields[..] else {
        panic!("{found:?}");
    };
    assert_eq!(field.name, "optimizer.method.seed");
    assert_eq!((&*field.first, &*field.second), ("0", "5"));
    assert_eq!((found.parting.unwrap().step, found.weights), (0, Some(4)));
    let shorter = record(&Method::new(), 6, &[4]);
    let found = read(&run).compare(&read(&shorter));
    let parting = found.parting.unwrap();
    assert_eq!(
        (parting.step, parting.second, found.weights),
        (6, None, None)
    );
    assert!(parting.first.is_some() && found.fields.is_empty());
}

#[test]
fn a_fast_replay_takes_one_pass_for_hundreds_of_steps() {
    let passes = |method: &Method| {
        let run = record(method, 300, &[]);
        let trajectory = Trajectory::read(&run.path).unwrap();
        let mut optim = method.init().unwrap();
        let mut held = optim.hold(base()).unwrap().summed();
        (trajectory.replay_on(&mut optim, &mut held, 0..300, Replay::Fast, |_| {})).unwrap();
        held.at_rest();
        held.passes()
    };
    let mezo = Method::new();
    assert_eq!(passes(&mezo), 2);
    assert_eq!(passes(&mezo.clone().with_weight_decay(0.5)), 2);
    let groups = vec![(burn::module::ParamGroup::from_predicate("norm"), 0.25)];
    // Weights that decay at different rates cannot share a sum.
    assert_eq!(passes(&mezo.with_weight_decay_groups(groups)), 300);
}

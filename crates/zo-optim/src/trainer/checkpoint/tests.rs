use burn::module::Param;
use burn::tensor::{Device, Tensor};
use serde_json::json;

use super::super::history::Evaluated;
use super::*;

#[derive(Module, Debug)]
struct Toy {
    base: Param<Tensor<1>>,
    factor: Param<Tensor<1>>,
}

fn toy(base: f32, factor: f32) -> Toy {
    let param = |value| Param::from_tensor(Tensor::full([3], value, &Device::flex()));
    Toy {
        base: param(base),
        factor: param(factor),
    }
}

fn factor_of(model: &Toy) -> f32 {
    model.factor.val().into_data().iter::<f32>().sum::<f32>() / 3.0
}

fn trained() -> ParamGroup {
    ParamGroup::from_path("factor")
}

/// What a run depends on.
fn run(lr: f64) -> Value {
    let parameters = parameters(&toy(1.0, 0.0), &trained()).unwrap();
    json!({ "lr": lr, PARAMETERS: parameters })
}

fn record(step: u64) -> OptimizerRecord {
    OptimizerRecord {
        step,
        parts: serde_json::Map::from_iter([("noise".to_owned(), json!([7]))]),
        ..OptimizerRecord::default()
    }
}

/// Evaluations after these steps with these scores.
fn evaluations(points: &[(usize, f64)]) -> History {
    let evaluated = |(step, score): &(usize, f64)| Evaluated {
        step: *step,
        score: *score,
        loss: 0.5,
    };
    History(points.iter().map(evaluated).collect())
}

impl Store<'_> {
    /// Writes and publishes a checkpoint of a module at rest.
    fn save(
        &mut self,
        step: usize,
        evaluations: &History,
        model: &Toy,
    ) -> Result<PathBuf, CheckpointError> {
        let position = Position::default();
        let draft = self.draft(step, evaluations, (model, position), || record(step as u64))?;
        self.publish(draft)
    }
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = entries(dir)
        .unwrap()
        .into_iter()
        .map(|(name, _)| name)
        .collect();
    names.sort();
    names
}

#[test]
fn what_was_saved_is_read_and_what_is_old_is_removed() {
    let (dir, trained) = (tempfile::tempdir().unwrap(), trained());
    let dir = dir.path();
    let mut store = Store::open(dir, &trained, run(0.1), true, false).unwrap();
    assert!(store.last().unwrap().is_none());
    store.save_best(0, &toy(1.0, 0.5)).unwrap();
    let first = evaluations(&[(0, 0.5), (5, 0.4)]);
    let path = store.save(5, &first, &toy(1.0, 5.0)).unwrap();
    assert_eq!(path, dir.join("step-000005"));
    assert_eq!(names(dir), ["best-000000", "step-000005"]);
    // The checkpoint still knows the old best weights only.
    store.save_best(6, &toy(1.0, 6.0)).unwrap();
    assert_eq!(names(dir), ["best-000000", "best-000006", "step-000005"]);
    store.save_best(7, &toy(1.0, 7.0)).unwrap();
    assert_eq!(names(dir), ["best-000000", "best-000007", "step-000005"]);
    let second = evaluations(&[(0, 0.5), (5, 0.4), (6, 0.6), (7, 0.7)]);
    assert!(!store.has(8));
    store.save(8, &second, &toy(1.0, 8.0)).unwrap();
    assert_eq!(names(dir), ["best-000007", "step-000008"]);
    assert!(store.has(8));

    let mut other = Store::open(dir, &trained, run(0.1), true, true).unwrap();
    let saved = other.last().unwrap().unwrap();
    assert_eq!((saved.step, &saved.evaluations), (8, &second));
    assert_eq!(saved.record, record(8));
    let model = toy(1.0, 0.0);
    let (model, result) = saved.load(model, &trained);
    result.unwrap();
    assert_eq!(factor_of(&model), 8.0);
    let (model, result) = other.load_best(7, model);
    result.unwrap();
    assert_eq!(factor_of(&model), 7.0);
    assert!(other.has(8));
}

#[test]
fn unfinished_checkpoints_do_not_count() {
    let (dir, trained) = (tempfile::tempdir().unwrap(), trained());
    let dir = dir.path();
    for name in ["step-000050.tmp", "step-000060", "best-000070.tmp"] {
        fs::create_dir(dir.join(name)).unwrap();
        fs::write(dir.join(name).join(WEIGHTS), "half of i").unwrap();
    }
    fs::create_dir(dir.join("step-by-step")).unwrap();
    let mut store = Store::open(dir, &trained, run(0.1), false, false).unwrap();
    assert!(store.last().unwrap().is_none());
    let none = History::default();
    store.save(3, &none, &toy(1.0, 3.0)).unwrap();
    assert_eq!(names(dir), ["step-000003", "step-by-step"]);
    // One that died between its last write and its end is written anew.
    fs::create_dir(dir.join("step-000004")).unwrap();
    fs::create_dir(dir.join("step-000004.tmp")).unwrap();
    fs::write(dir.join("step-000004.tmp").join("extra"), "x").unwrap();
    store.save(4, &none, &toy(1.0, 4.0)).unwrap();
    assert_eq!(names(dir), ["step-000004", "step-by-step"]);
    assert!(!dir.join("step-000004").join("extra").exists());
}

#[test]
fn a_draft_does_not_count_before_it_is_published() {
    let (dir, trained) = (tempfile::tempdir().unwrap(), trained());
    let dir = dir.path();
    let mut store = Store::open(dir, &trained, run(0.1), false, false).unwrap();
    let none = History::default();
    store.save(3, &none, &toy(1.0, 3.0)).unwrap();
    let at_rest = Position::default();
    let model = toy(1.0, 4.0);
    let draft = store
        .draft(4, &none, (&model, at_rest), || record(4))
        .unwrap();
    assert_eq!(names(dir), ["step-000003", "step-000004.tmp"]);
    assert_eq!(store.last().unwrap().map(|saved| saved.step), Some(3));
    draft.discard();
    assert_eq!(names(dir), ["step-000003"]);
}

#[test]
fn checkpoints_of_others_are_refused() {
    let (dir, trained) = (tempfile::tempdir().unwrap(), trained());
    let dir = dir.path();
    let open = |run, resume| Store::open(dir, &trained, run, false, resume);
    let none = History::default();
    let mut store = open(run(0.1), false).unwrap();
    let changed = store.save(2, &none, &toy(1.5, 0.0)).unwrap_err();
    assert!(
        changed.to_string().contains("`base` has changed"),
        "{changed}"
    );
    store.save(2, &none, &toy(1.0, 0.0)).unwrap();
    let exists = open(run(0.1), false).err().unwrap().to_string();
    assert!(
        exists.contains("step-000002") && exists.contains("`resume`"),
        "{exists}"
    );
    let differs = open(run(0.2), true)
        .unwrap()
        .last()
        .err()
        .unwrap()
        .to_string();
    assert!(
        differs.contains("its lr is 0.1, this run's is 0.2"),
        "{differs}"
    );
    let state = dir.join("step-000002").join(STATE);
    let text = fs::read_to_string(&state).unwrap();
    fs::write(&state, text.replace("\"version\": 2", "\"version\": 99")).unwrap();
    let version = open(run(0.1), true)
        .unwrap()
        .last()
        .err()
        .unwrap()
        .to_string();
    assert!(version.contains("version 99"), "{version}");
    fs::write(&state, "{").unwrap();
    let damaged = open(run(0.1), true)
        .unwrap()
        .last()
        .err()
        .unwrap()
        .to_string();
    assert!(damaged.contains("state.json is damaged"), "{damaged}");
}

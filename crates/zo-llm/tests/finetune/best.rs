//! Keeping the best weights, and stopping early, with an optimizer that follows a script.

use std::path::Path;

use burn::tensor::Device;
use zo_core::{ObjectiveError, OptimizerRecord, RecordError, StepError, StepReport};
use zo_llm::CausalLm;
use zo_llm::dataset::{Dataset, evaluate};
use zo_llm::finetune::{FinetuneConfig, Finish, LmOptimizer, LossValue, Outcome};

use crate::{bits, config, data, model, names, quiet, run, saving, spoiled};

/// Step k leads to the model of seed number k, or to one of NaN alone for [`SPOILED`].
pub(crate) struct Scripted {
    pub(crate) seeds: Vec<u64>,
    pub(crate) step: usize,
}

pub(crate) const SPOILED: u64 = u64::MAX;

impl LmOptimizer for Scripted {
    fn step_lm(
        &mut self,
        _: f64,
        _: CausalLm,
        _: &mut dyn FnMut(&CausalLm) -> Result<LossValue, ObjectiveError>,
    ) -> Result<(CausalLm, StepReport), StepError<CausalLm>> {
        let report = StepReport {
            step: self.step as u64,
            queries: Vec::new(),
            loss_unperturbed: Some(0.0),
            forwards: 0,
            passes: 0,
            swept: 0,
            skipped: false,
            copied: 0,
            seconds_forward: 0.0,
            seconds_sweep: 0.0,
        };
        let seed = self.seeds[self.step];
        self.step += 1;
        let model = match seed {
            SPOILED => spoiled(),
            seed => model(seed),
        };
        Ok((model, report))
    }

    fn record_lm(&self) -> OptimizerRecord {
        OptimizerRecord {
            step: self.step as u64,
            ..OptimizerRecord::default()
        }
    }

    fn load_record_lm(&mut self, record: OptimizerRecord) -> Result<(), RecordError> {
        self.step = record.step as usize;
        Ok(())
    }
}

/// Seeds of three models, from the worst to the best.
pub(crate) fn ranked(data: &Dataset) -> [u64; 3] {
    let mut seeds = [11, 12, 13].map(|seed| {
        let evaluation = evaluate(&model(seed), data, 3, 0, &Device::flex()).unwrap();
        (evaluation.score(), evaluation.loss, seed)
    });
    seeds.sort_by(|a, b| a.0.total_cmp(&b.0).then(b.1.total_cmp(&a.1)));
    assert!(seeds.windows(2).all(|pair| pair[0].1 != pair[1].1));
    seeds.map(|(_, _, seed)| seed)
}

fn follow(start: u64, seeds: &[u64], data: &Dataset, config: &FinetuneConfig) -> Outcome {
    let (seeds, step) = (seeds.to_vec(), 0);
    let mut optim = Scripted { seeds, step };
    run(model(start), &mut optim, data, config, quiet).unwrap()
}

pub(crate) fn keeping(steps: usize, dir: &Path) -> FinetuneConfig {
    let config = FinetuneConfig {
        eval_every: 1,
        keep_best: true,
        ..config(steps)
    };
    saving(config, dir)
}

#[test]
fn a_run_without_progress_stops_and_gives_its_best_weights() {
    let data = data();
    let [bad, fair, good] = ranked(&data);
    let dir = tempfile::tempdir().unwrap();
    let config = FinetuneConfig {
        patience: Some(2),
        ..keeping(9, dir.path())
    };
    let script = [bad, good, bad, fair, good, good, good, good, good];
    let done = follow(fair, &script, &data, &config);
    assert_eq!((done.finish, done.step), (Finish::EarlyStopped, 4));
    assert_eq!(done.best.map(|best| best.step), Some(2));
    assert_eq!(bits(&done.model), bits(&model(good)));
    assert_eq!(done.evaluations.len(), 5);
    assert_eq!(names(dir.path()), ["best-000002", "step-000004"]);

    // To resume it changes nothing.
    let resumed = FinetuneConfig {
        resume: true,
        ..config
    };
    let again = follow(fair, &[], &data, &resumed);
    assert_eq!((again.finish, again.step), (Finish::EarlyStopped, 4));
    assert_eq!(bits(&again.model), bits(&model(good)));
    assert_eq!(again.evaluations, done.evaluations);
}

#[test]
fn the_best_weights_are_kept_wherever_they_come() {
    let data = data();
    let [bad, fair, good] = ranked(&data);
    for (start, script, best) in [
        (bad, [fair, good, bad], 2),
        (good, [bad, fair, good], 0),
        (bad, [bad, fair, good], 3),
        (fair, [good, good, bad], 1),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let config = FinetuneConfig {
            checkpoint_every: 2,
            ..keeping(3, dir.path())
        };
        let done = follow(start, &script, &data, &config);
        assert_eq!((done.finish, done.step), (Finish::Done, 3));
        assert_eq!(done.best.map(|best| best.step), Some(best));
        assert_eq!(bits(&done.model), bits(&model(good)));
        let folder = format!("best-{best:06}");
        assert_eq!(names(dir.path()), [folder.as_str(), "step-000003"]);
    }
}

#[test]
fn without_keep_best_the_last_weights_count() {
    let data = data();
    let [bad, fair, good] = ranked(&data);
    let config = FinetuneConfig {
        eval_every: 1,
        ..config(2)
    };
    let done = follow(fair, &[good, bad], &data, &config);
    assert_eq!(bits(&done.model), bits(&model(bad)));
    assert_eq!(done.best.map(|best| best.step), Some(1));
}

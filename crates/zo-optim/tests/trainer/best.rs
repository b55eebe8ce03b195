//! Keeping the best weights, and stopping early, with an optimizer that follows a script.

use std::path::Path;

use burn::module::{Module, ModuleMapper, Param, ParamGroup};
use burn::tensor::Tensor;
use zo_optim::prelude::*;
use zo_optim::trainer::{Finish, Outcome, Task, TrainerConfig};
use zo_optim::{Objective, OptimizerRecord, Perturbed, RecordError, StepError, ZoError};

use crate::{Net, Rows, bits, config, names, net, noise, quiet, resuming, run, saving};

/// Step k leads to the weights of seed number k, or to NaN alone for [`SPOILED`].
pub(crate) struct Scripted {
    pub(crate) seeds: Vec<u64>,
    pub(crate) step: usize,
}

pub(crate) const SPOILED: u64 = u64::MAX;

/// The weights of a net of this seed.
struct Fill(u64, u64);

impl ModuleMapper for Fill {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let number = if D == 1 { 9 } else { self.1 };
        self.1 += 1;
        let seed = self.0;
        param.map(|tensor| match seed {
            SPOILED => tensor * f32::NAN,
            seed => Tensor::from_data(noise(seed, number, &tensor.dims()), &tensor.device()),
        })
    }
}

impl ZerothOrderOptimizer for Scripted {
    fn hold<M: Module>(&self, module: M) -> Result<Perturbed<M>, StepError<M>> {
        Perturbed::hold(module, &ParamGroup::all(), Perturbation::InPlace)
    }

    fn step_on<M: Module>(
        &mut self,
        _: f64,
        held: &mut Perturbed<M>,
        _: impl Objective<M>,
    ) -> Result<StepReport, ZoError> {
        let mut fill = Fill(self.seeds[self.step], 0);
        held.replace(|module| module.map(&mut fill));
        Ok(StepReport {
            step: self.skip(),
            loss_unperturbed: Some(0.0),
            ..StepReport::default()
        })
    }

    fn steps(&self) -> u64 {
        self.step as u64
    }

    fn skip(&mut self) -> u64 {
        self.step += 1;
        self.step as u64 - 1
    }

    fn record(&self) -> OptimizerRecord {
        OptimizerRecord {
            step: self.steps(),
            ..OptimizerRecord::default()
        }
    }

    fn load_record(&mut self, record: OptimizerRecord) -> Result<(), RecordError> {
        self.step = record.step as usize;
        Ok(())
    }
}

/// Seeds of three networks, from the worst to the best.
pub(crate) fn ranked() -> [u64; 3] {
    let loss = |seed| Rows::default().evaluate(&net(seed)).unwrap().loss;
    let mut seeds = [11, 12, 13];
    seeds.sort_by(|a, b| loss(*b).total_cmp(&loss(*a)));
    assert!(loss(seeds[0]) > loss(seeds[1]) && loss(seeds[1]) > loss(seeds[2]));
    seeds
}

fn follow(start: u64, seeds: &[u64], config: &TrainerConfig) -> Outcome<Net> {
    let (seeds, step) = (seeds.to_vec(), 0);
    run(net(start), &mut Scripted { seeds, step }, config, quiet).unwrap()
}

pub(crate) fn keeping(steps: usize, dir: &Path) -> TrainerConfig {
    let config = TrainerConfig {
        eval_every: 1,
        keep_best: true,
        ..config(steps)
    };
    saving(config, dir)
}

#[test]
fn a_run_without_progress_stops_and_gives_its_best_weights() {
    let [bad, fair, good] = ranked();
    let dir = tempfile::tempdir().unwrap();
    let config = TrainerConfig {
        patience: Some(2),
        ..keeping(9, dir.path())
    };
    let script = [bad, good, bad, fair, good, good, good, good, good];
    let done = follow(fair, &script, &config);
    assert_eq!((done.finish, done.step), (Finish::EarlyStopped, 4));
    assert_eq!(done.best.map(|best| best.step), Some(2));
    assert_eq!(bits(&done.model), bits(&net(good)));
    assert_eq!(done.evaluations.len(), 5);
    assert_eq!(names(dir.path()), ["best-000002", "step-000004"]);

    // Resuming it changes nothing.
    let again = follow(fair, &[], &resuming(&config));
    assert_eq!((again.finish, again.step), (Finish::EarlyStopped, 4));
    assert_eq!(bits(&again.model), bits(&net(good)));
    assert_eq!(again.evaluations, done.evaluations);
}

#[test]
fn the_best_weights_are_kept_wherever_they_come() {
    let [bad, fair, good] = ranked();
    for (start, script, best) in [
        (bad, [fair, good, bad], 2),
        (good, [bad, fair, good], 0),
        (bad, [bad, fair, good], 3),
        (fair, [good, good, bad], 1),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let config = TrainerConfig {
            checkpoint_every: 2,
            ..keeping(3, dir.path())
        };
        let done = follow(start, &script, &config);
        assert_eq!((done.finish, done.step), (Finish::Done, 3));
        assert_eq!(done.best.map(|best| best.step), Some(best));
        assert_eq!(bits(&done.model), bits(&net(good)));
        let folder = format!("best-{best:06}");
        assert_eq!(names(dir.path()), [folder.as_str(), "step-000003"]);
    }
}

#[test]
fn without_keep_best_the_last_weights_count() {
    let [bad, fair, good] = ranked();
    let config = TrainerConfig {
        eval_every: 1,
        ..config(2)
    };
    let done = follow(fair, &[good, bad], &config);
    assert_eq!(bits(&done.model), bits(&net(bad)));
    assert_eq!(done.best.map(|best| best.step), Some(1));
}

#[test]
fn best_weights_are_settled_ones() {
    let dir = tempfile::tempdir().unwrap();
    let config = TrainerConfig {
        eval_every: 3,
        lr: 5e-2,
        ..keeping(7, dir.path())
    };
    let mut optim = mezo().init().unwrap();
    let done = run(net(1), &mut optim, &config, quiet).unwrap();
    let best = done.best.unwrap();
    assert!(best.step > 0, "{best:?}");
    let again = Rows::default().evaluate(&done.model).unwrap();
    assert_eq!(again.loss, best.loss);
}

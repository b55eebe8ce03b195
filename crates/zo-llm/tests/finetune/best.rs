//! Keeping the best weights, with an optimizer that follows a script.

use std::path::Path;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamGroup};
use burn::tensor::{Device, Tensor, TensorData};
use zo_core::{
    Loss, OptimizerRecord, Perturbation, Perturbed, RecordError, StepError, StepReport,
    ZerothOrderOptimizer, ZoError,
};
use zo_llm::dataset::{Dataset, evaluate};
use zo_llm::finetune::{FinetuneConfig, Finish};

use crate::{bits, config, data, model, names, quiet, run, saving, spoiled};

/// Step k leads to the model of seed number k, or to one of NaN alone for [`SPOILED`].
pub(crate) struct Scripted {
    pub(crate) seeds: Vec<u64>,
    pub(crate) step: usize,
}

pub(crate) const SPOILED: u64 = u64::MAX;

/// The weights of a model, in the order of traversal.
struct Weights(std::collections::VecDeque<TensorData>);

impl ModuleVisitor for Weights {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.0.push_back(param.val().into_data());
    }
}

impl ModuleMapper for Weights {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let data = self.0.pop_front().unwrap();
        param.map(|tensor| Tensor::from_data(data, &tensor.device()))
    }
}

impl ZerothOrderOptimizer for Scripted {
    fn hold<M: Module>(&self, module: M) -> Result<Perturbed<M>, StepError<M>> {
        Perturbed::hold(module, &ParamGroup::all(), Perturbation::InPlace)
    }

    fn step_on<M: Module, L: Loss>(
        &mut self,
        _: f64,
        held: &mut Perturbed<M>,
        _: impl FnMut(&M) -> L,
    ) -> Result<StepReport, ZoError> {
        let mut weights = Weights(Default::default());
        match self.seeds[self.step] {
            SPOILED => spoiled(),
            seed => model(seed),
        }
        .visit(&mut weights);
        held.replace(|module| module.map(&mut weights));
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

fn follow(
    start: u64,
    seeds: &[u64],
    data: &Dataset,
    config: &FinetuneConfig,
) -> zo_llm::finetune::Outcome {
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

//! Runs that are cut off and go on.

use std::sync::atomic::{AtomicBool, Ordering};

use burn::module::{Module, ModuleMapper, Param, ParamGroup};
use burn::tensor::{DType, Device, Tensor};
use serde_json::json;
use zo_core::{Method, ZeroOrder, ZerothOrderOptimizer};
use zo_llm::CausalLm;
use zo_llm::dataset::Dataset;
use zo_llm::finetune::{
    CheckpointError, Event, FinetuneConfig, FinetuneError, Finish, Outcome, RunError, Schedule,
    finetune,
};
use zo_optim::variants::{
    AdamWindow, MomentumWindow, Sparse, SparseKind, adam, adam_window, momentum, momentum_window,
    sparse_mezo,
};
use zo_optim::{CurvatureSampling, GuidingVector, ada_lezo, curvzo, mezo_gv};

use crate::{bits, config, data, mezo, model, names, quiet, run, saving};

/// Methods with every kind of state, each with a learning rate.
fn methods() -> [(&'static str, f64, Method); 9] {
    [
        ("mezo", 1e-3, Method::new()),
        ("momentum", 2e-4, momentum()),
        ("momentum window", 2e-4, {
            momentum_window().with_update(MomentumWindow::new().with_window(4))
        }),
        ("adam", 1e-3, adam()),
        ("adam window", 1e-3, {
            adam_window().with_update(AdamWindow::new().with_window(4))
        }),
        ("gv with history", 1e-3, {
            let sampler = GuidingVector::new().with_candidates(4).with_history(true);
            mezo_gv().with_sampler(sampler)
        }),
        ("adalezo", 1e-3, ada_lezo()),
        ("curvzo", 1e-3, {
            curvzo().with_mask(CurvatureSampling::new().with_adapt_every(3))
        }),
        ("sparse-mezo", 1e-3, {
            let mask = Sparse::new().with_kind(SparseKind::SmallWeights);
            sparse_mezo().with_mask(mask.with_refresh(5))
        }),
    ]
}

/// A run that is told to stop after `cut` steps.
fn interrupted<O: ZerothOrderOptimizer>(
    model: CausalLm,
    optim: &mut O,
    data: &Dataset,
    config: &FinetuneConfig,
    cut: usize,
) -> Outcome {
    let (stop, device) = (AtomicBool::new(cut == 0), Device::flex());
    let mut done = 0;
    let observe = |event: Event<'_>| {
        if let Event::Stepped { .. } = event {
            done += 1;
            stop.store(done == cut, Ordering::Relaxed);
        }
        Ok(())
    };
    finetune(model, optim, [data, data], config, &device, &stop, observe).unwrap()
}

fn resuming(config: &FinetuneConfig) -> FinetuneConfig {
    FinetuneConfig {
        resume: true,
        ..config.clone()
    }
}

/// Whether runs cut off after each of `cuts` steps end as one that is left alone.
fn ends_the_same(
    name: &str,
    start: &dyn Fn() -> CausalLm,
    method: &Method,
    plan: &FinetuneConfig,
    cuts: &[usize],
) {
    let data = data();
    let build = || method.clone().init().unwrap();
    let whole = run(start(), &mut build(), &data, plan, quiet).unwrap();
    for cut in cuts {
        let dir = tempfile::tempdir().unwrap();
        let config = saving(plan.clone(), dir.path());
        let part = interrupted(start(), &mut build(), &data, &config, *cut);
        assert_eq!((part.finish, part.step), (Finish::Interrupted, *cut));
        assert_eq!(names(dir.path()), [format!("step-{cut:06}")]);
        let end = run(start(), &mut build(), &data, &resuming(&config), quiet).unwrap();
        assert_eq!((end.finish, end.step), (Finish::Done, plan.steps));
        assert_eq!(
            end.evaluations, whole.evaluations,
            "{name} after {cut} steps"
        );
        assert!(
            bits(&end.model) == bits(&whole.model),
            "{name} after {cut} steps"
        );
    }
}

#[test]
fn interrupted_runs_end_with_the_same_bits() {
    for (name, lr, method) in methods() {
        let plan = FinetuneConfig {
            lr,
            eval_every: 5,
            schedule: Schedule::Cosine,
            warmup: 2,
            ..config(12)
        };
        let cuts: &[usize] = if name == "mezo" {
            &[0, 3, 5, 11]
        } else {
            &[3, 5]
        };
        ends_the_same(name, &|| model(1), &method, &plan, cuts);
    }
}

#[test]
fn half_precision_runs_end_with_the_same_bits() {
    fn half() -> CausalLm {
        struct Half;
        impl ModuleMapper for Half {
            fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
                param.map(|tensor| tensor.cast(DType::BF16))
            }
        }
        model(1).map(&mut Half)
    }
    for (name, lr, method) in &methods()[..2] {
        let plan = FinetuneConfig {
            lr: *lr,
            ..config(8)
        };
        ends_the_same(name, &half, method, &plan, &[1, 4]);
    }
}

fn only_queries() -> ParamGroup {
    ParamGroup::from_predicate("q_proj")
}

fn partial() -> Method {
    Method::new().with_trainable(only_queries())
}

#[test]
fn checkpoints_hold_what_trains() {
    let plan = FinetuneConfig {
        trained: only_queries(),
        lr: 1e-2,
        ..config(6)
    };
    ends_the_same("queries", &|| model(1), &partial(), &plan, &[2, 5]);
    let (data, dir) = (data(), tempfile::tempdir().unwrap());
    let config = saving(plan, dir.path());
    run(
        model(1),
        &mut partial().init().unwrap(),
        &data,
        &config,
        quiet,
    )
    .unwrap();
    let file = dir.path().join("step-000006").join("trained.safetensors");
    let bytes = std::fs::read(file).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let mut held = file.names();
    held.sort_unstable();
    let layer = |number| format!("Llama.layers.{number}.self_attn.q_proj.weight");
    assert_eq!(held, [layer(0), layer(1)]);

    // An optimizer that trains more than that.
    let dir = tempfile::tempdir().unwrap();
    let config = FinetuneConfig {
        checkpoint_dir: Some(dir.path().to_owned()),
        ..config
    };
    let mut optim = mezo();
    let error = run(model(1), &mut optim, &data, &config, quiet).unwrap_err();
    let FinetuneError::Checkpoint(CheckpointError::Changed { path }) = &error.error else {
        panic!("{error}")
    };
    assert!(!path.contains("q_proj"), "{path}");
    assert_eq!(error.step, 6);
}

fn refused(
    start: CausalLm,
    mut optim: ZeroOrder,
    data: &Dataset,
    config: &FinetuneConfig,
) -> String {
    let result: Result<Outcome, RunError> =
        run(start, &mut optim, data, config, |event| match event {
            Event::Stepped { .. } => Err("it took a step".to_owned()),
            _ => Ok(()),
        });
    result.unwrap_err().to_string()
}

#[test]
fn checkpoints_of_other_runs_are_refused() {
    let (data, dir) = (data(), tempfile::tempdir().unwrap());
    let plan = FinetuneConfig {
        method: json!({"name": "mezo", "epsilon": 1e-3}),
        schedule: Schedule::Linear,
        ..saving(config(6), dir.path())
    };
    let build = mezo;
    interrupted(model(1), &mut build(), &data, &plan, 3);
    let refuse = |config: &FinetuneConfig| refused(model(1), build(), &data, config);
    assert!(refuse(&plan).contains("step-000003 exists: set `resume`"));

    type Spoil = fn(&mut FinetuneConfig);
    let others: [(&str, Spoil); 9] = [
        ("its group_by_length is true, this run's is false", |c| {
            c.group_by_length = false;
        }),
        ("its lr is 0.001, this run's is 0.002", |c| c.lr = 2e-3),
        ("its seed is 0, this run's is 1", |c| c.seed = 1),
        ("its steps is 6, this run's is 7", |c| c.steps = 7),
        ("its micro_batch is null, this run's is 2", |c| {
            c.micro_batch = Some(2);
        }),
        (
            "its schedule is \"linear\", this run's is \"cosine\"",
            |c| {
                c.schedule = Schedule::Cosine;
            },
        ),
        ("its method.epsilon is 0.001, this run's is 0.01", |c| {
            c.method = json!({"name": "mezo", "epsilon": 1e-2});
        }),
        ("its eval_every is 0, this run's is 9", |c| c.eval_every = 9),
        ("its parameters.Llama.", |c| c.trained = only_queries()),
    ];
    for (expected, spoil) in others {
        let mut config = resuming(&plan);
        spoil(&mut config);
        let error = refuse(&config);
        assert!(error.contains(expected), "{error}");
    }
    let fewer = data.subset(&[0, 1, 2, 3, 4, 5]);
    let error = refused(model(1), build(), &fewer, &resuming(&plan));
    assert!(error.contains("its dev."), "{error}");
    let seed = Method::new().with_seed(5).init().unwrap();
    let error = refused(model(1), seed, &data, &resuming(&plan));
    assert!(error.contains("`seed` is 0, expected 5"), "{error}");
    let momentum = || momentum().init().unwrap();
    let error = refused(model(1), momentum(), &data, &resuming(&plan));
    assert!(error.contains("its setting `update"), "{error}");
}

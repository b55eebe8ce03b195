//! Runs that are cut off and resumed.

use std::sync::atomic::{AtomicBool, Ordering};

use zo_optim::low_rank::{Lozo, Subzero, lozo, lozo_m, subzero_plus};
use zo_optim::prelude::*;
use zo_optim::trainer::{Event, Finish, Outcome, Schedule, TrainerConfig, fit, last_checkpoint};
use zo_optim::variants::{
    AdamWindow, MomentumWindow, Sparse, SparseKind, adam, adam_window, momentum, momentum_window,
    sparse_mezo,
};

use crate::{Net, Rows, Told, bits, config, half, names, net, quiet, resuming, run, saving};

/// Methods with every kind of state and of position between steps, each with a learning rate.
pub(crate) fn methods() -> [(&'static str, f64, Method); 19] {
    [
        ("mezo", 1e-2, mezo()),
        ("mezo with decay", 1e-2, mezo().with_weight_decay(0.1)),
        ("two queries", 1e-2, mezo().with_queries(2)),
        (
            "one-sided",
            1e-2,
            mezo().with_difference(Difference::OneSided),
        ),
        (
            "on the fly",
            1e-2,
            mezo().with_perturbation(Perturbation::OnTheFly),
        ),
        ("momentum", 2e-3, momentum()),
        ("momentum window", 2e-3, {
            momentum_window().with_update(MomentumWindow::new().with_window(4))
        }),
        ("adam", 1e-2, adam()),
        ("adam window", 1e-2, {
            adam_window().with_update(AdamWindow::new().with_window(4))
        }),
        ("gv", 1e-2, mezo_gv()),
        ("gv with history", 1e-2, {
            mezo_gv().with_sampler(GuidingVector::new().with_history(true))
        }),
        ("greedy", 1e-2, mezo_greedy()),
        ("lezo", 1e-2, lezo()),
        ("adalezo", 1e-2, ada_lezo()),
        ("curvzo", 1e-2, {
            curvzo().with_mask(CurvatureSampling::new().with_adapt_every(3))
        }),
        (
            "lozo",
            1e-2,
            lozo().with_noise(Lozo::new().with_interval(3)),
        ),
        ("lozo-m", 1e-2, {
            lozo_m().with_noise(Lozo::new().with_interval(3))
        }),
        ("subzero-plus", 1e-2, {
            let noise = Subzero::new().with_rank(2).with_interval(3);
            subzero_plus().with_noise(noise).with_queries(4)
        }),
        ("sparse-mezo", 1e-2, {
            let mask = Sparse::new().with_kind(SparseKind::SmallWeights);
            sparse_mezo().with_mask(mask.with_refresh(5))
        }),
    ]
}

/// A run that is told to stop after `cut` steps.
pub(crate) fn interrupted<O: ZerothOrderOptimizer>(
    net: Net,
    optim: &mut O,
    config: &TrainerConfig,
    cut: usize,
) -> Outcome<Net> {
    let stop = AtomicBool::new(cut == 0);
    let mut done = 0;
    let observe = |event: Told<'_>| {
        if let Event::Stepped { .. } = event {
            done += 1;
            stop.store(done == cut, Ordering::Relaxed);
        }
        Ok(())
    };
    fit(net, optim, &mut Rows::default(), config, &stop, observe).unwrap()
}

/// Whether a run cut off after each of `cuts` steps, with checkpoints every few steps or none, ends like one that is left alone.
pub(crate) fn ends_the_same<O: ZerothOrderOptimizer>(
    name: &str,
    start: impl Fn() -> Net,
    build: impl Fn() -> O,
    plan: &TrainerConfig,
    cuts: &[usize],
) {
    let whole = run(start(), &mut build(), plan, quiet).unwrap();
    for (number, cut) in cuts.iter().enumerate() {
        let dir = tempfile::tempdir().unwrap();
        let config = TrainerConfig {
            checkpoint_every: [0, 1, 3][number % 3],
            ..saving(plan.clone(), dir.path())
        };
        let part = interrupted(start(), &mut build(), &config, *cut);
        assert_eq!((part.finish, part.step), (Finish::Interrupted, *cut));
        assert_eq!(names(dir.path()), [format!("step-{cut:06}")]);
        let end = run(start(), &mut build(), &resuming(&config), quiet).unwrap();
        assert_eq!((end.finish, end.step), (Finish::Done, plan.steps));
        let place = format!("{name} after {cut} steps");
        assert_eq!(end.evaluations, whole.evaluations, "{place}");
        assert!(bits(&end.model) == bits(&whole.model), "{place}");
    }
}

#[test]
fn interrupted_runs_end_with_the_same_bits() {
    for (name, lr, method) in methods() {
        let plan = TrainerConfig {
            lr,
            eval_every: 5,
            schedule: Schedule::Cosine,
            warmup: 2,
            ..config(13)
        };
        let build = || method.clone().init().unwrap();
        ends_the_same(name, || net(1), build, &plan, &[0, 1, 3, 5, 8, 12]);
    }
}

#[test]
fn half_precision_runs_end_with_the_same_bits() {
    let rounding = mezo().with_rounding(Rounding::Stochastic);
    for (name, method) in [("mezo", mezo()), ("rounding", rounding), ("adam", adam())] {
        let method = method.with_epsilon(1e-2);
        let plan = TrainerConfig {
            lr: 1e-1,
            ..config(8)
        };
        let build = || method.clone().init().unwrap();
        ends_the_same(name, || half(net(1)), build, &plan, &[1, 4, 5]);
    }
}

#[test]
fn checkpoints_do_not_disturb_a_run() {
    for (name, lr, method) in methods() {
        let plan = TrainerConfig {
            lr,
            eval_every: 6,
            ..config(14)
        };
        let build = || method.clone().init().unwrap();
        let whole = run(net(1), &mut build(), &plan, quiet).unwrap();
        for every in [1, 2, 5] {
            let dir = tempfile::tempdir().unwrap();
            let config = TrainerConfig {
                checkpoint_every: every,
                keep_best: true,
                ..saving(plan.clone(), dir.path())
            };
            let saved = run(net(1), &mut build(), &config, |event| match event {
                Event::Stepped { report, .. } if report.copied > 0 => Err("copied".to_owned()),
                _ => Ok(()),
            });
            let saved = saved.unwrap();
            let best = saved.best.unwrap().step;
            assert_eq!(
                saved.evaluations, whole.evaluations,
                "{name}, every {every}"
            );
            let last = best == 14;
            assert!(
                !last || bits(&saved.model) == bits(&whole.model),
                "{name}, every {every}"
            );
        }
    }
}

#[test]
fn a_checkpoint_holds_the_weights_where_they_stand() {
    let dir = tempfile::tempdir().unwrap();
    let config = saving(config(9), dir.path());
    let build = || mezo().init().unwrap();
    let part = interrupted(net(1), &mut build(), &config, 4);
    let state = || {
        let folder = last_checkpoint(dir.path()).unwrap().unwrap().path;
        let text = std::fs::read_to_string(folder.join("state.json")).unwrap();
        serde_json::from_str::<serde_json::Value>(&text).unwrap()["position"].clone()
    };
    let position: zo_optim::Position = serde_json::from_value(state()).unwrap();
    assert!(!position.is_at_rest(), "{position:?}");
    // The model that an interrupted run gives is at its weights.
    let mut session = build().session(net(1)).unwrap();
    let mut rows = Rows::default();
    for step in 0..4 {
        use zo_optim::trainer::Task;
        let batch = rows.batch(step).unwrap();
        session
            .step(1e-2, |net: &Net| rows.objective(net, &batch))
            .unwrap();
    }
    assert!(bits(session.model()) == bits(&part.model));
    // At its end a run is at rest.
    run(net(1), &mut build(), &resuming(&config), quiet).unwrap();
    let position: zo_optim::Position = serde_json::from_value(state()).unwrap();
    assert!(position.is_at_rest(), "{position:?}");
}

#[test]
fn a_run_that_dies_goes_on_from_its_last_checkpoint() {
    for (name, lr, method) in methods() {
        let plan = TrainerConfig {
            checkpoint_every: 4,
            eval_every: 3,
            lr,
            ..config(12)
        };
        let build = || method.clone().init().unwrap();
        let whole = TrainerConfig {
            checkpoint_every: 0,
            ..plan.clone()
        };
        let whole = run(net(1), &mut build(), &whole, quiet).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let config = saving(plan, dir.path());
        let mut saved = Vec::new();
        let dies = |event: Told<'_>| match event {
            Event::Saved { step, path } => {
                assert!(path.join("state.json").exists());
                saved.push(step);
                Ok(())
            }
            Event::Stepped { report, .. } if report.step == 9 => {
                Err("the plug was pulled".to_owned())
            }
            _ => Ok(()),
        };
        let error = run(net(1), &mut build(), &config, dies).unwrap_err();
        assert_eq!((error.step, saved), (10, vec![4, 8]));
        // What it was writing does not count.
        std::fs::create_dir(dir.path().join("step-000012.tmp")).unwrap();
        std::fs::create_dir(dir.path().join("step-000011")).unwrap();
        let (mut resumed, mut saved) = (Vec::new(), Vec::new());
        let observe = |event: Told<'_>| {
            match event {
                Event::Resumed {
                    step, evaluations, ..
                } => resumed.push((step, evaluations.len())),
                Event::Saved { step, .. } => saved.push(step),
                _ => {}
            }
            Ok(())
        };
        let end = run(net(1), &mut build(), &resuming(&config), observe).unwrap();
        assert_eq!(resumed, [(8, 3)], "evaluations after 0, 3 and 6 steps");
        assert_eq!(saved, [12], "the one it came from is there");
        assert_eq!(end.evaluations, whole.evaluations, "{name}");
        assert!(bits(&end.model) == bits(&whole.model), "{name}");
        assert_eq!(names(dir.path()), ["step-000012"]);

        // At a constant rate there may be more steps.
        let longer = TrainerConfig {
            steps: 15,
            ..resuming(&config)
        };
        let end = run(net(1), &mut build(), &longer, quiet).unwrap();
        assert_eq!((end.finish, end.step), (Finish::Done, 15));
    }
}

#[test]
fn an_interrupted_run_saves_and_reports() {
    let dir = tempfile::tempdir().unwrap();
    let plan = TrainerConfig {
        keep_best: true,
        ..saving(config(9), dir.path())
    };
    let stop = AtomicBool::new(false);
    let mut events = Vec::new();
    let observe = |event: Told<'_>| {
        events.push(match event {
            Event::Stepped { report, .. } => {
                stop.store(report.step == 1, Ordering::Relaxed);
                "stepped"
            }
            Event::Evaluated { step, .. } => ["evaluated", "", "reported"][step],
            Event::Saved { .. } => "saved",
            _ => "else",
        });
        Ok(())
    };
    let mut optim = mezo().init().unwrap();
    let part = fit(
        net(1),
        &mut optim,
        &mut Rows::default(),
        &plan,
        &stop,
        observe,
    )
    .unwrap();
    assert_eq!(
        events,
        ["evaluated", "stepped", "stepped", "saved", "reported"]
    );
    assert_eq!((part.finish, part.step), (Finish::Interrupted, 2));
    assert_eq!(part.evaluations.len(), 1, "the report does not count");
    assert_ne!(bits(&part.model), bits(&net(1)));
    assert_eq!(names(dir.path()), ["best-000000", "step-000002"]);
}

/// A process that is killed after it has published a checkpoint leaves what that replaces.
#[test]
fn what_a_killed_process_could_not_remove_goes_when_its_run_resumes() {
    let dir = tempfile::tempdir().unwrap();
    let plan = TrainerConfig {
        checkpoint_every: 2,
        eval_every: 2,
        keep_best: true,
        ..saving(config(6), dir.path())
    };
    run(net(1), &mut mezo().init().unwrap(), &plan, quiet).unwrap();
    let whole = names(dir.path());
    for left in [
        "best-000001",
        "best-000099",
        "step-000004",
        "step-000008.tmp",
    ] {
        std::fs::create_dir(dir.path().join(left)).unwrap();
    }
    let mut optim = mezo().init().unwrap();
    run(net(1), &mut optim, &resuming(&plan), quiet).unwrap();
    assert_eq!(names(dir.path()), whole);
}

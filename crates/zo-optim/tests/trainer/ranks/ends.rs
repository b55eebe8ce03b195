//! How runs on several ranks end, and go on.

use std::path::Path;
use std::sync::atomic::Ordering;

use serde_json::json;
use zo_optim::trainer::Finish;
use zo_optim::{NonFinite, ZoError};

use super::*;
use crate::{resuming, saving};

/// The errors of two ranks, of which rank 1 has its own net, configuration and rows.
fn errors(spoil: impl Fn(&mut TrainerConfig, &mut Rows, &mut Net) + Sync) -> Vec<String> {
    let done = together(2, |rank| {
        let (mut config, mut rows, mut net) =
            (splitting(6, split(2, false)), Rows::default(), net(1));
        if rank.rank() == 1 {
            spoil(&mut config, &mut rows, &mut net);
        }
        let (never, mut optim) = (AtomicBool::new(false), optimizer(&mezo()));
        fit_on(&rank, net, &mut optim, &mut rows, &config, &never, quiet)
    });
    let error = |done: Done| done.unwrap_err().error.to_string();
    done.into_iter().map(error).collect()
}

#[test]
fn ranks_that_would_do_another_run_are_named_with_the_field() {
    let begins = |errors: Vec<String>, text: &str| {
        for error in errors {
            assert!(error.starts_with(text), "{error}");
        }
    };
    let other = "rank 1 would do another run than rank 0: its ";
    let found = errors(|config, _, _| config.lr = 0.5);
    begins(found, &format!("{other}lr is 0.5, that of rank 0 is 0.01"));
    let found = errors(|config, _, _| config.steps = 7);
    begins(found, &format!("{other}steps is 7, that of rank 0 is 6"));
    let found = errors(|config, _, _| config.method = json!({"name": "gv"}));
    begins(found, &format!("{other}method"));
    // The same shapes: only the weights tell.
    let found = errors(|_, _, model| *model = net(2));
    begins(
        found,
        "after 0 step(s) the weights of rank 1 differ from those of rank 0",
    );
    let found = errors(|_, _, model| *model = half(net(1)));
    begins(found, &format!("{other}parameters."));
}

#[test]
fn what_ends_one_rank_ends_all_with_its_number_and_the_reason() {
    let begin = std::time::Instant::now();
    let found = errors(|_, rows, _| rows.until = Some(3));
    assert_eq!(found[1], "there are no more rows");
    assert_eq!(found[0], "rank 1 failed: there are no more rows");
    let found = errors(|config, _, _| config.lr = -1.0);
    assert!(
        found[0].starts_with("rank 1 failed: lr is -1"),
        "{}",
        found[0]
    );
    assert!(begin.elapsed() < Duration::from_secs(10));
}

#[test]
fn a_loss_that_is_not_finite_on_one_rank_ends_all_as_a_divergence() {
    let done = together(2, |rank| {
        let config = splitting(6, split(1, true));
        let mut task = Spoiled {
            rows: Rows::default(),
            from: if rank.rank() == 1 { 2 } else { usize::MAX },
        };
        let (never, mut optim) = (AtomicBool::new(false), optimizer(&mezo()));
        fit_on(
            &rank,
            net(1),
            &mut optim,
            &mut task,
            &config,
            &never,
            |_| Ok(()),
        )
    });
    for error in done.into_iter().map(Result::unwrap_err) {
        let TrainerError::Step(ZoError::NonFiniteLoss { step: 2, .. }) = error.error else {
            panic!("{error}")
        };
        assert!(error.error.is_divergence());
    }
}

/// Rows whose loss is not a number from a step on.
struct Spoiled {
    rows: Rows,
    from: usize,
}

impl Task<Net> for Spoiled {
    type Batch = (Vec<u64>, bool);
    type Loss = Tensor<1>;
    type Details = ();
    type Error = NoRows;

    fn fingerprint(&self) -> Value {
        self.rows.fingerprint()
    }

    fn batch(&mut self, step: usize) -> Result<Self::Batch, NoRows> {
        Ok((self.rows.batch(step)?, step == self.from))
    }

    fn objective(&self, net: &Net, (rows, spoiled): &Self::Batch) -> Tensor<1> {
        let loss = net.loss(rows);
        if *spoiled { loss * f32::NAN } else { loss }
    }

    fn evaluate(&mut self, net: &Net) -> Result<Evaluation, NoRows> {
        self.rows.evaluate(net)
    }
}

/// A step that is skipped is skipped everywhere, and replays; in place it cannot be, and that is said.
#[test]
fn steps_that_are_skipped_are_the_same_in_a_replay_or_refused() {
    for (perturbation, refused) in [
        (Perturbation::OnTheFly, false),
        (Perturbation::InPlace, true),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run.zo");
        let method = mezo()
            .with_queries(2)
            .with_non_finite(NonFinite::Skip)
            .with_perturbation(perturbation);
        let done = with(2, &method, |rank, method| {
            let config = TrainerConfig {
                trajectory: Some(TrajectoryConfig::new(&path)),
                ..splitting(6, split(1, true))
            };
            let mut task = Spoiled {
                rows: Rows::default(),
                from: if rank.rank() == 1 { 2 } else { usize::MAX },
            };
            let (never, mut optim) = (AtomicBool::new(false), optimizer(&method));
            fit_on(
                &rank,
                net(1),
                &mut optim,
                &mut task,
                &config,
                &never,
                |_| Ok(()),
            )
        });
        for done in done {
            match done {
                Ok(done) => {
                    assert!(!refused);
                    let trajectory = zo_optim::trajectory::Trajectory::read(&path).unwrap();
                    let exact = zo_optim::trajectory::Replay::Exact;
                    let replayed = trajectory.replay(net(1), &mut optimizer(&method), 6, exact);
                    assert_eq!(bits(&replayed.unwrap().module), bits(&done.model));
                }
                Err(error) => {
                    let text = error.to_string();
                    assert!(refused && text.contains("OnTheFly"), "{text}");
                }
            }
        }
    }
}

#[test]
fn a_rank_that_is_told_to_stop_stops_all_after_the_same_step() {
    let done = together(3, |rank| {
        let (stop, mut optim) = (AtomicBool::new(false), optimizer(&mezo()));
        let config = splitting(50, split(3, false));
        let observe = |event: Told<'_>| {
            if let (Told::Stepped { report, .. }, 2) = (event, rank.rank()) {
                stop.store(report.step >= 7, Ordering::Relaxed);
            }
            Ok(())
        };
        fit_on(
            &rank,
            net(1),
            &mut optim,
            &mut Rows::default(),
            &config,
            &stop,
            observe,
        )
        .unwrap()
    });
    let first = &done[0];
    for done in &done {
        assert_eq!((done.finish, done.step), (Finish::Interrupted, 9));
        assert_eq!(bits(&done.model), bits(&first.model));
    }
}

/// Ranks but the first have another folder: they need none.
fn in_folders(config: &TrainerConfig, rank: usize, dir: &Path) -> TrainerConfig {
    let dir = if rank == 0 {
        dir.to_owned()
    } else {
        dir.join("elsewhere")
    };
    TrainerConfig {
        trajectory: Some(TrajectoryConfig::new(dir.join("run.zo"))),
        ..config.clone()
    }
}

#[test]
fn a_run_that_ended_on_some_ranks_goes_on_with_the_same_bits_on_others() {
    let plan = splitting(9, split(4, false));
    let whole = run_on(&Alone, net(1), &mezo(), &plan, quiet).unwrap();
    for checkpoints in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let of = |config: &TrainerConfig, rank: usize| {
            let config = in_folders(config, rank, dir.path());
            match checkpoints {
                // All see it.
                true => TrainerConfig {
                    checkpoint_every: 3,
                    keep_best: true,
                    ..saving(config, &dir.path().join("checkpoints"))
                },
                false => config,
            }
        };
        let failed = together(4, |rank| {
            let config = of(&plan, rank.rank());
            let observe = |event: Told<'_>| match event {
                Told::Stepped { report, .. } if report.step == 4 && rank.rank() == 3 => {
                    Err("the plug".to_owned())
                }
                _ => Ok(()),
            };
            run_on(&rank, net(1), &mezo(), &config, observe).unwrap_err()
        });
        assert_eq!(failed[0].error.to_string(), "rank 3 failed: the plug");
        let done = together(2, |rank| {
            let config = resuming(&of(&plan, rank.rank()));
            run_on(&rank, net(1), &mezo(), &config, quiet).unwrap()
        });
        assert_eq!(done[0].evaluations, whole.evaluations);
        if !checkpoints {
            let bits_of = |done: &Outcome<Net>| bits(&done.model);
            assert!(done.iter().all(|done| bits_of(done) == bits_of(&whole)));
        }
        let replayed = zo_optim::trajectory::Trajectory::read(dir.path().join("run.zo")).unwrap();
        assert_eq!(replayed.steps().count(), 9);
    }
}

#[test]
fn a_checkpoint_that_a_rank_cannot_see_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let seen = dir.path().join("seen");
    let plan = splitting(4, split(2, false));
    let first = saving(plan.clone(), &seen);
    run_on(&Alone, net(1), &mezo(), &first, quiet).unwrap();
    let errors = together(2, |rank| {
        let place = if rank.rank() == 0 {
            seen.clone()
        } else {
            dir.path().join("unseen")
        };
        let longer = TrainerConfig {
            steps: 6,
            ..resuming(&saving(plan.clone(), &place))
        };
        run_on(&rank, net(1), &mezo(), &longer, quiet).unwrap_err()
    });
    let error = errors[0].error.to_string();
    assert!(
        error.starts_with("rank 1 cannot read the checkpoint"),
        "{error}"
    );
    assert!(!dir.path().join("unseen").exists());
}

/// Best and patience follow rank 0.
#[test]
fn evaluations_count_as_rank_0_finds_them() {
    let done = together(2, |rank| {
        struct Judged(Rows, f64);
        impl Task<Net> for Judged {
            type Batch = Vec<u64>;
            type Loss = Tensor<1>;
            type Details = ();
            type Error = NoRows;
            fn fingerprint(&self) -> Value {
                self.0.fingerprint()
            }
            fn batch(&mut self, step: usize) -> Result<Vec<u64>, NoRows> {
                self.0.batch(step)
            }
            fn objective(&self, net: &Net, batch: &Vec<u64>) -> Tensor<1> {
                net.loss(batch)
            }
            fn evaluate(&mut self, _: &Net) -> Result<Evaluation, NoRows> {
                // Better and better, and worse and worse.
                self.1 += self.1.signum();
                Ok(Evaluation {
                    score: self.1,
                    loss: 1.0,
                    details: (),
                })
            }
        }
        let config = TrainerConfig {
            patience: Some(2),
            ..splitting(20, split(1, true))
        };
        let (never, mut optim) = (AtomicBool::new(false), optimizer(&mezo()));
        let mut task = Judged(Rows::default(), if rank.rank() == 0 { -1.0 } else { 1.0 });
        fit_on(&rank, net(1), &mut optim, &mut task, &config, &never, quiet).unwrap()
    });
    for done in &done {
        assert_eq!((done.finish, done.step), (Finish::EarlyStopped, 4));
        assert_eq!(done.evaluations[1].score, -3.0);
    }
}

#[test]
fn shards_that_no_rank_would_evaluate_are_refused_and_so_are_gradients() {
    let errors = together(2, |rank| {
        let config = splitting(4, split(1, false));
        run_on(&rank, net(1), &mezo(), &config, quiet).unwrap_err()
    });
    let error = errors[1].error.to_string();
    assert!(
        error.starts_with("shards is 1: it must be a multiple of 2"),
        "{error}"
    );
    // A batch has four rows.
    let config = splitting(4, split(5, false));
    let error = run_on(&Alone, net(1), &mezo(), &config, quiet).unwrap_err();
    assert!(error.to_string().starts_with("shards is 5"), "{error}");
}

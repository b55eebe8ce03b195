//! Runs on several ranks, which are threads here.

mod ends;

use std::cell::{Cell, RefCell};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use burn::tensor::Tensor;
use serde_json::Value;
use zo_optim::prelude::*;
use zo_optim::ranks::{Alone, Communicator, RankError, Threads, threads};
use zo_optim::trainer::{
    Evaluation, Outcome, RunError, Split, Task, TrainerConfig, TrainerError, TrajectoryConfig,
    fit_on,
};
use zo_optim::{Difference, ZeroOrder, low_rank, registry};

use crate::{Net, NoRows, Rows, Told, bits, config, half, net, quiet};

type Done = Result<Outcome<Net>, RunError<Net, NoRows>>;

/// What each of `size` ranks comes to.
fn together<T: Send>(size: usize, part: impl Fn(Threads) -> T + Sync) -> Vec<T> {
    with(size, &(), |rank, ()| part(rank))
}

/// [`together`], each with its own copy of what is given.
fn with<G: Clone + Send, T: Send>(
    size: usize,
    given: &G,
    part: impl Fn(Threads, G) -> T + Sync,
) -> Vec<T> {
    std::thread::scope(|scope| {
        let part = &part;
        let ranks = threads(size, Duration::from_secs(60)).into_iter();
        let parts = ranks.map(|rank| {
            let given = given.clone();
            scope.spawn(move || part(rank, given))
        });
        let parts: Vec<_> = parts.collect();
        parts.into_iter().map(|part| part.join().unwrap()).collect()
    })
}

fn optimizer(method: &Method) -> ZeroOrder {
    method.init().unwrap()
}

/// The run of one rank.
fn run_on(
    ranks: &dyn Communicator,
    net: Net,
    method: &Method,
    config: &TrainerConfig,
    observer: impl FnMut(Told<'_>) -> Result<(), String>,
) -> Done {
    let (never, mut rows) = (AtomicBool::new(false), Rows::default());
    let mut optim = optimizer(method);
    fit_on(ranks, net, &mut optim, &mut rows, config, &never, observer)
}

fn split(shards: usize, queries: bool) -> Split {
    Split {
        shards,
        queries,
        candidates: queries,
        compare_every: 1,
    }
}

fn splitting(steps: usize, split: Split) -> TrainerConfig {
    TrainerConfig {
        split,
        eval_every: 2,
        ..config(steps)
    }
}

/// Every method of the registry, with several queries, and more candidates.
fn methods() -> Vec<(String, Method)> {
    let registry = registry();
    let presets = registry.presets().iter().map(|preset| {
        let method = (preset.method)().with_epsilon(1e-2);
        let queries = method.config()["queries"].as_u64().unwrap() as usize;
        let method = method.with_queries(queries.clamp(3, 9));
        (preset.name.to_owned(), method)
    });
    let greedy = mezo_greedy().with_sampler(Greedy::new().with_candidates(5));
    let gv = mezo_gv().with_sampler(GuidingVector::new().with_candidates(4).with_history(true));
    let more = [
        ("greedy of five", greedy.with_queries(2)),
        ("gv of four, with history", gv.with_queries(2)),
        (
            "one-sided",
            mezo().with_queries(4).with_difference(Difference::OneSided),
        ),
        ("greedy over lozo", {
            let sampler = Greedy::new().with_candidates(3);
            low_rank::lozo().with_sampler(sampler).with_queries(2)
        }),
    ];
    let more = more.map(|(name, method)| (name.to_owned(), method.with_epsilon(1e-2)));
    let all = presets.chain(more);
    all.filter(|(_, method)| cfg!(feature = "autodiff") || method.config()["difference"] != "exact")
        .collect()
}

/// Weights are compared after each step, on all ranks (`compare_every`); here, at the end, with one process that evaluates the same shards.
#[test]
fn every_method_ends_with_the_bits_of_one_process_however_it_is_split() {
    for (name, method) in methods() {
        for perturbation in [Perturbation::InPlace, Perturbation::OnTheFly] {
            let method = method.clone().with_perturbation(perturbation);
            for dtype in [|net| net, half] {
                for (shards, queries, sizes) in
                    [(4, false, &[2, 4][..]), (1, true, &[2, 4]), (2, true, &[4])]
                {
                    let begin = || dtype(net(1));
                    let config = splitting(4, split(shards, queries));
                    let one = run_on(&Alone, begin(), &method, &config, quiet).unwrap();
                    assert_ne!(bits(&one.model), bits(&begin()), "{name}");
                    for size in sizes {
                        let all = with(*size, &method, |rank, method| {
                            run_on(&rank, begin(), &method, &config, quiet).unwrap()
                        });
                        for (rank, done) in all.iter().enumerate() {
                            let place = format!("{name}, {perturbation:?}, {shards} {queries}");
                            assert_eq!(
                                bits(&done.model),
                                bits(&one.model),
                                "{place}: rank {rank} of {size}"
                            );
                            assert_eq!(done.evaluations, one.evaluations, "{place}");
                        }
                    }
                }
            }
        }
    }
}

/// One process that sums the shards' losses in their order, written down.
#[test]
fn shards_are_summed_in_their_order_weighed_by_their_rows() {
    let config = splitting(5, split(3, false));
    let sharded = run_on(&Alone, net(1), &mezo(), &config, quiet).unwrap();
    let mut session = mezo().init().unwrap().session(net(1)).unwrap();
    for step in 0..5 {
        if step % 2 == 0 {
            session.model();
        }
        let rows = Rows::default().batch(step).unwrap();
        let loss = |net: &Net| {
            let of = |rows: &[u64]| f64::from(net.loss(rows).into_scalar::<f32>());
            0.25 * of(&rows[..1]) + 0.25 * of(&rows[1..2]) + 0.5 * of(&rows[2..])
        };
        session.step(1e-2, loss).unwrap();
    }
    assert_eq!(bits(session.model()), bits(&sharded.model));
}

/// Counts what a rank evaluates and sends.
struct Counting<C> {
    rows: Rows,
    evaluated: Cell<usize>,
    ranks: C,
    sent: RefCell<Vec<usize>>,
}

impl<C: Communicator> Communicator for &Counting<C> {
    fn rank(&self) -> usize {
        self.ranks.rank()
    }

    fn size(&self) -> usize {
        self.ranks.size()
    }

    fn all_gather(&self, numbers: &[f64]) -> Result<Vec<f64>, RankError> {
        self.sent.borrow_mut().push(numbers.len());
        self.ranks.all_gather(numbers)
    }

    fn fail(&self, reason: &str) {
        self.ranks.fail(reason);
    }
}

impl<C> Task<Net> for &Counting<C> {
    type Batch = Vec<u64>;
    type Loss = Tensor<1>;
    type Details = ();
    type Error = NoRows;

    fn fingerprint(&self) -> Value {
        self.rows.fingerprint()
    }

    fn batch(&mut self, step: usize) -> Result<Vec<u64>, NoRows> {
        Rows::default().batch(step)
    }

    fn shard(
        &mut self,
        step: usize,
        shard: usize,
        shards: usize,
    ) -> Result<Option<(Vec<u64>, f64)>, NoRows> {
        Rows::default().shard(step, shard, shards)
    }

    fn objective(&self, net: &Net, batch: &Vec<u64>) -> Tensor<1> {
        self.evaluated.set(self.evaluated.get() + batch.len());
        net.loss(batch)
    }

    fn evaluate(&mut self, net: &Net) -> Result<Evaluation, NoRows> {
        Rows::default().evaluate(net)
    }
}

/// Rows that each rank evaluates in a step, and the numbers that it sends, message by message.
fn counted(size: usize, method: &Method, split: Split) -> Vec<(usize, Vec<usize>)> {
    with(size, method, |ranks, method| {
        let counting = Counting {
            rows: Rows::default(),
            evaluated: Cell::new(0),
            ranks,
            sent: RefCell::default(),
        };
        let config = TrainerConfig {
            split: Split {
                compare_every: 0,
                ..split
            },
            ..config(2)
        };
        let (never, mut task) = (AtomicBool::new(false), &counting);
        let mut optim = optimizer(&method);
        // Of the second step: the first is surrounded by comparisons.
        let mut first = (0, 0);
        let observe = |event: Told<'_>| {
            if let Told::Stepped { report, .. } = event
                && report.step == 0
            {
                first = (counting.evaluated.get(), counting.sent.borrow().len());
            }
            Ok(())
        };
        let ranks = &&counting;
        fit_on(
            ranks,
            net(1),
            &mut optim,
            &mut task,
            &config,
            &never,
            observe,
        )
        .unwrap();
        let sent = counting.sent.borrow();
        // After it come the evaluation at the end and the comparison of weights.
        let of_step = sent[first.1..sent.len() - 2].to_vec();
        (counting.evaluated.get() - first.0, of_step)
    })
}

#[test]
fn ranks_share_the_work_and_tell_each_other_a_few_numbers() {
    // Both signs, four rows: 8 evaluations of a row. A message has one number for Ctrl-C.
    assert_eq!(
        counted(4, &mezo(), split(4, false)),
        vec![(2, vec![2, 2]); 4]
    );
    // One message for all displacements: the losses that a rank evaluates, and whether they were shown as they should be.
    assert_eq!(counted(2, &mezo(), split(1, true)), vec![(4, vec![3]); 2]);
    let queries = mezo().with_queries(4);
    assert_eq!(counted(4, &queries, split(1, true)), vec![(8, vec![4]); 4]);
    assert_eq!(counted(4, &queries, split(2, true)), vec![(8, vec![6]); 4]);
    let candidates = mezo_greedy().with_sampler(Greedy::new().with_candidates(4));
    assert_eq!(
        counted(2, &candidates, split(1, true)),
        vec![(12, vec![4, 3]); 2]
    );
    // Candidates alone: the two losses of the query are evaluated everywhere.
    let alone = Split {
        queries: false,
        ..split(1, true)
    };
    assert_eq!(counted(2, &candidates, alone), vec![(16, vec![4, 2, 2]); 2]);
}

#[test]
fn one_process_sends_nothing() {
    let counting = Counting {
        rows: Rows::default(),
        evaluated: Cell::new(0),
        ranks: Alone,
        sent: RefCell::default(),
    };
    let (never, mut task) = (AtomicBool::new(false), &counting);
    let mut optim = optimizer(&mezo());
    let ranks = &&counting;
    fit_on(
        ranks,
        net(1),
        &mut optim,
        &mut task,
        &config(3),
        &never,
        quiet,
    )
    .unwrap();
    assert_eq!(
        counting.sent.borrow().iter().filter(|n| **n != 2).count(),
        0
    );
    assert_eq!(counting.sent.borrow().len(), 2, "for the two evaluations");
}

//! Objectives that give the losses at several displacements at once.

use std::cell::RefCell;

use burn::module::{Module, Param};
use burn::tensor::{Device, Int, Tensor};
use zo_optim::low_rank::*;
use zo_optim::*;

use crate::{begin, noises};

/// A table, a weight, and two parameters that are displaced as a whole: 9 x 8, 8 x 6, 6 and 2 x 6.
#[derive(Module, Debug)]
struct Net {
    table: Param<Tensor<2>>,
    weight: Param<Tensor<2>>,
    bias: Param<Tensor<1>>,
    small: Param<Tensor<2>>,
}

fn net() -> Net {
    let matrix = |shape, scale| Param::from_tensor(begin(shape, scale));
    Net {
        table: matrix([9, 8], 1.0),
        weight: matrix([8, 6], 0.7),
        bias: Param::from_tensor(begin([1, 6], 0.3).reshape([6])),
        small: matrix([2, 6], 0.5),
    }
}

/// What an objective was asked for: 1 for a loss, k for losses at k displacements.
type Asked = RefCell<Vec<usize>>;

/// Three tokens in a net, whose table is its head as well.
struct Rows<'a> {
    at_once: usize,
    /// Whether the bias is read as if it had one value.
    misreads: bool,
    /// Added to the loss of each displacement, out of so many.
    added: fn(usize, usize) -> f64,
    asked: &'a Asked,
}

impl<'a> Rows<'a> {
    fn new(at_once: usize, asked: &'a Asked) -> Self {
        Self {
            at_once,
            misreads: false,
            added: |_, _| 0.0,
            asked,
        }
    }

    fn at(&self, net: &Net, groups: usize) -> Vec<f64> {
        let device = Device::default();
        let ids = Tensor::<1, Int>::from_ints([4, 0, 7], &device).repeat_dim(0, groups);
        let x = match SidePath::of(&net.table) {
            Some(side) => net.table.base().select(0, ids.clone()) + side.select(ids),
            None => net.table.val().select(0, ids),
        };
        let y = match SidePath::of(&net.weight) {
            Some(side) => x.clone().matmul(net.weight.base()) + side.forward(x.clone()),
            None => x.clone().matmul(net.weight.val()),
        };
        let each = |vectors: Vec<Tensor<2>>| match vectors.len() {
            1 => vectors[0].clone().repeat_dim(0, groups),
            _ => Tensor::cat(vectors, 0),
        };
        let biases = match self.misreads {
            true => vec![net.bias.val()],
            false => displaced_values(&net.bias),
        };
        let biases = each(biases.into_iter().map(Tensor::unsqueeze).collect());
        let small = displaced_values(&net.small).into_iter();
        let small = each(small.map(|small| small.narrow(0, 1, 1)).collect());
        let offset = (biases * small).reshape([groups, 1, 6]);
        let y = (y.reshape([groups, 3, 6]) + offset).reshape([3 * groups, 6]);
        let h = x * y.clone().mean_dim(1);
        let logits = match SidePath::of(&net.table) {
            Some(side) => {
                h.clone().matmul(net.table.base().transpose()) + side.forward_transposed(h)
            }
            None => h.matmul(net.table.val().transpose()),
        };
        let of = |(k, (y, logits)): (usize, (Tensor<2>, Tensor<2>))| {
            let loss = y.square().mean() + logits.tanh().mean();
            f64::from(loss.into_scalar::<f32>()) + (self.added)(k, groups)
        };
        let each = y.chunk(groups, 0).into_iter();
        let each = each.zip(logits.chunk(groups, 0)).enumerate();
        each.map(of).collect()
    }
}

impl Objective<Net> for Rows<'_> {
    type Loss = f64;

    fn loss(&mut self, net: &Net) -> f64 {
        self.asked.borrow_mut().push(1);
        self.at(net, 1)[0]
    }

    fn at_once(&self) -> usize {
        self.at_once
    }

    fn losses(&mut self, net: &Net, displacements: usize) -> Vec<f64> {
        self.asked.borrow_mut().push(displacements);
        self.at(net, displacements)
    }
}

fn on_the_fly(method: &Method) -> Session<Net, ZeroOrder> {
    let method = method.clone().with_perturbation(Perturbation::OnTheFly);
    method
        .with_epsilon(0.1)
        .init()
        .unwrap()
        .session(net())
        .unwrap()
}

/// The losses of six steps, with updates in the bank from the second on and refreshes in the third and the fifth, and how they were asked for.
fn run(method: &Method, at_once: usize) -> (Vec<f64>, Vec<usize>) {
    let (mut session, asked) = (on_the_fly(method), Asked::default());
    let mut losses = Vec::new();
    for _ in 0..6 {
        let before = asked.borrow().len();
        let report = session.step_on(1e-2, Rows::new(at_once, &asked)).unwrap();
        let asked = asked.borrow();
        assert_eq!(report.evaluations, asked.len() - before);
        assert_eq!(report.forwards, asked[before..].iter().sum::<usize>());
        let both = report.queries.iter().map(|q| [q.loss_plus, q.loss_other]);
        losses.extend(both.flatten());
    }
    (losses, asked.into_inner())
}

#[test]
fn the_losses_are_those_of_one_displacement_at_a_time() {
    let one_sided = noises(2).into_iter();
    let one_sided = one_sided.map(|method| method.with_difference(Difference::OneSided));
    let guided = noises(2).into_iter();
    let guided = guided.map(|method| method.with_sampler(GuidingVector::new().with_candidates(3)));
    let greedy = noises(2).into_iter();
    let greedy = greedy.map(|method| method.with_sampler(Greedy::new().with_candidates(4)));
    let plus = subzero_plus().with_noise(Subzero::new().with_rank(3).with_interval(2));
    let methods = noises(2).into_iter().chain(one_sided).chain(guided);
    let methods = methods.chain(greedy).chain([plus.with_queries(5)]);
    for method in methods {
        let (expected, single) = run(&method, 1);
        assert!(single.iter().all(|asked| *asked == 1));
        let apart = expected.chunks(2).map(|pair| (pair[0] - pair[1]).abs());
        assert!(
            apart.fold(f64::INFINITY, f64::min) > 1e-4,
            "the signs can be told apart"
        );
        for at_once in [2, 3, 7] {
            let (found, asked) = run(&method, at_once);
            assert!(asked.len() < single.len(), "{method:?}");
            assert_eq!(asked.iter().sum::<usize>(), single.len());
            assert!(asked.iter().all(|asked| *asked <= at_once));
            for (place, (a, b)) in found.iter().zip(&expected).enumerate() {
                assert!(
                    (a - b).abs() < 2e-5,
                    "{method:?}, {at_once}, {place}: {a} {b}"
                );
            }
        }
    }
}

/// How losses are asked for in a step.
#[test]
fn a_step_takes_as_many_at_once_as_the_objective_allows() {
    let asked = |method: &Method, at_once| {
        let (_, asked) = run(method, at_once);
        asked[..asked.len() / 6].to_vec()
    };
    let lozo = &noises(2)[0];
    assert_eq!(asked(lozo, 2), [2]);
    let three = lozo.clone().with_queries(3);
    assert_eq!(asked(&three, 2), [2, 2, 2]);
    assert_eq!(asked(&three, 3), [2, 2, 2], "no direction is split");
    assert_eq!(asked(&three, 5), [4, 2]);
    // The loss without displacement goes with the first.
    let one_sided = three.with_difference(Difference::OneSided);
    assert_eq!(asked(&one_sided, 4), [4]);
    let one = lozo.clone().with_difference(Difference::OneSided);
    assert_eq!(asked(&one, 2), [2]);
    let greedy = lozo.clone().with_sampler(Greedy::new().with_candidates(3));
    assert_eq!(asked(&greedy, 2), [2, 1, 2]);
}

/// Only a side path can show one module at two displacements: not weights displaced in place, nor noise that is not of low rank.
#[test]
fn others_are_evaluated_one_at_a_time() {
    let dense = mezo().with_perturbation(Perturbation::OnTheFly);
    let masked = noises(2).swap_remove(0);
    let masked = masked.with_mask(variants::Sparse::new().with_sparsity(0.5));
    let masked = masked.with_perturbation(Perturbation::OnTheFly);
    for method in [dense, masked, noises(2).swap_remove(0)] {
        let asked = Asked::default();
        let mut session = method.init().unwrap().session(net()).unwrap();
        for _ in 0..3 {
            session.step_on(1e-3, Rows::new(2, &asked)).unwrap();
        }
        assert_eq!(*asked.borrow(), [1; 6], "{method:?}");
    }
}

#[test]
fn a_displaced_weight_that_is_read_as_one_value_ends_it() {
    let method = &noises(2)[0];
    let (mut session, asked) = (on_the_fly(method), Asked::default());
    let mut losses = Vec::new();
    for _ in 0..6 {
        let objective = Rows {
            misreads: true,
            ..Rows::new(2, &asked)
        };
        let report = session.step_on(1e-2, objective).unwrap();
        assert_eq!((report.forwards, report.evaluations), (2, 2));
        let query = &report.queries[0];
        losses.extend([query.loss_plus, query.loss_other]);
    }
    // Once in vain.
    assert_eq!(asked.into_inner(), [vec![2], vec![1; 12]].concat());
    assert_eq!(losses, run(method, 1).0);
}

#[test]
fn what_is_wrong_with_losses_is_said() {
    let method = &noises(2)[0];
    let asked = Asked::default();
    let rows = |added| Rows {
        added,
        ..Rows::new(2, &asked)
    };
    let nan = rows(|k, _| if k == 1 { f64::NAN } else { 0.0 });
    let error = on_the_fly(method).step_on(1e-2, nan).unwrap_err();
    let displaced = matches!(
        error,
        ZoError::NonFiniteLoss {
            displaced: true,
            ..
        }
    );
    assert!(displaced, "{error}");

    // Candidates may be infinitely bad: the other one is chosen.
    let bad: [fn(usize, usize) -> f64; 2] = [
        |k, of| {
            if of == 2 && k == 0 {
                f64::INFINITY
            } else {
                0.0
            }
        },
        |k, of| {
            if of == 2 && k == 1 {
                f64::INFINITY
            } else {
                0.0
            }
        },
    ];
    let greedy = method.clone().with_difference(Difference::OnePoint);
    let greedy = greedy.with_sampler(Greedy::new());
    let chosen = bad.map(|added| {
        assert!(on_the_fly(method).step_on(1e-2, rows(added)).is_err());
        let report = on_the_fly(&greedy).step_on(1e-2, rows(added)).unwrap();
        assert_eq!((report.forwards, report.evaluations), (3, 2));
        report.queries[0].direction.clone()
    });
    assert_ne!(chosen[0], chosen[1]);

    struct Few;
    impl Objective<Net> for Few {
        type Loss = f64;
        fn loss(&mut self, net: &Net) -> f64 {
            f64::from(net.bias.val().sum().into_scalar::<f32>())
        }
        fn at_once(&self) -> usize {
            2
        }
    }
    // It reads by `val`: its losses count for nothing, and nor does their number.
    let report = on_the_fly(method).step_on(1e-2, Few).unwrap();
    assert_eq!(report.evaluations, 2);

    struct One;
    impl Objective<Net> for One {
        type Loss = f64;
        fn loss(&mut self, _: &Net) -> f64 {
            0.5
        }
        fn at_once(&self) -> usize {
            2
        }
        fn losses(&mut self, net: &Net, displacements: usize) -> Vec<f64> {
            match displaced_values(&net.bias).len() {
                2 => vec![0.5; displacements + 1],
                _ => Vec::new(),
            }
        }
    }
    let error = on_the_fly(method)
        .step_on(1e-2, One)
        .unwrap_err()
        .to_string();
    assert!(error.contains("3 losses for 2 displacements"), "{error}");

    struct Blind;
    impl Objective<Net> for Blind {
        type Loss = f64;
        fn loss(&mut self, _: &Net) -> f64 {
            0.5
        }
        fn at_once(&self) -> usize {
            2
        }
        fn losses(&mut self, _: &Net, displacements: usize) -> Vec<f64> {
            vec![0.5; displacements]
        }
    }
    let error = on_the_fly(method).step_on(1e-2, Blind).unwrap_err();
    assert!(matches!(error, ZoError::Unread), "{error}");
}

/// A replay asks for one loss at a time: the answers are in the order in which it does, and end where a step that is skipped did.
#[test]
fn what_was_evaluated_at_once_is_recorded_in_the_order_of_a_replay() {
    let dir = tempfile::tempdir().unwrap();
    let gv = mezo_gv().with_noise(Lozo::new()).with_queries(2);
    let skipping = lozo().with_queries(3).with_non_finite(NonFinite::Skip);
    // The second of the displacements at once is not finite, in each step.
    let nan = |k: usize, groups: usize| if k == 1 && groups > 2 { f64::NAN } else { 0.0 };
    let one_sided = lozo().with_queries(5).with_difference(Difference::OneSided);
    for (name, method, added) in [
        ("gv", gv, Rows::new(4, &Asked::default()).added),
        (
            "one-sided",
            one_sided,
            Rows::new(3, &Asked::default()).added,
        ),
        ("skipping", skipping, nan),
    ] {
        let (mut session, path) = (on_the_fly(&method), dir.path().join(name));
        let nothing = serde_json::Value::Null;
        let writer = trajectory::TrajectoryWriter::of_session(&path, &mut session, nothing);
        let (mut writer, asked) = (writer.unwrap(), Asked::default());
        for step in 0..6 {
            let mut rows = Rows::new(4, &asked);
            if step > 3 {
                rows.added = added;
            }
            let report = session.step_on(1e-2, rows).unwrap();
            assert_eq!(report.skipped, name == "skipping" && step > 3);
            writer.step(1e-2, &report).unwrap();
            writer.digest_session(&mut session).unwrap();
        }
        assert!(asked.borrow().iter().any(|at_once| *at_once > 1), "{name}");
        let recorded = trajectory::Trajectory::read(&path).unwrap();
        let mut optim = method
            .clone()
            .with_perturbation(Perturbation::OnTheFly)
            .with_epsilon(0.1)
            .init()
            .unwrap();
        let replayed = recorded.replay(net(), &mut optim, 6, trajectory::Replay::Exact);
        assert_eq!(replayed.unwrap().digests, 7, "{name}");
    }
}

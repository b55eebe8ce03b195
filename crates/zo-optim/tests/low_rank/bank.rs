//! The bank: updates that add up in thin factors, and are written at a refresh alone.

use burn::module::Param;
use burn::tensor::{Device, Tensor};
use zo_optim::low_rank::*;
use zo_optim::testing::{Target, Toy, flat, toy};
use zo_optim::variants::*;
use zo_optim::*;

use crate::{Matrix, SHAPE, begin, curved, lozo_of, matrix, noises};

/// `x weight`, by the side path where there is one.
fn product(x: Tensor<2>, weight: &Param<Tensor<2>>) -> Tensor<2> {
    match SidePath::of(weight) {
        Some(side) => x.clone().matmul(weight.base()) + side.forward(x),
        None => x.matmul(weight.val()),
    }
}

/// In a session on the fly the updates of an interval add up in the thin factor: then it is that, bit for bit.
#[test]
fn an_interval_of_lozo_in_the_bank_is_zo_sgd_on_a_lora_bit_for_bit() {
    let (rank, steps, lr) = (2, 20, 0.02);
    let noise = Lozo::new().with_rank(rank).with_interval(Interval::Never);
    let method = lozo_of(noise).with_epsilon(0.01);
    let method = method.with_perturbation(Perturbation::OnTheFly);
    let (base, x) = (begin(SHAPE, 1.0), begin([5, SHAPE[0]], 0.7));
    let module = Matrix {
        weight: Param::from_tensor(base.clone()),
    };
    let mut session = method.init().unwrap().session(module).unwrap();
    let mut losses = Vec::new();
    let mut basis = None;
    for _ in 0..steps {
        let loss = |module: &Matrix| curved(product(x.clone(), &module.weight));
        let report = session.step(lr, loss).unwrap();
        assert_eq!(report.passes, 0);
        let query = &report.queries[0];
        basis = query.direction.terms()[0].basis.clone();
        losses.push([query.loss_plus, query.loss_other]);
    }
    let right = basis.unwrap().right(TensorKey::new("weight"), &SHAPE);
    let right = matrix(right.unwrap(), [rank, SHAPE[1]]);
    let mut lora = Matrix {
        weight: Param::from_tensor(begin([SHAPE[0], rank], 0.0)),
    };
    let mezo = mezo().with_epsilon(0.01);
    let mezo = mezo.with_perturbation(Perturbation::OnTheFly);
    let mut optim = mezo.init().unwrap();
    for expected in losses {
        let loss = |lora: &Matrix| {
            let side = x.clone().matmul(lora.weight.val()).matmul(right.clone());
            curved(x.clone().matmul(base.clone()) + side)
        };
        let (next, report) = optim.step(lr, lora, loss).unwrap();
        let query = &report.queries[0];
        assert_eq!([query.loss_plus, query.loss_other], expected);
        lora = next;
    }
    // The weights kept their bits; folding adds the product once.
    assert_eq!(flat(session.stored().0), seen_of(&base));
    let folded = base + lora.weight.val().matmul(right);
    for (a, b) in flat(session.model()).iter().zip(seen_of(&folded)) {
        assert!((a - b).abs() < 1e-6, "{a} {b}");
    }
}

fn seen_of(tensor: &Tensor<2>) -> Vec<f64> {
    tensor.clone().into_data().iter().collect()
}

/// Every method in a session, written and on the fly: the same weights within rounding, in fewer passes where updates can wait in the bank.
#[test]
fn the_bank_changes_nothing_but_rounding() {
    let plus = subzero_plus().with_noise(Subzero::new().with_rank(2).with_interval(4));
    let methods = noises(4)
        .into_iter()
        .chain([
            lozo_m().with_noise(Lozo::new().with_interval(4)),
            plus.with_queries(3),
        ])
        .map(|method| (method, 2))
        // Weight decay and masks of elements are written at once.
        .chain([
            (lozo().with_weight_decay(0.1), 10),
            (lozo().with_mask(Sparse::new().with_sparsity(0.5)), 10),
        ]);
    for (method, expected) in methods {
        let run = |perturbation| {
            let optim = method.clone().with_perturbation(perturbation).init();
            let mut session = optim.unwrap().session(toy(&Device::default())).unwrap();
            let mut passes = 0;
            for _ in 0..10 {
                let loss = |toy: &Toy| Target::Hyperboloid.loss(toy);
                passes += session.step(5e-3, loss).unwrap().passes;
            }
            (passes, flat(session.model()))
        };
        let (_, written) = run(Perturbation::InPlace);
        let (passes, banked) = run(Perturbation::OnTheFly);
        assert_eq!(passes, expected, "{method:?}");
        for (a, b) in written.iter().zip(banked) {
            assert!((a - b).abs() < 2e-4, "{method:?}: {a} {b}");
        }
    }
}

/// Stored in the middle of an interval with updates in the bank, and taken up again from what would be on disk.
#[test]
fn a_session_goes_on_from_its_bank_with_the_same_bits() {
    let methods = noises(4)
        .into_iter()
        .chain([lozo_m().with_noise(Lozo::new().with_interval(4))]);
    for method in methods {
        let make = || {
            let method = method.clone().with_perturbation(Perturbation::OnTheFly);
            method.init().unwrap()
        };
        let loss = |toy: &Toy| Target::Hyperboloid.loss(toy);
        let mut session = make().session(toy(&Device::default())).unwrap();
        for _ in 0..6 {
            session.step(5e-3, loss).unwrap();
        }
        let record = session.optimizer().record();
        let (module, position) = session.stored();
        assert!(!position.is_at_rest());
        let (module, json) = (module.clone(), serde_json::to_string(&position).unwrap());
        let mut optim = make();
        optim.load_record(record).unwrap();
        let mut again = optim.session(module).unwrap();
        let position: Position = serde_json::from_str(&json).unwrap();
        again.resume_at(position).unwrap();
        for session in [&mut session, &mut again] {
            for _ in 0..6 {
                session.step(5e-3, loss).unwrap();
            }
        }
        assert_eq!(flat(session.model()), flat(again.model()), "{method:?}");
        let mut written = method
            .init()
            .unwrap()
            .session(toy(&Device::default()))
            .unwrap();
        let position: Position = serde_json::from_str(&json).unwrap();
        let error = written.resume_at(position).unwrap_err().to_string();
        assert!(error.contains("on the fly"), "{error}");
    }
}

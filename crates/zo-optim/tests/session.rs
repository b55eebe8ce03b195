//! Every kind of method in a session: fewer passes where updates can wait, and the same steps.

#![allow(clippy::unwrap_used, reason = "tests")]
#![cfg_attr(
    feature = "ndarray",
    allow(
        deprecated,
        reason = "burn deprecates its ndarray backend; it is supported here as long as burn has it"
    )
)]

use burn::tensor::Device;
use zo_optim::low_rank::{Lozo, Subzero};
use zo_optim::testing::{Target, Toy, flat, toy};
use zo_optim::variants::*;
use zo_optim::*;

const STEPS: usize = 30;

/// Losses that do not depend on the weights, so that two ways of taking the same steps differ only by rounding.
fn scripted() -> impl FnMut(&Toy) -> f64 {
    let mut calls = 0u32;
    move |toy: &Toy| {
        // On the fly a step asks whether the weights were read at all.
        let _ = toy.head.val();
        calls += 1;
        f64::from(calls * 7 % 11) * 1e-3
    }
}

/// A few steps, one by one and in a session.
struct Both {
    one_by_one: Vec<f64>,
    in_session: Vec<f64>,
    /// Passes of the last step, one by one and in the session.
    passes: (usize, usize),
}

fn both(lr: f64, method: &Method) -> Both {
    let device = Device::default();
    let (mut optim, mut module, mut objective) = (method.init().unwrap(), toy(&device), scripted());
    let mut session = method.init().unwrap().session(toy(&device)).unwrap();
    let (mut passes, mut again) = ((0, 0), scripted());
    for _ in 0..STEPS {
        let (next, alone) = optim.step(lr, module, &mut objective).unwrap();
        let own = session.step(lr, &mut again).unwrap();
        assert_eq!(alone.queries, own.queries);
        module = next;
        passes = (alone.passes, own.passes);
    }
    Both {
        one_by_one: flat(&module),
        in_session: flat(session.model()),
        passes,
    }
}

/// Within 4 ulp of |w| and what a weight travels, times the root of the number of passes: rounding errors add up like a random walk.
fn assert_close(both: &Both) {
    let passes = (STEPS * both.passes.0) as f64;
    for (i, (a, b)) in both.one_by_one.iter().zip(&both.in_session).enumerate() {
        let size = a.abs().max(b.abs()) + 0.02;
        let ulp = 2f64.powi(size.log2().floor() as i32 - 23);
        let bound = 4.0 * ulp * passes.sqrt();
        assert!((a - b).abs() <= bound, "weight {i}: {a} and {b}");
    }
}

/// A row: a learning rate, the passes of a step one by one and in a session, and how the optimizer is made.
macro_rules! with_a_pass_less {
    ($($name:ident: $lr:expr, $passes:expr, $make:expr;)*) => {$(
        #[test]
        fn $name() {
            let both = both($lr, &$make);
            assert_eq!(both.passes, $passes);
            assert_close(&both);
        }
    )*};
}

with_a_pass_less! {
    mezo: 2e-4, (3, 2), zo_optim::mezo();
    mezo_rademacher: 2e-4, (3, 2), zo_optim::mezo().with_noise(Noise::Rademacher);
    mezo_of_three_queries_with_decay: 2e-4, (7, 6), zo_optim::mezo().with_queries(3).with_weight_decay(10.0);
    gv: 1e-4, (5, 4), mezo_gv();
    // The candidate that is kept is in the update and in the next displacement.
    gv_history: 1e-4, (5, 4), mezo_gv().with_sampler(GuidingVector::new().with_history(true));
    lezo: 2e-4, (3, 2), zo_optim::lezo();
    lezo_with_decay: 2e-4, (3, 2), zo_optim::lezo().with_weight_decay(10.0);
    adalezo: 1e-4, (3, 2), ada_lezo();
    // Two bases in one pass, at each refresh.
    lozo: 1e-4, (3, 2), low_rank::lozo().with_noise(Lozo::new().with_interval(3));
    subzero: 1e-4, (3, 2), low_rank::subzero().with_noise(Subzero::new().with_rank(2).with_interval(3));
    curvzo: 1e-4, (3, 2), zo_optim::curvzo();
    momentum_window: 2e-5, (3, 2), variants::momentum_window();
    momentum_window_with_masks: 2e-5, (3, 2), variants::momentum_window().with_mask(RandomLayers::new().with_drop(0.5));
    sign: 2e-4, (3, 2), variants::sign();
    sparse_random: 2e-4, (3, 2), variants::sparse_random();
    block_wise: 2e-4, (3, 2), variants::block_wise();
    block_wise_all_at_once: 1e-4, (15, 10), variants::block_wise().with_mask(Blocks::new().with_order(BlockOrder::AllAtOnce));
    block_wise_all_after: 1e-4, (11, 10), variants::block_wise().with_mask(Blocks::new().with_order(BlockOrder::AllAfter));
}

/// Updates that cannot wait, or only until the next evaluation: as many passes, and the same bits.
macro_rules! as_without {
    ($($name:ident: $passes:expr, $make:expr;)*) => {$(
        #[test]
        fn $name() {
            let both = both(2e-4, &$make);
            assert_eq!(both.passes, ($passes, $passes));
            assert_eq!(both.one_by_one, both.in_session);
        }
    )*};
}

as_without! {
    mezo_on_the_fly: 1, zo_optim::mezo().with_perturbation(Perturbation::OnTheFly);
    momentum_window_on_the_fly: 1, variants::momentum_window().with_perturbation(Perturbation::OnTheFly);
    mezo_one_sided: 2, zo_optim::mezo().with_difference(Difference::OneSided);
    momentum: 3, variants::momentum();
    lozo_m: 3, low_rank::lozo_m();
    adam: 3, variants::adam();
    adam_window: 3, variants::adam_window();
    sign_elementwise: 3, variants::sign_elementwise();
    sparse_magnitude: 3, variants::sparse_magnitude();
    sparse_mezo: 3, variants::sparse_mezo();
}

#[test]
fn a_session_finds_the_minimum() {
    let device = Device::default();
    let loss = |toy: &Toy| Target::Hyperboloid.loss(toy);
    let begin = loss(&toy(&device)).into_scalar::<f32>();
    let mut session = zo_optim::mezo()
        .init()
        .unwrap()
        .session(toy(&device))
        .unwrap();
    for _ in 0..1500 {
        session.step(0.01, loss).unwrap();
    }
    let end = loss(session.model()).into_scalar::<f32>();
    assert!(end < 0.02 * begin, "from {begin} to {end}");
}

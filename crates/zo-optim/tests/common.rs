//! The common test: every optimizer, one row each.

#![allow(clippy::unwrap_used, reason = "tests")]
#![cfg_attr(
    feature = "ndarray",
    allow(
        deprecated,
        reason = "burn deprecates its ndarray backend; it is supported here as long as burn has it"
    )
)]

use Scaling::{Free, Linear};
use burn::tensor::{DType, Device};
use zo_optim::low_rank::{Lozo, SubspaceAdam, SubspaceMomentum, Subzero};
use zo_optim::testing::{Common, Scaling, Setup, check_common};
use zo_optim::variants::coefficients::{Clip, LeaveOneOut, Normalized, Shrinkage};
use zo_optim::variants::*;
use zo_optim::*;

/// Runs the common test on one optimizer: its learning rate, the steps to the minimum and what counts as one, how the learning rate follows
/// the scale of the loss, and how it is made.
fn check<O: ZerothOrderOptimizer>(
    (lr, steps, reach, scaling): (f64, usize, f64, Scaling),
    make: impl Fn(Setup) -> O,
) {
    let options = Common {
        lr,
        steps,
        reach,
        scaling,
        devices: vec![
            #[cfg(feature = "flex")]
            Device::flex(),
            #[cfg(feature = "ndarray")]
            Device::ndarray(),
        ],
        dtypes: vec![
            #[cfg(feature = "flex")]
            DType::BF16,
            #[cfg(feature = "flex")]
            DType::F16,
        ],
        thorough: true,
    };
    check_common(make, &options).unwrap();
}

/// One function for all methods, so that the compiler makes the checks once.
fn check_method(run: (f64, usize, f64, Scaling), method: &Method) {
    check(run, |setup: Setup| {
        setup.apply(method.clone()).init().unwrap()
    });
}

fn lozo_of(rank: usize, interval: u64) -> Method {
    low_rank::lozo().with_noise(Lozo::new().with_rank(rank).with_interval(interval))
}

fn subzero_of(rank: usize, interval: u64) -> Method {
    low_rank::subzero().with_noise(Subzero::new().with_rank(rank).with_interval(interval))
}

/// A row: the name of the test, how it is run, and the method.
macro_rules! methods {
    ($($(#[$attribute:meta])* $name:ident: $run:expr, $method:expr;)*) => {$(
        $(#[$attribute])*
        #[test]
        fn $name() {
            check_method($run, &$method);
        }
    )*};
}

methods! {
    mezo: (0.01, 1500, 0.02, Linear), zo_optim::mezo();
    mezo_one_sided: (0.01, 1500, 0.02, Linear), zo_optim::mezo().with_difference(Difference::OneSided);
    mezo_rademacher: (0.01, 1500, 0.02, Linear), zo_optim::mezo().with_noise(Noise::Rademacher);
    mezo_rounded_stochastically: (0.01, 1500, 0.02, Linear), zo_optim::mezo().with_rounding(Rounding::Stochastic);
    mezo_on_the_fly: (0.01, 1500, 0.02, Linear), zo_optim::mezo().with_perturbation(Perturbation::OnTheFly);
    gv: (0.005, 1500, 0.02, Linear), mezo_gv();
    gv_of_four: (0.005, 1500, 0.02, Linear), mezo_gv().with_sampler(GuidingVector::new().with_candidates(4).with_normalize(true));
    gv_history: (0.005, 1500, 0.02, Linear), mezo_gv().with_sampler(GuidingVector::new().with_history(true));
    greedy: (0.01, 1500, 0.02, Linear), mezo_greedy().with_sampler(Greedy::new().with_candidates(3));
    lezo: (0.015, 3000, 0.02, Linear), zo_optim::lezo();
    adalezo: (0.01, 3000, 0.02, Linear), ada_lezo();
    curvzo: (0.005, 3000, 0.02, Linear), zo_optim::curvzo();
    curvzo_clipped: (0.005, 3000, 0.02, Linear), zo_optim::curvzo().with_mask(CurvatureSampling::new().with_clip(Some(3.0)));
    momentum: (0.001, 2000, 0.02, Linear), variants::momentum();
    momentum_window: (0.001, 2000, 0.02, Linear), variants::momentum_window();
    momentum_on_the_fly: (0.001, 2000, 0.02, Linear), variants::momentum().with_perturbation(Perturbation::OnTheFly);
    adam: (0.02, 1500, 0.02, Free), variants::adam();
    adam_window: (0.02, 3000, 0.02, Free), variants::adam_window();
    adam_window_on_the_fly: (0.02, 3000, 0.02, Free), variants::adam_window().with_perturbation(Perturbation::OnTheFly);
    sign: (0.01, 2500, 0.02, Free), variants::sign();
    sign_elementwise: (0.01, 2500, 0.02, Free), variants::sign_elementwise();
    conservative: (0.01, 1500, 0.02, Linear), variants::conservative();
    conservative_on_the_fly: (0.01, 1500, 0.02, Linear), variants::conservative().with_perturbation(Perturbation::OnTheFly);
    block_wise: (0.03, 2500, 0.02, Linear), variants::block_wise();
    block_wise_all_at_once: (0.03, 500, 0.02, Linear), variants::block_wise().with_mask(Blocks::new().with_order(BlockOrder::AllAtOnce));
    block_wise_all_after: (0.03, 500, 0.02, Linear), variants::block_wise().with_mask(Blocks::new().with_order(BlockOrder::AllAfter).with_layers(Layers::Children));
    block_wise_all_after_on_the_fly: (0.03, 500, 0.02, Linear), variants::block_wise().with_mask(Blocks::new().with_order(BlockOrder::AllAfter)).with_perturbation(Perturbation::OnTheFly);
    sparse_random: (0.03, 3000, 0.02, Linear), variants::sparse_random();
    // Weights that the mask holds still stay away from the minimum.
    sparse_magnitude: (0.02, 4000, 0.1, Linear), variants::sparse_magnitude().with_mask(Sparse::new().with_kind(SparseKind::Magnitude).with_sparsity(0.3).with_refresh(25));
    sparse_global: (0.02, 4000, 0.1, Linear), variants::sparse_random().with_mask(Sparse::new().with_kind(SparseKind::GlobalMagnitude).with_sparsity(0.3).with_refresh(25));
    sparse_mezo_as_by_default: (0.05, 3000, 0.99, Linear), variants::sparse_mezo();
    sparse_magnitude_as_by_default: (0.05, 3000, 0.9, Linear), variants::sparse_magnitude();
    sparse_mezo: (0.02, 4000, 0.3, Linear), variants::sparse_mezo().with_mask(Sparse::new().with_kind(SparseKind::SmallWeights).with_sparsity(0.1).with_refresh(25));
    lozo: (0.01, 1500, 0.02, Linear), low_rank::lozo();
    lozo_of_rank_one: (0.01, 2000, 0.02, Linear), lozo_of(1, 7);
    lozo_on_the_fly: (0.01, 1500, 0.02, Linear), lozo_of(2, 3).with_perturbation(Perturbation::OnTheFly);
    lozo_rounded_stochastically: (0.01, 1500, 0.02, Linear), lozo_of(2, 3).with_rounding(Rounding::Stochastic);
    lozo_m: (0.01, 1500, 0.02, Linear), lozo_of(2, 10).with_update(SubspaceMomentum::new());
    subzero: (0.01, 2000, 0.02, Linear), subzero_of(2, 20);
    subzero_of_rank_one: (0.005, 4000, 0.02, Linear), subzero_of(1, 7);
    subzero_momentum: (0.005, 3000, 0.02, Linear), subzero_of(2, 10).with_update(SubspaceMomentum::new());
    gv_over_lozo: (0.005, 2000, 0.02, Linear), mezo_gv().with_noise(Lozo::new().with_rank(2).with_interval(7));
    greedy_over_subzero: (0.005, 3000, 0.02, Linear), mezo_greedy().with_noise(Subzero::new().with_rank(2).with_interval(7));
    lozo_by_layers: (0.015, 3000, 0.02, Linear), lozo_of(1, 7).with_mask(RandomLayers::new());
    lozo_m_by_layers: (0.02, 4000, 0.02, Linear), lozo_of(2, 20).with_mask(RandomLayers::new().with_drop(0.5)).with_update(SubspaceMomentum::new());
    lozo_by_elements: (0.03, 3000, 0.02, Linear), lozo_of(1, 7).with_mask(Sparse::new());
    lozo_by_magnitude: (0.02, 4000, 0.1, Linear), lozo_of(1, 7).with_mask(Sparse::new().with_kind(SparseKind::Magnitude).with_sparsity(0.3).with_refresh(25));
    lozo_adam_window: (0.02, 3000, 0.02, Free), lozo_of(2, 7).with_update(AdamWindow::new());
    #[cfg(feature = "autodiff")] forward_gradient: (0.01, 1500, 0.02, Linear), variants::forward_gradient();
}

/// A row of a coefficient rule: at least as many queries as it compares, and its own difference.
macro_rules! rules {
    ($($name:ident: $run:expr, $method:expr, $queries:expr;)*) => {$(
        #[test]
        fn $name() {
            check($run, |setup: Setup| {
                let method = setup.apply($method).with_queries(setup.queries + $queries);
                method.init().unwrap()
            });
        }
    )*};
}

rules! {
    fzoo: (0.05, 1500, 0.02, Free), variants::fzoo().with_epsilon(1e-3), 3;
    fzoo_of_pairs: (0.02, 2500, 0.02, Free), zo_optim::mezo().with_coefficients(Normalized), 3;
    leave_one_out: (0.01, 2000, 0.02, Linear), variants::evolution_strategies().with_coefficients(LeaveOneOut), 3;
    evolution_strategies: (0.05, 2000, 0.02, Free), variants::evolution_strategies(), 3;
    clip: (0.01, 1500, 0.02, Scaling::Mixed), zo_optim::mezo().with_coefficients(Clip::new()), 0;
    meazo: (0.02, 2500, 0.02, Free), variants::meazo(), 0;
    subzero_plus: (0.02, 1500, 0.02, Free), low_rank::subzero_plus().with_noise(Subzero::new().with_rank(2).with_interval(50)), 4;
    lozo_adam: (0.02, 1500, 0.02, Free), lozo_of(2, 50).with_update(SubspaceAdam::new()), 3;
    fzoo_over_lozo: (0.05, 1500, 0.02, Free), variants::fzoo().with_noise(Lozo::new()).with_epsilon(1e-3), 3;
    shrinkage: (0.02, 1500, 0.02, Linear), zo_optim::mezo().with_coefficients(Shrinkage::new()), 0;
}

/// A row of what takes central differences and no others. The curvature follows the scale of the loss.
macro_rules! central {
    ($($name:ident: $lr:expr, $steps:expr, $method:expr;)*) => {$(
        #[test]
        fn $name() {
            check(($lr, $steps, 0.02, Scaling::Mixed), |setup: Setup| {
                let method = setup.apply($method).with_difference(Difference::Central);
                method.init().unwrap()
            });
        }
    )*};
}

central! {
    spsa_1_5: 0.01, 1500, variants::spsa_1_5();
    hizoo: 0.01, 1500, variants::hizoo();
    hizoo_that_learns: 0.01, 3000, variants::hizoo().with_noise(Hizoo::new().with_smoothing(3e-6));
    hizoo_window: 0.01, 1500, variants::hizoo_window();
    hizoo_window_that_learns: 0.01, 3000, variants::hizoo_window().with_noise(HizooWindow::new().with_smoothing(1e-2).with_window(4));
    hizoo_window_on_the_fly: 0.01, 1500, variants::hizoo_window().with_perturbation(Perturbation::OnTheFly);
    gv_over_hizoo: 0.005, 3000, mezo_gv().with_noise(Hizoo::new().with_smoothing(3e-6));
    hizoo_window_by_layers: 0.015, 3000, variants::hizoo_window().with_mask(RandomLayers::new());
    hizoo_adam: 0.02, 3000, variants::hizoo().with_update(Adam::new());
}

#[cfg(feature = "autodiff")]
#[test]
fn hybrid() {
    use burn::module::ParamGroup;
    check((0.01, 1500, 0.02, Scaling::Mixed), |setup: Setup| {
        let top = ParamGroup::from_any_predicates(vec!["layers.3", "head"]);
        let adam = burn::optim::AdamConfig::new().init();
        let method = setup.apply(Method::new());
        HybridConfig::new(top).init(&method, adam).unwrap()
    });
}

/// Parts of four crates in one optimizer, like any other.
#[test]
fn everything_at_once() {
    let method = mezo_gv()
        .with_noise(Noise::Rademacher)
        .with_mask(RandomLayers::new().with_drop(0.5))
        .with_update(AdamWindow::new());
    check_method((0.02, 4000, 0.02, Free), &method);
    let method = mezo_greedy()
        .with_mask(Blocks::new().with_order(BlockOrder::AllAtOnce))
        .with_update(MomentumWindow::new());
    check_method((0.002, 2000, 0.02, Linear), &method);
}

#[test]
fn combinations_that_make_no_sense_are_refused_with_the_reason() {
    let refused = |method: Method, words: [&str; 2]| {
        let error = method.init().unwrap_err().to_string();
        assert!(words.iter().all(|word| error.contains(word)), "{error}");
    };
    let small = || Sparse::new().with_kind(SparseKind::SmallWeights);
    let by_magnitude = || Method::new().with_mask(small());
    let window = by_magnitude().with_update(MomentumWindow::new());
    refused(window, ["magnitude", "buffers"]);
    assert!(by_magnitude().with_update(Momentum::new()).init().is_ok());
    let at_once = Method::new().with_mask(Blocks::new().with_order(BlockOrder::AllAtOnce));
    refused(at_once.with_update(Adam::new()), ["each round", "window"]);
    let stochastic = || Method::new().with_rounding(Rounding::Stochastic);
    refused(
        stochastic().with_update(Adam::new()),
        ["rounding", "window"],
    );
    assert!(stochastic().with_update(AdamWindow::new()).init().is_ok());
}

#[test]
fn bad_settings_are_refused_by_name() {
    let curvature = CurvatureSampling::new;
    let methods = [
        (
            "candidates",
            mezo_greedy().with_sampler(Greedy::new().with_candidates(0)),
        ),
        (
            "drop",
            Method::new().with_mask(RandomLayers::new().with_drop(1.5)),
        ),
        (
            "budget",
            Method::new().with_mask(curvature().with_budget(0.0)),
        ),
        (
            "rate",
            Method::new().with_mask(curvature().with_rate(f64::NAN)),
        ),
        (
            "clip",
            Method::new().with_mask(curvature().with_clip(Some(0.5))),
        ),
        (
            "beta",
            Method::new().with_update(Momentum::new().with_beta(1.0)),
        ),
        (
            "window",
            Method::new().with_update(MomentumWindow::new().with_window(0)),
        ),
        (
            "beta_2",
            Method::new().with_update(Adam::new().with_beta_2(-0.1)),
        ),
        (
            "adam_epsilon",
            Method::new().with_update(AdamWindow::new().with_adam_epsilon(0.0)),
        ),
        (
            "sparsity",
            Method::new().with_mask(Sparse::new().with_sparsity(1.0)),
        ),
        ("epsilon", Method::new().with_epsilon(-1.0)),
    ];
    for (name, method) in methods {
        let error = method.init().unwrap_err().to_string();
        assert!(error.starts_with(&format!("{name} is ")), "{error}");
    }
}

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
use zo_optim::testing::{Common, Scaling, Setup, check_common};
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

/// A row: the name of the test, how it is run, and the configuration, whose optimizer `init` builds.
macro_rules! methods {
    ($($(#[$attribute:meta])* $name:ident: $run:expr, $config:expr, $init:ident;)*) => {$(
        $(#[$attribute])*
        #[test]
        fn $name() {
            check($run, |setup: Setup| {
                let mut config = $config
                    .with_seed(setup.seed)
                    .with_queries(setup.queries)
                    .with_weight_decay(setup.weight_decay())
                    .with_weight_decay_groups(setup.weight_decay_groups());
                if setup.one_sided {
                    config = config.with_difference(Difference::OneSided);
                }
                config.$init().unwrap()
            });
        }
    )*};
}

methods! {
    mezo: (0.01, 1500, 0.02, Linear), MezoConfig::new(), init;
    mezo_one_sided: (0.01, 1500, 0.02, Linear), MezoConfig::new().with_difference(Difference::OneSided), init;
    mezo_rademacher: (0.01, 1500, 0.02, Linear), MezoConfig::new().with_noise(Noise::Rademacher), init;
    mezo_rounded_by_chance: (0.01, 1500, 0.02, Linear), MezoConfig::new().with_rounding(Rounding::Stochastic), init;
    mezo_on_the_fly: (0.01, 1500, 0.02, Linear), MezoConfig::new().with_perturbation(Perturbation::OnTheFly), init;
    gv: (0.005, 1500, 0.02, Linear), MezoGvConfig::new(), init;
    gv_of_four: (0.005, 1500, 0.02, Linear), MezoGvConfig::new().with_candidates(4).with_normalize(true), init;
    gv_history: (0.005, 1500, 0.02, Linear), MezoGvConfig::new().with_history(true), init;
    greedy: (0.01, 1500, 0.02, Linear), MezoGreedyConfig::new().with_candidates(3), init;
    lezo: (0.015, 3000, 0.02, Linear), LezoConfig::new(), init;
    adalezo: (0.01, 3000, 0.02, Linear), AdaLezoConfig::new(), init;
    curvzo: (0.005, 3000, 0.02, Linear), CurvZoConfig::new(), init;
    curvzo_clipped: (0.005, 3000, 0.02, Linear), CurvZoConfig::new().with_clip(Some(3.0)), init;
    momentum: (0.001, 2000, 0.02, Linear), MomentumConfig::new(), init;
    momentum_window: (0.001, 2000, 0.02, Linear), MomentumConfig::new(), init_window;
    momentum_on_the_fly: (0.001, 2000, 0.02, Linear), MomentumConfig::new().with_perturbation(Perturbation::OnTheFly), init;
    adam: (0.02, 1500, 0.02, Free), AdamConfig::new(), init;
    adam_window: (0.02, 3000, 0.02, Free), AdamConfig::new(), init_window;
    adam_window_on_the_fly: (0.02, 3000, 0.02, Free), AdamConfig::new().with_perturbation(Perturbation::OnTheFly), init_window;
    sign: (0.01, 2500, 0.02, Free), SignConfig::new(), init;
    sign_elementwise: (0.01, 2500, 0.02, Free), SignConfig::new().with_kind(SignKind::Elementwise), init;
    conservative: (0.01, 1500, 0.02, Linear), ConservativeConfig::new(), init;
    conservative_on_the_fly: (0.01, 1500, 0.02, Linear), ConservativeConfig::new().with_perturbation(Perturbation::OnTheFly), init;
    block_wise: (0.03, 2500, 0.02, Linear), BlockWiseConfig::new(), init;
    block_wise_all_at_once: (0.03, 500, 0.02, Linear), BlockWiseConfig::new().with_order(BlockOrder::AllAtOnce), init;
    block_wise_all_after: (0.03, 500, 0.02, Linear), BlockWiseConfig::new().with_order(BlockOrder::AllAfter).with_blocks(Layers::Children), init;
    block_wise_all_after_on_the_fly: (0.03, 500, 0.02, Linear), BlockWiseConfig::new().with_order(BlockOrder::AllAfter).with_perturbation(Perturbation::OnTheFly), init;
    sparse_random: (0.03, 3000, 0.02, Linear), SparseConfig::new(), init;
    // Weights that the mask holds still stay away from the minimum.
    sparse_magnitude: (0.02, 4000, 0.1, Linear), SparseConfig::new().with_kind(SparseKind::Magnitude).with_sparsity(0.3).with_refresh(25), init;
    sparse_global: (0.02, 4000, 0.1, Linear), SparseConfig::new().with_kind(SparseKind::GlobalMagnitude).with_sparsity(0.3).with_refresh(25), init;
    sparse_mezo_as_by_default: (0.05, 3000, 0.99, Linear), SparseConfig::new().with_kind(SparseKind::SmallWeights), init;
    sparse_magnitude_as_by_default: (0.05, 3000, 0.9, Linear), SparseConfig::new().with_kind(SparseKind::Magnitude), init;
    sparse_mezo: (0.02, 4000, 0.3, Linear), SparseConfig::new().with_kind(SparseKind::SmallWeights).with_sparsity(0.1).with_refresh(25), init;
    #[cfg(feature = "autodiff")] forward_gradient: (0.01, 1500, 0.02, Linear), ForwardGradientConfig::new(), init;
}

#[cfg(feature = "autodiff")]
#[test]
fn hybrid() {
    use burn::module::ParamGroup;
    check((0.01, 1500, 0.02, Scaling::Mixed), |setup: Setup| {
        let top = ParamGroup::from_any_predicates(vec!["layers.3", "head"]);
        let config = HybridConfig::new(top)
            .with_seed(setup.seed)
            .with_queries(setup.queries)
            .with_difference(setup.difference())
            .with_weight_decay(setup.weight_decay())
            .with_weight_decay_groups(setup.weight_decay_groups());
        config.init(burn::optim::AdamConfig::new().init()).unwrap()
    });
}

/// Parts of four crates in one optimizer, like any other.
#[test]
fn everything_at_once() {
    check((0.02, 4000, 0.02, Free), |setup: Setup| {
        let sampler = MezoGvConfig::new().sampler(Noise::Rademacher).unwrap();
        let mask = LezoConfig::new().with_drop(0.5).mask().unwrap();
        let update = AdamConfig::new().window_rule().unwrap();
        let mut settings = MezoConfig::new().settings();
        setup.apply(&mut settings);
        ZeroOrder::new(settings, sampler, mask, update).unwrap()
    });
    check((0.002, 2000, 0.02, Linear), |setup: Setup| {
        let sampler = MezoGreedyConfig::new().sampler(Noise::Gaussian).unwrap();
        let mask = BlockWiseConfig::new()
            .with_order(BlockOrder::AllAtOnce)
            .mask();
        let update = MomentumConfig::new().window_rule().unwrap();
        let mut settings = MezoConfig::new().settings();
        setup.apply(&mut settings);
        ZeroOrder::new(settings, sampler, mask, update).unwrap()
    });
}

#[test]
fn combinations_that_make_no_sense_are_refused_with_the_reason() {
    let settings = || MezoConfig::new().settings();
    let noise = Noise::Gaussian;
    let mask = SparseConfig::new()
        .with_kind(SparseKind::SmallWeights)
        .mask()
        .unwrap();
    let window = MomentumConfig::new().window_rule().unwrap();
    let error = ZeroOrder::new(settings(), noise, mask.clone(), window)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("magnitude") && error.contains("buffers"),
        "{error}"
    );
    let buffer = MomentumConfig::new().rule().unwrap();
    assert!(ZeroOrder::new(settings(), noise, mask, buffer).is_ok());
    let mask = BlockWiseConfig::new()
        .with_order(BlockOrder::AllAtOnce)
        .mask();
    let buffers = AdamConfig::new().rule().unwrap();
    let error = ZeroOrder::new(settings(), noise, mask, buffers)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("each round") && error.contains("window"),
        "{error}"
    );
    let stochastic = || AdamConfig::new().with_rounding(Rounding::Stochastic);
    let error = stochastic().init().unwrap_err().to_string();
    assert!(
        error.contains("rounding") && error.contains("window"),
        "{error}"
    );
    assert!(stochastic().init_window().is_ok());
}

#[test]
fn bad_settings_are_refused_by_name() {
    fn name_of<T>(result: Result<T, ConfigError>) -> String {
        result.err().unwrap().to_string()
    }
    let errors = [
        (
            "candidates",
            name_of(MezoGreedyConfig::new().with_candidates(0).init()),
        ),
        ("drop", name_of(LezoConfig::new().with_drop(1.5).init())),
        (
            "budget",
            name_of(CurvZoConfig::new().with_budget(0.0).init()),
        ),
        (
            "rate",
            name_of(CurvZoConfig::new().with_rate(f64::NAN).init()),
        ),
        (
            "clip",
            name_of(CurvZoConfig::new().with_clip(Some(0.5)).init()),
        ),
        ("beta", name_of(MomentumConfig::new().with_beta(1.0).init())),
        (
            "window",
            name_of(MomentumConfig::new().with_window(0).init_window()),
        ),
        (
            "beta_2",
            name_of(AdamConfig::new().with_beta_2(-0.1).init()),
        ),
        (
            "adam_epsilon",
            name_of(AdamConfig::new().with_adam_epsilon(0.0).init_window()),
        ),
        (
            "sparsity",
            name_of(SparseConfig::new().with_sparsity(1.0).init()),
        ),
        (
            "epsilon",
            name_of(SignConfig::new().with_epsilon(-1.0).init()),
        ),
    ];
    for (name, error) in errors {
        assert!(error.starts_with(name), "{error}");
    }
}

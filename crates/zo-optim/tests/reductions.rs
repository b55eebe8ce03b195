//! Each method reduces to a known one under special settings, and its costs are those of its paper.

#![allow(clippy::unwrap_used, reason = "tests")]
#![cfg_attr(
    feature = "ndarray",
    allow(
        deprecated,
        reason = "burn deprecates its ndarray backend; it is supported here as long as burn has it"
    )
)]

use burn::tensor::Device;
use zo_optim::testing::{Target, Toy, flat, toy};
use zo_optim::variants::*;
use zo_optim::*;

/// The weights after a few steps, and the last report.
fn run<O: ZerothOrderOptimizer>(mut optimizer: O, steps: usize) -> (Vec<f64>, StepReport) {
    let (mut module, mut last) = (toy(&Device::default()), None);
    for _ in 0..steps {
        let loss = |toy: &Toy| Target::Hyperboloid.loss(toy);
        let (next, report) = optimizer.step(5e-3, module, loss).unwrap();
        (module, last) = (next, Some(report));
    }
    (flat(&module), last.unwrap())
}

fn weights<O: ZerothOrderOptimizer>(optimizer: Result<O, ConfigError>) -> Vec<f64> {
    run(optimizer.unwrap(), 8).0
}

/// A method, and MeZO with the same settings.
macro_rules! reduces_to_mezo {
    ($($name:ident: $method:expr;)*) => {$(
        #[test]
        fn $name() {
            for queries in [1, 3] {
                let with = |method: Method| weights(method.with_queries(queries).with_seed(4).init());
                assert_eq!(with($method), with(mezo()));
            }
        }
    )*};
}

reduces_to_mezo! {
    lezo_without_drop: lezo().with_mask(RandomLayers::new().with_drop(0.0));
    lezo_with_too_few_layers_to_drop_one: lezo().with_mask(RandomLayers::new().with_drop(0.24));
    curvzo_with_a_budget_for_all: curvzo().with_mask(CurvatureSampling::new().with_budget(1.0));
    no_sparsity: sparse_random().with_mask(Sparse::new().with_sparsity(0.0));
    no_sparsity_by_magnitude: sparse_magnitude().with_mask(Sparse::new().with_kind(SparseKind::Magnitude).with_sparsity(0.0));
    one_block: block_wise().with_mask(Blocks::new().with_layers(everything()));
    one_block_in_turn: block_wise().with_mask(Blocks::new().with_layers(everything()).with_order(BlockOrder::AllAtOnce));
    one_block_after_all: block_wise().with_mask(Blocks::new().with_layers(everything()).with_order(BlockOrder::AllAfter));
    a_momentum_window_without_momentum: momentum_window().with_update(MomentumWindow::new().with_beta(0.0));
    a_momentum_window_of_one_step: momentum_window().with_update(MomentumWindow::new().with_window(1));
    stochastic_rounding_in_f32: mezo().with_rounding(Rounding::Stochastic);
    the_best_of_one: mezo_greedy().with_sampler(Greedy::new().with_candidates(1));
}

fn everything() -> Layers {
    Layers::Groups(vec![burn::module::ParamGroup::all()])
}

fn close(a: &[f64], b: &[f64], bound: f64) {
    for (i, (a, b)) in a.iter().zip(b).enumerate() {
        assert!((a - b).abs() <= bound, "weight {i}: {a} and {b}");
    }
}

/// The buffer is f32 and the sum in another order, so not bit for bit.
#[test]
fn momentum_without_momentum_is_mezo() {
    let momentum = weights(
        momentum()
            .with_update(Momentum::new().with_beta(0.0))
            .init(),
    );
    close(&momentum, &weights(mezo().init()), 2e-4);
}

/// A window that holds the whole past is the buffer; with masks, too. (A weight that differs by a rounding changes the next difference of
/// losses by that over epsilon.)
#[test]
fn windows_that_hold_everything_are_buffers() {
    let (momentum, window) = (Momentum::new(), MomentumWindow::new());
    let (momentum, window) = (momentum.with_dampening(0.3), window.with_dampening(0.3));
    let run = |method: Method| weights(method.init());
    let [plain, windowed] = [
        Method::new().with_update(momentum),
        Method::new().with_update(window),
    ];
    close(&run(plain.clone()), &run(windowed.clone()), 2e-4);
    let adam = Adam::new().with_beta_2(0.95).with_adam_epsilon(1e-3);
    let window = AdamWindow::new().with_beta_2(0.95).with_adam_epsilon(1e-3);
    let two = || Method::new().with_queries(2);
    let [adam, adam_window] = [two().with_update(adam), two().with_update(window)];
    close(&run(adam.clone()), &run(adam_window.clone()), 2e-4);
    let lezo = || RandomLayers::new().with_drop(0.5);
    let (plain, windowed) = (plain.with_mask(lezo()), windowed.with_mask(lezo()));
    close(&run(plain), &run(windowed), 2e-4);
    let one = |method: Method| method.with_queries(1).with_mask(Sparse::new());
    close(&run(one(adam)), &run(one(adam_window)), 2e-4);
}

/// `m / sqrt(v)` of one estimate is its sign.
#[test]
fn an_adam_window_of_one_step_is_the_sign() {
    let rule = AdamWindow::new().with_window(1).with_adam_epsilon(1e-30);
    let adam = adam_window().with_update(rule);
    let sign = sign_elementwise();
    for queries in [1, 2] {
        let adam = weights(adam.clone().with_queries(queries).init());
        close(
            &adam,
            &weights(sign.clone().with_queries(queries).init()),
            2e-4,
        );
    }
}

/// With one query, `sign(g z) = sign(g) z` if z is 1 or -1.
#[test]
fn both_signs_are_the_same_for_rademacher_noise() {
    let rademacher = sign().with_noise(Noise::Rademacher);
    let scalar = weights(rademacher.clone().init());
    assert_eq!(
        scalar,
        weights(sign_elementwise().with_noise(Noise::Rademacher).init())
    );
}

/// Candidates that coincide: v = z - z = 0 at M = 2, so that nothing moves.
#[test]
fn a_guiding_vector_of_equal_candidates_is_zero() {
    #[derive(Clone, serde::Serialize)]
    struct Same;
    impl PerturbationSampler for Same {
        fn sample(&mut self, _: &mut SampleContext<'_>) -> Result<Direction, ZoError> {
            Ok(Direction::noise(Noise::Gaussian, 77))
        }
    }
    let optimizer = mezo_gv().with_noise(Same).init().unwrap();
    let (end, report) = run(optimizer, 3);
    close(&end, &flat(&toy(&Device::default())), 1e-6);
    assert_eq!(report.queries[0].projected_gradient, 0.0);
}

/// The exact derivative along z is the limit of the central difference.
#[cfg(feature = "autodiff")]
#[test]
fn the_forward_gradient_is_the_limit_of_mezo() {
    let forward = weights(forward_gradient().with_seed(2).init());
    let mezo = mezo().with_seed(2).with_epsilon(3e-3).init();
    close(&forward, &weights(mezo), 2e-4);
}

/// A user's own Jacobian-vector product takes the same steps as the backward pass.
#[test]
fn a_jacobian_vector_product_needs_no_autodiff() {
    let mut optimizer = forward_gradient().with_queries(2).init().unwrap();
    let mut module = toy(&Device::default());
    let jvp = |toy: &Toy, tangent: &Tangent<'_>| -> Result<(f64, f64), ObjectiveError> {
        // The gradient is known; tangents are requested in the order of traversal.
        let gradient = Target::Hyperboloid.gradient(&flat(toy));
        let mut v: Vec<f64> = Vec::new();
        v.extend(tangent.of(&toy.embed).to_data().iter::<f64>());
        for layer in &toy.layers {
            v.extend(tangent.of(&layer.attention).to_data().iter::<f64>());
            v.extend(tangent.of(&layer.mlp).to_data().iter::<f64>());
            v.extend(tangent.of(&layer.norm).to_data().iter::<f64>());
        }
        v.extend(tangent.of(&toy.head).to_data().iter::<f64>());
        let derivative = gradient.iter().zip(&v).map(|(g, v)| g * v).sum();
        let loss = f64::from(Target::Hyperboloid.loss(toy).into_scalar::<f32>());
        Ok((loss, derivative))
    };
    for _ in 0..1500 {
        let (next, report) = optimizer.step_jvp(0.01, module, jvp).unwrap();
        assert_eq!((report.forwards, report.passes), (2, 1));
        module = next;
    }
    let end = Target::Hyperboloid.loss(&module).into_scalar::<f32>();
    assert!(end < 0.02, "{end}");
    let error = forward_gradient()
        .init()
        .unwrap()
        .step(0.1, module, |toy: &Toy| {
            toy.head.val().sum().into_scalar::<f32>()
        });
    assert!(error.unwrap_err().to_string().contains("step_jvp"));
}

/// Forwards and passes of a step, as the documentation and the papers count them; q = 2 where queries multiply.
#[test]
fn forwards_and_passes_are_those_of_the_papers() {
    for preset in registry().presets() {
        let method = (preset.method)().with_queries(2);
        if method.config()["difference"] == "exact" && cfg!(not(feature = "autodiff")) {
            continue;
        }
        let (told, optimizer) = (method.forwards(), method.init().unwrap());
        assert_eq!(run(optimizer, 1).1.forwards, told, "{}", preset.name);
    }
    fn cost<O: ZerothOrderOptimizer>(optimizer: Result<O, ConfigError>) -> (usize, usize) {
        // The second step, so that what one leaves behind for the next counts.
        let report = run(optimizer.unwrap(), 2).1;
        (report.forwards, report.passes)
    }
    for m in [2, 4] {
        let gv = mezo_gv().with_sampler(GuidingVector::new().with_candidates(m));
        assert_eq!(cost(gv.clone().init()), (m + 2, m + 3));
        let history = GuidingVector::new().with_candidates(m).with_history(true);
        let history = mezo_gv().with_sampler(history);
        assert_eq!(cost(history.init()), (m + 2, m + 3));
        assert_eq!(
            cost(gv.with_queries(2).init()),
            (2 * (m + 2), 2 * (m + 2) + 1)
        );
        let (forwards, passes) = cost(
            mezo_greedy()
                .with_sampler(Greedy::new().with_candidates(m))
                .init(),
        );
        assert!(forwards == m + 2 && (passes == m + 3 || passes == m + 2));
    }
    assert_eq!(cost(lezo().init()), (2, 3));
    assert_eq!(cost(ada_lezo().init()), (2, 3));
    assert_eq!(cost(curvzo().with_queries(2).init()), (4, 5));
    assert_eq!(cost(momentum().init()), (2, 3));
    assert_eq!(cost(momentum_window().init()), (2, 3));
    assert_eq!(cost(adam().init()), (2, 3));
    assert_eq!(cost(adam_window().init()), (2, 3));
    assert_eq!(cost(sign().init()), (2, 3));
    assert_eq!(cost(sparse_random().init()), (2, 3));
    assert_eq!(cost(fzoo().init()), (9, 9));
    assert_eq!(cost(spsa_1_5().init()), (9, 10));
    assert_eq!(cost(meazo().init()), (2, 3));
    assert_eq!(cost(evolution_strategies().init()), (30, 31));
    let small = sparse_mezo();
    assert_eq!(cost(small.init()), (2, 3));
    // to +eps, -eps, theta, -u, +u, where it stays; one-sided: +eps, -u, +u
    assert_eq!(cost(conservative().init()), (5, 5));
    let one_sided = conservative().with_difference(Difference::OneSided);
    assert_eq!(cost(one_sided.init()), (4, 3));
    assert_eq!(cost(block_wise().init()), (2, 3));
    // Five blocks: four layers and the rest. Leaving a block and moving to the next is one move.
    let all = |order| {
        block_wise()
            .with_mask(Blocks::new().with_order(order))
            .init()
    };
    assert_eq!(cost(all(BlockOrder::AllAtOnce)), (10, 15));
    assert_eq!(cost(all(BlockOrder::AllAfter)), (10, 11));
    #[cfg(feature = "autodiff")]
    {
        assert_eq!(cost(forward_gradient().with_queries(3).init()), (3, 1));
        let top = burn::module::ParamGroup::from_predicate("head");
        let adam = burn::optim::AdamConfig::new().init();
        assert_eq!(cost(HybridConfig::new(top).init(&mezo(), adam)), (3, 3));
    }
}

/// What a mask leaves out is neither moved nor passed over.
#[test]
fn passes_skip_what_does_not_take_part() {
    // Embedding and head (18 of 98 weights) and one layer of four (20).
    let lezo = lezo().with_mask(RandomLayers::new().with_drop(0.75));
    let mut dropped = std::collections::BTreeSet::new();
    for seed in 0..12 {
        let (end, report) = run(lezo.clone().with_seed(seed).init().unwrap(), 1);
        assert_eq!(report.swept, 3 * 38);
        let begin = flat(&toy(&Device::default()));
        let layer = |l: usize| 12 + 20 * l..32 + 20 * l;
        let moved: Vec<usize> = (0..4)
            .filter(|l| begin[layer(*l)] != end[layer(*l)])
            .collect();
        assert_eq!(moved.len(), 1);
        dropped.insert(moved[0]);
        assert!((0..12).chain(92..98).all(|i| begin[i] != end[i]));
    }
    assert!(
        dropped.len() > 2,
        "the layers change from step to step: {dropped:?}"
    );
    let (_, report) = run(mezo().init().unwrap(), 1);
    assert_eq!(report.swept, 3 * 98);
    let all = zo_optim::lezo()
        .with_mask(RandomLayers::new().with_drop(1.0))
        .init()
        .unwrap();
    assert_eq!(run(all, 1).1.swept, 3 * 18);
    // Every weight three times, except for the blocks' last move, which is the update of all.
    let after = block_wise()
        .with_mask(Blocks::new().with_order(BlockOrder::AllAfter))
        .init()
        .unwrap();
    assert_eq!(run(after, 1).1.swept, 3 * (98 - 18) + 2 * 18 + 98);
    let at_once = block_wise()
        .with_mask(Blocks::new().with_order(BlockOrder::AllAtOnce))
        .init()
        .unwrap();
    assert_eq!(run(at_once, 1).1.swept, 3 * 98);
}

/// CurvZO's scores: moving averages of `(g / rms(g))^2 mean(z_i^2)`, the mean over the elements of each tensor that took part.
#[test]
fn curvzo_scores_are_the_formula() {
    let config = curvzo()
        .with_mask(
            CurvatureSampling::new()
                .with_budget(0.5)
                .with_adapt_every(0),
        )
        .with_seed(3);
    let mut optimizer = config.init().unwrap();
    let mut module = toy(&Device::default());
    let mut expected = std::collections::BTreeMap::<String, f64>::new();
    let mut mean_square = None;
    for _ in 0..5 {
        let before = module.clone();
        let loss = |toy: &Toy| Target::Ellipsoid.loss(toy);
        let (next, report) = optimizer.step(1e-2, module, loss).unwrap();
        let square = report.queries[0].projected_gradient.powi(2);
        let mean = mean_square.map_or(square, |mean| 0.9 * mean + 0.1 * square);
        mean_square = Some(mean);
        let seed = report.queries[0].direction.terms()[0].seed;
        let (old, new) = (flat(&before), flat(&next));
        let mut first = 0;
        for tensor in tensors(&next, &burn::module::ParamGroup::all()).unwrap() {
            let n = tensor.elements();
            if old[first..first + n] != new[first..first + n] {
                let z = |i| f64::from(noise::value(Noise::Gaussian, seed, tensor.key, i));
                let energy = (0..n as u64).map(|i| z(i).powi(2)).sum::<f64>() / n as f64;
                let score = expected.entry(tensor.path.clone()).or_insert(1.0);
                *score = 0.9 * *score + 0.1 * square / mean * energy;
            }
            first += n;
        }
        module = next;
    }
    let record = optimizer.record();
    let scores = record.parts["mask"]["scores"].as_object().unwrap();
    assert!(scores.len() > 3 && scores.len() == expected.len());
    for (path, expected) in expected {
        let score = scores[&path].as_f64().unwrap();
        assert!(
            (score - expected).abs() < 1e-9 * expected,
            "{path}: {score} {expected}"
        );
    }
}

/// Elements that are masked out keep their bits; the share that moves is the one asked for.
#[test]
fn sparsity_moves_the_elements_it_should() {
    let begin = flat(&toy(&Device::default()));
    let moved = |config: Method| -> Vec<usize> {
        let (end, _) = run(config.init().unwrap(), 1);
        (0..98)
            .filter(|i| (begin[*i] - end[*i]).abs() > 1e-6)
            .collect()
    };
    let config = |kind, sparsity| {
        sparse_random().with_mask(Sparse::new().with_kind(kind).with_sparsity(sparsity))
    };
    let global = moved(config(SparseKind::GlobalMagnitude, 0.5));
    let mut sorted: Vec<f64> = begin.iter().map(|w| w.abs()).collect();
    sorted.sort_by(f64::total_cmp);
    let expected: Vec<usize> = (0..98).filter(|i| begin[*i].abs() > sorted[48]).collect();
    assert_eq!(global, expected);
    // Per tensor: of the 12 embeddings the 3 largest, or the 3 smallest.
    let mut embed: Vec<usize> = (0..12).collect();
    embed.sort_by(|a, b| begin[*a].abs().total_cmp(&begin[*b].abs()));
    let in_embed = |moved: Vec<usize>| {
        let mut moved: Vec<usize> = moved.into_iter().filter(|i| *i < 12).collect();
        moved.sort_unstable();
        moved
    };
    let sort = |part: &[usize]| {
        let mut part = part.to_vec();
        part.sort_unstable();
        part
    };
    assert_eq!(
        in_embed(moved(config(SparseKind::Magnitude, 0.75))),
        sort(&embed[9..])
    );
    assert_eq!(
        in_embed(moved(config(SparseKind::SmallWeights, 0.75))),
        sort(&embed[..3])
    );
}

/// Displaced weights by magnitude carry marks in their lowest bits, which an update that ends there has to remove.
#[test]
fn a_conservative_step_that_stays_where_it_looked_removes_the_marks_of_magnitude_masks() {
    fn passes(mask: impl SparsityMask + 'static) -> usize {
        let optimizer = conservative().with_mask(mask).init();
        // L(theta + eps z), L(theta - eps z), L(theta), one step back, one step ahead: the best.
        let mut losses = [2.0, 1.0, 3.0, 2.5, 0.5].into_iter();
        let objective = |_: &Toy| losses.next().unwrap();
        let module = toy(&Device::default());
        optimizer
            .unwrap()
            .step(1e-3, module, objective)
            .unwrap()
            .1
            .passes
    }
    assert_eq!(passes(Dense), 5);
    let by_magnitude = Sparse::new().with_kind(SparseKind::Magnitude);
    assert_eq!(passes(by_magnitude), 6);
}

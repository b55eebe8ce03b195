//! A learning rate found by forwards, on a bowl whose derivatives are known.

use std::cell::Cell;
use std::convert::Infallible;

use burn::module::{Module, Param, ParamGroup};
use burn::tensor::{Device, Tensor};
use serde_json::json;
use zo_optim::prelude::*;
use zo_optim::trainer::{
    Evaluation, Event, FoundRate, RateSearch, RateWarning, SearchError, Task, TrainerConfig,
    TrainerError, find_epsilon, find_rate, fit, task,
};

use crate::{config, net, quiet};

/// Weights of which each adds the square of itself to the loss.
#[derive(Module, Debug)]
struct Bowl {
    weights: Param<Tensor<1>>,
}

const N: usize = 256;

fn bowl() -> Bowl {
    let weights = Tensor::full([N], 0.5, &Device::flex());
    Bowl {
        weights: Param::from_tensor(weights),
    }
}

fn search(steps: f64) -> RateSearch {
    RateSearch {
        steps,
        epsilon: 1e-3,
        trained: ParamGroup::all(),
        seed: 3,
    }
}

/// A search for a method on a bowl, with the forwards that the objective has counted. `scale` multiplies the loss.
fn found(
    method: &Method,
    steps: f64,
    scale: f64,
) -> (Result<FoundRate, SearchError<Infallible>>, usize) {
    let forwards = Cell::new(0);
    let objective = |bowl: &Bowl, (): &()| {
        forwards.set(forwards.get() + 1);
        bowl.weights.val().square().sum() * scale
    };
    let mut task = task(
        json!(null),
        |_| (),
        objective,
        |_: &Bowl| Evaluation::default(),
    );
    let begin = || Ok((bowl(), method.init()?));
    let found = find_rate(begin, &mut task, search(steps));
    drop(task);
    (found, forwards.get())
}

#[test]
fn derivatives_sizes_and_forwards_are_those_of_the_bowl() {
    let (found, counted) = found(&mezo().with_seed(5), 1000.0, 1.0);
    let found = found.unwrap();
    assert_eq!(found.forwards, counted);
    assert!(counted <= 100, "{counted} forwards");
    assert!((found.loss - 64.0).abs() < 1e-3, "{found:?}");
    // The gradient is 1 everywhere, the Hessian twice the identity. 16 probes: four standard errors.
    assert!((found.gradient_rms / 16.0 - 1.0).abs() < 0.7, "{found:?}");
    let [curvature, error] = found.curvature;
    let off = (curvature - 2.0 * N as f64).abs();
    assert!(off < 4.0 * error.max(4.0), "{found:?}");
    assert_eq!(found.weight_rms, 0.5);
    // 6 steps along Gaussian directions.
    let share = found.step_rms / 16.0;
    assert!((0.1..2.0).contains(&share), "{found:?}");
    // Noise adds its square to the loss, and to the square of the derivatives 4 times as much.
    for place in &found.drift {
        let added = N as f64 * place.distance.powi(2);
        assert!(((place.loss - 64.0) / added - 1.0).abs() < 0.5, "{found:?}");
    }
    // The definitions of docs/src/learning-rate.md.
    let bend = curvature + error;
    let distance = (found.loss / bend).sqrt();
    assert!((found.drift[0].distance / distance - 1.0).abs() < 1e-9);
    let heat = distance / (1000f64.sqrt() * found.step_rms);
    assert!((found.limit_heat / heat - 1.0).abs() < 1e-9, "{found:?}");
    assert!(found.limit_drift <= found.limit_heat);
    let size = 2.0 * 0.5 / (1000f64.sqrt() * found.step_rms);
    assert!((found.limit_size / size - 1.0).abs() < 1e-9, "{found:?}");
    let saturated = 2.0 * found.loss / (N as f64 * found.step_rms * found.gradient_rms);
    assert!(
        (found.saturated / saturated - 1.0).abs() < 1e-9,
        "{found:?}"
    );
    let lr = found.limit_drift.min(size).max(saturated);
    let lr = lr.min(found.limit_climb);
    assert!((found.lr / lr - 1.0).abs() < 1e-9, "{found:?}");
}

#[test]
fn a_longer_run_is_slower_and_searches_longer() {
    let searched = [100.0, 10_000.0].map(|steps| {
        let (found, counted) = found(&mezo(), steps, 1.0);
        (found.unwrap(), counted)
    });
    let [(short, of_short), (long, of_long)] = searched;
    assert!(of_short <= 100 && (300..=1000).contains(&of_long));
    let slower = short.limit_heat / long.limit_heat / 10.0;
    assert!((0.7..1.4).contains(&slower), "{slower}");
    // More probes know better.
    assert!(long.curvature[1] < short.curvature[1]);
}

/// A method that divides by the size of its losses has a rate that does not follow their scale; MeZO's is inverse to it.
#[test]
fn the_rate_is_in_the_methods_own_units() {
    let rate = |method: &Method, scale| found(method, 1000.0, scale).0.unwrap().lr;
    let [one, ten] = [1.0, 10.0].map(|scale| rate(&mezo(), scale));
    assert!((one / ten / 10.0 - 1.0).abs() < 0.02, "{one} {ten}");
    let fzoo = zo_optim::registry()
        .method(&json!({ "method": "fzoo" }))
        .unwrap();
    let [one, ten] = [1.0, 10.0].map(|scale| rate(&fzoo, scale));
    assert!((one / ten - 1.0).abs() < 0.2, "{one} {ten}");
}

#[test]
fn the_rate_that_is_found_trains() {
    let (found, _) = found(&mezo(), 300.0, 1.0);
    let mut optimizer = mezo().init().unwrap();
    let mut bowl = bowl();
    for _ in 0..300 {
        let objective = |bowl: &Bowl| bowl.weights.val().square().sum();
        let lr = found.as_ref().unwrap().lr;
        (bowl, _) = optimizer.step(lr, bowl, objective).unwrap();
    }
    let loss: f32 = bowl.weights.val().square().sum().into_scalar();
    assert!(loss < 32.0, "64 became {loss}");
}

#[test]
fn what_cannot_be_searched_is_refused() {
    let error = found(&mezo(), 100.0, f64::NAN).0.unwrap_err();
    assert!(matches!(error, SearchError::NotFinite), "{error}");
    let error = found(&mezo(), 100.0, 0.0).0.unwrap_err();
    let text = error.to_string();
    let constant = matches!(error, SearchError::Flat { .. }) || text.contains("does not depend");
    assert!(constant, "{text}");
    let mut rows = crate::Rows { until: Some(0) };
    let begin = || Ok((net(1), mezo().init()?));
    let error = find_rate(begin, &mut rows, search(100.0)).unwrap_err();
    assert_eq!(error.to_string(), "there are no more rows");
    let begin = || Err::<(Bowl, zo_optim::ZeroOrder), _>("no such folder".into());
    let mut none = task(
        json!(null),
        |_| (),
        |bowl: &Bowl, (): &()| bowl.weights.val().sum(),
        |_: &Bowl| Evaluation::default(),
    );
    let error = find_rate(begin, &mut none, search(100.0)).unwrap_err();
    assert_eq!(error.to_string(), "no such folder");
}

#[test]
fn a_search_survives_json() {
    let mut before = found(&mezo(), 1000.0, 1.0).0.unwrap();
    before.limit_climb = f64::INFINITY;
    let json = serde_json::to_string(&before).unwrap();
    let after: FoundRate = serde_json::from_str(&json).unwrap();
    assert_eq!(after.limit_climb, f64::INFINITY);
    assert_eq!(after.climb.len(), before.climb.len());
}

/// A rate a hundred times too high ends the run within 20 steps, with the remedy.
#[test]
fn a_rate_that_is_far_too_high_ends_the_run() {
    let lr = 100.0 * found(&mezo(), 300.0, 1.0).0.unwrap().lr;
    let objective = |bowl: &Bowl, (): &()| bowl.weights.val().square().sum();
    let evaluate = |bowl: &Bowl| {
        let loss = f64::from(bowl.weights.val().square().sum().into_scalar::<f32>());
        Evaluation {
            score: -loss,
            loss,
            details: (),
        }
    };
    let mut task = task(json!(null), |_| (), objective, evaluate);
    let config = TrainerConfig { lr, ..config(300) };
    let never = std::sync::atomic::AtomicBool::new(false);
    let mut optim = mezo().init().unwrap();
    let failed = fit(bowl(), &mut optim, &mut task, &config, &never, |_| Ok(())).unwrap_err();
    assert!(failed.step <= 20, "{}", failed.step);
    assert!(failed.error.is_divergence());
    let TrainerError::RateTooHigh { from, to, .. } = failed.error else {
        panic!("{}", failed.error)
    };
    assert!(from == 64.0 && to > 192.0, "{from} {to}");
    assert!(failed.error.to_string().contains("try a tenth of it"));
}

/// Steps that move the weights by more than their size end the run if the loss is none the better, also where it cannot rise.
#[test]
fn weights_that_are_lost_end_the_run() {
    // The loss only knows the direction of the weights.
    let objective = |bowl: &Bowl, (): &()| {
        let w = bowl.weights.val();
        let length = w.clone().square().sum().sqrt();
        let first = w.slice(0..1);
        first.div(length) * 0.5 + 1.0
    };
    let ends = |lr: f64| {
        let evaluate = |_: &Bowl| Evaluation {
            loss: 1.03,
            ..Evaluation::default()
        };
        let mut task = task(json!(null), |_| (), objective, evaluate);
        let config = TrainerConfig { lr, ..config(30) };
        let never = std::sync::atomic::AtomicBool::new(false);
        let mut optim = mezo().init().unwrap();
        fit(bowl(), &mut optim, &mut task, &config, &never, |_| Ok(()))
    };
    let failed = ends(300.0).unwrap_err();
    let TrainerError::WeightsLost {
        step: 20, moved, ..
    } = failed.error
    else {
        panic!("{}", failed.error)
    };
    assert!(moved > 1.0 && failed.error.is_divergence());
    ends(0.01).unwrap();
}

/// A rate of 0 does not move the loss beyond its noise: said once, after 400 steps.
#[test]
fn a_rate_that_is_far_too_low_is_mentioned() {
    let mut warned = Vec::new();
    let observe = |event: crate::Told<'_>| {
        if let Event::Warned { step, warning } = event {
            warned.push((step, warning));
        }
        Ok(())
    };
    let config = TrainerConfig {
        lr: 0.0,
        ..config(700)
    };
    crate::run(net(1), &mut mezo().init().unwrap(), &config, observe).unwrap();
    let [(400, RateWarning::TooLow { steps: 400, .. })] = warned[..] else {
        panic!("{warned:?}")
    };
    // A run that learns hears nothing.
    crate::run(
        net(1),
        &mut mezo().init().unwrap(),
        &crate::config(700),
        quiet,
    )
    .unwrap();
    let mut rows = crate::Rows::default();
    assert!(rows.evaluate(&net(1)).unwrap().loss.is_finite());
}

/// Of a bowl, any radius gives the same derivatives, up to rounding; of a loss that is rough below a radius and bends above another, the one
/// between.
#[test]
fn the_radius_is_where_derivatives_agree() {
    let rough = |bowl: &Bowl, (): &()| {
        let w = bowl.weights.val();
        let waves = (w.clone() * 3e5).sin().sum() * 1e-3;
        w.clone().sum() + w.powi_scalar(4).sum() * 4.0 + waves
    };
    let mut task = task(json!(null), |_| (), rough, |_: &Bowl| Evaluation::default());
    let found = find_epsilon(|| Ok(bowl()), &mut task, &ParamGroup::all(), 3).unwrap();
    assert_eq!(found.forwards, 48);
    assert_eq!(found.epsilon, 1e-2, "{found:?}");
    let rough = found.points.iter().find(|p| p.epsilon == 1e-4).unwrap();
    let bent = found.points.iter().find(|p| p.epsilon == 1e-1).unwrap();
    assert!(
        rough.disagreement > 0.2 && bent.disagreement > 0.2,
        "{found:?}"
    );
}

#[test]
fn a_loss_that_nothing_changes_has_no_radius() {
    let still = |bowl: &Bowl, (): &()| bowl.weights.val().sum() * 0.0;
    let mut task = task(json!(null), |_| (), still, |_: &Bowl| Evaluation::default());
    let found = find_epsilon(|| Ok(bowl()), &mut task, &ParamGroup::all(), 3);
    let text = found.unwrap_err().to_string();
    assert!(text.contains("does not"), "{text}");
}

#[derive(Module, Debug)]
struct Mlp {
    hidden: burn::nn::Linear,
    output: burn::nn::Linear,
}

impl Mlp {
    /// The mean cross-entropy on points of a grid of 40 by 40: is one inside the circle?
    fn loss(&self, numbers: &[usize]) -> Tensor<1> {
        let place = |n: &usize| [n % 40, n / 40].map(|i| i as f32 / 10.0 - 2.0);
        let points: Vec<[f32; 2]> = numbers.iter().map(place).collect();
        let sides = points
            .iter()
            .map(|[x, y]| if x.hypot(*y) < 1.4 { 1.0 } else { -1.0 });
        let (rows, sides) = (points.len(), sides.collect::<Vec<f32>>());
        let device = Device::flex();
        let tensor = |values, shape: Vec<usize>| {
            Tensor::<2>::from_data(burn::tensor::TensorData::new(values, shape), &device)
        };
        let points = tensor(points.concat(), vec![rows, 2]);
        let hidden = burn::tensor::activation::tanh(self.hidden.forward(points));
        let logits = self.output.forward(hidden);
        // ln(1 + exp(-margin))
        let margin = logits * tensor(sides, vec![rows, 1]);
        ((-margin).exp() + 1.0).log().mean()
    }
}

fn mlp() -> Mlp {
    let device = Device::flex();
    let noise = |seed, shape: [usize; 2], scale: f32| {
        Tensor::<2>::from_data(crate::noise(seed, 7, &shape), &device) * (2.0 * scale)
    };
    let linear = |seed, [inputs, outputs]: [usize; 2]| {
        let mut linear = burn::nn::LinearConfig::new(inputs, outputs).init(&device);
        let scale = (inputs as f32).sqrt().recip();
        linear.weight = Param::from_tensor(noise(seed, [inputs, outputs], scale));
        linear.bias = Some(Param::from_tensor(Tensor::zeros([outputs], &device)));
        linear
    };
    Mlp {
        hidden: linear(1, [2, 16]),
        output: linear(2, [16, 1]),
    }
}

/// Of seven rates three times apart, the one that is found comes within a tenth of the best, on a network that learns from large batches.
#[test]
fn a_small_classifier_gets_a_good_rate() {
    const STEPS: usize = 1000;
    let batch = |step: usize| -> Vec<usize> {
        (64 * step..64 * step + 64)
            .map(|i| i * 787 % 1600)
            .collect()
    };
    let all: Vec<usize> = (0..1600).collect();
    let mut rows = task(
        json!(null),
        batch,
        |mlp: &Mlp, batch: &Vec<usize>| mlp.loss(batch),
        |_: &Mlp| Evaluation::default(),
    );
    let begin = || Ok((mlp(), mezo().init()?));
    let found = find_rate(begin, &mut rows, search(STEPS as f64)).unwrap();
    let ends = |lr: f64| {
        let mut optimizer = mezo().init().unwrap();
        let mut model = mlp();
        for step in 0..STEPS {
            let batch = batch(step);
            match optimizer.step(lr, model, |mlp: &Mlp| mlp.loss(&batch)) {
                Ok((stepped, _)) => model = stepped,
                Err(_) => return f64::INFINITY,
            }
        }
        f64::from(model.loss(&all).into_scalar::<f32>())
    };
    let grid: Vec<(f64, f64)> = (-3..=3)
        .map(|power| found.lr * 3f64.powi(power))
        .map(|lr| (lr, ends(lr)))
        .collect();
    let best = grid
        .iter()
        .map(|(_, loss)| *loss)
        .fold(f64::INFINITY, f64::min);
    println!("{found:?}\n{grid:?}");
    assert!(grid[3].1 <= 1.1 * best, "{grid:?}");
}

//! HiZOO: noise scaled by an estimate of the Hessian's diagonal from three losses.
//!
//! ```text
//! z' = z / sqrt(H)                                        g = (L(theta + eps z') - L(theta - eps z')) / (2 eps)
//! theta <- theta - lr g z'
//! h = |L(theta + eps z') + L(theta - eps z') - 2 L(theta)| / (2 eps^2)
//! H <- (1 - s) H + s h H z^2                              with q queries: the mean of h z^2
//! ```
//!
//! Zhao et al. 2025 (arXiv 2402.15173, Algorithm 1). Weights along which the loss curves are moved less, in the probe and in the update. H begins at 1.
//! The paper's step is along `z / sqrt(H)` with the H after this step's update of it, which depends on the z of the step; here it is
//! along the direction that was probed, so that its mean is `H^-1 grad L`.
//!
//! H is one f32 number a weight, or, with a window, rebuilt in each pass from the seeds and scalars of the last K steps: no buffer, at the
//! cost of K more noise vectors a pass. Until step K both are the same.

use std::collections::{BTreeMap, VecDeque};

use burn::tensor::{DType, TensorData};
use derive_setters::Setters;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use zo_core::noise::{Curvature, Diagonal, Draw, Factor};
use zo_core::{
    Buffers, ConfigError, Direction, Method, Needs, Noise, Observation, PerturbationSampler,
    RecordError, SampleContext, TensorKey, ZoError, from_record,
};

/// HiZOO with H in a buffer.
pub fn hizoo() -> Method {
    Method::new().with_noise(Hizoo::new())
}

/// HiZOO with H rebuilt from seeds.
pub fn hizoo_window() -> Method {
    Method::new().with_noise(HizooWindow::new())
}

/// Gaussian noise scaled by a curvature that is kept in a buffer: 4 bytes for each weight that moves, and while a step learns two numbers
/// for each element of the largest tensor.
#[derive(Debug, Setters, Serialize, Deserialize)]
#[setters(prefix = "with_")]
pub struct Hizoo {
    /// How much a step counts, s, in (0, 1). Default 1e-6 (the paper: 1e-8 to 1e-6).
    pub smoothing: f64,
    #[serde(skip)]
    #[setters(skip)]
    here: Here,
    #[serde(skip)]
    #[setters(skip)]
    diagonal: Diagonal,
}

/// The same, the curvature being rebuilt from the seeds of the last steps.
#[derive(Debug, Clone, Setters, Serialize, Deserialize)]
#[setters(prefix = "with_")]
pub struct HizooWindow {
    /// How much a step counts, s, in (0, 1). Default 1e-6.
    pub smoothing: f64,
    /// Steps K in the window, at least 1. Default 16.
    pub window: usize,
    #[serde(skip)]
    #[setters(skip)]
    here: Here,
    /// What each of them says, the oldest first.
    #[serde(skip)]
    #[setters(skip)]
    past: VecDeque<Factor>,
}

/// What is known at the point where a step begins.
#[derive(Debug, Clone, Copy, Default)]
struct Here {
    loss: f64,
    epsilon: f64,
}

/// A clone has a buffer of its own.
impl Clone for Hizoo {
    fn clone(&self) -> Self {
        Self {
            smoothing: self.smoothing,
            here: self.here,
            diagonal: self.diagonal.copied(),
        }
    }
}

impl Default for Hizoo {
    fn default() -> Self {
        Self {
            smoothing: 1e-6,
            here: Here::default(),
            diagonal: Diagonal::default(),
        }
    }
}

impl Default for HizooWindow {
    fn default() -> Self {
        Self {
            smoothing: 1e-6,
            window: 16,
            here: Here::default(),
            past: VecDeque::new(),
        }
    }
}

impl Hizoo {
    /// With the defaults.
    pub fn new() -> Self {
        Self::default()
    }
}

impl HizooWindow {
    /// With the defaults.
    pub fn new() -> Self {
        Self::default()
    }
}

impl Here {
    fn look(&mut self, query: &mut SampleContext<'_>) -> Result<(), ZoError> {
        self.loss = query.loss_here()?;
        self.epsilon = query.epsilon();
        Ok(())
    }

    /// What a step says of the curvature.
    fn learn(&self, smoothing: f64, observation: &Observation<'_>) -> Factor {
        let share = smoothing / observation.queries.len().max(1) as f64;
        let squares = observation.queries.iter().map(|query| {
            let bend = query.loss_plus + query.loss_other - 2.0 * self.loss;
            let curvature = bend.abs() / (2.0 * self.epsilon.powi(2));
            (share * curvature, Draw::of(&query.direction))
        });
        let moving = moving(observation).map(|(key, _)| key.0).collect();
        Factor {
            keep: 1.0 - smoothing,
            squares: squares.filter(|(weight, _)| weight.is_finite()).collect(),
            tensors: Some(moving),
        }
    }
}

/// The tensors that moved, each with its number of elements.
fn moving<'a>(observation: &Observation<'a>) -> impl Iterator<Item = (TensorKey, usize)> + 'a {
    let Observation {
        tensors, selection, ..
    } = *observation;
    let moves = move |(number, tensor): &(usize, &zo_core::TensorInfo)| {
        tensor.trainable && selection.get(*number).is_some()
    };
    let tensors = tensors.iter().enumerate().filter(moves);
    tensors.map(|(_, tensor)| (tensor.key, tensor.elements()))
}

fn check(smoothing: f64) -> Result<(), ConfigError> {
    let valid = smoothing > 0.0 && smoothing < 1.0;
    ConfigError::check("smoothing", smoothing, valid, "above 0 and below 1")
}

impl PerturbationSampler for Hizoo {
    fn sample(&mut self, query: &mut SampleContext<'_>) -> Result<Direction, ZoError> {
        self.here.look(query)?;
        let curvature = self.diagonal.curvature();
        let seed = query.seed();
        Ok(Direction::scaled_noise(Noise::Gaussian, seed, &curvature))
    }

    fn observe(&mut self, observation: &Observation<'_>) {
        let factor = self.here.learn(self.smoothing, observation);
        self.diagonal.multiply(&factor, moving(observation));
    }

    fn needs(&self) -> Needs {
        Needs {
            buffers: true,
            curvature: true,
            ..Needs::default()
        }
    }

    fn validate(&self) -> Result<(), ConfigError> {
        check(self.smoothing)
    }

    fn forwards_in_step(&self) -> usize {
        1
    }

    fn record(&self) -> Value {
        let (steps, least) = self.diagonal.state();
        json!({ "steps": steps, "least": least })
    }

    fn load_record(&mut self, record: Value) -> Result<(), RecordError> {
        let Steps { steps, least } = from_record("noise", record)?;
        self.diagonal = Diagonal::new(steps, least, []);
        Ok(())
    }

    fn buffers(&self) -> Buffers {
        let values = self.diagonal.all();
        let named = |(key, h): (TensorKey, Vec<f32>)| {
            let shape = [h.len()];
            (format!("{:016x}", key.0), TensorData::new(h, shape))
        };
        values.into_iter().map(named).collect()
    }

    fn load_buffers(&mut self, buffers: Buffers) -> Result<(), RecordError> {
        let mut tensors = BTreeMap::new();
        for (name, data) in buffers {
            let expected = "16 hexadecimal digits with a list of positive f32";
            let mismatch =
                || RecordError::mismatch("noise's buffer", format!("`{name}`"), expected);
            let key = u64::from_str_radix(&name, 16).map_err(|_| mismatch())?;
            if data.dtype() != DType::F32 || data.shape().num_dims() != 1 {
                return Err(mismatch());
            }
            let h: Vec<f32> = data.iter::<f32>().collect();
            if h.iter().any(|h| !(*h > 0.0 && h.is_finite())) {
                return Err(mismatch());
            }
            tensors.insert(key, h);
        }
        let (steps, least) = self.diagonal.state();
        let tensors = tensors.into_iter().map(|(key, h)| (TensorKey(key), h));
        self.diagonal = Diagonal::new(steps, least, tensors);
        Ok(())
    }
}

#[derive(Deserialize)]
struct Steps {
    steps: u64,
    least: f64,
}

impl PerturbationSampler for HizooWindow {
    fn sample(&mut self, query: &mut SampleContext<'_>) -> Result<Direction, ZoError> {
        self.here.look(query)?;
        let curvature = Curvature::from_seeds(self.past.iter().cloned());
        let seed = query.seed();
        Ok(Direction::scaled_noise(Noise::Gaussian, seed, &curvature))
    }

    fn observe(&mut self, observation: &Observation<'_>) {
        self.past
            .push_back(self.here.learn(self.smoothing, observation));
        if self.past.len() > self.window {
            self.past.pop_front();
        }
    }

    fn needs(&self) -> Needs {
        Needs {
            curvature: true,
            ..Needs::default()
        }
    }

    fn validate(&self) -> Result<(), ConfigError> {
        check(self.smoothing)?;
        ConfigError::check("window", self.window, self.window > 0, "at least 1 step")
    }

    fn forwards_in_step(&self) -> usize {
        1
    }

    fn record(&self) -> Value {
        json!({ "past": self.past })
    }

    fn load_record(&mut self, record: Value) -> Result<(), RecordError> {
        #[derive(Deserialize)]
        struct Saved {
            past: VecDeque<Factor>,
        }
        self.past = from_record::<Saved>("noise", record)?.past;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use burn::module::{Module, Param};
    use burn::tensor::{Device, Tensor};
    use zo_core::ZerothOrderOptimizer;
    use zo_core::noise::value;

    use super::*;

    #[derive(Module, Debug)]
    struct Bowl {
        w: Param<Tensor<1>>,
    }

    const N: usize = 70;

    fn bowl() -> Bowl {
        let start = Tensor::<1>::ones([N], &Device::default());
        Bowl {
            w: Param::from_tensor(start),
        }
    }

    /// `1/2 sum_i a_i w_i^2`, with one direction in seven that curves a hundred times as much.
    fn loss(bowl: &Bowl) -> f64 {
        let w = values(bowl);
        let curves = |i: usize| if i.is_multiple_of(7) { 100.0 } else { 1.0 };
        let terms = w.iter().enumerate().map(|(i, w)| 0.5 * curves(i) * w * w);
        terms.sum()
    }

    fn values(bowl: &Bowl) -> Vec<f64> {
        bowl.w.val().into_data().iter::<f64>().collect()
    }

    /// The algorithm of the module's docs, on f64 numbers. Returns weights and H.
    fn by_hand(seeds: &[Vec<u64>], lr: f64, epsilon: f64, smoothing: f64) -> [Vec<f64>; 2] {
        let key = TensorKey::new("w");
        let (mut w, mut h) = (vec![1.0; N], vec![1.0; N]);
        let curves = |i: usize| if i.is_multiple_of(7) { 100.0 } else { 1.0 };
        let loss = |w: &[f64]| -> f64 {
            let terms = w.iter().enumerate().map(|(i, w)| 0.5 * curves(i) * w * w);
            terms.sum()
        };
        for seeds in seeds {
            let (mut step, mut learned) = (vec![0.0; N], vec![0.0; N]);
            let here = loss(&w);
            for seed in seeds {
                let z = |i: usize| f64::from(value(Noise::Gaussian, *seed, key, i as u64));
                let scaled: Vec<f64> = (0..N).map(|i| z(i) / f64::sqrt(h[i])).collect();
                let at = |sign: f64| -> f64 {
                    let moved = w.iter().zip(&scaled).map(|(w, z)| w + sign * epsilon * z);
                    loss(&moved.collect::<Vec<_>>())
                };
                let (plus, minus) = (at(1.0), at(-1.0));
                let g = (plus - minus) / (2.0 * epsilon);
                let bend = (plus + minus - 2.0 * here).abs() / (2.0 * epsilon * epsilon);
                for i in 0..N {
                    step[i] += g * scaled[i] / seeds.len() as f64;
                    learned[i] += bend * z(i) * z(i) / seeds.len() as f64;
                }
            }
            for i in 0..N {
                w[i] -= lr * step[i];
                h[i] *= 1.0 - smoothing + smoothing * learned[i];
            }
        }
        [w, h]
    }

    #[test]
    fn both_forms_are_the_algorithm() {
        let (lr, epsilon, smoothing) = (1e-3, 1e-2, 1e-3);
        for queries in [1, 3] {
            let forms = [
                Method::new().with_noise(Hizoo::new().with_smoothing(smoothing)),
                Method::new().with_noise(HizooWindow::new().with_smoothing(smoothing)),
            ];
            for method in forms {
                let method = method.with_epsilon(epsilon).with_queries(queries);
                assert_eq!(method.forwards(), 2 * queries + 1);
                let mut optim = method.init().unwrap();
                let (mut model, mut seeds) = (bowl(), Vec::new());
                for _ in 0..12 {
                    let (next, report) = optim.step(lr, model, loss).unwrap();
                    assert_eq!(report.forwards, 2 * queries + 1);
                    let of = |query: &zo_core::Query| query.direction.terms()[0].seed;
                    seeds.push(report.queries.iter().map(of).collect());
                    model = next;
                }
                let [expected, h] = by_hand(&seeds, lr, epsilon, smoothing);
                assert!(h[0] > 1.5, "{}", h[0]);
                for (w, expected) in values(&model).iter().zip(&expected) {
                    assert!((w - expected).abs() < 2e-3, "{w} {expected}");
                }
            }
        }
    }

    #[test]
    fn a_window_forgets() {
        let noise = HizooWindow::new().with_smoothing(1e-3).with_window(2);
        let mut optim = Method::new().with_noise(noise).init().unwrap();
        let mut model = bowl();
        for _ in 0..5 {
            model = optim.step(1e-3, model, loss).unwrap().0;
        }
        let past = &optim.record().parts["noise"]["past"];
        assert_eq!(past.as_array().unwrap().len(), 2);
    }

    #[test]
    fn a_clone_learns_by_itself() {
        let mut optim = hizoo().init().unwrap();
        let model = optim.step(1e-3, bowl(), loss).unwrap().0;
        let mut other = optim.clone();
        let before = optim.record();
        other.step(1e-3, model, loss).unwrap();
        assert_eq!(optim.record(), before);
        assert_ne!(other.record().buffers, before.buffers);
    }

    #[test]
    fn what_it_cannot_go_with_is_refused() {
        let one_sided = zo_core::Difference::OneSided;
        let refused = |method: Method| method.init().unwrap_err().to_string();
        let error = refused(hizoo().with_difference(one_sided));
        assert!(error.contains("not central"), "{error}");
        let error = refused(hizoo_window().with_mask(crate::Sparse::default()));
        assert!(error.contains("chooses elements"), "{error}");
        let error = refused(hizoo().with_update(crate::AdamWindow::new()));
        assert!(error.contains("past estimates"), "{error}");
        hizoo_window()
            .with_update(crate::AdamWindow::new())
            .init()
            .unwrap();
        let error = refused(Method::new().with_noise(Hizoo::new().with_smoothing(1.0)));
        assert!(error.contains("smoothing"), "{error}");
    }
}

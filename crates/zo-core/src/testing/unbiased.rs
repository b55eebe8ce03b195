//! Is the estimate the gradient on average?

use burn::tensor::Device;

use super::toy::{Target, Toy, toy};
use super::{Failure, ensure, flat};
use crate::optimizer::ZerothOrderOptimizer;
use crate::tensors::{TensorInfo, tensors};

/// How [`check_unbiased`] looks for a bias.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Unbiased {
    /// The function whose gradient is estimated. A central difference of the quadratics is exact.
    pub target: Target,
    /// Estimates, one for each seed. More of them find smaller biases. Default 20,000.
    pub runs: u64,
    /// The first seed; others make it another test. Default 0.
    pub first_seed: u64,
    /// Standard errors by which a coordinate's mean may be off. Default 5: a false alarm once in 17,000 checks of the 98 weights of a
    /// [`Toy`], if the means are normally distributed.
    pub standard_errors: f64,
}

impl Default for Unbiased {
    fn default() -> Self {
        Self {
            target: Target::Ellipsoid,
            runs: 20_000,
            first_seed: 0,
            standard_errors: 5.0,
        }
    }
}

/// One estimate of the gradient for each of `runs` seeds from `first_seed` on: the change of the weights of a [`toy`] in one step at learning
/// rate 1, with the sign turned.
///
/// # Errors
/// If a step fails.
pub fn estimates<O: ZerothOrderOptimizer>(
    mut make: impl FnMut(u64) -> O,
    options: &Unbiased,
) -> Result<Vec<Vec<f64>>, Failure> {
    let start = toy(&Device::default());
    let from = flat(&start);
    let target = options.target;
    let mut all = Vec::with_capacity(options.runs as usize);
    for seed in options.first_seed..options.first_seed + options.runs {
        let step = make(seed).step(1.0, start.clone(), |toy: &Toy| target.loss(toy));
        let (end, _) = step.map_err(|error| Failure {
            check: "a step",
            found: error.to_string(),
        })?;
        all.push(from.iter().zip(flat(&end)).map(|(a, b)| a - b).collect());
    }
    Ok(all)
}

/// Checks that the mean estimate of the optimizers `make(seed)`, which must take plain SGD steps, is the gradient times `factor`: 1 if the
/// estimate is unbiased, a tensor's probability of taking part if a mask does not correct for it.
///
/// # Errors
/// If a step fails, or if a coordinate is off by more than chance allows.
pub fn check_unbiased<O: ZerothOrderOptimizer>(
    make: impl FnMut(u64) -> O,
    options: &Unbiased,
    factor: impl Fn(&TensorInfo) -> f64,
) -> Result<(), Failure> {
    let estimates = estimates(make, options)?;
    let start = toy(&Device::default());
    let tensors = tensors(&start, &burn::module::ParamGroup::all()).map_err(|error| Failure {
        check: "the module",
        found: error.to_string(),
    })?;
    let of = tensors
        .iter()
        .flat_map(|tensor| (0..tensor.elements()).map(move |i| (tensor, i)));
    let gradient = options.target.gradient(&flat(&start));
    let n = estimates.len() as f64;
    for (i, ((tensor, element), gradient)) in of.zip(gradient).enumerate() {
        let expected = factor(tensor) * gradient;
        let mean = estimates.iter().map(|estimate| estimate[i]).sum::<f64>() / n;
        let square = |estimate: &Vec<f64>| (estimate[i] - mean).powi(2);
        let variance = estimates.iter().map(square).sum::<f64>() / (n - 1.0);
        // Weights are f32: a step of size s is off by 6e-8 of the weight or so.
        let error = (variance / n).sqrt() + 1e-7;
        let off = (mean - expected) / error;
        ensure(off.abs() <= options.standard_errors, "unbiased", || {
            format!(
                "the estimate of {}[{element}] is {mean:.5} on average over {n} steps, expected {expected:.5}: {off:.1} standard errors off",
                tensor.path
            )
        })?;
    }
    Ok(())
}

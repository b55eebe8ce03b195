//! Random weights, where only their number and shape matter: drawn on the device with the library's own noise, in their final dtype.

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{DType, Device, Shape, Tensor};
use zo_llm::{CausalLm, ConfigError, ModelConfig};
use zo_optim::backend::{Sweep, sweep};
use zo_optim::{Direction, Noise, TensorKey};

/// Standard deviation of the weights.
const STD: f64 = 0.02;

/// The seed of the weights: far from those of a run.
const SEED: u64 = u64::MAX;

/// `n` weights of N(0, 0.02^2).
pub fn weights(n: usize, dtype: DType, device: &Device) -> Tensor<1> {
    draw("weights", Tensor::zeros([n], (device, dtype)))
}

/// Noise in place of zeros: one pass, in place.
fn draw<const D: usize>(path: &str, zeros: Tensor<D>) -> Tensor<D> {
    let noise = Direction::noise(Noise::Gaussian, SEED).scaled(STD);
    let start = Sweep::new(TensorKey::new(path), 1.0, &Direction::zero(), &noise);
    sweep(zeros, start)
}

/// A model of these sizes with random weights, the scales of its normalizations 1, its biases 0. Nothing larger than a tensor is ever in
/// memory besides the model itself.
///
/// # Errors
/// If the sizes do not fit together.
pub fn random_model(
    config: &ModelConfig,
    dtype: DType,
    device: &Device,
) -> Result<CausalLm, ConfigError> {
    // Its parameters are lazy: each is replaced before a value is drawn.
    let model = CausalLm::new(config, device)?;
    Ok(model.map(&mut Draw {
        path: Vec::new(),
        dtype,
        device,
    }))
}

struct Draw<'a> {
    path: Vec<String>,
    dtype: DType,
    device: &'a Device,
}

impl ModuleMapper for Draw<'_> {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let (device, dtype) = (self.device, self.dtype);
        let scale = D == 1 && self.path.last().is_some_and(|name| name == "weight");
        // Weights stay for the whole run: a pool for transient buffers would waste memory on them.
        let tensor: Tensor<D> =
            device.memory_persistent_allocations(param.lazy_shape(), |shape: Shape| match scale {
                true => Tensor::ones(shape, (device, dtype)),
                false => Tensor::zeros(shape, (device, dtype)),
            });
        let tensor = match D {
            1 => tensor,
            _ => draw(&self.path.join("."), tensor),
        };
        let id = param.id;
        param.transform_for_load(tensor, id)
    }
}

#[cfg(test)]
mod tests {
    use burn::module::ModuleVisitor;
    use zo_llm::OptConfig;

    use super::*;

    #[test]
    fn models_are_drawn_by_path_in_their_dtype() {
        struct Check(Vec<String>, usize);
        impl ModuleVisitor for Check {
            fn enter_module(&mut self, name: &str, _: &str) {
                self.0.push(name.to_owned());
            }
            fn exit_module(&mut self, _: &str, _: &str) {
                self.0.pop();
            }
            fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
                self.1 += 1;
                assert_eq!(param.dtype(), DType::BF16);
                let values: Vec<f32> = param.val().into_data().iter::<f32>().collect();
                let path = self.0.join(".");
                let square = values.iter().map(|x| x * x).sum::<f32>() / values.len() as f32;
                let expected = match (D, path.ends_with("bias")) {
                    (1, true) => 0.0,
                    (1, false) => 1.0,
                    _ => STD as f32,
                };
                assert!(
                    (square.sqrt() - expected).abs() <= 0.1 * expected,
                    "{path}: {}",
                    square.sqrt()
                );
            }
        }
        let config = ModelConfig::Opt(OptConfig::new(100, 32, 2, 4, 16));
        let model = random_model(&config, DType::BF16, &Device::flex()).unwrap();
        let mut check = Check(Vec::new(), 0);
        model.visit(&mut check);
        // Two embeddings, the last normalization, and 16 in each of two layers.
        assert_eq!(check.1, 2 + 2 + 2 * 16);
        let wrong = ModelConfig::Opt(OptConfig::new(100, 32, 2, 5, 16));
        assert!(random_model(&wrong, DType::F32, &Device::flex()).is_err());
    }
}

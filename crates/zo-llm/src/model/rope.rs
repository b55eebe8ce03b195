//! Rotary positions (Su et al. 2021) as Hugging Face's Llama computes them: each element is paired with its
//! counterpart in the other half of the head, not with its neighbour.

use burn::tensor::{Device, Int, Tensor, TensorData};

use crate::model::config::{LlamaConfig, RopeScaling};
use crate::model::layers::{by_blocks, rows_of};

/// Angular frequency of each pair of elements, `[head_dim / 2]`, in a batch whose longest text has `longest` tokens. Everything is f32, as
/// in transformers.
pub(crate) fn inverse_frequencies(config: &LlamaConfig, longest: usize) -> Vec<f32> {
    let width = config.head_dim as f32;
    let plain = |theta: f32| -> Vec<f32> {
        (0..config.head_dim / 2)
            .map(|pair| 1.0 / theta.powf(2.0 * pair as f32 / width))
            .collect()
    };
    let theta = config.rope_theta as f32;
    match config.rope_scaling {
        None => plain(theta),
        Some(RopeScaling::Linear { factor }) => {
            let scaled = |frequency| frequency / factor as f32;
            plain(theta).into_iter().map(scaled).collect()
        }
        Some(RopeScaling::Dynamic { factor }) => {
            let positions = config.max_position_embeddings;
            let width = config.head_dim as f64;
            // A head of one pair turns at frequency 1, whatever the base.
            if longest <= positions || config.head_dim == 2 {
                return plain(theta);
            }
            let stretch = factor * longest as f64 / positions as f64 - (factor - 1.0);
            plain((config.rope_theta * stretch.powf(width / (width - 2.0))) as f32)
        }
        Some(RopeScaling::Llama3 {
            factor,
            low_freq_factor,
            high_freq_factor,
            original_max_position_embeddings,
        }) => {
            let original = original_max_position_embeddings as f32;
            let (low, high) = (low_freq_factor as f32, high_freq_factor as f32);
            let factor = factor as f32;
            let scaled = |frequency: f32| {
                let wavelength = std::f32::consts::TAU / frequency;
                if wavelength < original / high {
                    frequency
                } else if wavelength > original / low {
                    frequency / factor
                } else {
                    let smooth = (original / wavelength - low) / (high - low);
                    (1.0 - smooth) * frequency / factor + smooth * frequency
                }
            };
            plain(theta).into_iter().map(scaled).collect()
        }
        Some(RopeScaling::Yarn {
            factor,
            beta_fast,
            beta_slow,
            truncate,
            original_max_position_embeddings,
            ..
        }) => {
            // The pair that turns this many times in the original context.
            let pair = |turns: f64| {
                let original = original_max_position_embeddings as f64;
                let turns = (original / (turns * std::f64::consts::TAU)).ln();
                config.head_dim as f64 * turns / (2.0 * config.rope_theta.ln())
            };
            let (low, high) = (pair(beta_fast), pair(beta_slow));
            let (low, high) = match truncate {
                true => (low.floor(), high.ceil()),
                false => (low, high),
            };
            let (low, high) = (low.max(0.0), high.min(config.head_dim as f64 - 1.0));
            // A range without width would divide by zero.
            let high = if low == high { high + 0.001 } else { high };
            let scaled = |(pair, frequency): (usize, f32)| {
                let ramp = ((pair as f64 - low) / (high - low)).clamp(0.0, 1.0) as f32;
                frequency / factor as f32 * ramp + frequency * (1.0 - ramp)
            };
            plain(theta).into_iter().enumerate().map(scaled).collect()
        }
    }
}

/// The factor of cosines and sines.
fn amplitude(config: &LlamaConfig) -> f32 {
    match config.rope_scaling {
        Some(RopeScaling::Yarn {
            attention_factor, ..
        }) => attention_factor as f32,
        _ => 1.0,
    }
}

/// Cosines and sines of some positions, on a device.
pub(crate) struct Rope {
    cos: Tensor<2>,
    sin: Tensor<2>,
}

impl Rope {
    /// Tables `[positions, head_dim / 2]` for a batch whose longest text has `longest` tokens. They are computed on the host: some graphics drivers compute poor cosines for
    /// large angles.
    pub(crate) fn new(
        config: &LlamaConfig,
        positions: impl ExactSizeIterator<Item = usize>,
        longest: usize,
        device: &Device,
    ) -> Self {
        let frequencies = inverse_frequencies(config, longest);
        let amplitude = amplitude(config);
        let count = positions.len();
        let angles: Vec<f32> = positions
            .flat_map(|position| frequencies.iter().map(move |f| position as f32 * f))
            .collect();
        let table = |values: Vec<f32>| {
            Tensor::from_data(
                TensorData::new(values, [count, frequencies.len()]),
                (device, burn::tensor::DType::F32),
            )
        };
        Self {
            cos: table(angles.iter().map(|angle| amplitude * angle.cos()).collect()),
            sin: table(angles.iter().map(|angle| amplitude * angle.sin()).collect()),
        }
    }

    /// The rotation of sequences that start at the first position.
    pub(crate) fn in_order(&self) -> Rotation {
        let all = |table: &Tensor<2>| table.clone().unsqueeze();
        Rotation {
            cos: all(&self.cos),
            sin: all(&self.sin),
        }
    }

    /// The rotation of one token per sequence: the table has one position for each.
    pub(crate) fn each(&self) -> Rotation {
        let batch = |table: &Tensor<2>| {
            let [batch, half] = table.dims();
            table.clone().reshape([batch, 1, 1, half])
        };
        Rotation {
            cos: batch(&self.cos),
            sin: batch(&self.sin),
        }
    }

    /// The rotation of one position per sequence; `positions`, `[batch]`, are rows of the table.
    pub(crate) fn at(&self, positions: &Tensor<1, Int>) -> Rotation {
        let pick = |table: &Tensor<2>| {
            let rows = table.clone().select(0, positions.clone());
            let [batch, half] = rows.dims();
            rows.reshape([batch, 1, 1, half])
        };
        Rotation {
            cos: pick(&self.cos),
            sin: pick(&self.sin),
        }
    }
}

/// Cosines and sines, `[1, 1, seq, head_dim / 2]` or `[batch, 1, 1, head_dim / 2]`.
pub(crate) struct Rotation {
    cos: Tensor<4>,
    sin: Tensor<4>,
}

impl Rotation {
    /// Rotates each head of `x`, `[batch, heads, seq, head_dim]`, by its position. `x` may be a view; the result is contiguous.
    pub(crate) fn apply(&self, x: Tensor<4>) -> Tensor<4> {
        let [batch, .., width] = x.dims();
        // Rows with a rotation each are independent.
        let together = self.cos.dims()[0] != batch;
        by_blocks(batch, &x.device(), together, |rows| {
            let x = rows_of(&x, &rows);
            let [cos, sin] = [&self.cos, &self.sin].map(|factors| match together {
                true => factors.clone(),
                false => rows_of(factors, &rows),
            });
            let half = width / 2;
            let (low, high) = (x.clone().narrow(3, 0, half), x.narrow(3, half, half));
            let turned_low = low.clone() * cos.clone() - high.clone() * sin.clone();
            let turned_high = high * cos + low * sin;
            Tensor::cat(vec![turned_low, turned_high], 3)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn llama3_scaling_divides_long_wavelengths_only() {
        let mut config = LlamaConfig::new(97, 128, 48, 1, 1, 64);
        config.rope_theta = 500_000.0;
        let plain = inverse_frequencies(&config, 0);
        let scaling = RopeScaling::Llama3 {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_position_embeddings: 8192,
        };
        config.rope_scaling = Some(scaling);
        let scaled = inverse_frequencies(&config, 0);
        assert_eq!(plain.len(), 64);
        assert_eq!(scaled[0], plain[0]);
        assert_eq!(scaled[63], plain[63] / 8.0);
        let blended = plain
            .iter()
            .zip(&scaled)
            .filter(|(p, s)| *s < *p && **s > *p / 8.0)
            .count();
        assert!(blended > 0);
    }

    #[test]
    fn position_zero_is_the_identity_and_norms_are_kept() {
        let device = Device::default();
        let config = LlamaConfig::new(97, 8, 48, 1, 2, 64);
        let rope = Rope::new(&config, 0..2, 2, &device);
        let x: Vec<f32> = (0..16).map(|i| (i as f32).sin()).collect();
        let x = Tensor::<1>::from_floats(x.as_slice(), &device).reshape([1, 2, 2, 4]);
        let y = rope.in_order().apply(x.clone());
        let last = rope
            .at(&Tensor::from_ints([1], &device))
            .apply(x.clone().narrow(2, 1, 1));
        assert_eq!(last.to_data(), y.clone().narrow(2, 1, 1).to_data());
        let rows = |t: Tensor<4>| t.to_data().try_to_vec::<f32>().unwrap();
        let (x, y) = (rows(x), rows(y));
        assert_eq!(x[..4], y[..4]);
        assert_ne!(x[4..8], y[4..8]);
        let norm = |v: &[f32]| v.iter().map(|v| v * v).sum::<f32>();
        assert!((norm(&x[4..8]) - norm(&y[4..8])).abs() < 1e-6);
    }
}

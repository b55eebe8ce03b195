//! How large weights are, and how far they have moved.

use burn::module::{Module, ParamGroup};

use super::error::CheckpointError;
use super::weights::visit;

/// Weights of the tensors that train, and how many they stand for.
pub(super) struct Sample(Vec<(f64, Vec<f64>)>);

impl Sample {
    /// The first `count` weights of each tensor in `trained` that is not quantized.
    pub(super) fn of<M: Module>(
        module: &M,
        trained: &ParamGroup,
        count: usize,
    ) -> Result<Self, CheckpointError> {
        let mut all = Vec::new();
        visit(module, trained, &mut |parameter| {
            // Quantized weights have no first ones.
            if parameter.trains && parameter.dtype.is_float() {
                let size = parameter.shape.iter().product::<usize>();
                let values = parameter.values(Some(count))?;
                let values: Vec<f64> = values.iter::<f64>().collect();
                all.push((size as f64 / values.len().max(1) as f64, values));
            }
            Ok(())
        })?;
        Ok(Self(all))
    }

    /// The number of weights that the sample stands for.
    pub(super) fn count(&self) -> f64 {
        let counts = self
            .0
            .iter()
            .map(|(share, values)| share * values.len() as f64);
        counts.sum()
    }

    /// The root mean square of the weights that are not 0.
    pub(super) fn rms(&self) -> f64 {
        let (mut sum, mut count) = (0.0, 0.0);
        for (share, values) in &self.0 {
            for value in values.iter().filter(|value| **value != 0.0) {
                sum += share * value * value;
                count += share;
            }
        }
        if count > 0.0 {
            f64::sqrt(sum / count)
        } else {
            0.0
        }
    }

    /// The mean square of how far the weights are from those of `other`.
    pub(super) fn distance_squared(&self, other: &Self) -> f64 {
        let (mut sum, mut count) = (0.0, 0.0);
        for ((share, here), (_, there)) in self.0.iter().zip(&other.0) {
            let squares = here.iter().zip(there).map(|(a, b)| (a - b).powi(2));
            sum += share * squares.sum::<f64>();
            count += share * here.len() as f64;
        }
        if count > 0.0 { sum / count } else { 0.0 }
    }
}

//! AdaLeZO: layers drawn by how much they have moved the loss.

use derive_setters::Setters;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use zo_core::{
    Choice, ConfigError, Layers, Method, Observation, RecordError, SelectContext, Selection,
    SparsityMask, ZoError, from_record, share_of,
};

use crate::layers_of;

/// AdaLeZO: fresh noise on layers drawn by their past, SGD.
pub fn ada_lezo() -> Method {
    Method::new().with_mask(AdaptiveLayers::new())
}

/// Draws layers in proportion to their value (arXiv 2604.18264):
///
/// ```text
/// p = (1 - gamma) softmax((Q / max Q) / T) + gamma / L    K draws with replacement, n_l of them layer l
/// update of layer l scaled by n_l min(1 / (K p_l), C)
/// Q_l <- 0.9 Q_l + 0.1 |g|                                for the layers drawn
/// ```
///
/// Q is measured in units of its largest value, as the authors' code does: |g| scales with the loss, and a temperature does not. So no
/// layer is more than `e^(1/T)` times (5.3 at the default) as likely as another. While all of Q is 0, draws are uniform.
///
/// Without the clip the estimate is unbiased: `E[n_l] = K p_l`. With it, layer l gets `min(1, C K p_l)` of its gradient on average. Tensors
/// outside the layers always take part.
#[derive(Debug, Clone, Setters, Serialize, Deserialize)]
#[setters(prefix = "with_")]
pub struct AdaptiveLayers {
    /// Draws in a step, as a share of the layers: `K = max(1, floor(share L))`. Default 0.2.
    pub share: f64,
    /// The share gamma of uniform draws, from 0 to 1. Default 0.1 (the paper: 0 or 0.1).
    pub exploration: f64,
    /// The temperature T of the softmax. Default 0.6.
    pub temperature: f64,
    /// The bound C on `1 / (K p_l)`; `None` for no bound. Default 4 (the paper: 4 or 16).
    pub clip: Option<f64>,
    /// What counts as a layer. Default the numbered blocks.
    pub layers: Layers,
    /// Q, one for each layer.
    #[serde(skip)]
    #[setters(skip)]
    values: Vec<f64>,
    /// The layers drawn last.
    #[serde(skip)]
    #[setters(skip)]
    drawn: Vec<usize>,
}

impl Default for AdaptiveLayers {
    fn default() -> Self {
        Self {
            share: 0.2,
            exploration: 0.1,
            temperature: 0.6,
            clip: Some(4.0),
            layers: Layers::Blocks,
            values: Vec::new(),
            drawn: Vec::new(),
        }
    }
}

impl AdaptiveLayers {
    /// The paper's.
    pub fn new() -> Self {
        Self::default()
    }

    /// The probability of each layer in one draw.
    fn probabilities(&self) -> Vec<f64> {
        let largest = self.values.iter().copied().fold(0.0, f64::max);
        let unit = if largest > 0.0 { largest } else { 1.0 };
        let exps: Vec<f64> = (self.values.iter())
            .map(|q| ((q - largest) / unit / self.temperature).exp())
            .collect();
        let (sum, uniform) = (exps.iter().sum::<f64>(), 1.0 / exps.len() as f64);
        exps.iter()
            .map(|e| (1.0 - self.exploration) * e / sum + self.exploration * uniform)
            .collect()
    }
}

impl SparsityMask for AdaptiveLayers {
    fn select(&mut self, step: &mut SelectContext<'_>) -> Result<Selection, ZoError> {
        let (layer_of, count) = layers_of(self.name(), &self.layers, step.tensors())?;
        if self.values.is_empty() {
            self.values = vec![0.0; count];
        }
        if self.values.len() != count {
            let reason = format!(
                "it knows {} layers and the module has {count}: use the module it was trained with",
                self.values.len()
            );
            let parts = format!("the mask {} and this module", self.name());
            return Err(ConfigError::incompatible(parts, reason).into());
        }
        let p = self.probabilities();
        let draws = share_of(self.share, count).max(1);
        let mut times = vec![0usize; count];
        for _ in 0..draws {
            let mut left = step.uniform();
            let hit = p.iter().position(|p| {
                left -= p;
                left < 0.0
            });
            // Rounding can leave a little past the last one.
            times[hit.unwrap_or(count - 1)] += 1;
        }
        self.drawn = (0..count).filter(|layer| times[*layer] > 0).collect();
        let choose = |layer: &Option<usize>| match layer {
            None => Some(Choice::WHOLE),
            Some(layer) if times[*layer] == 0 => None,
            Some(layer) => {
                let weight =
                    (1.0 / (draws as f64 * p[*layer])).min(self.clip.unwrap_or(f64::INFINITY));
                Some(Choice::scaled(times[*layer] as f64 * weight))
            }
        };
        Ok(Selection(layer_of.iter().map(choose).collect()))
    }

    fn observe(&mut self, observation: &Observation<'_>) {
        let queries = observation.queries;
        let sum: f64 = queries
            .iter()
            .map(|query| query.projected_gradient.abs())
            .sum();
        let mean = sum / queries.len().max(1) as f64;
        for layer in &self.drawn {
            self.values[*layer] = 0.9 * self.values[*layer] + 0.1 * mean;
        }
    }

    fn validate(&self) -> Result<(), ConfigError> {
        let check =
            |name, value: f64, valid, expected| ConfigError::check(name, value, valid, expected);
        let positive = |value: f64| value > 0.0 && value.is_finite();
        let share = self.share > 0.0 && self.share <= 1.0;
        let exploration = (0.0..=1.0).contains(&self.exploration);
        let clip = self.clip.unwrap_or(1.0);
        check(
            "share",
            self.share,
            share,
            "a share of the layers, above 0 and at most 1",
        )?;
        check("exploration", self.exploration, exploration, "from 0 to 1")?;
        let temperature = self.temperature;
        check(
            "temperature",
            temperature,
            positive(temperature),
            "positive and finite",
        )?;
        check("clip", clip, positive(clip), "positive and finite, or none")
    }

    fn record(&self) -> Value {
        serde_json::json!({ "values": self.values })
    }

    fn load_record(&mut self, record: Value) -> Result<(), RecordError> {
        #[derive(serde::Deserialize)]
        struct Saved {
            values: Vec<f64>,
        }
        let values = from_record::<Saved>("mask", record)?.values;
        if let Some(bad) = values.iter().find(|q| !(**q >= 0.0 && q.is_finite())) {
            let (found, expected) = (
                format!("a layer of value {bad}"),
                "values that are finite and not negative",
            );
            return Err(RecordError::mismatch("mask", found, expected));
        }
        self.values = values;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use zo_core::testing::select;
    use zo_core::{Query, TensorInfo};

    use super::*;

    #[test]
    fn probabilities_mix_softmax_and_uniform() {
        let mut mask = AdaptiveLayers::new();
        // In units of the largest value, so the scale does not matter.
        for scale in [1e-9, 1.0, 15.0, 1e300] {
            mask.values = [0.0, 0.5, 1.0].map(|q| q * scale).to_vec();
            let x = [0.0, 0.5 / 0.6, 1.0 / 0.6].map(f64::exp);
            let expected = x.map(|e| 0.9 * e / x.iter().sum::<f64>() + 0.1 / 3.0);
            for (p, expected) in mask.probabilities().iter().zip(expected) {
                assert!((p - expected).abs() < 1e-12);
            }
        }
        mask.values = vec![0.0; 4];
        assert_eq!(mask.probabilities(), [0.25; 4]);
    }

    fn query(projected_gradient: f64) -> Query {
        Query {
            direction: zo_core::Direction::zero(),
            loss_plus: 0.0,
            loss_other: 0.0,
            projected_gradient,
        }
    }

    /// A moving average of |g|, whatever its sign, of the layers drawn.
    #[test]
    fn values_follow_the_magnitude_of_the_gradient() {
        let mut mask = AdaptiveLayers::new();
        mask.values = vec![2.0, 2.0];
        mask.drawn = vec![1];
        mask.observe(&Observation {
            tensors: &[],
            selection: &Selection(Vec::new()),
            queries: &[query(-3.0), query(5.0)],
        });
        assert_eq!(mask.values, [2.0, 0.9 * 2.0 + 0.1 * 4.0]);
    }

    /// At the size of real gradients (SmolLM2: 15) draws stay spread out, and the clip costs a layer what the documentation says.
    #[test]
    fn draws_do_not_collapse_at_large_gradients() {
        let layers = 30;
        let mut mask = AdaptiveLayers::new();
        let tensors: Vec<TensorInfo> = (0..layers)
            .map(|layer| {
                let id = burn::module::ParamId::new();
                let shape = burn::tensor::Shape::new([4]);
                let path = format!("layers.{layer}.weight");
                TensorInfo::new(&path, id, shape, burn::tensor::DType::F32)
            })
            .collect();
        let mut distinct = 0;
        for step in 0..200 {
            let selection = select(&mut mask, &tensors, step).unwrap();
            distinct += if step >= 100 { mask.drawn.len() } else { 0 };
            let g = 15.0 * (0.5 + (step * 37 % 101) as f64 / 101.0);
            mask.observe(&Observation {
                tensors: &tensors,
                selection: &selection,
                queries: &[query(g)],
            });
        }
        let distinct = distinct as f64 / 100.0;
        assert!(distinct >= 3.5, "{distinct} of 30 layers in 6 draws");
        let least = mask.probabilities().into_iter().fold(1.0, f64::min);
        let most = mask.probabilities().into_iter().fold(0.0, f64::max);
        assert!(most / least <= (1.0f64 / 0.6).exp(), "{most} {least}");
    }

    #[test]
    fn settings_are_checked() {
        let mask = AdaptiveLayers::new;
        for (bad, name) in [
            (mask().with_share(0.0), "share"),
            (mask().with_exploration(-0.1), "exploration"),
            (mask().with_exploration(1.1), "exploration"),
            (mask().with_temperature(0.0), "temperature"),
            (mask().with_clip(Some(f64::NAN)), "clip"),
        ] {
            let error = bad.validate().unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
        }
        // The paper's other value.
        assert!(mask().with_exploration(0.0).validate().is_ok());
    }
}

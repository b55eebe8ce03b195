//! AdaLeZO: layers drawn by how much they moved the loss before.

use serde_json::Value;
use zo_core::{
    Choice, ConfigError, Distribution, Layers, QueryReport, RecordError, Seeds, Selection, Sgd,
    SparsityMask, TensorInfo, Weights, ZeroOrder, ZoError, from_record,
};

use crate::layers_of;

/// AdaLeZO: fresh noise on layers drawn by their past, SGD.
pub type AdaLezo = ZeroOrder<Distribution, AdaptiveLayers, Sgd>;

zo_core::method_config! {
    /// Configuration of [`AdaLezo`].
    pub struct AdaLezoConfig {
        /// Draws in a step, as a share of the layers: `K = max(1, floor(share L))`. Default 0.2.
        #[config(default = 0.2)]
        pub share: f64,
        /// The share gamma of uniform draws. Default 0.1 (our choice: the paper's value was not at hand).
        #[config(default = 0.1)]
        pub exploration: f64,
        /// The temperature of the softmax. Default 0.6.
        #[config(default = 0.6)]
        pub temperature: f64,
        /// The bound C on `1 / (K p_l)`. Default 4 (the paper: 4 or 16).
        #[config(default = 4.0)]
        pub clip: f64,
        /// What counts as a layer. Default the numbered blocks.
        #[config(default = "Layers::Blocks")]
        pub layers: Layers,
    }
}

impl AdaLezoConfig {
    /// The mask.
    ///
    /// # Errors
    /// If a value is outside its range.
    pub fn mask(&self) -> Result<AdaptiveLayers, ConfigError> {
        let bad = |name, value: f64, expected| {
            let value = value.to_string();
            Err(ConfigError::Setting {
                name,
                value,
                expected,
            })
        };
        if !(self.share > 0.0 && self.share <= 1.0) {
            return bad(
                "share",
                self.share,
                "a share of the layers, above 0 and at most 1",
            );
        }
        if !(self.exploration > 0.0 && self.exploration <= 1.0) {
            return bad(
                "exploration",
                self.exploration,
                "above 0, so that every layer can be drawn, and at most 1",
            );
        }
        if !(self.temperature > 0.0 && self.temperature.is_finite()) {
            return bad("temperature", self.temperature, "positive and finite");
        }
        // Infinity is allowed: no clipping.
        if self.clip.is_nan() || self.clip <= 0.0 {
            return bad("clip", self.clip, "positive");
        }
        Ok(AdaptiveLayers {
            share: self.share,
            exploration: self.exploration,
            temperature: self.temperature,
            clip: self.clip,
            layers: self.layers.clone(),
            values: Vec::new(),
            drawn: Vec::new(),
        })
    }

    /// Builds the optimizer.
    ///
    /// # Errors
    /// If a value makes no sense.
    pub fn init(&self) -> Result<AdaLezo, ConfigError> {
        ZeroOrder::new(self.settings(), self.distribution, self.mask()?, Sgd)
    }
}

/// Draws layers in proportion to their value (arXiv 2604.18264):
///
/// ```text
/// p = (1 - gamma) softmax(Q / T) + gamma / L            K draws with replacement, n_l of them layer l
/// update of layer l scaled by n_l min(1 / (K p_l), C)
/// Q_l <- 0.9 Q_l + 0.1 |g|                              for the layers drawn
/// ```
///
/// Without the clip the estimate is unbiased: `E[n_l] = K p_l`. Tensors outside the layers always take part.
#[derive(Debug, Clone)]
pub struct AdaptiveLayers {
    share: f64,
    exploration: f64,
    temperature: f64,
    clip: f64,
    layers: Layers,
    /// Q, one for each layer.
    values: Vec<f64>,
    /// The layers drawn last.
    drawn: Vec<usize>,
}

impl AdaptiveLayers {
    /// The probability of each layer in one draw.
    fn probabilities(&self) -> Vec<f64> {
        let largest = self
            .values
            .iter()
            .copied()
            .fold(f64::NEG_INFINITY, f64::max);
        let exps: Vec<f64> = (self.values.iter())
            .map(|q| ((q - largest) / self.temperature).exp())
            .collect();
        let (sum, uniform) = (exps.iter().sum::<f64>(), 1.0 / exps.len() as f64);
        exps.iter()
            .map(|e| (1.0 - self.exploration) * e / sum + self.exploration * uniform)
            .collect()
    }
}

impl SparsityMask for AdaptiveLayers {
    fn select(
        &mut self,
        tensors: &[TensorInfo],
        _: &mut dyn Weights,
        seeds: &mut Seeds,
    ) -> Result<Selection, ZoError> {
        let (layer_of, count) = layers_of("AdaptiveLayers", &self.layers, tensors)?;
        if self.values.is_empty() {
            self.values = vec![0.0; count];
        }
        if self.values.len() != count {
            return Err(ZoError::Mask {
                mask: "AdaptiveLayers",
                reason: format!(
                    "it knows {} layers and the module has {count}: use the module it was trained with",
                    self.values.len()
                ),
            });
        }
        let p = self.probabilities();
        let draws = ((self.share * count as f64).floor() as usize).max(1);
        let mut times = vec![0usize; count];
        for _ in 0..draws {
            let mut left = seeds.uniform();
            let hit = p.iter().position(|p| {
                left -= p;
                left < 0.0
            });
            // Rounding can leave a little beyond the last.
            times[hit.unwrap_or(count - 1)] += 1;
        }
        self.drawn = (0..count).filter(|layer| times[*layer] > 0).collect();
        let choose = |layer: &Option<usize>| match layer {
            None => Some(Choice::WHOLE),
            Some(layer) if times[*layer] == 0 => None,
            Some(layer) => {
                let weight = (1.0 / (draws as f64 * p[*layer])).min(self.clip);
                Some(Choice::scaled(times[*layer] as f64 * weight))
            }
        };
        Ok(Selection(layer_of.iter().map(choose).collect()))
    }

    fn observe(&mut self, _: &[TensorInfo], _: &Selection, queries: &[QueryReport]) {
        let sum: f64 = queries
            .iter()
            .map(|query| query.projected_gradient.abs())
            .sum();
        let mean = sum / queries.len().max(1) as f64;
        for layer in &self.drawn {
            self.values[*layer] = 0.9 * self.values[*layer] + 0.1 * mean;
        }
    }

    fn record(&self) -> Value {
        serde_json::json!({ "values": self.values })
    }

    fn load_record(&mut self, record: Value) -> Result<(), RecordError> {
        #[derive(serde::Deserialize)]
        struct Saved {
            values: Vec<f64>,
        }
        self.values = from_record::<Saved>("mask", record)?.values;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_mix_softmax_and_uniform() {
        let mut mask = AdaLezoConfig::new().mask().unwrap();
        mask.values = vec![0.0, 0.6, 1.2];
        let e = std::f64::consts::E;
        let sum = 1.0 + e + e * e;
        let expected = [1.0, e, e * e].map(|x| 0.9 * x / sum + 0.1 / 3.0);
        for (p, expected) in mask.probabilities().iter().zip(expected) {
            assert!((p - expected).abs() < 1e-12);
        }
        mask.values = vec![0.0, 1e6];
        let p = mask.probabilities();
        assert!(
            p[0] == 0.05 && (p[1] - 0.95).abs() < 1e-12,
            "no overflow: {p:?}"
        );
    }

    #[test]
    fn settings_are_checked() {
        let config = AdaLezoConfig::new;
        for (bad, name) in [
            (config().with_share(0.0), "share"),
            (config().with_exploration(0.0), "exploration"),
            (config().with_temperature(0.0), "temperature"),
            (config().with_clip(f64::NAN), "clip"),
        ] {
            let error = bad.init().unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
        }
    }
}

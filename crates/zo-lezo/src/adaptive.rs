//! AdaLeZO: layers drawn by how much they moved the loss before.

use serde_json::Value;
use zo_core::{
    Choice, ConfigError, Distribution, Layers, QueryReport, RecordError, Seeds, Selection, Sgd,
    SparsityMask, TensorInfo, Weights, ZeroOrder, ZoError, from_record, share_of,
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
        /// The share gamma of uniform draws, from 0 to 1. Default 0.1 (the paper: 0 or 0.1).
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
        if !(0.0..=1.0).contains(&self.exploration) {
            return bad("exploration", self.exploration, "from 0 to 1");
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
/// p = (1 - gamma) softmax((Q / max Q) / T) + gamma / L    K draws with replacement, n_l of them layer l
/// update of layer l scaled by n_l min(1 / (K p_l), C)
/// Q_l <- 0.9 Q_l + 0.1 |g|                                for the layers drawn
/// ```
///
/// Q is measured in units of its largest value, as the authors' code does: |g| has the scale of the loss, and a temperature has not. So no
/// layer is more than `e^(1/T)` times (5.3 at the default) as likely as another. While all of Q is 0, draws are uniform.
///
/// Without the clip the estimate is unbiased: `E[n_l] = K p_l`. With it, layer l gets `min(1, C K p_l)` of its gradient on average. Tensors
/// outside the layers always take part.
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
        let draws = share_of(self.share, count).max(1);
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

    fn describe(&self) -> Value {
        serde_json::json!({ "adaptive-layers": {
            "share": self.share,
            "exploration": self.exploration,
            "temperature": self.temperature,
            "clip": self.clip,
            "layers": self.layers.describe(),
        } })
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
            return Err(RecordError::Mismatch {
                field: "mask",
                found: format!("a layer of value {bad}"),
                expected: "values that are finite and not negative".to_owned(),
            });
        }
        self.values = values;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_mix_softmax_and_uniform() {
        let mut mask = AdaLezoConfig::new().mask().unwrap();
        // In units of the largest value: of any scale.
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

    fn query(projected_gradient: f64) -> QueryReport {
        QueryReport {
            direction: zo_core::Direction::zero(),
            loss_plus: 0.0,
            loss_other: 0.0,
            projected_gradient,
        }
    }

    /// A moving average of |g|, whatever its sign, of the layers drawn.
    #[test]
    fn values_follow_the_magnitude_of_the_gradient() {
        let mut mask = AdaLezoConfig::new().mask().unwrap();
        mask.values = vec![2.0, 2.0];
        mask.drawn = vec![1];
        mask.observe(&[], &Selection(Vec::new()), &[query(-3.0), query(5.0)]);
        assert_eq!(mask.values, [2.0, 0.9 * 2.0 + 0.1 * 4.0]);
    }

    /// At the size of real gradients (SmolLM2: 15) draws stay spread, and the clip costs a layer what the documentation says.
    #[test]
    fn draws_do_not_collapse_at_large_gradients() {
        let layers = 30;
        let mut mask = AdaLezoConfig::new().mask().unwrap();
        let tensors: Vec<TensorInfo> = (0..layers)
            .map(|layer| {
                let id = burn::module::ParamId::new();
                let shape = burn::tensor::Shape::new([4]);
                let path = format!("layers.{layer}.weight");
                TensorInfo::new(&path, id, shape, burn::tensor::DType::F32)
            })
            .collect();
        struct Nothing;
        impl Weights for Nothing {
            fn for_each(&mut self, _: &mut dyn FnMut(usize, &zo_core::Values<'_>)) {}
        }
        let (mut distinct, mut gradients) = (0, Seeds::new(1, u64::MAX));
        for step in 0..200 {
            let mut seeds = Seeds::new(0, step);
            let selection = mask.select(&tensors, &mut Nothing, &mut seeds).unwrap();
            distinct += if step >= 100 { mask.drawn.len() } else { 0 };
            let g = 15.0 * (0.5 + gradients.uniform());
            mask.observe(&tensors, &selection, &[query(g)]);
        }
        let distinct = distinct as f64 / 100.0;
        assert!(distinct >= 3.5, "{distinct} of 30 layers in 6 draws");
        let least = mask.probabilities().into_iter().fold(1.0, f64::min);
        let most = mask.probabilities().into_iter().fold(0.0, f64::max);
        assert!(most / least <= (1.0f64 / 0.6).exp(), "{most} {least}");
    }

    #[test]
    fn settings_are_checked() {
        let config = AdaLezoConfig::new;
        for (bad, name) in [
            (config().with_share(0.0), "share"),
            (config().with_exploration(-0.1), "exploration"),
            (config().with_exploration(1.1), "exploration"),
            (config().with_temperature(0.0), "temperature"),
            (config().with_clip(f64::NAN), "clip"),
        ] {
            let error = bad.init().unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
        }
        // The paper's other value.
        assert!(config().with_exploration(0.0).init().is_ok());
    }
}

//! Which layers see only a window of the text.

use serde_json::Value;

use super::error::ConfigError;
use super::fields::Fields;
use super::llama::LlamaConfig;

/// What a layer's queries see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LayerType {
    /// All tokens before them.
    FullAttention,
    /// Those in the sliding window.
    SlidingAttention,
}

impl LayerType {
    /// Its name in `layer_types`.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::FullAttention => "full_attention",
            Self::SlidingAttention => "sliding_attention",
        }
    }

    /// The entries of `layer_types`.
    pub(super) fn parse_list(fields: &Fields<'_>, list: &Value) -> Result<Vec<Self>, ConfigError> {
        const FIELD: &str = "layer_types";
        let entries = list
            .as_array()
            .ok_or_else(|| fields.invalid(FIELD, list, "a list of names, one per layer"))?;
        let known = [Self::FullAttention, Self::SlidingAttention];
        let parse = |entry: &Value| {
            let found = known.iter().find(|kind| entry == kind.name());
            let names = known.map(Self::name).join(", ");
            found
                .copied()
                .ok_or_else(|| fields.unsupported(FIELD, entry, &names))
        };
        entries.iter().map(parse).collect()
    }
}

impl LlamaConfig {
    /// The window of a layer, in tokens.
    pub fn window(&self, layer: usize) -> Option<usize> {
        let kind = self.layer_types.get(layer);
        let windowed = kind.is_none_or(|kind| *kind == LayerType::SlidingAttention);
        self.sliding_window.filter(|_| windowed)
    }

    /// The configuration of the rotation in layers with a window, where that is another.
    pub(crate) fn local_rotation(&self) -> Option<Self> {
        self.rope_local_theta.map(|rope_theta| Self {
            rope_theta,
            rope_scaling: None,
            ..self.clone()
        })
    }

    /// Takes over the kinds of layers as a file lists them, or by `sliding` where it does not. Where all layers are alike, no list is kept.
    pub(super) fn set_layer_types(
        &mut self,
        fields: &Fields<'_>,
        listed: Option<Vec<LayerType>>,
        sliding: impl Fn(usize) -> bool,
    ) -> Result<(), ConfigError> {
        const FIELD: &str = "layer_types";
        const MOST: usize = 1 << 16;
        let windowed = |kind: &LayerType| *kind == LayerType::SlidingAttention;
        let layers = self.num_hidden_layers;
        let kinds = match listed {
            Some(kinds) if kinds.len() != layers => {
                let expected = format!("one entry for each of the {layers} layers");
                return Err(fields.invalid(FIELD, format!("{} entries", kinds.len()), &expected));
            }
            Some(kinds) => kinds,
            None if layers > MOST => {
                let expected = format!("at most {MOST}");
                return Err(fields.invalid("num_hidden_layers", layers, &expected));
            }
            None => {
                let kind = |layer| match sliding(layer) {
                    true => LayerType::SlidingAttention,
                    false => LayerType::FullAttention,
                };
                (0..layers).map(kind).collect()
            }
        };
        if self.sliding_window.is_none() {
            return match kinds.iter().any(windowed) {
                true => Err(fields.invalid(
                    FIELD,
                    LayerType::SlidingAttention.name(),
                    "full_attention in all layers where there is no sliding_window in use (use_sliding_window)",
                )),
                false => Ok(()),
            };
        }
        match kinds.iter().any(windowed) {
            false => self.sliding_window = None,
            true if kinds.iter().all(windowed) => {}
            true => self.layer_types = kinds,
        }
        Ok(())
    }

    /// The kinds of all layers by name.
    pub(super) fn layer_type_names(&self) -> Vec<&'static str> {
        let kind = |layer| match self.window(layer) {
            Some(_) => LayerType::SlidingAttention.name(),
            None => LayerType::FullAttention.name(),
        };
        (0..self.num_hidden_layers).map(kind).collect()
    }
}

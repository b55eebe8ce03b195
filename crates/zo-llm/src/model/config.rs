//! `config.json` of a Hugging Face folder: which model it is, how large, and whether it is supported.

mod activation;
mod error;
mod family;
mod fields;
mod llama;
mod opt;
mod roberta;
mod rope;
mod window;

use std::path::Path;

use serde_json::Value;

use crate::files::read::read_text;
pub use activation::Activation;
pub use error::ConfigError;
pub use family::Family;
use fields::Fields;
pub use llama::LlamaConfig;
pub use opt::OptConfig;
pub use roberta::RobertaConfig;
pub use rope::RopeScaling;
pub use window::LayerType;

/// The architectures of models.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Architecture {
    /// OPT (Zhang et al. 2022), `OPTForCausalLM`.
    Opt,
    /// The decoder of Llama and its relatives, `LlamaForCausalLM` for example.
    Decoder(Family),
    /// RoBERTa (Liu et al. 2019), `RobertaForMaskedLM`.
    Roberta,
}

impl std::fmt::Display for Architecture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Opt => f.write_str("opt"),
            Self::Decoder(family) => family.fmt(f),
            Self::Roberta => f.write_str("roberta"),
        }
    }
}

/// What `config.json` says, for any architecture.
#[derive(Debug, Clone, PartialEq)]
pub enum ModelConfig {
    /// An OPT model.
    Opt(OptConfig),
    /// A model of Llama's form: see [`Family`].
    Llama(LlamaConfig),
    /// A RoBERTa model: a masked language model.
    Roberta(RobertaConfig),
}

impl ModelConfig {
    /// Reads `config.json` in the folder `dir`.
    ///
    /// # Errors
    /// [`ConfigError`] when the file is missing or malformed, names an unknown architecture, or asks for something
    /// unsupported (each by field name).
    pub fn from_dir(dir: &Path) -> Result<Self, ConfigError> {
        let path = dir.join("config.json");
        let text = read_text(&path).map_err(|source| ConfigError::Read {
            path: path.clone(),
            source,
        })?;
        Self::parse(&path.display().to_string(), &text)
    }

    /// Reads the text of a `config.json`.
    ///
    /// # Errors
    /// As [`Self::from_dir`].
    pub fn from_json(text: &str) -> Result<Self, ConfigError> {
        Self::parse("config.json", text)
    }

    fn parse(place: &str, text: &str) -> Result<Self, ConfigError> {
        let json = |message: String| ConfigError::Json {
            place: place.to_owned(),
            message,
        };
        let value: Value = serde_json::from_str(text).map_err(|error| json(error.to_string()))?;
        let Value::Object(object) = &value else {
            return Err(json("it holds another kind of JSON value".to_owned()));
        };
        let fields = Fields::new(place, object);

        if let Some(value) = fields.get("quantization_config") {
            let supported =
                "unquantized weights (f64, f32, bf16, f16): use the original checkpoint";
            return Err(ConfigError::unsupported(
                place,
                "quantization_config",
                value,
                supported,
            ));
        }
        let config = match Self::architecture_of(&fields)? {
            Architecture::Opt => Self::Opt(OptConfig::from_fields(&fields)?),
            Architecture::Roberta => Self::Roberta(RobertaConfig::from_fields(&fields)?),
            Architecture::Decoder(family) => {
                Self::Llama(LlamaConfig::from_fields(&fields, family)?)
            }
        };
        config.validate(place)?;
        Ok(config)
    }

    /// `model_type` decides, as in transformers, and the first of `architectures` must agree; either may be absent.
    fn architecture_of(fields: &Fields<'_>) -> Result<Architecture, ConfigError> {
        let class = match fields.get("architectures") {
            None => None,
            Some(list) => match (list.as_array().map(Vec::as_slice), list.get(0)) {
                (Some([]), _) => None,
                (_, Some(Value::String(class))) => Some(class.as_str()),
                _ => return Err(fields.invalid("architectures", list, "a list of class names")),
            },
        };
        let kind = fields.str("model_type")?;
        let known = |found: Option<&str>| match found? {
            "OPTForCausalLM" | "OPTModel" | "opt" => Some(Architecture::Opt),
            "RobertaForMaskedLM" | "roberta" => Some(Architecture::Roberta),
            other => Family::named(other).map(Architecture::Decoder),
        };
        let unknown = |found: &str| ConfigError::UnknownArchitecture {
            place: fields.place.to_owned(),
            found: found.to_owned(),
        };
        match (class, kind) {
            (None, None) => Err(fields.missing("architectures")),
            (Some(found), None) | (None, Some(found)) => {
                known(Some(found)).ok_or_else(|| unknown(found))
            }
            (Some(found), Some(kind)) => match (known(class), known(Some(kind))) {
                (None, _) => Err(unknown(found)),
                (_, None) => Err(unknown(kind)),
                (Some(a), Some(b)) if a == b => Ok(a),
                _ => Err(ConfigError::Disagreement {
                    place: fields.place.to_owned(),
                    fields: format!("`architectures` ({found}) and `model_type` ({kind})"),
                }),
            },
        }
    }

    /// Checks that the sizes fit together; `place` names the configuration in errors.
    pub(crate) fn validate(&self, place: &str) -> Result<(), ConfigError> {
        match self {
            Self::Opt(config) => config.validate(place),
            Self::Llama(config) => config.validate(place),
            Self::Roberta(config) => config.validate(place),
        }
    }

    /// The text of a `config.json` that [`Self::from_json`] and transformers read.
    pub fn to_json(&self) -> String {
        let value = match self {
            Self::Opt(config) => config.to_value(),
            Self::Llama(config) => config.to_value(),
            Self::Roberta(config) => config.to_value(),
        };
        format!("{value:#}\n")
    }

    /// The model's family.
    pub fn architecture(&self) -> Architecture {
        match self {
            Self::Opt(_) => Architecture::Opt,
            Self::Llama(config) => Architecture::Decoder(config.family),
            Self::Roberta(_) => Architecture::Roberta,
        }
    }

    /// The longest sequence, in tokens.
    pub fn context(&self) -> usize {
        match self {
            Self::Opt(config) => config.max_position_embeddings,
            Self::Llama(config) => config.context(),
            Self::Roberta(config) => config.context(),
        }
    }

    /// Rows of the embedding matrix: the largest token id plus one.
    pub fn vocab_size(&self) -> usize {
        match self {
            Self::Opt(config) => config.vocab_size,
            Self::Llama(config) => config.vocab_size,
            Self::Roberta(config) => config.vocab_size,
        }
    }

    /// Number of transformer blocks.
    pub fn num_hidden_layers(&self) -> usize {
        match self {
            Self::Opt(config) => config.num_hidden_layers,
            Self::Llama(config) => config.num_hidden_layers,
            Self::Roberta(config) => config.num_hidden_layers,
        }
    }

    /// Id of the token that begins a text, if the model has one.
    pub fn bos_token_id(&self) -> Option<u32> {
        match self {
            Self::Opt(config) => config.bos_token_id,
            Self::Llama(config) => config.bos_token_id,
            Self::Roberta(config) => config.bos_token_id,
        }
    }

    /// Whether the embedding matrix also serves as the head.
    pub fn is_tied(&self) -> bool {
        match self {
            Self::Opt(config) => config.tie_word_embeddings,
            Self::Llama(config) => config.tie_word_embeddings,
            Self::Roberta(config) => config.tie_word_embeddings,
        }
    }

    /// Declares that the head has its own matrix.
    pub fn untie(&mut self) {
        match self {
            Self::Opt(config) => config.tie_word_embeddings = false,
            Self::Llama(config) => config.tie_word_embeddings = false,
            Self::Roberta(config) => config.tie_word_embeddings = false,
        }
    }

    /// Ids of the tokens that end a text: none, one or several.
    pub fn eos_token_ids(&self) -> &[u32] {
        match self {
            Self::Opt(config) => &config.eos_token_ids,
            Self::Llama(config) => &config.eos_token_ids,
            Self::Roberta(config) => &config.eos_token_ids,
        }
    }

    /// Whether it is a masked language model, which fills gaps instead of continuing texts.
    pub fn is_masked(&self) -> bool {
        matches!(self, Self::Roberta(_))
    }

    /// Id to pad with. A model without one is padded with its first end token, or else with 0: padded positions are
    /// masked, so any id in the vocabulary will do.
    pub fn pad_token_id(&self) -> u32 {
        let pad = match self {
            Self::Opt(config) => config.pad_token_id,
            Self::Llama(config) => config.pad_token_id,
            Self::Roberta(config) => Some(config.pad_token_id),
        };
        pad.or_else(|| self.eos_token_ids().first().copied())
            .unwrap_or(0)
    }
}

#[cfg(test)]
mod tests;

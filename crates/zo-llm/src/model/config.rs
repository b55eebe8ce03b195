//! `config.json` of a Hugging Face folder: which model, how large, and whether we support it.

mod fields;
mod llama;
mod opt;

use std::path::{Path, PathBuf};

use serde_json::Value;
use thiserror::Error;

use crate::files::read::read_text;
use fields::Fields;
pub use llama::{LlamaConfig, RopeScaling};
pub use opt::OptConfig;

/// Why a configuration cannot be used. `place` is the file, or the configuration's type when it was made in code.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error(
        "cannot read {path}: {source}; a model folder must hold a config.json as transformers' save_pretrained writes it"
    )]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The text is not a JSON object.
    #[error("{place} is not a JSON object: {message}; download or save the model again")]
    Json {
        /// Where the text came from.
        place: String,
        /// What the parser said.
        message: String,
    },
    /// Two fields that say the same thing disagree.
    #[error("{place}: {fields} disagree: correct the one that is wrong")]
    Disagreement {
        /// Where the configuration came from.
        place: String,
        /// The fields and their values.
        fields: String,
    },
    /// The model is neither OPT nor Llama.
    #[error(
        "{place}: architecture {found} is not supported; use an OPTForCausalLM or LlamaForCausalLM folder"
    )]
    UnknownArchitecture {
        /// Where the configuration came from.
        place: String,
        /// What it says the model is.
        found: String,
    },
    /// A field that has no default is missing.
    #[error("{place}: field `{field}` is missing; add it as transformers writes it")]
    Missing {
        /// Where the configuration came from.
        place: String,
        /// Name of the field.
        field: String,
    },
    /// A field holds a value that no model can have.
    #[error("{place}: field `{field}` is {value}, but must be {expected}")]
    Invalid {
        /// Where the configuration came from.
        place: String,
        /// Name of the field.
        field: String,
        /// The value found.
        value: String,
        /// What is expected instead.
        expected: String,
    },
    /// A field asks for something this crate does not compute.
    #[error("{place}: field `{field}` is {value}, which is not supported; supported: {supported}")]
    Unsupported {
        /// Where the configuration came from.
        place: String,
        /// Name of the field.
        field: String,
        /// The value found.
        value: String,
        /// What is supported instead.
        supported: String,
    },
}

impl ConfigError {
    pub(crate) fn invalid(place: &str, field: &str, value: impl ToString, expected: &str) -> Self {
        let [place, field, expected] = [place, field, expected].map(str::to_owned);
        Self::Invalid {
            place,
            field,
            value: value.to_string(),
            expected,
        }
    }

    pub(crate) fn unsupported(
        place: &str,
        field: &str,
        value: impl ToString,
        supported: &str,
    ) -> Self {
        let [place, field, supported] = [place, field, supported].map(str::to_owned);
        Self::Unsupported {
            place,
            field,
            value: value.to_string(),
            supported,
        }
    }
}

/// The families of models.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Architecture {
    /// OPT (Zhang et al. 2022), `OPTForCausalLM`.
    Opt,
    /// Llama (Touvron et al. 2023) and what shares its form, `LlamaForCausalLM`.
    Llama,
}

impl std::fmt::Display for Architecture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Opt => "opt",
            Self::Llama => "llama",
        })
    }
}

/// The nonlinearity of the feed-forward part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// `max(x, 0)`: OPT's.
    Relu,
    /// `x Phi(x)` with the error function.
    Gelu,
    /// The approximation of `Gelu` with a hyperbolic tangent.
    GeluTanh,
    /// `x sigmoid(x)`: Llama's.
    Silu,
}

impl Activation {
    const NAMES: [(&'static str, Self); 6] = [
        ("relu", Self::Relu),
        ("gelu", Self::Gelu),
        ("gelu_pytorch_tanh", Self::GeluTanh),
        ("gelu_new", Self::GeluTanh),
        ("silu", Self::Silu),
        ("swish", Self::Silu),
    ];

    fn parse(place: &str, field: &str, name: &str) -> Result<Self, ConfigError> {
        let found = Self::NAMES.iter().find(|(known, _)| *known == name);
        found.map(|(_, activation)| *activation).ok_or_else(|| {
            let known: Vec<_> = Self::NAMES.iter().map(|(name, _)| *name).collect();
            ConfigError::unsupported(place, field, format!("\"{name}\""), &known.join(", "))
        })
    }

    fn name(self) -> &'static str {
        Self::NAMES
            .iter()
            .find(|(_, activation)| *activation == self)
            .map_or("relu", |(name, _)| name)
    }
}

/// What `config.json` says, for either architecture.
#[derive(Debug, Clone, PartialEq)]
pub enum ModelConfig {
    /// An OPT model.
    Opt(OptConfig),
    /// A Llama model.
    Llama(LlamaConfig),
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
            return Err(json("it holds another JSON value".to_owned()));
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
            Architecture::Llama => Self::Llama(LlamaConfig::from_fields(&fields)?),
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
        let known = |found: Option<&str>| match found {
            Some("OPTForCausalLM" | "opt") => Some(Architecture::Opt),
            Some("LlamaForCausalLM" | "llama") => Some(Architecture::Llama),
            _ => None,
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
        }
    }

    /// The text of a `config.json` that [`Self::from_json`] and transformers read.
    pub fn to_json(&self) -> String {
        let value = match self {
            Self::Opt(config) => config.to_value(),
            Self::Llama(config) => config.to_value(),
        };
        format!("{value:#}\n")
    }

    /// The model's family.
    pub fn architecture(&self) -> Architecture {
        match self {
            Self::Opt(_) => Architecture::Opt,
            Self::Llama(_) => Architecture::Llama,
        }
    }

    /// The longest sequence, in tokens.
    pub fn context(&self) -> usize {
        match self {
            Self::Opt(config) => config.max_position_embeddings,
            Self::Llama(config) => config.max_position_embeddings,
        }
    }

    /// Rows of the embedding matrix: the largest token id plus one.
    pub fn vocab_size(&self) -> usize {
        match self {
            Self::Opt(config) => config.vocab_size,
            Self::Llama(config) => config.vocab_size,
        }
    }

    /// Number of transformer blocks.
    pub fn num_hidden_layers(&self) -> usize {
        match self {
            Self::Opt(config) => config.num_hidden_layers,
            Self::Llama(config) => config.num_hidden_layers,
        }
    }

    /// Id of the token that begins a text, if the model has one.
    pub fn bos_token_id(&self) -> Option<u32> {
        match self {
            Self::Opt(config) => config.bos_token_id,
            Self::Llama(config) => config.bos_token_id,
        }
    }

    /// Whether the embedding matrix is the head as well.
    pub fn is_tied(&self) -> bool {
        match self {
            Self::Opt(config) => config.tie_word_embeddings,
            Self::Llama(config) => config.tie_word_embeddings,
        }
    }

    /// Says that the head has a matrix of its own.
    pub fn untie(&mut self) {
        match self {
            Self::Opt(config) => config.tie_word_embeddings = false,
            Self::Llama(config) => config.tie_word_embeddings = false,
        }
    }

    /// Ids of the tokens that end a text: none, one or several.
    pub fn eos_token_ids(&self) -> &[u32] {
        match self {
            Self::Opt(config) => &config.eos_token_ids,
            Self::Llama(config) => &config.eos_token_ids,
        }
    }

    /// Id to pad with. A model without one is padded with its first end token, or else with 0: padded positions are
    /// masked, so that any id of the vocabulary serves.
    pub fn pad_token_id(&self) -> u32 {
        let pad = match self {
            Self::Opt(config) => config.pad_token_id,
            Self::Llama(config) => config.pad_token_id,
        };
        pad.or_else(|| self.eos_token_ids().first().copied())
            .unwrap_or(0)
    }
}

#[cfg(test)]
mod tests;

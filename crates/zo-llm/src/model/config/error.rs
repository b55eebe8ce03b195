//! Why a configuration is refused.

use std::path::PathBuf;

use thiserror::Error;

/// Why a configuration cannot be used. `place` is the file, or the configuration's type if it was built in code.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error(
        "cannot read {path}: {source}; a model folder needs a config.json as written by transformers' save_pretrained"
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
    /// The model is of none of the known architectures.
    #[error(
        "{place}: architecture {found} is not supported; use a folder of an OPTForCausalLM, LlamaForCausalLM, MistralForCausalLM, \
         Qwen2ForCausalLM, Qwen3ForCausalLM, \
         Gemma3ForCausalLM or RobertaForMaskedLM"
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

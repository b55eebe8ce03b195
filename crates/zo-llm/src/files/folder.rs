//! The files of a Hugging Face folder, by name.

use std::collections::BTreeMap;
use std::path::Path;

use super::error::LoadError;
use super::read::read_text;

/// Files with all weights, the preferred one first. [`index_of`] names the list of shards where the weights are split.
pub(crate) const WEIGHTS: [&str; 2] = ["model.safetensors", "pytorch_model.bin"];

/// The files beside the configuration and the weights: the tokenizer, and how to generate. No folder holds all of them.
pub(crate) const COMPANIONS: [&str; 9] = [
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "generation_config.json",
];

/// Name of the list of the shards of `weights`.
pub(crate) fn index_of(weights: &str) -> String {
    format!("{weights}.index.json")
}

/// Whether the folder holds a tokenizer that [`LmTokenizer`](crate::LmTokenizer) reads.
pub(crate) fn has_tokenizer(dir: &Path) -> bool {
    let has = |name: &str| dir.join(name).exists();
    let others = ["tokenizer.json", "tokenizer.model"];
    others.into_iter().any(has) || has("vocab.json") && has("merges.txt")
}

/// Reads an index of shards: which shard, a file beside the index, holds each tensor.
pub(crate) fn weight_map(index: &Path) -> Result<BTreeMap<String, String>, LoadError> {
    #[derive(serde::Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let text = read_text(index).map_err(|source| LoadError::read(index, source))?;
    let bad = |message: String| LoadError::Index {
        path: index.to_owned(),
        message,
    };
    let read: Index = serde_json::from_str(&text).map_err(|error| bad(error.to_string()))?;
    // A stranger's index must not make this program read from elsewhere: not from a device that never ends, either.
    let elsewhere = |shard: &&String| Path::new(shard).file_name() != Some(shard.as_ref());
    match read.weight_map.values().find(elsewhere) {
        Some(shard) => Err(bad(format!(
            "{shard:?} is not the name of a file beside it"
        ))),
        None => Ok(read.weight_map),
    }
}

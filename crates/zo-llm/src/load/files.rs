//! The files of a Hugging Face folder, by name.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use super::LoadError;

/// A file with all weights, the preferred one first. [`index_of`] names the list of its shards, where it comes in several.
pub(crate) const WEIGHTS: [&str; 2] = ["model.safetensors", "pytorch_model.bin"];

/// What stands beside the configuration and the weights: the tokenizer, and how to generate. No folder holds all of them.
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
    has("tokenizer.json") || has("vocab.json") && has("merges.txt")
}

/// Reads an index of shards: which shard holds each tensor.
pub(crate) fn weight_map(index: &Path) -> Result<BTreeMap<String, String>, LoadError> {
    #[derive(serde::Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let text = read_text(index).map_err(|source| LoadError::read(index, source))?;
    let index: Index = serde_json::from_str(&text).map_err(|error| LoadError::Index {
        path: index.to_owned(),
        message: error.to_string(),
    })?;
    Ok(index.weight_map)
}

/// How the file begins that git keeps in place of a large one until it is fetched.
const LFS: &[u8] = b"version https://git-lfs";

/// An error if `start`, the first bytes of a file, are those of a git-lfs pointer. `pull` fetches what it points to.
pub(crate) fn refuse_pointer(start: &[u8]) -> io::Result<()> {
    if start.starts_with(LFS) {
        let message =
            "this is a git-lfs pointer and not the file itself, run `git lfs pull` in its folder";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
    }
    Ok(())
}

/// The text of a file that is not a git-lfs pointer.
pub(crate) fn read_text(path: &Path) -> io::Result<String> {
    let text = std::fs::read_to_string(path)?;
    refuse_pointer(text.as_bytes())?;
    Ok(text)
}

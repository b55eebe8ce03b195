//! Text to token ids and back, with the special tokens a model was trained with.

use std::path::{Path, PathBuf};

use thiserror::Error;
use tokenizers::models::bpe::BPE;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, Tokenizer};

use crate::config::{Architecture, ModelConfig};

/// Why a tokenizer cannot be loaded or used.
#[derive(Debug, Error)]
pub enum TokenizerError {
    /// The folder holds no tokenizer.
    #[error(
        "{dir} holds neither tokenizer.json nor vocab.json with merges.txt: complete the download"
    )]
    Missing {
        /// The folder.
        dir: PathBuf,
    },
    /// A file is malformed or of an unknown kind.
    #[error(
        "cannot load the tokenizer {path}: {message}; download it again, or save it with a current transformers"
    )]
    Load {
        /// The file.
        path: PathBuf,
        /// What the tokenizer library said.
        message: String,
    },
    /// A text cannot be encoded.
    #[error("cannot encode {text:?}: {message}")]
    Encode {
        /// The text.
        text: String,
        /// What the tokenizer library said.
        message: String,
    },
    /// Ids cannot be decoded.
    #[error("cannot decode {ids:?}: {message}")]
    Decode {
        /// The ids.
        ids: Vec<u32>,
        /// What the tokenizer library said.
        message: String,
    },
    /// The tokenizer makes an id that the model does not have.
    #[error(
        "the tokenizer gives token {id} for {text:?}, but the model's vocabulary has {vocab_size} tokens: use the model's own tokenizer"
    )]
    OutsideVocabulary {
        /// The text.
        text: String,
        /// The id.
        id: u32,
        /// Rows of the model's embedding matrix.
        vocab_size: usize,
    },
}

/// The tokenizer of a model.
#[derive(Debug, Clone)]
pub struct LmTokenizer {
    tokenizer: Tokenizer,
    /// A token every text must begin with, whether or not the file says so.
    begin: Option<u32>,
    vocab_size: usize,
}

impl LmTokenizer {
    /// Loads `tokenizer.json` from the folder `dir`, or else a byte-level BPE from `vocab.json` and `merges.txt` (as OPT's
    /// folders have them).
    ///
    /// # Errors
    /// [`TokenizerError::Missing`] without these files, [`TokenizerError::Load`] when they are malformed.
    pub fn from_dir(dir: &Path, config: &ModelConfig) -> Result<Self, TokenizerError> {
        let (json, vocab, merges) = (
            dir.join("tokenizer.json"),
            dir.join("vocab.json"),
            dir.join("merges.txt"),
        );
        let failed = |path: &Path, message: String| TokenizerError::Load {
            path: path.to_owned(),
            message,
        };
        let mut tokenizer = if json.exists() {
            Tokenizer::from_file(&json).map_err(|error| failed(&json, error.to_string()))?
        } else if vocab.exists() && merges.exists() {
            byte_level(&vocab, &merges, config)
                .map_err(|error| failed(&vocab, error.to_string()))?
        } else {
            return Err(TokenizerError::Missing {
                dir: dir.to_owned(),
            });
        };
        // A file may carry the settings of someone's batch.
        tokenizer.with_padding(None);
        tokenizer
            .with_truncation(None)
            .map_err(|error| failed(&json, error.to_string()))?;
        // Every text OPT was trained on begins with `</s>`; not all of its folders say so.
        let begin = if config.architecture() == Architecture::Opt {
            config.bos_token_id()
        } else {
            None
        };
        Ok(Self {
            tokenizer,
            begin,
            vocab_size: config.vocab_size(),
        })
    }

    /// Ids of a text, with the special tokens the model expects, such as OPT's leading `</s>`.
    ///
    /// # Errors
    /// [`TokenizerError::OutsideVocabulary`] when the tokenizer belongs to a larger model, [`TokenizerError::Encode`] when the
    /// text cannot be split.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        let mut ids = self.ids(text, true)?;
        if let Some(begin) = self.begin
            && ids.first() != Some(&begin)
        {
            ids.insert(0, begin);
        }
        Ok(ids)
    }

    /// Ids of a piece of text within another, such as a label word with its leading space: no special tokens.
    ///
    /// # Errors
    /// As [`Self::encode`].
    pub fn encode_word(&self, word: &str) -> Result<Vec<u32>, TokenizerError> {
        self.ids(word, false)
    }

    fn ids(&self, text: &str, special: bool) -> Result<Vec<u32>, TokenizerError> {
        let encoding = self.tokenizer.encode(text, special);
        let encoding = encoding.map_err(|error| TokenizerError::Encode {
            text: text.to_owned(),
            message: error.to_string(),
        })?;
        let ids = encoding.get_ids().to_vec();
        match ids.iter().find(|id| **id as usize >= self.vocab_size) {
            Some(&id) => Err(TokenizerError::OutsideVocabulary {
                text: text.to_owned(),
                id,
                vocab_size: self.vocab_size,
            }),
            None => Ok(ids),
        }
    }

    /// Whether the first of `tokens` is one that every text begins with.
    pub(crate) fn begins(&self, tokens: &[u32]) -> bool {
        let empty = self.encode("").unwrap_or_default();
        !empty.is_empty() && tokens.first() == empty.first()
    }

    /// The text of `ids`, without special tokens.
    ///
    /// # Errors
    /// [`TokenizerError::Decode`] when the tokenizer's decoder fails.
    pub fn decode(&self, ids: &[u32]) -> Result<String, TokenizerError> {
        let text = self.tokenizer.decode(ids, true);
        text.map_err(|error| TokenizerError::Decode {
            ids: ids.to_vec(),
            message: error.to_string(),
        })
    }
}

/// GPT-2's byte-level BPE, which OPT shares.
fn byte_level(vocab: &Path, merges: &Path, config: &ModelConfig) -> tokenizers::Result<Tokenizer> {
    let bpe = BPE::from_file(&vocab.to_string_lossy(), &merges.to_string_lossy()).build()?;
    let mut tokenizer = Tokenizer::new(bpe);
    tokenizer.with_pre_tokenizer(Some(ByteLevel::new(false, true, true)));
    tokenizer.with_decoder(Some(ByteLevel::new(false, true, true)));
    // `</s>` in a text is one token, not four.
    let ids = config
        .bos_token_id()
        .into_iter()
        .chain(config.eos_token_ids().iter().copied());
    let ids = ids.chain([config.pad_token_id()]);
    let special: Vec<_> = ids
        .filter_map(|id| tokenizer.id_to_token(id))
        .map(|token| AddedToken::from(token, true))
        .collect();
    tokenizer.add_special_tokens(&special);
    Ok(tokenizer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::OptConfig;
    use std::collections::BTreeMap;
    use tokenizers::pre_tokenizers::byte_level::ByteLevel;

    /// GPT-2's files with the 256 bytes, OPT's special tokens and the merges that make ` great` one token.
    fn folder() -> tempfile::TempDir {
        let mut alphabet: Vec<char> = ByteLevel::alphabet().into_iter().collect();
        alphabet.sort_unstable();
        let merges = ["Ġ g", "Ġg r", "e a", "ea t", "Ġgr eat"];
        let special = ["<s>", "<pad>", "</s>", "<unk>"]
            .map(str::to_owned)
            .into_iter();
        let merged = merges.iter().map(|merge| merge.replace(' ', ""));
        let tokens = special
            .chain(alphabet.iter().map(char::to_string))
            .chain(merged);
        let vocab: BTreeMap<_, _> = tokens.enumerate().map(|(id, token)| (token, id)).collect();
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(
            dir.path().join("vocab.json"),
            serde_json::to_string(&vocab).unwrap(),
        )
        .unwrap();
        std::fs::write(
            dir.path().join("merges.txt"),
            format!("#version: 0.2\n{}\n", merges.join("\n")),
        )
        .unwrap();
        dir
    }

    fn config(vocab_size: usize) -> ModelConfig {
        ModelConfig::Opt(OptConfig::new(vocab_size, 8, 1, 1, 8))
    }

    #[test]
    fn vocab_and_merges_make_a_byte_level_tokenizer() {
        let dir = folder();
        let tokenizer = LmTokenizer::from_dir(dir.path(), &config(265)).unwrap();
        let great = tokenizer.encode_word(" great").unwrap();
        assert_eq!(great, [264]);
        let ids = tokenizer.encode("é great").unwrap();
        assert_eq!((ids[0], ids.len(), ids[3]), (2, 4, 264));
        assert_eq!(tokenizer.decode(&ids).unwrap(), "é great");
        assert_eq!(tokenizer.encode("").unwrap(), [2]);
        // A special token in the text is one token, and is not doubled at the beginning.
        assert_eq!(tokenizer.encode("</s> great").unwrap(), [2, 264]);
    }

    #[test]
    fn tokenizer_json_gives_the_same() {
        let dir = folder();
        let from_files = LmTokenizer::from_dir(dir.path(), &config(265)).unwrap();
        from_files
            .tokenizer
            .save(dir.path().join("tokenizer.json"), false)
            .unwrap();
        std::fs::remove_file(dir.path().join("merges.txt")).unwrap();
        let from_json = LmTokenizer::from_dir(dir.path(), &config(265)).unwrap();
        for text in ["great", " great  fun", "naïve\n\n</s>"] {
            assert_eq!(
                from_json.encode(text).unwrap(),
                from_files.encode(text).unwrap()
            );
        }
    }

    #[test]
    fn bad_tokenizers_are_refused() {
        let dir = folder();
        let tokenizer = LmTokenizer::from_dir(dir.path(), &config(264)).unwrap();
        let error = tokenizer.encode(" great").unwrap_err().to_string();
        assert!(error.contains("264") && error.contains(" great"), "{error}");

        std::fs::write(dir.path().join("tokenizer.json"), "{}").unwrap();
        let error = LmTokenizer::from_dir(dir.path(), &config(265))
            .unwrap_err()
            .to_string();
        assert!(error.contains("tokenizer.json"), "{error}");
        std::fs::remove_file(dir.path().join("tokenizer.json")).unwrap();
        std::fs::write(dir.path().join("vocab.json"), "[").unwrap();
        let error = LmTokenizer::from_dir(dir.path(), &config(265))
            .unwrap_err()
            .to_string();
        assert!(error.contains("vocab.json"), "{error}");
        std::fs::remove_file(dir.path().join("vocab.json")).unwrap();
        let error = LmTokenizer::from_dir(dir.path(), &config(265))
            .unwrap_err()
            .to_string();
        assert!(error.contains("neither"), "{error}");
    }
}

//! From text to token ids and back, with the special tokens a model was trained with.

mod build;
mod classes;
mod error;
mod sentencepiece;
mod special;

use std::collections::BTreeMap;
use std::path::PathBuf;

use tokenizers::Tokenizer;

use crate::files::guard::guarded;

pub use error::TokenizerError;

/// The tokenizer of a model.
#[derive(Debug, Clone)]
pub struct LmTokenizer {
    /// Without its post-processor: `begin` and `end` are what that puts around a text.
    tokenizer: Tokenizer,
    begin: Vec<u32>,
    end: Vec<u32>,
    end_tokens: Vec<u32>,
    /// The token of a gap, in a masked language model.
    mask: Option<u32>,
    /// Whether spaces before punctuation are left out of decoded texts.
    clean_up: bool,
    contested: BTreeMap<u32, Contest>,
    vocab_size: usize,
}

/// An added token whose id in a file differs from that in the vocabulary.
#[derive(Debug, Clone)]
struct Contest {
    token: String,
    claimed: u32,
    path: PathBuf,
}

impl LmTokenizer {
    /// Ids of a whole text, with the special tokens that transformers puts around it, such as OPT's leading `</s>`.
    ///
    /// # Errors
    /// [`TokenizerError::OutsideVocabulary`] when the tokenizer belongs to a larger model, [`TokenizerError::Contested`] when files
    /// disagree about a token in the text, [`TokenizerError::Encode`] when the text cannot be split.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        let ids = [self.encode_prompt(text)?, self.end.clone()].concat();
        self.check(&ids, text)?;
        Ok(ids)
    }

    /// Ids of a text that is to be continued: [`Self::encode`] without the special tokens that would end it.
    ///
    /// # Errors
    /// As [`Self::encode`].
    pub fn encode_prompt(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        let (ids, _) = self.split(text)?;
        Ok([self.begin.clone(), ids].concat())
    }

    /// Ids of a piece of text within another, such as a label word with its leading space: no special tokens.
    ///
    /// # Errors
    /// As [`Self::encode`].
    pub fn encode_word(&self, word: &str) -> Result<Vec<u32>, TokenizerError> {
        Ok(self.split(word)?.0)
    }

    /// Ids of a prompt and its continuation, split together, as a model sees them in a text, and the number of those that belong to the
    /// prompt. A token across the boundary belongs to the continuation. No special token ends the text.
    ///
    /// # Errors
    /// As [`Self::encode`].
    pub fn encode_continued(
        &self,
        prompt: &str,
        continuation: &str,
    ) -> Result<(Vec<u32>, usize), TokenizerError> {
        let (ids, ends) = self.split(&[prompt, continuation].concat())?;
        let behind = ends.iter().position(|end| *end > prompt.len());
        let border = self.begin.len() + behind.unwrap_or(ids.len());
        Ok(([self.begin.clone(), ids].concat(), border))
    }

    /// The same tokenizer with other special tokens at the beginning of every text: MeZO's code has OPT's texts begin with token 0, `<s>`, where
    /// the tokenizer and OPT's training have 2, `</s>`.
    ///
    /// # Errors
    /// [`TokenizerError::OutsideVocabulary`] if the model does not have one of them.
    pub fn with_begin(mut self, begin: Vec<u32>) -> Result<Self, TokenizerError> {
        self.check(&begin, "")?;
        self.begin = begin;
        Ok(self)
    }

    /// The special tokens with which every text begins.
    pub fn begin(&self) -> &[u32] {
        &self.begin
    }

    /// The special tokens with which every whole text ends.
    pub fn end(&self) -> &[u32] {
        &self.end
    }

    /// The token that stands for a gap; `None` unless the model is a masked language model.
    pub fn mask(&self) -> Option<u32> {
        self.mask
    }

    /// The tokens that end a generated text: the tokenizer's `eos_token` and those of `generation_config.json`, or else those of
    /// `config.json`.
    pub fn end_tokens(&self) -> &[u32] {
        &self.end_tokens
    }

    /// Ids of the text alone, and the byte offset at which each of them ends.
    fn split(&self, text: &str) -> Result<(Vec<u32>, Vec<usize>), TokenizerError> {
        let failed = |message: String| TokenizerError::Encode {
            text: text.to_owned(),
            message,
        };
        let encoding = guarded(|| self.tokenizer.encode(text, false)).map_err(failed)?;
        let encoding = encoding.map_err(|error| failed(error.to_string()))?;
        let ids = encoding.get_ids().to_vec();
        self.check(&self.begin, text)?;
        self.check(&ids, text)?;
        if let Some((&id, contest)) = ids.iter().find_map(|id| self.contested.get_key_value(id)) {
            return Err(TokenizerError::Contested {
                text: text.to_owned(),
                token: contest.token.clone(),
                id,
                claimed: contest.claimed,
                path: contest.path.clone(),
            });
        }
        let ends = encoding.get_offsets().iter().map(|(_, end)| *end);
        Ok((ids, ends.collect()))
    }

    fn check(&self, ids: &[u32], text: &str) -> Result<(), TokenizerError> {
        match ids.iter().find(|id| **id as usize >= self.vocab_size) {
            Some(&id) => Err(TokenizerError::OutsideVocabulary {
                text: text.to_owned(),
                id,
                vocab_size: self.vocab_size,
            }),
            None => Ok(()),
        }
    }

    /// The text of `ids`, without special tokens; without spaces before punctuation where `tokenizer_config.json` sets
    /// `clean_up_tokenization_spaces` (except for BPE tokenizers, as in transformers).
    ///
    /// # Errors
    /// [`TokenizerError::Decode`] when the tokenizer's decoder fails.
    pub fn decode(&self, ids: &[u32]) -> Result<String, TokenizerError> {
        let failed = |message: String| TokenizerError::Decode {
            ids: ids.to_vec(),
            message,
        };
        let text = guarded(|| self.tokenizer.decode(ids, true))
            .map_err(failed)?
            .map_err(|error| failed(error.to_string()))?;
        Ok(if self.clean_up { clean_up(text) } else { text })
    }
}

/// What transformers replaces in decoded texts, in its order.
const SPACED: [(&str, &str); 10] = [
    (" .", "."),
    (" ?", "?"),
    (" !", "!"),
    (" ,", ","),
    (" ' ", "'"),
    (" n't", "n't"),
    (" 'm", "'m"),
    (" 's", "'s"),
    (" 've", "'ve"),
    (" 're", "'re"),
];

fn clean_up(text: String) -> String {
    SPACED
        .iter()
        .fold(text, |text, (spaced, closed)| text.replace(spaced, closed))
}

#[cfg(test)]
mod tests;

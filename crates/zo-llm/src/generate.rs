//! Text generation with a key/value cache.

mod sampling;

use burn::tensor::Device;
use rand::SeedableRng;
use rand_xoshiro::Xoshiro256PlusPlus;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::model::arrange::arrange;
use crate::model::attention::LayerCache;
use crate::model::part::{Part, Past, ints};
use crate::model::{CausalLm, affine, to_f32};
use crate::tokenizer::{LmTokenizer, TokenizerError};

use sampling::choose;

pub use sampling::Sampling;

/// Why text cannot be generated.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum GenerateError {
    /// RoBERTa fills gaps.
    #[error("a masked language model cannot continue a text: use a causal model")]
    Masked,
    /// A prompt has no tokens.
    #[error("prompt {row} holds no token: give it at least one")]
    EmptyPrompt {
        /// Its index.
        row: usize,
    },
    /// A prompt holds a token the model does not have.
    #[error(
        "prompt {row} holds token {token}, but the vocabulary has {vocab} tokens: was it made by another tokenizer?"
    )]
    Token {
        /// Index of the prompt.
        row: usize,
        /// The token.
        token: u32,
        /// Size of the vocabulary.
        vocab: usize,
    },
    /// A prompt leaves no room in the context.
    #[error(
        "prompt {row} has {tokens} tokens, but the model's context is {context}: shorten it to at most {context}"
    )]
    TooLong {
        /// Index of the prompt.
        row: usize,
        /// Its tokens.
        tokens: usize,
        /// The context, in tokens.
        context: usize,
    },
    /// A setting makes no sense.
    #[error("{name} is {value}: {remedy}")]
    Setting {
        /// The setting.
        name: &'static str,
        /// Its value.
        value: f64,
        /// What it should be.
        remedy: &'static str,
    },
    /// Tokens cannot be turned into text.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
}

/// How much is generated, and how.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct GenerateConfig {
    /// The maximum number of tokens; 50 by default.
    pub max_tokens: usize,
    /// Strings that end the text; they are removed from it. None by default.
    pub stop: Vec<String>,
    /// Tokens that end the text, see [`LmTokenizer::end_tokens`]. None by default.
    pub end: Vec<u32>,
    /// How tokens are chosen.
    pub sampling: Sampling,
}

impl Default for GenerateConfig {
    fn default() -> Self {
        Self {
            max_tokens: 50,
            stop: Vec::new(),
            end: Vec::new(),
            sampling: Sampling::Greedy,
        }
    }
}

/// Why a text ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ending {
    /// A stop string.
    Stop,
    /// A token that ends the text.
    EndToken,
    /// The maximum number of tokens, or the end of the context.
    Length,
}

/// What follows a prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Generation {
    /// The new tokens, including those of the stop string, without the token that ends the text.
    pub tokens: Vec<u32>,
    /// Their text, without the stop string.
    pub text: String,
    /// Why it ends.
    pub ending: Ending,
}

/// Continues each of `prompts`. Each token is computed once, on the CPU also those that several prompts begin with: keys and values of earlier ones are kept, which takes
/// at most `2 * layers * keys * width` f32 per prompt.
///
/// # Errors
/// If a prompt is empty, too long or holds an unknown token, a setting makes no sense, or tokens cannot be decoded.
pub fn generate<S: AsRef<[u32]> + Sync>(
    model: &CausalLm,
    tokenizer: &LmTokenizer,
    prompts: &[S],
    config: &GenerateConfig,
    device: &Device,
) -> Result<Vec<Generation>, GenerateError> {
    config.validate()?;
    if model.is_masked() {
        return Err(GenerateError::Masked);
    }
    let (context, vocab) = (model.context(), model.vocab_size());
    for (row, prompt) in prompts.iter().enumerate() {
        let prompt = prompt.as_ref();
        let tokens = prompt.len();
        if tokens == 0 {
            return Err(GenerateError::EmptyPrompt { row });
        }
        if tokens > context {
            return Err(GenerateError::TooLong {
                row,
                tokens,
                context,
            });
        }
        if let Some(&token) = prompt.iter().find(|token| **token as usize >= vocab) {
            return Err(GenerateError::Token { row, token, vocab });
        }
    }
    let sequences: Vec<Vec<u32>> = prompts.iter().map(|p| p.as_ref().to_vec()).collect();
    if sequences.is_empty() {
        return Ok(Vec::new());
    }
    let go_on = |rows: &Vec<usize>| {
        let texts = rows
            .iter()
            .map(|&row| Text::new(row, &sequences[row], &config.sampling));
        continue_texts(model, tokenizer, texts.collect(), config, device)
    };
    let parts = arrange(&sequences, config.max_tokens, true, device);
    let parts: Result<Vec<_>, _> = match &parts[..] {
        [part] => go_on(part).map(|texts| vec![texts]),
        parts => parts.par_iter().map(go_on).collect(),
    };
    let mut texts: Vec<(usize, Generation)> = parts?.into_iter().flatten().collect();
    texts.sort_by_key(|(row, _)| *row);
    Ok(texts
        .into_iter()
        .map(|(_, generation)| generation)
        .collect())
}

impl GenerateConfig {
    /// Checks every value.
    ///
    /// # Errors
    /// Names the first value that makes no sense.
    pub fn validate(&self) -> Result<(), GenerateError> {
        let wrong = |name, value, remedy| {
            Err(GenerateError::Setting {
                name,
                value,
                remedy,
            })
        };
        if self.max_tokens == 0 {
            return wrong("max_tokens", 0.0, "ask for at least one");
        }
        if self.stop.iter().any(String::is_empty) {
            return wrong("the length of a stop string", 0.0, "leave empty ones out");
        }
        if let Sampling::Random {
            temperature, top_p, ..
        } = self.sampling
        {
            if !(temperature > 0.0 && temperature.is_finite()) {
                return wrong("temperature", temperature, "use a value above 0, or greedy");
            }
            if !(top_p > 0.0 && top_p <= 1.0) {
                return wrong("top_p", top_p, "use a value above 0 and up to 1");
            }
        }
        Ok(())
    }
}

/// A text in progress.
struct Text<'a> {
    row: usize,
    prompt: &'a [u32],
    tokens: Vec<u32>,
    rng: Xoshiro256PlusPlus,
}

impl<'a> Text<'a> {
    fn new(row: usize, prompt: &'a [u32], sampling: &Sampling) -> Self {
        let seed = match sampling {
            Sampling::Greedy => 0,
            Sampling::Random { seed, .. } => *seed,
        };
        let seed = zo_core::noise::derive_seed(seed, row as u64, 0);
        Self {
            row,
            prompt,
            tokens: Vec::new(),
            rng: Xoshiro256PlusPlus::seed_from_u64(seed),
        }
    }

    /// Appends the next token; returns the text if it ends with it.
    fn push(
        &mut self,
        token: u32,
        tokenizer: &LmTokenizer,
        config: &GenerateConfig,
        context: usize,
    ) -> Result<Option<Generation>, GenerateError> {
        let ends = config.end.contains(&token);
        if !ends {
            self.tokens.push(token);
        }
        // A stop string may begin in an earlier token, so the whole text is searched.
        let mut text = tokenizer.decode(&self.tokens)?;
        let stop = config.stop.iter().filter_map(|stop| text.find(stop)).min();
        // The last token need not fit: nothing comes after it.
        let full = self.tokens.len() == config.max_tokens
            || self.prompt.len() + self.tokens.len() > context;
        let ending = match (stop, ends, full) {
            (Some(at), _, _) => {
                text.truncate(at);
                Ending::Stop
            }
            (None, true, _) => Ending::EndToken,
            (None, false, true) => Ending::Length,
            (None, false, false) => return Ok(None),
        };
        let tokens = std::mem::take(&mut self.tokens);
        Ok(Some(Generation {
            tokens,
            text,
            ending,
        }))
    }
}

/// Prompts first, then one token of each text at a time, until all have ended.
fn continue_texts(
    model: &CausalLm,
    tokenizer: &LmTokenizer,
    mut texts: Vec<Text<'_>>,
    config: &GenerateConfig,
    device: &Device,
) -> Result<Vec<(usize, Generation)>, GenerateError> {
    let head = model.head().transpose();
    let virtual_tokens = model.virtual_tokens();
    let [soft_prompt, _] = virtual_tokens;
    let context = model.context();
    let part = Part::sharing(texts.iter().map(|text| text.prompt), device);
    let mut past = Past::of(&part, virtual_tokens);
    let mut cache = vec![LayerCache::default(); model.depth()];
    let mut last = model.run_part(&part, true, Some(&mut cache));
    let mut done = Vec::new();
    loop {
        let chosen = choose(
            to_f32(affine(last, head.clone(), None)),
            texts.iter_mut().map(|text| &mut text.rng),
            &config.sampling,
        );
        let (mut left, mut next) = (Vec::new(), Vec::new());
        for (index, (text, token)) in texts.iter_mut().zip(chosen).enumerate() {
            match text.push(token, tokenizer, config, context)? {
                Some(generation) => done.push((text.row, generation)),
                None => {
                    left.push(index);
                    next.push(token);
                }
            }
        }
        if left.is_empty() {
            return Ok(done);
        }
        if left.len() < texts.len() {
            if part.padded.is_some() {
                let rows = ints(left.iter().map(|row| *row as i32).collect(), device);
                for layer in &mut cache {
                    let kept = layer.0.take();
                    layer.0 = kept.map(|kept| kept.map(|x| x.select(0, rows.clone())));
                }
            }
            texts = keep(texts, &left);
            past.keep(&left);
        }
        past.push();
        let position = |text: &Text<'_>| soft_prompt + text.prompt.len() + text.tokens.len() - 1;
        let positions = texts.iter().map(position).collect();
        let next = Part::going_on(&next, positions, past.clone(), device);
        last = model.run_part(&next, true, Some(&mut cache));
    }
}

/// The items at `places`, which are in ascending order.
fn keep<T>(items: Vec<T>, places: &[usize]) -> Vec<T> {
    let mut places = places.iter().peekable();
    let kept = |(index, item)| places.next_if(|place| **place == index).map(|_| item);
    items.into_iter().enumerate().filter_map(kept).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_checked() {
        let check = |config: GenerateConfig| config.validate().map_err(|e| e.to_string());
        assert!(check(GenerateConfig::default()).is_ok());
        let none = GenerateConfig {
            max_tokens: 0,
            ..Default::default()
        };
        assert!(check(none).unwrap_err().contains("max_tokens is 0"));
        let random = |temperature, top_p| {
            let sampling = Sampling::Random {
                temperature,
                top_k: 0,
                top_p,
                seed: 0,
            };
            check(GenerateConfig {
                sampling,
                ..Default::default()
            })
        };
        assert!(random(0.0, 1.0).unwrap_err().contains("temperature is 0"));
        assert!(random(1.0, 1.5).unwrap_err().contains("top_p is 1.5"));
        assert!(random(0.7, 0.9).is_ok());
        let stop = GenerateConfig {
            stop: vec![String::new()],
            ..Default::default()
        };
        assert!(check(stop).unwrap_err().contains("stop string"));
    }
}

//! Builds a tokenizer from the files of a folder.

use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value};
use tokenizers::models::ModelWrapper;
use tokenizers::models::bpe::BPE;
use tokenizers::normalizers::NormalizerWrapper;
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::processors::PostProcessorWrapper;
use tokenizers::{AddedToken, Encoding, PostProcessor, Token, Tokenizer};

use super::classes::{
    is_gpt2, is_llama, is_of_gpt2, is_of_llama, is_roberta, split_as_gpt2, split_as_llama,
};
use super::error::TokenizerError;
use super::sentencepiece::Model;
use super::special::{Special, object};
use super::{Contest, LmTokenizer};
use crate::files::guard::guarded;
use crate::files::read::read_text;
use crate::model::config::{Architecture, ModelConfig};

/// An added token as `tokenizer.json` lists it.
#[derive(Deserialize)]
struct Claim {
    id: u32,
    content: String,
}

/// The part of `tokenizer.json` that is read here.
#[derive(Deserialize)]
struct Listed {
    #[serde(default)]
    added_tokens: Vec<Claim>,
}

impl LmTokenizer {
    /// Loads `tokenizer.json` from the folder `dir`, or else GPT-2's byte-level BPE from `vocab.json` and `merges.txt` (as in OPT's
    /// and RoBERTa's folders), or else a sentencepiece model from `tokenizer.model` (as in the folders of Vicuna and Llama 2).
    ///
    /// First, last and added tokens are those that transformers 5 uses. `tokenizer.json`'s own post-processor says what
    /// goes around a text; for the other form, `tokenizer_config.json` does (`add_bos_token`, `add_eos_token`, `bos_token`,
    /// `eos_token`). Added and special tokens come from `tokenizer.json`, from `tokenizer_config.json` (`added_tokens_decoder`,
    /// `additional_special_tokens` and the like) and, unless that has an `added_tokens_decoder`, from `special_tokens_map.json` and
    /// `added_tokens.json`. The ids in `config.json` are used only if none of these files exists: an OPT's texts then begin with its
    /// `bos_token_id`.
    ///
    /// # Errors
    /// [`TokenizerError::Missing`] without these files, [`TokenizerError::Load`] when one of them is malformed.
    pub fn from_dir(dir: &Path, config: &ModelConfig) -> Result<Self, TokenizerError> {
        let [json, vocab, merges, model] = [
            "tokenizer.json",
            "vocab.json",
            "merges.txt",
            "tokenizer.model",
        ]
        .map(|name| dir.join(name));
        let mut special = Special::read(dir)?;
        let mut claims = Vec::new();
        let (place, built) = if json.exists() {
            let mut text = read_text(&json).map_err(|error| TokenizerError::load(&json, error))?;
            let listed: Listed =
                serde_json::from_str(&text).map_err(|error| TokenizerError::load(&json, error))?;
            let mut listed = listed.added_tokens;
            special.yield_ids(listed.iter().map(|claim| claim.id));
            let gpt2 = is_of_gpt2(&special, config);
            if gpt2 {
                special.fill();
                if special.complete {
                    // GPT-2's class then ignores the other list.
                    listed.clear();
                    text =
                        without_added(&text).map_err(|error| TokenizerError::load(&json, error))?;
                }
            }
            claims.extend(
                listed
                    .into_iter()
                    .map(|claim| (claim.id, claim.content, json.clone())),
            );
            let built = guarded(|| whole(&text, gpt2, config, &special));
            (&json, built)
        } else if vocab.exists() && merges.exists() {
            for path in [&vocab, &merges] {
                read_text(path).map_err(|error| TokenizerError::load(path, error))?;
            }
            is_gpt2(&special)?;
            match is_roberta(&special, config) {
                true => special.fill_roberta(),
                false if special.speaks => special.fill(),
                false => {}
            }
            let built = guarded(|| byte_level(&vocab, &merges, config, &special));
            (&vocab, built)
        } else if model.exists() {
            is_llama(&special)?;
            let read = guarded(|| Model::read(&model)).and_then(std::convert::identity);
            let read = read.map_err(|error| TokenizerError::load(&model, error))?;
            let built = guarded(|| sentencepiece(&read, config, &mut special));
            (&model, built)
        } else {
            return Err(TokenizerError::Missing {
                dir: dir.to_owned(),
            });
        };
        let failed = |message: String| TokenizerError::load(place, message);
        let Built {
            tokenizer,
            begin,
            end,
        } = built
            .map_err(failed)?
            .map_err(|error| failed(error.to_string()))?;

        let vocab_size = config.vocab_size();
        if let Some(id) = begin
            .iter()
            .chain(&end)
            .find(|id| **id as usize >= vocab_size)
        {
            let name = tokenizer.id_to_token(*id).unwrap_or_default();
            let message = format!(
                "it puts {name:?}, token {id}, around every text, but the model's vocabulary has {vocab_size} tokens"
            );
            return Err(TokenizerError::load(place, message));
        }
        let given = special.claims();
        claims.extend(given.map(|(id, token, path)| (id, token.to_owned(), path.to_owned())));
        let contest = |(claimed, token, path): (u32, String, _)| {
            let id = tokenizer.token_to_id(&token)?;
            (id != claimed).then_some((
                id,
                Contest {
                    token,
                    claimed,
                    path,
                },
            ))
        };
        let mask = match config.is_masked() {
            true => Some(mask(&tokenizer, &special, vocab_size).map_err(failed)?),
            false => None,
        };
        let contested = claims.into_iter().filter_map(contest).collect();
        let is_bpe = matches!(tokenizer.get_model(), ModelWrapper::BPE(_));
        Ok(Self {
            end_tokens: end_tokens(dir, config, &special, &tokenizer)?,
            clean_up: special.clean_up && (special.clean_up_bpe || !is_bpe),
            contested,
            mask,
            tokenizer,
            begin,
            end,
            vocab_size,
        })
    }
}

/// A tokenizer without post-processor, and the ids that go around each text.
struct Built {
    tokenizer: Tokenizer,
    begin: Vec<u32>,
    end: Vec<u32>,
}

/// The text of a `tokenizer.json` without its added tokens.
fn without_added(text: &str) -> serde_json::Result<String> {
    let mut file: Map<String, Value> = serde_json::from_str(text)?;
    file.insert("added_tokens".to_owned(), Value::Array(Vec::new()));
    serde_json::to_string(&file)
}

/// From `tokenizer.json`; `gpt2` says that it is of GPT-2's class.
fn whole(
    text: &str,
    gpt2: bool,
    config: &ModelConfig,
    special: &Special,
) -> tokenizers::Result<Built> {
    let mut tokenizer = Tokenizer::from_bytes(text)?;
    // GPT-2's class uses the vocabulary and the post-processor of the file, and splits texts in its own way.
    let bytes = matches!(
        tokenizer.get_pre_tokenizer(),
        Some(PreTokenizerWrapper::ByteLevel(_))
    );
    let bpe = matches!(tokenizer.get_model(), ModelWrapper::BPE(_));
    if gpt2 && bpe && (bytes || special.class.is_some()) {
        tokenizer.with_normalizer(None::<NormalizerWrapper>)?;
        split_as_gpt2(&mut tokenizer, special);
    }
    let llama = is_of_llama(special, config);
    let splits = serde_json::to_string(&tokenizer.get_pre_tokenizer())?;
    if let ModelWrapper::BPE(bpe) = tokenizer.get_model()
        && llama
        && !splits.contains("ByteLevel")
    {
        let bpe = bpe.clone();
        split_as_llama(&mut tokenizer, bpe, special)?;
    }
    special.add_to(&mut tokenizer)?;
    let (begin, end) = match tokenizer.get_post_processor() {
        Some(processor) => around(processor)?,
        None => Default::default(),
    };
    finish(tokenizer, special, begin, end)
}

/// The ids that a post-processor puts before and after a text.
fn around(processor: &PostProcessorWrapper) -> tokenizers::Result<(Vec<u32>, Vec<u32>)> {
    let text = || Encoding::from_tokens(vec![Token::new(0, "a".to_owned(), (0, 1))], 0);
    let encoding = processor.process(text(), None, true)?;
    let own: Vec<usize> = (0..encoding.len())
        .filter(|at| encoding.get_special_tokens_mask()[*at] == 0)
        .collect();
    let [at] = own[..] else {
        let message = format!(
            "its post-processor outputs a text {} times: once is expected",
            own.len()
        );
        return Err(message.into());
    };
    let ids = encoding.get_ids();
    Ok((ids[..at].to_vec(), ids[at + 1..].to_vec()))
}

/// The token that stands for a gap.
fn mask(tokenizer: &Tokenizer, special: &Special, vocab_size: usize) -> Result<u32, String> {
    let name = special.role("mask_token").unwrap_or("<mask>");
    let found = tokenizer.token_to_id(name);
    found.filter(|id| (*id as usize) < vocab_size).ok_or_else(|| {
        format!("it has no token {name:?} for a gap, which a masked language model needs (`mask_token` in tokenizer_config.json names it)")
    })
}

/// From sentencepiece's model.
fn sentencepiece(
    model: &Model,
    config: &ModelConfig,
    special: &mut Special,
) -> tokenizers::Result<Built> {
    let llama = is_of_llama(special, config);
    let mut tokenizer = if llama {
        let roles = [
            ("bos_token", "<s>"),
            ("eos_token", "</s>"),
            ("unk_token", "<unk>"),
        ];
        special.fill_with(roles.map(|(role, token)| (role, token.to_owned())));
        let bpe = model.by_id()?;
        let mut tokenizer = Tokenizer::new(bpe.clone());
        split_as_llama(&mut tokenizer, bpe, special)?;
        tokenizer.with_decoder(Some(Model::llama_decoder(special)?));
        tokenizer
    } else {
        let roles = model.roles().into_iter();
        special.fill_with(roles.filter_map(|(role, token)| Some((role, token?))));
        let names = special.claims();
        let names = names.map(|(id, name, _)| (id, name.to_owned())).collect();
        model.tokenizer(special, &names)?
    };
    tokenizer.add_tokens(model.added(!llama))?;
    special.add_to(&mut tokenizer)?;
    let (begin, end) = surround(&tokenizer, special);
    finish(tokenizer, special, begin, end)
}

/// The tokens that `tokenizer_config.json` puts around a text.
fn surround(tokenizer: &Tokenizer, special: &Special) -> (Vec<u32>, Vec<u32>) {
    let around = |wanted: bool, role: &str| -> Vec<u32> {
        let token = special.role(role).filter(|_| wanted);
        let id = token.and_then(|token| tokenizer.token_to_id(token));
        id.into_iter().collect()
    };
    (
        around(special.add_bos, "bos_token"),
        around(special.add_eos, "eos_token"),
    )
}

/// GPT-2's byte-level BPE, which OPT shares.
fn byte_level(
    vocab: &Path,
    merges: &Path,
    config: &ModelConfig,
    special: &Special,
) -> tokenizers::Result<Built> {
    let bpe = BPE::from_file(&vocab.to_string_lossy(), &merges.to_string_lossy()).build()?;
    let mut tokenizer = Tokenizer::new(bpe);
    split_as_gpt2(&mut tokenizer, special);
    if is_roberta(special, config) {
        special.add_to(&mut tokenizer)?;
        let id = |role: &str| tokenizer.token_to_id(special.role(role)?);
        let (begin, end) = (id("cls_token"), id("sep_token"));
        let around = [begin, end].map(|id| id.into_iter().collect());
        let [begin, end] = around;
        return finish(tokenizer, special, begin, end);
    }
    if !special.speaks {
        return by_config(tokenizer, config, special);
    }
    special.add_to(&mut tokenizer)?;
    let (begin, end) = surround(&tokenizer, special);
    finish(tokenizer, special, begin, end)
}

/// The special tokens of `config.json`, for a folder with nothing but a vocabulary.
fn by_config(
    mut tokenizer: Tokenizer,
    config: &ModelConfig,
    special: &Special,
) -> tokenizers::Result<Built> {
    let ids = config.bos_token_id().into_iter();
    let ids = ids.chain(config.eos_token_ids().iter().copied());
    let tokens: Vec<AddedToken> = ids
        .chain([config.pad_token_id()])
        .filter_map(|id| tokenizer.id_to_token(id))
        .map(|token| AddedToken::from(token, true))
        .collect();
    // `</s>` in a text is one token, not four.
    tokenizer.add_special_tokens(tokens)?;
    special.add_to(&mut tokenizer)?;
    // Every text that OPT was trained on begins with it.
    let opt = config.architecture() == Architecture::Opt;
    let begin = config.bos_token_id().filter(|_| opt);
    finish(tokenizer, special, begin.into_iter().collect(), Vec::new())
}

fn finish(
    mut tokenizer: Tokenizer,
    special: &Special,
    begin: Vec<u32>,
    end: Vec<u32>,
) -> tokenizers::Result<Built> {
    // A file may contain the padding and truncation settings of someone's batch.
    tokenizer.with_padding(None);
    tokenizer.with_truncation(None)?;
    tokenizer.with_post_processor(None::<PostProcessorWrapper>);
    tokenizer.set_encode_special_tokens(special.split);
    Ok(Built {
        tokenizer,
        begin,
        end,
    })
}

/// See [`LmTokenizer::end_tokens`].
fn end_tokens(
    dir: &Path,
    config: &ModelConfig,
    special: &Special,
    tokenizer: &Tokenizer,
) -> Result<Vec<u32>, TokenizerError> {
    let named = special.role("eos_token");
    let mut ends: Vec<u32> = named
        .and_then(|token| tokenizer.token_to_id(token))
        .into_iter()
        .collect();
    let path = dir.join("generation_config.json");
    if let Some(fields) = object(&path)? {
        let value = fields.get("eos_token_id").unwrap_or(&Value::Null);
        let ids = match value {
            Value::Null => &[][..],
            Value::Array(ids) => ids,
            id => std::slice::from_ref(id),
        };
        for id in ids {
            let number = id.as_i64().ok_or_else(|| {
                let message =
                    format!("`eos_token_id` is {value}, not a token id or a list of them");
                TokenizerError::load(&path, message)
            })?;
            // Some files write -1 for none.
            ends.extend(u32::try_from(number));
        }
    }
    ends.retain(|id| (*id as usize) < config.vocab_size());
    if ends.is_empty() {
        ends = config.eos_token_ids().to_vec();
    }
    ends.sort_unstable();
    ends.dedup();
    Ok(ends)
}

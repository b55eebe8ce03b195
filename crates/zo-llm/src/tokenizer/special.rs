//! What a folder says about special and added tokens besides its vocabulary, as transformers 5 resolves it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};
use tokenizers::{AddedToken, Tokenizer};

use super::error::TokenizerError;
use crate::files::read::read_text;

/// The special tokens with a role, in the order in which they are added.
const ROLES: [&str; 7] = [
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
];

/// transformers' own name for it.
const FOR_BPE: &str = "clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output";

/// `tokenizer_config.json`, `special_tokens_map.json` and `added_tokens.json`.
#[derive(Debug, Default)]
pub(super) struct Special {
    /// Whether one of the files exists.
    pub(super) speaks: bool,
    /// `tokenizer_class`, and the file that names it.
    pub(super) class: Option<(String, PathBuf)>,
    pub(super) add_bos: bool,
    pub(super) add_eos: bool,
    pub(super) add_prefix_space: bool,
    /// Whether `add_prefix_space` is said to be false.
    pub(super) no_prefix_space: bool,
    /// Llama's: whether a space goes before each part of a text between special tokens, not just the first.
    pub(super) legacy: bool,
    /// Whether `legacy` is said to be false.
    pub(super) not_legacy: bool,
    /// Whether spaces before punctuation are left out of decoded texts, and whether those of a BPE too.
    pub(super) clean_up: bool,
    pub(super) clean_up_bpe: bool,
    /// Whether `added_tokens_decoder` lists all added tokens.
    pub(super) complete: bool,
    /// Whether special tokens in a text are split like other words.
    pub(super) split: bool,
    /// The tokens with a role; `None` for one that the folder says is absent.
    roles: BTreeMap<String, Option<AddedToken>>,
    /// Special tokens without a role.
    extra: Vec<AddedToken>,
    /// Added tokens by the ids that a file gives them.
    added: BTreeMap<u32, AddedToken>,
    /// That file.
    added_by: PathBuf,
}

impl Special {
    /// Reads the files that exist. An `added_tokens_decoder` in `tokenizer_config.json` overrides the two older files.
    pub(super) fn read(dir: &Path) -> Result<Self, TokenizerError> {
        let path = dir.join("tokenizer_config.json");
        let mut special = Self::default();
        let config = object(&path)?;
        if let Some(config) = &config {
            special.speaks = true;
            let flag = |key: &str| flag(config, key, &path);
            (special.add_bos, special.add_eos) = (flag("add_bos_token")?, flag("add_eos_token")?);
            special.add_prefix_space = flag("add_prefix_space")?;
            special.no_prefix_space = config.get("add_prefix_space") == Some(&Value::Bool(false));
            special.legacy = flag("legacy")?;
            special.not_legacy = config.get("legacy") == Some(&Value::Bool(false));
            special.split = flag("split_special_tokens")?;
            special.clean_up = flag("clean_up_tokenization_spaces")?;
            special.clean_up_bpe = flag(FOR_BPE)?;
            let class = config.get("tokenizer_class").and_then(Value::as_str);
            special.class = class.map(|class| (class.to_owned(), path.clone()));
            special.name(config, &path)?;
            let own = |key: &&String| key.ends_with("_token") && !ROLES.contains(&key.as_str());
            for key in config.keys().filter(own) {
                if let Value::String(_) = config[key] {
                    special.extra.push(token(&config[key], true, key, &path)?);
                }
            }
            let keys = ["extra_special_tokens", "additional_special_tokens"];
            let listed = keys.iter().find(|key| !is_empty(config.get(**key)));
            special.list(config, listed.copied(), &path)?;
            if let Some(decoder) = config.get("added_tokens_decoder") {
                special.complete = true;
                special.added_by.clone_from(&path);
                let bad =
                    || TokenizerError::load(&path, "`added_tokens_decoder` must map ids to tokens");
                for (id, value) in decoder.as_object().ok_or_else(bad)? {
                    let id = id.parse().map_err(|_| bad())?;
                    let token = token(value, false, "added_tokens_decoder", &path)?;
                    special.added.insert(id, token);
                }
            }
        }
        if !special.complete {
            special.read_older(dir)?;
        }
        Ok(special)
    }

    fn read_older(&mut self, dir: &Path) -> Result<(), TokenizerError> {
        let path = dir.join("special_tokens_map.json");
        if let Some(map) = object(&path)? {
            self.speaks = true;
            self.name(&map, &path)?;
            for key in ["extra_special_tokens", "additional_special_tokens"] {
                self.list(&map, Some(key), &path)?;
            }
        }
        let path = dir.join("added_tokens.json");
        if let Some(ids) = object(&path)? {
            for (content, id) in &ids {
                let number = id.as_u64().and_then(|id| u32::try_from(id).ok());
                let id = number.ok_or_else(|| {
                    let message = format!("the id of {content:?} is {id}, not a whole number");
                    TokenizerError::load(&path, message)
                })?;
                let token = AddedToken::from(content.clone(), self.is_special(content));
                self.added.insert(id, token);
            }
            self.added_by = path;
        }
        Ok(())
    }

    /// Fills in the roles for which GPT-2's tokenizer has a token, whether or not the vocabulary has it.
    pub(super) fn fill(&mut self) {
        for role in ["bos_token", "eos_token", "unk_token"] {
            let default = || Some(AddedToken::from("<|endoftext|>", true));
            self.roles.entry(role.to_owned()).or_insert_with(default);
        }
    }

    /// Fills in the roles that the folder does not mention.
    pub(super) fn fill_with<'a>(&mut self, roles: impl IntoIterator<Item = (&'a str, String)>) {
        for (role, token) in roles {
            let default = || Some(AddedToken::from(token, true));
            self.roles.entry(role.to_owned()).or_insert_with(default);
        }
    }

    /// Fills in RoBERTa's special tokens.
    pub(super) fn fill_roberta(&mut self) {
        let roles = [
            ("bos_token", "<s>"),
            ("eos_token", "</s>"),
            ("sep_token", "</s>"),
            ("cls_token", "<s>"),
            ("unk_token", "<unk>"),
            ("pad_token", "<pad>"),
            ("mask_token", "<mask>"),
        ];
        self.fill_with(roles.map(|(role, token)| (role, token.to_owned())));
    }

    /// Drops the tokens of `added_tokens.json` whose ids `tokenizer.json` gives to its own.
    pub(super) fn yield_ids(&mut self, ids: impl Iterator<Item = u32>) {
        if !self.complete {
            ids.for_each(|id| drop(self.added.remove(&id)));
        }
    }

    fn is_special(&self, content: &str) -> bool {
        let roles = self.roles.values().flatten();
        let mut all = roles.chain(&self.extra);
        all.any(|token| token.content == content)
    }

    /// Reads the tokens with a role; a file read later takes precedence.
    fn name(&mut self, fields: &Map<String, Value>, path: &Path) -> Result<(), TokenizerError> {
        for role in ROLES {
            if let Some(value) = fields.get(role) {
                let token = match value {
                    Value::Null => None,
                    value => Some(token(value, true, role, path)?),
                };
                self.roles.insert(role.to_owned(), token);
            }
        }
        Ok(())
    }

    /// Reads special tokens from a list, or from an object of further roles.
    fn list(
        &mut self,
        fields: &Map<String, Value>,
        key: Option<&str>,
        path: &Path,
    ) -> Result<(), TokenizerError> {
        let Some((key, value)) = key.and_then(|key| Some((key, fields.get(key)?))) else {
            return Ok(());
        };
        let values: Vec<&Value> = match value {
            Value::Null => Vec::new(),
            Value::Array(list) => list.iter().collect(),
            Value::Object(roles) => roles.values().collect(),
            _ => {
                return Err(TokenizerError::load(
                    path,
                    format!("`{key}` is not a list of tokens"),
                ));
            }
        };
        for value in values {
            self.extra.push(token(value, true, key, path)?);
        }
        Ok(())
    }

    /// The token in a role.
    pub(super) fn role(&self, role: &str) -> Option<&str> {
        let token = self.roles.get(role)?.as_ref();
        token.map(|token| token.content.as_str())
    }

    /// Id and text of the added tokens, and the file that lists them.
    pub(super) fn claims(&self) -> impl Iterator<Item = (u32, &str, &Path)> {
        self.added
            .iter()
            .map(|(id, token)| (*id, token.content.as_str(), self.added_by.as_path()))
    }

    /// Adds all tokens: those with ids in order, then the special ones that are still missing.
    ///
    /// # Errors
    /// If a token cannot be added.
    pub(super) fn add_to(&self, tokenizer: &mut Tokenizer) -> tokenizers::Result<()> {
        let mut tokens: Vec<AddedToken> = self.added.values().cloned().collect();
        let there = tokenizer.get_added_tokens_decoder();
        let roles = ROLES.iter();
        let roles = roles.filter_map(|role| Some((true, self.roles.get(*role)?.as_ref()?)));
        // A token with a role is special, whatever a list says about it.
        for (role, token) in roles.chain(self.extra.iter().map(|token| (false, token))) {
            let same = |other: &&AddedToken| other.content == token.content;
            if let Some(known) = tokens.iter_mut().find(|other| same(&&**other)) {
                known.special |= role;
            } else if let Some(known) = there.values().find(same) {
                // Added again, it keeps its id.
                if role && !known.special {
                    tokens.push(known.clone().special(true));
                }
            } else {
                tokens.push(token.clone().special(true));
            }
        }
        tokenizer.add_tokens(tokens)?;
        Ok(())
    }
}

/// A JSON object in a file that may be absent.
pub(super) fn object(path: &Path) -> Result<Option<Map<String, Value>>, TokenizerError> {
    if !path.exists() {
        return Ok(None);
    }
    let text = read_text(path).map_err(|error| TokenizerError::load(path, error))?;
    let value = serde_json::from_str(&text).map_err(|error| TokenizerError::load(path, error));
    match value? {
        Value::Object(fields) => Ok(Some(fields)),
        _ => Err(TokenizerError::load(path, "it is not a JSON object")),
    }
}

fn flag(fields: &Map<String, Value>, key: &str, path: &Path) -> Result<bool, TokenizerError> {
    match fields.get(key) {
        None | Some(Value::Null) => Ok(false),
        Some(Value::Bool(on)) => Ok(*on),
        Some(other) => {
            let message = format!("`{key}` is {other}, not true or false");
            Err(TokenizerError::load(path, message))
        }
    }
}

fn is_empty(value: Option<&Value>) -> bool {
    match value {
        Some(Value::Array(list)) => list.is_empty(),
        Some(Value::Object(fields)) => fields.is_empty(),
        None | Some(Value::Null) => true,
        Some(_) => false,
    }
}

/// A token, as text or as an object. An object may say whether it is special; `special` is the default.
fn token(
    value: &Value,
    special: bool,
    key: &str,
    path: &Path,
) -> Result<AddedToken, TokenizerError> {
    let bad = || TokenizerError::load(path, format!("`{key}` holds {value}, which is not a token"));
    let fields = match value {
        Value::String(content) => return Ok(AddedToken::from(content.clone(), special)),
        Value::Object(fields) => fields,
        _ => return Err(bad()),
    };
    let content = fields.get("content").and_then(Value::as_str);
    let flag = |key: &str| fields.get(key).and_then(Value::as_bool);
    let special = special || flag("special").unwrap_or(false);
    Ok(
        AddedToken::from(content.ok_or_else(bad)?.to_owned(), special)
            .single_word(flag("single_word").unwrap_or(false))
            .lstrip(flag("lstrip").unwrap_or(false))
            .rstrip(flag("rstrip").unwrap_or(false))
            .normalized(flag("normalized").unwrap_or(!special)),
    )
}

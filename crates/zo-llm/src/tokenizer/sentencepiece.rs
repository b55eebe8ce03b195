//! `tokenizer.model`: sentencepiece's BPE and unigram models, converted as transformers 5 does.

use std::collections::BTreeMap;
use std::path::Path;

use prost::Message;
use tokenizers::decoders::DecoderWrapper;
use tokenizers::decoders::byte_fallback::ByteFallback;
use tokenizers::decoders::fuse::Fuse;
use tokenizers::decoders::sequence::Sequence as Decoders;
use tokenizers::decoders::strip::Strip;
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::models::unigram::Unigram;
use tokenizers::normalizers::replace::ReplacePattern;
use tokenizers::normalizers::{NormalizerWrapper, Precompiled, Replace, Sequence as Normalizers};
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::metaspace::{Metaspace, PrependScheme};
use tokenizers::pre_tokenizers::sequence::Sequence as PreTokenizers;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{AddedToken, SplitDelimiterBehavior, Tokenizer};

use super::special::Special;

/// The parts of sentencepiece's `ModelProto` that are used here.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Model {
    #[prost(message, repeated, tag = "1")]
    pieces: Vec<Piece>,
    #[prost(message, optional, tag = "2")]
    trainer: Option<Trainer>,
    #[prost(message, optional, tag = "3")]
    normalizer: Option<Normalizer>,
}

#[derive(Clone, PartialEq, Message)]
struct Piece {
    #[prost(string, optional, tag = "1")]
    text: Option<String>,
    #[prost(float, optional, tag = "2")]
    score: Option<f32>,
    #[prost(int32, optional, tag = "3", default = "1")]
    kind: Option<i32>,
}

#[derive(Clone, PartialEq, Message)]
struct Trainer {
    #[prost(int32, optional, tag = "3", default = "1")]
    kind: Option<i32>,
    #[prost(bool, optional, tag = "35")]
    byte_fallback: Option<bool>,
    #[prost(int32, optional, tag = "40")]
    unk_id: Option<i32>,
    #[prost(int32, optional, tag = "41", default = "1")]
    bos_id: Option<i32>,
    #[prost(int32, optional, tag = "42", default = "2")]
    eos_id: Option<i32>,
    #[prost(string, optional, tag = "45", default = "<unk>")]
    unk_piece: Option<String>,
    #[prost(string, optional, tag = "46", default = "<s>")]
    bos_piece: Option<String>,
    #[prost(string, optional, tag = "47", default = "</s>")]
    eos_piece: Option<String>,
}

#[derive(Clone, PartialEq, Message)]
struct Normalizer {
    #[prost(bytes = "vec", optional, tag = "2")]
    precompiled_charsmap: Option<Vec<u8>>,
    #[prost(bool, optional, tag = "3", default = "true")]
    add_dummy_prefix: Option<bool>,
    #[prost(bool, optional, tag = "4", default = "true")]
    remove_extra_whitespaces: Option<bool>,
    #[prost(bool, optional, tag = "5", default = "true")]
    escape_whitespaces: Option<bool>,
}

// The kinds of models and pieces, as sentencepiece numbers them.
const UNIGRAM: i32 = 1;
const BYTE_PAIRS: i32 = 2;
const NORMAL: i32 = 1;
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;

impl Model {
    /// Reads the file.
    pub(super) fn read(path: &Path) -> Result<Self, String> {
        let bytes = std::fs::read(path).map_err(|error| error.to_string())?;
        let model = Self::decode(&bytes[..])
            .map_err(|error| format!("it is not a sentencepiece model ({error})"))?;
        match model.trainer().kind() {
            _ if model.pieces.is_empty() => Err("it holds no pieces".to_owned()),
            UNIGRAM | BYTE_PAIRS => Ok(model),
            other => Err(format!(
                "it is a sentencepiece model of kind {other}: only unigram (1) and BPE (2) are supported"
            )),
        }
    }

    fn trainer(&self) -> Trainer {
        self.trainer.clone().unwrap_or_default()
    }

    /// The special tokens that a folder has unless it says otherwise.
    pub(super) fn roles(&self) -> [(&'static str, Option<String>); 3] {
        let trainer = self.trainer();
        let token = |id: i32, piece: &str| (id >= 0).then(|| piece.to_owned());
        [
            ("bos_token", token(trainer.bos_id(), trainer.bos_piece())),
            ("eos_token", token(trainer.eos_id(), trainer.eos_piece())),
            ("unk_token", token(trainer.unk_id(), trainer.unk_piece())),
        ]
    }

    /// The pieces that stand for themselves in a text: those that control, which are special, and, unless `whole`, those that users define.
    pub(super) fn added(&self, whole: bool) -> Vec<AddedToken> {
        let kept =
            |piece: &&Piece| piece.kind() == CONTROL || piece.kind() == USER_DEFINED && !whole;
        let token = |piece: &Piece| {
            AddedToken::from(piece.text(), piece.kind() == CONTROL).normalized(false)
        };
        self.pieces.iter().filter(kept).map(token).collect()
    }

    /// All pieces as a BPE, merged in the order of their ids: what Llama's class reads in any file.
    pub(super) fn by_id(&self) -> tokenizers::Result<BPE> {
        let ids: BTreeMap<&str, u32> = self.ids().map(|(id, piece)| (piece.text(), id)).collect();
        let mut merges = Vec::new();
        for (&text, &id) in &ids {
            for (left, right) in cuts(text) {
                if ids.contains_key(left) && ids.contains_key(right) {
                    merges.push((id, left.chars().count(), left, right));
                }
            }
        }
        merges.sort_unstable();
        let merges = merges
            .into_iter()
            .map(|(.., left, right)| (left.to_owned(), right.to_owned()));
        BPE::builder()
            .vocab_and_merges(owned(&ids), merges.collect())
            .build()
    }

    fn ids(&self) -> impl Iterator<Item = (u32, &Piece)> {
        self.pieces
            .iter()
            .enumerate()
            .map(|(id, piece)| (id as u32, piece))
    }

    /// The decoder of Llama's class.
    pub(super) fn llama_decoder(special: &Special) -> tokenizers::Result<Decoders> {
        let mut decoders: Vec<DecoderWrapper> = vec![
            Replace::new("▁", " ")?.into(),
            ByteFallback::new().into(),
            Fuse::new().into(),
        ];
        if !special.no_prefix_space {
            decoders.push(Strip::new(' ', 1, 0).into());
        }
        Ok(Decoders::new(decoders))
    }

    /// A tokenizer that splits as sentencepiece does with the settings of the file. `names` are those that the folder gives to some ids.
    pub(super) fn tokenizer(
        &self,
        special: &Special,
        names: &BTreeMap<u32, String>,
    ) -> tokenizers::Result<Tokenizer> {
        let trainer = self.trainer();
        let byte_fallback = trainer.byte_fallback();
        let mut tokenizer = if trainer.kind() == BYTE_PAIRS {
            Tokenizer::new(self.by_score(&trainer, names)?)
        } else {
            let vocab = self.pieces.iter();
            let vocab = vocab.map(|piece| (piece.text().to_owned(), f64::from(piece.score())));
            let unknown = usize::try_from(trainer.unk_id()).ok();
            Tokenizer::new(Unigram::from(vocab.collect(), unknown, byte_fallback)?)
        };

        let settings = self.normalizer.clone().unwrap_or_default();
        let prefix = settings.add_dummy_prefix();
        // Each part of a text between added tokens begins with the prefix, unless the folder says that only the first does.
        let legacy = !special.not_legacy;
        let replace = |pattern: &str, content: &str| {
            let pattern = ReplacePattern::Regex(pattern.to_owned());
            Replace::new(pattern, content).map(NormalizerWrapper::from)
        };
        let mut normalizers: Vec<NormalizerWrapper> = Vec::new();
        if !settings.precompiled_charsmap().is_empty() {
            normalizers.push(Precompiled::from(settings.precompiled_charsmap())?.into());
        }
        if settings.remove_extra_whitespaces() {
            normalizers.push(replace(r"\A +| +\z", "")?);
            normalizers.push(replace(" {2,}", " ")?);
        }
        if settings.escape_whitespaces() {
            normalizers.push(replace(" ", "▁")?);
        }
        if prefix && legacy {
            // A text that begins with the mark still gets another.
            normalizers.push(replace(r"\A▁", "▁▁")?);
        }
        tokenizer.with_normalizer(Some(Normalizers::new(normalizers)))?;

        let mut splits: Vec<PreTokenizerWrapper> = Vec::new();
        if prefix {
            let scheme = match legacy {
                true => PrependScheme::Always,
                false => PrependScheme::First,
            };
            splits.push(Metaspace::new('▁', scheme, false).into());
        }
        if let Some(pattern) = self.user_defined(names) {
            let pattern = SplitPattern::Regex(pattern);
            let split = Split::new(pattern, SplitDelimiterBehavior::Isolated, false)?;
            splits.push(split.into());
        }
        if !splits.is_empty() {
            tokenizer.with_pre_tokenizer(Some(PreTokenizers::new(splits)));
        }

        let mut decoders: Vec<DecoderWrapper> = vec![Replace::new("▁", " ")?.into()];
        if byte_fallback {
            decoders.push(ByteFallback::new().into());
        }
        if prefix {
            decoders.push(Fuse::new().into());
            decoders.push(Strip::new(' ', 1, 0).into());
        } else if byte_fallback {
            decoders.push(Fuse::new().into());
        }
        tokenizer.with_decoder(Some(Decoders::new(decoders)));
        Ok(tokenizer)
    }

    /// The name of a piece in the vocabulary.
    fn name<'a>(&'a self, id: u32, piece: &'a Piece, names: &'a BTreeMap<u32, String>) -> &'a str {
        // Two pieces may swap names; a name that a piece keeps cannot be given to another.
        let kept = |name: &str| {
            (self.ids()).any(|(id, piece)| piece.text() == name && !names.contains_key(&id))
        };
        match names.get(&id) {
            Some(name) if name != piece.text() && !kept(name) => name,
            _ => piece.text(),
        }
    }

    /// A BPE of the normal pieces, merged in the order of their scores.
    fn by_score(
        &self,
        trainer: &Trainer,
        names: &BTreeMap<u32, String>,
    ) -> tokenizers::Result<BPE> {
        let all = self
            .ids()
            .map(|(id, piece)| (self.name(id, piece, names), id));
        let ids: BTreeMap<&str, u32> = all.collect();
        let normal = self.ids().filter(|(_, piece)| piece.kind() == NORMAL);
        let normal = normal.map(|(id, piece)| (self.name(id, piece, names), (piece.score(), id)));
        let normal: BTreeMap<&str, (f32, u32)> = normal.collect();
        let mut merges = Vec::new();
        for (&text, &(score, id)) in &normal {
            for (left, right) in cuts(text) {
                if normal.contains_key(left) && normal.contains_key(right) {
                    merges.push((score, id, left, right));
                }
            }
        }
        merges.sort_by(|a, b| {
            b.0.total_cmp(&a.0)
                .then((a.1, a.2, a.3).cmp(&(b.1, b.2, b.3)))
        });
        let merges = merges
            .into_iter()
            .map(|(.., left, right)| (left.to_owned(), right.to_owned()));
        BPE::builder()
            .vocab_and_merges(owned(&ids), merges.collect())
            .unk_token(trainer.unk_piece().to_owned())
            .fuse_unk(true)
            .byte_fallback(trainer.byte_fallback())
            .ignore_merges(self.user_defined(names).is_some())
            .build()
    }

    /// An expression for the pieces that users have defined, which are never merged; the longest match counts.
    fn user_defined(&self, names: &BTreeMap<u32, String>) -> Option<String> {
        let defined = self.ids().filter(|(_, piece)| piece.kind() == USER_DEFINED);
        let mut defined: Vec<&str> = defined
            .map(|(id, piece)| self.name(id, piece, names))
            .collect();
        defined.sort_by_key(|text| std::cmp::Reverse(text.chars().count()));
        let escaped: Vec<String> = defined
            .iter()
            .map(|text| fancy_regex::escape(text).into_owned())
            .collect();
        (!escaped.is_empty()).then(|| escaped.join("|"))
    }
}

/// All ways to cut a text in two.
fn cuts(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let places = text.char_indices().skip(1);
    places.map(|(at, _)| text.split_at(at))
}

fn owned(ids: &BTreeMap<&str, u32>) -> Vocab {
    ids.iter()
        .map(|(text, id)| ((*text).to_owned(), *id))
        .collect()
}

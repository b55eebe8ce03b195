//! What transformers' tokenizer classes do, whatever a file says.

use tokenizers::Tokenizer;
use tokenizers::models::bpe::BPE;
use tokenizers::normalizers::NormalizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::metaspace::{Metaspace, PrependScheme};

use super::error::TokenizerError;
use super::special::Special;
use crate::model::config::{Architecture, Family, ModelConfig};

/// The classes that read `vocab.json` and `merges.txt` as GPT-2 does.
pub(super) const GPT2: [&str; 2] = ["GPT2Tokenizer", "GPT2TokenizerFast"];

/// The classes that do the same, with RoBERTa's special tokens.
pub(super) const ROBERTA: [&str; 2] = ["RobertaTokenizer", "RobertaTokenizerFast"];

/// The classes that split texts as Llama 2 does, except where the file splits them into bytes, as Llama 3 does.
pub(super) const LLAMA: [&str; 2] = ["LlamaTokenizer", "LlamaTokenizerFast"];

/// An error if the folder's tokenizer is of a class that splits texts differently.
pub(super) fn is_gpt2(special: &Special) -> Result<(), TokenizerError> {
    match &special.class {
        Some((class, path))
            if !GPT2.contains(&class.as_str()) && !ROBERTA.contains(&class.as_str()) =>
        {
            let message = format!(
                "`tokenizer_class` is {class}, but vocab.json with merges.txt can only be read as GPT2Tokenizer or RobertaTokenizer: a tokenizer.json is needed"
            );
            Err(TokenizerError::load(path, message))
        }
        _ => Ok(()),
    }
}

/// Whether a folder's tokenizer is RoBERTa's.
pub(super) fn is_roberta(special: &Special, config: &ModelConfig) -> bool {
    match &special.class {
        Some((class, _)) => ROBERTA.contains(&class.as_str()),
        None => config.is_masked(),
    }
}

/// Whether transformers sets the class that a folder names aside, and does what `tokenizer.json` says.
fn sets_class_aside(config: &ModelConfig) -> bool {
    config.architecture() == Architecture::Decoder(Family::Mistral)
}

/// Whether a folder's tokenizer is of Llama's class.
pub(super) fn is_of_llama(special: &Special, config: &ModelConfig) -> bool {
    let named = (special.class.as_ref()).is_some_and(|(class, _)| LLAMA.contains(&class.as_str()));
    named && !sets_class_aside(config)
}

/// Whether a folder with a `tokenizer.json` is read by GPT-2's class.
pub(super) fn is_of_gpt2(special: &Special, config: &ModelConfig) -> bool {
    match &special.class {
        Some((class, _)) => GPT2.contains(&class.as_str()) && !sets_class_aside(config),
        None => config.architecture() == Architecture::Opt,
    }
}

/// An error if a folder with a `tokenizer.model` alone says that its tokenizer is of a class with rules of its own.
pub(super) fn is_llama(special: &Special) -> Result<(), TokenizerError> {
    const PLAIN: [&str; 3] = [
        "PreTrainedTokenizer",
        "PreTrainedTokenizerFast",
        "TokenizersBackend",
    ];
    match &special.class {
        Some((class, path))
            if !LLAMA.contains(&class.as_str()) && !PLAIN.contains(&class.as_str()) =>
        {
            let message = format!(
                "`tokenizer_class` is {class}, but tokenizer.model can only be read as LlamaTokenizer or PreTrainedTokenizerFast: a \
                 tokenizer.json is needed"
            );
            Err(TokenizerError::load(path, message))
        }
        _ => Ok(()),
    }
}

/// Splits texts as Llama's class does, which uses the vocabulary, the merges, the post-processor and the decoder of the file.
pub(super) fn split_as_llama(
    tokenizer: &mut Tokenizer,
    mut bpe: BPE,
    special: &Special,
) -> tokenizers::Result<()> {
    (bpe.unk_token, bpe.fuse_unk, bpe.byte_fallback) = (None, true, true);
    tokenizer.with_model(bpe);
    tokenizer.with_normalizer(None::<NormalizerWrapper>)?;
    let scheme = match (special.no_prefix_space, special.legacy) {
        (true, _) => PrependScheme::Never,
        (false, true) => PrependScheme::Always,
        (false, false) => PrependScheme::First,
    };
    tokenizer.with_pre_tokenizer(Some(Metaspace::new('▁', scheme, false)));
    Ok(())
}

/// Splits texts as GPT-2's class does: `tokenizer_config.json` alone says whether one begins with a space.
pub(super) fn split_as_gpt2(tokenizer: &mut Tokenizer, special: &Special) {
    let bytes = ByteLevel::new(special.add_prefix_space, true, true);
    tokenizer.with_pre_tokenizer(Some(bytes));
    tokenizer.with_decoder(Some(ByteLevel::new(false, true, true)));
}

//! Which tensor of the files is which parameter of the model, and which tensors are ignored.

use std::collections::BTreeSet;
use std::path::Path;

use super::error::{LoadError, Mismatch};
use super::slots::{HEAD_BIAS, Slot, file_name};
use crate::files::tensor_file::{TensorFiles, is_float};
use crate::model::config::{Architecture, ConfigError, LlamaConfig, ModelConfig};
use crate::model::rope::inverse_frequencies;

/// The name of the head's matrix.
fn head(config: &ModelConfig) -> &'static str {
    match config.architecture() {
        Architecture::Opt | Architecture::Decoder(_) => "lm_head.weight",
        Architecture::Roberta => "lm_head.decoder.weight",
    }
}

/// The rotary frequencies that older versions of transformers stored with each layer.
const FREQUENCIES: &str = "rotary_emb.inv_freq";

/// The names under which a parameter may be stored: transformers also omits the `model.` where the folder was written without a
/// head.
fn candidates(path: &str) -> Vec<String> {
    if let Some(at) = HEAD_BIAS.iter().position(|name| *name == path) {
        return [path, HEAD_BIAS[1 - at]].map(str::to_owned).to_vec();
    }
    let name = file_name(path);
    let short = name.strip_prefix("roberta.").unwrap_or(path).to_owned();
    let mut names = vec![name, short];
    names.dedup();
    names
}

/// The path of the embeddings, which are the head of a tied model.
fn embeddings(config: &ModelConfig) -> &'static str {
    match config.architecture() {
        Architecture::Opt => "decoder.embed_tokens.weight",
        Architecture::Decoder(_) => "embed_tokens.weight",
        Architecture::Roberta => "embeddings.word_embeddings.weight",
    }
}

/// An error if the configuration asks for more layers than the files can hold: a model of that depth is not even started.
pub(super) fn check_depth(
    dir: &Path,
    config: &ModelConfig,
    files: &TensorFiles,
) -> Result<(), LoadError> {
    let (layers, tensors) = (config.num_hidden_layers(), files.len());
    if layers <= tensors {
        return Ok(());
    }
    let place = dir.join("config.json").display().to_string();
    let expected = format!("at most {tensors}, the number of tensors in the weights");
    let error = ConfigError::invalid(&place, "num_hidden_layers", layers, &expected);
    Err(error.into())
}

/// Whether the files hold a head that differs from the embeddings to which the configuration ties it.
pub(super) fn has_own_head(config: &ModelConfig, files: &TensorFiles) -> Result<bool, LoadError> {
    let embeddings = candidates(embeddings(config));
    let embeddings = embeddings
        .iter()
        .find_map(|name| files.entries.get_key_value(name));
    let head_name = head(config);
    let (Some(head), Some((name, embeddings))) = (files.entries.get(head_name), embeddings) else {
        return Ok(false);
    };
    if !config.is_tied() {
        return Ok(false);
    }
    let comparable = is_float(head.dtype) && is_float(embeddings.dtype);
    Ok(!(comparable && head.shape == embeddings.shape && files.equal(head_name, name)?))
}

/// Finds each slot's tensor in the files. One error names everything that does not fit.
pub(super) fn resolve(
    slots: &[Slot],
    files: &TensorFiles,
    config: &ModelConfig,
) -> Result<Vec<String>, LoadError> {
    let mut mismatch = Mismatch::default();
    let mut used = BTreeSet::new();
    let mut names = Vec::new();
    let mut absent = Vec::new();
    for slot in slots {
        let mut candidates = candidates(&slot.path);
        if config.is_tied() && slot.path == embeddings(config) {
            // Tied, either stands for the other.
            candidates.push(head(config).to_owned());
        }
        let found = candidates
            .iter()
            .find(|name| files.entries.contains_key(*name));
        let Some(name) = found else {
            mismatch.missing.push(candidates[0].clone());
            absent.extend(candidates);
            continue;
        };
        let entry = &files.entries[name];
        if entry.shape != slot.shape {
            mismatch.wrong.push(format!(
                "{name} has shape {:?} instead of {:?}",
                entry.shape, slot.shape
            ));
        } else if !is_float(entry.dtype) {
            mismatch.wrong.push(format!(
                "{name} is {:?} instead of F64, F32, F16 or BF16",
                entry.dtype
            ));
        }
        used.insert(name.clone());
        names.push(name.clone());
    }
    if let Some(error) = files.missing_shard(&absent) {
        return Err(error);
    }
    // The head of a tied model is known to be equal, and OPT's version number means nothing.
    let known = |name: &str| {
        name.ends_with("decoder.version")
            || (config.is_tied() && name == head(config))
            || (config.is_masked() && is_unused(name))
    };
    for (name, entry) in &files.entries {
        match config {
            _ if used.contains(name) || known(name) => {}
            ModelConfig::Llama(config) if name.ends_with(FREQUENCIES) && is_float(entry.dtype) => {
                check_frequencies(name, files, config)?;
            }
            // With a matrix of its own, the head does not use the other bias.
            ModelConfig::Roberta(config) if name == HEAD_BIAS[0] && !config.tie_word_embeddings => {
            }
            ModelConfig::Roberta(_)
                if name == HEAD_BIAS[1] && files.equal(name, HEAD_BIAS[0])? => {}
            _ => mismatch.unexpected.push(name.clone()),
        }
    }
    if mismatch.is_empty() {
        Ok(names)
    } else {
        Err(LoadError::Mismatch(mismatch))
    }
}

/// What RoBERTa's folders hold for other uses: the pooler of classifiers, and indices that follow from the sizes.
fn is_unused(name: &str) -> bool {
    name.contains("pooler.dense.")
        || name.ends_with("embeddings.position_ids")
        || name.ends_with("embeddings.token_type_ids")
}

/// An error if stored frequencies are not those of the configuration, either scaled or unscaled.
fn check_frequencies(
    name: &str,
    files: &TensorFiles,
    config: &LlamaConfig,
) -> Result<(), LoadError> {
    let found: Vec<f64> = files.values(name, false)?;
    let pairs = config.head_dim / 2;
    if found.len() != pairs {
        // Nothing of the size that a damaged configuration claims is computed.
        let wrong = format!("{name} has {} numbers instead of {pairs}", found.len());
        return Err(LoadError::Mismatch(Mismatch {
            wrong: vec![wrong],
            ..Mismatch::default()
        }));
    }
    let scaled = inverse_frequencies(config, 0);
    let plain = inverse_frequencies(
        &LlamaConfig {
            rope_scaling: None,
            ..config.clone()
        },
        0,
    );
    if [&scaled, &plain]
        .iter()
        .any(|expected| differs(&found, expected).is_none())
    {
        return Ok(());
    }
    let at = differs(&found, &scaled).unwrap_or(0);
    Err(LoadError::Frequencies {
        path: files.path(name).to_owned(),
        tensor: name.to_owned(),
        at,
        found: found.get(at).copied().unwrap_or(f64::NAN),
        expected: scaled.get(at).map_or(f64::NAN, |value| f64::from(*value)),
    })
}

/// The first index at which stored frequencies differ from as many that are `expected`.
fn differs(found: &[f64], expected: &[f32]) -> Option<usize> {
    // bf16 keeps 8 bits, and f16 nothing below 6e-8.
    let near = |(found, expected): (&f64, &f32)| {
        let expected = f64::from(*expected);
        (found - expected).abs() <= 0.01 * expected + 1e-7
    };
    found.iter().zip(expected).position(|pair| !near(pair))
}

//! The language model of any architecture.

use burn::module::{Module, Param};
use burn::tensor::activation::log_softmax;
use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use rayon::prelude::*;

use crate::model::Vectors;
use crate::model::attention::LayerCache;
use crate::model::batch::TokenBatch;
use crate::model::config::{ConfigError, ModelConfig};
use crate::model::layers::{Head, Tunable};
use crate::model::llama::Llama;
use crate::model::opt::Opt;
use crate::model::part::{Part, ints};
use crate::model::precision::to_f32;
use crate::model::roberta::Roberta;

/// Number of rows whose logits over the whole vocabulary are held at once.
const LOGIT_ROWS: usize = 64;

/// A language model: causal, except for RoBERTa, which is a masked one.
///
/// Parameters are visited under stable paths that follow Hugging Face's names, e.g.
/// `Opt.decoder.layers.0.self_attn.q_proj.weight` and `Llama.layers.0.mlp.up_proj.weight`; seeded noise is keyed by them.
/// Weights of linear layers are stored `[d_input, d_output]`, the transpose of the file's; embeddings and an untied head
/// `[vocab, width]`.
// A program holds one model: a box would only add a name to the module paths.
#[allow(clippy::large_enum_variant)]
#[derive(Module, Debug)]
pub enum CausalLm {
    /// An OPT model.
    Opt(Opt),
    /// A model of Llama's form.
    Llama(Llama),
    /// A RoBERTa model.
    Roberta(Roberta),
}

impl CausalLm {
    /// A model with random weights, in the device's default float type. The weights are drawn on first use.
    ///
    /// # Errors
    /// [`ConfigError`] when the sizes do not fit together.
    pub fn new(config: &ModelConfig, device: &Device) -> Result<Self, ConfigError> {
        config.validate("ModelConfig")?;
        Ok(match config {
            ModelConfig::Opt(config) => Self::Opt(Opt::new(config, device)),
            ModelConfig::Llama(config) => Self::Llama(Llama::new(config, device)),
            ModelConfig::Roberta(config) => Self::Roberta(Roberta::new(config, device)),
        })
    }

    /// What the head's matrix sees: `[batch, seq, width]`, after the final normalization, OPT's projection and the layers of RoBERTa's
    /// head, in the model's float type. Padded positions hold finite but meaningless values.
    ///
    /// # Panics
    /// When the batch holds an id outside the vocabulary, or a sequence longer than the context.
    pub fn hidden(&self, batch: &TokenBatch) -> Tensor<3> {
        let [sequences, seq] = batch.shape();
        let rows = self.transform(batch.join_tokens(self.run(batch, false)));
        let width = rows.dims()[1];
        let rows = rows.cast(self.dtype());
        rows.reshape([sequences, seq, width])
    }

    /// Logits of every token after every position (in a masked model, at every position): `[batch, seq, vocab]`, in the model's float
    /// type.
    ///
    /// # Panics
    /// As [`Self::hidden`].
    pub fn logits(&self, batch: &TokenBatch) -> Tensor<3> {
        let [sequences, seq] = batch.shape();
        let vocab = self.vocab_size();
        let hidden = self.transform(batch.join_tokens(self.run(batch, false)));
        let logits = Head::of(self.head_parameter()).forward(hidden);
        let logits = match self.head_bias() {
            Some(bias) => bias.cast(logits.dtype()).plus(logits),
            None => logits,
        };
        let logits = logits.cast(self.dtype());
        logits.reshape([sequences, seq, vocab])
    }

    /// Logits of `tokens` after the last real position of each sequence: `[batch, tokens]`, f32 where the model is f32 or
    /// half precision. The head computes nothing else, and the last block only what that position needs.
    ///
    /// # Panics
    /// As [`Self::hidden`], and when `tokens` is empty or holds an id outside the vocabulary.
    pub fn last_logits(&self, batch: &TokenBatch, tokens: &[u32]) -> Tensor<2> {
        self.logits_of(self.last_hidden(batch), tokens)
    }

    /// What the head's matrix sees at the last real position of each sequence: `[batch, width]`.
    pub(crate) fn last_hidden(&self, batch: &TokenBatch) -> Tensor<2> {
        self.transform(batch.join_sequences(self.run(batch, true)))
    }

    /// What the head's matrix sees at one position of each sequence: `[batch, width]`.
    pub(crate) fn hidden_at(&self, batch: &TokenBatch, positions: &[usize]) -> Tensor<2> {
        let rows = ints(batch.rows_at(positions), &self.device());
        self.transform(Tensor::cat(self.run(batch, false), 0).select(0, rows))
    }

    /// Logits of `tokens` at one position of each sequence, given as the index of a real token: `[batch, tokens]`, f32 where the model is f32
    /// or half precision. The head computes nothing else. In a masked model, these are the words for a mask.
    ///
    /// # Panics
    /// As [`Self::last_logits`], and when a sequence has no such position.
    pub fn logits_at(&self, batch: &TokenBatch, positions: &[usize], tokens: &[u32]) -> Tensor<2> {
        self.logits_of(self.hidden_at(batch, positions), tokens)
    }

    /// Logits of `tokens` for what the head's matrix sees, `[rows, width]`.
    fn logits_of(&self, hidden: Tensor<2>, tokens: &[u32]) -> Tensor<2> {
        assert!(!tokens.is_empty(), "logits need at least one token");
        let head = self.head_parameter();
        let vocab = self.vocab_size();
        if let Some(token) = tokens.iter().find(|token| **token as usize >= vocab) {
            panic!("token {token} is outside the vocabulary of {vocab}");
        }
        let ids: Vec<i32> = tokens.iter().map(|token| *token as i32).collect();
        let ids = Tensor::<1, Int>::from_data(TensorData::from(ids.as_slice()), &self.device());
        let head = Head::of(head).select(ids.clone()).widened();
        let logits = head.forward(to_f32(hidden));
        match self.head_bias() {
            Some(bias) => bias.select(&ids).widened().plus(logits),
            None => logits,
        }
    }

    /// What the head's matrix sees of the rows `hidden`: the rows themselves, except in RoBERTa.
    fn transform(&self, hidden: Tensor<2>) -> Tensor<2> {
        match self {
            Self::Opt(_) | Self::Llama(_) => hidden,
            Self::Roberta(model) => model.transform(hidden),
        }
    }

    /// The head's bias, `[vocab]`, if it has one.
    fn head_bias(&self) -> Option<Vectors> {
        match self {
            Self::Opt(_) | Self::Llama(_) => None,
            Self::Roberta(model) => Some(model.head_bias()),
        }
    }

    /// The head's bias, to be changed.
    pub(crate) fn head_bias_parameter(&mut self) -> Option<&mut Param<Tensor<1>>> {
        match self {
            Self::Opt(_) | Self::Llama(_) => None,
            Self::Roberta(model) => Some(model.head_bias_parameter()),
        }
    }

    /// Whether it is a masked language model, which fills gaps instead of continuing texts.
    pub fn is_masked(&self) -> bool {
        matches!(self, Self::Roberta(_))
    }

    /// Log-probabilities of the last tokens of each sequence, each given all tokens before it: `[tokens]`, sequence after sequence,
    /// f32 where the model is f32 or half precision. `last[i]` holds the last tokens of sequence i; the head computes nothing else.
    ///
    /// # Panics
    /// As [`Self::hidden`], when the model is a masked one, and when `last` does not fit the batch: the number of sequences differs, one has no last tokens, or as many as
    /// the sequence itself, so that nothing precedes the first.
    pub fn log_probs<S: AsRef<[u32]>>(&self, batch: &TokenBatch, last: &[S]) -> Tensor<1> {
        assert!(
            !self.is_masked(),
            "a masked language model has no probabilities of continuations: use logits_at"
        );
        let rows = batch.rows_before(last);
        let (head, device) = (Head::of(self.head_parameter()).widened(), self.device());
        let hidden = Tensor::cat(self.run(batch, false), 0);
        let targets = last.iter().flat_map(|t| t.as_ref()).map(|t| *t as i32);
        let scored: Vec<(i32, i32)> = rows.into_iter().zip(targets).collect();
        let group = scored.len().div_ceil(head.displacements());
        // In chunks: each row has as many logits as the vocabulary has tokens.
        let parts = scored.chunks(group).enumerate().flat_map(|(k, scored)| {
            let (head, hidden, device) = (head.at(k), &hidden, &device);
            scored.chunks(LOGIT_ROWS).map(move |scored| {
                let (rows, targets): (Vec<i32>, Vec<i32>) = scored.iter().copied().unzip();
                let count = rows.len();
                let logits = to_f32(hidden.clone().select(0, ints(rows, device)));
                let logits = log_softmax(head.forward(logits), 1);
                let targets = ints(targets, device).reshape([count, 1]);
                logits.gather(1, targets).reshape([count])
            })
        });
        Tensor::cat(parts.collect(), 0)
    }

    /// The device the model is on.
    pub fn device(&self) -> Device {
        self.head_parameter().base().device()
    }

    /// Whether the model is on an autodiff device.
    pub(crate) fn is_tracked(&self) -> bool {
        self.device().is_autodiff()
    }

    /// The longest sequence, in tokens. A soft prompt and a prefix take their share of the checkpoint's context.
    pub fn context(&self) -> usize {
        let [prompt, prefix] = self.virtual_tokens();
        let positions = match self {
            Self::Opt(model) => model.context(),
            Self::Llama(model) => model.context(),
            Self::Roberta(model) => model.context(),
        };
        positions.saturating_sub(prompt + prefix)
    }

    /// Number of tokens the model knows.
    pub fn vocab_size(&self) -> usize {
        match self {
            Self::Opt(model) => model.vocab_size(),
            Self::Llama(model) => model.vocab_size(),
            Self::Roberta(model) => model.vocab_size(),
        }
    }

    /// The matrix of the head as the objective should see it: where it is displaced on the fly, each call computes it anew.
    pub(crate) fn head(&self) -> Tensor<2> {
        self.head_parameter().val()
    }

    /// The model's float type: that of its head, f32 if that is quantized.
    pub(crate) fn dtype(&self) -> DType {
        match self.head_parameter().base().dtype() {
            DType::QFloat(_) => DType::F32,
            dtype => dtype,
        }
    }

    fn head_parameter(&self) -> &Param<Tensor<2>> {
        match self {
            Self::Opt(model) => model.head(),
            Self::Llama(model) => model.head(),
            Self::Roberta(model) => model.head(),
        }
    }

    /// Runs every part of the batch: rows of real tokens, or of last tokens only.
    fn run(&self, batch: &TokenBatch, last_only: bool) -> Vec<Tensor<2>> {
        assert!(
            !(batch.shares && self.is_masked()),
            "a masked language model's tokens depend on those to come: use TokenBatch::new"
        );
        // A GPU reads past the end of a table without complaint, so this is checked here.
        let (vocab, context) = (self.vocab_size(), self.context());
        let (id, length) = (batch.max_id(), batch.longest());
        assert!(
            (id as usize) < vocab,
            "token id {id} is outside the vocabulary of {vocab}: was it made by another tokenizer?"
        );
        assert!(
            length <= context,
            "a sequence of {length} tokens exceeds the model's context of {context}: shorten it"
        );
        let run = |part: &Part| self.run_part(part, last_only, None);
        // A single part stays on the caller's thread: a GPU has one queue of work per thread.
        match &batch.parts[..] {
            [part] => vec![run(part)],
            parts => parts.par_iter().map(run).collect(),
        }
    }

    /// Rows of the tokens of one part, or of the last ones only. The first call fills the cache, further calls extend it.
    pub(crate) fn run_part(
        &self,
        part: &Part,
        last_only: bool,
        cache: Option<&mut [LayerCache]>,
    ) -> Tensor<2> {
        let run = |part: &Part| match self {
            Self::Opt(model) => model.hidden(part, last_only, cache),
            Self::Llama(model) => model.hidden(part, last_only, cache),
            Self::Roberta(model) => model.hidden(part, last_only, cache),
        };
        let [prompt, _] = self.virtual_tokens();
        if prompt == 0 || part.continues.is_some() {
            return run(part);
        }
        let x = run(&part.behind_prompt(prompt));
        if last_only {
            x
        } else {
            part.without_prompt(x, prompt)
        }
    }

    /// Where a soft prompt and prefixes go.
    pub(crate) fn tunable(&mut self) -> Tunable<'_> {
        match self {
            Self::Opt(model) => model.tunable(),
            Self::Llama(model) => model.tunable(),
            Self::Roberta(model) => model.tunable(),
        }
    }

    /// The factor of the embeddings, if they have one.
    pub(crate) fn embedding_scale(&self) -> Option<f64> {
        match self {
            Self::Llama(model) => model.embedding_scale(),
            Self::Opt(_) | Self::Roberta(_) => None,
        }
    }

    /// Rows of the soft prompt, and keys of each layer's prefix: both 0 unless they are tuned.
    pub fn virtual_tokens(&self) -> [usize; 2] {
        match self {
            Self::Opt(model) => model.virtual_tokens(),
            Self::Llama(model) => model.virtual_tokens(),
            Self::Roberta(model) => model.virtual_tokens(),
        }
    }

    /// Number of layers.
    pub fn depth(&self) -> usize {
        match self {
            Self::Opt(model) => model.depth(),
            Self::Llama(model) => model.depth(),
            Self::Roberta(model) => model.depth(),
        }
    }
}

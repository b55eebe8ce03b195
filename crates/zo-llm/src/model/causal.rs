//! The language model of either architecture.

use burn::module::{Module, Param};
use burn::tensor::activation::log_softmax;
use burn::tensor::{Device, Int, Tensor, TensorData};
use rayon::prelude::*;

use crate::model::attention::LayerCache;
use crate::model::batch::TokenBatch;
use crate::model::config::{ConfigError, ModelConfig};
use crate::model::layers::{Head, Tunable, rows};
use crate::model::llama::Llama;
use crate::model::opt::Opt;
use crate::model::part::{Part, ints};
use crate::model::precision::to_f32;

/// Number of rows whose logits over the whole vocabulary are held at once.
const LOGIT_ROWS: usize = 64;

/// A causal language model.
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
    /// A Llama model.
    Llama(Llama),
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
        })
    }

    /// What the head sees: `[batch, seq, width]`, after the final normalization and OPT's projection, in the model's float
    /// type. Padded positions hold finite but meaningless values.
    ///
    /// # Panics
    /// When the batch holds an id outside the vocabulary, or a sequence longer than the context.
    pub fn hidden(&self, batch: &TokenBatch) -> Tensor<3> {
        let [sequences, seq] = batch.shape();
        let rows = batch.join_tokens(self.run(batch, false));
        let width = rows.dims()[1];
        rows.reshape([sequences, seq, width])
    }

    /// Logits of every token after every position: `[batch, seq, vocab]`, in the model's float type.
    ///
    /// # Panics
    /// As [`Self::hidden`].
    pub fn logits(&self, batch: &TokenBatch) -> Tensor<3> {
        let [sequences, seq] = batch.shape();
        let vocab = self.vocab_size();
        let hidden = batch.join_tokens(self.run(batch, false));
        let logits = Head::of(self.head_parameter()).forward(hidden);
        logits.reshape([sequences, seq, vocab])
    }

    /// Logits of `tokens` after the last real position of each sequence: `[batch, tokens]`, f32 where the model is f32 or
    /// half precision. The head computes nothing else, and the last block only what that position needs.
    ///
    /// # Panics
    /// As [`Self::hidden`], and when `tokens` is empty or holds an id outside the vocabulary.
    pub fn last_logits(&self, batch: &TokenBatch, tokens: &[u32]) -> Tensor<2> {
        assert!(!tokens.is_empty(), "last_logits needs at least one token");
        let head = self.head_parameter();
        let vocab = self.vocab_size();
        if let Some(token) = tokens.iter().find(|token| **token as usize >= vocab) {
            panic!("token {token} is outside the vocabulary of {vocab}");
        }
        let ids: Vec<i32> = tokens.iter().map(|token| *token as i32).collect();
        let ids = Tensor::<1, Int>::from_data(TensorData::from(ids.as_slice()), &self.device());
        let rows = to_f32(rows(head, ids));
        to_f32(batch.join_sequences(self.run(batch, true))).matmul(rows.transpose())
    }

    /// Log-probabilities of the last tokens of each sequence, each given all tokens before it: `[tokens]`, sequence after sequence,
    /// f32 where the model is f32 or half precision. `last[i]` holds the last tokens of sequence i; the head computes nothing else.
    ///
    /// # Panics
    /// As [`Self::hidden`], and when `last` does not fit the batch: the number of sequences differs, one has no last tokens, or as many as
    /// the sequence itself, so that nothing precedes the first.
    pub fn log_probs<S: AsRef<[u32]>>(&self, batch: &TokenBatch, last: &[S]) -> Tensor<1> {
        let rows = batch.rows_before(last);
        let (head, device) = (Head::of(self.head_parameter()).widened(), self.device());
        let hidden = Tensor::cat(self.run(batch, false), 0);
        let targets: Vec<i32> = last
            .iter()
            .flat_map(|t| t.as_ref())
            .map(|t| *t as i32)
            .collect();
        // In chunks: each row has as many logits as the vocabulary has tokens.
        let parts =
            rows.chunks(LOGIT_ROWS)
                .zip(targets.chunks(LOGIT_ROWS))
                .map(|(rows, targets)| {
                    let count = rows.len();
                    let logits = to_f32(hidden.clone().select(0, ints(rows.to_vec(), &device)));
                    let logits = log_softmax(head.forward(logits), 1);
                    let targets = ints(targets.to_vec(), &device).reshape([count, 1]);
                    logits.gather(1, targets).reshape([count])
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
        };
        positions.saturating_sub(prompt + prefix)
    }

    /// Number of tokens the model knows.
    pub fn vocab_size(&self) -> usize {
        match self {
            Self::Opt(model) => model.vocab_size(),
            Self::Llama(model) => model.vocab_size(),
        }
    }

    /// The matrix of the head as the objective should see it: where it is displaced on the fly, each call computes it anew.
    pub(crate) fn head(&self) -> Tensor<2> {
        self.head_parameter().val()
    }

    fn head_parameter(&self) -> &Param<Tensor<2>> {
        match self {
            Self::Opt(model) => model.head(),
            Self::Llama(model) => model.head(),
        }
    }

    /// Runs every part of the batch: rows of real tokens, or of last tokens only.
    fn run(&self, batch: &TokenBatch, last_only: bool) -> Vec<Tensor<2>> {
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
        }
    }

    /// Rows of the soft prompt, and keys of each layer's prefix: both 0 unless they are tuned.
    pub fn virtual_tokens(&self) -> [usize; 2] {
        match self {
            Self::Opt(model) => model.virtual_tokens(),
            Self::Llama(model) => model.virtual_tokens(),
        }
    }

    /// Number of layers.
    pub fn depth(&self) -> usize {
        match self {
            Self::Opt(model) => model.depth(),
            Self::Llama(model) => model.depth(),
        }
    }
}

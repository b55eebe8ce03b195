//! Llama (Touvron et al. 2023) with grouped-query attention and rotary positions.

use burn::module::Module;
use burn::nn::{Embedding, Linear};
use burn::tensor::{Device, Tensor};

use crate::attention::Scope;
use crate::config::{Activation, LlamaConfig};
use crate::layers::{RmsNorm, embedding, linear, lookup};
use crate::part::Part;
use crate::rope::{Rope, Rotation};

/// A Llama language model. Parameters carry the names of Hugging Face checkpoints without their leading `model.`.
#[derive(Module, Debug)]
pub struct Llama {
    embed_tokens: Embedding,
    layers: Vec<Layer>,
    norm: RmsNorm,
    /// The head, `[vocab, width]`; the embedding matrix serves if absent.
    lm_head: Option<Embedding>,
    #[module(skip)]
    config: LlamaConfig,
}

#[derive(Module, Debug)]
struct Layer {
    input_layernorm: RmsNorm,
    self_attn: Attention,
    post_attention_layernorm: RmsNorm,
    mlp: Mlp,
}

#[derive(Module, Debug)]
struct Attention {
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    o_proj: Linear,
    heads: usize,
    key_heads: usize,
}

#[derive(Module, Debug)]
struct Mlp {
    gate_proj: Linear,
    up_proj: Linear,
    down_proj: Linear,
    #[module(skip)]
    activation: Activation,
}

impl Llama {
    /// A model with random weights (drawn on first use): normal with `initializer_range`, biases zero.
    pub(crate) fn new(config: &LlamaConfig, device: &Device) -> Self {
        let (width, std) = (config.hidden_size, config.initializer_range);
        let queries = config.num_attention_heads * config.head_dim;
        let keys = config.num_key_value_heads * config.head_dim;
        let attention = |d_in, d_out| linear(d_in, d_out, config.attention_bias, std, device);
        let mlp = |d_in, d_out| linear(d_in, d_out, config.mlp_bias, std, device);
        let norm = || RmsNorm::new(width, config.rms_norm_eps, device);
        let layer = |_| Layer {
            input_layernorm: norm(),
            self_attn: Attention {
                q_proj: attention(width, queries),
                k_proj: attention(width, keys),
                v_proj: attention(width, keys),
                o_proj: attention(queries, width),
                heads: config.num_attention_heads,
                key_heads: config.num_key_value_heads,
            },
            post_attention_layernorm: norm(),
            mlp: Mlp {
                gate_proj: mlp(width, config.intermediate_size),
                up_proj: mlp(width, config.intermediate_size),
                down_proj: mlp(config.intermediate_size, width),
                activation: config.hidden_act,
            },
        };
        let tokens = || embedding(config.vocab_size, width, std, device);
        Self {
            embed_tokens: tokens(),
            layers: (0..config.num_hidden_layers).map(layer).collect(),
            norm: norm(),
            lm_head: (!config.tie_word_embeddings).then(tokens),
            config: config.clone(),
        }
    }

    /// The head's matrix, `[vocab, width]`.
    pub(crate) fn head(&self) -> Tensor<2> {
        self.lm_head
            .as_ref()
            .unwrap_or(&self.embed_tokens)
            .weight
            .val()
    }

    /// Number of tokens the model knows.
    pub(crate) fn vocab_size(&self) -> usize {
        self.embed_tokens.weight.dims()[0]
    }

    /// The longest sequence, in tokens.
    pub(crate) fn context(&self) -> usize {
        self.config.max_position_embeddings
    }

    /// What the head sees, `[tokens, width]`, or `[batch, width]` at the last tokens.
    pub(crate) fn hidden(&self, part: &Part, last_only: bool) -> Tensor<2> {
        let group = self.config.num_attention_heads / self.config.num_key_value_heads;
        let all = Scope::all(part, group);
        let rope = Rope::new(&self.config, part.seq, &part.ids.device());
        let keys = rope.in_order();

        let mut x = lookup(&self.embed_tokens, part.ids.clone());
        for (index, layer) in self.layers.iter().enumerate() {
            x = if last_only && index + 1 == self.layers.len() {
                let queries = rope.at(&part.last_positions);
                layer.forward(x, &Scope::last(part, group), &queries, &keys)
            } else {
                layer.forward(x, &all, &keys, &keys)
            };
        }
        self.norm.forward(x)
    }
}

impl Layer {
    fn forward(
        &self,
        x: Tensor<2>,
        scope: &Scope<'_>,
        queries: &Rotation,
        keys: &Rotation,
    ) -> Tensor<2> {
        let residual = scope.select(x.clone());
        let x = residual
            + self
                .self_attn
                .forward(self.input_layernorm.forward(x), scope, queries, keys);
        let update = self
            .mlp
            .forward(self.post_attention_layernorm.forward(x.clone()));
        x + update
    }
}

impl Attention {
    fn forward(
        &self,
        x: Tensor<2>,
        scope: &Scope<'_>,
        queries: &Rotation,
        keys: &Rotation,
    ) -> Tensor<2> {
        let dtype = x.dtype();
        let query = scope.split_queries(self.q_proj.forward(scope.select(x.clone())), self.heads);
        let key = scope.split_keys(self.k_proj.forward(x.clone()), self.key_heads);
        let value = scope.split_keys(self.v_proj.forward(x), self.key_heads);
        let mixed = scope.attend(queries.apply(query), keys.apply(key), value);
        self.o_proj.forward(mixed.cast(dtype))
    }
}

impl Mlp {
    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let gate = self.activation.forward(self.gate_proj.forward(x.clone()));
        self.down_proj.forward(gate * self.up_proj.forward(x))
    }
}

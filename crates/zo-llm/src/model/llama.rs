//! Llama (Touvron et al. 2023) with grouped-query attention and rotary positions.

use burn::module::{Module, Param};
use burn::nn::{Embedding, Linear};
use burn::tensor::{Device, Tensor};

use crate::model::attention::{LayerCache, Prefix, Scope, recall};
use crate::model::config::{Activation, LlamaConfig};
use crate::model::layers::{RmsNorm, Tunable, apply, embed, embedding, linear};
use crate::model::part::Part;
use crate::model::rope::{Rope, Rotation};

/// A Llama language model. Parameters have the names of Hugging Face checkpoints without the leading `model.`.
#[derive(Module, Debug)]
pub struct Llama {
    embed_tokens: Embedding,
    /// A soft prompt, `[length, width]`: input embeddings that are trained (Lester et al. 2021).
    prompt: Option<Param<Tensor<2>>>,
    layers: Vec<Layer>,
    norm: RmsNorm,
    /// The head, `[vocab, width]`; if absent, the embedding matrix serves as the head.
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
    prefix: Option<Prefix>,
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
                prefix: None,
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
            prompt: None,
            layers: (0..config.num_hidden_layers).map(layer).collect(),
            norm: norm(),
            lm_head: (!config.tie_word_embeddings).then(tokens),
            config: config.clone(),
        }
    }

    /// The head's matrix, `[vocab, width]`.
    pub(crate) fn head(&self) -> &Param<Tensor<2>> {
        let head = self.lm_head.as_ref();
        &head.unwrap_or(&self.embed_tokens).weight
    }

    /// Number of tokens the model knows.
    pub(crate) fn vocab_size(&self) -> usize {
        self.embed_tokens.weight.dims()[0]
    }

    /// The longest sequence, in tokens.
    pub(crate) fn context(&self) -> usize {
        self.config.max_position_embeddings
    }

    /// Where a soft prompt and prefixes go.
    pub(crate) fn tunable(&mut self) -> Tunable<'_> {
        Tunable {
            embedding: &self.embed_tokens,
            prompt: &mut self.prompt,
            prefixes: self
                .layers
                .iter_mut()
                .map(|layer| &mut layer.self_attn.prefix)
                .collect(),
        }
    }

    /// Rows of the soft prompt, and keys of a layer's prefix.
    pub(crate) fn virtual_tokens(&self) -> [usize; 2] {
        let prefix = self
            .layers
            .first()
            .and_then(|layer| layer.self_attn.prefix.as_ref());
        [
            self.prompt.as_ref().map_or(0, |prompt| prompt.dims()[0]),
            prefix.map_or(0, Prefix::len),
        ]
    }

    /// The head's own matrix.
    pub(crate) fn lm_head(&mut self) -> &mut Option<Embedding> {
        &mut self.lm_head
    }

    /// Number of layers.
    pub(crate) fn depth(&self) -> usize {
        self.layers.len()
    }

    /// What the head sees, `[tokens, width]`, or `[batch, width]` at the last tokens. `part` already includes the soft prompt.
    pub(crate) fn hidden(
        &self,
        part: &Part,
        last_only: bool,
        mut cache: Option<&mut [LayerCache]>,
    ) -> Tensor<2> {
        let group = self.config.num_attention_heads / self.config.num_key_value_heads;
        let [_, prefix] = self.virtual_tokens();
        let all = Scope::all(part, group, prefix);
        let device = part.ids.device();
        let (rope, keys) = match &part.continues {
            None => {
                let rope = Rope::new(&self.config, prefix..prefix + part.seq, &device);
                let keys = rope.in_order();
                (rope, keys)
            }
            Some(positions) => {
                let positions = positions.iter().map(|position| position + prefix);
                let rope = Rope::new(&self.config, positions, &device);
                let keys = rope.each();
                (rope, keys)
            }
        };

        let mut x = embed(&self.embed_tokens, &self.prompt, part);
        for (index, layer) in self.layers.iter().enumerate() {
            let cache = cache.as_deref_mut().map(|cache| &mut cache[index]);
            // Continued sequences consist of their last token.
            x = if last_only && index + 1 == self.layers.len() && part.continues.is_none() {
                let queries = rope.at(&part.last_positions);
                layer.forward(
                    x,
                    &Scope::last(part, group, prefix),
                    [&queries, &keys],
                    cache,
                )
            } else {
                layer.forward(x, &all, [&keys, &keys], cache)
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
        rotations: [&Rotation; 2],
        cache: Option<&mut LayerCache>,
    ) -> Tensor<2> {
        let residual = scope.select(x.clone());
        let x = self.input_layernorm.forward(x);
        let x = residual + self.self_attn.forward(x, scope, rotations, cache);
        let update = self
            .mlp
            .forward(self.post_attention_layernorm.forward(x.clone()));
        x + update
    }
}

impl Attention {
    /// `rotations` are those of queries and keys.
    fn forward(
        &self,
        x: Tensor<2>,
        scope: &Scope<'_>,
        [queries, keys]: [&Rotation; 2],
        cache: Option<&mut LayerCache>,
    ) -> Tensor<2> {
        let dtype = x.dtype();
        let query = scope.split_queries(apply(&self.q_proj, scope.select(x.clone())), self.heads);
        let key = scope.split_keys(apply(&self.k_proj, x.clone()), self.key_heads);
        let value = scope.split_keys(apply(&self.v_proj, x), self.key_heads);
        let [key, value] = recall([keys.apply(key), value], self.prefix.as_ref(), cache);
        let mixed = scope.attend(queries.apply(query), key, value);
        apply(&self.o_proj, mixed.cast(dtype))
    }
}

impl Mlp {
    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let gate = self.activation.forward(apply(&self.gate_proj, x.clone()));
        apply(&self.down_proj, gate * apply(&self.up_proj, x))
    }
}

//! The decoder of Llama (Touvron et al. 2023) and its relatives: grouped-query attention and rotary positions, with the switches of
//! each [`Family`](crate::model::config::Family).

use burn::module::{Module, Param};
use burn::nn::{Embedding, Linear};
use burn::tensor::{Device, Tensor};

use crate::model::attention::{LayerCache, Prefix, Scope};
use crate::model::config::{Activation, LlamaConfig};
use crate::model::layers::{
    RmsNorm, Tunable, apply, by_blocks, embed_scaled, embedding, in_groups, linear, rows_of,
};
use crate::model::part::{Continued, Part};
use crate::model::rope::{Rope, Rotation};

/// A language model of Llama's form. Parameters have the names of Hugging Face checkpoints without the leading `model.`.
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
    /// Gemma's normalizations around the feed-forward part, beside the one after the attention.
    pre_feedforward_layernorm: Option<RmsNorm>,
    post_feedforward_layernorm: Option<RmsNorm>,
    mlp: Mlp,
}

#[derive(Module, Debug)]
struct Attention {
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    o_proj: Linear,
    /// Qwen3's normalization of each head, before its rotation.
    q_norm: Option<RmsNorm>,
    k_norm: Option<RmsNorm>,
    prefix: Option<Prefix>,
    heads: usize,
    key_heads: usize,
    /// A factor of the queries, where scores are not divided by the root of `head_dim`.
    #[module(skip)]
    query_scale: Option<f64>,
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
        let form = config.family.form();
        let bias = config.attention_bias;
        let input = |d_out| linear(width, d_out, bias || form.qkv_bias, std, device);
        let head_norm = || {
            RmsNorm::new(
                config.head_dim,
                config.rms_norm_eps,
                form.offset_norms,
                device,
            )
        };
        let mlp = |d_in, d_out| linear(d_in, d_out, config.mlp_bias, std, device);
        let norm = || RmsNorm::new(width, config.rms_norm_eps, form.offset_norms, device);
        let scalar = config.query_pre_attn_scalar;
        let query_scale = scalar.map(|scalar| (config.head_dim as f64 / scalar).sqrt());
        let layer = |_| Layer {
            input_layernorm: norm(),
            self_attn: Attention {
                q_proj: input(queries),
                k_proj: input(keys),
                v_proj: input(keys),
                o_proj: linear(queries, width, bias, std, device),
                q_norm: form.qk_norm.then(head_norm),
                k_norm: form.qk_norm.then(head_norm),
                prefix: None,
                heads: config.num_attention_heads,
                key_heads: config.num_key_value_heads,
                query_scale,
            },
            post_attention_layernorm: norm(),
            pre_feedforward_layernorm: form.four_norms.then(norm),
            post_feedforward_layernorm: form.four_norms.then(norm),
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
        self.config.context()
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

    /// The factor of the embeddings.
    pub(crate) fn embedding_scale(&self) -> Option<f64> {
        let scaled = self.config.family.form().scaled_embeddings;
        scaled.then(|| (self.config.hidden_size as f64).sqrt())
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
        let all = Scope::all(part, group, prefix, None);
        let windowed = self.config.sliding_window;
        let windowed = windowed.map(|window| Scope::all(part, group, prefix, Some(window)));
        let scope_of = |layer| match (&windowed, self.config.window(layer)) {
            (Some(windowed), Some(_)) => windowed,
            _ => &all,
        };
        let (device, longest) = (part.ids.device(), prefix + part.longest);
        let rotation = |config: &LlamaConfig| match &part.continues {
            None => {
                let positions = prefix..prefix + part.seq;
                let rope = Rope::new(config, positions, longest, &device);
                let keys = match part.padded {
                    Some(_) => rope.in_order(),
                    None => rope.at(&part.positions),
                };
                (rope, keys)
            }
            Some(Continued { positions, .. }) => {
                let positions = positions.iter().map(|position| position + prefix);
                let rope = Rope::new(config, positions, longest, &device);
                let keys = rope.each();
                (rope, keys)
            }
        };
        let global = rotation(&self.config);
        let local = self.config.local_rotation();
        let local = local.map(|config| rotation(&config));
        let rotation_of = |layer| match (&local, self.config.window(layer)) {
            (Some(local), Some(_)) => local,
            _ => &global,
        };

        let scale = self.embedding_scale();
        let mut x = embed_scaled(&self.embed_tokens, scale, &self.prompt, part);
        for (index, layer) in self.layers.iter().enumerate() {
            let cache = cache.as_deref_mut().map(|cache| &mut cache[index]);
            let (rope, keys) = rotation_of(index);
            // Continued sequences consist of their last token.
            x = if last_only && index + 1 == self.layers.len() && part.continues.is_none() {
                let queries = rope.at(&part.last_positions);
                let last = Scope::last(part, group, prefix, self.config.window(index));
                layer.forward(x, &last, [&queries, keys], cache)
            } else {
                layer.forward(x, scope_of(index), [keys, keys], cache)
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
        let (device, in_groups) = (x.device(), self.in_groups());
        let residual = scope.select(x.clone());
        let norm = |rows| self.input_layernorm.forward(rows_of(&x, &rows));
        let x = by_blocks(x.dims()[0], &device, in_groups, norm);
        let update = self.self_attn.forward(x, scope, rotations, cache);
        by_blocks(residual.dims()[0], &device, in_groups, |rows| {
            let (residual, update) = (rows_of(&residual, &rows), rows_of(&update, &rows));
            let (Some(before), Some(after)) = (
                &self.pre_feedforward_layernorm,
                &self.post_feedforward_layernorm,
            ) else {
                let x = residual + update;
                let normed = self.post_attention_layernorm.forward(x.clone());
                return x + self.mlp.forward(normed);
            };
            let x = residual + self.post_attention_layernorm.forward(update);
            let update = self.mlp.forward(before.forward(x.clone()));
            x + after.forward(update)
        })
    }

    /// Whether rows are in groups, one for each of several displacements.
    fn in_groups(&self) -> bool {
        let norms = [
            Some(&self.input_layernorm),
            Some(&self.post_attention_layernorm),
            self.pre_feedforward_layernorm.as_ref(),
            self.post_feedforward_layernorm.as_ref(),
        ];
        let mlp = &self.mlp;
        let linear = [&mlp.gate_proj, &mlp.up_proj, &mlp.down_proj];
        norms.into_iter().flatten().any(RmsNorm::in_groups) || linear.into_iter().any(in_groups)
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
        let (query, key) = (
            normalized(&self.q_norm, query),
            normalized(&self.k_norm, key),
        );
        let query = match self.query_scale {
            Some(scale) => query * scale,
            None => query,
        };
        let value = scope.split_keys(apply(&self.v_proj, x), self.key_heads);
        let [key, value] = scope.recall([keys.apply(key), value], self.prefix.as_ref(), cache);
        let mixed = scope.attend(queries.apply(query), key, value);
        apply(&self.o_proj, mixed.cast(dtype))
    }
}

/// Each head of `x`, `[batch, heads, seq, head_dim]`, normalized.
fn normalized(norm: &Option<RmsNorm>, x: Tensor<4>) -> Tensor<4> {
    match norm {
        Some(norm) => norm.forward(x),
        None => x,
    }
}

impl Mlp {
    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let gate = apply(&self.gate_proj, x.clone());
        let up = apply(&self.up_proj, x);
        apply(&self.down_proj, self.activation.gated(gate, up))
    }
}

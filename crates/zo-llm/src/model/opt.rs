//! OPT (Zhang et al. 2022, "OPT: Open Pre-trained Transformer Language Models"), pre-norm and post-norm.

use burn::module::{Module, Param};
use burn::nn::{Embedding, Linear};
use burn::tensor::{Device, Tensor};

use crate::model::attention::{LayerCache, Prefix, Scope};
use crate::model::config::{Activation, OptConfig};
use crate::model::layers::{
    LayerNorm, Tunable, apply, by_blocks, embed, embedding, in_groups, linear, lookup, rows_of,
};
use crate::model::part::Part;

/// Rows of the table of positions before position 0: a remnant of the original code's padding.
const POSITION_OFFSET: i64 = 2;

/// An OPT language model. Parameters have the names of Hugging Face checkpoints without the leading `model.`.
#[derive(Module, Debug)]
pub struct Opt {
    decoder: Decoder,
    /// The head, `[vocab, width]`; if absent, the embedding matrix serves as the head.
    lm_head: Option<Embedding>,
}

#[derive(Module, Debug)]
struct Decoder {
    embed_tokens: Embedding,
    /// A soft prompt, `[length, word_embed_proj_dim]`: input embeddings that are trained (Lester et al. 2021).
    prompt: Option<Param<Tensor<2>>>,
    embed_positions: Embedding,
    project_in: Option<Linear>,
    layers: Vec<Layer>,
    final_layer_norm: Option<LayerNorm>,
    project_out: Option<Linear>,
}

#[derive(Module, Debug)]
struct Layer {
    self_attn: Attention,
    self_attn_layer_norm: LayerNorm,
    fc1: Linear,
    fc2: Linear,
    final_layer_norm: LayerNorm,
    pre_norm: bool,
    #[module(skip)]
    activation: Activation,
}

#[derive(Module, Debug)]
struct Attention {
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    out_proj: Linear,
    prefix: Option<Prefix>,
    heads: usize,
}

impl Opt {
    /// A model with random weights (drawn on first use): normal with `init_std`, biases zero.
    pub(crate) fn new(config: &OptConfig, device: &Device) -> Self {
        let (width, std, bias) = (config.hidden_size, config.init_std, config.enable_bias);
        let square = || linear(width, width, bias, std, device);
        let eps = OptConfig::LAYER_NORM_EPS;
        let norm = || LayerNorm::new(width, config.layer_norm_elementwise_affine, eps, device);
        let layer = |_| Layer {
            self_attn: Attention {
                q_proj: square(),
                k_proj: square(),
                v_proj: square(),
                out_proj: square(),
                prefix: None,
                heads: config.num_attention_heads,
            },
            self_attn_layer_norm: norm(),
            fc1: linear(width, config.ffn_dim, bias, std, device),
            fc2: linear(config.ffn_dim, width, bias, std, device),
            final_layer_norm: norm(),
            pre_norm: config.do_layer_norm_before,
            activation: config.activation_function,
        };
        let narrow = config.word_embed_proj_dim;
        let projected = narrow != width;
        let positions = config.max_position_embeddings + POSITION_OFFSET as usize;
        let tokens = || embedding(config.vocab_size, narrow, std, device);
        Self {
            decoder: Decoder {
                embed_tokens: tokens(),
                prompt: None,
                embed_positions: embedding(positions, width, std, device),
                project_in: projected.then(|| linear(narrow, width, false, std, device)),
                layers: (0..config.num_hidden_layers).map(layer).collect(),
                final_layer_norm: (config.do_layer_norm_before && !config.remove_final_layer_norm)
                    .then(norm),
                project_out: projected.then(|| linear(width, narrow, false, std, device)),
            },
            lm_head: (!config.tie_word_embeddings).then(tokens),
        }
    }

    /// The head's matrix, `[vocab, width]`.
    pub(crate) fn head(&self) -> &Param<Tensor<2>> {
        let head = self.lm_head.as_ref();
        &head.unwrap_or(&self.decoder.embed_tokens).weight
    }

    /// Number of tokens the model knows.
    pub(crate) fn vocab_size(&self) -> usize {
        self.decoder.embed_tokens.weight.dims()[0]
    }

    /// The longest sequence, in tokens.
    pub(crate) fn context(&self) -> usize {
        self.decoder.embed_positions.weight.dims()[0] - POSITION_OFFSET as usize
    }

    /// Where a soft prompt and prefixes go.
    pub(crate) fn tunable(&mut self) -> Tunable<'_> {
        let decoder = &mut self.decoder;
        Tunable {
            embedding: &decoder.embed_tokens,
            prompt: &mut decoder.prompt,
            prefixes: decoder
                .layers
                .iter_mut()
                .map(|layer| &mut layer.self_attn.prefix)
                .collect(),
        }
    }

    /// Rows of the soft prompt, and keys of a layer's prefix.
    pub(crate) fn virtual_tokens(&self) -> [usize; 2] {
        let decoder = &self.decoder;
        let prefix = decoder
            .layers
            .first()
            .and_then(|layer| layer.self_attn.prefix.as_ref());
        [
            decoder.prompt.as_ref().map_or(0, |prompt| prompt.dims()[0]),
            prefix.map_or(0, Prefix::len),
        ]
    }

    /// The head's own matrix.
    pub(crate) fn lm_head(&mut self) -> &mut Option<Embedding> {
        &mut self.lm_head
    }

    /// Number of layers.
    pub(crate) fn depth(&self) -> usize {
        self.decoder.layers.len()
    }

    /// What the head sees, `[tokens, width]`, or `[batch, width]` at the last tokens. `part` already includes the soft prompt.
    pub(crate) fn hidden(
        &self,
        part: &Part,
        last_only: bool,
        mut cache: Option<&mut [LayerCache]>,
    ) -> Tensor<2> {
        let decoder = &self.decoder;
        let [_, prefix] = self.virtual_tokens();
        let all = Scope::all(part, 1, prefix, None);
        let mut x = embed(&decoder.embed_tokens, &decoder.prompt, part);
        if let Some(project) = &decoder.project_in {
            x = apply(project, x);
        }
        x = x + lookup(
            &decoder.embed_positions,
            part.positions.clone() + (POSITION_OFFSET + prefix as i64),
        );
        for (index, layer) in decoder.layers.iter().enumerate() {
            let cache = cache.as_deref_mut().map(|cache| &mut cache[index]);
            // Continued sequences consist of their last token.
            x = if last_only && index + 1 == decoder.layers.len() && part.continues.is_none() {
                layer.forward(x, &Scope::last(part, 1, prefix, None), cache)
            } else {
                layer.forward(x, &all, cache)
            };
        }
        if let Some(norm) = &decoder.final_layer_norm {
            x = norm.forward(x);
        }
        match &decoder.project_out {
            Some(project) => apply(project, x),
            None => x,
        }
    }
}

impl Layer {
    fn forward(
        &self,
        x: Tensor<2>,
        scope: &Scope<'_>,
        cache: Option<&mut LayerCache>,
    ) -> Tensor<2> {
        let residual = scope.select(x.clone());
        let x = if self.pre_norm {
            self.self_attn_layer_norm.forward(x)
        } else {
            x
        };
        let mut x = residual + self.self_attn.forward(x, scope, cache);
        if !self.pre_norm {
            x = self.self_attn_layer_norm.forward(x);
        }

        let residual = x.clone();
        let x = if self.pre_norm {
            self.final_layer_norm.forward(x)
        } else {
            x
        };
        let grouped = [&self.fc1, &self.fc2].into_iter().any(in_groups);
        let update = by_blocks(x.dims()[0], &x.device(), grouped, |rows| {
            let wide = apply(&self.fc1, rows_of(&x, &rows));
            apply(&self.fc2, self.activation.forward(wide))
        });
        let x = residual + update;
        if self.pre_norm {
            x
        } else {
            self.final_layer_norm.forward(x)
        }
    }
}

impl Attention {
    fn forward(
        &self,
        x: Tensor<2>,
        scope: &Scope<'_>,
        cache: Option<&mut LayerCache>,
    ) -> Tensor<2> {
        let dtype = x.dtype();
        let query = scope.split_queries(apply(&self.q_proj, scope.select(x.clone())), self.heads);
        let key = scope.split_keys(apply(&self.k_proj, x.clone()), self.heads);
        let value = scope.split_keys(apply(&self.v_proj, x), self.heads);
        let [key, value] = scope.recall([key, value], self.prefix.as_ref(), cache);
        apply(&self.out_proj, scope.attend(query, key, value).cast(dtype))
    }
}

//! RoBERTa (Liu et al. 2019, arXiv 1907.11692) as a masked language model: every token sees all others.

use burn::module::{Initializer, Module, Param};
use burn::nn::{Embedding, Linear};
use burn::tensor::{Device, Tensor};

use crate::model::Vectors;
use crate::model::attention::{LayerCache, Prefix, Scope};
use crate::model::config::{Activation, RobertaConfig};
use crate::model::layers::{
    LayerNorm, Tunable, apply, by_blocks, embed, embedding, in_groups, linear, lookup, rows_of,
};
use crate::model::part::Part;

/// A RoBERTa masked language model. Parameters have names close to those of Hugging Face checkpoints, without the leading `roberta.`.
#[derive(Module, Debug)]
pub struct Roberta {
    embeddings: Embeddings,
    /// A soft prompt, `[length, width]`: input embeddings that are trained (Lester et al. 2021).
    prompt: Option<Param<Tensor<2>>>,
    encoder: Encoder,
    lm_head: Head,
    /// The position of the first token.
    first_position: usize,
}

#[derive(Module, Debug)]
struct Embeddings {
    word_embeddings: Embedding,
    position_embeddings: Embedding,
    token_type_embeddings: Embedding,
    layer_norm: LayerNorm,
}

#[derive(Module, Debug)]
struct Encoder {
    layer: Vec<Layer>,
}

#[derive(Module, Debug)]
struct Layer {
    self_attn: Attention,
    self_attn_layer_norm: LayerNorm,
    intermediate: Linear,
    output: Linear,
    output_layer_norm: LayerNorm,
    #[module(skip)]
    activation: Activation,
}

#[derive(Module, Debug)]
struct Attention {
    query: Linear,
    key: Linear,
    value: Linear,
    output: Linear,
    prefix: Option<Prefix>,
    heads: usize,
}

#[derive(Module, Debug)]
struct Head {
    dense: Linear,
    layer_norm: LayerNorm,
    /// `[vocab, width]`; if absent, the embedding matrix serves.
    decoder: Option<Embedding>,
    /// `[vocab]`.
    bias: Param<Tensor<1>>,
}

impl Roberta {
    /// A model with random weights (drawn on first use): normal with `initializer_range`, biases zero.
    pub(crate) fn new(config: &RobertaConfig, device: &Device) -> Self {
        let (width, std, eps) = (
            config.hidden_size,
            config.initializer_range,
            config.layer_norm_eps,
        );
        let linear = |d_in, d_out| linear(d_in, d_out, true, std, device);
        let norm = || LayerNorm::new(width, true, eps, device);
        let table = |rows| embedding(rows, width, std, device);
        let layer = |_| Layer {
            self_attn: Attention {
                query: linear(width, width),
                key: linear(width, width),
                value: linear(width, width),
                output: linear(width, width),
                prefix: None,
                heads: config.num_attention_heads,
            },
            self_attn_layer_norm: norm(),
            intermediate: linear(width, config.intermediate_size),
            output: linear(config.intermediate_size, width),
            output_layer_norm: norm(),
            activation: config.hidden_act,
        };
        Self {
            embeddings: Embeddings {
                word_embeddings: table(config.vocab_size),
                position_embeddings: table(config.max_position_embeddings),
                token_type_embeddings: table(config.type_vocab_size),
                layer_norm: norm(),
            },
            prompt: None,
            encoder: Encoder {
                layer: (0..config.num_hidden_layers).map(layer).collect(),
            },
            lm_head: Head {
                dense: linear(width, width),
                layer_norm: norm(),
                decoder: (!config.tie_word_embeddings).then(|| table(config.vocab_size)),
                bias: Initializer::Zeros.init([config.vocab_size], device),
            },
            first_position: config.pad_token_id as usize + 1,
        }
    }

    /// The head's matrix, `[vocab, width]`.
    pub(crate) fn head(&self) -> &Param<Tensor<2>> {
        let head = self.lm_head.decoder.as_ref();
        &head.unwrap_or(&self.embeddings.word_embeddings).weight
    }

    /// The head's bias, `[vocab]`.
    pub(crate) fn head_bias(&self) -> Vectors {
        Vectors::of(&self.lm_head.bias)
    }

    /// The same, to be changed.
    pub(crate) fn head_bias_parameter(&mut self) -> &mut Param<Tensor<1>> {
        &mut self.lm_head.bias
    }

    /// Number of tokens the model knows.
    pub(crate) fn vocab_size(&self) -> usize {
        self.embeddings.word_embeddings.weight.dims()[0]
    }

    /// The longest sequence, in tokens.
    pub(crate) fn context(&self) -> usize {
        self.embeddings.position_embeddings.weight.dims()[0] - self.first_position
    }

    /// Where a soft prompt and prefixes go.
    pub(crate) fn tunable(&mut self) -> Tunable<'_> {
        Tunable {
            embedding: &self.embeddings.word_embeddings,
            prompt: &mut self.prompt,
            prefixes: self
                .encoder
                .layer
                .iter_mut()
                .map(|layer| &mut layer.self_attn.prefix)
                .collect(),
        }
    }

    /// Rows of the soft prompt, and keys of a layer's prefix.
    pub(crate) fn virtual_tokens(&self) -> [usize; 2] {
        let first = self.encoder.layer.first();
        let prefix = first.and_then(|layer| layer.self_attn.prefix.as_ref());
        [
            self.prompt.as_ref().map_or(0, |prompt| prompt.dims()[0]),
            prefix.map_or(0, Prefix::len),
        ]
    }

    /// The head's own matrix.
    pub(crate) fn lm_head(&mut self) -> &mut Option<Embedding> {
        &mut self.lm_head.decoder
    }

    /// Number of layers.
    pub(crate) fn depth(&self) -> usize {
        self.encoder.layer.len()
    }

    /// What the head begins with, `[tokens, width]`, or `[batch, width]` at the last tokens. `part` already includes the soft prompt.
    pub(crate) fn hidden(
        &self,
        part: &Part,
        last_only: bool,
        mut cache: Option<&mut [LayerCache]>,
    ) -> Tensor<2> {
        let [_, prefix] = self.virtual_tokens();
        let tables = &self.embeddings;
        let first = (self.first_position + prefix) as i64;
        let x = embed(&tables.word_embeddings, &self.prompt, part);
        let kind = Vectors::row_of(&tables.token_type_embeddings.weight, 0);
        let positions = lookup(&tables.position_embeddings, part.positions.clone() + first);
        let mut x = tables
            .layer_norm
            .forward(kind.cast(x.dtype()).plus(x) + positions);
        let scope = Scope::both_sides(part, prefix);
        for (index, layer) in self.encoder.layer.iter().enumerate() {
            let cache = cache.as_deref_mut().map(|cache| &mut cache[index]);
            x = layer.forward(x, &scope, cache);
        }
        match last_only {
            true => x.select(0, part.last_rows.clone()),
            false => x,
        }
    }

    /// What the head's matrix sees of the rows `x`, `[rows, width]`.
    pub(crate) fn transform(&self, x: Tensor<2>) -> Tensor<2> {
        let head = &self.lm_head;
        let x = Activation::Gelu.forward(apply(&head.dense, x));
        head.layer_norm.forward(x)
    }
}

impl Layer {
    fn forward(
        &self,
        x: Tensor<2>,
        scope: &Scope<'_>,
        cache: Option<&mut LayerCache>,
    ) -> Tensor<2> {
        let mixed = self.self_attn.forward(x.clone(), scope, cache);
        let x = self.self_attn_layer_norm.forward(x + mixed);
        let grouped = [&self.intermediate, &self.output]
            .into_iter()
            .any(in_groups);
        let update = by_blocks(x.dims()[0], &x.device(), grouped, |rows| {
            let wide = apply(&self.intermediate, rows_of(&x, &rows));
            apply(&self.output, self.activation.forward(wide))
        });
        self.output_layer_norm.forward(x + update)
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
        let query = scope.split_queries(apply(&self.query, x.clone()), self.heads);
        let key = scope.split_keys(apply(&self.key, x.clone()), self.heads);
        let value = scope.split_keys(apply(&self.value, x), self.heads);
        let [key, value] = scope.recall([key, value], self.prefix.as_ref(), cache);
        apply(&self.output, scope.attend(query, key, value).cast(dtype))
    }
}

/// Parts of paths, and what they are called in files.
const NAMES: [(&str, &str); 7] = [
    ("embeddings.layer_norm.", "embeddings.LayerNorm."),
    (".self_attn.output.", ".attention.output.dense."),
    (".self_attn_layer_norm.", ".attention.output.LayerNorm."),
    (".self_attn.", ".attention.self."),
    (".intermediate.", ".intermediate.dense."),
    (".output_layer_norm.", ".output.LayerNorm."),
    (".output.", ".output.dense."),
];

/// The name under which transformers stores the parameter at `path`; `None` if it is not RoBERTa's, or its head's, which has its path.
pub(crate) fn file_name(path: &str) -> Option<String> {
    if !(path.starts_with("embeddings.") || path.starts_with("encoder.")) {
        return None;
    }
    let found = NAMES.iter().find(|(part, _)| path.contains(part));
    let name = found.map_or_else(
        || path.to_owned(),
        |(part, name)| path.replacen(part, name, 1),
    );
    Some(format!("roberta.{name}"))
}

#[cfg(test)]
mod tests {
    use super::file_name;

    #[test]
    fn files_have_the_names_of_transformers() {
        for (path, name) in [
            (
                "embeddings.word_embeddings.weight",
                "embeddings.word_embeddings.weight",
            ),
            ("embeddings.layer_norm.bias", "embeddings.LayerNorm.bias"),
            (
                "encoder.layer.0.self_attn.query.weight",
                "encoder.layer.0.attention.self.query.weight",
            ),
            (
                "encoder.layer.0.self_attn.output.bias",
                "encoder.layer.0.attention.output.dense.bias",
            ),
            (
                "encoder.layer.0.self_attn_layer_norm.weight",
                "encoder.layer.0.attention.output.LayerNorm.weight",
            ),
            (
                "encoder.layer.11.intermediate.weight",
                "encoder.layer.11.intermediate.dense.weight",
            ),
            (
                "encoder.layer.11.output.weight",
                "encoder.layer.11.output.dense.weight",
            ),
            (
                "encoder.layer.11.output_layer_norm.bias",
                "encoder.layer.11.output.LayerNorm.bias",
            ),
        ] {
            assert_eq!(file_name(path), Some(format!("roberta.{name}")));
        }
        assert_eq!(file_name("lm_head.dense.weight"), None);
        assert_eq!(file_name("decoder.layers.0.fc1.weight"), None);
    }
}

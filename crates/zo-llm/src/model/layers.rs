//! The layers both models are made of, with parameters named as in Hugging Face checkpoints.

use std::ops::Range;

use burn::module::{Initializer, Module, Param};
use burn::nn::{Embedding, Linear};
use burn::tensor::module::layer_norm;
use burn::tensor::{DType, Device, Int, Tensor, activation};
use rayon::prelude::*;

use zo_core::SidePath;

use crate::model::Vectors;
use crate::model::arrange::by_rows;
use crate::model::attention::Prefix;
use crate::model::config::Activation;
use crate::model::part::Part;
use crate::model::precision::{affine, as_activation, is_flex, swiglu, to_f32};

/// A linear layer `[rows, d_input] -> [rows, d_output]`, initialized as transformers does: normal weights, zero biases.
/// Its weight is stored `[d_input, d_output]`; nothing is drawn before the first use.
pub(crate) fn linear(
    d_input: usize,
    d_output: usize,
    bias: bool,
    std: f64,
    device: &Device,
) -> Linear {
    Linear {
        weight: Initializer::Normal { mean: 0.0, std }.init([d_input, d_output], device),
        bias: bias.then(|| Initializer::Zeros.init([d_output], device)),
    }
}

/// A table of `rows` vectors of `width` elements, with normal weights.
pub(crate) fn embedding(rows: usize, width: usize, std: f64, device: &Device) -> Embedding {
    Embedding {
        weight: Initializer::Normal { mean: 0.0, std }.init([rows, width], device),
    }
}

/// `layer` applied to rows. Where its weight is displaced by noise of low rank, the displaced weight is never made.
pub(crate) fn apply(layer: &Linear, x: Tensor<2>) -> Tensor<2> {
    let (weight, side) = match SidePath::of(&layer.weight) {
        Some(side) => (layer.weight.base(), Some(side)),
        None => (layer.weight.val(), None),
    };
    let (bias, biases) = match layer.bias.as_ref().map(Vectors::of) {
        Some(Vectors::One(bias)) => (Some(bias), None),
        biases => (None, biases),
    };
    let y = affine(x.clone(), weight, bias);
    match (side, biases) {
        (None, None) => y,
        (None, Some(biases)) => biases.cast(y.dtype()).plus(y),
        (Some(side), None) => add(y, side.forward(x)),
        (Some(side), Some(biases)) => add(y, biases.widened().plus(side.forward(x))),
    }
}

/// Rows that are computed at a time on the CPU: what lies between the products of a feed-forward layer stays near the cache.
const BLOCK_ROWS: usize = 256;

/// `f` of ranges of `rows` rows, which depend on nothing else: blocks side by side, since most operations of the CPU backend run on one
/// thread. Rows that are in groups, one for each of several displacements, stay together.
pub(crate) fn by_blocks<const D: usize>(
    rows: usize,
    device: &Device,
    in_groups: bool,
    f: impl Fn(Range<usize>) -> Tensor<D> + Sync,
) -> Tensor<D> {
    if rows <= BLOCK_ROWS || in_groups || !by_rows(device) {
        return f(0..rows);
    }
    // Their size does not depend on the number of threads, and so neither does the order of any sum.
    let blocks = (0..rows.div_ceil(BLOCK_ROWS)).into_par_iter().map(|block| {
        let first = block * BLOCK_ROWS;
        f(first..rows.min(first + BLOCK_ROWS))
    });
    Tensor::cat(blocks.collect(), 0)
}

/// Some rows of `x`.
pub(crate) fn rows_of<const D: usize>(x: &Tensor<D>, rows: &Range<usize>) -> Tensor<D> {
    x.clone().narrow(0, rows.start, rows.len())
}

/// Whether a layer is shown at several displacements at once, its rows in groups.
pub(crate) fn in_groups(layer: &Linear) -> bool {
    let several = |side: SidePath| side.displacements() > 1;
    let bias = layer.bias.as_ref();
    SidePath::of(&layer.weight).is_some_and(several) || bias.is_some_and(Vectors::are_several)
}

/// What a side path adds, in its precision.
fn add(y: Tensor<2>, side: Tensor<2>) -> Tensor<2> {
    let dtype = y.dtype();
    (to_f32(y) + side).cast(dtype)
}

/// Rows `ids` of `table`, as activations: `[ids, width]`.
pub(crate) fn lookup(table: &Embedding, ids: Tensor<1, Int>) -> Tensor<2> {
    let matrix = &table.weight;
    match SidePath::of(matrix) {
        Some(side) => {
            let base = as_activation(numbers(matrix.base()).select(0, ids.clone()));
            add(base, side.select(ids))
        }
        None => as_activation(numbers(matrix.val()).select(0, ids)),
    }
}

/// A quantized matrix as numbers, before rows are taken or it is transposed: burn would quantize blocks of the result anew.
fn numbers(matrix: Tensor<2>) -> Tensor<2> {
    match matrix.dtype() {
        DType::QFloat(_) => matrix.dequantize(),
        _ => matrix,
    }
}

/// The head's matrix `[vocab, width]` as the objective should see it.
pub(crate) struct Head {
    matrix: Tensor<2>,
    side: Option<SidePath>,
}

impl Head {
    pub(crate) fn of(matrix: &Param<Tensor<2>>) -> Self {
        match SidePath::of(matrix) {
            Some(side) => Self {
                matrix: numbers(matrix.base()),
                side: Some(side),
            },
            None => Self {
                matrix: numbers(matrix.val()),
                side: None,
            },
        }
    }

    /// The same, for logits that are f32 if it is half precision.
    pub(crate) fn widened(self) -> Self {
        if is_flex(&self.matrix.device()) {
            return self;
        }
        let matrix = to_f32(self.matrix);
        Self { matrix, ..self }
    }

    /// For tokens `ids` alone.
    pub(crate) fn select(self, ids: Tensor<1, Int>) -> Self {
        Self {
            matrix: self.matrix.select(0, ids.clone()),
            side: self.side.map(|side| side.rows(ids)),
        }
    }

    /// At displacement `group` alone, if it is shown at several at once.
    pub(crate) fn at(&self, group: usize) -> Self {
        Self {
            matrix: self.matrix.clone(),
            side: self.side.as_ref().map(|side| side.at(group)),
        }
    }

    /// Displacements that are shown at once.
    pub(crate) fn displacements(&self) -> usize {
        self.side.as_ref().map_or(1, SidePath::displacements)
    }

    /// Logits `[rows, vocab]` of rows `[rows, width]`, in the type of the rows.
    pub(crate) fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let y = affine(x.clone(), self.matrix.clone().transpose(), None);
        match &self.side {
            Some(side) => add(y, side.forward_transposed(x)),
            None => y,
        }
    }
}

/// The input: the embedded ids of `part`, after the soft prompt if there is one. `[tokens, width]`.
pub(crate) fn embed(
    table: &Embedding,
    prompt: &Option<Param<Tensor<2>>>,
    part: &Part,
) -> Tensor<2> {
    embed_scaled(table, None, prompt, part)
}

/// [`embed`] with the ids' embeddings times `scale`.
pub(crate) fn embed_scaled(
    table: &Embedding,
    scale: Option<f64>,
    prompt: &Option<Param<Tensor<2>>>,
    part: &Part,
) -> Tensor<2> {
    let tokens = scaled(
        lookup(table, part.ids.clone()),
        scale,
        table.weight.base().dtype(),
    );
    match (prompt, &part.prompted) {
        (Some(prompt), Some(rows)) => {
            Tensor::cat(vec![as_activation(prompt.val()), tokens], 0).select(0, rows.clone())
        }
        _ => tokens,
    }
}

/// Embeddings times `scale`, which is rounded to `dtype`, that of their table, as in transformers.
pub(crate) fn scaled(x: Tensor<2>, scale: Option<f64>, dtype: DType) -> Tensor<2> {
    match (scale, dtype) {
        (None, _) => x,
        (Some(scale), DType::BF16) => x * half::bf16::from_f64(scale).to_f64(),
        (Some(scale), DType::F16) => x * half::f16::from_f64(scale).to_f64(),
        (Some(scale), _) => x * scale,
    }
}

/// What a model may have besides its checkpoint's parameters.
pub(crate) struct Tunable<'a> {
    pub(crate) embedding: &'a Embedding,
    pub(crate) prompt: &'a mut Option<Param<Tensor<2>>>,
    /// By layer.
    pub(crate) prefixes: Vec<&'a mut Option<Prefix>>,
}

/// Layer normalization whose scale and shift may be absent (OPT's `layer_norm_elementwise_affine`).
#[derive(Module, Debug)]
pub(crate) struct LayerNorm {
    weight: Option<Param<Tensor<1>>>,
    bias: Option<Param<Tensor<1>>>,
    epsilon: f64,
}

impl LayerNorm {
    pub(crate) fn new(width: usize, affine: bool, epsilon: f64, device: &Device) -> Self {
        Self {
            weight: affine.then(|| Initializer::Ones.init([width], device)),
            bias: affine.then(|| Initializer::Zeros.init([width], device)),
            epsilon,
        }
    }

    /// Statistics are computed in f32 whatever the dtype of `x`, `[rows, width]`.
    pub(crate) fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let dtype = x.dtype();
        let x = to_f32(x);
        let ones = || Tensor::ones([x.dims()[1]], (&x.device(), x.dtype()));
        let of = |param: &Param<Tensor<1>>| Vectors::of(param).widened();
        let (weight, bias) = (self.weight.as_ref().map(of), self.bias.as_ref().map(of));
        let x = match (weight, bias) {
            (None, None) => layer_norm(x.clone(), ones(), None, self.epsilon),
            (Some(Vectors::One(weight)), Some(Vectors::One(bias))) => {
                layer_norm(x, weight, Some(bias), self.epsilon)
            }
            (weight, bias) => {
                let x = layer_norm(x.clone(), ones(), None, self.epsilon);
                let x = match weight {
                    Some(weight) => weight.times(x),
                    None => x,
                };
                match bias {
                    Some(bias) => bias.plus(x),
                    None => x,
                }
            }
        };
        x.cast(dtype)
    }
}

/// Root-mean-square normalization: `weight * x / sqrt(mean(x^2) + epsilon)`, in Gemma with `1 + weight`.
#[derive(Module, Debug)]
pub(crate) struct RmsNorm {
    weight: Param<Tensor<1>>,
    epsilon: f64,
    /// Whether the factor is one more than the weight.
    offset: bool,
}

impl RmsNorm {
    pub(crate) fn new(width: usize, epsilon: f64, offset: bool, device: &Device) -> Self {
        let start = match offset {
            true => Initializer::Zeros,
            false => Initializer::Ones,
        };
        Self {
            weight: start.init([width], device),
            epsilon,
            offset,
        }
    }

    /// Whether it is shown at several displacements at once, its rows in groups.
    pub(crate) fn in_groups(&self) -> bool {
        Vectors::are_several(&self.weight)
    }

    /// The mean over the last axis, `width`, is computed in f32 whatever the dtype of `x`. The result has that dtype.
    pub(crate) fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let dtype = x.dtype();
        let x = to_f32(x);
        let mean_square = (x.clone() * x.clone()).mean_dim(D - 1);
        let inverse = (mean_square + self.epsilon).sqrt().recip();
        let weight = Vectors::of(&self.weight);
        match self.offset {
            true => weight.widened().plus_one().times(x * inverse).cast(dtype),
            false => weight.cast(dtype).times((x * inverse).cast(dtype)),
        }
    }
}

impl Activation {
    /// Applies the nonlinearity to each element.
    pub(crate) fn forward(self, x: Tensor<2>) -> Tensor<2> {
        match self {
            Self::Relu => activation::relu(x),
            Self::Gelu => activation::gelu(x),
            Self::GeluTanh => activation::gelu_approximate(x),
            Self::Silu => activation::silu(x),
        }
    }

    /// `up`, each element times the nonlinearity of its gate.
    pub(crate) fn gated(self, gate: Tensor<2>, up: Tensor<2>) -> Tensor<2> {
        match self {
            Self::Silu => swiglu(gate, up),
            _ => self.forward(gate) * up,
        }
    }
}

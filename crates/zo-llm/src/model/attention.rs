//! Masked attention with shared key and value heads.

use burn::module::{Module, Param};
use burn::tensor::module::{attention, attention_fallback};
use burn::tensor::{Bool, DType, Int, Tensor, TensorData};

use crate::model::part::{Padding, Part};
use crate::model::precision::{is_flex, to_f32};

/// Keys and values that precede those of the tokens, the same for every sequence: what prefix tuning trains (Li and Liang 2021).
#[derive(Module, Debug)]
pub(crate) struct Prefix {
    /// `[key_heads, length, head_dim]`; after rotation where positions are rotary.
    key: Param<Tensor<3>>,
    /// `[key_heads, length, head_dim]`.
    value: Param<Tensor<3>>,
}

impl Prefix {
    /// From the keys and values that one sequence left in a cache, `[1, key_heads, length, head_dim]`, as `dtype`.
    pub(crate) fn new([key, value]: [Tensor<4>; 2], dtype: DType) -> Self {
        let param = |x: Tensor<4>| Param::from_tensor(x.squeeze_dim::<3>(0).cast(dtype));
        Self {
            key: param(key),
            value: param(value),
        }
    }

    /// Number of keys.
    pub(crate) fn len(&self) -> usize {
        self.key.dims()[1]
    }

    fn before(&self, keys: [Tensor<4>; 2]) -> [Tensor<4>; 2] {
        let join = |prefix: &Param<Tensor<3>>, own: Tensor<4>| {
            let prefix = to_f32(prefix.val()).unsqueeze::<4>();
            let batch = own.dims()[0];
            Tensor::cat(vec![prefix.repeat_dim(0, batch), own], 2)
        };
        let [key, value] = keys;
        [join(&self.key, key), join(&self.value, value)]
    }
}

/// One layer's keys and values of the tokens so far: `[batch, key_heads, keys, head_dim]`, f32.
#[derive(Debug, Clone, Default)]
pub(crate) struct LayerCache(pub(crate) Option<[Tensor<4>; 2]>);

/// What the queries see: the keys and values of the tokens, preceded by those of the cache or of a prefix. The cache keeps them all.
pub(crate) fn recall(
    own: [Tensor<4>; 2],
    prefix: Option<&Prefix>,
    cache: Option<&mut LayerCache>,
) -> [Tensor<4>; 2] {
    let Some(cache) = cache else {
        return match prefix {
            Some(prefix) => prefix.before(own),
            None => own,
        };
    };
    let [key, value] = own;
    let all = match (cache.0.take(), prefix) {
        (Some([keys, values]), _) => [
            Tensor::cat(vec![keys, key], 2),
            Tensor::cat(vec![values, value], 2),
        ],
        (None, Some(prefix)) => prefix.before([key, value]),
        (None, None) => [key, value],
    };
    cache.0.insert(all).clone()
}

/// Which tokens a block computes: every block but the last needs all of them.
pub(crate) struct Scope<'a> {
    part: &'a Part,
    /// Rows of the queries among the real tokens; all of them if `None`.
    rows: Option<&'a Tensor<1, Int>>,
    /// True where a query must not see a key, `[1 or batch, 1, group * queries, seq]`.
    mask: Tensor<4, Bool>,
}

impl<'a> Scope<'a> {
    /// Every token is a query. `group` query heads share a key head; `prefix` keys precede those of the tokens; with a `window`, a
    /// token sees only as many.
    pub(crate) fn all(part: &'a Part, group: usize, prefix: usize, window: Option<usize>) -> Self {
        let mask = window
            .and_then(|window| part.windowed(window, prefix))
            .unwrap_or_else(|| behind(prefix, part, &part.mask));
        Self {
            part,
            rows: None,
            mask: repeat(mask, group),
        }
    }

    /// Only the last token of each sequence is a query.
    pub(crate) fn last(part: &'a Part, group: usize, prefix: usize, window: Option<usize>) -> Self {
        let mask = window
            .and_then(|window| part.last_windowed(window, prefix))
            .unwrap_or_else(|| behind(prefix, part, &part.last_mask));
        Self {
            part,
            rows: Some(&part.last_rows),
            mask: repeat(mask, group),
        }
    }

    /// Every token is a query and sees all tokens of its sequence.
    pub(crate) fn both_sides(part: &'a Part, prefix: usize) -> Self {
        let mask = behind(prefix, part, &part.last_mask);
        Self {
            part,
            rows: None,
            mask: mask.repeat_dim(2, part.seq),
        }
    }

    /// The query rows of `x`, `[tokens, width]`.
    pub(crate) fn select(&self, x: Tensor<2>) -> Tensor<2> {
        match self.rows {
            Some(rows) => x.select(0, rows.clone()),
            None => x,
        }
    }

    /// How queries are padded.
    fn query_padding(&self) -> Option<&'a Padding> {
        if self.rows.is_some() {
            None
        } else {
            self.part.padding.as_ref()
        }
    }

    /// Queries by head, `[batch, heads, queries, width]`, from rows `[queries of all sequences, heads * width]`.
    pub(crate) fn split_queries(&self, x: Tensor<2>, heads: usize) -> Tensor<4> {
        split(x, self.query_padding(), self.part.batch, heads)
    }

    /// Keys or values by head, `[batch, heads, seq, width]`, from rows `[tokens, heads * width]`.
    pub(crate) fn split_keys(&self, x: Tensor<2>, heads: usize) -> Tensor<4> {
        split(x, self.part.padding.as_ref(), self.part.batch, heads)
    }

    /// `softmax(q k^T / sqrt(width), masked) v`.
    ///
    /// `query` is `[batch, heads, queries, width]`, `key` and `value` are `[batch, key_heads, seq, width]`. The result has
    /// one row per query: `[queries of all sequences, heads * width]`.
    pub(crate) fn attend(&self, query: Tensor<4>, key: Tensor<4>, value: Tensor<4>) -> Tensor<2> {
        let [batch, heads, queries, width] = query.dims();
        let key_heads = key.dims()[1];
        // The query heads that share a key head are adjacent, so they can be treated as further queries of that head:
        // no key is repeated, and each product is larger.
        let query = query.reshape([batch, key_heads, heads / key_heads * queries, width]);
        let (mask, options) = (Some(self.mask.clone()), Default::default());
        // The CPU has a fused kernel. That of the CubeCL backends rounds f32 operands to f16, which would blur the
        // loss differences that zeroth-order steps rely on, so plain products are used there.
        let mixed = if is_flex(&query.device()) {
            attention(query, key, value, mask, None, options)
        } else {
            attention_fallback(query, key, value, mask, None, options)
        };
        let mixed = mixed
            .reshape([batch, heads, queries, width])
            .swap_dims(1, 2);
        let mixed = mixed.reshape([batch * queries, heads * width]);
        match self.query_padding() {
            Some(padding) => mixed.select(0, padding.pack.clone()),
            None => mixed,
        }
    }
}

/// The mask with extra columns for the keys of a prefix, which every query may see. The mask of continued sequences already has them.
fn behind(prefix: usize, part: &Part, mask: &Tensor<4, Bool>) -> Tensor<4, Bool> {
    if prefix == 0 || part.continues.is_some() {
        return mask.clone();
    }
    let [batch, _, queries, _] = mask.dims();
    let seen = vec![false; batch * queries * prefix];
    let seen = TensorData::new(seen, [batch, 1, queries, prefix]);
    Tensor::cat(
        vec![Tensor::from_data(seen, &mask.device()), mask.clone()],
        3,
    )
}

fn repeat(mask: Tensor<4, Bool>, group: usize) -> Tensor<4, Bool> {
    if group == 1 {
        mask
    } else {
        mask.repeat_dim(2, group)
    }
}

/// Half precision is widened: scores, softmax and sums are f32. The result is a view.
fn split(x: Tensor<2>, padding: Option<&Padding>, batch: usize, heads: usize) -> Tensor<4> {
    let x = match padding {
        Some(padding) => x.select(0, padding.unpack.clone()),
        None => x,
    };
    let [rows, width] = x.dims();
    to_f32(x)
        .reshape([batch, rows / batch, heads, width / heads])
        .swap_dims(1, 2)
}

//! Masked attention with shared key and value heads.

use burn::tensor::module::{attention, attention_fallback};
use burn::tensor::{Bool, Device, Int, Tensor};

use crate::layers::to_f32;
use crate::part::{Padding, Part};

/// Which tokens a block computes: every block but the last needs all of them.
pub(crate) struct Scope<'a> {
    part: &'a Part,
    /// Rows of the queries among the real tokens; all of them if `None`.
    rows: Option<&'a Tensor<1, Int>>,
    /// True where a query must not see a key, `[1 or batch, 1, group * queries, seq]`.
    mask: Tensor<4, Bool>,
}

impl<'a> Scope<'a> {
    /// Every token is a query. `group` query heads share a key head.
    pub(crate) fn all(part: &'a Part, group: usize) -> Self {
        Self {
            part,
            rows: None,
            mask: repeat(part.mask.clone(), group),
        }
    }

    /// Only the last token of each sequence is a query.
    pub(crate) fn last(part: &'a Part, group: usize) -> Self {
        Self {
            part,
            rows: Some(&part.last_rows),
            mask: repeat(part.last_mask.clone(), group),
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
    /// `query` is `[batch, heads, queries, width]`, `key` and `value` are `[batch, key_heads, seq, width]`. The result has a
    /// row for each query: `[queries of all sequences, heads * width]`.
    pub(crate) fn attend(&self, query: Tensor<4>, key: Tensor<4>, value: Tensor<4>) -> Tensor<2> {
        let [batch, heads, queries, width] = query.dims();
        let key_heads = key.dims()[1];
        // The query heads that share a key head stand next to each other, so that they pass for further queries of that
        // head: no key is repeated, and each product is larger.
        let query = query.reshape([batch, key_heads, heads / key_heads * queries, width]);
        let (mask, options) = (Some(self.mask.clone()), Default::default());
        // The CPU has a fused kernel. That of the CubeCL backends rounds f32 operands to f16, which would blur the
        // differences of losses that zeroth-order steps live on, so there the plain products are used.
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

/// Whether tensors live in burn's CPU backend.
#[cfg(feature = "flex")]
pub(crate) fn is_flex(device: &Device) -> bool {
    *device == Device::flex()
}

/// Whether tensors live in burn's CPU backend, which this build lacks.
#[cfg(not(feature = "flex"))]
pub(crate) fn is_flex(_: &Device) -> bool {
    false
}

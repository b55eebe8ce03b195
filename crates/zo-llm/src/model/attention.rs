//! Masked attention with shared key and value heads.

use burn::module::{Module, Param};
use burn::tensor::module::attention_fallback;
use burn::tensor::{Bool, DType, Int, Tensor, TensorData};

use crate::model::part::{Padded, Padding, Part};
use crate::model::precision::to_f32;

#[cfg(feature = "flex")]
use crate::model::part::{Continued, Past, behind as rows_behind};
#[cfg(feature = "flex")]
use zo_flex::{Attention, Sequence};

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

    /// Keys and values of the tokens behind those of the prefix.
    fn before(&self, keys: [Tensor<4>; 2], by_rows: bool) -> [Tensor<4>; 2] {
        let join = |prefix: &Param<Tensor<3>>, own: Tensor<4>| {
            let prefix = to_f32(prefix.val()).unsqueeze::<4>();
            if by_rows {
                return Tensor::cat(vec![prefix.swap_dims(0, 2), own], 0);
            }
            let batch = own.dims()[0];
            Tensor::cat(vec![prefix.repeat_dim(0, batch), own], 2)
        };
        let [key, value] = keys;
        [join(&self.key, key), join(&self.value, value)]
    }
}

/// One layer's keys and values of the tokens so far, f32: `[batch, key_heads, keys, head_dim]`, or `[keys of all sequences, key_heads, 1, head_dim]` where
/// attention takes rows.
#[derive(Debug, Clone, Default)]
pub(crate) struct LayerCache(pub(crate) Option<[Tensor<4>; 2]>);

impl LayerCache {
    /// Those of a single sequence, `[1, key_heads, tokens, head_dim]`.
    pub(crate) fn of_one_sequence(self, part: &Part) -> Option<[Tensor<4>; 2]> {
        let keys = self.0?;
        Some(match part.padded {
            Some(_) => keys.map(|x| x.narrow(2, 0, part.longest)),
            None => keys.map(|x| x.swap_dims(0, 2)),
        })
    }
}

/// Which tokens a block computes: every block but the last needs all of them.
pub(crate) struct Scope<'a> {
    part: &'a Part,
    /// Rows of the queries among the real tokens; all of them if `None`.
    rows: Option<&'a Tensor<1, Int>>,
    seen: Seen,
}

/// What queries see.
// A forward pass holds a few.
#[allow(clippy::large_enum_variant)]
enum Seen {
    /// True where a query must not see a key, `[1 or batch, 1, group * queries, seq]`.
    Mask(Tensor<4, Bool>),
    /// The keys of each row.
    #[cfg(feature = "flex")]
    Rows(Attention),
}

impl<'a> Scope<'a> {
    /// Every token is a query. `group` query heads share a key head; `prefix` keys precede those of the tokens; with a `window`, a
    /// token sees only as many.
    pub(crate) fn all(part: &'a Part, group: usize, prefix: usize, window: Option<usize>) -> Self {
        let mask = |padded: &Padded| {
            let mask = window.and_then(|window| part.windowed(window, prefix));
            let mask = mask.unwrap_or_else(|| behind(prefix, part, &padded.mask));
            repeat(mask, group)
        };
        Self {
            part,
            rows: None,
            seen: Seen::new(part, mask, || Seen::every_row(part, prefix, window)),
        }
    }

    /// Only the last token of each sequence is a query.
    pub(crate) fn last(part: &'a Part, group: usize, prefix: usize, window: Option<usize>) -> Self {
        let mask = |padded: &Padded| {
            let mask = window.and_then(|window| part.last_windowed(window, prefix));
            let mask = mask.unwrap_or_else(|| behind(prefix, part, &padded.last_mask));
            repeat(mask, group)
        };
        Self {
            part,
            rows: Some(&part.last_rows),
            seen: Seen::new(part, mask, || Seen::last_rows(part, prefix, window)),
        }
    }

    /// Every token is a query and sees all tokens of its sequence.
    pub(crate) fn both_sides(part: &'a Part, prefix: usize) -> Self {
        let mask = |padded: &Padded| {
            let mask = behind(prefix, part, &padded.last_mask);
            mask.repeat_dim(2, part.seq)
        };
        Self {
            part,
            rows: None,
            seen: Seen::new(part, mask, || Seen::both_sides(part, prefix)),
        }
    }

    fn by_rows(&self) -> bool {
        !matches!(self.seen, Seen::Mask(_))
    }

    /// What the queries see: the keys and values of the tokens, preceded by those of the cache or of a prefix. The cache keeps them all.
    pub(crate) fn recall(
        &self,
        own: [Tensor<4>; 2],
        prefix: Option<&Prefix>,
        cache: Option<&mut LayerCache>,
    ) -> [Tensor<4>; 2] {
        let before = |own| match prefix {
            Some(prefix) => prefix.before(own, self.by_rows()),
            None => own,
        };
        let Some(cache) = cache else {
            return before(own);
        };
        let axis = if self.by_rows() { 0 } else { 2 };
        let all = match cache.0.take() {
            Some([keys, values]) => {
                let [key, value] = own;
                [
                    Tensor::cat(vec![keys, key], axis),
                    Tensor::cat(vec![values, value], axis),
                ]
            }
            None => before(own),
        };
        cache.0.insert(all).clone()
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
        match self.rows {
            Some(_) => None,
            None => self.padding(),
        }
    }

    /// How keys are padded.
    fn padding(&self) -> Option<&'a Padding> {
        self.part.padded.as_ref()?.padding.as_ref()
    }

    /// Number of sequences that are laid out: each row where attention takes rows.
    fn batch(&self, x: &Tensor<2>) -> usize {
        match self.by_rows() {
            true => x.dims()[0],
            false => self.part.batch,
        }
    }

    /// Queries by head, `[batch, heads, queries, width]`, from rows `[queries of all sequences, heads * width]`. Where attention takes rows, each is a
    /// batch of its own.
    pub(crate) fn split_queries(&self, x: Tensor<2>, heads: usize) -> Tensor<4> {
        let batch = self.batch(&x);
        split(x, self.query_padding(), batch, heads)
    }

    /// Keys or values by head, `[batch, heads, seq, width]`, from rows `[tokens, heads * width]`; likewise.
    pub(crate) fn split_keys(&self, x: Tensor<2>, heads: usize) -> Tensor<4> {
        let batch = self.batch(&x);
        split(x, self.padding(), batch, heads)
    }

    /// `softmax(q k^T / sqrt(width), masked) v`.
    ///
    /// `query` is `[batch, heads, queries, width]`, `key` and `value` are `[batch, key_heads, seq, width]`. The result has
    /// one row per query: `[queries of all sequences, heads * width]`.
    pub(crate) fn attend(&self, query: Tensor<4>, key: Tensor<4>, value: Tensor<4>) -> Tensor<2> {
        let [batch, heads, queries, width] = query.dims();
        let [rows, key_heads, ..] = key.dims();
        let mask = match &self.seen {
            Seen::Mask(mask) => mask.clone(),
            #[cfg(feature = "flex")]
            Seen::Rows(plan) => {
                let query = query.reshape([batch, heads * width]);
                let [key, value] = [key, value].map(|x| x.reshape([rows, key_heads * width]));
                return zo_flex::attend(query, key, value, [heads, key_heads], plan);
            }
        };
        #[cfg(not(feature = "flex"))]
        let _ = rows;
        // The query heads that share a key head are adjacent, so they can be treated as further queries of that head:
        // no key is repeated, and each product is larger.
        let query = query.reshape([batch, key_heads, heads / key_heads * queries, width]);
        // The fused kernel of the CubeCL backends rounds f32 operands to f16, which would blur the loss differences that zeroth-order
        // steps rely on, so plain products are used.
        let mixed = attention_fallback(query, key, value, Some(mask), None, Default::default());
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

impl Seen {
    fn new(
        part: &Part,
        mask: impl FnOnce(&Padded) -> Tensor<4, Bool>,
        rows: impl FnOnce() -> Self,
    ) -> Self {
        match &part.padded {
            Some(padded) => Self::Mask(mask(padded)),
            None => rows(),
        }
    }
}

#[cfg(feature = "flex")]
impl Seen {
    fn every_row(part: &Part, prefix: usize, window: Option<usize>) -> Self {
        let sequences = match &part.continues {
            Some(Continued {
                past: Past::Rows(texts, _),
                ..
            }) => texts
                .iter()
                .cloned()
                .map(|keys| one_query(0, keys))
                .collect(),
            _ => runs(part, prefix),
        };
        Self::Rows(Attention {
            window,
            causal: true,
            sequences,
        })
    }

    fn last_rows(part: &Part, prefix: usize, window: Option<usize>) -> Self {
        let texts = part.runs.texts().map(|keys| one_query(prefix, keys));
        Self::Rows(Attention {
            window,
            causal: true,
            sequences: texts.collect(),
        })
    }

    fn both_sides(part: &Part, prefix: usize) -> Self {
        Self::Rows(Attention {
            window: None,
            causal: false,
            sequences: runs(part, prefix),
        })
    }
}

/// The runs of a part, each row of which is a query.
#[cfg(feature = "flex")]
fn runs(part: &Part, prefix: usize) -> Vec<Sequence> {
    let sequence = |(queries, keys)| Sequence {
        queries,
        keys: rows_behind(prefix, keys),
    };
    part.runs.each_run().map(sequence).collect()
}

#[cfg(feature = "flex")]
fn one_query(prefix: usize, keys: Vec<std::ops::Range<usize>>) -> Sequence {
    Sequence {
        queries: 1,
        keys: rows_behind(prefix, keys),
    }
}

#[cfg(not(feature = "flex"))]
impl Seen {
    fn every_row(part: &Part, _: usize, _: Option<usize>) -> Self {
        Self::without_mask(part)
    }

    fn last_rows(part: &Part, _: usize, _: Option<usize>) -> Self {
        Self::without_mask(part)
    }

    fn both_sides(part: &Part, _: usize) -> Self {
        Self::without_mask(part)
    }

    fn without_mask(_: &Part) -> Self {
        unreachable!("parts are padded on every device but flex")
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

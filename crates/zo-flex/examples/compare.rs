//! Times of the kernels beside those of burn-flex's own operations, and the largest difference of their results.
//!
//! ```text
//! cargo run --release -p zo-flex --example compare
//! ```

use std::time::Instant;

use burn::tensor::module::attention;
use burn::tensor::{Bool, DType, Device, Distribution, Tensor, TensorData};
use zo_flex::{Attention, Sequence};

/// Measurements, taken in turn, of which the fastest counts.
const TRIES: usize = 8;

fn main() {
    println!("product               type   burn ms   here ms   GFLOP/s  difference");
    for [m, k, n] in [
        [225, 576, 1536],
        [225, 1536, 576],
        [225, 576, 192],
        [64, 2048, 8192],
        [64, 8192, 2048],
        [1, 2048, 8192],
    ] {
        for dtype in [DType::F32, DType::BF16, DType::F16] {
            product([m, k, n], dtype, false);
        }
    }
    product([64, 576, 49152], DType::BF16, true);
    println!("attention, 9 heads that share 3 of 64, causal");
    for (batch, tokens) in [(16, 28), (4, 136), (1, 1658), (1, 6300)] {
        blocks(batch, tokens);
    }
}

fn random<const D: usize>(shape: [usize; D], dtype: DType) -> Tensor<D> {
    let options = (&Device::flex(), DType::F32);
    Tensor::<D>::random(shape, Distribution::Normal(0.0, 1.0), options).cast(dtype)
}

/// The fastest time of each, in ms, and their results.
fn compare<const D: usize>(each: [&dyn Fn() -> Tensor<D>; 2]) -> ([f64; 2], [Tensor<D>; 2]) {
    let mut best = [f64::INFINITY; 2];
    for _ in 0..TRIES {
        for (run, best) in each.iter().zip(&mut best) {
            let start = Instant::now();
            let _ = run();
            *best = best.min(start.elapsed().as_secs_f64() * 1e3);
        }
    }
    (best, each.map(|run| run().cast(DType::F32)))
}

fn difference<const D: usize>([a, b]: [Tensor<D>; 2]) -> f32 {
    (a - b).abs().max().into_scalar()
}

fn product([m, k, n]: [usize; 3], dtype: DType, turned: bool) {
    let x = random([m, k], DType::F32);
    let weight = match turned {
        true => random([n, k], dtype).transpose(),
        false => random([k, n], dtype),
    };
    // As models compute, whose rows have the type of the matrix.
    let rounded = x.clone().cast(dtype);
    let burn = || rounded.clone().matmul(weight.clone());
    let here = || match dtype {
        DType::F32 => x.clone().matmul(weight.clone()),
        _ => zo_flex::affine(x.clone(), weight.clone(), None),
    };
    let ([old, new], results) = compare([&burn, &here]);
    let rate = 2e-6 * (m * k * n) as f64 / new;
    let size = format!("{m} x {k} x {n}");
    let dtype = format!("{dtype:?}");
    let difference = difference(results);
    println!("{size:20} {dtype:5} {old:9.3} {new:9.3} {rate:9.0}  {difference:.1e}");
}

fn blocks(batch: usize, tokens: usize) {
    let (heads, key_heads, width) = (9, 3, 64);
    let rows = batch * tokens;
    let query = random([rows, heads * width], DType::F32);
    let [key, value] = [(); 2].map(|()| random([rows, key_heads * width], DType::F32));
    let plan = Attention {
        window: None,
        causal: true,
        sequences: (0..batch)
            .map(|at| Sequence {
                queries: tokens,
                keys: std::iter::once(at * tokens..(at + 1) * tokens).collect(),
            })
            .collect(),
    };
    let hidden: Vec<bool> = (0..tokens)
        .flat_map(|query| (0..tokens).map(move |key| key > query))
        .collect();
    let hidden = TensorData::new(hidden, [1, 1, tokens, tokens]);
    let mask = Tensor::<4, Bool>::from_data(hidden, &Device::flex());
    let mask = mask.repeat_dim(2, heads / key_heads);
    let split = |x: &Tensor<2>, heads: usize| {
        let x = x.clone().reshape([batch, tokens, heads, width]);
        x.swap_dims(1, 2)
    };
    let burn = || {
        let query = split(&query, heads);
        let grouped = [batch, key_heads, heads / key_heads * tokens, width];
        let (key, value) = (split(&key, key_heads), split(&value, key_heads));
        let mixed = attention(
            query.reshape(grouped),
            key,
            value,
            Some(mask.clone()),
            None,
            Default::default(),
        );
        let mixed = mixed.reshape([batch, heads, tokens, width]).swap_dims(1, 2);
        mixed.reshape([rows, heads * width])
    };
    let here = || {
        zo_flex::attend(
            query.clone(),
            key.clone(),
            value.clone(),
            [heads, key_heads],
            &plan,
        )
    };
    let ([old, new], results) = compare([&burn, &here]);
    // Half of the scores count.
    let rate = 2e-6 * (batch * tokens * (tokens + 1) * heads * width) as f64 / new;
    let size = format!("{batch} x {tokens}");
    let difference = difference(results);
    println!("{size:20} F32   {old:9.3} {new:9.3} {rate:9.0}  {difference:.1e}");
}

//! Choosing the next token.

use burn::tensor::Tensor;
use rand::RngExt;
use rand_xoshiro::Xoshiro256PlusPlus;
use serde::{Deserialize, Serialize};

/// How the next token is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sampling {
    /// The most likely; the first of several.
    #[default]
    Greedy,
    /// At random.
    Random {
        /// Divides the logits; above 0. 1 leaves the probabilities as they are.
        temperature: f64,
        /// Only the `top_k` most likely; 0 for all.
        top_k: usize,
        /// Only the most likely whose probabilities add up to this, from 0 to 1 (Holtzman et al. 2020); 1 for all.
        top_p: f64,
        /// The seed. What is drawn for a prompt depends on it, and on the index of the prompt.
        seed: u64,
    },
}

/// The next token of each text, from `[texts, vocab]` logits and the texts' random generators.
pub(super) fn choose<'a>(
    logits: Tensor<2>,
    rngs: impl Iterator<Item = &'a mut Xoshiro256PlusPlus>,
    sampling: &Sampling,
) -> Vec<u32> {
    let Sampling::Random {
        temperature,
        top_k,
        top_p,
        ..
    } = *sampling
    else {
        let best = logits.argmax(1).into_data();
        return best.iter::<i64>().map(|token| token as u32).collect();
    };
    let vocab = logits.dims()[1];
    let logits: Vec<f32> = logits.into_data().iter::<f32>().collect();
    let rows = logits.chunks(vocab).zip(rngs);
    rows.map(|(row, rng)| {
        let weights = candidates(row, temperature, top_k, top_p);
        draw(&weights, rng.random::<f64>())
    })
    .collect()
}

/// The tokens to draw from and their weights, the most likely first.
fn candidates(logits: &[f32], temperature: f64, top_k: usize, top_p: f64) -> Vec<(u32, f64)> {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let weight = |logit: f32| (f64::from(logit - largest) / temperature).exp();
    let mut weights: Vec<(u32, f64)> = logits
        .iter()
        .enumerate()
        .map(|(token, logit)| (token as u32, weight(*logit)))
        .collect();
    weights.sort_by(|a, b| b.1.total_cmp(&a.1));
    if top_k > 0 {
        weights.truncate(top_k);
    }
    let total: f64 = weights.iter().map(|(_, weight)| weight).sum();
    let mut sum = 0.0;
    // The one that reaches the share is included as the last.
    let inside = weights.iter().take_while(|(_, weight)| {
        let before = sum;
        sum += weight;
        before < top_p * total
    });
    let count = inside.count().max(1);
    weights.truncate(count);
    weights
}

/// The token at `place`, in [0, 1), of the weights laid end to end.
fn draw(weights: &[(u32, f64)], place: f64) -> u32 {
    let total: f64 = weights.iter().map(|(_, weight)| weight).sum();
    let mut left = place * total;
    for (token, weight) in weights {
        left -= weight;
        if left < 0.0 {
            return *token;
        }
    }
    // Only after rounding: the sum fell short of the total.
    weights.last().map_or(0, |(token, _)| *token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn candidates_are_the_most_likely() {
        let logits = [0.0, 3f32.ln(), 0.0, 5f32.ln()];
        let tokens = |k, p| -> Vec<u32> {
            candidates(&logits, 1.0, k, p)
                .iter()
                .map(|(token, _)| *token)
                .collect()
        };
        assert_eq!(tokens(0, 1.0), [3, 1, 0, 2]);
        assert_eq!(tokens(2, 1.0), [3, 1]);
        // Probabilities 0.5, 0.3, 0.1, 0.1.
        assert_eq!(tokens(0, 0.5), [3]);
        assert_eq!(tokens(0, 0.51), [3, 1]);
        assert_eq!(tokens(3, 1e-9), [3]);
        let weights = candidates(&logits, 1.0, 0, 1.0);
        let total: f64 = weights.iter().map(|(_, weight)| weight).sum();
        assert!((weights[0].1 / total - 0.5).abs() < 1e-6);
        // Half the temperature squares the odds.
        let cold = candidates(&logits, 0.5, 0, 1.0);
        assert!((cold[0].1 / cold[1].1 - 25.0 / 9.0).abs() < 1e-5);
    }

    #[test]
    fn drawing_follows_the_weights() {
        let weights = [(7, 5.0), (8, 3.0), (9, 2.0)];
        let tokens: Vec<u32> = [0.0, 0.499, 0.5, 0.799, 0.8, 0.999_999]
            .iter()
            .map(|place| draw(&weights, *place))
            .collect();
        assert_eq!(tokens, [7, 7, 8, 8, 9, 9]);
    }
}

//! From scores to probabilities, and to a budget.

/// `pi_i = min(1, c sqrt(s_i))` with `sum_i pi_i = budget`, c by bisection. Scores are positive; `budget` is at most their number.
pub(crate) fn inclusion_probabilities(scores: &[f64], budget: f64) -> Vec<f64> {
    let roots: Vec<f64> = scores.iter().map(|score| score.sqrt()).collect();
    let expected = |c: f64| roots.iter().map(|root| (c * root).min(1.0)).sum::<f64>();
    let smallest = roots.iter().copied().fold(f64::INFINITY, f64::min);
    // At 1 / smallest every probability is 1.
    let (mut low, mut high) = (0.0, 1.0 / smallest);
    for _ in 0..200 {
        let middle = 0.5 * (low + high);
        if expected(middle) < budget {
            low = middle;
        } else {
            high = middle;
        }
    }
    roots.iter().map(|root| (high * root).min(1.0)).collect()
}

/// The share of tensors the scores call for: large if many matter.
pub(crate) fn target_share(scores: &[f64]) -> f64 {
    let n = scores.len() as f64;
    let sum: f64 = scores.iter().sum();
    let effective = scores.iter().map(|score| score.sqrt()).sum::<f64>().powi(2) / sum;
    let entropy: f64 = scores
        .iter()
        .map(|score| score / sum)
        .map(|p| -p * p.ln())
        .sum();
    let normalized = if n > 1.0 { entropy / n.ln() } else { 1.0 };
    0.1 + 0.7 * (0.7 * effective / n + 0.3 * (1.0 - normalized))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_meet_the_budget_and_follow_the_roots() {
        let scores = [1.0, 4.0, 9.0, 1e-6, 16.0];
        for budget in [0.1, 1.0, 2.5, 4.0, 5.0] {
            let pi = inclusion_probabilities(&scores, budget);
            assert!(
                (pi.iter().sum::<f64>() - budget).abs() < 1e-9,
                "{budget}: {pi:?}"
            );
            assert!(pi.iter().all(|pi| *pi > 0.0 && *pi <= 1.0));
            for (a, b) in [(0, 1), (0, 2), (0, 4)] {
                if pi[b] < 1.0 {
                    let ratio = (scores[b] / scores[a]).sqrt();
                    assert!((pi[b] / pi[a] - ratio).abs() < 1e-9);
                }
            }
        }
        // sqrt: 1 : 2, not 1 : 4
        let pi = inclusion_probabilities(&[1.0, 4.0], 0.9);
        assert!(
            (pi[0] - 0.3).abs() < 1e-9 && (pi[1] - 0.6).abs() < 1e-9,
            "{pi:?}"
        );
    }

    #[test]
    fn the_budget_grows_with_the_effective_support() {
        // Equal scores: d_eff = n and H = 1. One that dominates: d_eff = 1 and H = 0, nearly.
        assert!((target_share(&[2.0; 10]) - (0.1 + 0.7 * 0.7)).abs() < 1e-12);
        let mut scores = [1e-12; 10];
        scores[3] = 1.0;
        let expected = 0.1 + 0.7 * (0.7 / 10.0 + 0.3);
        assert!((target_share(&scores) - expected).abs() < 1e-4);
    }
}

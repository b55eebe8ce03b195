//! The evaluations of a run: all that is needed to keep the best and to stop early.

use serde::{Deserialize, Deserializer, Serialize};

/// The result of an evaluation on the held-out rows.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Evaluated {
    /// Steps done.
    pub step: usize,
    /// The task's score; higher is better.
    #[serde(deserialize_with = "number")]
    pub score: f64,
    /// The loss.
    #[serde(deserialize_with = "number")]
    pub loss: f64,
}

/// JSON has no NaN and no infinity: serde_json writes null, and does not read it back as a number.
fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or(f64::NAN))
}

impl Evaluated {
    /// Whether this one has the higher score, or the same and the lower loss. NaN is worse than any number.
    pub fn is_better_than(&self, other: &Self) -> bool {
        let worst = |x: f64| if x.is_nan() { f64::NEG_INFINITY } else { x };
        let rank = |e: &Self| (worst(e.score), worst(-e.loss));
        rank(self) > rank(other)
    }
}

/// The evaluations so far, in the order of their steps.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct History(pub(super) Vec<Evaluated>);

impl History {
    /// Where the best one is; among equals, the first. NaN is never the best.
    fn best_index(&self) -> Option<usize> {
        let better = |best: usize, next: usize| {
            if self.0[next].is_better_than(&self.0[best]) {
                next
            } else {
                best
            }
        };
        let counts =
            |index: &usize| !self.0[*index].score.is_nan() && !self.0[*index].loss.is_nan();
        (0..self.0.len()).filter(counts).reduce(better)
    }

    /// Whether the loss of the first one, before any step, was finite.
    pub(super) fn began_finite(&self) -> bool {
        self.0.first().is_none_or(|first| first.loss.is_finite())
    }

    /// The best one; among equals, the first.
    pub(super) fn best(&self) -> Option<Evaluated> {
        self.best_index().map(|index| self.0[index])
    }

    /// Evaluations since the best one; without any, since the first.
    pub(super) fn stale(&self) -> usize {
        let best = self.best_index().unwrap_or(0);
        (self.0.len() - best).saturating_sub(1)
    }

    /// Steps done at the last one.
    pub(super) fn last_step(&self) -> Option<usize> {
        self.0.last().map(|last| last.step)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(points: &[(f64, f64)]) -> History {
        let evaluated = |(index, (score, loss)): (usize, &(f64, f64))| Evaluated {
            step: 10 * index,
            score: *score,
            loss: *loss,
        };
        History(points.iter().enumerate().map(evaluated).collect())
    }

    #[test]
    fn the_score_counts_first_and_loss_breaks_ties() {
        let best = |points: &[(f64, f64)]| {
            let history = history(points);
            (history.best().map(|best| best.step), history.stale())
        };
        assert_eq!(best(&[]), (None, 0));
        assert_eq!(best(&[(0.5, 1.0)]), (Some(0), 0));
        assert_eq!(
            best(&[(0.5, 1.0), (0.6, 2.0), (0.6, 1.5), (0.5, 0.1)]),
            (Some(20), 1)
        );
        assert_eq!(best(&[(0.5, 1.0), (0.5, 1.0), (0.5, 1.0)]), (Some(0), 2));
        assert_eq!(
            best(&[(0.5, f64::NAN), (0.5, 9.0), (f64::NAN, 0.0)]),
            (Some(10), 1)
        );
        assert_eq!(best(&[(0.5, f64::INFINITY), (0.5, f64::NAN)]), (Some(0), 1));
        let nan = f64::NAN;
        assert_eq!(best(&[(nan, nan)]), (None, 0));
        assert_eq!(best(&[(nan, 0.1), (0.9, nan), (nan, nan)]), (None, 2));
        assert_eq!(best(&[(nan, nan), (0.1, 9.0), (nan, nan)]), (Some(10), 1));
    }

    #[test]
    fn saved_histories_come_back() {
        let saved = history(&[(0.1, 0.7), (1.0 / 3.0, f64::NAN), (f64::INFINITY, 0.1)]);
        let json = serde_json::to_string(&saved).unwrap();
        let loaded: History = serde_json::from_str(&json).unwrap();
        assert_eq!(loaded.0[0], saved.0[0]);
        assert_eq!(loaded.0[1].score, 1.0 / 3.0);
        assert!(loaded.0[1].loss.is_nan() && loaded.0[2].score.is_nan());
    }
}

//! What a run comes to over its steps.

use serde_json::Value;

/// A step, and a value after it.
pub type Point = (f64, f64);

/// Values over the steps, in the order of the steps.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Curves {
    /// Training loss, but for steps that were skipped.
    pub losses: Vec<Point>,
    /// Mean absolute projected gradient of those steps.
    pub gradients: Vec<Point>,
    /// Kappa: how far updates moved weights, over the perturbation radius.
    pub kappas: Vec<Point>,
    /// Learning rate.
    pub learning_rates: Vec<Point>,
    /// Score on the held-out rows: the reward if there is one, F1 for generation, else accuracy. NaN where it is not finite.
    pub scores: Vec<Point>,
    /// Loss on the held-out rows. NaN where it is not finite.
    pub eval_losses: Vec<Point>,
    /// What the score is, unless it is accuracy.
    pub(crate) score: Option<&'static str>,
}

impl Curves {
    /// Takes a line of `metrics.jsonl` into account.
    pub(super) fn take_up(&mut self, line: &Value) {
        let number = |name: &str| line[name].as_f64();
        let step = number("step").unwrap_or(0.0);
        if line.get("eval_loss").is_some() {
            let special = [("reward", "eval_reward"), ("F1", "eval_f1")];
            let special = special.into_iter();
            let found = special.filter_map(|(name, field)| Some((name, number(field)?)));
            let accuracy = ("accuracy", number("eval_accuracy").unwrap_or(f64::NAN));
            // Null means not finite, or that the task has none.
            let (name, score) = found.chain([accuracy]).next().unwrap_or(accuracy);
            self.score = Some(name).filter(|name| *name != "accuracy").or(self.score);
            self.scores.push((step, score));
            let loss = number("eval_loss").unwrap_or(f64::NAN);
            self.eval_losses.push((step, loss));
            return;
        }
        if let Some(lr) = number("learning_rate") {
            self.learning_rates.push((step, lr));
        }
        if line["skipped"] == Value::Bool(true) {
            return;
        }
        if let Some(loss) = number("loss") {
            self.losses.push((step, loss));
        }
        if let Some(kappa) = number("kappa") {
            self.kappas.push((step, kappa));
        }
        let gradients = line["projected_gradients"].as_array();
        let gradients: Vec<f64> = gradients
            .into_iter()
            .flatten()
            .filter_map(Value::as_f64)
            .collect();
        if !gradients.is_empty() {
            let sum: f64 = gradients.iter().map(|g| g.abs()).sum();
            self.gradients.push((step, sum / gradients.len() as f64));
        }
    }

    /// What the score is called.
    pub fn score_name(&self) -> &'static str {
        self.score.unwrap_or("accuracy")
    }
}

/// The points that can be drawn.
pub(crate) fn finite(points: &[Point]) -> Vec<Point> {
    let points = points.iter().copied();
    points.filter(|point| point.1.is_finite()).collect()
}

/// The running mean over a twentieth of the points.
pub(crate) fn smooth(points: &[Point]) -> Vec<Point> {
    let half = (points.len() / 40).max(1);
    // sums[i] is the sum of the first i values.
    let mut sums = vec![0.0];
    for point in points {
        sums.push(sums[sums.len() - 1] + point.1);
    }
    let mean = |(at, point): (usize, &Point)| {
        let (from, to) = (at.saturating_sub(half), (at + half + 1).min(points.len()));
        (point.0, (sums[to] - sums[from]) / (to - from) as f64)
    };
    points.iter().enumerate().map(mean).collect()
}

/// Every n-th point and the last, so that there are at most `most` and one.
pub(crate) fn thin(points: &[Point], most: usize) -> Vec<Point> {
    let every = points.len().div_ceil(most.max(1)).max(1);
    let last = points.len().saturating_sub(1);
    let kept = points.iter().enumerate();
    let kept = kept.filter(|(at, _)| at % every == 0 || *at == last);
    kept.map(|(_, point)| *point).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn lines_become_curves() {
        let mut curves = Curves::default();
        for line in [
            json!({"step": 0, "eval_accuracy": 0.5, "eval_f1": null, "eval_loss": 0.7}),
            json!({"step": 1, "loss": 0.6, "projected_gradients": [-1.0, 3.0], "learning_rate": 0.1}),
            json!({"step": 2, "loss": null, "projected_gradients": [], "skipped": true, "learning_rate": 0.2}),
            json!({"step": 2, "eval_accuracy": null, "eval_f1": null, "eval_loss": null}),
        ] {
            curves.take_up(&line);
        }
        assert_eq!(curves.losses, [(1.0, 0.6)]);
        assert_eq!(curves.gradients, [(1.0, 2.0)]);
        assert_eq!(curves.learning_rates, [(1.0, 0.1), (2.0, 0.2)]);
        assert_eq!(finite(&curves.scores), [(0.0, 0.5)]);
        assert_eq!((curves.scores.len(), curves.eval_losses.len()), (2, 2));
        assert_eq!(
            (curves.eval_losses[0], curves.score_name()),
            ((0.0, 0.7), "accuracy")
        );
        curves
            .take_up(&json!({"step": 3, "eval_accuracy": 0.0, "eval_f1": 0.25, "eval_loss": 1.0}));
        assert_eq!((curves.scores[2], curves.score_name()), ((3.0, 0.25), "F1"));
    }

    #[test]
    fn smooth_curves_are_means_around_each_point() {
        let points = [1.0, 2.0, 6.0, 4.0].map(|y| (y, y));
        let smoothed: Vec<f64> = smooth(&points).iter().map(|point| point.1).collect();
        assert_eq!(smoothed, [1.5, 3.0, 4.0, 5.0]);
        assert_eq!(smooth(&[]), []);
    }

    #[test]
    fn long_curves_are_thinned() {
        let points: Vec<Point> = (0..10).map(|i| (f64::from(i), 0.0)).collect();
        assert_eq!(thin(&points, 20), points);
        let steps: Vec<f64> = thin(&points, 4).iter().map(|point| point.0).collect();
        assert_eq!(steps, [0.0, 3.0, 6.0, 9.0]);
        assert_eq!(thin(&points, 3).len(), 4);
        assert_eq!(thin(&[], 3), []);
    }
}

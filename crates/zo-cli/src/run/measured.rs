//! What was measured in a run.

use serde::Serialize;

/// Tokens per batch, mean over the steps, for one forward.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Tokens {
    /// With padding.
    pub padded: f64,
    /// Without.
    pub real: f64,
}

/// What was measured in a run, as written to `report.json`. A number that is not finite is null there, and `notes` says so.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Measured {
    /// Steps done.
    pub steps: usize,
    /// Evaluations of the objective in all steps.
    pub forwards: usize,
    /// Passes over the weights in all steps.
    pub passes: usize,
    /// Steps skipped because of a loss that was not finite.
    pub skipped: usize,
    /// Writes that were not in place.
    pub copied: usize,
    /// Accuracy on the held-out rows before the first step; for generation the share of exact matches. `None` if it was not measured; the
    /// same holds for the fields below.
    pub accuracy_before: Option<f64>,
    /// Accuracy on the held-out rows after the last step, or with the best weights if those are kept.
    pub accuracy_after: Option<f64>,
    /// F1 on the held-out rows before the first step, for generation.
    pub f1_before: Option<f64>,
    /// F1 on the held-out rows after the last step, for generation.
    pub f1_after: Option<f64>,
    /// Mean reward on the held-out rows before the first step, with `--reward`.
    pub reward_before: Option<f64>,
    /// Mean reward on the held-out rows after the last step, with `--reward`.
    pub reward_after: Option<f64>,
    /// Loss on the held-out rows before the first step.
    pub eval_loss_before: Option<f64>,
    /// Loss on the held-out rows after the last step.
    pub eval_loss_after: Option<f64>,
    /// Remarks on these numbers.
    pub notes: Vec<String>,
    /// Mean training loss over the first tenth of the steps.
    pub loss_first: Option<f64>,
    /// Mean training loss over the last tenth of the steps.
    pub loss_last: Option<f64>,
    /// Kappa over the last tenth of the steps: how far an update moved a weight, as a multiple of the perturbation radius (root mean square).
    pub kappa: Option<f64>,
    /// Mean wall-clock seconds per step, evaluations left out.
    pub seconds_per_step: Option<f64>,
    /// Of these, in the objective.
    pub seconds_forward_per_step: Option<f64>,
    /// Of these, in passes over the weights.
    pub seconds_sweep_per_step: Option<f64>,
    /// Seconds of all evaluations on the held-out rows.
    pub seconds_evaluations: f64,
    /// Seconds of the whole run.
    pub seconds: f64,
    /// Peak resident memory in MiB after the first evaluation.
    pub peak_rss_after_first_evaluation_mib: Option<f64>,
    /// Peak resident memory in MiB at the end.
    pub peak_rss_mib: Option<f64>,
    /// Tokens in a batch.
    pub tokens_per_step: Tokens,
}

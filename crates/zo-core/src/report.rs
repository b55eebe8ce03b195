//! What a step reports.

use serde::{Deserialize, Serialize};

use crate::direction::Direction;

/// One query: a direction and the losses that gave its derivative.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Query {
    /// The direction `z`.
    pub direction: Direction,
    /// L(theta + epsilon z).
    pub loss_plus: f64,
    /// The other loss: L(theta - epsilon z) of a central difference, L(theta) of a one-sided one. (An exact derivative has L(theta) in
    /// both places, a one-point estimate L(theta + epsilon z).)
    pub loss_other: f64,
    /// The derivative along `z`, in units of loss. In an [`Estimate`](crate::Estimate): the coefficient that the method's
    /// [coefficient rule](crate::CoefficientRule) made of it.
    pub projected_gradient: f64,
}

/// The account of one step.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct StepReport {
    /// The step's number, from 0.
    pub step: u64,
    /// The queries, in order. A skipped step holds those that were finished.
    pub queries: Vec<Query>,
    /// L(theta) before any perturbation, where the method evaluates it.
    pub loss_unperturbed: Option<f64>,
    /// Kappa: how far the update moves a weight, as a multiple of the perturbation radius (root mean squares; `lr rms(g) / epsilon` for SGD).
    /// One step's is as noisy as its derivatives. `None` where the distance does not follow from seeds (rules with moments), and for
    /// skipped steps.
    #[serde(default)]
    pub kappa: Option<f64>,
    /// Losses that were evaluated.
    pub forwards: usize,
    /// Calls of the objective: fewer than `forwards` where it gives [several losses at once](crate::Objective::losses).
    pub evaluations: usize,
    /// Passes over the weights that take part; on the fly that is the update alone. In a [`Session`](crate::Session) those made in
    /// this step, including the previous step's update.
    pub passes: usize,
    /// Weights read and written, summed over passes: `passes` times the number of weights if all take part. With
    /// [`Perturbation::OnTheFly`](crate::Perturbation::OnTheFly) also the weights computed when the objective used them, once per use.
    pub swept: u64,
    /// Whether a non-finite loss made the step leave the weights as they were.
    pub skipped: bool,
    /// Writes of passes that were not in place, summed over passes and tensors, because something else (a clone of the module) shared the
    /// memory. 0 when all is well. On lazy devices writes are counted when they execute. Weights computed on the fly do not count as writes.
    #[doc(hidden)]
    pub copied: usize,
    /// Everything the objective returned, in the order of its evaluations: losses; where a method takes exact derivatives, each loss and its
    /// derivative. With the learning rate and [`began_at_rest`](Self::began_at_rest) this is all that a step takes from outside, so it is what a
    /// [trajectory](crate::trajectory) holds. Not part of the JSON.
    #[serde(skip)]
    pub answers: Vec<f64>,
    /// Whether the module stood at its weights when the step began: in a [`Session`](crate::Session) only if something looked at them since
    /// the previous step. Not part of the JSON.
    #[serde(skip)]
    pub began_at_rest: bool,
    /// Seconds spent in the objective, which on the fly include those of the noise. Devices that execute lazily spend the passes' time
    /// here too.
    pub seconds_forward: f64,
    /// Seconds spent in passes over the weights.
    pub seconds_sweep: f64,
}

impl StepReport {
    /// The loss to plot: L(theta) if it was evaluated, else the mean of all losses of the queries. NaN for a step skipped before its
    /// first query was done.
    pub fn loss(&self) -> f64 {
        self.loss_unperturbed.unwrap_or_else(|| {
            let sum: f64 = self
                .queries
                .iter()
                .map(|q| (q.loss_plus + q.loss_other) / 2.0)
                .sum();
            sum / self.queries.len() as f64
        })
    }
}

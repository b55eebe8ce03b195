//! What a run trains for.

use std::convert::Infallible;

use serde_json::Value;
use zo_core::{Loss, Objective, Share};

use super::team::Team;
use crate::ranks::Communicator;

/// What a module is trained for: the batch of each step, the objective on it, and the evaluation on held-out rows.
///
/// ```
/// use burn::module::{Module, Param};
/// use burn::tensor::{Device, Tensor};
/// use serde_json::{Value, json};
/// use std::convert::Infallible;
/// use zo_optim::trainer::{Evaluation, Task};
///
/// #[derive(Module, Debug)]
/// struct Line { slope: Param<Tensor<1>> }
///
/// /// Points on a line of slope 3.
/// struct Points { x: Tensor<1> }
///
/// impl Points {
///     fn error(&self, line: &Line, rows: std::ops::Range<usize>) -> Tensor<1> {
///         let x = self.x.clone().slice(rows);
///         (x.clone() * line.slope.val() - x * 3.0).square().mean()
///     }
/// }
///
/// impl Task<Line> for Points {
///     type Batch = usize;
///     type Loss = Tensor<1>;
///     type Details = ();
///     type Error = Infallible;
///
///     fn fingerprint(&self) -> Value {
///         json!({ "points": self.x.dims()[0] })
///     }
///
///     // A function of the step's number alone: a resumed run gets the batches it would have had.
///     fn batch(&mut self, step: usize) -> Result<usize, Infallible> {
///         Ok(4 * (step % 3))
///     }
///
///     fn objective(&self, line: &Line, first: &usize) -> Tensor<1> {
///         self.error(line, *first..*first + 4)
///     }
///
///     fn evaluate(&mut self, line: &Line) -> Result<Evaluation, Infallible> {
///         let loss: f64 = self.error(line, 12..16).into_scalar();
///         Ok(Evaluation { score: -loss, loss, details: () })
///     }
/// }
/// ```
pub trait Task<M> {
    /// What a single step is taken on.
    type Batch;
    /// The value of the objective.
    type Loss: Loss;
    /// What an evaluation tells the observer besides score and loss; `()` if nothing.
    type Details;
    /// Why there is no batch or no evaluation. [`Infallible`](std::convert::Infallible) if there always is.
    type Error: std::error::Error + 'static;

    /// What the bits of a run depend on and the trainer cannot know: the data (a [digest](super::digest) of it), how batches are drawn, and
    /// settings. Usually an object; its entries are named in the error if a checkpoint belongs to another run.
    fn fingerprint(&self) -> Value;

    /// The batch of step number `step`, from 0: a function of this number alone, so that resumed runs go on with the same batches.
    ///
    /// # Errors
    /// If there is none.
    fn batch(&mut self, step: usize) -> Result<Self::Batch, Self::Error>;

    /// Shard `shard`, from 0, of the `shards` that [batch](Self::batch) number `step` is divided into, and the share of the batch's rows that is in
    /// it: for [runs on several ranks](super::Split). The objective of the batch must be the sum of those of its shards, each times its share.
    /// By default `None`: batches are not divided.
    ///
    /// # Errors
    /// If the batch cannot be made.
    fn shard(
        &mut self,
        step: usize,
        shard: usize,
        shards: usize,
    ) -> Result<Option<(Self::Batch, f64)>, Self::Error> {
        let _ = (step, shard, shards);
        Ok(None)
    }

    /// What a step minimises. A step evaluates it several times on its batch, each time with different weights; nothing else may differ.
    fn objective(&self, module: &M, batch: &Self::Batch) -> Self::Loss;

    /// The largest number of displacements whose [`losses`](Self::losses) on this batch are evaluated at once: see
    /// [`Objective::at_once`]. By default 1, and `losses` is not called.
    fn at_once(&self, batch: &Self::Batch) -> usize {
        let _ = batch;
        1
    }

    /// The objective at `displacements` displacements, which `module` shows at once: see [`Objective::losses`].
    fn losses(&self, module: &M, batch: &Self::Batch, displacements: usize) -> Vec<Self::Loss> {
        let _ = displacements;
        vec![self.objective(module, batch)]
    }

    /// What must stay finite on the next batch if weights are to be saved. By default the objective.
    fn loss(&self, module: &M, batch: &Self::Batch) -> Self::Loss {
        self.objective(module, batch)
    }

    /// How well the module does on held-out rows. On the fly ([`Perturbation::OnTheFly`](zo_core::Perturbation::OnTheFly)) it may be one that
    /// shows updates which are not in its weights yet: read them as the objective does, by `Param::val`.
    ///
    /// # Errors
    /// If it cannot be evaluated.
    fn evaluate(&mut self, module: &M) -> Result<Evaluation<Self::Details>, Self::Error>;

    /// [`evaluate`](Self::evaluate) with other ranks, which hold the same weights and call it as well: each may look at some of the held-out rows, if
    /// they then tell each other. Score and loss count as rank 0 finds them. By default each evaluates all.
    ///
    /// # Errors
    /// If it cannot be evaluated.
    fn evaluate_on(
        &mut self,
        module: &M,
        ranks: &dyn Communicator,
    ) -> Result<Evaluation<Self::Details>, Self::Error> {
        let _ = ranks;
        self.evaluate(module)
    }
}

/// The objective of a step.
pub(super) struct OnBatch<'a, M, T: Task<M>> {
    pub(super) task: &'a T,
    /// The shards that are evaluated here: at least one.
    pub(super) batches: &'a [T::Batch],
    pub(super) shard: usize,
    /// If others are evaluated elsewhere, or one after the other.
    pub(super) team: Option<&'a Team<'a>>,
}

impl<M, T: Task<M>> OnBatch<'_, M, T> {
    fn batch(&self) -> &T::Batch {
        &self.batches[self.shard]
    }
}

impl<M, T: Task<M>> Objective<M> for OnBatch<'_, M, T> {
    type Loss = T::Loss;

    fn loss(&mut self, module: &M) -> T::Loss {
        self.task.objective(module, self.batch())
    }

    fn at_once(&self) -> usize {
        self.task.at_once(self.batch())
    }

    fn losses(&mut self, module: &M, displacements: usize) -> Vec<T::Loss> {
        self.task.losses(module, self.batch(), displacements)
    }

    fn share(&self) -> Option<&dyn Share> {
        self.team.map(|team| team as &dyn Share)
    }

    fn select(&mut self, shard: usize) {
        self.shard = shard;
    }
}

/// How well a module does.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Evaluation<D = ()> {
    /// Higher is better: accuracy, for example. If there is nothing of the kind, minus the loss.
    pub score: f64,
    /// The loss. Where it is not finite, the run has diverged.
    pub loss: f64,
    /// Whatever else is known.
    pub details: D,
}

/// A task of closures, for data that is always there: the [fingerprint](Task::fingerprint), the [batch](Task::batch) of a step, the
/// [objective](Task::objective), the [evaluation](Task::evaluate). The example `quickstart` has one.
pub fn task<M, B, L: Loss>(
    fingerprint: Value,
    batch: impl FnMut(usize) -> B,
    objective: impl Fn(&M, &B) -> L,
    evaluate: impl FnMut(&M) -> Evaluation,
) -> impl Task<M, Batch = B, Loss = L, Details = (), Error = Infallible> {
    Closures {
        fingerprint,
        batch,
        objective,
        evaluate,
    }
}

struct Closures<B, O, E> {
    fingerprint: Value,
    batch: B,
    objective: O,
    evaluate: E,
}

impl<M, B, L, F, O, E> Task<M> for Closures<F, O, E>
where
    L: Loss,
    F: FnMut(usize) -> B,
    O: Fn(&M, &B) -> L,
    E: FnMut(&M) -> Evaluation,
{
    type Batch = B;
    type Loss = L;
    type Details = ();
    type Error = Infallible;

    fn fingerprint(&self) -> Value {
        self.fingerprint.clone()
    }

    fn batch(&mut self, step: usize) -> Result<B, Infallible> {
        Ok((self.batch)(step))
    }

    fn objective(&self, module: &M, batch: &B) -> L {
        (self.objective)(module, batch)
    }

    fn evaluate(&mut self, module: &M) -> Result<Evaluation, Infallible> {
        Ok((self.evaluate)(module))
    }
}

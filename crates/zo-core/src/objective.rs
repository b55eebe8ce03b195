//! Objectives: what a step evaluates.

use burn::module::Module;

use crate::error::{ObjectiveError, UserError};
use crate::loss::Loss;
use crate::tangent::Tangent;

/// What a step minimises: any closure `|module| loss`, or a type of its own that can give the losses at several displacements at once.
///
/// On the fly, along [low-rank directions](crate::Basis) of one basis, a step can show a module at several displacements at once, for instance at
/// `theta + epsilon z` and `theta - epsilon z`: its [`SidePath`](crate::SidePath)s then have as many left factors. An objective that puts its
/// rows into one batch as often as there are displacements computes all products with the weights themselves in one forward, and
/// reads each weight once:
///
/// ```
/// use burn::module::{Module, Param};
/// use burn::tensor::{Device, Tensor};
/// use zo_core::{BasisKind, Basis, Direction, Method, Noise, Objective, Perturbation, PerturbationSampler};
/// use zo_core::{SampleContext, SidePath, ZeroOrder, ZerothOrderOptimizer, ZoError};
///
/// #[derive(Module, Debug)]
/// struct Model { weight: Param<Tensor<2>> }
///
/// impl Model {
///     fn forward(&self, x: Tensor<2>) -> Tensor<2> {
///         match SidePath::of(&self.weight) {
///             Some(side) => x.clone().matmul(self.weight.base()) + side.forward(x),
///             None => x.matmul(self.weight.val()),
///         }
///     }
/// }
///
/// struct Rows { x: Tensor<2> }
///
/// impl Objective<Model> for Rows {
///     type Loss = Tensor<1>;
///
///     fn loss(&mut self, model: &Model) -> Tensor<1> {
///         model.forward(self.x.clone()).square().mean()
///     }
///
///     fn at_once(&self) -> usize { 2 }
///
///     fn losses(&mut self, model: &Model, displacements: usize) -> Vec<Tensor<1>> {
///         let y = model.forward(self.x.clone().repeat_dim(0, displacements));
///         y.chunk(displacements, 0).into_iter().map(|y| y.square().mean()).collect()
///     }
/// }
///
/// # #[derive(Clone, serde::Serialize)] struct Thin;
/// # impl PerturbationSampler for Thin {
/// #     fn sample(&mut self, query: &mut SampleContext<'_>) -> Result<Direction, ZoError> {
/// #         let basis = Basis::new(BasisKind::Lozo, 2, query.held_seed(0));
/// #         Ok(Direction::low_rank(&basis, Noise::Gaussian, query.seed()))
/// #     }
/// # }
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let device = Device::flex();
/// let model = Model { weight: Param::from_tensor(Tensor::ones([8, 8], &device)) };
/// let method = Method::new().with_noise(Thin).with_perturbation(Perturbation::OnTheFly);
/// let mut session = method.init()?.session(model)?;
/// let rows = Rows { x: Tensor::ones([4, 8], &device) };
/// let report = session.step_on(1e-3, rows)?;
/// assert_eq!((report.forwards, report.evaluations, report.passes), (2, 1, 0));
/// # Ok(()) }
/// ```
pub trait Objective<M> {
    /// The value of the objective.
    type Loss: Loss;

    /// The loss of `module`. A step evaluates it several times, each time with different weights; nothing else may differ.
    fn loss(&mut self, module: &M) -> Self::Loss;

    /// The largest number of displacements that [`losses`](Self::losses) evaluates at once: what memory allows, for activations grow with it.
    /// By default 1, and `losses` is not called.
    fn at_once(&self) -> usize {
        1
    }

    /// The losses at `displacements` displacements, which `module` shows at once, in their order. It is called with at least 2 and at most
    /// [`at_once`](Self::at_once) of them.
    ///
    /// Rows of displacement k are to be the k-th of as many equal groups, one after the other, wherever a layer computes with a
    /// [`SidePath`](crate::SidePath) or with [`displaced_values`](crate::displaced_values). If a displaced parameter is read by
    /// [`Param::val`](burn::module::Param::val), which has one value, the losses are thrown away, and from then on displacements are
    /// evaluated one at a time.
    fn losses(&mut self, module: &M, displacements: usize) -> Vec<Self::Loss> {
        let _ = displacements;
        vec![self.loss(module)]
    }

    /// The other processes that take the same step on the same weights, if the losses are evaluated together: see [`Share`]. By default none.
    fn share(&self) -> Option<&dyn Share> {
        None
    }

    /// From now on, losses are those of the rows of shard `shard`, from 0, of the [shards that are evaluated here](Share::shards).
    fn select(&mut self, shard: usize) {
        let _ = shard;
    }
}

/// Processes that hold the same weights, take the same steps with the same seeds, and evaluate the losses of a step together. Each evaluates
/// its shards of the batch's rows, at its part of the displacements; [`gather`](Self::gather) gives all of them all losses, in one order and so
/// with the same bits. Where weights are displaced in place, each walks through all displacements.
pub trait Share {
    /// The part of a step's displacements whose losses are evaluated here, from 0, and the number of parts: of those that a sampler compares as
    /// `candidates`, or of those that queries measure. Part k takes evaluation k, and every so-many-th from there.
    fn part(&self, candidates: bool) -> (usize, usize);

    /// Shards of the batch whose losses are evaluated here, one after the other: at least 1.
    fn shards(&self) -> usize;

    /// What the process evaluated, shard by shard with equally many numbers each, becomes what all of them evaluated: for each of `parts` parts
    /// the sums over the shards of the whole batch, weighed by their rows. All processes call it with equally many numbers.
    ///
    /// # Errors
    /// If another process has failed, or cannot be reached.
    fn gather(&self, own: &[f64], parts: usize) -> Result<Vec<f64>, ObjectiveError>;
}

impl<M, L: Loss, F: FnMut(&M) -> L> Objective<M> for F {
    type Loss = L;

    fn loss(&mut self, module: &M) -> L {
        self(module)
    }
}

/// An objective as a step sees it: numbers, and derivatives where there are any.
pub(crate) trait Numbers<M> {
    fn loss(&mut self, module: &M) -> Result<f64, ObjectiveError>;

    /// See [`Objective::at_once`].
    fn at_once(&self) -> usize {
        1
    }

    /// See [`Objective::losses`].
    fn losses(&mut self, module: &M, _: usize) -> Result<Vec<f64>, ObjectiveError> {
        Ok(vec![self.loss(module)?])
    }

    /// See [`Share::part`].
    fn part(&self, candidates: bool) -> (usize, usize) {
        let _ = candidates;
        (0, 1)
    }

    /// See [`Share::shards`].
    fn shards(&self) -> usize {
        1
    }

    /// What is evaluated here: for each shard the losses at `displacements` displacements, which `module` shows at once.
    fn own(&mut self, module: &M, displacements: usize) -> Result<Vec<f64>, ObjectiveError> {
        self.losses(module, displacements)
    }

    /// See [`Share::gather`].
    fn gather(&self, own: Vec<f64>, parts: usize) -> Result<Vec<f64>, ObjectiveError> {
        let _ = parts;
        Ok(own)
    }

    /// Whether tangents are requested by the ids of parameters.
    fn finds_by_id(&self) -> bool {
        false
    }

    /// Whether the values are those of an earlier run: the module is not looked at.
    fn is_recorded(&self) -> bool {
        false
    }

    /// The loss and its exact derivative along `tangent`.
    fn derivative(
        &mut self,
        module: &M,
        tangent: &Tangent<'_>,
    ) -> Result<(f64, f64), ObjectiveError>;
}

/// One that gives losses.
pub(crate) struct Losses<O>(pub(crate) O);

impl<O> Losses<O> {
    /// What `evaluate` gives for each shard that is evaluated here.
    fn of_shards<M: Module>(
        &mut self,
        mut evaluate: impl FnMut(&mut O) -> Result<Vec<f64>, ObjectiveError>,
    ) -> Result<Vec<f64>, ObjectiveError>
    where
        O: Objective<M>,
    {
        let shards = Numbers::<M>::shards(self);
        let mut all = Vec::new();
        for shard in 0..shards {
            self.0.select(shard);
            all.extend(evaluate(&mut self.0)?);
        }
        Ok(all)
    }
}

impl<M: Module, O: Objective<M>> Numbers<M> for Losses<O> {
    fn loss(&mut self, module: &M) -> Result<f64, ObjectiveError> {
        let own = self.own(module, 1)?;
        let all = Numbers::<M>::gather(self, own, 1)?;
        all.first().copied().ok_or(ObjectiveError::NotScalar(0))
    }

    fn at_once(&self) -> usize {
        self.0.at_once()
    }

    fn losses(&mut self, module: &M, displacements: usize) -> Result<Vec<f64>, ObjectiveError> {
        let own = self.own(module, displacements)?;
        Numbers::<M>::gather(self, own, 1)
    }

    fn part(&self, candidates: bool) -> (usize, usize) {
        let share = self.0.share();
        share.map_or((0, 1), |share| share.part(candidates))
    }

    fn shards(&self) -> usize {
        self.0.share().map_or(1, Share::shards)
    }

    fn own(&mut self, module: &M, displacements: usize) -> Result<Vec<f64>, ObjectiveError> {
        self.of_shards::<M>(|objective| {
            if displacements == 1 {
                return Ok(vec![objective.loss(module).value()?]);
            }
            let losses = objective.losses(module, displacements).into_iter();
            let losses: Vec<f64> = losses.map(Loss::value).collect::<Result<_, _>>()?;
            let (found, expected) = (losses.len(), displacements);
            if found != expected {
                return Err(ObjectiveError::Count { found, expected });
            }
            Ok(losses)
        })
    }

    fn gather(&self, own: Vec<f64>, parts: usize) -> Result<Vec<f64>, ObjectiveError> {
        match self.0.share() {
            Some(share) => share.gather(&own, parts),
            None => Ok(own),
        }
    }

    #[cfg(feature = "autodiff")]
    fn derivative(
        &mut self,
        module: &M,
        tangent: &Tangent<'_>,
    ) -> Result<(f64, f64), ObjectiveError> {
        let own = self.of_shards::<M>(|objective| {
            let mut loss = |module: &M| objective.loss(module);
            let (loss, derivative) = crate::backward::derivative(module, tangent, &mut loss)?;
            Ok(vec![loss, derivative])
        })?;
        match Numbers::<M>::gather(self, own, 1)?[..] {
            [loss, derivative] => Ok((loss, derivative)),
            _ => Err(ObjectiveError::NoDerivative),
        }
    }

    #[cfg(not(feature = "autodiff"))]
    fn derivative(&mut self, _: &M, _: &Tangent<'_>) -> Result<(f64, f64), ObjectiveError> {
        Err(ObjectiveError::NoDerivative)
    }
}

/// A closure that gives a loss and its derivative along a tangent.
pub(crate) struct JvpObjective<F>(pub(crate) F);

impl<M, E: Into<UserError>, F> Numbers<M> for JvpObjective<F>
where
    F: FnMut(&M, &Tangent<'_>) -> Result<(f64, f64), E>,
{
    fn loss(&mut self, module: &M) -> Result<f64, ObjectiveError> {
        self.derivative(module, &Tangent::zero())
            .map(|(loss, _)| loss)
    }

    fn finds_by_id(&self) -> bool {
        true
    }

    fn derivative(
        &mut self,
        module: &M,
        tangent: &Tangent<'_>,
    ) -> Result<(f64, f64), ObjectiveError> {
        (self.0)(module, tangent).map_err(|error| ObjectiveError::User(error.into()))
    }
}

/// What the objective of a step answered when the step was first taken: see [`StepReport::answers`](crate::StepReport::answers).
pub(crate) struct RecordedObjective<'a> {
    answers: &'a [f64],
    given: usize,
}

impl<'a> RecordedObjective<'a> {
    pub(crate) fn new(answers: &'a [f64]) -> Self {
        Self { answers, given: 0 }
    }

    fn next(&mut self) -> Result<f64, ObjectiveError> {
        let answer = self.answers.get(self.given).copied();
        self.given += 1;
        answer.ok_or_else(|| self.mismatch())
    }

    fn mismatch(&self) -> ObjectiveError {
        ObjectiveError::Recorded {
            recorded: self.answers.len(),
            asked: self.given,
        }
    }

    /// Whether the step has asked for every answer.
    pub(crate) fn check_spent(&self) -> Result<(), ObjectiveError> {
        match self.given == self.answers.len() {
            true => Ok(()),
            false => Err(self.mismatch()),
        }
    }
}

impl<M> Numbers<M> for &mut RecordedObjective<'_> {
    fn loss(&mut self, _: &M) -> Result<f64, ObjectiveError> {
        self.next()
    }

    fn is_recorded(&self) -> bool {
        true
    }

    fn derivative(&mut self, _: &M, _: &Tangent<'_>) -> Result<(f64, f64), ObjectiveError> {
        Ok((self.next()?, self.next()?))
    }
}

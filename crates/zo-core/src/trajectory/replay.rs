//! Taking the steps of a trajectory again.

use std::ops::Range;

use burn::module::Module;

use super::error::ReplayError;
use super::reader::Trajectory;
use super::{Record, RecordedStep};
use crate::error::StepError;
use crate::optimizer::ZerothOrderOptimizer;
use crate::perturbed::Perturbed;

/// How steps are taken again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Replay {
    /// With every pass of the run, so that every rounding is made again: the same bits on the same backend. Hashes of the weights that the
    /// trajectory holds are compared. On the fly only updates are passes, and a step costs one.
    #[default]
    Exact,
    /// With linear updates added up, hundreds of noise vectors in a pass, and without displacements: much faster. The weights
    /// are the run's up to its roundings: see the page *A run you can prove*.
    Fast,
}

/// A module at the weights of a step.
#[derive(Debug)]
pub struct Replayed<M> {
    /// The module.
    pub module: M,
    /// Hashes that were compared.
    pub digests: usize,
}

impl Trajectory {
    /// The weights of the run after `to` steps, from `module`, which has those that the run began with. `optim` is the run's optimizer before
    /// its first step; it ends with the state that it had.
    ///
    /// # Errors
    /// If there are not so many steps, `optim` or `module` is not the run's, or a hash differs. `module` is lost then.
    pub fn replay<M: Module, O: ZerothOrderOptimizer>(
        &self,
        module: M,
        optim: &mut O,
        to: usize,
        how: Replay,
    ) -> Result<Replayed<M>, ReplayError> {
        let held = optim
            .hold(module)
            .map_err(|StepError { error, .. }| ReplayError::Hold(error))?;
        let mut held = match (how, self.header().session) {
            (Replay::Fast, _) => held.summed(),
            (Replay::Exact, true) => held.lazy(),
            (Replay::Exact, false) => held,
        };
        optim.load_record(self.header().optimizer.clone())?;
        let digests = self.replay_on(optim, &mut held, 0..to, how, |_| {})?;
        let module = held.restore();
        Ok(Replayed { module, digests })
    }

    /// Takes the steps `steps` of the run on a module that stands, and with an optimizer that is, as they were after `steps.start` of them.
    /// `observe` is told of the number of steps done, after each. Gives the number of hashes that were compared.
    ///
    /// # Errors
    /// As [`replay`](Self::replay).
    pub fn replay_on<M: Module, O: ZerothOrderOptimizer>(
        &self,
        optim: &mut O,
        held: &mut Perturbed<M>,
        steps: Range<usize>,
        how: Replay,
        mut observe: impl FnMut(usize),
    ) -> Result<usize, ReplayError> {
        self.header().check_model(held)?;
        let (all, asked) = (self.steps().count(), steps.end);
        if asked > all {
            return Err(ReplayError::Short { steps: all, asked });
        }
        let (mut digests, mut same) = (0, None);
        let within = |step: &usize| (steps.start..=steps.end).contains(step);
        for (step, record) in self.numbered() {
            match record {
                Record::Step(recorded) if steps.contains(&step) => {
                    take(optim, held, step, recorded)?;
                    observe(step + 1);
                }
                // It looked at the weights; the next step, which would say so, may be missing.
                Record::Evaluation { .. } if how == Replay::Exact && within(&step) => {
                    held.shown();
                }
                Record::Digest { at_rest, digest } if how == Replay::Exact && within(&step) => {
                    if *at_rest {
                        held.settle();
                    }
                    let (found, expected) = (held.digest(), *digest);
                    let (_, found) = found.map_err(|error| ReplayError::Hash(error.to_string()))?;
                    if found != expected {
                        return Err(ReplayError::Differs {
                            step,
                            found,
                            expected,
                            same,
                        });
                    }
                    (digests, same) = (digests + 1, Some(step));
                }
                _ => {}
            }
        }
        Ok(digests)
    }
}

fn take<M: Module, O: ZerothOrderOptimizer>(
    optim: &mut O,
    held: &mut Perturbed<M>,
    step: usize,
    recorded: &RecordedStep,
) -> Result<(), ReplayError> {
    // Summed updates never show where the module stands.
    if recorded.began_at_rest && !held.is_summed() {
        held.settle();
    }
    let taken = optim.replay_on(recorded.lr, held, &recorded.answers);
    taken.map_err(|source| ReplayError::Step { step, source })?;
    Ok(())
}

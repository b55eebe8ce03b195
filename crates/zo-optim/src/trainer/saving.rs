//! Checkpoints while a run lasts.

use burn::module::Module;
use zo_core::{Loss, ZerothOrderOptimizer, ZoError};

use super::error::{CheckpointError, TrainerError};
use super::event::Event;
use super::place::Place;
use super::run::Run;
use super::task::Task;

impl<M, T, O, F> Run<'_, M, T, O, F>
where
    M: Module,
    T: Task<M>,
    O: ZerothOrderOptimizer,
    F: FnMut(Event<'_, T::Batch, T::Details>) -> Result<(), String>,
{
    /// Writes a checkpoint, if there is a folder for it, and tells the observer. The model stands where it stood before, unless
    /// this fails or the run `ends`: nothing goes on from there.
    pub(super) fn save(
        &mut self,
        model: &mut Place<M>,
        ends: bool,
    ) -> Result<(), TrainerError<T::Error>> {
        let step = self.step;
        // A run that was resumed here has it, and must not look at the next batch: that would move the model.
        let Some(store) = self.store.as_ref().filter(|store| !store.has(step)) else {
            return Ok(());
        };
        let (module, position) = model.stored();
        let stood = position.clone();
        let optim = &*self.optim;
        let draft = store.draft(step, &self.evaluations, (module, position), || {
            optim.record()
        })?;
        if step > 0
            && self.evaluations.last_step() != Some(step)
            && let Err(error) = self.check_next_batch(model.shown())
        {
            draft.discard();
            return Err(error);
        }
        let Some(store) = &mut self.store else {
            return Ok(());
        };
        let path = store.publish(draft)?;
        if !ends
            && let Place::Held(held) = model
            && held.stored().1 != stood
        {
            // The next batch was looked at from the weights. Going back to where the module stood would round it; what was written has
            // the bits.
            let mut read = Ok(());
            held.replace(|module| {
                let (module, result) = store.reload(&path, module);
                read = result;
                module
            });
            read?;
            held.resume_at(stood).map_err(CheckpointError::from)?;
        }
        (self.observer)(Event::Saved { step, path: &path }).map_err(TrainerError::Observer)
    }

    /// Finds out whether the weights are worth a checkpoint: those whose loss is not finite must not replace good ones.
    fn check_next_batch(&mut self, module: &M) -> Result<(), TrainerError<T::Error>> {
        let (step, rows) = (self.step, "the next batch");
        // Shard by shard, in the memory of one.
        for shard in 0..self.team.all_shards() {
            for (batch, _) in self.batches(shard..shard + 1)? {
                let loss = self.task.loss(module, &batch).value();
                let loss = loss.map_err(ZoError::from)?;
                if !loss.is_finite() {
                    return Err(TrainerError::Diverged { step, rows, loss });
                }
            }
        }
        Ok(())
    }
}

//! Losses that several processes evaluate together, each its part of the displacements.

use std::ops::Range;
use std::time::Instant;

use burn::module::Module;

use super::Evaluator;
use crate::direction::Direction;
use crate::error::ZoError;
use crate::masked::MaskedDirection;
use crate::objective::Numbers;

impl<M: Module, O: Numbers<M>> Evaluator<'_, M, O> {
    /// The losses at these displacements, each evaluated by one part of the processes. The module walks through all of them everywhere, so that
    /// it stands at the same place, with the same roundings, as if one process had evaluated all.
    pub(super) fn apart(
        &mut self,
        at_once: usize,
        displacements: &[Direction],
        candidates: bool,
    ) -> Result<Vec<f64>, ZoError> {
        let masked = self.masked(displacements);
        // All of them everywhere: what is refused by one process is refused by all.
        self.check_displacements(&masked)?;
        let (part, parts) = self.objective.part(candidates);
        let evaluations = self.evaluations_of(&masked, at_once);
        let forwards = self.forwards + masked.len();
        // For each displacement that is evaluated here: its losses, one for each shard.
        let (mut own, mut misread) = (Vec::new(), false);
        for (number, evaluation) in evaluations.iter().enumerate() {
            let (at, mine) = (&masked[evaluation.clone()], number % parts == part);
            if at.len() > 1 {
                let together = match mine {
                    true => self.own_jointly(at)?,
                    false => Some(Vec::new()),
                };
                if let Some(losses) = together {
                    own.extend(losses);
                    continue;
                }
                misread = true;
            }
            for displacement in at {
                self.perturbed.move_to(displacement);
                if mine {
                    own.push(self.evaluate(|objective, module| objective.own(module, 1))?);
                    if self.perturbed.unread() {
                        return Err(ZoError::Unread);
                    }
                }
            }
        }
        self.forwards = forwards;
        let start = Instant::now();
        let losses = self.gathered(&own, misread, (&evaluations, parts), masked.len())?;
        self.forward_time += start.elapsed();
        let noted = self.note(&losses, &masked, candidates);
        self.went_past |= noted.is_err() && !self.perturbed.is_view();
        noted
    }

    /// Which displacements are evaluated at once, in order.
    fn evaluations_of(
        &mut self,
        displacements: &[MaskedDirection],
        at_once: usize,
    ) -> Vec<Range<usize>> {
        let count = displacements.len();
        let mut evaluations = Vec::with_capacity(count);
        for begin in (0..count).step_by(at_once) {
            let some = begin..count.min(begin + at_once);
            let several = some.len() > 1;
            match several && self.perturbed.joint(&displacements[some.clone()]).is_some() {
                true => evaluations.push(some),
                false => evaluations.extend(some.map(|one| one..one + 1)),
            }
        }
        evaluations
    }

    /// The losses at each of these displacements, one for each shard that is evaluated here, in one evaluation; `None` if that cannot be.
    fn own_jointly(&mut self, at: &[MaskedDirection]) -> Result<Option<Vec<Vec<f64>>>, ZoError> {
        let count = at.len();
        let losses = self.shown_jointly(at, |objective, module| objective.own(module, count))?;
        let of = |losses: Vec<f64>| {
            let of = |number: usize| losses.iter().skip(number).step_by(count).copied();
            (0..count).map(|number| of(number).collect()).collect()
        };
        Ok(losses.map(of))
    }

    /// The losses at all displacements, of which `own` are those that were evaluated here.
    fn gathered(
        &mut self,
        own: &[Vec<f64>],
        misread: bool,
        (evaluations, parts): (&[Range<usize>], usize),
        count: usize,
    ) -> Result<Vec<f64>, ZoError> {
        let of_part = |part: usize| evaluations.iter().skip(part).step_by(parts).cloned();
        let counts = (0..parts).map(|part| of_part(part).flatten().count());
        // The last number says whether displacements that were shown at once were misread: the next ones are divided in the same way everywhere.
        let width = counts.max().unwrap_or(0) + 1;
        let shards = own.first().map_or(self.objective.shards(), Vec::len);
        let mut numbers = Vec::with_capacity(shards * width);
        for shard in 0..shards {
            let losses = own.iter().map(|losses| losses[shard]);
            let filled = losses.chain(std::iter::repeat(0.0)).take(width - 1);
            numbers.extend(filled);
            numbers.push(f64::from(u8::from(misread)));
        }
        let all = self.objective.gather(numbers, parts)?;
        let mut losses = vec![f64::NAN; count];
        for (part, numbers) in all.chunks(width).enumerate() {
            for (place, loss) in of_part(part).flatten().zip(numbers) {
                losses[place] = *loss;
            }
            if numbers.last().is_some_and(|misread| *misread > 0.0) {
                self.perturbed.one_at_a_time();
            }
        }
        Ok(losses)
    }
}

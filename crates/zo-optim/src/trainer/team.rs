//! The ranks of a run, and what this one does of each step.

use std::cell::{Cell, RefCell};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

use burn::module::Module;
use serde_json::{Map, Value};
use zo_core::{ConfigError, ObjectiveError, Perturbed, Share};

use super::error::{CheckpointError, TrainerError};
use super::fingerprint::difference;
use super::split::Split;
use crate::ranks::{Communicator, RankError, broadcast, exchange};

/// The ranks of a run, as this one sees them.
pub(super) struct Team<'a> {
    ranks: &'a dyn Communicator,
    split: Split,
    /// Ranks that share the rows, and parts of the displacements.
    rows: usize,
    parts: usize,
    stop: &'a AtomicBool,
    /// Whether a rank was told to stop, as of the last exchange of losses: then all know.
    stops: Cell<bool>,
    /// Of the rows of the shards that are evaluated here.
    weights: RefCell<Vec<f64>>,
    /// What has ended the exchange of losses.
    failed: RefCell<Option<RankError>>,
    /// Steps done at the last comparison of weights.
    compared: Cell<Option<usize>>,
}

impl<'a> Team<'a> {
    /// Before anything is checked: this rank evaluates everything.
    pub(super) fn new(ranks: &'a dyn Communicator, split: Split, stop: &'a AtomicBool) -> Self {
        Self {
            ranks,
            split,
            rows: 1,
            parts: 1,
            stop,
            stops: Cell::new(false),
            weights: RefCell::default(),
            failed: RefCell::default(),
            compared: Cell::default(),
        }
    }

    /// Divides the work.
    pub(super) fn divide(&mut self) -> Result<(), ConfigError> {
        (self.rows, self.parts) = self.split.of(self.ranks.size())?;
        Ok(())
    }

    pub(super) fn is_alone(&self) -> bool {
        self.ranks.size() == 1
    }

    /// Whether this rank writes the files of the run.
    pub(super) fn writes(&self) -> bool {
        self.ranks.rank() == 0
    }

    pub(super) fn ranks(&self) -> &'a dyn Communicator {
        self.ranks
    }

    /// Whether batches are divided.
    pub(super) fn has_shards(&self) -> bool {
        self.split.shards > 1
    }

    /// The number of shards of a batch.
    pub(super) fn all_shards(&self) -> usize {
        self.split.shards
    }

    /// The shards that are evaluated here.
    pub(super) fn own_shards(&self) -> Range<usize> {
        let each = self.split.shards / self.rows;
        let row = self.ranks.rank() % self.rows;
        row * each..(row + 1) * each
    }

    /// The shares of the batch's rows that are in the shards that are evaluated here.
    pub(super) fn weigh(&self, weights: Vec<f64>) {
        *self.weights.borrow_mut() = weights;
    }

    /// Whether the run was told to stop.
    pub(super) fn stops(&self) -> bool {
        match self.is_alone() {
            true => self.stop.load(Ordering::Relaxed),
            false => self.stops.get(),
        }
    }

    /// What has ended the exchange of losses in the step that failed.
    pub(super) fn failure(&self) -> Option<RankError> {
        self.failed.borrow_mut().take()
    }

    /// Tells the others that this rank ends with `error`.
    pub(super) fn fail<E: std::error::Error>(&self, error: &TrainerError<E>) {
        match error {
            // They know.
            TrainerError::Rank(RankError::Failed { .. }) => {}
            error => self.ranks.fail(&error.to_string()),
        }
    }

    /// Whether all ranks are to do the same run, of which `run` is the description.
    pub(super) fn agree(&self, run: &Value) -> Result<(), RankError> {
        if self.is_alone() {
            return Ok(());
        }
        let fields = match run {
            Value::Object(fields) => fields.clone(),
            other => Map::from_iter([("run".to_owned(), other.clone())]),
        };
        // Versions first: what they differ in may differ in more.
        let (versions, others): (Map<_, _>, Map<_, _>) =
            fields.into_iter().partition(|(name, _)| name == VERSION);
        for some in [Value::Object(versions), Value::Object(others)] {
            let text = some.to_string();
            let all = self.ranks.all_gather(&checksum(text.as_bytes()))?;
            if all.chunks(2).all(|other| *other == all[..2]) {
                continue;
            }
            let texts = exchange(self.ranks, text.as_bytes())?;
            let read = |text: &[u8]| serde_json::from_slice(text).unwrap_or(Value::Null);
            let expected = read(&texts[0]);
            for (rank, text) in texts.iter().enumerate() {
                if let Some([field, found, expected]) = difference("", &read(text), &expected) {
                    return Err(RankError::Differs {
                        rank,
                        field,
                        found,
                        expected,
                    });
                }
            }
        }
        Ok(())
    }

    /// Compares the weights of all ranks after `step` steps, where the next one finds them, if it is time.
    pub(super) fn compare<M: Module, E: std::error::Error>(
        &self,
        step: usize,
        ends: bool,
        held: &mut Perturbed<M>,
    ) -> Result<(), TrainerError<E>> {
        let every = self.split.compare_every;
        let due = ends || step == 0 || every > 0 && step.is_multiple_of(every);
        if self.is_alone() || !due || self.compared.replace(Some(step)) == Some(step) {
            return Ok(());
        }
        let (_, digest) = held.digest().map_err(CheckpointError::from)?;
        let word = |bytes: &[u8]| {
            let bytes = bytes
                .iter()
                .fold(0, |word: u32, byte| word << 8 | u32::from(*byte));
            f64::from(bytes)
        };
        let own: Vec<f64> = digest.as_bytes().chunks(4).map(word).collect();
        let all = self.ranks.all_gather(&own)?;
        let mut others = all.chunks(own.len());
        match others.position(|other| *other != all[..own.len()]) {
            Some(rank) => Err(RankError::Weights { rank, step }.into()),
            None => Ok(()),
        }
    }

    /// The numbers of rank 0, in place of those of the others.
    pub(super) fn of_first<const N: usize>(&self, own: [f64; N]) -> Result<[f64; N], RankError> {
        let all = self.ranks.all_gather(&own)?;
        Ok(std::array::from_fn(|number| all[number]))
    }

    /// The bytes of rank 0.
    pub(super) fn broadcast(&self, own: &[u8]) -> Result<Vec<u8>, RankError> {
        broadcast(self.ranks, own)
    }

    /// The numbers of all ranks.
    pub(super) fn each(&self, own: f64) -> Result<Vec<f64>, RankError> {
        self.ranks.all_gather(&[own])
    }
}

/// The field of a description that is compared first.
pub(super) const VERSION: &str = "version";

/// Two numbers that differ where bytes do, but for one in 2^64.
fn checksum(bytes: &[u8]) -> [f64; 2] {
    let words = bytes.chunks(8).map(|bytes| {
        let mut word = [0; 8];
        word[..bytes.len()].copy_from_slice(bytes);
        u64::from_le_bytes(word)
    });
    let hash = words.fold(bytes.len() as u64, |hash, word| {
        zo_core::noise::derive_seed(hash, word, 0)
    });
    [(hash >> 32) as f64, (hash & 0xffff_ffff) as f64]
}

impl Share for Team<'_> {
    fn part(&self, candidates: bool) -> (usize, usize) {
        let shared = if candidates {
            self.split.candidates
        } else {
            self.split.queries
        };
        match shared {
            true => (self.ranks.rank() / self.rows, self.parts),
            false => (0, 1),
        }
    }

    fn shards(&self) -> usize {
        self.own_shards().len()
    }

    fn gather(&self, own: &[f64], parts: usize) -> Result<Vec<f64>, ObjectiveError> {
        let weights = self.weights.borrow();
        let width = own.len() / weights.len().max(1);
        let stops = f64::from(u8::from(self.stop.load(Ordering::Relaxed)));
        let shards = own.chunks(width).zip(weights.iter());
        let weighed = shards.flat_map(|(values, weight)| values.iter().map(move |x| x * weight));
        let numbers: Vec<f64> = std::iter::once(stops).chain(weighed).collect();
        let all = self.ranks.all_gather(&numbers).map_err(|error| {
            *self.failed.borrow_mut() = Some(error.clone());
            ObjectiveError::User(Box::new(error))
        })?;
        let ranks: Vec<&[f64]> = all.chunks(numbers.len()).collect();
        self.stops.set(ranks.iter().any(|numbers| numbers[0] > 0.0));
        // In the order of the shards, so that all ranks, and one that evaluates all shards, add the same numbers in the same order.
        let sum = |part: usize, place: usize| {
            let of_part = &ranks[part * self.rows..(part + 1) * self.rows];
            let shards = of_part
                .iter()
                .flat_map(|numbers| numbers[1..].chunks(width));
            let values = shards.map(|values| values[place]);
            values.reduce(|sum, value| sum + value).unwrap_or(f64::NAN)
        };
        let places = (0..parts).flat_map(|part| (0..width).map(move |place| (part, place)));
        Ok(places.map(|(part, place)| sum(part, place)).collect())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::time::Duration;

    use serde_json::json;

    use super::*;
    use crate::ranks::threads;

    /// What a rank finds that is described by `other`, and another by `first`.
    fn found(first: &Value, other: &Value) -> Result<(), RankError> {
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let ranks = threads(2, Duration::from_secs(60)).into_iter();
            let found = ranks.map(|rank| {
                let own = if rank.rank() == 0 { first } else { other };
                let stop = &stop;
                scope.spawn(move || Team::new(&rank, Split::default(), stop).agree(own))
            });
            let found: Vec<_> = found.collect();
            let found: Vec<_> = found
                .into_iter()
                .map(|found| found.join().unwrap())
                .collect();
            assert_eq!(found[0], found[1]);
            found[1].clone()
        })
    }

    #[test]
    fn versions_count_first() {
        let run = |library: &str, lr| json!({"version": {"library": library}, "lr": lr, "rows": 3});
        assert_eq!(found(&run("0.1.0", 1), &run("0.1.0", 1)), Ok(()));
        let error = found(&run("0.1.0", 1), &run("0.1.1", 2))
            .unwrap_err()
            .to_string();
        let expected = "its version.library is \"0.1.1\", that of rank 0 is \"0.1.0\"";
        assert!(error.contains(expected), "{error}");
        let error = found(&run("0.1.0", 1), &run("0.1.0", 2))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("its lr is 2, that of rank 0 is 1"),
            "{error}"
        );
    }
}

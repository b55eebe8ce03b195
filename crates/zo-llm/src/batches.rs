//! Which rows make a batch.

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_xoshiro::Xoshiro256PlusPlus;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The batch does not fit the rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a batch of {batch} rows cannot be drawn from {rows} rows: use a batch from 1 to {rows}")]
pub struct BatchSizeError {
    /// Rows in a batch.
    pub batch: usize,
    /// Rows there are.
    pub rows: usize,
}

/// How the rows of a batch are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Order {
    /// In turn from each class, so that the classes weigh the same however many rows each has.
    #[default]
    Balanced,
    /// From all rows alike.
    Shuffled,
}

/// Draws batches of row numbers, each class (or the whole) without replacement within an epoch of its own.
///
/// Draw number t of a run is a function of the seed and t, so the place in a run is the number of batches drawn.
#[derive(Debug, Clone)]
pub struct BatchSampler {
    /// Row numbers by class; one group if all rows are drawn alike.
    groups: Vec<Group>,
    batch: usize,
    seed: u64,
    drawn: usize,
}

#[derive(Debug, Clone)]
struct Group {
    rows: Vec<usize>,
    /// The epoch and its order.
    shuffled: Option<(usize, Vec<usize>)>,
}

impl BatchSampler {
    /// Batches of `batch` of the rows whose labels are `labels`. A batch of all rows holds each once, whatever the order.
    ///
    /// # Errors
    /// If `batch` is 0 or more than there are rows.
    pub fn new(
        labels: &[usize],
        order: Order,
        batch: usize,
        seed: u64,
    ) -> Result<Self, BatchSizeError> {
        let rows = labels.len();
        if batch == 0 || batch > rows {
            return Err(BatchSizeError { batch, rows });
        }
        let classes = match order {
            Order::Balanced if batch < rows => labels.iter().max().map_or(1, |last| last + 1),
            _ => 1,
        };
        let mut groups = vec![Vec::new(); classes];
        for (row, label) in labels.iter().enumerate() {
            groups[label % classes].push(row);
        }
        groups.retain(|rows| !rows.is_empty());
        let groups = groups
            .into_iter()
            .map(|rows| Group {
                rows,
                shuffled: None,
            })
            .collect();
        Ok(Self {
            groups,
            batch,
            seed,
            drawn: 0,
        })
    }

    /// The same sampler, as it is after `drawn` batches.
    #[must_use]
    pub fn after(self, drawn: usize) -> Self {
        Self { drawn, ..self }
    }

    /// Batches drawn so far.
    pub fn drawn(&self) -> usize {
        self.drawn
    }

    /// The rows of the next batch.
    pub fn next_batch(&mut self) -> Vec<usize> {
        let first = self.drawn * self.batch;
        self.drawn += 1;
        (first..first + self.batch)
            .map(|draw| self.row(draw))
            .collect()
    }

    fn row(&mut self, draw: usize) -> usize {
        let groups = self.groups.len();
        let class = draw % groups;
        let group = &mut self.groups[class];
        let (epoch, place) = (
            draw / groups / group.rows.len(),
            draw / groups % group.rows.len(),
        );
        let order = match &mut group.shuffled {
            Some((known, order)) if *known == epoch => order,
            shuffled => {
                let seed = zo_core::noise::derive_seed(self.seed, epoch as u64, class as u64);
                let mut order = group.rows.clone();
                order.shuffle(&mut Xoshiro256PlusPlus::seed_from_u64(seed));
                &mut shuffled.insert((epoch, order)).1
            }
        };
        order[place]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_covers_each_row_once_and_can_be_resumed() {
        let labels = [0, 1, 0, 1, 0, 1, 0, 1, 0, 1];
        for order in [Order::Balanced, Order::Shuffled] {
            let new = |seed| BatchSampler::new(&labels, order, 5, seed).unwrap();
            let mut sampler = new(3);
            let batches: Vec<_> = (0..6).map(|_| sampler.next_batch()).collect();
            for epoch in batches.chunks(2) {
                let mut rows = epoch.concat();
                rows.sort_unstable();
                assert_eq!(rows, (0..10).collect::<Vec<_>>());
            }
            assert_ne!(batches[0], batches[2], "each epoch has its own order");
            for (drawn, batch) in batches.iter().enumerate() {
                assert_eq!(new(3).after(drawn).next_batch(), *batch);
            }
            assert_ne!(new(4).next_batch(), batches[0]);
            for batch in [0, 11] {
                let error = BatchSampler::new(&labels, order, batch, 0)
                    .unwrap_err()
                    .to_string();
                assert!(error.contains(&format!("batch of {batch}")), "{error}");
            }
        }
    }

    #[test]
    fn classes_are_balanced_unless_told_otherwise_or_the_batch_is_everything() {
        let labels: Vec<usize> = (0..100).map(|row| usize::from(row >= 95)).collect();
        let share = |order, batch| {
            let mut sampler = BatchSampler::new(&labels, order, batch, 0).unwrap();
            let rows: Vec<_> = (0..20).flat_map(|_| sampler.next_batch()).collect();
            rows.iter().filter(|row| labels[**row] == 1).count() as f64 / rows.len() as f64
        };
        assert_eq!(share(Order::Balanced, 10), 0.5);
        assert_eq!(share(Order::Shuffled, 10), 0.05);
        assert_eq!(share(Order::Balanced, 100), 0.05);
    }
}

//! Which rows make a batch.

use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The batch does not fit the rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error(
    "a batch of {batch} rows cannot be drawn from {rows} rows: use a batch size from 1 to {rows}"
)]
pub struct BatchSizeError {
    /// Rows in a batch.
    pub batch: usize,
    /// Available rows.
    pub rows: usize,
}

/// How the rows of a batch are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Order {
    /// From each class in turn, so that all classes weigh the same however many rows each has.
    #[default]
    Balanced,
    /// From all rows alike.
    Shuffled,
}

/// Draws batches of row numbers, each class (or the whole) without replacement within an epoch of its own.
///
/// Draw number t of a run is a function of the seed and t, so the number of batches drawn is the whole state.
#[derive(Debug, Clone)]
pub struct BatchSampler {
    /// Row numbers by class; one group if all rows are drawn alike.
    groups: Vec<Group>,
    batch: usize,
    seed: u64,
    drawn: usize,
    /// The length of each row, if rows of similar length go together.
    lengths: Option<Vec<usize>>,
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
    /// If `batch` is 0 or exceeds the number of rows.
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
            lengths: None,
        })
    }

    /// The same sampler with rows of similar length in each batch, so that little is padded. `lengths` holds the length of each row, in
    /// tokens; a row beyond its end counts as empty.
    ///
    /// Each batch has a place between the shortest and the longest rows, in an order that is random but even: of each pair of batches
    /// (the first and second, the third and fourth, ..) one lies in the lower half, of each four one in every quarter, and so on. Within
    /// an epoch of a class, its rows go from short to long to the batches in the order of their places. So a batch gets rows of the same
    /// quantile of every class, however much the class sizes differ. Everything else stays the same: each row once per epoch of its
    /// class, equally many rows of each class in a batch. Where an epoch of a class is only a few batches, its rows cannot be similar.
    #[must_use]
    pub fn grouped_by_length(mut self, lengths: Vec<usize>) -> Self {
        self.lengths = Some(lengths);
        for group in &mut self.groups {
            group.shuffled = None;
        }
        self
    }

    /// The same sampler after `drawn` batches.
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
        let rows = self.groups[class].rows.len();
        let (epoch, place) = (draw / groups / rows, draw / groups % rows);
        let order = match self.groups[class].shuffled.take() {
            Some((known, order)) if known == epoch => order,
            _ => self.order(class, epoch),
        };
        let row = order[place];
        self.groups[class].shuffled = Some((epoch, order));
        row
    }

    /// The rows of class `class` in the order of epoch `epoch`.
    fn order(&self, class: usize, epoch: usize) -> Vec<usize> {
        let seed = zo_core::noise::derive_seed(self.seed, epoch as u64, class as u64);
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
        let mut order = self.groups[class].rows.clone();
        order.shuffle(&mut rng);
        let Some(lengths) = &self.lengths else {
            return order;
        };
        order.sort_by_key(|row| lengths.get(*row).copied().unwrap_or(0));
        // A row moves up by some ranks, so that it meets different rows in each epoch.
        let blur = order.len() / BLUR;
        let mut ranked: Vec<(usize, usize)> = order
            .into_iter()
            .enumerate()
            .map(|(rank, row)| (rank + rng.random_range(0..=blur), row))
            .collect();
        ranked.sort_by_key(|(rank, _)| *rank);

        // The batch that each place of the epoch is drawn for, and the places in the order of their batches' quantiles.
        let rows = ranked.len();
        let batch_of =
            |place: usize| ((epoch * rows + place) * self.groups.len() + class) / self.batch;
        let (first, last) = (batch_of(0), batch_of(rows - 1));
        let quantiles: Vec<u32> = (first..=last)
            .map(|batch| quantile(self.seed, batch as u64))
            .collect();
        let mut places: Vec<usize> = (0..rows).collect();
        places.sort_by_key(|place| quantiles[batch_of(*place) - first]);
        let mut order = vec![0; rows];
        for (place, (_, row)) in places.into_iter().zip(ranked) {
            order[place] = row;
        }
        order
    }
}

/// Rows move up by at most a 64th of their class: moving farther would mean more padding, moving less, the same rows in a batch.
const BLUR: usize = 64;

/// Where batch number `batch` lies between the shortest rows (0) and the longest (`u32::MAX`).
///
/// Of the batches `i 2^k, .., (i + 1) 2^k - 1` exactly one falls in each of the 2^k equal parts of the range, for every k up to 32: bit k
/// from the top differs between the two halves of these batches wherever the bits above it are the same. Which half comes first is random.
fn quantile(seed: u64, batch: u64) -> u32 {
    (1..=u32::BITS).fold(0, |above: u32, k| {
        let block = batch.checked_shr(k).unwrap_or(0);
        // The level in the upper half keeps these seeds distinct from those of the classes.
        let node = u64::from(k) << 32 | u64::from(above);
        let flip = zo_core::noise::derive_seed(seed, block, node) as u32;
        let half = (batch >> (k - 1)) as u32;
        above << 1 | ((half ^ flip) & 1)
    })
}

#[cfg(test)]
mod tests;

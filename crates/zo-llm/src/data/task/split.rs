//! Which rows of a data set are used: a few of each class, or MeZO's 1000 to train, 500 to select a checkpoint and 1000 to test.
//!
//! The choice depends only on the seed and the numbers of rows.

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_xoshiro::Xoshiro256PlusPlus;
use thiserror::Error;

/// Why rows cannot be drawn.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SplitError {
    /// Nothing is asked for, or there are no rows.
    #[error(
        "{k} rows of each class cannot be drawn from {rows} rows: both numbers must be at least 1"
    )]
    Nothing {
        /// Rows of each class asked for.
        k: usize,
        /// Available rows.
        rows: usize,
    },
    /// A class has too few rows.
    #[error(
        "class {class} has {rows} rows, {k} of each class are requested: use at most {rows}, or more data"
    )]
    Class {
        /// The class.
        class: usize,
        /// Its rows.
        rows: usize,
        /// Rows of each class asked for.
        k: usize,
    },
    /// A part would be empty.
    #[error(
        "{train_rows} rows of the training file and {dev_rows} of the dev file do not make the parts {sizes:?}: each needs at least one \
         row, and the dev part comes out of the training file first; use a smaller dev part"
    )]
    Parts {
        /// Rows of the training file.
        train_rows: usize,
        /// Rows of the dev file.
        dev_rows: usize,
        /// Rows asked for.
        sizes: SplitSizes,
    },
}

/// `k` rows of each class, in the order of the file. `labels` are those of all rows; the classes are 0 to the largest of them.
///
/// # Errors
/// If a class has fewer rows, or there is nothing to draw.
pub fn sample_per_class(labels: &[usize], k: usize, seed: u64) -> Result<Vec<usize>, SplitError> {
    let classes = labels.iter().max().map_or(0, |last| last + 1);
    if k == 0 || classes == 0 {
        let rows = labels.len();
        return Err(SplitError::Nothing { k, rows });
    }
    let mut members = vec![Vec::new(); classes];
    for (row, label) in labels.iter().enumerate() {
        members[*label].push(row);
    }
    let mut rows = Vec::new();
    for (class, mut members) in members.into_iter().enumerate() {
        if members.len() < k {
            let rows = members.len();
            return Err(SplitError::Class { class, rows, k });
        }
        members.shuffle(&mut generator(seed, PER_CLASS, class as u64));
        rows.extend_from_slice(&members[..k]);
    }
    rows.sort_unstable();
    Ok(rows)
}

/// LM-BFF's rows (Gao et al. 2021): of each class `k` rows of the training file to train on and the next `k` to select a checkpoint by, and up to
/// 1000 of the `dev_rows` rows of the dev file to report on. `labels` are those of the training file. LM-BFF draws its own by NumPy's generator.
///
/// # Errors
/// If a class has fewer than `2 k` rows, or there is nothing to draw.
pub fn k_shot(
    labels: &[usize],
    k: usize,
    dev_rows: usize,
    seed: u64,
) -> Result<Subsets, SplitError> {
    let both = sample_per_class(labels, 2 * k, seed)?;
    let train = {
        let own: Vec<usize> = both.iter().map(|row| labels[*row]).collect();
        sample_per_class(&own, k, seed)?
    };
    let (mut kept, mut rest) = (Vec::new(), Vec::new());
    for (place, row) in both.into_iter().enumerate() {
        match train.binary_search(&place) {
            Ok(_) => kept.push(row),
            Err(_) => rest.push(row),
        }
    }
    let mut test: Vec<usize> = (0..dev_rows).collect();
    test.shuffle(&mut generator(seed, DEV_FILE, 0));
    test.truncate(SplitSizes::default().test);
    Ok(Subsets {
        train: kept,
        dev: rest,
        test,
    })
}

/// The maximum sizes of MeZO's [`Subsets`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SplitSizes {
    /// Rows to train on, from the training file. Default 1000; fewer if the file has fewer left after the dev rows.
    pub train: usize,
    /// Rows to select a checkpoint by, also from the training file. Default 500.
    pub dev: usize,
    /// Rows to report on, from the dev file. Default 1000, or all if there are fewer.
    pub test: usize,
}

impl Default for SplitSizes {
    fn default() -> Self {
        Self {
            train: 1000,
            dev: 500,
            test: 1000,
        }
    }
}

impl SplitSizes {
    /// The sizes that MeZO uses for a task: the defaults, except 100 dev rows for CB and COPA, which have few rows.
    pub fn of_task(name: &str) -> Self {
        let sizes = Self::default();
        match name {
            "cb" | "copa" => Self { dev: 100, ..sizes },
            _ => sizes,
        }
    }

    /// Draws the rows.
    ///
    /// # Errors
    /// If a part would be empty.
    pub fn draw(
        self,
        train_rows: usize,
        dev_rows: usize,
        seed: u64,
    ) -> Result<Subsets, SplitError> {
        let empty = [self.train, self.dev, self.test, dev_rows].contains(&0);
        if empty || train_rows <= self.dev {
            return Err(SplitError::Parts {
                train_rows,
                dev_rows,
                sizes: self,
            });
        }
        let shuffled = |rows, part| {
            let mut rows: Vec<usize> = (0..rows).collect();
            rows.shuffle(&mut generator(seed, part, 0));
            rows
        };
        let mut train = shuffled(train_rows, TRAIN_FILE);
        train.truncate(self.train.saturating_add(self.dev));
        let dev = train.split_off(train.len() - self.dev);
        let mut test = shuffled(dev_rows, DEV_FILE);
        test.truncate(self.test);
        Ok(Subsets { train, dev, test })
    }
}

/// Row numbers, counted from 0, in an order given by the seed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subsets {
    /// Rows of the training file to train on.
    pub train: Vec<usize>,
    /// Rows of the training file to select a checkpoint by, disjoint from `train`.
    pub dev: Vec<usize>,
    /// Rows of the dev file to report on.
    pub test: Vec<usize>,
}

// Far from the epochs that `batches` counts from 0, so that no two orders of a run use the same seed.
const PER_CLASS: u64 = u64::MAX;
const TRAIN_FILE: u64 = u64::MAX - 1;
const DEV_FILE: u64 = u64::MAX - 2;

fn generator(seed: u64, part: u64, class: u64) -> Xoshiro256PlusPlus {
    Xoshiro256PlusPlus::seed_from_u64(zo_core::noise::derive_seed(seed, part, class))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_class_gives_equally_many_rows() {
        let labels: Vec<usize> = (0..90).map(|row| usize::from(row % 3 == 0)).collect();
        let rows = sample_per_class(&labels, 7, 1).unwrap();
        assert_eq!(rows.len(), 14);
        assert_eq!(rows.iter().filter(|row| labels[**row] == 1).count(), 7);
        assert!(rows.is_sorted_by(|a, b| a < b), "each once: {rows:?}");
        assert_eq!(rows, sample_per_class(&labels, 7, 1).unwrap());
        assert_ne!(rows, sample_per_class(&labels, 7, 2).unwrap());
        assert_eq!(sample_per_class(&[1, 0], 1, 0).unwrap(), [0, 1]);
        let message = |labels: &[usize], k| sample_per_class(labels, k, 0).unwrap_err().to_string();
        let few = message(&labels, 31);
        assert!(few.contains("class 1 has 30 rows, 31"), "{few}");
        assert!(message(&[2, 0], 1).contains("class 1 has 0 rows"));
        assert!(message(&[0], 0).contains("0 rows of each class"));
        assert!(message(&[], 4).contains("from 0 rows"));
    }

    #[test]
    fn shots_are_k_of_each_class_twice() {
        let labels: Vec<usize> = (0..200).map(|row| row * row % 3).collect();
        let parts = k_shot(&labels, 16, 1200, 3).unwrap();
        for rows in [&parts.train, &parts.dev] {
            assert_eq!(rows.len(), 32, "squares leave 0 or 1");
            assert_eq!(rows.iter().filter(|row| labels[**row] == 1).count(), 16);
            assert!(rows.is_sorted_by(|a, b| a < b));
        }
        assert!(parts.train.iter().all(|row| !parts.dev.contains(row)));
        assert_eq!(parts.test.len(), 1000);
        assert_eq!(parts, k_shot(&labels, 16, 1200, 3).unwrap());
        assert_ne!(parts, k_shot(&labels, 16, 1200, 4).unwrap());
        let few = k_shot(&labels, 40, 9, 0).unwrap_err().to_string();
        assert!(few.contains("class 0 has 67 rows, 80"), "{few}");
        assert!(k_shot(&labels, 0, 9, 0).is_err());
    }

    #[test]
    fn the_parts_of_mezo_are_disjoint() {
        let sizes = SplitSizes::default();
        let parts = sizes.draw(2490, 277, 3).unwrap();
        let lengths = |parts: &Subsets| [parts.train.len(), parts.dev.len(), parts.test.len()];
        assert_eq!(lengths(&parts), [1000, 500, 277]);
        let mut rows = [parts.train.clone(), parts.dev.clone()].concat();
        rows.sort_unstable();
        assert!(rows.is_sorted_by(|a, b| a < b) && rows[1499] < 2490);
        let mut test = parts.test.clone();
        test.sort_unstable();
        assert_eq!(test, (0..277).collect::<Vec<_>>());
        assert_eq!(parts, sizes.draw(2490, 277, 3).unwrap());
        assert_ne!(parts, sizes.draw(2490, 277, 4).unwrap());
        // COPA: 400 rows, 100 of them for dev.
        let copa = SplitSizes::of_task("copa").draw(400, 100, 0).unwrap();
        assert_eq!(lengths(&copa), [300, 100, 100]);
        assert_eq!(SplitSizes::of_task("rte"), sizes);
    }

    #[test]
    fn parts_without_rows_are_refused() {
        let sizes = SplitSizes::default();
        let few = sizes.draw(500, 10, 0).unwrap_err().to_string();
        assert!(
            few.contains("500 rows of the training file") && few.contains("smaller dev"),
            "{few}"
        );
        assert!(sizes.draw(501, 1, 0).is_ok());
        assert!(sizes.draw(1000, 0, 0).is_err());
        assert!(SplitSizes { test: 0, ..sizes }.draw(1000, 9, 0).is_err());
    }
}

//! Processes, or threads, that train one model together: ranks, as MPI calls them.
//!
//! They hold the same weights and draw the same noise, so all that they tell each other are losses: 8 bytes for each, where training by
//! gradients exchanges a number for every weight. [`trainer::fit_on`](crate::trainer::fit_on) trains on any [`Communicator`]: [`Alone`],
//! [`Threads`] of one process (each with its own device, or in tests), or MPI's, which is in the crate `zo-mpi`.

mod bytes;
mod threads;

use thiserror::Error;

pub use bytes::{broadcast, exchange};
pub use threads::{Threads, threads};

/// The ranks of a run, as one of them sees them.
///
/// ```
/// use zo_optim::ranks::{Communicator, threads};
///
/// let ranks = threads(3, std::time::Duration::from_secs(10));
/// std::thread::scope(|scope| {
///     for rank in ranks {
///         scope.spawn(move || {
///             let own = [10.0 * rank.rank() as f64];
///             assert_eq!(rank.all_gather(&own), Ok(vec![0.0, 10.0, 20.0]));
///         });
///     }
/// });
/// ```
pub trait Communicator {
    /// The number of this rank, from 0. Rank 0 writes the files of a run.
    fn rank(&self) -> usize;

    /// How many ranks there are: at least 1.
    fn size(&self) -> usize;

    /// The numbers of all ranks, in the order of the ranks, bit for bit. All ranks call it, with equally many numbers.
    ///
    /// # Errors
    /// If a rank has [failed](Self::fail) or says nothing for longer than the communicator waits. What follows is an error, too.
    fn all_gather(&self, numbers: &[f64]) -> Result<Vec<f64>, RankError>;

    /// Tells the other ranks that this one ends, and why: where they wait for it, they fail with its number and this reason. Only the first
    /// reason counts.
    fn fail(&self, reason: &str);
}

/// Why ranks cannot go on together.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RankError {
    /// A rank has failed.
    #[error("rank {rank} failed: {reason}")]
    Failed {
        /// The rank.
        rank: usize,
        /// What went wrong there.
        reason: String,
    },
    /// Some ranks have said nothing for too long.
    #[error(
        "rank {ranks} has said nothing for {seconds} s: it hangs, its machine is gone, or its steps take longer. Look there, or raise the limit \
         (--rank-timeout)"
    )]
    Silent {
        /// Their numbers.
        ranks: String,
        /// How long they were waited for.
        seconds: u64,
    },
    /// A rank would do another run.
    #[error(
        "rank {rank} would do another run than rank 0: its {field} is {found}, that of rank 0 is {expected}. Start all ranks with the same \
         program, settings, model and data"
    )]
    Differs {
        /// The first rank that differs.
        rank: usize,
        /// The first field that does.
        field: String,
        /// What it is there, as JSON.
        found: String,
        /// What it is on rank 0, as JSON.
        expected: String,
    },
    /// The weights of a rank are not those of rank 0.
    #[error(
        "after {step} step(s) the weights of rank {rank} differ from those of rank 0: their devices compute noise or updates differently. Use \
         one kind of device for all ranks (noise and updates are the same on all CPUs), and resume"
    )]
    Weights {
        /// The first rank that differs.
        rank: usize,
        /// Steps done.
        step: usize,
    },
    /// A rank cannot read the checkpoint that rank 0 goes on from.
    #[error(
        "rank {rank} cannot read the checkpoint {path}: put it on a file system that all ranks see, or copy it there; with a trajectory, ranks go on \
         without it"
    )]
    Checkpoint {
        /// The first rank that cannot.
        rank: usize,
        /// The checkpoint of rank 0.
        path: String,
    },
    /// Ranks do not take part in the same exchange.
    #[error(
        "rank {rank} sent {found} number(s) where this one sent {expected}: the programs differ"
    )]
    Lengths {
        /// The rank.
        rank: usize,
        /// What it sent.
        found: usize,
        /// What was expected.
        expected: usize,
    },
    /// The library that connects the ranks.
    #[error("the ranks cannot be connected: {0}")]
    Library(String),
}

/// One process that trains by itself.
#[derive(Debug, Clone, Copy, Default)]
pub struct Alone;

impl Communicator for Alone {
    fn rank(&self) -> usize {
        0
    }

    fn size(&self) -> usize {
        1
    }

    fn all_gather(&self, numbers: &[f64]) -> Result<Vec<f64>, RankError> {
        Ok(numbers.to_vec())
    }

    fn fail(&self, _: &str) {}
}

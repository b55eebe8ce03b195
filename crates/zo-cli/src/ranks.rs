//! Ranks: the processes that `mpirun` has started, which train together.

use std::error::Error;
use std::time::Duration;

use clap::ValueEnum;
use serde::Serialize;
use zo_llm::finetune::{FinetuneError, RowsError};
use zo_optim::ranks::{Alone, Communicator, RankError};

use crate::exit::{Interrupted, Usage, text};
use crate::train::{Searched, TrainArgs};

/// What ranks share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Way {
    /// The rows of a batch.
    Rows,
    /// The displacements of queries.
    Queries,
    /// The candidates of samplers.
    Candidates,
}

/// How many processes a launcher of MPI programs (`mpirun`, or `srun` with PMI) says that it has started; 0 if this one was started by hand.
pub(crate) fn launched() -> usize {
    let count = |name: &str| std::env::var(name).ok()?.parse().ok();
    // Open MPI; MPICH and its relatives, and Slurm with PMI-2; Slurm with PMIx.
    let counted = ["OMPI_COMM_WORLD_SIZE", "PMI_SIZE"];
    let counted = counted.into_iter().find_map(count);
    let pmix = std::env::var_os("PMIX_RANK").map(|_| count("SLURM_NTASKS").unwrap_or(1));
    counted.or(pmix).unwrap_or(0)
}

/// The ranks of this program.
pub(crate) enum Ranks {
    Alone(Alone),
    #[cfg(feature = "mpi")]
    Mpi(zo_mpi::Mpi),
}

impl Ranks {
    /// Joins those that were started together, if any were. Each waits for the others at most for `limit`.
    pub(crate) fn join(limit: Duration) -> Result<Self, Box<dyn Error>> {
        let launched = launched();
        #[cfg(feature = "mpi")]
        if launched > 0 {
            return Ok(Self::Mpi(zo_mpi::Mpi::initialize(limit)?));
        }
        let _ = limit;
        match launched {
            0 | 1 => Ok(Self::Alone(Alone)),
            several => Err(Usage(format!(
                "mpirun has started {several} processes of a build without MPI, each of which would train by itself: add `--features mpi` to the \
                 cargo command that builds it"
            ))
            .into()),
        }
    }

    pub(crate) fn communicator(&self) -> &dyn Communicator {
        match self {
            Self::Alone(alone) => alone,
            #[cfg(feature = "mpi")]
            Self::Mpi(mpi) => mpi,
        }
    }

    /// Ends this process' part of a run that ended so. If that is an error, it ends all ranks.
    pub(crate) fn end(self, result: Result<(), Box<dyn Error>>) -> Result<(), Box<dyn Error>> {
        let ranks = self.communicator();
        match result {
            Err(error) if ranks.size() > 1 && !error.is::<Interrupted>() => {
                let (rank, text) = (ranks.rank(), text(error.as_ref()));
                ranks.fail(&text);
                match rank {
                    0 => eprintln!("error: {text}"),
                    // Rank 0 says what happened to others.
                    rank if !is_elsewhere(error.as_ref()) => {
                        eprintln!("error on rank {rank}: {text}")
                    }
                    _ => {}
                }
                match self {
                    Self::Alone(_) => Err(error),
                    #[cfg(feature = "mpi")]
                    Self::Mpi(mpi) => mpi.abort(1),
                }
            }
            result => result,
        }
    }
}

/// Whether this is about another rank.
fn is_elsewhere(error: &(dyn Error + 'static)) -> bool {
    let error = match error.downcast_ref() {
        Some(FinetuneError::Rank(error) | FinetuneError::Task(RowsError::Rank(error))) => error,
        _ => return false,
    };
    matches!(error, RankError::Failed { .. } | RankError::Silent { .. })
}

/// The flags of a run on `size` ranks.
pub(crate) fn resolved(args: &TrainArgs, size: usize) -> Result<TrainArgs, Usage> {
    let rows = args.split.is_empty() || args.split.contains(&Way::Rows);
    let shards = args.shards.unwrap_or(if rows { size } else { 1 });
    let refused = [
        (args.lr == Some(Searched::Auto), "--lr auto"),
        (args.epsilon == Some(Searched::Auto), "--epsilon auto"),
        (args.back_off > 0, "--back-off"),
        (args.dry_run, "--dry-run"),
    ];
    if let Some((_, flag)) = refused.into_iter().find(|(given, _)| *given && size > 1) {
        return Err(Usage(format!(
            "{flag} is for one process: use it without mpirun (--shards {shards} for the same losses), and give what it finds to all ranks"
        )));
    }
    Ok(TrainArgs {
        shards: Some(shards),
        ..args.clone()
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[test]
    fn ranks_share_rows_unless_told_otherwise() {
        let shards = |flags: &[&str], size| {
            let args = TrainArgs::parse_from([&["train"], flags].concat());
            resolved(&args, size).map(|args| args.shards)
        };
        assert_eq!(shards(&[], 1), Ok(Some(1)));
        assert_eq!(shards(&[], 4), Ok(Some(4)));
        assert_eq!(shards(&["--split", "rows"], 4), Ok(Some(4)));
        assert_eq!(shards(&["--split", "queries,candidates"], 4), Ok(Some(1)));
        assert_eq!(
            shards(&["--split", "rows,queries", "--shards", "2"], 4),
            Ok(Some(2))
        );
        for flag in ["--lr=auto", "--epsilon=auto", "--back-off", "--dry-run"] {
            assert!(shards(&[flag], 1).is_ok());
            let error = shards(&[flag], 2).unwrap_err().to_string();
            let name = flag.replace('=', " ");
            assert!(
                error.starts_with(&name) && error.contains("--shards 2"),
                "{error}"
            );
        }
    }
}

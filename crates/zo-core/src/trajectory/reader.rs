//! Reading a trajectory.

use std::path::{Path, PathBuf};

use crc32fast::Hasher;
use serde::Deserialize;

use super::error::TrajectoryError;
use super::format::{CHECKSUM, Context, MAGIC, Next};
use super::header::{ARITHMETIC, FORMAT, Header, NOISE};
use super::{Record, RecordedStep};

/// A run as it was recorded.
#[derive(Debug, Clone, PartialEq)]
pub struct Trajectory {
    header: Header,
    pub(super) records: Vec<Record>,
    torn: Option<Torn>,
}

/// An incomplete record at the end of a file, as a power cut leaves it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Torn {
    /// Bytes before it.
    pub whole: usize,
    /// Bytes of it.
    pub rest: usize,
}

/// What every version's header has.
#[derive(Deserialize)]
struct Versions {
    format: u32,
    noise: u32,
    arithmetic: u32,
    #[serde(default)]
    library: String,
}

impl Trajectory {
    /// Reads a file. An incomplete record at its end is left out: see [`torn`](Self::torn).
    ///
    /// # Errors
    /// If it cannot be read, is not a trajectory of this version, or is damaged.
    pub fn read(path: impl AsRef<Path>) -> Result<Self, TrajectoryError> {
        let path = path.as_ref();
        let file = std::fs::read(path).map_err(TrajectoryError::io(path))?;
        parse(path, &file).map(|(trajectory, _)| trajectory)
    }

    /// What the file `path` would hold if these were its bytes: those of a run on another machine.
    ///
    /// # Errors
    /// As [`read`](Self::read); `path` is named in them.
    pub fn of_bytes(path: impl AsRef<Path>, bytes: &[u8]) -> Result<Self, TrajectoryError> {
        parse(path.as_ref(), bytes).map(|(trajectory, _)| trajectory)
    }

    /// What it says of its run.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Everything after the header, in order.
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// The steps, in order.
    pub fn steps(&self) -> impl Iterator<Item = &RecordedStep> {
        self.records.iter().filter_map(|record| match record {
            Record::Step(step) => Some(step),
            _ => None,
        })
    }

    /// The evaluations, in order: steps done, score, loss.
    pub fn evaluations(&self) -> impl Iterator<Item = (usize, f64, f64)> {
        self.numbered().filter_map(|(step, record)| match record {
            Record::Evaluation { score, loss } => Some((step, *score, *loss)),
            _ => None,
        })
    }

    /// Every record with the number of steps before it.
    pub(super) fn numbered(&self) -> impl Iterator<Item = (usize, &Record)> {
        self.records.iter().scan(0, |steps, record| {
            let before = *steps;
            *steps += usize::from(matches!(record, Record::Step(_)));
            Some((before, record))
        })
    }

    /// The incomplete record that was left out, if there was one.
    pub fn torn(&self) -> Option<Torn> {
        self.torn
    }
}

/// The trajectory in these bytes of the file `path`, and what the next record depends on.
pub(super) fn parse(path: &Path, file: &[u8]) -> Result<(Trajectory, Context), TrajectoryError> {
    let (header, checksum, mut offset) = header(path, file)?;
    let mut context = Context::new(checksum);
    let (mut records, mut steps, mut torn) = (Vec::new(), 0, None);
    while offset < file.len() {
        match context.decode(file, offset) {
            Next::Record(record, end) => {
                steps += usize::from(matches!(record, Record::Step(_)));
                records.push(record);
                offset = end;
            }
            Next::Torn => {
                let rest = file.len() - offset;
                torn = Some(Torn {
                    whole: offset,
                    rest,
                });
                break;
            }
            Next::Damaged(reason) => {
                return Err(TrajectoryError::Damaged {
                    path: path.to_owned(),
                    record: records.len(),
                    offset,
                    reason,
                    steps,
                });
            }
        }
    }
    let trajectory = Trajectory {
        header,
        records,
        torn,
    };
    Ok((trajectory, context))
}

/// The header, the checksum so far, and where the records begin.
fn header(path: &Path, file: &[u8]) -> Result<(Header, Hasher, usize), TrajectoryError> {
    let bad = |reason: String| TrajectoryError::Header {
        path: path.to_owned(),
        reason,
    };
    let short = || bad(format!("it ends after {} byte(s)", file.len()));
    let Some(rest) = file.strip_prefix(&MAGIC) else {
        return Err(bad("it does not begin with `zo-traj`".to_owned()));
    };
    let (length, rest) = rest.split_first_chunk().ok_or_else(short)?;
    let length = u32::from_le_bytes(*length) as usize;
    let (json, rest) = rest.split_at_checked(length).ok_or_else(short)?;
    let stored = rest.first_chunk::<CHECKSUM>().ok_or_else(short)?;
    let start = file.len() - rest.len();
    let mut checksum = Hasher::new();
    checksum.update(&file[..start]);
    if checksum.clone().finalize() != u32::from_le_bytes(*stored) {
        return Err(bad("its checksum is wrong".to_owned()));
    }
    let versions: Versions =
        serde_json::from_slice(json).map_err(|error| bad(error.to_string()))?;
    let known = [
        ("format", versions.format, FORMAT),
        ("noise", versions.noise, NOISE),
        ("arithmetic", versions.arithmetic, ARITHMETIC),
    ];
    if let Some((what, found, known)) = known.into_iter().find(|(_, found, known)| found != known) {
        return Err(TrajectoryError::Version {
            path: PathBuf::from(path),
            what,
            found,
            known,
            library: versions.library,
        });
    }
    let header = serde_json::from_slice(json).map_err(|error| bad(error.to_string()))?;
    Ok((header, checksum, start + CHECKSUM))
}

//! Writing a trajectory.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use burn::module::Module;
use crc32fast::Hasher;
use serde_json::Value;

use super::error::TrajectoryError;
use super::format::{Context, MAGIC};
use super::header::Header;
use super::reader::{Trajectory, parse};
use super::{Record, RecordedStep};
use crate::optimizer::{Session, ZerothOrderOptimizer};
use crate::perturbed::Perturbed;
use crate::replace::replace_bytes;
use crate::report::StepReport;

/// The longest time between two syncs while records are written.
const SYNC: Duration = Duration::from_secs(5);

/// Writes a trajectory while its run lasts.
///
/// Each record is handed to the system at once: whatever ends the process, records before that are in the file. Every five seconds, and
/// where [`sync`](Self::sync) is called, the file is synced to disk: what came later may be lost if the power fails.
#[derive(Debug)]
pub struct TrajectoryWriter {
    path: PathBuf,
    file: File,
    context: Context,
    synced: Instant,
}

impl TrajectoryWriter {
    /// Begins the trajectory of a run in the file `path`, which must not exist. The first record is a hash of the weights.
    ///
    /// # Errors
    /// If the file exists or cannot be written, or [the optimizer is not suitable](Header::new).
    pub fn create<M: Module, O: ZerothOrderOptimizer>(
        path: impl AsRef<Path>,
        optim: &O,
        held: &mut Perturbed<M>,
        run: Value,
    ) -> Result<Self, TrajectoryError> {
        let path = path.as_ref();
        let io = TrajectoryError::io(path);
        let header = Header::new(optim, held, run)?;
        let json = serde_json::to_vec(&header)
            .map_err(|error| TrajectoryError::Unsuitable(error.to_string()))?;
        let mut bytes = MAGIC.to_vec();
        bytes.extend((json.len() as u32).to_le_bytes());
        bytes.extend(json);
        let mut checksum = Hasher::new();
        checksum.update(&bytes);
        bytes.extend(checksum.clone().finalize().to_le_bytes());
        if path.exists() {
            return Err(io(std::io::ErrorKind::AlreadyExists.into()));
        }
        // With the hash of the base weights, so that a process that dies here leaves both or neither.
        let mut context = Context::new(checksum);
        let (at_rest, digest) = held.digest()?;
        bytes.extend(encode(&mut context, &Record::Digest { at_rest, digest })?);
        replace_bytes(path, &bytes).map_err(&io)?;
        Ok(Self {
            path: path.to_owned(),
            file: append(path).map_err(&io)?,
            context,
            synced: Instant::now(),
        })
    }

    /// [`create`](Self::create) for a session, before its first step.
    ///
    /// # Errors
    /// As [`create`](Self::create).
    pub fn of_session<M: Module, O: ZerothOrderOptimizer>(
        path: impl AsRef<Path>,
        session: &mut Session<M, O>,
        run: Value,
    ) -> Result<Self, TrajectoryError> {
        Self::create(path, &session.optimizer, &mut session.held, run)
    }

    /// Goes on with the trajectory in the file `path`, and reads it. An incomplete record at its end is cut off.
    ///
    /// # Errors
    /// As [`Trajectory::read`], and if the file cannot be written.
    pub fn resume(path: impl AsRef<Path>) -> Result<(Trajectory, Self), TrajectoryError> {
        let path = path.as_ref();
        let io = TrajectoryError::io(path);
        let bytes = std::fs::read(path).map_err(&io)?;
        let (trajectory, context) = parse(path, &bytes)?;
        let file = append(path).map_err(&io)?;
        if let Some(torn) = trajectory.torn() {
            file.set_len(torn.whole as u64).map_err(&io)?;
        }
        let writer = Self {
            path: path.to_owned(),
            file,
            context,
            synced: Instant::now(),
        };
        Ok((trajectory, writer))
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Adds a step.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn step(&mut self, lr: f64, report: &StepReport) -> Result<(), TrajectoryError> {
        self.write(&Record::Step(RecordedStep {
            lr,
            began_at_rest: report.began_at_rest,
            answers: report.answers.clone(),
        }))
    }

    /// Adds the result of an evaluation of the module at its weights, as [`Session::model`] and [`Perturbed::at_rest`] show it.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn evaluation(&mut self, score: f64, loss: f64) -> Result<(), TrajectoryError> {
        self.write(&Record::Evaluation { score, loss })
    }

    /// Adds a hash of the weights, where they stand. Reads them once.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn digest<M: Module>(&mut self, held: &mut Perturbed<M>) -> Result<(), TrajectoryError> {
        let (at_rest, digest) = held.digest()?;
        self.write(&Record::Digest { at_rest, digest })
    }

    /// Adds a hash of the weights of a session.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn digest_session<M: Module, O>(
        &mut self,
        session: &mut Session<M, O>,
    ) -> Result<(), TrajectoryError> {
        self.digest(&mut session.held)
    }

    /// Syncs the file to disk.
    ///
    /// # Errors
    /// If that fails.
    pub fn sync(&mut self) -> Result<(), TrajectoryError> {
        self.synced = Instant::now();
        self.file
            .sync_data()
            .map_err(TrajectoryError::io(&self.path))
    }

    fn write(&mut self, record: &Record) -> Result<(), TrajectoryError> {
        let io = TrajectoryError::io(&self.path);
        let bytes = encode(&mut self.context, record)?;
        self.file.write_all(&bytes).map_err(io)?;
        match self.synced.elapsed() > SYNC {
            true => self.sync(),
            false => Ok(()),
        }
    }
}

fn encode(context: &mut Context, record: &Record) -> Result<Vec<u8>, TrajectoryError> {
    context.encode(record).ok_or_else(|| {
        let reason = "a step has too many answers for a record (2 million): lower the number of queries, or leave the trajectory out";
        TrajectoryError::Unsuitable(reason.to_owned())
    })
}

fn append(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().append(true).open(path)
}

//! The folder of a run, which belongs to it alone.

use std::fs::{File, create_dir, create_dir_all, remove_dir, remove_dir_all, remove_file};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use thiserror::Error;

use crate::TRAJECTORY;

/// The file of a run's lines.
pub(super) const METRICS: &str = "metrics.jsonl";

/// What runs leave in their folders.
const RECORD: [&str; 12] = [
    METRICS,
    TRAJECTORY,
    "metrics.csv",
    "tensorboard",
    "run.toml",
    "report.json",
    "report.html",
    "predictions.json",
    "training.svg",
    "model",
    "adapter",
    "checkpoints",
];

/// Why a run cannot have a folder.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum FolderError {
    /// It cannot be made.
    #[error("{path}: {source}; choose another --out that can be written")]
    Io {
        /// The folder or file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// Another run's record is in it.
    #[error(
        "{path} holds `{file}` of another run, which would be lost: choose another --out, or continue it with --resume"
    )]
    Taken {
        /// The folder.
        path: PathBuf,
        /// What was found.
        file: &'static str,
    },
}

fn io(path: &Path) -> impl FnOnce(std::io::Error) -> FolderError {
    let path = path.to_owned();
    move |source| FolderError::Io { path, source }
}

/// A folder that no other run writes to.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    /// The folders that were made for it, the outermost first.
    made: Vec<PathBuf>,
    /// Its file of lines, if it was made for this run.
    metrics: Option<File>,
}

impl Folder {
    /// The folder `out` for a new run; without one, `runs/<seconds since 1970>`, or `-2`, `-3` and so on if that is taken. Nothing in
    /// it is touched.
    ///
    /// # Errors
    /// If another run left something there, or it cannot be written.
    pub fn claim(out: Option<&Path>) -> Result<Self, FolderError> {
        let (path, made) = match out {
            Some(out) => {
                Self::check(out)?;
                let made = missing(out);
                create_dir_all(out).map_err(io(out))?;
                (out.to_owned(), made)
            }
            None => {
                let mut made = missing(Path::new("runs"));
                let path = new_folder(None)?;
                made.push(path.clone());
                (path, made)
            }
        };
        let metrics = Some(new_metrics(&path)?);
        Ok(Self {
            path,
            made,
            metrics,
        })
    }

    /// Whether a new run may use the folder `out`. Nothing is made.
    ///
    /// # Errors
    /// If another run left something there.
    pub fn check(out: &Path) -> Result<(), FolderError> {
        let taken = RECORD.iter().find(|name| out.join(name).exists());
        let path = || out.to_owned();
        taken.map_or(Ok(()), |file| {
            Err(FolderError::Taken { path: path(), file })
        })
    }

    /// The folder `out` of a resumed run.
    pub fn of_resumed(out: &Path) -> Self {
        Self {
            path: out.to_owned(),
            made: Vec::new(),
            metrics: None,
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn take_metrics(&mut self) -> Option<File> {
        self.metrics.take()
    }

    /// The folder without the lines, the trajectory and the checkpoints of the run that has just ended there, for that run to begin again.
    pub(super) fn emptied(self) -> Result<Self, FolderError> {
        let gone = |path: PathBuf, removed: std::io::Result<()>| match removed {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(io(&path)(error)),
            _ => Ok(()),
        };
        let checkpoints = self.path.join("checkpoints");
        let removed = remove_dir_all(&checkpoints);
        gone(checkpoints, removed)?;
        for name in [METRICS, TRAJECTORY] {
            let file = self.path.join(name);
            let removed = remove_file(&file);
            gone(file, removed)?;
        }
        let metrics = Some(new_metrics(&self.path)?);
        Ok(Self { metrics, ..self })
    }

    /// Gives the folder back: a run that was refused leaves nothing that was not there before. Only what is empty is removed.
    pub(super) fn release(&self, made_metrics: bool) {
        if made_metrics {
            // Whatever cannot be removed does no harm.
            let _ = remove_file(self.path.join(METRICS));
        }
        let _ = remove_dir(self.path.join("checkpoints"));
        for dir in self.made.iter().rev() {
            let _ = remove_dir(dir);
        }
    }
}

/// Of two runs that begin at the same time only one can make its file of lines.
fn new_metrics(path: &Path) -> Result<File, FolderError> {
    let file = path.join(METRICS);
    File::create_new(&file).map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => FolderError::Taken {
            path: path.to_owned(),
            file: METRICS,
        },
        _ => io(&file)(error),
    })
}

/// The folder `out`, made if absent, or without one a folder of its own as [`Folder::claim`] makes it. What is in it may be replaced.
///
/// # Errors
/// If it cannot be made.
pub fn new_folder(out: Option<&Path>) -> Result<PathBuf, FolderError> {
    match out {
        Some(out) => create_dir_all(out)
            .map_err(io(out))
            .map(|()| out.to_owned()),
        None => {
            let runs = Path::new("runs");
            create_dir_all(runs).map_err(io(runs))?;
            own(runs)
        }
    }
}

/// The folders on the way to `path` that do not exist, the outermost first.
fn missing(path: &Path) -> Vec<PathBuf> {
    let ancestors = path.ancestors().filter(|dir| !dir.as_os_str().is_empty());
    let mut missing: Vec<_> = ancestors
        .take_while(|dir| !dir.exists())
        .map(Path::to_owned)
        .collect();
    missing.reverse();
    missing
}

/// A new folder in `runs`, named by the time.
fn own(runs: &Path) -> Result<PathBuf, FolderError> {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or(Duration::ZERO);
    let seconds = now.as_secs();
    let mut number = 1u64;
    loop {
        let name = match number {
            1 => seconds.to_string(),
            number => format!("{seconds}-{number}"),
        };
        let path = runs.join(name);
        match create_dir(&path) {
            Ok(()) => return Ok(path),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => number += 1,
            Err(source) => return Err(io(&path)(source)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_begun_in_the_same_second_differ() {
        let dir = std::env::temp_dir().join(format!("zo-folders-{}", std::process::id()));
        create_dir_all(&dir).unwrap();
        let mut names: Vec<_> = (0..4).map(|_| own(&dir).unwrap()).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), 4);
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_folder_in_use_is_refused_and_one_given_back_is_gone() {
        let dir = std::env::temp_dir().join(format!("zo-claims-{}", std::process::id()));
        let out = dir.join("a").join("b");
        let folder = Folder::claim(Some(&out)).unwrap();
        let again = Folder::claim(Some(&out)).unwrap_err().to_string();
        assert!(again.contains("`metrics.jsonl` of another run"), "{again}");
        folder.release(true);
        assert!(!dir.exists());
    }
}

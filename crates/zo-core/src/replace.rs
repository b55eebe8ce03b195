//! Files that are replaced whole or not at all.

use std::fs::File;
use std::io::{BufWriter, Error, Result, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

/// Replaces or creates the file `path` with what `fill` writes: first to a temporary file in the same folder, which is synced to disk
/// and then renamed. Whatever happens, `path` holds either all of the old bytes or all of the new ones, for other processes too. The
/// folder must exist.
///
/// # Errors
/// If a file cannot be written, or `fill` fails; `path` is then as it was, and the temporary file is removed.
pub fn replace(
    path: &Path,
    fill: impl FnOnce(&mut BufWriter<&mut File>) -> Result<()>,
) -> Result<()> {
    stage(path, |error| error, fill)?.place()
}

/// [`replace`] with these bytes.
///
/// # Errors
/// As for [`replace`].
pub fn replace_bytes(path: &Path, bytes: &[u8]) -> Result<()> {
    replace(path, |file| file.write_all(bytes))
}

/// Replaces several files with these bytes, none before all are on disk.
///
/// # Errors
/// The file that cannot be written, and why. If renaming fails, those before it may already have been replaced.
pub fn replace_all(files: &[(PathBuf, &[u8])]) -> std::result::Result<(), (PathBuf, Error)> {
    let staged = files.iter().map(|(path, bytes)| {
        let failed = |error| (path.clone(), error);
        stage(path, failed, |file| file.write_all(bytes).map_err(failed))
    });
    let staged: Vec<_> = staged.collect::<std::result::Result<_, _>>()?;
    for (file, (path, _)) in staged.into_iter().zip(files) {
        file.place().map_err(|error| (path.clone(), error))?;
    }
    Ok(())
}

/// New content of a file, on disk but not yet under its name. Dropping this removes it.
pub struct Staged {
    file: NamedTempFile,
    path: PathBuf,
}

/// Writes the new content of `path` beside it, so that several files can be prepared before the first is replaced. `failed` converts the
/// system's errors.
pub fn stage<E>(
    path: &Path,
    failed: impl Fn(Error) -> E,
    fill: impl FnOnce(&mut BufWriter<&mut File>) -> std::result::Result<(), E>,
) -> std::result::Result<Staged, E> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".").suffix(".tmp");
    #[cfg(unix)]
    let permissions = {
        use std::os::unix::fs::PermissionsExt;
        // Temporary files are private by default; this one should be readable like any other. The umask still applies.
        std::fs::Permissions::from_mode(0o666)
    };
    #[cfg(unix)]
    builder.permissions(permissions);
    let mut file = builder.tempfile_in(folder(path)).map_err(&failed)?;
    let mut writer = BufWriter::with_capacity(1 << 20, file.as_file_mut());
    fill(&mut writer)?;
    writer.flush().map_err(&failed)?;
    drop(writer);
    file.as_file().sync_all().map_err(&failed)?;
    Ok(Staged {
        file,
        path: path.to_owned(),
    })
}

impl Staged {
    /// Renames it into place.
    pub fn place(self) -> Result<()> {
        self.file.persist(&self.path).map_err(|error| error.error)?;
        // Sync the name, too, where the system allows opening a folder.
        if cfg!(unix) {
            File::open(folder(&self.path))?.sync_all()?;
        }
        Ok(())
    }
}

fn folder(path: &Path) -> &Path {
    let parent = path.parent().filter(|dir| !dir.as_os_str().is_empty());
    parent.unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_leaves_the_old_file_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("report.json");
        replace_bytes(&path, b"old").unwrap();
        let failed = replace(&path, |file| {
            file.write_all(b"half of")?;
            file.flush()?;
            Err(std::io::Error::other("disk full"))
        });
        assert_eq!(failed.unwrap_err().to_string(), "disk full");
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        replace_bytes(&path, b"new").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
        assert_eq!(dir.path().read_dir().unwrap().count(), 1);
        assert!(replace_bytes(&dir.path().join("none").join("x"), b"").is_err());
    }

    #[test]
    fn no_file_is_replaced_if_one_of_several_cannot_be_written() {
        let dir = tempfile::tempdir().unwrap();
        let [one, other] = ["one", "other"].map(|name| dir.path().join(name));
        replace_all(&[(one.clone(), b"old"), (other.clone(), b"old")]).unwrap();
        let lost = dir.path().join("none").join("x");
        let (path, _) = replace_all(&[(one.clone(), b"new"), (lost.clone(), b"")]).unwrap_err();
        assert_eq!(path, lost);
        // Nor does one that cannot be renamed leave anything behind.
        std::fs::create_dir(lost.parent().unwrap()).unwrap();
        assert!(replace_bytes(lost.parent().unwrap(), b"new").is_err());
        assert_eq!(std::fs::read(&one).unwrap(), b"old");
        assert_eq!(dir.path().read_dir().unwrap().count(), 3);
    }

    #[cfg(unix)]
    #[test]
    fn permissions_are_those_of_any_new_file() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let (one, other) = (dir.path().join("one"), dir.path().join("other"));
        replace_bytes(&one, b"").unwrap();
        std::fs::write(&other, b"").unwrap();
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode();
        assert_eq!(mode(&one), mode(&other));
    }
}

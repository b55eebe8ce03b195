//! Files that are replaced whole or not at all.

use std::fs::File;
use std::io::{BufWriter, Result, Write};
use std::path::Path;

/// Replaces the file `path`, or creates it, by what `fill` writes: first to a temporary file in the same folder, which is brought to the
/// disk and then renamed. Whatever happens, `path` holds all of the old bytes or all of the new ones, and other processes see nothing
/// else. The folder must exist.
///
/// # Errors
/// If a file cannot be written, or `fill` fails; `path` is then as it was, and the temporary file is removed.
pub fn replace(
    path: &Path,
    fill: impl FnOnce(&mut BufWriter<&mut File>) -> Result<()>,
) -> Result<()> {
    let parent = path.parent().filter(|dir| !dir.as_os_str().is_empty());
    let dir = parent.unwrap_or(Path::new("."));
    let mut builder = tempfile::Builder::new();
    builder.prefix(".").suffix(".tmp");
    #[cfg(unix)]
    let permissions = {
        use std::os::unix::fs::PermissionsExt;
        // Temporary files are for their owner alone; this one is to be read like any other. The umask takes away what it should.
        std::fs::Permissions::from_mode(0o666)
    };
    #[cfg(unix)]
    builder.permissions(permissions);
    let mut file = builder.tempfile_in(dir)?;
    let mut writer = BufWriter::with_capacity(1 << 20, file.as_file_mut());
    fill(&mut writer)?;
    writer.flush()?;
    drop(writer);
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    // The name, too, where a system lets a folder be opened.
    if cfg!(unix) {
        File::open(dir)?.sync_all()?;
    }
    Ok(())
}

/// [`replace`] by these bytes.
///
/// # Errors
/// As there.
pub fn replace_bytes(path: &Path, bytes: &[u8]) -> Result<()> {
    replace(path, |file| file.write_all(bytes))
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

    #[cfg(unix)]
    #[test]
    fn others_may_read_it_as_they_may_any_file() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let (one, other) = (dir.path().join("one"), dir.path().join("other"));
        replace_bytes(&one, b"").unwrap();
        std::fs::write(&other, b"").unwrap();
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode();
        assert_eq!(mode(&one), mode(&other));
    }
}

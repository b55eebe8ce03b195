//! Reading files that may be git-lfs pointers instead.

use std::io;
use std::path::Path;

/// The start of the file that git keeps in place of a large one until that is fetched.
const LFS: &[u8] = b"version https://git-lfs";

/// An error if `start`, the first bytes of a file, are those of a git-lfs pointer. `git lfs pull` fetches what it points to.
pub(crate) fn refuse_pointer(start: &[u8]) -> io::Result<()> {
    if start.starts_with(LFS) {
        let message =
            "this is a git-lfs pointer and not the file itself, run `git lfs pull` in its folder";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
    }
    Ok(())
}

/// The text of a file that is not a git-lfs pointer.
pub(crate) fn read_text(path: &Path) -> io::Result<String> {
    let text = std::fs::read_to_string(path)?;
    refuse_pointer(text.as_bytes())?;
    Ok(text)
}

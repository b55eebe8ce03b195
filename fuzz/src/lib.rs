//! What the targets share: golden folders of the tests, one file of which is replaced by the fuzzer's bytes.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// A copy of a golden folder.
pub struct Folder(TempDir);

impl Folder {
    /// Of `crates/zo-llm/tests/<source>`, without what lies deeper.
    ///
    /// # Panics
    /// If the folder cannot be copied: nothing could be fuzzed then.
    pub fn copy(source: &str) -> Self {
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/zo-llm/tests");
        let dir = TempDir::new().expect("a temporary folder");
        for entry in std::fs::read_dir(from.join(source)).expect("a golden folder") {
            let path = entry.expect("an entry").path();
            if let (true, Some(name)) = (path.is_file(), path.file_name()) {
                std::fs::copy(&path, dir.path().join(name)).expect("a copy");
            }
        }
        Self(dir)
    }

    /// Puts these bytes in place of the file `name`.
    ///
    /// # Panics
    /// If the file cannot be written.
    pub fn put(&self, name: &str, bytes: &[u8]) -> &Path {
        std::fs::write(self.path().join(name), bytes).expect("a file");
        self.path()
    }

    /// Removes the file `name`, if it is there.
    #[must_use]
    pub fn without(self, name: &str) -> Self {
        let _ = std::fs::remove_file(self.path().join(name));
        self
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.0.path()
    }
}

/// A file of a golden folder.
pub fn golden(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../crates/zo-llm/tests")
        .join(file)
}

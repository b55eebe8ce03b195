//! The parts of a data set.

/// A part of a data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Split {
    /// The rows to train on.
    Train,
    /// Held-out rows.
    Dev,
}

impl Split {
    /// The name of its file where this project writes it.
    pub fn file(self) -> &'static str {
        match self {
            Self::Train => "train.jsonl",
            Self::Dev => "dev.jsonl",
        }
    }
}

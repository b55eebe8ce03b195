//! How long a subspace is held.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Steps between refreshes. In configurations a number of steps, or `never`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interval {
    /// The subspace is drawn anew in each step whose number is a multiple of it.
    Steps(u64),
    /// The subspace of the first step is held.
    Never,
}

impl From<u64> for Interval {
    fn from(steps: u64) -> Self {
        Self::Steps(steps)
    }
}

impl Serialize for Interval {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Steps(steps) => steps.serialize(serializer),
            Self::Never => "never".serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Interval {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form {
            Steps(u64),
            Name(String),
        }
        let wrong = || serde::de::Error::custom("expected a number of steps, or `never`");
        match Form::deserialize(deserializer).map_err(|_: D::Error| wrong())? {
            Form::Steps(steps) => Ok(Self::Steps(steps)),
            Form::Name(name) if name == "never" => Ok(Self::Never),
            Form::Name(_) => Err(wrong()),
        }
    }
}

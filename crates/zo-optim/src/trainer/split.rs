//! How the losses of a step are divided among ranks.

use serde::{Deserialize, Serialize};
use zo_core::ConfigError;

/// How the losses of a step are divided among [ranks](crate::ranks), in three ways that combine.
///
/// Rows: a batch is divided into `shards`, and its loss is the sum of theirs, weighed by their rows and added in their order. The bits of a run
/// depend on the number of shards and not on that of ranks: one process with four shards evaluates them one after the other. The largest
/// number that divides both `shards` and the ranks is the number of ranks that share the rows.
///
/// The others share the displacements, if there are any: those of `queries` (both signs, and each direction), and those that samplers compare as
/// `candidates`. Rank k takes evaluation k, and every so-many-th from there. The bits are those of one process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Split {
    /// Shards of each batch. Default 1: every rank evaluates all rows.
    pub shards: usize,
    /// Whether ranks share the displacements of queries. Default no.
    pub queries: bool,
    /// Whether ranks share the candidates of samplers (GV, Greedy). Default no.
    pub candidates: bool,
    /// Steps between comparisons of the weights of all ranks, each of which reads them once; 0 for only the beginning and the end. Default
    /// 100.
    pub compare_every: usize,
}

impl Default for Split {
    fn default() -> Self {
        Self {
            shards: 1,
            queries: false,
            candidates: false,
            compare_every: 100,
        }
    }
}

impl Split {
    /// Ranks that share the rows, and parts of the displacements, if there are `size` ranks.
    ///
    /// # Errors
    /// If some ranks would evaluate what others evaluate.
    pub(super) fn of(&self, size: usize) -> Result<(usize, usize), ConfigError> {
        let shards = self.shards;
        ConfigError::check("shards", shards, shards > 0, "at least 1")?;
        let rows = greatest_common_divisor(shards, size);
        let parts = size / rows;
        let expected = format!(
            "a multiple of {size}, the number of ranks: {parts} of them would evaluate the same rows. Or let them share `queries` or `candidates`"
        );
        let shared = parts == 1 || self.queries || self.candidates;
        ConfigError::check("shards", shards, shared, &expected)?;
        Ok((rows, parts))
    }
}

fn greatest_common_divisor(a: usize, b: usize) -> usize {
    match b {
        0 => a,
        b => greatest_common_divisor(b, a % b),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_share_rows_first_and_displacements_with_what_is_left() {
        let of = |shards, queries, size| {
            let split = Split {
                shards,
                queries,
                ..Split::default()
            };
            split.of(size).map_err(|error| error.to_string())
        };
        assert_eq!(of(1, false, 1), Ok((1, 1)));
        assert_eq!(of(4, false, 1), Ok((1, 1)));
        assert_eq!(of(4, false, 4), Ok((4, 1)));
        assert_eq!(of(8, false, 4), Ok((4, 1)));
        assert_eq!(of(1, true, 4), Ok((1, 4)));
        assert_eq!(of(2, true, 4), Ok((2, 2)));
        assert_eq!(of(4, true, 6), Ok((2, 3)));
        let error = of(4, false, 6).unwrap_err();
        assert!(error.starts_with("shards is 4: it must be"), "{error}");
        assert!(of(1, false, 2).is_err());
        assert!(of(0, true, 2).is_err());
    }
}

//! Weights in one file, or in several with an index.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::write::{bytes, write_weights};
use super::{SaveError, write_failed};
use crate::files::dtype::Dtype;
use crate::files::folder::{WEIGHTS, index_of, weight_map};
use crate::files::replace::{Staged, replace_bytes, stage};
use crate::files::slots::{Slot, file_name};
use crate::model::CausalLm;

/// Files of weights that are on disk, but not yet under their names.
pub(super) struct StagedWeights {
    files: Vec<(String, Staged)>,
    /// The text of the index, if there is to be one.
    index: Option<String>,
}

/// Writes the weights beside the files that they are to replace.
pub(super) fn stage_weights(
    dir: &Path,
    slots: &[Slot],
    model: &CausalLm,
    dtype: Dtype,
    max_shard: u64,
) -> Result<StagedWeights, SaveError> {
    let sizes: Vec<u64> = slots.iter().map(|slot| bytes(slot, dtype) as u64).collect();
    let ranges = split(&sizes, max_shard);
    let count = ranges.len();
    let (mut files, mut places) = (Vec::new(), BTreeMap::new());
    for (number, range) in ranges.into_iter().enumerate() {
        let name = match count {
            1 => WEIGHTS[0].to_owned(),
            _ => format!("model-{:05}-of-{count:05}.safetensors", number + 1),
        };
        let path = dir.join(&name);
        let slots_here = slots[range.clone()].iter();
        places.extend(slots_here.map(|slot| (file_name(&slot.path), name.clone())));
        let failed = write_failed(&path);
        let staged = stage(&path, &failed, |file| {
            write_weights(file, slots, range, model, dtype, &failed)
        })?;
        files.push((name, staged));
    }
    let total: u64 = sizes.iter().sum();
    let index = json!({ "metadata": { "total_size": total }, "weight_map": places });
    Ok(StagedWeights {
        files,
        index: (count > 1).then(|| format!("{index:#}\n")),
    })
}

impl StagedWeights {
    /// Renames the files into place, and removes what was there in the other form: a reader would take it for the weights.
    pub(super) fn place(self, dir: &Path) -> Result<(), SaveError> {
        let index = dir.join(index_of(WEIGHTS[0]));
        let mut stale: Vec<PathBuf> = match weight_map(&index) {
            // A name with a folder in it did not come from here.
            Ok(places) => (places.values())
                .filter(|name| Path::new(name).file_name() == Some(name.as_ref()))
                .map(|name| dir.join(name))
                .collect(),
            Err(_) => Vec::new(),
        };
        stale.extend([index.clone(), dir.join(WEIGHTS[0])]);
        for (name, staged) in self.files {
            let path = dir.join(name);
            staged.place().map_err(write_failed(&path))?;
            stale.retain(|old| *old != path);
        }
        if let Some(text) = self.index {
            replace_bytes(&index, text.as_bytes()).map_err(write_failed(&index))?;
            stale.retain(|old| *old != index);
        }
        stale.sort();
        stale.dedup();
        for path in stale.iter().filter(|path| path.exists()) {
            std::fs::remove_file(path).map_err(write_failed(path))?;
        }
        Ok(())
    }
}

/// Neighbours that together have at most `limit` bytes; one that is larger stands alone.
fn split(sizes: &[u64], limit: u64) -> Vec<Range<usize>> {
    let (mut ranges, mut first, mut sum) = (Vec::new(), 0, 0);
    for (index, size) in sizes.iter().enumerate() {
        if index > first && sum + size > limit {
            ranges.push(first..index);
            (first, sum) = (index, 0);
        }
        sum += size;
    }
    ranges.push(first..sizes.len());
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_filled_up_to_the_limit() {
        let ends = |sizes: &[u64]| -> Vec<usize> {
            let ranges = split(sizes, 8);
            assert!(ranges.windows(2).all(|pair| pair[0].end == pair[1].start));
            ranges.iter().map(|range| range.end).collect()
        };
        assert_eq!(ends(&[3, 4, 5, 20, 1]), [2, 3, 4, 5]);
        assert_eq!(ends(&[3, 4, 1]), [3]);
        assert_eq!(ends(&[9]), [1]);
    }
}

//! The layers of a model, found in its module paths.

use burn::module::ParamGroup;
use serde::{Deserialize, Serialize};

use crate::tensors::TensorInfo;

/// Which tensors make up a layer.
///
/// Layers are found by the first number in a module path, which is where models keep their blocks in a `Vec`: all tensors of
/// `decoder.layers.3` are layer 3. Tensors without a number in their path (embeddings, the final normalization, the head) belong to no
/// layer.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Layers {
    /// The numbered blocks: `decoder.layers.3`.
    #[default]
    Blocks,
    /// The children of the numbered blocks, attention and MLP for example: `decoder.layers.3.self_attn`.
    Children,
    /// The modules in the numbered blocks that hold tensors, linear layers for example: `decoder.layers.3.self_attn.q_proj`.
    Modules,
    /// The tensors each group matches; the first match counts. Use groups by path: ids are new in every process, so that a record of a
    /// method with groups by id would not fit there.
    Groups(Vec<ParamGroup>),
}

impl Layers {
    /// The layer of each tensor, numbered from 0 in the order of traversal, and how many there are. Tensors that do not train belong to
    /// none.
    #[doc(hidden)]
    pub fn assign(&self, tensors: &[TensorInfo]) -> (Vec<Option<usize>>, usize) {
        let mut names: Vec<String> = Vec::new();
        let layers = tensors.iter().map(|tensor| {
            let name = self.name(tensor).filter(|_| tensor.trainable)?;
            Some(
                names
                    .iter()
                    .position(|known| *known == name)
                    .unwrap_or_else(|| {
                        names.push(name);
                        names.len() - 1
                    }),
            )
        });
        (layers.collect(), names.len())
    }

    fn name(&self, tensor: &TensorInfo) -> Option<String> {
        let parts: Vec<&str> = tensor.path.split('.').collect();
        let number = || {
            let numeric =
                |part: &&str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
            parts.iter().position(numeric)
        };
        let length = match self {
            Self::Blocks => number()? + 1,
            Self::Children => (number()? + 2).min(parts.len() - 1).max(number()? + 1),
            Self::Modules => (parts.len() - 1).max(number()? + 1),
            Self::Groups(groups) => {
                let matches = |group: &ParamGroup| group.matches(&tensor.id, Some(&tensor.path));
                return groups
                    .iter()
                    .position(matches)
                    .map(|group| group.to_string());
            }
        };
        Some(parts[..length].join("."))
    }
}

/// `floor(share * count)`, for shares as people write them: 0.29 of 100 is 29, though the product of the floats is a little less.
#[doc(hidden)]
pub fn share_of(share: f64, count: usize) -> usize {
    let exact = share * count as f64;
    let nearest = exact.round();
    let rounding = 4.0 * f64::EPSILON * nearest;
    if (exact - nearest).abs() <= rounding {
        nearest as usize
    } else {
        exact.floor() as usize
    }
}

#[cfg(test)]
mod tests {
    use burn::module::ParamId;
    use burn::tensor::{DType, Shape};

    use super::*;

    fn assign(layers: &Layers) -> (Vec<Option<usize>>, usize) {
        let paths = [
            "decoder.embed.weight",
            "decoder.layers.0.attn.q.weight",
            "decoder.layers.0.attn.k.weight",
            "decoder.layers.0.norm",
            "decoder.layers.1.attn.q.weight",
            "decoder.layers.10.attn.q.weight",
            "head",
        ];
        let tensor =
            |path: &str| TensorInfo::new(path, ParamId::new(), Shape::new([1]), DType::F32);
        layers.assign(&paths.map(tensor))
    }

    #[test]
    fn shares_are_those_of_the_decimal_number() {
        for count in 0..=200 {
            for percent in 0..=100 {
                let share = f64::from(percent) / 100.0;
                assert_eq!(share_of(share, count), percent as usize * count / 100);
            }
        }
    }

    #[test]
    fn layers_are_found_by_their_numbers() {
        let blocks = [None, Some(0), Some(0), Some(0), Some(1), Some(2), None];
        assert_eq!(assign(&Layers::Blocks), (blocks.to_vec(), 3));
        let children = [None, Some(0), Some(0), Some(1), Some(2), Some(3), None];
        assert_eq!(assign(&Layers::Children), (children.to_vec(), 4));
        let modules = [None, Some(0), Some(1), Some(2), Some(3), Some(4), None];
        assert_eq!(assign(&Layers::Modules), (modules.to_vec(), 5));
        let groups = Layers::Groups(vec![
            ParamGroup::from_predicate("norm"),
            ParamGroup::from_predicate("layers"),
        ]);
        let expected = [None, Some(0), Some(0), Some(1), Some(0), Some(0), None];
        assert_eq!(assign(&groups), (expected.to_vec(), 2));
    }
}

//! The bank: updates within an interval, added up as coordinates instead of being written.

use std::sync::Arc;

use crate::backend::Sweep;
use crate::backend::cpu::Factors;
use crate::direction::Direction;
use crate::masked::MaskedDirection;
use crate::noise::{Basis, Held};
use crate::selection::{Choice, Selection};
use crate::tensors::TensorInfo;

/// What updates in the bank add to one tensor: see [`Session::bank`](crate::Session::bank).
#[derive(Debug, Clone, PartialEq)]
pub struct Banked {
    /// The module path.
    pub path: String,
    /// The shape of the tensor.
    pub shape: Vec<usize>,
    /// The rank r.
    pub rank: usize,
    /// The thin factors, row by row, of the tensor as a matrix m x n: m x r, and r x n. `None` where noise is dense.
    pub factors: Option<[Vec<f32>; 2]>,
}

/// The bank by tensor.
pub(crate) fn contents(bank: &MaskedDirection, tensors: &[TensorInfo]) -> Vec<Banked> {
    let numbered = tensors.iter().enumerate();
    let moved = numbered.filter(|(number, _)| bank.covers(*number));
    let contents = moved.map(|(number, tensor)| {
        let zero = MaskedDirection::zero();
        let sweep = Sweep::between(number, tensor.key, &zero, bank);
        let factors = Factors::of(&sweep.shaped(&tensor.shape));
        Banked {
            path: tensor.path.clone(),
            shape: tensor.shape.to_vec(),
            rank: factors.as_ref().map_or(0, |factors| factors.rank),
            factors: factors.map(|factors| [factors.left, factors.right]),
        }
    });
    contents.collect()
}

/// `bank + update` as one direction with held coordinates, in f32: `m r` numbers a matrix with LOZO's noise, `r r` with SubZero's. `None` if
/// the sum does not lie in one basis.
pub(crate) fn add(
    bank: &MaskedDirection,
    update: &MaskedDirection,
    tensors: &[TensorInfo],
) -> Option<MaskedDirection> {
    let sum = bank.clone().plus(1.0, update);
    let mut basis: Option<Basis> = None;
    let (mut moves, mut held) = (vec![None; tensors.len()], Vec::new());
    for (number, tensor) in tensors.iter().enumerate() {
        if !(tensor.trainable && sum.covers(number)) {
            continue;
        }
        // Directions that have no coordinates are not for the bank.
        let Some((found, coordinates)) = sum.coordinates(number, tensor).ok()? else {
            continue;
        };
        if basis.get_or_insert_with(|| found.clone()) != &found {
            return None;
        }
        moves[number] = Some(Choice::WHOLE);
        held.push((tensor.key, coordinates));
    }
    let direction = Direction::held(&basis?, Held::new(held));
    Some(MaskedDirection::new(&Arc::new(Selection(moves)), direction))
}

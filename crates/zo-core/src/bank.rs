//! The bank: updates within an interval, added up as coordinates instead of being written.

use std::sync::Arc;

use crate::direction::Direction;
use crate::masked::MaskedDirection;
use crate::noise::{Basis, Held};
use crate::selection::{Choice, Selection};
use crate::tensors::TensorInfo;

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

//! Hashes of weights.

use std::fmt;

use burn::module::Module;
use rayon::prelude::*;
use sha2::{Digest as _, Sha256};

use super::error::TrajectoryError;
use crate::perturbed::Perturbed;
use crate::tensors::visit_values_of;

/// Bytes that are hashed at a time, so that all cores can take part.
const PIECE: usize = 1 << 18;

/// A SHA-256 of everything that trains.
///
/// It is taken of, for each parameter that trains, in the module's order: its path and its dtype (`F32`, `BF16`, ..), each followed by a zero
/// byte, and the SHA-256 of each 256 KiB of its values (little-endian, row-major). If the module does not stand at its weights, its
/// [`Position`](crate::Position) follows as JSON.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Digest([u8; 32]);

impl Digest {
    pub(super) fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<M: Module> Perturbed<M> {
    /// A hash of the weights as they are stored and of where they stand, which changes neither, and whether the module stands at its weights.
    ///
    /// # Errors
    /// If the position cannot be written as JSON.
    pub fn digest(&mut self) -> Result<(bool, Digest), TrajectoryError> {
        let tensors = self.tensors().clone();
        let (module, position) = self.stored();
        let (mut hash, mut last) = (Sha256::new(), None);
        let trains = |number: usize| tensors[number].trainable;
        visit_values_of(module, &trains, &mut |number, part| {
            if last.replace(number) != Some(number) {
                let tensor = &tensors[number];
                hash.update(format!("{}\0{:?}\0", tensor.path, tensor.dtype));
            }
            let pieces = part.as_bytes().par_chunks(PIECE);
            let pieces: Vec<_> = pieces.map(Sha256::digest).collect();
            pieces.iter().for_each(|piece| hash.update(piece));
        });
        let at_rest = position.is_at_rest();
        if !at_rest {
            let position = serde_json::to_vec(&position);
            hash.update(position.map_err(|error| TrajectoryError::Unsuitable(error.to_string()))?);
        }
        Ok((at_rest, Digest(hash.finalize().into())))
    }
}

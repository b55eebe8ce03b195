//! Scripted losses, for tests of samplers, masks and rules on their own.

use std::collections::VecDeque;

use burn::tensor::TensorData;

use crate::direction::Direction;
use crate::error::ZoError;
use crate::mask::{SelectContext, SparsityMask};
use crate::masked::MaskedDirection;
use crate::noise::Noise;
use crate::oracle::{Oracle, Weights};
use crate::sampler::{PerturbationSampler, SampleContext};
use crate::seeds::Seeds;
use crate::selection::Selection;
use crate::tensors::TensorInfo;

/// Losses in the order of the evaluations, and what they were asked for.
#[derive(Debug, Clone)]
pub struct Script {
    epsilon: f64,
    losses: VecDeque<f64>,
    /// The displacements evaluated.
    pub asked: Vec<Direction>,
}

impl Script {
    /// These losses, at this perturbation radius.
    pub fn new(epsilon: f64, losses: &[f64]) -> Self {
        Self {
            epsilon,
            losses: losses.iter().copied().collect(),
            asked: Vec::new(),
        }
    }

    /// What a sampler over Gaussian noise answers in step `step` of the run of seed 0.
    ///
    /// # Errors
    /// If the sampler fails.
    ///
    /// # Panics
    /// If it evaluates more losses than the script has.
    pub fn sample(
        &mut self,
        sampler: &mut dyn PerturbationSampler,
        step: u64,
    ) -> Result<Direction, ZoError> {
        let (mut seeds, mut noise) = (Seeds::new(0, step), Noise::Gaussian);
        sampler.sample(&mut SampleContext::new(&mut seeds, &mut noise, self))
    }

    fn next(&mut self, at: Direction) -> Result<f64, ZoError> {
        let displaced = !at.is_zero();
        self.asked.push(at);
        let value = self.losses.pop_front().expect("a loss for each evaluation");
        if value.is_finite() {
            return Ok(value);
        }
        Err(ZoError::NonFiniteLoss {
            step: 0,
            value,
            displaced,
        })
    }
}

/// What a mask that does not look at the weights chooses in step `step` of the run of seed 0.
///
/// # Errors
/// If the mask fails.
pub fn select(
    mask: &mut dyn SparsityMask,
    tensors: &[TensorInfo],
    step: u64,
) -> Result<Selection, ZoError> {
    let (mut seeds, mut nothing) = (Seeds::for_mask(0, step), Script::new(1e-3, &[]));
    mask.select(&mut SelectContext::new(tensors, &mut seeds, &mut nothing))
}

impl Oracle for Script {
    fn loss_at(&mut self, displacement: &Direction) -> Result<f64, ZoError> {
        self.next(displacement.clone())
    }

    fn loss_here(&mut self) -> Result<f64, ZoError> {
        self.next(Direction::zero())
    }

    fn loss_after(&mut self, _: &MaskedDirection) -> Result<f64, ZoError> {
        self.next(Direction::zero())
    }

    fn derivative_along(&mut self, direction: &Direction) -> Result<(f64, f64), ZoError> {
        Ok((self.next(direction.clone())?, 0.0))
    }

    fn epsilon(&self) -> f64 {
        self.epsilon
    }
}

impl Weights for Script {
    fn visit(&mut self, _: &mut dyn FnMut(usize, &TensorData)) {}
}

//! Where a pass meets a backend: one operation, "back to theta, on to the target".

#[cfg(any(feature = "flex", feature = "ndarray", feature = "cube", test))]
pub(crate) mod cpu;
#[cfg(feature = "cube")]
mod cube;
#[cfg(feature = "flex")]
mod flex;
#[cfg(feature = "ndarray")]
mod ndarray;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use burn::backend::{Backend, backend_extension, tensor::FloatTensor};
use burn::tensor::{DType, Tensor};

use crate::direction::Direction;
use crate::noise::{Distribution, TensorKey};

/// A noise vector in a pass: its coefficient in the displacement the weights come from, and in the one they go to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SweepTerm {
    /// The distribution of `z`.
    pub distribution: Distribution,
    /// The seed of `z`.
    pub seed: u64,
    /// Its coefficient in the displacement that is left.
    pub from: f64,
    /// Its coefficient in the displacement that is taken up.
    pub to: f64,
}

/// What a pass does to one tensor: back to the unperturbed weight, and on from there.
///
/// ```text
/// theta <- w - sum_k from_k z_k          rounded to the weights' dtype
/// w     <- decay theta + sum_k to_k z_k   rounded to the weights' dtype
/// ```
///
/// With one rounding of the difference, `w + sum_k (to_k - from_k) z_k`, the weights would drift: rounding errors of +eps, -2 eps,
/// +eps do not cancel. Those of +eps and -eps do: `theta` comes back bit for bit, unless it was moved across a power of two
/// or lay halfway between two floats.
#[derive(Debug, Clone)]
pub struct Sweep {
    /// The key of the tensor's noise.
    pub tensor: TensorKey,
    /// The factor on the old weight: 1 but for weight decay.
    pub decay: f64,
    /// The noise vectors, each once.
    pub terms: Arc<[SweepTerm]>,
    /// Counts the tensors that could not be written in place.
    copies: Arc<AtomicUsize>,
}

impl Sweep {
    /// The sweep of the tensor named by `tensor` from displacement `from` to displacement `to`.
    pub fn new(tensor: TensorKey, decay: f64, from: &Direction, to: &Direction) -> Self {
        let mut terms: Vec<SweepTerm> = Vec::new();
        let noise = from.terms().iter().map(|t| (t, t.coefficient, 0.0));
        for (term, from, to) in noise.chain(to.terms().iter().map(|t| (t, 0.0, t.coefficient))) {
            let same =
                |t: &&mut SweepTerm| t.seed == term.seed && t.distribution == term.distribution;
            match terms.iter_mut().find(same) {
                Some(known) => known.to += to,
                None => terms.push(SweepTerm {
                    distribution: term.distribution,
                    seed: term.seed,
                    from,
                    to,
                }),
            }
        }
        Self {
            tensor,
            decay,
            terms: terms.into(),
            copies: Arc::default(),
        }
    }

    /// Whether the weights stand at `theta` already.
    pub fn starts_unperturbed(&self) -> bool {
        self.terms.iter().all(|term| term.from == 0.0)
    }

    pub(crate) fn counting(self, copies: &Arc<AtomicUsize>) -> Self {
        Self {
            copies: Arc::clone(copies),
            ..self
        }
    }

    /// To be called by a backend that had to write its result elsewhere, because something else shares the tensor's memory.
    pub fn note_copy(&self) {
        self.copies.fetch_add(1, Ordering::Relaxed);
    }
}

/// A backend that can sweep over weights.
///
/// `sweep` computes in f32 or better whatever the dtype, rounds where [`Sweep`] says so and nowhere else, and writes in place whenever
/// nothing else holds the tensor's memory. Implemented for flex and ndarray by SIMD kernels.
#[backend_extension(
    Flex: cfg(feature = "flex"),
    NdArray: cfg(feature = "ndarray"),
    Cube: cfg(feature = "cube"),
    Fusion: cfg(feature = "cube")
)]
pub trait ZoBackend: Backend {
    /// Applies `sweep` to a tensor of any shape; dtype and shape are kept.
    #[fusion(dtype = tensor, shape = tensor)]
    fn sweep(tensor: FloatTensor<Self>, sweep: Sweep) -> FloatTensor<Self>;
}

/// Applies `sweep` to `tensor` on whatever backend it lives.
///
/// # Panics
/// If the tensor's backend was compiled into burn but not into this crate (switch on the feature of the same name here), or if its
/// dtype is none of [`is_supported`].
pub fn sweep<const D: usize>(tensor: Tensor<D>, sweep: Sweep) -> Tensor<D> {
    use burn::backend::Dispatch;
    Tensor::from_dispatch(<Dispatch as ZoBackend>::sweep(
        tensor.into_dispatch(),
        sweep,
    ))
}

/// Whether weights of this dtype can be swept: f32, f64, bf16, f16.
pub fn is_supported(dtype: DType) -> bool {
    matches!(
        dtype,
        DType::F32 | DType::F64 | DType::BF16 | DType::F16 | DType::Flex32
    )
}

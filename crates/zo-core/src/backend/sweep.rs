//! What a pass does to one tensor.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::change::Change;
use crate::direction::Direction;
use crate::masked::MaskedDirection;
use crate::noise::{Basis, Curvature, Held, Noise, TensorKey};
use crate::selection::{Elements, Selection};

/// A noise vector in a pass: its coefficient in the displacement the weights come from, and in the one they go to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SweepTerm {
    /// The distribution of `z`.
    pub noise: Noise,
    /// The seed of `z`.
    pub seed: u64,
    /// The elements it moves, if they are drawn at random.
    pub keep: Option<Keep>,
    /// Its coefficient in the displacement that is left.
    pub from: f64,
    /// Its coefficient in the displacement that is moved to.
    pub to: f64,
    /// Which of the estimates of an [adaptive target](Target::Adaptive) it belongs to; else 0.
    pub estimate: u32,
}

impl SweepTerm {
    /// The same with no coefficients.
    fn unweighted(&self) -> Self {
        Self {
            from: 0.0,
            to: 0.0,
            ..*self
        }
    }

    fn order(&self) -> (u32, u64, u8) {
        (self.estimate, self.seed, self.noise as u8)
    }
}

/// A noise vector of low rank in a pass.
#[derive(Debug, Clone, PartialEq)]
pub struct LowRankTerm {
    /// What it has coordinates in.
    pub basis: Basis,
    /// The coordinates, if they are not those of the seed.
    pub held: Option<Arc<Held>>,
    /// The rest; the distribution and the seed are those of the coordinates.
    pub term: SweepTerm,
}

/// A noise vector in a pass that a curvature scales.
#[derive(Debug, Clone, PartialEq)]
pub struct ScaledTerm {
    /// What it is scaled by.
    pub curvature: Curvature,
    /// The rest.
    pub term: SweepTerm,
}

/// Elements drawn at random: see [`crate::noise::keeps`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Keep {
    /// The seed of the choice.
    pub seed: u64,
    /// The probability that an element moves.
    pub probability: f64,
}

/// Elements chosen by the magnitude of the unperturbed weight.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Magnitudes {
    /// The bound on `|theta_i|`.
    pub threshold: f64,
    /// Whether the elements up to the bound move, or those beyond it.
    pub small: bool,
}

/// What is made of the noise on the way to the target: `to = sum_k to_k z_k` or a function of it.
#[derive(Debug, Clone, PartialEq)]
pub enum Target {
    /// `sum`.
    Sum,
    /// `rate sign(sum)`.
    Sign {
        /// The step of each element.
        rate: f64,
    },
    /// `rate m / (sqrt(v) + epsilon)`, `m = sum_e first_e d_e` and `v = sum_e second_e d_e^2` over the estimates d_e.
    Adaptive {
        /// The overall factor.
        rate: f64,
        /// Keeps the quotient finite.
        epsilon: f64,
        /// `[first_e, second_e]` of each estimate.
        moments: Arc<[[f64; 2]]>,
    },
}

/// What a pass does to one tensor: back to the unperturbed weight, and on from there.
///
/// ```text
/// theta <- w - m sum_k from_k z_k    rounded to the weights' dtype
/// w     <- decay theta + m to        rounded to the weights' dtype
/// ```
///
/// Both roundings are to nearest, unless the second has a [seed](Self::rounding).
///
/// With one rounding of the difference, `w + sum_k (to_k - from_k) z_k`, the weights would drift: rounding errors of +eps, -2 eps,
/// +eps do not cancel. Those of +eps and -eps do: `theta` comes back bit for bit, unless it was moved across a power of two
/// or lay halfway between two floats.
///
/// The mask `m` is 1 everywhere unless elements are chosen by magnitude. Then it has to be found again when the weights are displaced,
/// which their value alone cannot tell: near the threshold, a displaced weight can look like one that stayed. Where that is so, and only
/// there, the lowest bit of the displaced weight says which it is; see `cpu/magnitude.rs`.
#[derive(Debug, Clone)]
pub struct Sweep {
    /// The key of the tensor's noise.
    pub tensor: TensorKey,
    /// The factor on the old weight: 1 except for weight decay. Masks do not keep elements from decaying.
    pub decay: f64,
    /// The dense noise vectors, each once (in each estimate).
    pub terms: Arc<[SweepTerm]>,
    /// Those of low rank. A kernel is given them by [`shaped`](Self::shaped).
    pub low_rank: Arc<[LowRankTerm]>,
    /// Those that a curvature scales.
    pub scaled: Arc<[ScaledTerm]>,
    /// The shape of the tensor, for those of low rank.
    pub shape: Arc<[usize]>,
    /// What is made of them.
    pub target: Target,
    /// Elements chosen by magnitude.
    pub magnitudes: Option<Magnitudes>,
    /// Whether the target is a displacement that will be left again, so that magnitudes must be recognised in it.
    pub displaces: bool,
    /// The seed of the second rounding, if it is stochastic: by [`crate::noise::rounding_bits`]. None for displacements, and without effect
    /// on f32 and f64.
    pub rounding: Option<u64>,
    /// Counts the tensors that could not be written in place.
    copies: Arc<AtomicUsize>,
}

impl Sweep {
    /// The sweep of a whole tensor from displacement `from` to displacement `to`, its weights decaying by the factor `decay`.
    pub fn new(tensor: TensorKey, decay: f64, from: &Direction, to: &Direction) -> Self {
        let whole = Arc::new(Selection::all(1));
        let [from, to] = [from, to].map(|d| MaskedDirection::new(&whole, d.clone()));
        Self::between(0, tensor, &from, &to).decaying(decay)
    }

    /// The sweep of tensor number `number` from displacement `from` to displacement `to`.
    pub fn between(
        number: usize,
        key: TensorKey,
        from: &MaskedDirection,
        to: &MaskedDirection,
    ) -> Self {
        let mut sweep = Self::empty(key);
        sweep.displaces = true;
        sweep.add(number, from, 0, |term, c| term.from += c);
        sweep.add(number, to, 0, |term, c| term.to += c);
        sweep.sorted()
    }

    /// The sweep of tensor number `number` from displacement `from` to new weights, `change(theta)`. A custom change restores only.
    pub(crate) fn changing(
        number: usize,
        key: TensorKey,
        from: &MaskedDirection,
        change: &Change<'_>,
    ) -> Self {
        let mut sweep = Self::empty(key);
        sweep.add(number, from, 0, |term, c| term.from += c);
        match change {
            Change::Linear(direction) => sweep.add(number, direction, 0, |term, c| term.to += c),
            Change::Sign { rate, of } => {
                sweep.add(number, of, 0, |term, c| term.to += c);
                sweep.target = Target::Sign { rate: *rate };
            }
            Change::Adaptive {
                rate,
                epsilon,
                moments,
            } => {
                for (estimate, (gradient, _)) in (0..).zip(moments) {
                    sweep.add(number, gradient, estimate, |term, c| term.to += c);
                }
                sweep.target = Target::Adaptive {
                    rate: *rate,
                    epsilon: *epsilon,
                    moments: moments.iter().map(|(_, weights)| *weights).collect(),
                };
            }
            Change::Custom { .. } => {}
        }
        sweep.sorted()
    }

    /// Whether it moves nothing.
    pub(crate) fn is_still(&self) -> bool {
        self.terms.is_empty() && self.low_rank.is_empty()
    }

    /// The sweep that adds these noise vectors.
    pub(crate) fn adding(tensor: TensorKey, terms: Vec<SweepTerm>) -> Self {
        Self {
            terms: terms.into(),
            ..Self::empty(tensor)
        }
    }

    fn empty(tensor: TensorKey) -> Self {
        Self {
            tensor,
            decay: 1.0,
            terms: Arc::default(),
            low_rank: Arc::default(),
            scaled: Arc::default(),
            shape: Arc::default(),
            target: Target::Sum,
            magnitudes: None,
            displaces: false,
            rounding: None,
            copies: Arc::default(),
        }
    }

    fn add(
        &mut self,
        number: usize,
        direction: &MaskedDirection,
        estimate: u32,
        add: impl Fn(&mut SweepTerm, f64),
    ) {
        let (mut terms, mut low_rank) = (self.terms.to_vec(), self.low_rank.to_vec());
        let mut scaled = self.scaled.to_vec();
        for (term, elements) in direction.terms(number) {
            let mut keep = None;
            match elements {
                Elements::All => {}
                Elements::Random { seed, keep: p } => {
                    let probability = p;
                    keep = Some(Keep { seed, probability });
                }
                Elements::Small { threshold } | Elements::Large { threshold } => {
                    let small = matches!(elements, Elements::Small { .. });
                    let magnitudes = Some(Magnitudes { threshold, small });
                    debug_assert!(
                        self.magnitudes.is_none() || self.magnitudes == magnitudes,
                        "a tensor has one threshold within a step"
                    );
                    self.magnitudes = magnitudes;
                }
            }
            let new = SweepTerm {
                noise: term.noise,
                seed: term.seed,
                keep,
                from: 0.0,
                to: 0.0,
                estimate,
            };
            let same = |known: &SweepTerm| known.unweighted() == new;
            let known = match (&term.basis, &term.curvature) {
                (_, Some(curvature)) => {
                    let same =
                        |known: &ScaledTerm| same(&known.term) && known.curvature == *curvature;
                    let at = scaled.iter().position(same).unwrap_or(scaled.len());
                    if at == scaled.len() {
                        let curvature = curvature.clone();
                        scaled.push(ScaledTerm {
                            curvature,
                            term: new,
                        });
                    }
                    &mut scaled[at].term
                }
                (None, None) => {
                    let at = terms.iter().position(same).unwrap_or(terms.len());
                    if at == terms.len() {
                        terms.push(new);
                    }
                    &mut terms[at]
                }
                (Some(basis), None) => {
                    let same = |known: &LowRankTerm| {
                        same(&known.term) && known.basis == *basis && known.held == term.held
                    };
                    let at = low_rank.iter().position(same).unwrap_or(low_rank.len());
                    if at == low_rank.len() {
                        low_rank.push(LowRankTerm {
                            basis: basis.clone(),
                            held: term.held.clone(),
                            term: new,
                        });
                    }
                    &mut low_rank[at].term
                }
            };
            add(known, term.coefficient);
        }
        (self.terms, self.low_rank) = (terms.into(), low_rank.into());
        self.scaled = scaled.into();
    }

    /// Sums must not depend on where a pass comes from: a displacement is undone with exactly the numbers it was made with.
    fn sorted(mut self) -> Self {
        let mut terms = self.terms.to_vec();
        terms.sort_by_key(SweepTerm::order);
        self.terms = terms.into();
        let mut low_rank = self.low_rank.to_vec();
        low_rank.sort_by_key(|low| {
            let keep = low.term.keep.map(|keep| keep.seed);
            (low.term.estimate, low.basis.order(), keep, low.term.order())
        });
        self.low_rank = low_rank.into();
        let mut scaled = self.scaled.to_vec();
        scaled.sort_by_key(|scaled| (scaled.term.order(), scaled.curvature.id()));
        self.scaled = scaled.into();
        self
    }

    /// The same for a tensor of this shape, which decides where noise of low rank is dense after all.
    pub fn shaped(mut self, shape: &[usize]) -> Self {
        if self.low_rank.is_empty() {
            return self;
        }
        let dense = |low: &LowRankTerm| low.held.is_none() && low.basis.matrix(shape).is_none();
        let (now_dense, low_rank): (Vec<_>, Vec<_>) =
            self.low_rank.iter().cloned().partition(dense);
        let terms = self.terms.iter().copied();
        self.terms = terms.chain(now_dense.iter().map(|low| low.term)).collect();
        self.low_rank = low_rank.into();
        self.shape = shape.into();
        self.sorted()
    }

    /// The same, with `direction` added to the unperturbed weights on the way.
    pub(crate) fn updating(mut self, number: usize, direction: &MaskedDirection) -> Self {
        self.add(number, direction, 0, |term, c| term.to += c);
        self.sorted()
    }

    pub(crate) fn decaying(self, decay: f64) -> Self {
        Self { decay, ..self }
    }

    /// With this seed for the second rounding, if there is one.
    pub(crate) fn rounded(self, rounding: Option<u64>) -> Self {
        Self { rounding, ..self }
    }

    /// Without marks for magnitudes: the result is not a displaced weight.
    pub(crate) fn unmarked(self) -> Self {
        Self {
            displaces: false,
            ..self
        }
    }

    /// Whether the weights stand at `theta` already.
    pub fn starts_unperturbed(&self) -> bool {
        let low_rank = self.low_rank.iter().map(|low| &low.term);
        let scaled = self.scaled.iter().map(|scaled| &scaled.term);
        self.terms
            .iter()
            .chain(low_rank)
            .chain(scaled)
            .all(|term| term.from == 0.0)
    }

    pub(crate) fn counting(self, copies: &Arc<AtomicUsize>) -> Self {
        Self {
            copies: Arc::clone(copies),
            ..self
        }
    }

    /// Whether some of its noise is made by the CPU kernel alone.
    pub(crate) fn needs_host(&self) -> bool {
        !(self.low_rank.is_empty() && self.scaled.is_empty())
    }

    /// Called by a backend that had to write its result elsewhere because something else shares the tensor's memory.
    pub fn note_copy(&self) {
        self.copies.fetch_add(1, Ordering::Relaxed);
    }
}

//! The noises: directions in a subspace that is held for an interval of steps.

use derive_setters::Setters;
use serde::{Deserialize, Serialize};
use zo_core::{
    Basis, BasisKind, ConfigError, Direction, Noise, PerturbationSampler, SampleContext, ZoError,
};

use crate::interval::Interval;

/// LOZO's noise: `z = L R / sqrt(r)`, L drawn for each query and R for each interval, both standard normal.
///
/// On vectors, and on matrices whose smaller side is at most the rank, it is Gaussian.
#[derive(Debug, Clone, Setters, Serialize, Deserialize)]
#[setters(prefix = "with_")]
pub struct Lozo {
    /// The rank r, at least 1. Default 2 (the paper: 1, 2 or 4).
    pub rank: usize,
    /// Steps for which R is held. Default 50 (the paper: 50 or 100).
    #[setters(into)]
    pub interval: Interval,
    #[serde(skip)]
    #[setters(skip)]
    held: Option<Basis>,
}

/// SubZero's noise: `z = sqrt(m n) / r U C V^T`, C (r x r, standard normal) drawn for each query, U and V with orthonormal columns for each
/// interval.
///
/// On vectors, and on matrices whose smaller side is at most the rank, it is Gaussian.
#[derive(Debug, Clone, Setters, Serialize, Deserialize)]
#[setters(prefix = "with_")]
pub struct Subzero {
    /// The rank r, at least 1. Default 16 (the paper: 16 for OPT-1.3B, 32 to 128 for OPT-13B).
    pub rank: usize,
    /// Steps for which U and V are held. Default 1000 (the paper: 500, 1000 or 2000; SubZero+ 50 or 100).
    #[setters(into)]
    pub interval: Interval,
    #[serde(skip)]
    #[setters(skip)]
    held: Option<Basis>,
}

impl Default for Lozo {
    fn default() -> Self {
        Self {
            rank: 2,
            interval: Interval::Steps(50),
            held: None,
        }
    }
}

impl Default for Subzero {
    fn default() -> Self {
        Self {
            rank: 16,
            interval: Interval::Steps(1000),
            held: None,
        }
    }
}

/// A direction in the basis of this step. `held` keeps what was computed for the basis of earlier steps, which it decides nothing about.
fn draw(
    (kind, rank, interval): (BasisKind, usize, Interval),
    held: &mut Option<Basis>,
    query: &mut SampleContext<'_>,
) -> Direction {
    let seed = query.held_seed(match interval {
        Interval::Steps(steps) => steps,
        Interval::Never => 0,
    });
    let wanted = Basis::new(kind, rank, seed);
    let basis = held.take().filter(|held| *held == wanted);
    let basis = held.insert(basis.unwrap_or(wanted));
    Direction::low_rank(basis, Noise::Gaussian, query.seed())
}

fn check(rank: usize, interval: Interval) -> Result<(), ConfigError> {
    let expected = "at least 1 (LOZO takes 2, SubZero 16 to 128)";
    ConfigError::check("rank", rank, rank > 0, expected)?;
    let expected = "at least 1 step, or `never`";
    ConfigError::check("interval", 0, interval != Interval::Steps(0), expected)
}

macro_rules! noise {
    ($noise:ident, $kind:expr) => {
        impl $noise {
            /// The paper's.
            pub fn new() -> Self {
                Self::default()
            }
        }

        impl PerturbationSampler for $noise {
            fn sample(&mut self, query: &mut SampleContext<'_>) -> Result<Direction, ZoError> {
                let basis = ($kind, self.rank, self.interval);
                Ok(draw(basis, &mut self.held, query))
            }

            fn holds_basis(&self) -> bool {
                true
            }

            fn holds_one_basis(&self) -> bool {
                self.interval == Interval::Never
            }

            fn validate(&self) -> Result<(), ConfigError> {
                check(self.rank, self.interval)
            }
        }
    };
}

noise!(Lozo, BasisKind::Lozo);
noise!(Subzero, BasisKind::Subzero);

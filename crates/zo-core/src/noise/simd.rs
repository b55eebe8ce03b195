//! Run-time choice of the instruction set.
//!
//! The kernels are plain loops over arrays, written once. Here each is compiled several times, for wider and wider vectors; since
//! every operation is defined to the bit, the copies differ only in speed.

/// An instruction set the CPU kernels are compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum SimdLevel {
    /// What the compiler may assume of every processor of this architecture (x86-64: SSE2; aarch64: NEON).
    Baseline,
    /// AVX2 and FMA.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// AVX-512 F, BW, DQ and VL.
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl SimdLevel {
    /// The levels this machine can run, slowest first.
    pub fn available() -> Vec<Self> {
        #[allow(unused_mut, reason = "only the baseline exists on other architectures")]
        let mut levels = vec![Self::Baseline];
        #[cfg(target_arch = "x86_64")]
        {
            if std::is_x86_feature_detected!("avx2") && std::is_x86_feature_detected!("fma") {
                levels.push(Self::Avx2);
                if std::is_x86_feature_detected!("avx512f")
                    && std::is_x86_feature_detected!("avx512bw")
                    && std::is_x86_feature_detected!("avx512dq")
                    && std::is_x86_feature_detected!("avx512vl")
                {
                    levels.push(Self::Avx512);
                }
            }
        }
        levels
    }

    /// The fastest level this machine can run.
    pub fn best() -> Self {
        static BEST: std::sync::OnceLock<SimdLevel> = std::sync::OnceLock::new();
        *BEST.get_or_init(|| Self::available().last().copied().unwrap_or(Self::Baseline))
    }

    /// Runs `kernel`, inlined into a function compiled for this level, and that into nothing: kernels may run others.
    ///
    /// # Panics
    /// If the machine cannot run this level.
    #[inline]
    #[allow(unsafe_code, reason = "features that only a check at run time finds")]
    pub(crate) fn run(self, kernel: impl Kernel) {
        assert!(self <= Self::best(), "this machine has no {self:?}");
        match self {
            Self::Baseline => run_baseline(kernel),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `best` has found the features on this machine.
            Self::Avx2 => unsafe { run_avx2(kernel) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Self::Avx512 => unsafe { run_avx512(kernel) },
        }
    }
}

/// Work that is compiled once for each level. `run` must be `#[inline(always)]`, and so must all it calls but other kernels.
pub(crate) trait Kernel {
    fn run(self);
}

#[inline(never)]
fn run_baseline(kernel: impl Kernel) {
    kernel.run();
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
#[inline(never)]
fn run_avx2(kernel: impl Kernel) {
    kernel.run();
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")]
#[inline(never)]
fn run_avx512(kernel: impl Kernel) {
    kernel.run();
}

//! The table of methods.

/// A method's name, what it is, and the flags it has besides the shared ones.
#[derive(Debug)]
pub struct Method {
    /// The name for `--method`.
    pub name: &'static str,
    /// One line.
    pub about: &'static str,
    /// Its own flags, without the dashes.
    pub flags: &'static [&'static str],
    /// Its learning rate for the bundled model. For other models it is taken in the same proportion to MeZO's.
    pub bundled_lr: f64,
    /// Evaluations of the objective in a step of q queries and M candidates: (each query, each candidate of a query, each step).
    pub(super) forwards: [usize; 3],
}

/// The learning rate of MeZO for the bundled model.
pub const BUNDLED_LR: f64 = 1e-4;

const fn method(
    name: &'static str,
    about: &'static str,
    flags: &'static [&'static str],
    bundled_lr: f64,
    forwards: [usize; 3],
) -> Method {
    Method {
        name,
        about,
        flags,
        bundled_lr,
        forwards,
    }
}

const FINITE: &str = "difference";
const LAYERS: &[&str] = &[FINITE, "drop", "layers"];

/// Every method.
pub const METHODS: &[Method] = &[
    method(
        "mezo",
        "ZO-SGD along fresh noise",
        &[FINITE],
        BUNDLED_LR,
        [2, 0, 0],
    ),
    method(
        "gv",
        "guiding vector: better candidates minus worse ones",
        &[FINITE, "candidates", "alpha", "normalize", "history"],
        BUNDLED_LR,
        [2, 1, 0],
    ),
    method(
        "greedy",
        "the best of M candidates",
        &[FINITE, "candidates"],
        3e-4,
        [2, 1, 0],
    ),
    method(
        "lezo",
        "a random subset of the layers in each step",
        LAYERS,
        3e-4,
        [2, 0, 0],
    ),
    method(
        "adalezo",
        "layers drawn by how much they moved the loss",
        &[
            FINITE,
            "share",
            "exploration",
            "temperature",
            "clip",
            "layers",
        ],
        BUNDLED_LR,
        [2, 0, 0],
    ),
    method(
        "curvzo",
        "tensors sampled by their curvature",
        &[FINITE, "budget", "adapt-every", "rate", "clip"],
        2e-4,
        [2, 0, 0],
    ),
    method(
        "momentum",
        "momentum in a buffer",
        &[FINITE, "beta", "dampening"],
        1e-5,
        [2, 0, 0],
    ),
    method(
        "momentum-window",
        "momentum from the seeds of the last steps",
        &[FINITE, "beta", "dampening", "window"],
        1e-5,
        [2, 0, 0],
    ),
    method(
        "adam",
        "Adam with its moments in buffers",
        &[FINITE, "beta-1", "beta-2", "adam-epsilon"],
        5e-4,
        [2, 0, 0],
    ),
    method(
        "adam-window",
        "Adam from the seeds of the last steps",
        &[FINITE, "beta-1", "beta-2", "adam-epsilon", "window"],
        5e-4,
        [2, 0, 0],
    ),
    method(
        "sign",
        "the sign of the projected gradient",
        &[FINITE],
        1e-3,
        [2, 0, 0],
    ),
    method(
        "sign-elementwise",
        "the sign of each element",
        &[FINITE],
        1e-3,
        [2, 0, 0],
    ),
    method(
        "conservative",
        "the best of staying, stepping back and stepping ahead",
        &[FINITE],
        3e-4,
        [2, 0, 3],
    ),
    method(
        "block-wise",
        "one block of weights at a time",
        &[FINITE, "block-order", "layers"],
        1e-3,
        [2, 0, 0],
    ),
    method(
        "sparse-random",
        "a random share of the elements",
        &[FINITE, "sparsity"],
        1e-3,
        [2, 0, 0],
    ),
    method(
        "sparse-magnitude",
        "the largest elements of each tensor, or of all",
        &[FINITE, "sparsity", "global", "refresh"],
        3e-3,
        [2, 0, 0],
    ),
    method(
        "sparse-mezo",
        "the smallest elements of each tensor",
        &[FINITE, "sparsity", "refresh"],
        1e-3,
        [2, 0, 0],
    ),
    method(
        "forward-gradient",
        "exact directional derivatives (needs the feature autodiff)",
        &[],
        BUNDLED_LR,
        [1, 0, 0],
    ),
    method(
        "hybrid",
        "MeZO below, burn's Adam on top (needs the feature autodiff)",
        &[FINITE, "top", "top-rate"],
        BUNDLED_LR,
        [2, 0, 1],
    ),
    method(
        "first-order-adam",
        "backpropagation with burn's Adam, to compare with (needs the feature autodiff)",
        &[],
        BUNDLED_LR,
        [0, 0, 1],
    ),
    method(
        "zero-shot",
        "no training: the model as it is",
        &[],
        BUNDLED_LR,
        [0, 0, 0],
    ),
    method(
        "icl",
        "no training: solved examples before each prompt",
        &["demonstrations"],
        BUNDLED_LR,
        [0, 0, 0],
    ),
];

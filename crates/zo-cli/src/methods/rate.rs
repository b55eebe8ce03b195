//! Default learning rates.

use zo_llm::Tuning;

use super::Choice;

/// The learning rate of MeZO for the bundled model.
pub const BUNDLED_LR: f64 = 1e-4;

/// Methods that take the rates of LoRA with both factors for B alone, too, measured on the bundled task (docs/src/measurements.md): their steps do not grow
/// with the gradient, or their masks go by the size of weights, which of B is 0 at first.
pub(super) const AS_WITH_BOTH: [&str; 9] = [
    "adam",
    "adam-window",
    "first-order-adam",
    "sign",
    "sign-elementwise",
    "sparse-magnitude",
    "sparse-mezo",
    "spsa-1.5",
    "subzero-plus",
];

/// The default learning rate, measured for the bundled model and for models up to half a billion parameters: see
/// docs/src/hyper-parameters.md. Beyond, it is the middle of MeZO's grids. A method's own is a multiple of MeZO's.
///
/// Where the rate is the length of a step, [`Built::scale_free`](super::Built::scale_free) being the directions that share it, it is as far as MeZO moves each weight
/// in a step: its learning rate times the root mean square of its projected gradients.
pub fn learning_rate(
    choice: &Choice,
    tuning: &Tuning,
    parameters: usize,
    bundled: bool,
    scale_free: Option<usize>,
) -> f64 {
    let small = parameters < 500_000_000;
    // MeZO's rate, and how far it moves a weight.
    let (lr, length) = match tuning {
        Tuning::Full | Tuning::Head => match (bundled, small) {
            (true, _) => (BUNDLED_LR, 6.5e-4),
            (false, true) => (5e-5, 1.4e-3),
            (false, false) => (1e-6, 2e-5),
        },
        Tuning::Lora(config) if config.train_a || AS_WITH_BOTH.contains(&choice.name) => {
            match (bundled, small) {
                (true, _) => (50.0 * BUNDLED_LR, 1e-3),
                (false, true) => (1e-3, 1.4e-3),
                (false, false) => (1e-4, 1e-4),
            }
        }
        Tuning::Lora(_) => match (bundled, small) {
            (true, _) => (400.0 * BUNDLED_LR, 8e-3),
            (false, true) => (1.2e-2, 1.6e-2),
            (false, false) => (1e-3, 1e-3),
        },
        Tuning::Prefix { .. } | Tuning::Prompt { .. } => match (bundled, small) {
            (true, _) => (7000.0 * BUNDLED_LR, 2e-2),
            (false, true) => (2e-2, 2e-2),
            (false, false) => (1e-3, 1e-3),
        },
    };
    rounded(match scale_free {
        Some(queries) => length * (queries as f64).sqrt(),
        None => lr * choice.lr_factor,
    })
}

/// The number as a person would write it: 1e-4 where products of decimal fractions come to 0.00010000000000000002.
pub fn rounded(value: f64) -> f64 {
    format!("{value:.9e}").parse().unwrap_or(value)
}

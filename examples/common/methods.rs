//! `--method` and its settings: every method of the library by its name on the command line.

mod build;
mod flags;
mod table;

use std::error::Error;

use burn::module::ParamGroup;
use burn::tensor::Device;
use clap::Args;
use zo_llm::Tuning;
use zo_optim::{Noise, Perturbation, Rounding};

pub use build::Built;
pub use flags::Flags;
pub use table::{BUNDLED_LR, METHODS, Method};

type Failure = Box<dyn Error>;

/// The settings every method shares.
#[derive(Debug, Clone)]
pub struct Shared {
    /// The perturbation radius.
    pub epsilon: f64,
    /// Random directions per step.
    pub queries: usize,
    /// The noise.
    pub noise: Noise,
    /// The seed of the run.
    pub seed: u64,
    /// How weights are displaced.
    pub perturbation: Perturbation,
    /// What trains.
    pub trainable: ParamGroup,
    /// How updated weights are rounded.
    pub rounding: Rounding,
}

/// The method of this name.
///
/// # Errors
/// If there is none; the error lists those there are.
pub fn find(name: &str) -> Result<&'static Method, Failure> {
    METHODS
        .iter()
        .find(|method| method.name == name)
        .ok_or_else(|| {
            let known: Vec<_> = METHODS.iter().map(|method| method.name).collect();
            format!("unknown method `{name}`: use one of {}", known.join(", ")).into()
        })
}

/// The learning rate unless told otherwise. For the bundled model it is the method's own. For others it is 5e-6 up to half a billion
/// parameters and 1e-6 beyond (MeZO's grid for full fine-tuning of OPT holds 1e-6 and 1e-7), times the method's proportion to MeZO's for
/// the bundled model. Virtual tokens multiply it by 1000 and LoRA by 100, as in MeZO's grids; smaller models have LoRA factors of their own.
pub fn learning_rate(method: &Method, tuning: &Tuning, parameters: usize, bundled: bool) -> f64 {
    let (full, lora) = match (bundled, parameters) {
        (true, _) => (BUNDLED_LR, 50.0),
        (_, ..500_000_000) => (5e-6, 200.0),
        _ => (1e-6, 100.0),
    };
    let factor = match tuning {
        Tuning::Full | Tuning::Head => 1.0,
        Tuning::Lora(_) => lora,
        Tuning::Prefix { .. } | Tuning::Prompt { .. } => 1000.0,
    };
    rounded(full * factor * method.bundled_lr / BUNDLED_LR)
}

/// The number that a person would write: 1e-4 where products of decimal fractions come to 0.00010000000000000002.
pub fn rounded(value: f64) -> f64 {
    format!("{value:.9e}").parse().unwrap_or(value)
}

/// Every method with its flags, for `--method-help`.
pub fn help() -> String {
    let command = <Flags as Args>::augment_args(clap::Command::new("methods"));
    let mut text = String::from("Methods, each with its own flags:\n");
    for method in METHODS {
        let (name, about, lr) = (method.name, method.about, method.bundled_lr);
        text += &format!("\n  --method {name:18} {about} (--lr {lr:e} for the bundled model)\n");
        for flag in method.flags {
            let argument = command.get_arguments().find(|a| a.get_long() == Some(flag));
            let about = argument
                .and_then(clap::Arg::get_help)
                .map(ToString::to_string);
            text += &format!("      --{flag:18} {}\n", about.unwrap_or_default());
        }
    }
    text
}

/// The autodiff device of `device`, if this build can differentiate; else the device itself.
pub fn autodiff(device: &Device) -> Device {
    #[cfg(feature = "autodiff")]
    return device.clone().autodiff();
    #[cfg(not(feature = "autodiff"))]
    device.clone()
}

impl Method {
    /// Evaluations of the objective in a step with central differences (block-wise: for each block of a step).
    pub fn forwards_per_step(&self, queries: usize, flags: &Flags) -> usize {
        let [query, candidate, step] = self.forwards;
        queries * (query + candidate * flags.candidates.unwrap_or(2)) + step
    }

    /// Whether it needs an objective that can be differentiated.
    pub fn differentiates(&self) -> bool {
        matches!(
            self.name,
            "forward-gradient" | "hybrid" | "first-order-adam"
        )
    }

    /// Whether it changes the model at all.
    pub fn trains(&self) -> bool {
        !matches!(self.name, "zero-shot" | "icl")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn shared() -> Shared {
        Shared {
            epsilon: 1e-3,
            queries: 1,
            noise: Noise::Gaussian,
            seed: 0,
            perturbation: Perturbation::InPlace,
            trainable: ParamGroup::all(),
            rounding: Rounding::Nearest,
        }
    }

    #[test]
    fn every_method_builds_and_every_flag_is_some_methods() {
        for method in METHODS {
            let built = method.build(&shared(), &Flags::default());
            assert!(built.is_ok() || (method.differentiates() && cfg!(not(feature = "autodiff"))));
        }
        let command = <Flags as Args>::augment_args(clap::Command::new("methods"));
        let known = |flag: &str| METHODS.iter().any(|method| method.flags.contains(&flag));
        for argument in command.get_arguments() {
            assert!(
                argument.get_long().is_some_and(known),
                "{argument} belongs to no method"
            );
        }
    }

    #[test]
    fn settings_are_those_the_optimizer_was_built_from() {
        let flags = Flags {
            candidates: Some(5),
            ..Flags::default()
        };
        let built = find("gv").unwrap().build(&shared(), &flags).unwrap();
        let numbers = ["candidates", "alpha", "queries"].map(|name| &built.settings[name]);
        assert_eq!(numbers, [&json!(5), &json!(0.5), &json!(1)]);
        assert_eq!(built.settings["difference"], "central");
    }

    #[test]
    fn learning_rates_are_round_numbers() {
        for method in METHODS {
            for tuning in ["full", "lora", "prefix"] {
                let tuning = tuning.parse().unwrap();
                let lr = learning_rate(method, &tuning, 1_000_000, true);
                assert!(lr.to_string().len() < 9, "{} {lr}", method.name);
            }
        }
        assert_eq!(rounded(0.1 + 0.2), 0.3);
        assert!(rounded(f64::NAN).is_nan());
    }

    #[test]
    fn a_flag_of_another_method_is_refused() {
        let flags = Flags {
            drop: Some(0.5),
            ..Flags::default()
        };
        let message = |name| match find(name).and_then(|method| method.build(&shared(), &flags)) {
            Ok(_) => String::new(),
            Err(error) => error.to_string(),
        };
        assert!(message("gv").contains("--drop has no effect on --method gv"));
        assert_eq!(message("lezo"), "");
        assert!(message("mezzo").contains("use one of mezo, gv"));
        assert!(help().contains("--drop"));
    }
}

//! The values that flags can have: known to the parser, they are completed, listed, and suggested.

use std::error::Error;
use std::str::FromStr;

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use zo_optim::registry;

use crate::methods::choices;

/// One of these names, each of which can be parsed.
pub(crate) fn of<T>(names: &'static [&'static str]) -> impl TypedValueParser<Value = T>
where
    T: FromStr + Clone + Send + Sync + 'static,
    T::Err: Error + Send + Sync + 'static,
{
    PossibleValuesParser::new(names).try_map(|name| name.parse::<T>())
}

/// The names of the methods.
pub(crate) fn methods() -> PossibleValuesParser {
    let value = |name, about| PossibleValue::new(name).help(about);
    let values = choices()
        .into_iter()
        .map(|choice| value(choice.name, choice.about));
    PossibleValuesParser::new(values)
}

/// The names of parts of these kinds.
pub(crate) fn parts(kinds: &[&str], more: &[&'static str]) -> PossibleValuesParser {
    let registry = registry();
    let parts = registry.parts().filter(|part| kinds.contains(&part.kind));
    let values: Vec<PossibleValue> = parts
        .map(|part| PossibleValue::new(part.name.clone()).help(part.about))
        .chain(more.iter().map(PossibleValue::new))
        .collect();
    PossibleValuesParser::new(values)
}

/// The names of the tasks.
pub(crate) fn tasks() -> PossibleValuesParser {
    PossibleValuesParser::new(zo_llm::task::tasks().map(|task| task.name().to_owned()))
}

/// Names of devices: those of this build, and those of others.
pub(crate) const DEVICES: [&str; 7] =
    ["flex", "ndarray", "cuda", "wgpu", "vulkan", "metal", "rocm"];

/// Ways to tune.
pub(crate) const TUNINGS: [&str; 5] = ["full", "lora", "prefix", "prompt", "head"];

/// What a step can minimise.
pub(crate) const OBJECTIVES: [&str; 3] = ["loss", "accuracy", "f1"];

/// Types of weights.
pub(crate) const DTYPES: [&str; 3] = ["f32", "bf16", "f16"];

/// Schedules of the learning rate.
pub(crate) const SCHEDULES: [&str; 3] = ["constant", "linear", "cosine"];

/// Ways to round updated weights.
pub(crate) const ROUNDINGS: [&str; 2] = ["nearest", "stochastic"];

/// Ways to perturb weights.
pub(crate) const PERTURBATIONS: [&str; 2] = ["in-place", "on-the-fly"];

/// How losses become a derivative, where that can be chosen.
pub(crate) const DIFFERENCES: [&str; 3] = ["central", "one-sided", "exact"];

#[cfg(test)]
mod tests {
    use zo_llm::finetune::Schedule;
    use zo_llm::{Dtype, Tuning};
    use zo_optim::{Perturbation, Rounding};

    use super::*;

    #[test]
    fn every_value_can_be_parsed() {
        fn all<T: FromStr>(names: &[&str]) {
            for name in names {
                assert!(name.parse::<T>().is_ok(), "{name}");
            }
        }
        all::<Dtype>(&DTYPES);
        all::<Schedule>(&SCHEDULES);
        all::<Rounding>(&ROUNDINGS);
        all::<Perturbation>(&PERTURBATIONS);
        all::<Tuning>(&TUNINGS);
    }
}

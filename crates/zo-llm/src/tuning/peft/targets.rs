//! Which layers a PEFT adapter changes.

use fancy_regex::Regex;

use crate::files::slots::{file_name, slots};
use crate::model::CausalLm;
use crate::model::config::ConfigError;
use crate::tuning::factors::{Layers, LoraError, linear_layers, matches, unknown_target};

/// `target_modules` in its forms.
#[derive(Debug)]
pub(super) enum Targets {
    /// The last parts of names, possibly including those of other architectures.
    List(Vec<String>),
    /// A regular expression for the whole name.
    Pattern(Regex),
    /// All linear layers except the head.
    AllLinear,
}

/// The regular expression that a whole name must match, or what is wrong with it.
pub(super) fn pattern(text: &str) -> Result<Regex, String> {
    Regex::new(&format!(r"\A(?:{text})\z"))
        .map_err(|error| format!("a regular expression ({error})"))
}

impl Targets {
    /// The targets as a list in which each matches a layer of `model`. `place` names the file in errors.
    pub(super) fn resolve(self, model: &CausalLm, place: &str) -> Result<Vec<String>, LoraError> {
        let layers = linear_layers(model);
        if let Self::AllLinear = self {
            return Ok(listed(&layers, &layers));
        }
        // PEFT adapts these as well, or fails; neither is done here.
        let others = modules(model).into_iter();
        for module in others.filter(|name| !layers.contains_key(name)) {
            if self.takes(&module)? {
                let known = "the linear layers within the blocks, and projections beside them";
                let error = ConfigError::unsupported(place, "target_modules", &module, known);
                return Err(error.into());
            }
        }
        let mut taken = Layers::new();
        for (name, shape) in &layers {
            if self.takes(name)? {
                taken.insert(name.clone(), *shape);
            }
        }
        match self {
            Self::List(targets) if taken.is_empty() && !targets.is_empty() => {
                Err(unknown_target(&targets.join(", "), &layers))
            }
            Self::List(mut targets) => {
                targets.retain(|target| layers.keys().any(|layer| matches(target, layer)));
                Ok(targets)
            }
            Self::Pattern(pattern) if taken.is_empty() => {
                Err(unknown_target(pattern.as_str(), &layers))
            }
            Self::Pattern(_) | Self::AllLinear => Ok(listed(&taken, &layers)),
        }
    }

    /// Whether the module `name` is a target.
    fn takes(&self, name: &str) -> Result<bool, LoraError> {
        match self {
            Self::AllLinear => Ok(name != "lm_head"),
            Self::List(targets) => Ok(targets.iter().any(|target| matches(target, name))),
            Self::Pattern(pattern) => pattern.is_match(name).map_err(|error| LoraError::Pattern {
                pattern: pattern.as_str().to_owned(),
                name: name.to_owned(),
                message: error.to_string(),
            }),
        }
    }
}

/// The names of all modules with parameters, and of the head, which a tied model lacks.
fn modules(model: &CausalLm) -> Vec<String> {
    let slots = slots(model).into_iter();
    let names = slots.filter_map(|slot| Some(file_name(&slot.path).rsplit_once('.')?.0.to_owned()));
    let mut names: Vec<String> = names.chain(["lm_head".to_owned()]).collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// A list for the layers `taken`: the last parts of their names if no other layer ends the same, or else the whole names.
fn listed(taken: &Layers, all: &Layers) -> Vec<String> {
    let last = |name: &String| name.rsplit('.').next().unwrap_or(name).to_owned();
    let mut short: Vec<String> = taken.keys().map(last).collect();
    short.sort_unstable();
    short.dedup();
    let selected = |name: &&String| short.iter().any(|target| matches(target, name));
    if all.keys().filter(selected).eq(taken.keys()) {
        short
    } else {
        taken.keys().cloned().collect()
    }
}

//! `--method` and its settings: what the library's registry knows, and what else a run can do.

mod flags;
mod optimizer;
mod rate;

use std::error::Error;

use burn::module::ParamGroup;
use burn::tensor::Device;
use serde_json::{Value, json};
use zo_llm::Tuning;
use zo_optim::{Method, Noise, Perturbation, Registry, Rounding, registry};

use crate::exit::Usage;

pub(crate) use flags::TABLE;

pub use flags::Flags;
pub use optimizer::AnyOptimizer;
pub use rate::{BUNDLED_LR, learning_rate, rounded};

type Failure = Box<dyn Error>;

/// The settings that every method shares.
#[derive(Debug, Clone)]
pub struct Shared {
    /// The perturbation radius.
    pub epsilon: f64,
    /// Random directions per step, if they are not the method's own.
    pub queries: Option<usize>,
    /// The noise, if it is not the method's own.
    pub noise: Option<String>,
    /// The seed of the run.
    pub seed: u64,
    /// How weights are displaced.
    pub perturbation: Perturbation,
    /// What trains.
    pub trainable: ParamGroup,
    /// How updated weights are rounded.
    pub rounding: Rounding,
}

/// What `--method` can name.
#[derive(Debug, Clone)]
pub struct Choice {
    /// The name for `--method`.
    pub name: &'static str,
    /// One line.
    pub about: &'static str,
    /// A good learning rate, as a multiple of MeZO's.
    pub lr_factor: f64,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A method of the registry.
    Preset,
    /// A method of the registry below, burn's Adam on top.
    Hybrid,
    /// burn's Adam.
    FirstOrder,
    /// No training.
    Evaluation,
}

/// The runs that are more, or other, than a method of the registry.
const OTHERS: [Choice; 5] = [
    Choice {
        name: "hybrid",
        about: "MeZO below, burn's Adam on top (needs the feature autodiff)",
        lr_factor: 1.0,
        kind: Kind::Hybrid,
    },
    Choice {
        name: "first-order-adam",
        about: "backpropagation with burn's Adam, to compare with (needs the feature autodiff)",
        lr_factor: 1.0,
        kind: Kind::FirstOrder,
    },
    Choice {
        name: "zero-shot",
        about: "no training: the model as it is",
        lr_factor: 1.0,
        kind: Kind::Evaluation,
    },
    Choice {
        name: "icl",
        about: "no training: solved examples before each prompt",
        lr_factor: 1.0,
        kind: Kind::Evaluation,
    },
    Choice {
        name: PROBING,
        about: "no steps: the head's rows of the label words are fitted by logistic regression",
        lr_factor: 1.0,
        kind: Kind::Evaluation,
    },
];

/// The name of linear probing.
pub const PROBING: &str = "linear-probing";

/// Every choice.
pub fn choices() -> Vec<Choice> {
    let registry = registry();
    let presets = registry.presets().iter().map(|preset| Choice {
        name: preset.name,
        about: preset.about,
        lr_factor: preset.lr_factor,
        kind: Kind::Preset,
    });
    presets.chain(OTHERS).collect()
}

/// The choice of this name.
///
/// # Errors
/// If there is none; the error lists those that exist.
pub fn find(name: &str) -> Result<Choice, Failure> {
    let choices = choices();
    let known: Vec<_> = choices.iter().map(|choice| choice.name).collect();
    let known = known.join(", ");
    let found = choices.into_iter().find(|choice| choice.name == name);
    found.ok_or_else(|| Usage(format!("unknown method `{name}`: use one of {known}")).into())
}

/// A setting of one of a method's parts: the part's kind and name, the setting as a flag, its value.
struct Setting {
    kind: &'static str,
    part: String,
    flag: String,
    value: Value,
}

/// The settings of a method's parts.
fn settings(method: &Method) -> Vec<Setting> {
    let config = method.config();
    let mut all = Vec::new();
    for kind in ["noise", "sampler", "mask", "coefficients", "update"] {
        let Value::Object(part) = &config[kind] else {
            continue;
        };
        for (name, value) in part.iter().filter(|(name, _)| *name != "name") {
            all.push(Setting {
                kind,
                part: part["name"].as_str().unwrap_or_default().to_owned(),
                flag: name.replace('_', "-"),
                value: value.clone(),
            });
        }
    }
    all
}

/// Every method with its settings and every part, for `--method-help`.
pub fn help() -> String {
    let registry = registry();
    let mut text = String::from("Methods, each with its own flags and their defaults:\n");
    for choice in choices() {
        let (name, about) = (choice.name, choice.about);
        let built = choice.build(&Shared::default(), &Flags::default()).ok();
        let scale_free = built.and_then(|built| built.scale_free);
        let lr = learning_rate(&choice, &Tuning::Full, 0, true, scale_free);
        text += &format!("\n  --method {name:18} {about} (--lr {lr:e} for the bundled model)\n");
        let Ok(preset) = registry.preset(name) else {
            continue;
        };
        for setting in settings(&(preset.method)()) {
            let Setting {
                kind,
                part,
                flag,
                value,
            } = setting;
            text += &format!("      --{flag:18} {value} ({kind} {part})\n");
        }
    }
    text +=
        "\nThe five runs at the end have --top, --top-rate (hybrid) and --demonstrations (icl).\n";
    text += "\nParts, which combine with any method: --noise, --sampler, --mask, --coefficients, --update NAME, --difference central, one-sided or\none-point.\n";
    let mut kind = "";
    for part in registry.parts() {
        if part.kind != std::mem::replace(&mut kind, part.kind) {
            text.push('\n');
        }
        text += &format!("  --{:12} {:20} {}\n", part.kind, part.name, part.about);
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

/// An optimizer, and what it was built from.
pub struct Built {
    /// The optimizer.
    pub optimizer: AnyOptimizer,
    /// Its configuration as JSON, defaults included.
    pub settings: Value,
    /// The method as the registry reads it, without what all methods share; null if it is not one of the registry.
    pub table: Value,
    /// Evaluations of the objective in a step (block-wise: for each block of a step).
    pub forwards_per_step: usize,
    /// Whether it needs an objective that can be differentiated.
    pub differentiates: bool,
    /// Whether the learning rate is the length of a step, whatever the scale of the loss, and how many directions share it.
    pub scale_free: Option<usize>,
}

impl Choice {
    /// Whether it changes the model at all.
    pub fn trains(&self) -> bool {
        self.kind != Kind::Evaluation
    }

    /// By how much its own perturbation radius differs from MeZO's.
    pub fn epsilon_factor(&self) -> f64 {
        let radius = |method: &Method| method.config()["epsilon"].as_f64();
        let own = registry()
            .preset(self.name)
            .ok()
            .map(|preset| (preset.method)());
        match (own.as_ref().and_then(radius), radius(&Method::new())) {
            (Some(own), Some(usual)) => own / usual,
            _ => 1.0,
        }
    }

    /// Whether it is a method of the registry.
    pub fn is_preset(&self) -> bool {
        self.kind == Kind::Preset
    }

    /// Whether burn's optimizer trains a part of the model.
    pub fn has_top(&self) -> bool {
        self.kind == Kind::Hybrid
    }

    /// The method that `shared` and `flags` describe.
    ///
    /// # Errors
    /// If a setting makes no sense, or belongs to none of the method's parts.
    pub fn method(&self, shared: &Shared, flags: &Flags) -> Result<Method, Failure> {
        let registry = registry();
        let mut config = json!({
            "epsilon": shared.epsilon,
            "seed": shared.seed,
            "perturbation": shared.perturbation,
            "rounding": shared.rounding,
        });
        if self.kind == Kind::Preset {
            config["method"] = self.name.into();
        }
        if let Some(queries) = shared.queries {
            config["queries"] = queries.into();
        }
        if let Some(noise) = &shared.noise {
            config["noise"] = noise.as_str().into();
        }
        if let Some(Value::Object(table)) = &flags.table {
            for (key, value) in table {
                config[key.as_str()] = value.clone();
            }
        }
        flags.choose_parts(&registry, &mut config);
        self.apply(&registry, flags, &mut config)?;
        let method = registry.method(&config)?;
        Ok(method.with_trainable(shared.trainable.clone()))
    }

    /// Puts each setting where its part is.
    fn apply(&self, registry: &Registry, flags: &Flags, config: &mut Value) -> Result<(), Failure> {
        let own = settings(&registry.method(config)?);
        for (flag, value) in flags.settings() {
            let Some(Setting { kind, .. }) = own.iter().find(|setting| setting.flag == flag) else {
                let own: Vec<_> = own
                    .iter()
                    .map(|setting| format!("--{}", setting.flag))
                    .collect();
                let own = match own.is_empty() {
                    true => "none".to_owned(),
                    false => own.join(", "),
                };
                let name = self.name;
                return Err(Usage(format!(
                    "--{flag} has no effect on --method {name}: the settings of its parts are {own} (see --method-help)"
                ))
                .into());
            };
            put(config, &format!("{kind}.{flag}"), value)?;
        }
        for (path, value) in flags.set()? {
            put(config, &path, value)?;
        }
        Ok(())
    }

    /// Builds the optimizer.
    ///
    /// # Errors
    /// If a setting makes no sense or does not belong to the method, or if this build cannot differentiate.
    pub fn build(&self, shared: &Shared, flags: &Flags) -> Result<Built, Failure> {
        flags.check_others(self.name)?;
        let method = self.method(shared, flags)?;
        let settings = method.config();
        let table = table(&settings);
        let (forwards, scale_free) = (method.forwards(), method.scale_free());
        let exact = settings["difference"] == "exact";
        if exact || matches!(self.kind, Kind::Hybrid | Kind::FirstOrder) {
            self.need_autodiff()?;
        }
        match self.kind {
            Kind::Preset | Kind::Evaluation => Ok(Built {
                optimizer: AnyOptimizer::ZerothOrder(Box::new(method.init()?)),
                settings,
                table,
                forwards_per_step: if self.trains() { forwards } else { 0 },
                differentiates: exact,
                scale_free,
            }),
            Kind::Hybrid => Ok(Built {
                optimizer: AnyOptimizer::hybrid(&method, flags)?,
                table,
                settings: json!({ "below": settings, "top": flags.top, "top_rate": flags.top_rate() }),
                forwards_per_step: forwards + 1,
                differentiates: true,
                scale_free,
            }),
            Kind::FirstOrder => {
                AnyOptimizer::first_order(shared).map(|(optimizer, settings)| Built {
                    optimizer,
                    settings,
                    table: Value::Null,
                    forwards_per_step: 1,
                    differentiates: true,
                    scale_free: None,
                })
            }
        }
    }

    fn need_autodiff(&self) -> Result<(), Failure> {
        if cfg!(feature = "autodiff") {
            return Ok(());
        }
        Err(format!(
            "this build cannot differentiate: add `--features autodiff` for --method {}",
            self.name
        )
        .into())
    }
}

/// The parts of a method and what else belongs in a file's `[method]`. A sampler that is not there is `none`, since TOML has no null.
fn table(settings: &Value) -> Value {
    let shared = ["epsilon", "queries", "seed", "perturbation", "rounding"];
    let Value::Object(all) = settings else {
        return Value::Null;
    };
    let own = all
        .iter()
        .filter(|(key, _)| !shared.contains(&key.as_str()));
    let value = |(key, value): (&String, &Value)| {
        let value = match (key.as_str(), value) {
            ("sampler", Value::Null) => json!("none"),
            (_, value) => without_nulls(value),
        };
        (key.clone(), value)
    };
    let kept = own.map(value).filter(|(_, value)| !value.is_null());
    Value::Object(kept.collect())
}

fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let kept = map.iter().filter(|(_, value)| !value.is_null());
            let kept = kept.map(|(key, value)| (key.clone(), without_nulls(value)));
            Value::Object(kept.collect())
        }
        value => value.clone(),
    }
}

/// Sets `config.a.b` for the path `a.b`; a part given by its name becomes a table.
fn put(config: &mut Value, path: &str, value: Value) -> Result<(), Failure> {
    let Some((place, setting)) = path.split_once('.') else {
        config[path.replace('-', "_")] = value;
        return Ok(());
    };
    let part = &mut config[place];
    if let Value::String(name) = part {
        *part = json!({ "name": *name });
    }
    match part {
        Value::Null | Value::Object(_) => part[setting.replace('-', "_")] = value,
        other => {
            return Err(Usage(format!("{place} is {other}: it has no setting `{setting}`")).into());
        }
    }
    Ok(())
}

/// Gaussian noise and the rest by default: what tests and comparisons start from.
impl Default for Shared {
    fn default() -> Self {
        Self {
            epsilon: 1e-3,
            queries: None,
            noise: None,
            seed: 0,
            perturbation: Perturbation::InPlace,
            trainable: ParamGroup::all(),
            rounding: Rounding::Nearest,
        }
    }
}

impl Shared {
    /// With this noise.
    #[must_use]
    pub fn with_noise(self, noise: Noise) -> Self {
        let noise = Some(noise.to_string());
        Self { noise, ..self }
    }
}

#[cfg(test)]
mod tests;

//! Methods and parts by name.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::coefficients::{CoefficientRule, Mean};
use crate::error::ConfigError;
use crate::mask::{Dense, SparsityMask};
use crate::method::Method;
use crate::noise::Noise;
use crate::part::PartConfig;
use crate::sampler::PerturbationSampler;
use crate::settings::Settings;
use crate::update::{Sgd, UpdateRule};

/// The methods and parts that configurations can name, your own among them.
///
/// A configuration is a JSON or TOML table: the name of a `method`, and what differs from it. Without a method it starts from MeZO.
///
/// ```
/// use zo_core::Registry;
/// use serde_json::json;
///
/// # fn main() -> Result<(), zo_core::ConfigError> {
/// let registry = Registry::new();
/// let method = registry.method(&json!({ "epsilon": 1e-2, "noise": "rademacher" }))?;
/// assert_eq!(method.config()["noise"]["name"], "rademacher");
/// let error = registry.method(&json!({ "mask": "dence" })).unwrap_err();
/// assert_eq!(error.to_string(), "unknown mask `dence`: use one of dense");
/// # Ok(()) }
/// ```
///
/// A named part is built from its defaults and the settings given. A table without a `name` changes settings of the method's own
/// part: `mask.drop = 0.5`.
#[derive(Clone)]
pub struct Registry {
    noises: Vec<Entry<dyn PerturbationSampler>>,
    samplers: Vec<Entry<dyn PerturbationSampler>>,
    masks: Vec<Entry<dyn SparsityMask>>,
    coefficients: Vec<Entry<dyn CoefficientRule>>,
    updates: Vec<Entry<dyn UpdateRule>>,
    presets: Vec<Preset>,
}

/// A method of a paper.
#[derive(Debug, Clone)]
pub struct Preset {
    /// The name in configurations: `mezo`.
    pub name: &'static str,
    /// One line.
    pub about: &'static str,
    /// The method with the paper's defaults.
    pub method: fn() -> Method,
    /// A good learning rate, as a multiple of MeZO's on the same model.
    pub lr_factor: f64,
}

/// A part that can be named.
#[doc(hidden)]
#[derive(Debug, Clone)]
pub struct PartEntry {
    /// What it is: `noise`, `sampler`, `mask`, `coefficients` or `update`.
    pub kind: &'static str,
    /// Its name in configurations.
    pub name: String,
    /// One line.
    pub about: &'static str,
    /// Its settings with their defaults.
    pub settings: Map<String, Value>,
}

/// How a part is made.
struct Entry<P: ?Sized> {
    part: PartEntry,
    build: fn(Value) -> Result<Box<P>, serde_json::Error>,
    default: fn() -> Box<P>,
}

// Not derived: a derive would ask for `P: Clone`.
impl<P: ?Sized> Clone for Entry<P> {
    fn clone(&self) -> Self {
        Self {
            part: self.part.clone(),
            build: self.build,
            default: self.default,
        }
    }
}

impl Default for Registry {
    fn default() -> Self {
        Self::new()
    }
}

/// Defines how parts of a kind are added.
macro_rules! kind {
    ($kind:literal, $trait:ident, $list:ident, $(#[$attribute:meta])* $add:ident) => {
        $(#[$attribute])*
        #[must_use]
        pub fn $add<P>(mut self, about: &'static str) -> Self
        where
            P: $trait + Default + Serialize + DeserializeOwned + 'static,
        {
            let PartConfig { name, settings } = PartConfig::of(P::default().name(), &P::default());
            self.$list.retain(|entry| entry.part.name != name);
            self.$list.push(Entry {
                part: PartEntry {
                    kind: $kind,
                    name,
                    about,
                    settings,
                },
                build: |value| Ok(Box::new(serde_json::from_value::<P>(value)?)),
                default: || Box::new(P::default()),
            });
            self
        }
    };
}

impl Registry {
    /// The core's own parts, and no method.
    pub fn new() -> Self {
        let noise = |noise: Noise, about, default| Entry::<dyn PerturbationSampler> {
            part: PartEntry {
                kind: "noise",
                name: noise.to_string(),
                about,
                settings: Map::new(),
            },
            build: |value| Ok(Box::new(serde_json::from_value::<Noise>(value)?)),
            default,
        };
        let (normal, sign) = (Noise::Gaussian, Noise::Rademacher);
        let registry = Self {
            noises: vec![
                noise(normal, "standard normal", || Box::new(Noise::Gaussian)),
                noise(sign, "+1 or -1, cheaper to generate", || {
                    Box::new(Noise::Rademacher)
                }),
            ],
            samplers: Vec::new(),
            masks: Vec::new(),
            coefficients: Vec::new(),
            updates: Vec::new(),
            presets: Vec::new(),
        };
        registry
            .with_mask::<Dense>("every tensor")
            .with_coefficients::<Mean>("the derivatives themselves")
            .with_update::<Sgd>("along the estimate")
    }

    kind!(
        "noise",
        PerturbationSampler,
        noises,
        /// Adds a noise under its [name](PerturbationSampler::name); one of the same name is replaced.
        with_noise
    );
    kind!(
        "sampler",
        PerturbationSampler,
        samplers,
        /// Adds a sampler under its [name](PerturbationSampler::name); one of the same name is replaced.
        with_sampler
    );
    kind!(
        "mask",
        SparsityMask,
        masks,
        /// Adds a mask under its [name](SparsityMask::name); one of the same name is replaced.
        with_mask
    );
    kind!(
        "coefficients",
        CoefficientRule,
        coefficients,
        /// Adds a coefficient rule under its [name](CoefficientRule::name); one of the same name is replaced.
        with_coefficients
    );
    kind!(
        "update",
        UpdateRule,
        updates,
        /// Adds an update rule under its [name](UpdateRule::name); one of the same name is replaced.
        with_update
    );

    /// Every part, in the order in which they were added: noises, samplers, masks, coefficient rules, update rules.
    #[doc(hidden)]
    pub fn parts(&self) -> impl Iterator<Item = &PartEntry> {
        let samplers = self.noises.iter().chain(&self.samplers);
        let samplers = samplers.map(|entry| &entry.part);
        let masks = self.masks.iter().map(|entry| &entry.part);
        let coefficients = self.coefficients.iter().map(|entry| &entry.part);
        let updates = self.updates.iter().map(|entry| &entry.part);
        samplers.chain(masks).chain(coefficients).chain(updates)
    }

    /// Adds a method; one of the same name is replaced.
    #[must_use]
    pub fn with_preset(mut self, preset: Preset) -> Self {
        self.presets.retain(|known| known.name != preset.name);
        self.presets.push(preset);
        self
    }

    /// The methods, in the order in which they were added.
    pub fn presets(&self) -> &[Preset] {
        &self.presets
    }

    /// The method of this name.
    ///
    /// # Errors
    /// [`ConfigError::Unknown`], listing what there is.
    pub fn preset(&self, name: &str) -> Result<&Preset, ConfigError> {
        let names = || self.presets.iter().map(|preset| preset.name);
        let found = self.presets.iter().find(|preset| preset.name == name);
        found.ok_or_else(|| ConfigError::unknown("method", name, names()))
    }

    /// The method that a configuration describes.
    ///
    /// # Errors
    /// Names the setting or part that is unknown, or makes no sense, and lists what there is.
    pub fn method(&self, config: &Value) -> Result<Method, ConfigError> {
        let mut given = table("method", config)?;
        let mut method = match given.remove("method") {
            None => Method::new(),
            Some(Value::String(name)) => (self.preset(&name)?.method)(),
            Some(other) => return Err(bad("method", &other, "the name of a method")),
        };
        let base = method.resolved();
        if let Some(part) = given.remove("noise") {
            method.noise = build("noise", &self.noises, Some(&base.noise), part)?;
        }
        method.sampler = match given.remove("sampler") {
            None => method.sampler,
            Some(Value::Null) => None,
            Some(Value::String(name)) if name == "none" => None,
            Some(part) => {
                let own = base.sampler.as_ref();
                Some(build("sampler", &self.samplers, own, part)?)
            }
        };
        if let Some(part) = given.remove("mask") {
            method.mask = build("mask", &self.masks, Some(&base.mask), part)?;
        }
        if let Some(part) = given.remove("coefficients") {
            let (kind, own) = ("coefficients", Some(&base.coefficients));
            method.coefficients = build(kind, &self.coefficients, own, part)?;
        }
        if let Some(part) = given.remove("update") {
            method.update = build("update", &self.updates, Some(&base.update), part)?;
        }
        let groups = (
            method.settings.trainable.clone(),
            method.settings.weight_decay_groups.clone(),
        );
        method.settings = settings(&method.settings, given)?;
        (
            method.settings.trainable,
            method.settings.weight_decay_groups,
        ) = groups;
        method.validate()?;
        Ok(method)
    }
}

/// The table at a place in a configuration.
fn table(place: &str, value: &Value) -> Result<Map<String, Value>, ConfigError> {
    match value {
        Value::Object(table) => Ok(table.clone()),
        other => Err(bad(place, other, "a table")),
    }
}

fn bad(place: &str, value: &Value, expected: &'static str) -> ConfigError {
    ConfigError::setting(place, value, expected)
}

/// `base` with new values for some of its settings.
fn settings(base: &Settings, given: Map<String, Value>) -> Result<Settings, ConfigError> {
    let Ok(Value::Object(known)) = serde_json::to_value(base) else {
        unreachable!("settings are a struct");
    };
    let parts = [
        "method",
        "noise",
        "sampler",
        "mask",
        "coefficients",
        "update",
    ];
    let names = || known.keys().map(String::as_str).chain(parts);
    let given = check_names("", given, names)?;
    let mut all = known.clone();
    all.extend(given.clone());
    let read = serde_json::from_value(Value::Object(all));
    read.map_err(|error| wrong_value("a setting", &given, &error))
}

/// A part from its defaults, or from the method's own part, and what is given.
fn build<P: ?Sized>(
    kind: &'static str,
    entries: &[Entry<P>],
    own: Option<&PartConfig>,
    given: Value,
) -> Result<Box<P>, ConfigError> {
    let wrong = |_| {
        let expected = "the name of a part, or a table with its `name` and its settings";
        bad(kind, &given, expected)
    };
    let part: PartConfig = serde_json::from_value(given.clone()).map_err(wrong)?;
    let names = || entries.iter().map(|entry| entry.part.name.as_str());
    let own = own.filter(|own| part.name.is_empty() || part.name == own.name);
    let name = match own {
        Some(own) => own.name.as_str(),
        None => part.name.as_str(),
    };
    let entry = entries.iter().find(|entry| entry.part.name == name);
    let entry = entry.ok_or_else(|| ConfigError::unknown(kind, name, names()))?;
    let base = own.map_or(&entry.part.settings, |own| &own.settings);
    if base.is_empty() {
        return match part.settings.keys().next() {
            None => Ok((entry.default)()),
            Some(setting) => {
                let place = format!("{kind}.{setting}");
                let expected = format!("left out: `{name}` has no settings");
                Err(ConfigError::setting(
                    &place,
                    &part.settings[setting],
                    &expected,
                ))
            }
        };
    }
    let place = format!("{kind}.");
    let names = || base.keys().map(String::as_str);
    let known = check_names(&place, part.settings, names)?;
    let mut all = base.clone();
    all.extend(known.clone());
    (entry.build)(Value::Object(all)).map_err(|error| wrong_value(kind, &known, &error))
}

/// Kebab-case is accepted for names of settings, as on a command line.
fn check_names<'a, N: Iterator<Item = &'a str>>(
    place: &str,
    given: Map<String, Value>,
    names: impl Fn() -> N,
) -> Result<Map<String, Value>, ConfigError> {
    let check = |(name, value): (String, Value)| {
        let name = name.replace('-', "_");
        match names().any(|known| known == name) {
            true => Ok((name, value)),
            false => Err(ConfigError::unknown(
                "setting",
                &format!("{place}{name}"),
                names(),
            )),
        }
    };
    given.into_iter().map(check).collect()
}

fn wrong_value(place: &str, given: &Map<String, Value>, error: &serde_json::Error) -> ConfigError {
    let expected = format!("of another form: {error}");
    ConfigError::setting(place, Value::Object(given.clone()), &expected)
}

#[cfg(test)]
mod tests;

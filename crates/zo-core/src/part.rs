//! What noise, samplers, masks and update rules have in common: a name, settings, needs, and a state to save.

use std::fmt;

use erased_serde::Serialize as ErasedSerialize;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

use crate::error::RecordError;

/// A part as a configuration names it: its name, and whichever of its settings are given.
///
/// In JSON and TOML a table, `{ name = "random-layers", drop = 0.5 }`, or the name alone if nothing else is given.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct PartConfig {
    /// The name in the registry. Empty: the preset's part.
    pub(crate) name: String,
    /// The settings by name.
    pub(crate) settings: Map<String, Value>,
}

impl PartConfig {
    /// The part of this name, with its defaults.
    pub(crate) fn new(name: impl Into<String>) -> Self {
        let (name, settings) = (name.into(), Map::new());
        Self { name, settings }
    }

    pub(crate) fn of(name: String, part: &dyn ErasedSerialize) -> Self {
        let settings = match serde_json::to_value(part) {
            Ok(Value::Object(settings)) => settings,
            // An enum is its name, a unit struct nothing at all.
            _ => Map::new(),
        };
        Self { name, settings }
    }
}

impl fmt::Display for PartConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        for (setting, value) in &self.settings {
            write!(f, " {setting}={value}")?;
        }
        Ok(())
    }
}

impl Serialize for PartConfig {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut table = Map::new();
        table.insert("name".to_owned(), Value::from(self.name.as_str()));
        table.extend(self.settings.clone());
        table.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for PartConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form {
            Name(String),
            Table(Map<String, Value>),
        }
        const EXPECTED: &str =
            "expected the name of a part, or a table with its `name` and its settings";
        let form = Form::deserialize(deserializer);
        match form.map_err(|_| serde::de::Error::custom(EXPECTED))? {
            Form::Name(name) => Ok(Self::new(name)),
            Form::Table(mut settings) => match settings.remove("name") {
                Some(Value::String(name)) => Ok(Self { name, settings }),
                None => Ok(Self {
                    name: String::new(),
                    settings,
                }),
                Some(other) => {
                    let found = format!("the name of a part is {other}, not a string");
                    Err(serde::de::Error::custom(found))
                }
            },
        }
    }
}

/// What a part requires of the others. Methods whose parts do not go together are refused when they are built.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Needs {
    /// A mask that chooses elements by magnitude: what it chose cannot be found again once the weights have changed.
    pub magnitudes: bool,
    /// A mask with several rounds in a step, each of which ends with an update.
    pub updates_each_round: bool,
    /// A rule that rebuilds estimates of past steps from their seeds.
    pub past_estimates: bool,
    /// A mask that chooses elements, not whole tensors alone.
    pub elements: bool,
    /// A rule that works in the coordinates of a basis that the noise [holds](crate::PerturbationSampler::holds_basis).
    pub basis: bool,
    /// A rule that keeps buffers the size of the weights, and so gives [`Change::Custom`](crate::Change::Custom); or a noise that does.
    pub buffers: bool,
    /// A noise that is scaled by what past losses have shown of the curvature: it needs three losses along a direction.
    pub curvature: bool,
}

/// The name of a type as configurations write it: `RandomLayers` is `random-layers`.
pub(crate) fn name_of<T: ?Sized>() -> String {
    let path = std::any::type_name::<T>();
    let path = path.split_once('<').map_or(path, |(path, _)| path);
    let name = path.rsplit("::").next().unwrap_or(path);
    let mut kebab = String::new();
    for (place, letter) in name.char_indices() {
        if letter.is_uppercase() && place > 0 {
            kebab.push('-');
        }
        kebab.extend(letter.to_lowercase());
    }
    kebab
}

/// For parts without state: accepts the record they write, refuses any other.
pub(crate) fn stateless(field: &'static str, record: &Value) -> Result<(), RecordError> {
    if record.is_null() {
        return Ok(());
    }
    Err(RecordError::mismatch(field, record, "no state"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_types() {
        struct RandomLayers;
        struct Sgd;
        struct Generic<T>(T);
        let _ = (RandomLayers, Sgd, Generic(0));
        assert_eq!(name_of::<RandomLayers>(), "random-layers");
        assert_eq!(name_of::<Sgd>(), "sgd");
        assert_eq!(name_of::<Generic<Vec<Sgd>>>(), "generic");
    }

    #[test]
    fn a_name_or_a_table() {
        let read = |json: &str| serde_json::from_str::<PartConfig>(json).map_err(|e| e.to_string());
        let lezo = read(r#"{"name": "random-layers", "drop": 0.5}"#).unwrap();
        assert_eq!(lezo.settings["drop"], 0.5);
        assert_eq!(read(r#""random-layers""#).unwrap().name, lezo.name);
        assert_eq!(read(r#"{"drop": 0.5}"#).unwrap().name, "");
        assert!(read("3").unwrap_err().contains("the name of a part"));
        assert!(read(r#"{"name": 3}"#).unwrap_err().contains("3"));
        let again = read(&serde_json::to_string(&lezo).unwrap()).unwrap();
        assert_eq!(again, lezo);
        assert_eq!(lezo.to_string(), "random-layers drop=0.5");
    }
}

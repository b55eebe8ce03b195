//! Typed access to the fields of a `config.json`, with errors that name file, field and value.

use serde_json::{Map, Value};

use super::error::ConfigError;

/// A JSON object and where it came from. A field that is `null` counts as absent, as in transformers.
pub(super) struct Fields<'a> {
    pub(super) place: &'a str,
    prefix: &'a str,
    object: &'a Map<String, Value>,
}

impl<'a> Fields<'a> {
    pub(super) fn new(place: &'a str, object: &'a Map<String, Value>) -> Self {
        Self {
            place,
            prefix: "",
            object,
        }
    }

    pub(super) fn get(&self, key: &str) -> Option<&'a Value> {
        self.object.get(key).filter(|value| !value.is_null())
    }

    /// Whether it has no field.
    pub(super) fn is_empty(&self) -> bool {
        self.object.is_empty()
    }

    /// The first field that holds an object.
    pub(super) fn object_within(&self) -> Option<(&'a String, &'a Value)> {
        self.object.iter().find(|(_, value)| value.is_object())
    }

    /// Whether the field is present at all, even as `null`.
    pub(super) fn has(&self, key: &str) -> bool {
        self.object.contains_key(key)
    }

    /// The object in field `key`; `prefix` (`"key."`) names it in errors.
    pub(super) fn nested(
        &self,
        key: &str,
        prefix: &'a str,
    ) -> Result<Option<Fields<'a>>, ConfigError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Object(object)) => Ok(Some(Fields {
                place: self.place,
                prefix,
                object,
            })),
            Some(value) => Err(self.invalid(key, value, "an object")),
        }
    }

    fn name(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }

    pub(super) fn missing(&self, key: &str) -> ConfigError {
        ConfigError::Missing {
            place: self.place.to_owned(),
            field: self.name(key),
        }
    }

    pub(super) fn invalid(&self, key: &str, value: impl ToString, expected: &str) -> ConfigError {
        ConfigError::invalid(self.place, &self.name(key), value, expected)
    }

    pub(super) fn unsupported(
        &self,
        key: &str,
        value: impl ToString,
        supported: &str,
    ) -> ConfigError {
        ConfigError::unsupported(self.place, &self.name(key), value, supported)
    }

    fn optional<T>(
        &self,
        key: &str,
        expected: &str,
        read: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, ConfigError> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        read(value)
            .map(Some)
            .ok_or_else(|| self.invalid(key, value, expected))
    }

    pub(super) fn usize(&self, key: &str) -> Result<Option<usize>, ConfigError> {
        self.optional(key, "a whole number", |value| {
            value.as_u64().and_then(|value| value.try_into().ok())
        })
    }

    pub(super) fn required_usize(&self, key: &str) -> Result<usize, ConfigError> {
        self.usize(key)?.ok_or_else(|| self.missing(key))
    }

    pub(super) fn f64(&self, key: &str) -> Result<Option<f64>, ConfigError> {
        self.optional(key, "a number", Value::as_f64)
    }

    pub(super) fn required_f64(&self, key: &str) -> Result<f64, ConfigError> {
        self.f64(key)?.ok_or_else(|| self.missing(key))
    }

    pub(super) fn bool(&self, key: &str, default: bool) -> Result<bool, ConfigError> {
        Ok(self
            .optional(key, "true or false", Value::as_bool)?
            .unwrap_or(default))
    }

    pub(super) fn str(&self, key: &str) -> Result<Option<&'a str>, ConfigError> {
        self.optional(key, "a string", Value::as_str)
    }

    /// A token id. Some folders write -1 for none.
    pub(super) fn token(&self, key: &str) -> Result<Option<u32>, ConfigError> {
        if self.get(key).and_then(Value::as_i64) == Some(-1) {
            return Ok(None);
        }
        self.optional(key, "a token id", token)
    }

    /// A token id or a list of them.
    pub(super) fn tokens(&self, key: &str) -> Result<Vec<u32>, ConfigError> {
        let read = |value: &Value| match value {
            Value::Array(list) => list.iter().map(token).collect(),
            value => token(value).map(|id| vec![id]),
        };
        Ok(self
            .optional(key, "a token id or a list of token ids", read)?
            .unwrap_or_default())
    }
}

fn token(value: &Value) -> Option<u32> {
    value.as_u64().and_then(|value| value.try_into().ok())
}

/// A list of ids as transformers writes it: nothing, one number, or a list.
pub(super) fn tokens_value(ids: &[u32]) -> Value {
    match ids {
        [] => Value::Null,
        [id] => Value::from(*id),
        ids => Value::from(ids),
    }
}

/// The largest size allowed: the product of two does not overflow.
const LARGEST: usize = 1 << 31;

/// Checks sizes that must not be zero, nor larger than in any model.
pub(super) fn positive(place: &str, sizes: &[(&str, usize)]) -> Result<(), ConfigError> {
    match sizes.iter().find(|(_, size)| *size == 0 || *size > LARGEST) {
        Some((field, 0)) => Err(ConfigError::invalid(place, field, 0, "at least 1")),
        Some((field, size)) => {
            let expected = format!("at most {LARGEST}");
            Err(ConfigError::invalid(place, field, size, &expected))
        }
        None => Ok(()),
    }
}

/// Checks token ids that must lie in the vocabulary.
pub(super) fn in_vocabulary<'a>(
    place: &str,
    vocab_size: usize,
    ids: impl IntoIterator<Item = (&'a str, u32)>,
) -> Result<(), ConfigError> {
    match ids.into_iter().find(|(_, id)| *id as usize >= vocab_size) {
        Some((field, id)) => Err(ConfigError::invalid(
            place,
            field,
            id,
            &format!("below vocab_size ({vocab_size})"),
        )),
        None => Ok(()),
    }
}

//! The fields of a row, read with errors that name them.

use serde_json::{Map, Value};
use thiserror::Error;

/// What is wrong with a task's name, with a row, or with what a task makes of it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TaskError {
    /// No task has this name.
    #[error("unknown task `{name}`: use one of {known}")]
    Unknown {
        /// The name.
        name: String,
        /// The names there are.
        known: String,
    },
    /// A field is missing, or null.
    #[error("field `{field}` is missing; there are {found}")]
    Missing {
        /// Its path from the row, such as `passage.questions[0].answers`.
        field: String,
        /// The fields that are there.
        found: String,
    },
    /// A field has the wrong type or value.
    #[error("field `{field}` is {found}, expected {expected}")]
    Field {
        /// Its path from the row.
        field: String,
        /// Its value, shortened.
        found: String,
        /// What it should be.
        expected: String,
    },
    /// A task made an example that is not of its kind.
    #[error("task `{task}` makes a bad example of this row: {reason}")]
    Example {
        /// The task's name.
        task: String,
        /// What is wrong with the example.
        reason: String,
    },
}

/// Longest value shown in an error, in characters.
const SHOWN: usize = 80;

/// The fields of a row, or of an object nested in it. Errors name a field by its path from the row: `passage.questions[0].answers`.
#[derive(Debug, Clone)]
pub struct Fields<'a> {
    map: &'a Map<String, Value>,
    path: String,
}

impl<'a> Fields<'a> {
    /// The fields of a row.
    pub fn new(row: &'a Map<String, Value>) -> Self {
        Self {
            map: row,
            path: String::new(),
        }
    }

    /// The value of a field; `None` if it is missing or null.
    pub fn get(&self, name: &str) -> Option<&'a Value> {
        self.map.get(name).filter(|value| !value.is_null())
    }

    /// Of two names for the same field, the one that the row has; the first if it has neither.
    pub fn either<'n>(&self, first: &'n str, second: &'n str) -> &'n str {
        if self.get(first).is_none() && self.get(second).is_some() {
            second
        } else {
            first
        }
    }

    /// A text.
    ///
    /// # Errors
    /// If the field is missing or no string.
    pub fn text(&self, name: &str) -> Result<&'a str, TaskError> {
        self.read(name, "a string", Value::as_str)
    }

    /// A number from 0 to `below - 1`, such as a label. A string of digits counts, too: tsv files have no numbers.
    ///
    /// # Errors
    /// If the field is missing or anything else.
    pub fn index(&self, name: &str, below: usize) -> Result<usize, TaskError> {
        let expected = format!("a number from 0, less than {below}");
        self.read(name, &expected, |value| {
            index(value).filter(|index| *index < below)
        })
    }

    /// 0 or 1, or false or true: a label of two classes. Strings of these count, too.
    ///
    /// # Errors
    /// If the field is missing or anything else.
    pub fn flag(&self, name: &str) -> Result<usize, TaskError> {
        self.read(name, "0 or 1, or false or true", |value| match value {
            Value::Bool(yes) => Some(usize::from(*yes)),
            Value::String(text) if text.eq_ignore_ascii_case("false") => Some(0),
            Value::String(text) if text.eq_ignore_ascii_case("true") => Some(1),
            number => index(number).filter(|index| *index < 2),
        })
    }

    /// The place of a label among the names of the classes. It may be given by name or by that place, counted from 0.
    ///
    /// # Errors
    /// If the field is missing or anything else.
    pub fn class(&self, name: &str, classes: &[&str]) -> Result<usize, TaskError> {
        let expected = format!(
            "one of {} or its number from 0, less than {}",
            classes.join(", "),
            classes.len()
        );
        self.read(name, &expected, |value| {
            let named = classes
                .iter()
                .position(|class| value.as_str() == Some(*class));
            named.or_else(|| index(value).filter(|index| *index < classes.len()))
        })
    }

    /// The fields of a nested object.
    ///
    /// # Errors
    /// If the field is missing or no object.
    pub fn object(&self, name: &str) -> Result<Self, TaskError> {
        let map = self.read(name, "an object", Value::as_object)?;
        let path = self.path(name);
        Ok(Self { map, path })
    }

    /// The fields of each object of a list.
    ///
    /// # Errors
    /// If the field is missing or no list of objects.
    pub fn objects(&self, name: &str) -> Result<Vec<Self>, TaskError> {
        self.list(name, "an object", |path, value| {
            value.as_object().map(|map| Self { map, path })
        })
    }

    /// A list of texts.
    ///
    /// # Errors
    /// If the field is missing or no list of strings.
    pub fn texts(&self, name: &str) -> Result<Vec<&'a str>, TaskError> {
        self.list(name, "a string", |_, value| value.as_str())
    }

    /// The error that says: this field is not what is expected.
    pub fn wrong(&self, name: &str, expected: &str) -> TaskError {
        wrong(self.path(name), self.map.get(name), expected)
    }

    fn list<T>(
        &self,
        name: &str,
        expected: &str,
        convert: impl Fn(String, &'a Value) -> Option<T>,
    ) -> Result<Vec<T>, TaskError> {
        let list = self.read(name, "a list", Value::as_array)?;
        let convert = |(index, value): (usize, &'a Value)| {
            let path = format!("{}[{index}]", self.path(name));
            let converted = convert(path.clone(), value);
            converted.ok_or_else(|| wrong(path, Some(value), expected))
        };
        list.iter().enumerate().map(convert).collect()
    }

    fn read<T>(
        &self,
        name: &str,
        expected: &str,
        convert: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<T, TaskError> {
        let Some(value) = self.get(name) else {
            let names: Vec<_> = self.map.keys().map(|key| format!("`{key}`")).collect();
            return Err(TaskError::Missing {
                field: self.path(name),
                found: if names.is_empty() {
                    "none".to_owned()
                } else {
                    shortened(&names.join(", "))
                },
            });
        };
        convert(value).ok_or_else(|| self.wrong(name, expected))
    }

    fn path(&self, name: &str) -> String {
        if self.path.is_empty() {
            name.to_owned()
        } else {
            format!("{}.{name}", self.path)
        }
    }
}

fn index(value: &Value) -> Option<usize> {
    let number = match value {
        Value::String(digits) => digits.parse::<u64>().ok()?,
        number => number.as_u64()?,
    };
    usize::try_from(number).ok()
}

fn wrong(field: String, value: Option<&Value>, expected: &str) -> TaskError {
    TaskError::Field {
        field,
        found: value.map_or_else(|| "missing".to_owned(), |v| shortened(&v.to_string())),
        expected: expected.to_owned(),
    }
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}..", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn row() -> Map<String, Value> {
        let row = json!({
            "text": "a", "number": 2, "digits": "1", "yes": true, "no": "False", "null": null,
            "class": "neutral", "minus": -1, "long": "é".repeat(200),
            "deep": {"list": [{"name": "b"}, 3], "names": ["c", "d"]},
        });
        match row {
            Value::Object(map) => map,
            _ => Map::new(),
        }
    }

    #[test]
    fn values_are_read_by_type() {
        let row = row();
        let row = Fields::new(&row);
        assert_eq!(row.text("text").unwrap(), "a");
        assert_eq!(row.index("number", 3).unwrap(), 2);
        assert_eq!(row.index("digits", 2).unwrap(), 1);
        let flags = ["digits", "yes", "no"].map(|name| row.flag(name).unwrap());
        assert_eq!(flags, [1, 1, 0]);
        let classes = ["entailment", "contradiction", "neutral"];
        for name in ["class", "number"] {
            assert_eq!(row.class(name, &classes).unwrap(), 2);
        }
        let deep = row.object("deep").unwrap();
        assert_eq!(deep.texts("names").unwrap(), ["c", "d"]);
        assert_eq!(row.either("missing", "text"), "text");
        assert_eq!(row.either("null", "text"), "text");
        assert_eq!(row.either("text", "yes"), "text");
        assert_eq!(row.either("missing", "null"), "missing");
    }

    #[test]
    fn errors_name_the_path_and_the_value() {
        let row = row();
        let row = Fields::new(&row);
        let deep = row.object("deep").unwrap();
        let says = |error: TaskError, words: &str| {
            let message = error.to_string();
            assert!(message.contains(words), "{message}");
        };
        says(row.text("x").unwrap_err(), "field `x` is missing; there");
        says(row.text("null").unwrap_err(), "`null` is missing");
        says(row.text("number").unwrap_err(), "`number` is 2, expected a");
        says(row.index("number", 2).unwrap_err(), "less than 2");
        says(row.index("minus", 2).unwrap_err(), "`minus` is -1");
        says(row.index("yes", 2).unwrap_err(), "`yes` is true");
        says(row.flag("number").unwrap_err(), "expected 0 or 1");
        says(row.class("text", &["b", "c"]).unwrap_err(), "one of b, c");
        says(row.object("text").unwrap_err(), "expected an object");
        says(deep.text("x").unwrap_err(), "`deep.x` is missing");
        says(deep.objects("list").unwrap_err(), "`deep.list[1]` is 3");
        says(deep.texts("list").unwrap_err(), "`deep.list[0]` is {");
        says(deep.texts("x").unwrap_err(), "`deep.x` is missing");
        let long = row.index("long", 2).unwrap_err().to_string();
        assert!(long.chars().count() < 160 && long.contains(".."), "{long}");
        let empty = Map::new();
        says(Fields::new(&empty).flag("x").unwrap_err(), "are none");
    }
}

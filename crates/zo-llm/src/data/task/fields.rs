//! Reads the fields of a row, with errors that name them.

use serde_json::{Map, Value};
use thiserror::Error;

/// What is wrong with a task's name, a row, or the examples a task makes of it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TaskError {
    /// No task has this name.
    #[error("unknown task `{name}`: use one of {known}")]
    Unknown {
        /// The name.
        name: String,
        /// The known names.
        known: String,
    },
    /// A field is missing, or has no value (null; in tsv and csv files: nothing between the separators).
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
    /// If the field is missing or not a string.
    pub fn text(&self, name: &str) -> Result<&'a str, TaskError> {
        self.read(name, "a string", Value::as_str)
    }

    /// A text, or the text of a number: `3` for 3 and for 3.0, `2.5` for 2.5.
    ///
    /// # Errors
    /// If the field is missing or anything else.
    pub fn text_or_number(&self, name: &str) -> Result<String, TaskError> {
        self.read(name, "a string or a number", text_or_number)
    }

    /// A list of what [`text_or_number`](Self::text_or_number) reads.
    ///
    /// # Errors
    /// If the field is missing or not a list of these.
    pub fn texts_or_numbers(&self, name: &str) -> Result<Vec<String>, TaskError> {
        self.list(name, "a string or a number", |_, value| {
            text_or_number(value)
        })
    }

    /// A number from 0 to `below - 1`, such as a label. `1.0` is read as 1, because pandas writes integer columns with missing values so. Strings
    /// of numbers count, too: tsv files have no numbers.
    ///
    /// # Errors
    /// If the field is missing or anything else.
    pub fn index(&self, name: &str, below: usize) -> Result<usize, TaskError> {
        let expected = format!("a number from 0, less than {below}");
        self.read(name, &expected, |value| {
            index(value).filter(|index| *index < below)
        })
    }

    /// 0 or 1, false or true, no or yes: a label of two classes. Strings of these count, too, whatever their case.
    ///
    /// # Errors
    /// If the field is missing or anything else.
    pub fn flag(&self, name: &str) -> Result<usize, TaskError> {
        self.flag_named(name, ["no", "yes"])
    }

    /// 0 or 1, false or true, or one of the two names: a label of two classes. Strings of these count, too, whatever their case.
    ///
    /// # Errors
    /// If the field is missing or anything else.
    pub fn flag_named(&self, name: &str, names: [&str; 2]) -> Result<usize, TaskError> {
        let expected = format!("0 or 1, false or true, {} or {}", names[0], names[1]);
        let spelt = ["false", "true", names[0], names[1]];
        self.read(name, &expected, |value| match value {
            Value::Bool(yes) => Some(usize::from(*yes)),
            value => {
                let text = value.as_str();
                let named =
                    text.and_then(|text| spelt.iter().position(|name| is_named(text, name)));
                let index = named.map(|place| place % 2).or_else(|| index(value));
                index.filter(|index| *index < 2)
            }
        })
    }

    /// The index of a label among the names of the classes. It may be given by name, in any case, or by that index, counted
    /// from 0.
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
            let named = value
                .as_str()
                .and_then(|text| classes.iter().position(|class| is_named(text, class)));
            named.or_else(|| index(value).filter(|index| *index < classes.len()))
        })
    }

    /// The fields of a nested object.
    ///
    /// # Errors
    /// If the field is missing or not an object.
    pub fn object(&self, name: &str) -> Result<Self, TaskError> {
        let map = self.read(name, "an object", Value::as_object)?;
        let path = self.path(name);
        Ok(Self { map, path })
    }

    /// The fields of each object of a list.
    ///
    /// # Errors
    /// If the field is missing or not a list of objects.
    pub fn objects(&self, name: &str) -> Result<Vec<Self>, TaskError> {
        self.list(name, "an object", |path, value| {
            value.as_object().map(|map| Self { map, path })
        })
    }

    /// A list of texts.
    ///
    /// # Errors
    /// If the field is missing or not a list of strings.
    pub fn texts(&self, name: &str) -> Result<Vec<&'a str>, TaskError> {
        self.list(name, "a string", |_, value| value.as_str())
    }

    /// The error that this field is not what is expected.
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
            let keys = self.map.keys().filter(|key| *key != name);
            let names: Vec<_> = keys.map(|key| format!("`{key}`")).collect();
            let mut found = match &names[..] {
                [] => "none".to_owned(),
                names => shortened(&names.join(", ")),
            };
            if self.map.contains_key(name) {
                found += &format!(", and `{name}` without a value (null)");
            }
            let field = self.path(name);
            return Err(TaskError::Missing { field, found });
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
        Value::String(text) => text.trim().parse().ok()?,
        number => number.as_f64()?,
    };
    // Numbers of this size are exact.
    let whole = number.fract() == 0.0 && (0.0..1e9).contains(&number);
    whole.then_some(number as usize)
}

fn is_named(text: &str, name: &str) -> bool {
    text.trim().eq_ignore_ascii_case(name)
}

fn text_or_number(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        // Rust writes 3.0 as `3`.
        Value::Number(number) if number.is_f64() => {
            number.as_f64().map(|number| number.to_string())
        }
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

fn wrong(field: String, value: Option<&Value>, expected: &str) -> TaskError {
    let mut expected = expected.to_owned();
    if value.is_some_and(|value| value.as_f64() == Some(-1.0) || value == "-1") {
        expected += " (-1 stands for a hidden label: take a split whose labels are published)";
    }
    TaskError::Field {
        field,
        found: value.map_or_else(|| "missing".to_owned(), |v| shortened(&v.to_string())),
        expected,
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
            "class": "neutral", "minus": -1, "long": "é".repeat(200), "float": 1.0, "spelt": " 2.0 ",
            "half": 0.5, "large": 1e300, "name": "Yes", "Class": "NEUTRAL", "mixed": [3, 2.50, "x", 4.0],
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
        assert_eq!(row.index("float", 2).unwrap(), 1);
        assert_eq!(row.index("spelt", 3).unwrap(), 2);
        assert_eq!(
            [row.flag("float").unwrap(), row.flag("name").unwrap()],
            [1, 1]
        );
        assert_eq!(row.class("Class", &classes).unwrap(), 2);
        assert_eq!(
            row.texts_or_numbers("mixed").unwrap(),
            ["3", "2.5", "x", "4"]
        );
        assert_eq!(row.text_or_number("number").unwrap(), "2");
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
        says(row.text("null").unwrap_err(), "and `null` without a value");
        says(row.index("minus", 2).unwrap_err(), "`minus` is -1");
        says(row.index("minus", 2).unwrap_err(), "hidden label");
        says(row.index("half", 2).unwrap_err(), "`half` is 0.5");
        says(row.index("large", 2).unwrap_err(), "less than 2");
        says(row.flag("spelt").unwrap_err(), "no or yes");
        says(
            row.text_or_number("yes").unwrap_err(),
            "a string or a number",
        );
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

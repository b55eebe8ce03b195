//! `--config`: flags from a TOML file.
//!
//! A key is a flag without its dashes; `[method]` is the method as the registry reads it. The file's flags are put before those of the command
//! line, and parsed with them: what is refused, and how, is the same.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::error::ErrorKind;
use clap::{Arg, ArgAction, Command};
use serde_json::{Map, Value};
use thiserror::Error;
use zo_optim::config::{ConfigFileError, read};

use crate::methods::TABLE;

/// Flags that are about a command, not settings of a run.
const NOT_SETTINGS: [&str; 6] = ["config", "dry-run", "method-help", "help", "version", TABLE];

/// Flags that mean nothing without another one.
const NEED: [(&str, &str); 6] = [
    ("words", "template"),
    ("label", "template"),
    ("options", "template"),
    ("answer", "template"),
    ("labels", "words"),
    ("answer-tokens", "answer"),
];

/// Settings of `[method]` that have flags of their own.
const SHARED: [(&str, &str); 5] = [
    ("epsilon", "epsilon"),
    ("queries", "queries"),
    ("seed", "seed"),
    ("perturbation", "perturb"),
    ("rounding", "rounding"),
];

/// What is wrong with a file of flags.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// It cannot be read.
    #[error(transparent)]
    File(#[from] ConfigFileError),
    /// It is not a table of flags.
    #[error("{}: a file of settings is a table, as in `steps = 100`", path.display())]
    NotATable {
        /// The file.
        path: PathBuf,
    },
    /// No flag has this name.
    #[error("{}: unknown key `{key}`: use one of {known}", path.display())]
    Unknown {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
        /// The keys there are.
        known: String,
    },
    /// A value is not one for a flag.
    #[error("{}: `{key}` is {value}: {expected}", path.display())]
    Value {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
        /// Its value.
        value: String,
        /// What it should be.
        expected: &'static str,
    },
    /// A value is not one that its flag can have.
    #[error("{}: {reason}", path.display())]
    Refused {
        /// The file.
        path: PathBuf,
        /// What the parser says.
        reason: String,
    },
    /// A setting is given in two places.
    #[error("{}: `{key}` stands both in [method] and outside: leave one out", path.display())]
    Twice {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
    },
}

/// A command line with the flags of its `--config` in it: `argv` as it is if it has none. The flags of `command` begin at `first`. Keys that
/// are not flags of `command` but of `others` are left out, because one file serves several commands.
///
/// # Errors
/// What is wrong with the file.
pub fn expand(
    command: &Command,
    others: &Command,
    argv: Vec<OsString>,
    first: usize,
) -> Result<Vec<OsString>, ConfigError> {
    let own = argv.get(first..).unwrap_or_default();
    let own: Vec<String> = own.iter().map(|arg| arg.to_string_lossy().into()).collect();
    let Some(path) = config_path(&own) else {
        return Ok(argv);
    };
    let given = |name: &str| {
        let named = |arg: &String| {
            arg.strip_prefix("--").is_some_and(|arg| {
                arg == name
                    || arg
                        .strip_prefix(name)
                        .is_some_and(|rest| rest.starts_with('='))
            })
        };
        own.iter().take_while(|arg| *arg != "--").any(named)
    };
    let Value::Object(table) = read(&path)? else {
        return Err(ConfigError::NotATable { path });
    };
    let mut flags = flags(&path, others, table, given("method"))?;
    // What the command line gives, or contradicts, is not taken from the file.
    flags.retain(|(name, _)| !given(name));
    let contradicted = |name: &str| {
        let conflict = |a: &Arg, b: &str| {
            let conflicts = others.get_arg_conflicts_with(a);
            conflicts.iter().any(|arg| arg.get_long() == Some(b))
        };
        let mut all = others.get_arguments();
        all.any(|arg| {
            let long = arg.get_long().unwrap_or_default();
            let own = others
                .get_arguments()
                .find(|arg| arg.get_long() == Some(name));
            given(long) && (conflict(arg, name) || own.is_some_and(|own| conflict(own, long)))
        })
    };
    let before: Vec<String> = flags.iter().map(|(name, _)| name.clone()).collect();
    flags.retain(|(name, _)| !contradicted(name));
    for (name, needed) in NEED {
        let has = |name: &str| flags.iter().any(|(flag, _)| flag == name);
        if before.iter().any(|flag| flag == needed) && !has(needed) && !given(needed) {
            flags.retain(|(flag, _)| flag != name);
        }
    }
    let known = |name: &str| find(command, name).is_some();
    for (_, args) in flags.iter().filter(|(name, _)| known(name)) {
        check(&path, command, args)?;
    }
    let args = flags.into_iter().filter(|(name, _)| known(name));
    let args = args.flat_map(|(_, args)| args).map(OsString::from);
    let mut all: Vec<OsString> = argv[..first].to_vec();
    all.extend(args);
    all.extend_from_slice(&argv[first..]);
    Ok(all)
}

/// Finds values that a flag cannot have, so that the error names the file.
fn check(path: &Path, command: &Command, args: &[String]) -> Result<(), ConfigError> {
    let alone = command.clone().no_binary_name(true);
    let Err(error) = alone.try_get_matches_from(args) else {
        return Ok(());
    };
    // That other flags are missing or in the way shows when all are there.
    if !matches!(
        error.kind(),
        ErrorKind::InvalidValue | ErrorKind::ValueValidation
    ) {
        return Ok(());
    }
    let text = error.to_string();
    let reason = text.split("\n\nFor more").next().unwrap_or(&text);
    Err(ConfigError::Refused {
        path: path.to_owned(),
        reason: reason.trim_start_matches("error: ").to_owned(),
    })
}

/// The file that `--config` names.
fn config_path(own: &[String]) -> Option<PathBuf> {
    let mut args = own.iter().take_while(|arg| *arg != "--");
    while let Some(arg) = args.next() {
        match arg.strip_prefix("--config") {
            Some("") => return args.next().map(PathBuf::from),
            Some(rest) => {
                if let Some(path) = rest.strip_prefix('=') {
                    return Some(path.into());
                }
            }
            None => {}
        }
    }
    None
}

fn find<'a>(command: &'a Command, name: &str) -> Option<&'a Arg> {
    command
        .get_arguments()
        .find(|arg| arg.get_long() == Some(name))
}

/// The flags of a file: the name of each, and its arguments. `renamed` says that the command line chooses another method: then the file's
/// settings of the method's parts do not count.
fn flags(
    path: &Path,
    command: &Command,
    table: Map<String, Value>,
    renamed: bool,
) -> Result<Vec<(String, Vec<String>)>, ConfigError> {
    let mut flags = Vec::new();
    let mut inner = Map::new();
    for (key, value) in table {
        let name = key.replace('_', "-");
        if let ("method", Value::Object(method)) = (name.as_str(), &value) {
            inner.clone_from(method);
            continue;
        }
        flags.push((name.clone(), arguments(path, command, &key, &name, &value)?));
    }
    let own = [inner.remove("name"), inner.remove("method")];
    if let Some(name) = own.into_iter().flatten().next() {
        let args = arguments(path, command, "method.name", "method", &name)?;
        flags.push(("method".to_owned(), args));
    }
    for (key, name) in SHARED {
        if let Some(value) = inner.remove(key) {
            if flags.iter().any(|(flag, _)| flag == name) {
                let (path, key) = (path.to_owned(), key.to_owned());
                return Err(ConfigError::Twice { path, key });
            }
            let args = arguments(path, command, &format!("method.{key}"), name, &value)?;
            flags.push((name.to_owned(), args));
        }
    }
    if !inner.is_empty() && !renamed {
        let text = Value::Object(inner).to_string();
        flags.push((TABLE.to_owned(), vec![format!("--{TABLE}={text}")]));
    }
    Ok(flags)
}

/// The arguments that say what the file says.
fn arguments(
    path: &Path,
    command: &Command,
    key: &str,
    name: &str,
    value: &Value,
) -> Result<Vec<String>, ConfigError> {
    let known = find(command, name).filter(|_| !NOT_SETTINGS.contains(&name));
    let Some(arg) = known else {
        let settings = command.get_arguments().filter(|arg| !arg.is_hide_set());
        let names = settings.filter_map(Arg::get_long);
        let names = names.filter(|name| !NOT_SETTINGS.contains(name));
        return Err(ConfigError::Unknown {
            path: path.to_owned(),
            key: key.to_owned(),
            known: names
                .map(|name| name.replace('-', "_"))
                .collect::<Vec<_>>()
                .join(", "),
        });
    };
    let wrong = |expected| ConfigError::Value {
        path: path.to_owned(),
        key: key.to_owned(),
        value: value.to_string(),
        expected,
    };
    let text = |value: &Value| match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(on) => Some(on.to_string()),
        _ => None,
    };
    if matches!(arg.get_action(), ArgAction::SetTrue) {
        return match value {
            Value::Bool(true) => Ok(vec![format!("--{name}")]),
            Value::Bool(false) => Ok(Vec::new()),
            _ => Err(wrong("it must be true or false")),
        };
    }
    // What a flag is anyway is not given: it would stand against others.
    if *value == Value::Bool(false) && arg.get_default_values() == ["false"] {
        return Ok(Vec::new());
    }
    let one = "it must be a text, a number, or true or false";
    match value {
        Value::Array(items) if matches!(arg.get_action(), ArgAction::Append) => items
            .iter()
            .map(|item| Some(format!("--{name}={}", text(item)?)))
            .collect::<Option<Vec<_>>>()
            .ok_or_else(|| wrong("it must be a list of texts and numbers")),
        value => match text(value) {
            Some(text) => Ok(vec![format!("--{name}={text}")]),
            None => Err(wrong(one)),
        },
    }
}

#[cfg(test)]
mod tests;

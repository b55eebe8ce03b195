//! The flags of methods and parts. Those of single settings come from the registry.

use std::collections::BTreeMap;
use std::error::Error;

use clap::builder::PossibleValuesParser;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};
use serde_json::{Value, json};
use zo_optim::{Registry, registry};

use crate::exit::Usage;
use crate::values;

/// The flag that hands over `[method]` of a file; not for people.
pub(crate) const TABLE: &str = "method-table";

const HEADING: &str = "Method";

/// Settings of methods and their parts. Those that are not given have the defaults of the method.
#[derive(Debug, Clone, Default)]
pub struct Flags {
    /// `--sampler`, `--mask`, `--update`, `--noise` and `--difference` by name.
    parts: BTreeMap<&'static str, String>,
    /// Settings of parts by flag, in the order of the flags' names.
    settings: Vec<(String, Value)>,
    /// `--set`.
    set: Vec<String>,
    /// `[method]` of a file, as the registry reads it.
    pub(super) table: Option<Value>,
    /// hybrid: the tensors that Adam trains, those with this text in their path.
    pub top: Option<String>,
    top_rate: Option<f64>,
    /// icl: solved examples before each prompt.
    pub demonstrations: Option<usize>,
}

const PARTS: [(&str, &str); 4] = [
    ("noise", "Noise [default: the method's]"),
    ("mask", "Mask, instead of the method's"),
    ("update", "Update rule, instead of the method's"),
    ("difference", "How losses become a derivative"),
];

/// Other spellings of flags, with the value for those that take none.
const ALIASES: [(&str, &str, Option<&str>); 2] = [
    ("block-order", "order", None),
    ("global", "kind", Some("global-magnitude")),
];

/// The names of all settings of parts, as flags, and whether they are switches.
fn known(registry: &Registry) -> Vec<(String, bool)> {
    let settings = registry.parts().flat_map(|part| &part.settings);
    let mut names: Vec<(String, bool)> = settings
        .map(|(name, value)| (name.replace('_', "-"), value.is_boolean()))
        .collect();
    names.sort();
    names.dedup();
    names
}

/// What a text means: a number, a boolean, or itself.
pub(super) fn value(text: &str) -> Value {
    match serde_json::from_str(text) {
        Ok(value @ (Value::Number(_) | Value::Bool(_) | Value::Null)) => value,
        _ => text.into(),
    }
}

impl Args for Flags {
    fn augment_args(command: Command) -> Command {
        let setting = |(name, switch): (String, bool)| {
            let arg = Arg::new(name.clone()).long(name).hide(true);
            match switch {
                true => arg
                    .num_args(0..=1)
                    .require_equals(true)
                    .default_missing_value("true"),
                false => arg.allow_hyphen_values(true),
            }
        };
        let settings = known(&registry()).into_iter().map(setting);
        let part = |(name, help): (&'static str, &'static str)| {
            let known = match name {
                "difference" => PossibleValuesParser::new(values::DIFFERENCES),
                kind => values::parts(&[kind], &[]),
            };
            let hide = !["noise", "difference"].contains(&name);
            Arg::new(name)
                .long(name)
                .help(help)
                .help_heading(HEADING)
                .value_parser(known)
                .hide_possible_values(hide)
        };
        let alias = |(name, _, value): (&'static str, &'static str, Option<&'static str>)| {
            let arg = Arg::new(name).long(name).hide(true);
            match value {
                Some(_) => arg.action(ArgAction::SetTrue),
                None => arg,
            }
        };
        let hidden = |name: &'static str| Arg::new(name).long(name).hide(true);
        command
            .args(PARTS.map(part))
            .arg(
                Arg::new("sampler")
                    .long("sampler")
                    .help_heading(HEADING)
                    .value_parser(values::parts(&["sampler", "noise"], &["none"]))
                    .hide_possible_values(true)
                    .help("Sampler, instead of the method's (the name of a noise is taken as --noise)"),
            )
            .arg(
                Arg::new("set")
                    .long("set")
                    .action(ArgAction::Append)
                    .value_name("PLACE=VALUE")
                    .help_heading(HEADING)
                    .help("A setting by its place: --set mask.drop=0.5"),
            )
            .args(settings)
            .args(ALIASES.map(alias))
            .arg(hidden("top"))
            .arg(
                hidden("top-rate")
                    .allow_hyphen_values(true)
                    .value_parser(clap::value_parser!(f64)),
            )
            .arg(hidden("demonstrations").value_parser(clap::value_parser!(usize)))
            .arg(hidden(TABLE).value_parser(|text: &str| serde_json::from_str::<Value>(text)))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Flags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let text = |name: &str| matches.get_one::<String>(name).cloned();
        let mut flags = Self {
            set: matches
                .get_many("set")
                .into_iter()
                .flatten()
                .cloned()
                .collect(),
            top: text("top"),
            top_rate: matches.get_one("top-rate").copied(),
            demonstrations: matches.get_one("demonstrations").copied(),
            table: matches.get_one(TABLE).cloned(),
            ..Self::default()
        };
        for (name, _) in PARTS.into_iter().chain([("sampler", "")]) {
            if let Some(given) = text(name) {
                flags.parts.insert(name, given);
            }
        }
        for (name, _) in known(&registry()) {
            if let Some(given) = text(&name) {
                flags.settings.push((name, value(&given)));
            }
        }
        for (name, setting, fixed) in ALIASES {
            let given = match fixed {
                Some(fixed) => matches.get_flag(name).then(|| fixed.to_owned()),
                None => text(name),
            };
            if let Some(given) = given {
                flags.settings.push((setting.to_owned(), value(&given)));
            }
        }
        Ok(flags)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Flags {
    /// The flags of a command line.
    ///
    /// # Errors
    /// clap's.
    pub fn parse_from(arguments: &[&str]) -> Result<Self, clap::Error> {
        let command = Self::augment_args(Command::new("flags").no_binary_name(true));
        Self::from_arg_matches(&command.try_get_matches_from(arguments)?)
    }

    /// Names the parts that were chosen.
    pub(super) fn choose_parts(&self, registry: &Registry, config: &mut Value) {
        for (kind, name) in &self.parts {
            let is_noise = |name: &str| {
                let named = registry.parts().find(|part| part.name == name);
                named.is_some_and(|part| part.kind == "noise")
            };
            match *kind {
                // What `--noise` was called before there were samplers to choose.
                "sampler" if is_noise(name) => config["noise"] = json!(name),
                kind => config[kind] = json!(name),
            }
        }
    }

    /// Settings of parts by flag.
    pub(super) fn settings(&self) -> impl Iterator<Item = (String, Value)> {
        self.settings.iter().cloned()
    }

    /// Settings by their place.
    pub(super) fn set(&self) -> Result<Vec<(String, Value)>, Box<dyn Error>> {
        let split = |text: &String| match text.split_once('=') {
            Some((path, given)) => Ok((path.trim().to_owned(), value(given.trim()))),
            None => Err(Usage(format!(
                "--set {text}: give a setting and its value, as in mask.drop=0.5"
            ))
            .into()),
        };
        self.set.iter().map(split).collect()
    }

    /// Adam's learning rate as a multiple of the method's.
    pub(crate) fn top_rate(&self) -> f64 {
        self.top_rate.unwrap_or(10.0)
    }

    /// Refuses whatever belongs to another run.
    pub(super) fn check_others(&self, name: &str) -> Result<(), Box<dyn Error>> {
        let others = [
            ("top", self.top.is_some(), "hybrid"),
            ("top-rate", self.top_rate.is_some(), "hybrid"),
            ("demonstrations", self.demonstrations.is_some(), "icl"),
        ];
        match others
            .iter()
            .find(|(_, given, owner)| *given && *owner != name)
        {
            None => Ok(()),
            Some((flag, _, owner)) => Err(Usage(format!(
                "--{flag} has no effect on --method {name}: it belongs to {owner}"
            ))
            .into()),
        }
    }
}

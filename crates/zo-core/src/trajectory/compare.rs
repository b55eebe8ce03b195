//! Where two runs part.

use std::collections::BTreeSet;

use serde_json::Value;

use super::reader::Trajectory;
use super::{Record, RecordedStep};

/// A place where two JSON values differ: its name, such as `optimizer.method.epsilon`, and both values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// The place.
    pub name: String,
    /// The value in the first, as JSON; `null` if it is missing.
    pub first: String,
    /// The value in the second.
    pub second: String,
}

/// The first step that two runs did not take alike.
#[derive(Debug, Clone, PartialEq)]
pub struct Parting {
    /// The step's number, from 0: as many steps are the same.
    pub step: usize,
    /// The step in the first run; `None` if that ended before.
    pub first: Option<RecordedStep>,
    /// The step in the second.
    pub second: Option<RecordedStep>,
}

/// What two trajectories have in common.
#[derive(Debug, Clone, PartialEq)]
pub struct Comparison {
    /// Where their headers differ.
    pub fields: Vec<Field>,
    /// Where their steps part; `None` if all are the same.
    pub parting: Option<Parting>,
    /// The number of steps after which their hashes of the weights first differ.
    pub weights: Option<usize>,
}

impl Comparison {
    /// Whether the two runs are one.
    pub fn is_same(&self) -> bool {
        self.fields.is_empty() && self.parting.is_none() && self.weights.is_none()
    }
}

impl Trajectory {
    /// Where this run and another part.
    pub fn compare(&self, other: &Self) -> Comparison {
        let header = |trajectory: &Self| serde_json::to_value(trajectory.header());
        let [first, second] = [self, other].map(|t| header(t).unwrap_or_default());
        let fields = differences(&first, &second);
        let (mut first, mut second) = (self.steps(), other.steps());
        let mut step = 0;
        let parting = loop {
            match (first.next(), second.next()) {
                (None, None) => break None,
                (first, second) if first == second => step += 1,
                (first, second) => {
                    break Some(Parting {
                        step,
                        first: first.cloned(),
                        second: second.cloned(),
                    });
                }
            }
        };
        let digests = |trajectory: &Self| {
            let numbered = trajectory.numbered();
            let digests = numbered.filter_map(|(step, record)| match record {
                Record::Digest { digest, .. } => Some((step, *digest)),
                _ => None,
            });
            digests.collect::<Vec<_>>()
        };
        let other = digests(other);
        let differs = |(step, digest): &(usize, super::Digest)| {
            let there = other.iter().find(|(there, _)| there == step);
            there.is_some_and(|(_, there)| there != digest)
        };
        let weights = digests(self).into_iter().find(differs);
        Comparison {
            fields,
            parting,
            weights: weights.map(|(step, _)| step),
        }
    }
}

/// All places where two values differ, in the order of their names.
pub fn differences(first: &Value, second: &Value) -> Vec<Field> {
    let mut found = Vec::new();
    collect("", first, second, &mut found);
    found
}

fn collect(name: &str, first: &Value, second: &Value, found: &mut Vec<Field>) {
    match (first, second) {
        (Value::Object(one), Value::Object(other)) => {
            let keys: BTreeSet<&String> = one.keys().chain(other.keys()).collect();
            for key in keys {
                let name = match name {
                    "" => key.clone(),
                    name => format!("{name}.{key}"),
                };
                let [first, second] = [one, other].map(|map| map.get(key).unwrap_or(&Value::Null));
                collect(&name, first, second, found);
            }
        }
        _ if first == second => {}
        _ => found.push(Field {
            name: name.to_owned(),
            first: first.to_string(),
            second: second.to_string(),
        }),
    }
}

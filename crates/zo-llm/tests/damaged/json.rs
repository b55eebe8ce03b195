//! Damage to a JSON value that leaves it JSON.

use rand::{Rng, RngExt};
use serde_json::{Map, Value, json};

/// Changes something somewhere in `value`; says where and what.
pub(crate) fn damage(value: &mut Value, rng: &mut impl Rng) -> String {
    let whole = value.clone();
    descend(value, &whole, String::new(), rng)
}

/// Descends to some place below `path` and changes it. Lists may be long, so each level gets a chance.
fn descend(node: &mut Value, whole: &Value, path: String, rng: &mut impl Rng) -> String {
    if path.is_empty() || rng.random_bool(0.7) {
        match node {
            Value::Object(map) if !map.is_empty() => {
                let at = rng.random_range(0..map.len());
                let (key, child) = map.iter_mut().nth(at).unwrap();
                return descend(child, whole, format!("{path}/{key}"), rng);
            }
            Value::Array(list) if !list.is_empty() => {
                let at = rng.random_range(0..list.len());
                return descend(&mut list[at], whole, format!("{path}/{at}"), rng);
            }
            _ => {}
        }
    }
    let what = change(node, whole, rng);
    format!("{path} {what}")
}

fn change(node: &mut Value, whole: &Value, rng: &mut impl Rng) -> String {
    if rng.random_bool(0.4)
        && let Some(what) = members(node, rng)
    {
        return what;
    }
    if let (true, Some(number)) = (rng.random_bool(0.5), node.as_i64()) {
        let others = [
            number.saturating_add(1),
            number.saturating_sub(1),
            number.saturating_neg(),
            number.saturating_mul(2),
            number.saturating_mul(1 << 20),
        ];
        *node = json!(others[rng.random_range(0..others.len())]);
        return format!("becomes {node}");
    }
    *node = match rng.random_range(0..24) {
        0 => Value::Null,
        1 => json!(rng.random_bool(0.5)),
        2 => json!(-1),
        3 => json!(0),
        4 => json!(1u64 << 31),
        5 => json!(1u64 << 32),
        6 => json!(u64::MAX),
        7 => json!(i64::MIN),
        8 => json!(1e300),
        9 => json!(0.5),
        10 => json!(""),
        11 => json!("x"),
        12 => json!("é\u{0}\u{feff}日本".repeat(3)),
        13 => json!([]),
        14 => json!({}),
        15 => json!(100_000_000),
        16 => json!(1u64 << 40),
        17 => json!(1_000_000_000_000u64),
        18 => json!("(?:(?:(?:a{999}){999}){999})"),
        19 => json!("(?=(a+)+b)((a*)*)*\\1"),
        20 => json!({"Regex": "(?:(?:x{999}){999}){999}"}),
        21 => {
            // Parts of tokenizers within one another, the innermost unknown.
            let parts = ["normalizers", "pretokenizers", "decoders", "processors"];
            let part = parts[rng.random_range(0..parts.len())];
            let mut deep = json!({"type": "Nothing"});
            for _ in 0..rng.random_range(1..100) {
                deep = json!({"type": "Sequence", part: [deep]});
            }
            deep
        }
        22 => {
            // As deeply nested as a reader allows.
            let mut deep = json!(1);
            for _ in 0..120 {
                deep = json!([deep]);
            }
            deep
        }
        _ => pick(whole, rng).clone(),
    };
    let text = node.to_string();
    format!("becomes {}", text.chars().take(60).collect::<String>())
}

/// A change to the members of a list or an object.
fn members(node: &mut Value, rng: &mut impl Rng) -> Option<String> {
    match node {
        Value::Object(map) if !map.is_empty() => {
            let at = rng.random_range(0..map.len());
            let key = map.keys().nth(at)?.clone();
            let other = map.keys().nth(rng.random_range(0..map.len()))?.clone();
            let value = map.remove(&key)?;
            Some(match rng.random_range(0..3) {
                0 => format!("lacks {key}"),
                1 => {
                    map.insert(format!("{key}x"), value);
                    format!("calls {key} {key}x")
                }
                _ => {
                    map.insert(other.clone(), value);
                    format!("has {key} as {other}")
                }
            })
        }
        Value::Array(list) if !list.is_empty() => {
            let (at, other) = (
                rng.random_range(0..list.len()),
                rng.random_range(0..list.len()),
            );
            Some(match rng.random_range(0..4) {
                0 => {
                    list.remove(at);
                    format!("lacks item {at}")
                }
                1 => {
                    list.push(list[at].clone());
                    format!("has item {at} twice")
                }
                2 => {
                    list.truncate(at);
                    format!("ends at item {at}")
                }
                _ => {
                    list.swap(at, other);
                    format!("has items {at} and {other} swapped")
                }
            })
        }
        _ => None,
    }
}

/// Some part of a value.
fn pick<'a>(mut value: &'a Value, rng: &mut impl Rng) -> &'a Value {
    while rng.random_bool(0.7) {
        let children: Vec<&Value> = match value {
            Value::Object(map) => map.values().collect(),
            Value::Array(list) => list.iter().collect(),
            _ => break,
        };
        if children.is_empty() {
            break;
        }
        value = children[rng.random_range(0..children.len())];
    }
    value
}

/// The text of a value, and what is odd about it: sometimes a repeated key, a byte-order mark, a number that JSON does not have, or lists
/// within lists.
pub(crate) fn text(value: &Value, rng: &mut impl Rng) -> (&'static str, String) {
    let mut text = value.to_string();
    let numbers: Vec<usize> = text
        .match_indices(':')
        .map(|(at, _)| at + 1)
        .filter(|at| text[*at..].starts_with(|c: char| c.is_ascii_digit()))
        .collect();
    if rng.random_bool(0.06) && !numbers.is_empty() {
        let start = numbers[rng.random_range(0..numbers.len())];
        let length = text[start..].find([',', '}', ']']).unwrap_or(0);
        let (what, number) = match rng.random_range(0..7) {
            0 => (", with NaN", "NaN".to_owned()),
            1 => (", with Infinity", "Infinity".to_owned()),
            2 => (", with -Infinity", "-Infinity".to_owned()),
            3 => (", with 1e999", "1e999".to_owned()),
            4 => (", with a number of 5000 digits", "7".repeat(5000)),
            5 => (", with a nest of 100,000 lists", "[".repeat(100_000)),
            _ => (
                ", with a nest of 100,000 objects",
                "{\"a\":".repeat(100_000),
            ),
        };
        text.replace_range(start..start + length, &number);
        return (what, text);
    }
    if let (true, Value::Object(map)) = (rng.random_bool(0.1), value) {
        let keys: Vec<&String> = map.keys().collect();
        if !keys.is_empty() {
            let key = keys[rng.random_range(0..keys.len())];
            let first: Map<String, Value> = [(key.clone(), json!(7))].into_iter().collect();
            let first = Value::Object(first).to_string();
            text = format!("{},{}", first.trim_end_matches('}'), &text[1..]);
        }
    }
    if rng.random_bool(0.03) {
        text.insert(0, '\u{feff}');
    }
    ("", text)
}

//! What a run depends on, written down, so that a checkpoint is not continued by another run.

use std::collections::BTreeSet;

use burn::module::{Module, ParamGroup};
use serde_json::{Map, Value};
use zo_core::noise::derive_seed;

use super::config::TrainerConfig;
use super::error::CheckpointError;
use super::schedule::Schedule;
use super::split::Split;
use super::weights::{file_dtype, visit};

/// How many values are looked at of a parameter that does not train.
const SAMPLE: usize = 256;

/// The name of the entry that [`parameters`] makes.
pub(super) const PARAMETERS: &str = "parameters";

/// Everything that the bits of a run depend on and that can be known: its settings, the parameters of its model, and what its task says of
/// itself. Where checkpoints and the trajectory are and how often they are written is not part of it, nor is the number of steps at a constant rate, which
/// may be raised, nor how many ranks there are and what they share: only the number of shards is.
pub(super) fn fingerprint<M: Module>(
    model: &M,
    config: &TrainerConfig,
    task: Value,
) -> Result<Value, CheckpointError> {
    let steps = match config.schedule {
        Schedule::Constant => 0,
        Schedule::Linear | Schedule::Cosine => config.steps,
    };
    let settings = TrainerConfig {
        steps,
        checkpoint_dir: None,
        checkpoint_every: 0,
        resume: false,
        trajectory: None,
        split: Split {
            shards: config.split.shards,
            ..Split::default()
        },
        ..config.clone()
    };
    let settings = serde_json::to_value(&settings).map_err(CheckpointError::Settings)?;
    let parameters = parameters(model, &config.trained)?;
    let mut all = Map::from_iter([(PARAMETERS.to_owned(), parameters)]);
    if let Value::Object(settings) = settings {
        all.extend(settings);
    }
    match task {
        Value::Object(task) => {
            for (name, value) in task {
                let name = match all.contains_key(&name) {
                    true => format!("task {name}"),
                    false => name,
                };
                all.insert(name, value);
            }
        }
        other => {
            all.insert("task".to_owned(), other);
        }
    }
    Ok(Value::Object(all))
}

/// A hash of numbers, in hexadecimal: of data, for [`Task::fingerprint`](super::Task::fingerprint).
pub fn digest(numbers: impl IntoIterator<Item = u64>) -> String {
    let numbers = numbers.into_iter();
    let hash = numbers.fold(0, |hash, number| derive_seed(hash, number, 0));
    format!("{hash:016x}")
}

/// The float parameters of `model` by path: shape, dtype, and a digest of some values of those that are not in `trained`.
///
/// # Errors
/// If none is in `trained`, or values cannot be read.
pub(super) fn parameters<M: Module>(
    model: &M,
    trained: &ParamGroup,
) -> Result<Value, CheckpointError> {
    let (mut all, mut trains) = (Map::new(), false);
    visit(model, trained, &mut |parameter| {
        let mut text = format!("{:?} {:?}", parameter.shape, parameter.dtype);
        trains |= parameter.trains;
        let readable = !parameter.shape.contains(&0) && file_dtype(parameter.dtype).is_some();
        if !parameter.trains && readable {
            let data = parameter.values(Some(SAMPLE))?;
            let word = |bytes: &[u8]| {
                bytes
                    .iter()
                    .fold(0, |word: u64, byte| word << 8 | u64::from(*byte))
            };
            let values = digest(data.as_bytes().chunks(8).map(word));
            text = format!("{text}, not trained, values {values}");
        }
        all.insert(parameter.path.to_owned(), Value::String(text));
        Ok(())
    })?;
    if trains {
        Ok(Value::Object(all))
    } else {
        let parameters = all.len();
        Err(CheckpointError::NothingTrained { parameters })
    }
}

/// The first place where `saved` and `asked` differ: its name, and both values.
pub(super) fn difference(name: &str, saved: &Value, asked: &Value) -> Option<[String; 3]> {
    match (saved, asked) {
        (Value::Object(saved), Value::Object(asked)) => {
            let keys: BTreeSet<&String> = saved.keys().chain(asked.keys()).collect();
            keys.into_iter().find_map(|key| {
                let name = match name {
                    "" => key.clone(),
                    name => format!("{name}.{key}"),
                };
                let [saved, asked] = [saved, asked].map(|map| map.get(key).unwrap_or(&Value::Null));
                difference(&name, saved, asked)
            })
        }
        _ if saved == asked => None,
        _ => Some([name.to_owned(), saved.to_string(), asked.to_string()]),
    }
}

#[cfg(test)]
mod tests {
    use burn::module::Param;
    use burn::tensor::{Device, Tensor};
    use serde_json::json;

    use super::*;

    #[test]
    fn the_first_difference_is_named() {
        let saved = json!({"lr": 0.1, "method": {"name": "mezo", "epsilon": 1e-3}, "seed": 1});
        let mut asked = saved.clone();
        assert_eq!(difference("", &saved, &asked), None);
        asked["seed"] = json!(2);
        let texts =
            |name: &str, saved: &str, asked: &str| Some([name, saved, asked].map(str::to_owned));
        assert_eq!(difference("", &saved, &asked), texts("seed", "1", "2"));
        asked["method"]["epsilon"] = json!(1e-2);
        assert_eq!(
            difference("", &saved, &asked),
            texts("method.epsilon", "0.001", "0.01")
        );
        asked["extra"] = json!([1]);
        assert_eq!(
            difference("", &saved, &asked),
            texts("extra", "null", "[1]")
        );
        assert_eq!(
            difference("", &asked, &saved),
            texts("extra", "[1]", "null")
        );
    }

    #[derive(Module, Debug)]
    struct Toy {
        base: Param<Tensor<2>>,
        factor: Param<Tensor<1>>,
    }

    fn toy(base: f32, factor: f32) -> Toy {
        let device = Device::flex();
        Toy {
            base: Param::from_tensor(Tensor::full([30, 20], base, &device)),
            factor: Param::from_tensor(Tensor::full([3], factor, &device)),
        }
    }

    #[test]
    fn parameters_that_do_not_train_are_known_by_their_values() {
        let factor = ParamGroup::from_path("factor");
        let parameters = |base, value| parameters(&toy(base, value), &factor).unwrap();
        let one = parameters(1.0, 1.0);
        assert_eq!(one["factor"], "[3] F32");
        assert_eq!(one, parameters(1.0, 2.0));
        let other = parameters(1.5, 1.0);
        let [name, ..] = difference("parameters", &one, &other).unwrap();
        assert_eq!(name, "parameters.base");
        let none = super::parameters(&toy(1.0, 1.0), &ParamGroup::from_path("bias"));
        let error = none.unwrap_err().to_string();
        assert!(error.contains("none of the 2"), "{error}");
    }

    #[test]
    fn what_the_task_says_hides_no_setting() {
        let config = TrainerConfig::default();
        let all = |task| fingerprint(&toy(1.0, 1.0), &config, task).unwrap();
        let named = all(json!({ "rows": 8, "lr": 3 }));
        assert_eq!((&named["rows"], &named["task lr"]), (&json!(8), &json!(3)));
        assert_eq!(named["lr"], json!(config.lr));
        assert_eq!(all(json!("8 rows"))["task"], "8 rows");
    }
}

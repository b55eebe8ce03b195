use serde::Deserialize;
use serde_json::json;

use super::*;
use crate::error::ZoError;
use crate::mask::SelectContext;
use crate::selection::{Choice, Selection};

/// A mask with two settings and a memory.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct EveryOther {
    offset: usize,
    share: f64,
    #[serde(skip)]
    seen: Vec<u64>,
}

impl Default for EveryOther {
    fn default() -> Self {
        Self {
            offset: 1,
            share: 0.5,
            seen: Vec::new(),
        }
    }
}

impl SparsityMask for EveryOther {
    fn select(&mut self, step: &mut SelectContext<'_>) -> Result<Selection, ZoError> {
        self.seen.push(step.step());
        Ok(Selection::of(step.tensors(), |_| Some(Choice::WHOLE)))
    }

    fn validate(&self) -> Result<(), ConfigError> {
        match self.offset {
            0..2 => Ok(()),
            other => Err(ConfigError::setting("offset", other, "0 or 1")),
        }
    }
}

fn other() -> Method {
    Method::new().with_epsilon(1e-2).with_mask(EveryOther {
        share: 0.25,
        ..EveryOther::default()
    })
}

fn registry() -> Registry {
    Registry::new()
        .with_mask::<EveryOther>("every other tensor")
        .with_preset(Preset {
            name: "other",
            about: "a method of the test",
            method: other,
            lr_factor: 1.0,
        })
}

fn error(config: Value) -> String {
    registry().method(&config).unwrap_err().to_string()
}

#[test]
fn a_configuration_changes_what_it_names_and_nothing_else() {
    let method = |config: Value| registry().method(&config).unwrap().resolved();
    let plain = method(json!({}));
    assert_eq!(plain.mask, PartConfig::new("dense"));
    let settings = |config: Value| registry().method(&config).unwrap().settings;
    assert_eq!(settings(json!({})).epsilon, 1e-3);
    let preset = method(json!({ "method": "other", "queries": 3, "noise": "rademacher" }));
    let both = settings(json!({ "method": "other", "queries": 3 }));
    assert_eq!((both.epsilon, both.queries), (1e-2, 3));
    assert_eq!(preset.noise.name, "rademacher");
    assert_eq!(preset.mask.to_string(), "every-other offset=1 share=0.25");
    // Settings of the method's own part, and a part from its defaults.
    let own = method(json!({ "method": "other", "mask": { "offset": 0 } }));
    assert_eq!(own.mask.to_string(), "every-other offset=0 share=0.25");
    let named = json!({ "name": "every-other", "offset": 0 });
    let named = method(json!({ "mask": named }));
    assert_eq!(named.mask.to_string(), "every-other offset=0 share=0.5");
    let dense = method(json!({ "method": "other", "mask": "dense" }));
    assert_eq!(dense.mask, PartConfig::new("dense"));
    assert!(method(json!({ "sampler": "none" })).sampler.is_none());
    assert!(method(json!({ "sampler": null })).sampler.is_none());
}

/// What a method says of itself builds the same method again.
#[test]
fn a_resolved_configuration_is_a_configuration() {
    let first = registry().method(&json!({ "method": "other", "seed": u64::MAX }));
    let resolved = first.unwrap().config();
    let again = registry().method(&resolved).unwrap();
    assert_eq!(again.config(), resolved);
    assert_eq!(again.settings.seed, u64::MAX);
}

#[test]
fn what_is_unknown_is_named_with_what_there_is() {
    let cases = [
        (
            json!({ "method": "othr" }),
            "unknown method `othr`: use one of other",
        ),
        (
            json!({ "mask": "every" }),
            "unknown mask `every`: use one of dense, every-other",
        ),
        (
            json!({ "update": { "name": "adam" } }),
            "unknown update `adam`: use one of sgd",
        ),
        (
            json!({ "noise": "pink" }),
            "unknown noise `pink`: use one of gaussian, rademacher",
        ),
        (
            json!({ "mask": { "name": "every-other", "off": 1 } }),
            "unknown setting `mask.off`: use one of offset, share",
        ),
        (
            json!({ "mask": { "drop": 1 } }),
            "mask.drop is 1: it must be left out: `dense` has no settings",
        ),
        (
            json!({ "epsilom": 1 }),
            "unknown setting `epsilom`: use one of ",
        ),
    ];
    for (config, expected) in cases {
        let error = error(config);
        assert!(error.starts_with(expected), "{error}");
    }
}

#[test]
fn values_of_another_kind_are_refused_with_their_place() {
    for (config, expected) in [
        (json!([1]), "method is [1]"),
        (json!({ "method": 3 }), "method is 3"),
        (json!({ "mask": 3 }), "mask is 3"),
        (
            json!({ "mask": { "name": "every-other", "share": "half" } }),
            "mask is {\"share\":\"half\"}",
        ),
        (json!({ "queries": -1 }), "a setting is"),
        (json!({ "queries": 0 }), "queries is 0"),
        (
            json!({ "mask": { "name": "every-other", "offset": 7 } }),
            "offset is 7",
        ),
    ] {
        let error = error(config);
        assert!(error.starts_with(expected), "{error}");
    }
}

#[test]
fn a_part_of_the_same_name_takes_the_place_of_the_old_one() {
    #[derive(Debug, Clone, Default, Serialize, Deserialize)]
    struct Mine;
    impl SparsityMask for Mine {
        fn select(&mut self, _: &mut SelectContext<'_>) -> Result<Selection, ZoError> {
            Ok(Selection::all(0))
        }

        fn name(&self) -> String {
            "dense".to_owned()
        }
    }
    let registry = registry().with_mask::<Mine>("mine");
    let dense = registry.parts().filter(|part| part.name == "dense");
    assert_eq!(dense.map(|part| part.about).collect::<Vec<_>>(), ["mine"]);
}

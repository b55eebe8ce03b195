//! The published golden values of the noise are what the library computes.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;

use burn::tensor::{Device, Shape, Tensor};
use serde_json::Value;
use zo_optim::backend::{Sweep, sweep};
use zo_optim::{Basis, BasisKind, Direction, Noise, TensorKey};

fn published() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/noise-vectors.json");
    std::fs::read_to_string(path).unwrap()
}

#[test]
fn the_reference_gives_the_published_values() {
    let (published, computed) = (published(), zo_examples::noise_vectors::text());
    for (line, (published, computed)) in published.lines().zip(computed.lines()).enumerate() {
        assert_eq!(published, computed, "line {}", line + 1);
    }
    assert!(published == computed);
}

fn number(case: &Value, field: &str) -> u64 {
    let digits = case[field].as_str().unwrap().trim_start_matches("0x");
    u64::from_str_radix(digits, 16).unwrap()
}

fn bits(case: &Value) -> Vec<u32> {
    let texts = case["bits"].as_array().unwrap().iter();
    let digits = texts.map(|text| text.as_str().unwrap().trim_start_matches("0x"));
    digits
        .map(|digits| u32::from_str_radix(digits, 16).unwrap())
        .collect()
}

/// Goes from zeros of this shape to the direction; the bits that are there then.
fn pass<const D: usize>(case: &Value, shape: [usize; D], to: &Direction) -> Vec<u32> {
    let key = TensorKey::new(case["path"].as_str().unwrap());
    let zeros = Tensor::<D>::zeros(Shape::from(shape), &Device::flex());
    let moved = sweep(zeros, Sweep::new(key, 1.0, &Direction::zero(), to));
    let values = moved.into_data().try_into_vec::<f32>().unwrap();
    values.into_iter().map(f32::to_bits).collect()
}

#[test]
fn a_pass_moves_weights_by_the_published_values() {
    let published: Value = serde_json::from_str(&published()).unwrap();
    let cases = |section: &str| published[section].as_array().unwrap().clone();
    let mut compared = 0;
    for (section, noise) in [
        ("gaussian", Noise::Gaussian),
        ("rademacher", Noise::Rademacher),
    ] {
        for case in cases(section) {
            let (first, expected) = (number(&case, "first") as usize, bits(&case));
            if first > 1 << 20 {
                continue;
            }
            let to = Direction::noise(noise, number(&case, "seed"));
            let found = pass(&case, [first + expected.len()], &to);
            assert_eq!(found[first..], expected, "{case}");
            compared += 1;
        }
    }
    for case in cases("low_rank") {
        let kind: BasisKind = serde_json::from_value(case["kind"].clone()).unwrap();
        let of = |field: &Value| field.as_u64().unwrap() as usize;
        let basis = Basis::new(kind, of(&case["rank"]), number(&case, "basis"));
        let to = Direction::low_rank(&basis, Noise::Gaussian, number(&case, "seed"));
        let shape = [of(&case["shape"][0]), of(&case["shape"][1])];
        assert_eq!(pass(&case, shape, &to), bits(&case), "{case}");
        compared += 1;
    }
    assert_eq!(compared, 2 * 4 * 3 + 8);
}

//! Steps that cannot work, refused before a weight is touched.

use burn::tensor::TensorData;

use super::*;
use crate::selection::Elements;

#[derive(Module, Debug)]
struct One {
    w: Param<Tensor<1>>,
}

fn one(values: &[f32], dtype: DType) -> One {
    let data = TensorData::new(values.to_vec(), [values.len()]);
    let w = Tensor::<1>::from_data(data, &devices()[0]).cast(dtype);
    One {
        w: Param::from_tensor(w),
    }
}

fn values(one: &One) -> Vec<f32> {
    one.w.val().to_data().iter().collect()
}

/// Losses whose difference is `size`, from an objective that reads the weights.
fn steep(size: f64) -> impl FnMut(&One) -> f64 {
    let mut calls = 0;
    move |one: &One| {
        let _ = one.w.val();
        calls += 1;
        size * f64::from(calls % 2)
    }
}

/// The error of a step that must leave the weights as they were, within rounding.
fn refused(epsilon: f64, lr: f64, size: f64, start: &[f32], dtype: DType) -> ZoError {
    let step = mezo(epsilon).step(lr, one(start, dtype), steep(size));
    let failed = step.unwrap_err();
    let before = values(&one(start, dtype));
    for (a, b) in values(&failed.module).into_iter().zip(before) {
        assert!((a - b).abs() <= 1e-2 * b.abs() + 1e-6, "{b} became {a}");
    }
    failed.error
}

#[test]
fn numbers_that_do_not_fit_the_weights_are_refused() {
    let start = [0.5, -0.25, 1.0, 2.0];
    let overflows = |error: ZoError| {
        assert!(
            matches!(&error, ZoError::Overflow { path, .. } if path == "w"),
            "{error}"
        );
    };
    let f32 = DType::F32;
    overflows(refused(1e-3, 1.0, 1e36, &start, f32));
    overflows(refused(1e-3, 1e37, 1.0, &start, f32));
    overflows(refused(1e39, 1e-3, 1.0, &start, f32));
    overflows(refused(1e38, 1e-3, 1.0, &start, f32));
    #[cfg(feature = "flex")]
    {
        overflows(refused(1e-2, 1.0, 2e3, &start, DType::F16));
        overflows(refused(1e5, 1e-3, 1.0, &start, DType::F16));
        // Neither is out of range alone; their sum is. (The weights are read to find out.)
        overflows(refused(20.0, 1e-3, 1.0, &[65504.0, 60000.0], DType::F16));
        overflows(refused(1e-2, 1.0, 1e37, &start, DType::BF16));
        let fits = mezo(1e-2).step(1.0, one(&start, DType::F64), steep(1e37));
        assert!(fits.is_ok(), "f64 holds it");
    }
}

#[test]
fn an_epsilon_that_moves_nothing_is_refused() {
    let too_small = |error: ZoError| {
        assert!(error.to_string().contains("it must be larger"), "{error}");
    };
    let start: Vec<f32> = (0..1000).map(|i| 0.5 + i as f32 * 1e-4).collect();
    too_small(refused(1e-9, 1e-3, 1.0, &start, DType::F32));
    too_small(refused(1e-60, 1e-3, 1.0, &start, DType::F32));
    #[cfg(feature = "flex")]
    {
        too_small(refused(1e-4, 1e-3, 1.0, &start, DType::BF16));
        // Zeros move even by the least that a dtype can hold.
        let fits = mezo(1e-4).step(1e-3, one(&[0.0; 8], DType::BF16), steep(1.0));
        assert!(fits.is_ok());
    }
    let fits = mezo(1e-6).step(1e-3, one(&start, DType::F32), steep(1.0));
    assert!(fits.is_ok());
}

/// As on the fly, where the weights themselves tell.
#[test]
fn an_objective_that_ignores_its_module_is_found_out() {
    let start = || one(&[1.0, 2.0], DType::F32);
    let other = start();
    let loss = |one: &One| one.w.val().square().sum();
    let failed = mezo(1e-3).step(1e-2, start(), |_: &One| loss(&other));
    let failed = failed.unwrap_err();
    assert!(
        matches!(failed.error, ZoError::Ignored { loss: 5.0 }),
        "{failed}"
    );
    // The same loss everywhere, from one that looks, is a plateau; other losses from one that does not look are its own affair.
    let plateau = |one: &One| loss(one) * 0.0;
    assert!(mezo(1e-3).step(1e-2, start(), plateau).is_ok());
    let mut calls = 0.0;
    let counting = |_: &One| {
        calls += 1.0;
        calls
    };
    assert!(mezo(1e-3).step(1e-2, start(), counting).is_ok());
}

/// A mask that always answers the same.
#[derive(Clone, Serialize)]
struct Answers(Selection);

impl SparsityMask for Answers {
    fn select(&mut self, _: &mut SelectContext<'_>) -> Result<Selection, ZoError> {
        Ok(self.0.clone())
    }
}

#[test]
fn selections_are_checked() {
    let random = |keep| Choice::some(Elements::Random { seed: 1, keep });
    let threshold = f64::NAN;
    for (answer, expected) in [
        (vec![], "0 entries"),
        (vec![None, None], "2 entries"),
        (vec![Some(Choice::scaled(f64::NAN))], "`w`"),
        (vec![Some(random(0.0))], "`w`"),
        (vec![Some(random(1.5))], "`w`"),
        (
            vec![Some(Choice::some(Elements::Small { threshold }))],
            "`w`",
        ),
    ] {
        let mask = Answers(Selection(answer));
        let mut optim = Method::new().with_mask(mask).init().unwrap();
        let failed = optim.step(1e-2, one(&[1.0], DType::F32), steep(1.0));
        let failed = failed.unwrap_err();
        assert!(failed.to_string().contains(expected), "{failed}");
        assert_eq!(values(&failed.module), [1.0]);
    }
}

#[test]
fn weight_decay_goes_by_the_first_group_that_matches() {
    let settings = Settings {
        weight_decay: 0.5,
        weight_decay_groups: vec![
            (ParamGroup::from_path("b"), 0.25),
            (ParamGroup::all(), 0.125),
        ],
        ..Settings::default()
    };
    let device = &devices()[0];
    let tensors = tensors::tensors(&weights(device, DType::F32), &ParamGroup::all()).unwrap();
    let decays = tensors
        .iter()
        .map(|tensor| settings.weight_decay_of(tensor));
    assert_eq!(decays.collect::<Vec<_>>(), [0.125, 0.25]);
}

//! Records that do not fit are refused, and leave the optimizer as it was.

#![allow(clippy::unwrap_used, reason = "tests")]
#![cfg_attr(
    feature = "ndarray",
    allow(
        deprecated,
        reason = "burn deprecates its ndarray backend; it is supported here as long as burn has it"
    )
)]

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};
use zo_optim::testing::{Target, Toy, flat, toy};
use zo_optim::variants::*;
use zo_optim::*;

fn steps<O: ZerothOrderOptimizer>(optimizer: &mut O, steps: usize) -> Vec<f64> {
    let mut module = toy(&Device::default());
    for _ in 0..steps {
        let loss = |toy: &Toy| Target::Hyperboloid.loss(toy);
        module = optimizer.step(5e-3, module, loss).unwrap().0;
    }
    flat(&module)
}

/// Breaks a good record, and checks the error and that nothing has changed.
fn refuses<O: ZerothOrderOptimizer>(
    make: impl Fn() -> Result<O, ConfigError>,
    spoil: impl Fn(&mut OptimizerRecord),
    expected: &str,
) {
    let mut other = make().unwrap();
    steps(&mut other, 5);
    let mut record = other.record();
    spoil(&mut record);
    let (mut optimizer, mut untouched) = (make().unwrap(), make().unwrap());
    for optimizer in [&mut optimizer, &mut untouched] {
        steps(optimizer, 2);
    }
    let error = optimizer.load_record(record).unwrap_err().to_string();
    assert!(error.contains(expected), "{error}");
    assert_eq!(optimizer.record(), untouched.record());
    assert_eq!(steps(&mut optimizer, 3), steps(&mut untouched, 3));
}

#[test]
fn a_record_that_does_not_fit_changes_nothing() {
    let momentum = || variants::momentum().init();
    let adam = || variants::adam().init();
    refuses(momentum, |r| r.buffers.clear(), "is missing, expected `");
    refuses(adam, |r| drop(r.buffers.remove("v.embed")), "`v.embed`");
    let add = |r: &mut OptimizerRecord| {
        let extra = r.buffers["m.embed"].clone();
        r.buffers.insert("m.nobody".to_owned(), extra);
    };
    refuses(adam, add, "is `m.nobody`, expected none");
    let late = |r: &mut OptimizerRecord| r.parts["update"]["steps"]["embed"] = 6.into();
    refuses(momentum, late, "`embed` at step 6");
    // Its mask fits and is restored before the update rule's state is refused.
    let lezo = || ada_lezo().init();
    refuses(
        lezo,
        |r| r.parts["update"] = true.into(),
        "expected no state",
    );
}

#[test]
fn the_record_of_another_model_is_found_by_the_next_step() {
    #[derive(Module, Debug)]
    struct One {
        b: Param<Tensor<1>>,
    }
    let one = |size: usize| One {
        b: Param::from_tensor(Tensor::ones([size], &Device::default())),
    };
    let loss = |one: &One| one.b.val().sum();
    let mut trained = momentum().init().unwrap();
    let (_, _) = trained.step(1e-2, one(7), loss).unwrap();
    for size in [1, 6] {
        let mut optimizer = momentum().init().unwrap();
        optimizer.load_record(trained.record()).unwrap();
        let failed = optimizer.step(1e-2, one(size), loss).unwrap_err();
        assert!(
            matches!(&failed.error, ZoError::Parameter { path, .. } if path == "b"),
            "{failed}"
        );
        assert_eq!(flat(&failed.module), vec![1.0; size]);
        // Without a record in between, the buffers themselves tell.
        let failed = trained.step(1e-2, one(size), loss).unwrap_err();
        assert!(
            matches!(&failed.error, ZoError::Parameter { path, reason } if path == "b" && reason.contains(&format!("has {size} value(s), and the optimizer keeps 7"))),
            "{failed}"
        );
    }
}

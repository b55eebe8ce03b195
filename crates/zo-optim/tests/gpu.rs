//! The common test on a GPU device: one row for each kind of sampler, mask and update.
//!
//! `cargo test -p zo-optim --features wgpu --test gpu` (a software device will do), or `--features cuda`.

#![cfg(any(feature = "wgpu", feature = "cuda"))]
#![allow(clippy::unwrap_used, reason = "tests")]

use burn::tensor::{DType, Device};
use zo_optim::testing::{Common, Setup, Target, check_common, toy};
use zo_optim::variants::*;
use zo_optim::*;

fn devices() -> Vec<Device> {
    vec![
        #[cfg(feature = "wgpu")]
        Device::wgpu(burn::tensor::DeviceKind::DefaultDevice),
        #[cfg(feature = "cuda")]
        Device::cuda(burn::tensor::DeviceIndex::Default),
    ]
}

/// Fewer steps than on a CPU, where a minimum is reached: a launch on a software device takes its time.
fn check(lr: f64, reach: f64, method: &Method) {
    let devices = devices();
    let supported = |dtype: &DType| devices[0].supports_dtype(*dtype);
    let dtypes = [DType::BF16, DType::F16].into_iter().filter(supported);
    let options = Common {
        lr,
        steps: 100,
        reach,
        dtypes: dtypes.collect(),
        devices: devices.clone(),
        thorough: false,
        ..Common::default()
    };
    let make = |setup: Setup| setup.apply(method.clone()).init().unwrap();
    check_common(make, &options).unwrap();
}

macro_rules! methods {
    ($($name:ident: $lr:expr, $reach:expr, $method:expr;)*) => {$(
        #[test]
        fn $name() {
            check($lr, $reach, &$method);
        }
    )*};
}

methods! {
    mezo: 0.02, 0.7, zo_optim::mezo();
    mezo_rademacher: 0.02, 0.7, zo_optim::mezo().with_noise(Noise::Rademacher);
    gv: 0.01, 0.8, mezo_gv();
    lezo: 0.03, 0.8, zo_optim::lezo();
    adam: 0.1, 0.85, variants::adam();
    adam_window: 0.1, 0.8, variants::adam_window();
    sign_elementwise: 0.02, 0.9, variants::sign_elementwise();
    sparse_random: 0.06, 0.85, variants::sparse_random();
    sparse_magnitude: 0.03, 0.85, variants::sparse_magnitude().with_mask(Sparse::new().with_kind(SparseKind::Magnitude).with_sparsity(0.3).with_refresh(25));
}

/// No tensor is written out of place, and a clone keeps its values.
#[test]
fn steps_are_in_place() {
    for device in devices() {
        // A lazy device makes the last pass of a step in the next one, where only a session still counts it.
        let mut session = zo_optim::mezo()
            .init()
            .unwrap()
            .session(toy(&device))
            .unwrap();
        for _ in 0..4 {
            let step = session.step(0.01, |toy: &_| Target::Sphere.loss(toy));
            assert_eq!(step.unwrap().copied, 0);
        }
        drop(session);
        let (mut optimizer, module) = (zo_optim::mezo().init().unwrap(), toy(&device));
        let clone = module.clone();
        let before = Target::Sphere.loss(&clone).into_scalar::<f32>();
        let step = optimizer.step(0.01, module, |toy: &_| Target::Sphere.loss(toy));
        let (_, report) = step.unwrap();
        assert!(report.copied > 0);
        assert_eq!(Target::Sphere.loss(&clone).into_scalar::<f32>(), before);
    }
}

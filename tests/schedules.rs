//! burn's learning-rate schedulers drive a zeroth-order optimizer.
#![cfg(feature = "autodiff")] // burn ships its schedulers with its optimizers, and those need autodiff
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use burn::lr_scheduler::linear::LinearLrSchedulerConfig;
use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};
use zo_optim::prelude::*;

#[derive(Module, Debug)]
struct Model {
    weight: Param<Tensor<1>>,
}

#[test]
fn a_linear_schedule_ends_the_run_at_rest() {
    let weight = Tensor::ones([8], &Device::flex());
    let mut model = Model {
        weight: Param::from_tensor(weight),
    };
    let mut schedule = LinearLrSchedulerConfig::new(0.05, 0.0, 100).init().unwrap();
    let mut optim = mezo().init().unwrap();
    let loss = |m: &Model| m.weight.val().square().sum();
    let mut moved = Vec::new();
    for _ in 0..120 {
        let before = model.weight.val().into_data();
        let lr = schedule.step().base();
        model = optim.step(lr, model, loss).unwrap().0;
        moved.push(model.weight.val().into_data() != before);
    }
    assert!(moved[..50].iter().all(|moved| *moved));
    assert!(model.weight.val().square().sum().into_scalar::<f32>() < 0.1);
    let after: Vec<f32> = model.weight.val().into_data().iter().collect();
    assert!(after.iter().all(|w| w.is_finite()));
}

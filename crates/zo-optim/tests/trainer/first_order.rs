//! burn's optimizers in the same loop: under a hybrid's boundary, and for all.

use burn::module::ParamGroup;
use burn::optim::AdamConfig;
use zo_optim::Backpropagation;
use zo_optim::prelude::*;
use zo_optim::trainer::{Event, TrainerConfig};
use zo_optim::variants::HybridConfig;

use crate::resume::ends_the_same;
use crate::{Told, config, net, quiet, run};

fn plan() -> TrainerConfig {
    TrainerConfig {
        eval_every: 5,
        ..config(13)
    }
}

#[test]
fn a_hybrid_ends_with_the_same_bits() {
    let build = || {
        let head = HybridConfig::new(ParamGroup::from_path("head"));
        head.init(&mezo(), AdamConfig::new().init()).unwrap()
    };
    ends_the_same("hybrid", || net(1), build, &plan(), &[1, 3, 5, 8]);
}

#[test]
fn backpropagation_ends_with_the_same_bits_and_learns() {
    let build = || Backpropagation::new(AdamConfig::new().init(), ParamGroup::all());
    ends_the_same("backpropagation", || net(1), build, &plan(), &[1, 3, 5, 8]);
    let observe = |event: Told<'_>| {
        if let Event::Stepped { report, .. } = event {
            assert_eq!((report.forwards, report.passes), (1, 1));
            assert!(report.loss().is_finite());
        }
        Ok(())
    };
    let done = run(net(1), &mut build(), &config(200), observe).unwrap();
    let [first, last] = done.evaluations[..] else {
        panic!("{:?}", done.evaluations)
    };
    assert!(last.loss < 0.8 * first.loss, "{first:?}, {last:?}");
}

#[test]
fn backpropagation_refuses_parameters_that_share_an_id() {
    let mut twins = net(1);
    twins.layers[1] = twins.layers[0].clone();
    let mut optim = Backpropagation::new(AdamConfig::new().init(), ParamGroup::all());
    let error = optim.step(1e-3, twins, |net| net.loss(&[1])).unwrap_err();
    let message = error.to_string();
    assert!(message.contains("has the same id as"), "{message}");
    run(net(1), &mut optim, &config(1), quiet).unwrap();
}

//! Several updates in a step: what is evaluated where, and what a failed step leaves.

use serde_json::Value;

use super::*;
use crate::difference::Difference;
use crate::error::RecordError;
use crate::evaluator::Evaluator;
use crate::mask::Observation;
use crate::part::Needs;
use crate::record::{Buffers, from_record};
use crate::update::no_buffers;

/// One tensor per round, updated before the next is measured; counts what it selects and what it observes.
#[derive(Clone, Default, Serialize)]
struct Turns {
    #[serde(skip)]
    selected: u64,
    #[serde(skip)]
    observed: u64,
}

impl SparsityMask for Turns {
    fn select(&mut self, step: &mut SelectContext<'_>) -> Result<Selection, ZoError> {
        self.selected += 1;
        let choose = |number: usize| (number == step.round()).then_some(Choice::WHOLE);
        Ok(Selection((0..step.tensors().len()).map(choose).collect()))
    }

    fn rounds(&self, tensors: &[TensorInfo]) -> Result<usize, ZoError> {
        Ok(tensors.len())
    }

    fn needs(&self) -> Needs {
        Needs {
            updates_each_round: true,
            ..Needs::default()
        }
    }

    fn observe(&mut self, _: &Observation<'_>) {
        self.observed += 1;
    }

    fn record(&self) -> Value {
        [self.selected, self.observed].to_vec().into()
    }
}

/// SGD that counts its updates.
#[derive(Clone, Default, Serialize)]
struct Counting(#[serde(skip)] u64);

impl UpdateRule for Counting {
    fn update(&mut self, step: &mut UpdateContext<'_>) -> Result<Change<'_>, ZoError> {
        self.0 += 1;
        Ok(Change::Linear(
            step.estimate().gradient().scaled(-step.lr()),
        ))
    }

    fn record(&self) -> Value {
        self.0.into()
    }

    fn load_record(&mut self, record: Value, buffers: Buffers) -> Result<(), RecordError> {
        no_buffers(&buffers)?;
        self.0 = from_record("update rule", record)?;
        Ok(())
    }
}

fn in_turns(settings: Settings) -> ZeroOrder {
    let method = Method::of(settings).with_mask(Turns::default());
    method.with_update(Counting::default()).init().unwrap()
}

fn loss(weights: &Weights) -> f64 {
    flat(weights).iter().map(|w| w * w).sum()
}

/// L(theta) is measured anew after an update, and the report gives the first: that of the weights before the step.
#[test]
fn one_sided_differences_compare_with_the_weights_of_their_round() {
    let settings = Settings {
        difference: Difference::OneSided,
        ..Settings::default()
    };
    let device = &devices()[0];
    let begin = loss(&weights(device, DType::F32));
    let mut losses = Vec::new();
    let watch = |weights: &Weights| {
        losses.push(loss(weights));
        loss(weights)
    };
    let (end, report) = in_turns(settings)
        .step(1e-5, weights(device, DType::F32), watch)
        .unwrap();
    assert_eq!((report.forwards, report.queries.len()), (4, 2));
    assert_eq!(report.loss_unperturbed, Some(begin));
    assert_eq!(report.queries[0].loss_other, begin);
    // The second round begins where the first has ended.
    assert_eq!(report.queries[1].loss_other, losses[2]);
    assert_ne!(losses[2], begin);
    assert_ne!(flat(&end), flat(&weights(device, DType::F32)));
}

/// A later round that fails restores the weights and the rule, and the mask observes nothing, whether the step fails or is skipped.
#[test]
fn a_failed_round_takes_everything_back() {
    let device = &devices()[0];
    for non_finite in [NonFinite::Error, NonFinite::Skip] {
        let settings = Settings {
            non_finite,
            weight_decay: 0.5,
            ..Settings::default()
        };
        let mut optim = in_turns(settings);
        let start = weights(device, DType::F32);
        let module = optim.step(1e-6, start, loss).unwrap().0;
        let (before, at) = (optim.record(), flat(&module));
        assert_eq!(before.parts["update"], 2);
        assert_eq!(before.parts["mask"], serde_json::json!([2, 2]));
        let mut calls = 0;
        let failing = |weights: &Weights| {
            calls += 1;
            if calls == 4 { f64::NAN } else { loss(weights) }
        };
        let skip = non_finite == NonFinite::Skip;
        let module = match optim.step(1e-6, module, failing) {
            Ok((module, report)) => {
                assert!(skip && report.skipped);
                module
            }
            Err(failed) => {
                assert!(!skip);
                failed.module
            }
        };
        for (a, b) in at.iter().zip(flat(&module)) {
            assert!((a - b).abs() <= 4.0 * ulp(a.abs() + 7e-3, 24), "{a} {b}");
        }
        let expected = OptimizerRecord {
            step: 1 + u64::from(skip),
            ..before
        };
        assert_eq!(optim.record(), expected);
    }
}

/// Each update of a step has random bits of its own for its rounding.
///
/// Half an ulp there and half an ulp back: with bits of their own half of the weights return. With the same bits twice none does: those
/// that were rounded up stay there, and those that were not are rounded down.
#[cfg(feature = "flex")]
#[test]
fn updates_of_one_step_are_rounded_apart() {
    let n = 4096;
    let settings = Settings {
        rounding: Rounding::Stochastic,
        ..Settings::default()
    };
    let device = Device::flex();
    let module = Weights {
        a: Param::from_tensor(Tensor::<2>::full([64, 64], 1.5, &device).cast(DType::BF16)),
        b: Param::from_tensor(Tensor::zeros([1], &device)),
    };
    let tensors = tensors::tensors(&module, &ParamGroup::from_path("a")).unwrap();
    let mut perturbed = Perturbed::new(module, tensors.into());
    let objective = crate::objective::Losses(idle);
    let mut at = Evaluator::new(&mut perturbed, objective, 1e-3, 3, false);
    let mut journal = Journal::default();
    let half = Direction::noise(Noise::Rademacher, 1).scaled(1.0 / 256.0);
    for sign in [1.0, -1.0] {
        journal.select(Selection::all(2), &at.tensors()).unwrap();
        let change = Change::Linear(journal.masked(&half.scaled(sign)));
        journal
            .update((3, 0.0), change, &settings, &mut at)
            .unwrap();
    }
    let returned = flat(perturbed.module())[..n]
        .iter()
        .filter(|w| **w == 1.5)
        .count();
    // 10 standard deviations of a binomial.
    assert!(returned.abs_diff(n / 2) < 320, "{returned} of {n}");
}

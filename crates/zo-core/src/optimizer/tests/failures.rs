//! Steps that fail, in a session.

use super::*;
use crate::error::ConfigError;
use crate::settings::NonFinite;

/// The scripted losses, but NaN at evaluation number `bad`, from 0.
fn failing(bad: usize) -> impl FnMut(&Net) -> f64 {
    let (mut losses, mut calls) = (scripted(), 0);
    move |net: &Net| {
        calls += 1;
        let loss = losses(net);
        if calls == bad + 1 { f64::NAN } else { loss }
    }
}

#[test]
fn a_module_that_cannot_train_comes_back() {
    let settings = Settings {
        trainable: burn::module::ParamGroup::from_path("head"),
        ..Settings::default()
    };
    let error = with(settings, Dense).session(net()).unwrap_err();
    let nothing = ZoError::NothingToTrain { parameters: 2 };
    assert_eq!(error.to_string(), nothing.to_string());
    assert_eq!(flat(&error.module), flat(&net()));
}

/// The update of the last good step is kept, and what the failed step has done is undone.
#[test]
fn a_failed_step_loses_nothing() {
    let good = 5;
    let start = || in_session(mezo(), net(), LR, good, scripted()).0;
    let expected = flat(start().model());
    for bad in [0, 1] {
        let mut session = start();
        let error = session.step(LR, failing(bad)).unwrap_err();
        assert!(matches!(error, ZoError::NonFiniteLoss { .. }), "{error}");
        let passes = session.passes();
        assert_close(&flat(session.model()), &expected, 24, 1);
        assert_eq!(session.passes(), passes, "it stands at its weights");
        assert_eq!(session.optimizer().record().step, good as u64);
        let report = session.step(LR, scripted()).unwrap();
        assert_eq!((report.step, report.passes), (good as u64, 2));
    }
    let mut session = start();
    let error = session.step(f64::NAN, scripted()).unwrap_err();
    assert!(
        error.to_string().contains("learning rate is NaN"),
        "{error}"
    );
    assert_eq!(session.passes(), 2 * good, "the update still waits");
    assert_eq!(flat(session.model()), expected);
}

/// Fails to select in step 3.
#[derive(Clone, Serialize)]
struct Stops;

impl SparsityMask for Stops {
    fn select(&mut self, step: &mut SelectContext<'_>) -> Result<Selection, ZoError> {
        if step.step() < 3 {
            return Ok(Selection::all(step.tensors().len()));
        }
        Err(ConfigError::incompatible(self.name(), "it stops").into())
    }
}

#[test]
fn a_step_that_fails_before_it_moves_loses_nothing() {
    let (mut expected, _) = in_session(mezo(), net(), LR, 3, scripted());
    let stops = with(Settings::default(), Stops);
    let (mut session, _) = in_session(stops, net(), LR, 3, scripted());
    assert!(session.step(LR, scripted()).is_err());
    assert_eq!(flat(session.model()), flat(expected.model()));
}

#[test]
fn a_skipped_step_counts_and_loses_nothing() {
    let settings = Settings {
        non_finite: NonFinite::Skip,
        ..Settings::default()
    };
    let (mut expected, _) = in_session(mezo(), net(), LR, 2, scripted());
    let (mut session, reports) = in_session(with(settings, Dense), net(), LR, 3, failing(5));
    assert!(reports[2].skipped && !reports[1].skipped);
    // To +eps with the update of step 1, to -eps, and back.
    assert_eq!(passes(&reports), [2, 2, 3]);
    assert_close(&flat(session.model()), &flat(expected.model()), 24, 1);
    assert_eq!(session.optimizer().record().step, 3);
}

#[test]
fn updates_of_a_failed_step_are_undone_and_no_others() {
    let start = || in_session(in_turns(), net(), LR, 2, scripted()).0;
    let expected = flat(start().model());
    // The third and the fourth evaluation are those of the second round, after the update of the first.
    for bad in [2, 3] {
        let mut session = start();
        let error = session.step(LR, failing(bad)).unwrap_err();
        assert!(matches!(error, ZoError::NonFiniteLoss { .. }), "{error}");
        assert_close(&flat(session.model()), &expected, 24, 4);
    }
}

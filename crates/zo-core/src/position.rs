//! Where a held module stands, to be saved and restored.

use serde::{Deserialize, Serialize};

use crate::error::RecordError;
use crate::masked::MaskedDirection;

/// Where the weights of a module that is [held](crate::ZerothOrderOptimizer::hold) stand: at `theta + displacement`, perhaps with an
/// update that waits. A few dozen bytes per tensor, however large; with updates of low rank in a bank, the thin factors of their sum.
///
/// It belongs to the weights [as they are stored](crate::Perturbed::stored). Saved together and [put back](crate::Perturbed::resume_at), they
/// let a run go on with the same bits.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Position {
    pub(crate) displacement: MaskedDirection,
    pub(crate) pending: Option<Pending>,
    /// Updates of low rank that are not in the weights yet.
    #[serde(default, skip_serializing_if = "MaskedDirection::is_zero")]
    pub(crate) bank: MaskedDirection,
    /// On the fly: whether updates have been written to the weights before.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) written: bool,
}

/// An update that waits: `theta <- factor theta + direction`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Pending {
    pub(crate) direction: MaskedDirection,
    /// One for each tensor, `None` for those that stay.
    pub(crate) factors: Vec<Option<f64>>,
}

impl Pending {
    pub(crate) fn of(&self, number: usize) -> Option<(&MaskedDirection, f64)> {
        Some((&self.direction, self.factors[number]?))
    }
}

impl Position {
    pub(crate) fn new(
        displacement: MaskedDirection,
        pending: Option<Pending>,
        bank: MaskedDirection,
    ) -> Self {
        Self {
            displacement,
            pending,
            bank,
            written: false,
        }
    }

    /// Whether the weights are `theta` itself, every update included.
    #[doc(hidden)]
    pub fn is_at_rest(&self) -> bool {
        self.is_at_rest_but_for_the_bank() && self.bank.is_zero()
    }

    pub(crate) fn is_at_rest_but_for_the_bank(&self) -> bool {
        self.displacement.is_zero() && self.pending.is_none()
    }

    /// Whether it can be a position of a module with this many tensors.
    ///
    /// # Errors
    /// [`RecordError::Mismatch`], if it is of more or fewer.
    pub(crate) fn check(&self, tensors: usize) -> Result<(), RecordError> {
        let pending = self.pending.iter();
        let fits = self.displacement.is_of(tensors)
            && self.bank.is_of(tensors)
            && pending.into_iter().all(|pending| {
                pending.direction.is_of(tensors) && pending.factors.len() == tensors
            });
        if fits {
            return Ok(());
        }
        let expected = format!("one of a module with {tensors} float parameter(s)");
        let found = "one of another module";
        Err(RecordError::mismatch("position", found, expected))
    }

    pub(crate) fn refused(&self, expected: &str) -> RecordError {
        let found = match self.pending {
            Some(_) => "with an update that waits",
            None if self.bank.is_zero() => "displaced",
            None => "with updates in a bank",
        };
        RecordError::mismatch("position", found, expected)
    }
}

#[cfg(test)]
mod tests {
    use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
    use burn::tensor::{Device, Tensor, TensorData};

    use super::*;
    use crate::testing::{Toy, flat, toy};
    use crate::{Difference, Method, Perturbation, Session, ZeroOrder, ZerothOrderOptimizer};

    /// Losses that depend on step and evaluation alone.
    fn loss(step: usize) -> impl FnMut(&Toy) -> f64 {
        let mut calls = 0;
        move |toy: &Toy| {
            // On the fly a step asks whether the weights were read at all.
            let _ = toy.head.val();
            calls += 1;
            ((31 * step + 7 * calls) % 11) as f64 * 1e-2
        }
    }

    /// The stored values, and how to put them back.
    #[derive(Default)]
    struct Stored(Vec<TensorData>);

    impl ModuleVisitor for Stored {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.0.push(param.val().into_data());
        }
    }

    impl ModuleMapper for Stored {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            let data = self.0.remove(0);
            param.map(|tensor| Tensor::from_data(data, &tensor.device()))
        }
    }

    fn begin(method: &Method) -> Session<Toy, ZeroOrder> {
        let optim = method.clone().init().unwrap();
        optim.session(toy(&Device::flex())).unwrap()
    }

    /// Steps `from..to`.
    fn steps(session: &mut Session<Toy, ZeroOrder>, from: usize, to: usize) {
        for step in from..to {
            session.step(0.05, loss(step)).unwrap();
        }
    }

    /// Another session that goes on where this one stands, by way of what would be on disk.
    fn again(session: &mut Session<Toy, ZeroOrder>, method: &Method) -> Session<Toy, ZeroOrder> {
        let mut stored = Stored::default();
        let (module, position) = session.stored();
        module.visit(&mut stored);
        let json = serde_json::to_string(&position).unwrap();
        let mut optim = method.clone().init().unwrap();
        optim.load_record(session.optimizer().record()).unwrap();
        let module = toy(&Device::flex()).map(&mut stored);
        let mut session = optim.session(module).unwrap();
        session
            .resume_at(serde_json::from_str(&json).unwrap())
            .unwrap();
        session
    }

    #[test]
    fn a_session_goes_on_from_what_was_stored_with_the_same_bits() {
        let methods = [
            Method::new(),
            Method::new().with_weight_decay(0.5).with_queries(2),
            Method::new().with_difference(Difference::OneSided),
            Method::new().with_perturbation(Perturbation::OnTheFly),
        ];
        for method in methods {
            let mut whole = begin(&method);
            steps(&mut whole, 0, 6);
            let whole = flat(whole.model());
            for cut in 0..=6 {
                let mut part = begin(&method);
                steps(&mut part, 0, cut);
                let passes = part.passes();
                let mut rest = again(&mut part, &method);
                assert_eq!(part.passes(), passes, "storing moves nothing");
                steps(&mut rest, cut, 6);
                assert_eq!(flat(rest.model()), whole, "{method:?} after {cut} steps");
                steps(&mut part, cut, 6);
                assert_eq!(flat(part.model()), whole, "{method:?} disturbed at {cut}");
            }
        }
    }

    #[test]
    fn positions_that_do_not_fit_are_refused() {
        let mut session = begin(&Method::new());
        steps(&mut session, 0, 1);
        let (_, position) = session.stored();
        assert!(!position.is_at_rest() && position.pending.is_some());
        assert!(position.check(session.held.tensors().len()).is_ok());
        let error = position.check(2).unwrap_err().to_string();
        assert!(error.contains("one of another module"), "{error}");
        // Updates do not wait on the fly, nor where they are made at once.
        let on_the_fly = Method::new().with_perturbation(Perturbation::OnTheFly);
        let mut session = begin(&on_the_fly);
        let before = flat(session.model());
        let error = session.resume_at(position.clone()).unwrap_err().to_string();
        assert!(error.contains("expected at rest"), "{error}");
        assert_eq!(flat(session.model()), before);
        let optim = Method::new().init().unwrap();
        let mut held = optim.hold(toy(&Device::flex())).unwrap();
        let error = held.resume_at(position.clone()).unwrap_err().to_string();
        assert!(error.contains("without an update that waits"), "{error}");
        held.resume_at(Position::new(
            position.displacement,
            None,
            MaskedDirection::zero(),
        ))
        .unwrap();
    }
}

//! What the losses of a run say of its learning rate.

use std::collections::VecDeque;
use std::fmt;

use burn::module::{Module, ParamGroup};
use zo_core::StepReport;

use super::config::TrainerConfig;
use super::error::CheckpointError;
use super::sample::Sample;

/// Steps within which a rate that is far too high is recognised.
const EARLY: usize = 20;
/// The latest losses that are compared with the beginning.
const LATEST: usize = 4;
/// How far above the loss at the beginning those may be, as a multiple of it; and of what the loss varies by at the beginning.
const RISE: [f64; 2] = [2.0, 5.0];
/// Weights of a tensor that are looked at.
const LOOKED_AT: usize = 256;
/// How far weights that begin at 0 may move, as a multiple of the size of the module's others: there may be few of them, and they may be factors.
const FROM_ZERO: f64 = 10.0;
/// Steps after which a loss should have moved, and those at both ends that are compared.
const SLOW: usize = 400;
const ENDS: usize = 100;

/// What the losses of a run say of its learning rate.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum RateWarning {
    /// In so many steps the loss has not moved beyond its noise.
    TooLow {
        /// Steps done.
        steps: usize,
        /// The mean loss of the first steps, and of the last.
        losses: [f64; 2],
        /// The standard error of their difference.
        error: f64,
        /// How far updates moved weights in the last steps, as a multiple of the perturbation radius (root mean square), if that is known.
        kappa: Option<f64>,
    },
    /// The loss on the held-out rows is far above that at the beginning.
    Risen {
        /// Steps done.
        steps: usize,
        /// The loss at the beginning, and now.
        losses: [f64; 2],
    },
}

impl fmt::Display for RateWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLow {
                steps,
                losses: [first, last],
                error,
                kappa,
            } => {
                write!(
                    f,
                    "in {steps} steps the loss has not moved beyond its noise ({first:.4} to {last:.4}, standard error {error:.4})"
                )?;
                if let Some(kappa) = kappa {
                    write!(
                        f,
                        ", and a step moves weights by {kappa:.1e} of the perturbation radius"
                    )?;
                }
                f.write_str(
                    ": the learning rate may be too low; try ten times as much, or let the rate be searched",
                )
            }
            Self::Risen {
                steps,
                losses: [from, to],
            } => write!(
                f,
                "after {steps} steps the loss on the held-out rows has risen from {from:.4} to {to:.4}: the learning rate is too high; try a \
                 third of it, or let the rate be searched"
            ),
        }
    }
}

/// Looks at the losses of a run that begins.
#[derive(Default)]
pub(super) struct Watch {
    /// The loss before the first step.
    begins: Option<f64>,
    /// What the loss varies by at the beginning: from the rows of an evaluation to those of a batch, and from one displacement to another.
    spread: f64,
    latest: VecDeque<f64>,
    first: Vec<f64>,
    last: VecDeque<f64>,
    /// Of the same steps as `last`, where it is known.
    kappas: VecDeque<f64>,
    steps: usize,
    warned: bool,
    risen: bool,
    /// Before the first step, until they have been compared with; and how far they may move.
    weights: Option<(Sample, f64)>,
}

impl Watch {
    /// Of a run that goes on: its beginning has been seen.
    pub(super) fn resumed() -> Self {
        Self {
            steps: EARLY,
            warned: true,
            ..Self::default()
        }
    }

    /// A run begins with this loss on held-out rows.
    pub(super) fn begins(&mut self, loss: f64) {
        self.begins = loss.is_finite().then_some(loss);
    }

    /// Whether the loss on held-out rows has multiplied since the beginning. Said once.
    pub(super) fn risen(&mut self, steps: usize, from: f64, to: f64) -> Option<RateWarning> {
        let risen = to > from + RISE[0] * from.abs();
        let said = self.risen;
        self.risen |= risen;
        (risen && !said).then_some(RateWarning::Risen {
            steps,
            losses: [from, to],
        })
    }

    /// Whether the loss has risen so far in the first steps that the rate must be far too high: from where, and to where.
    pub(super) fn too_high(&mut self, report: &StepReport) -> Option<[f64; 2]> {
        let loss = report.loss();
        if self.steps >= EARLY || report.skipped || !loss.is_finite() {
            return None;
        }
        let begins = *self.begins.get_or_insert(loss);
        if self.steps == 0 {
            // Before the first update.
            let displaced = report
                .queries
                .iter()
                .map(|q| (q.loss_plus - q.loss_other).abs());
            self.spread = displaced.fold((loss - begins).abs(), f64::max);
        } else {
            self.latest.push_back(loss);
        }
        if self.latest.len() < LATEST {
            return None;
        }
        let latest = self.latest.iter().sum::<f64>() / LATEST as f64;
        self.latest.pop_front();
        let bound = begins + RISE[0] * begins.abs() + RISE[1] * self.spread;
        (latest > bound).then_some([begins, latest])
    }

    /// Looks at the weights before the first step.
    pub(super) fn remember<M: Module>(
        &mut self,
        module: &M,
        config: &TrainerConfig,
    ) -> Result<(), CheckpointError> {
        if config.steps >= EARLY {
            let weights = Sample::of(module, &config.trained, LOOKED_AT)?;
            let size = match weights.rms() {
                0.0 => FROM_ZERO * Sample::of(module, &ParamGroup::all(), LOOKED_AT)?.rms(),
                size => size,
            };
            self.weights = Some((weights, size));
        }
        Ok(())
    }

    /// Whether the first steps have moved the weights by more than their size (those that all begin at 0: ten times the size of the module's others),
    /// and the losses since the first step are no lower by a tenth: how far, and both losses. Asked after each step, before
    /// [`too_low`](Self::too_low).
    pub(super) fn lost<M: Module>(
        &mut self,
        module: &M,
        config: &TrainerConfig,
    ) -> Result<Option<(f64, [f64; 2])>, CheckpointError> {
        let (Some(begins), Some(losses)) = (self.begins, self.first.get(1..)) else {
            return Ok(None);
        };
        let mean = losses.iter().sum::<f64>() / losses.len().max(1) as f64;
        let ends = self.steps + 1 == EARLY;
        let Some((before, size)) = self.weights.take_if(|_| ends) else {
            return Ok(None);
        };
        let moved = Sample::of(module, &config.trained, LOOKED_AT)?.distance_squared(&before);
        let moved = moved.sqrt() / size;
        let lost = moved > 1.0 && moved.is_finite() && mean > begins - 0.1 * begins.abs();
        Ok(lost.then_some((moved, [begins, mean])))
    }

    /// Whether the loss has not moved in many steps. Said once.
    pub(super) fn too_low(&mut self, report: &StepReport) -> Option<RateWarning> {
        self.steps += 1;
        let loss = report.loss();
        if self.warned || !loss.is_finite() {
            return None;
        }
        if self.first.len() < ENDS {
            self.first.push(loss);
        }
        self.last.push_back(loss);
        self.kappas.extend(report.kappa);
        for values in [&mut self.last, &mut self.kappas] {
            if values.len() > ENDS {
                values.pop_front();
            }
        }
        if self.steps < SLOW || !self.steps.is_multiple_of(ENDS) {
            return None;
        }
        let [first, last] = [moments(&self.first), moments(self.last.make_contiguous())];
        let error = ((first[1] + last[1]) / ENDS as f64).sqrt();
        self.warned = true;
        let squares = self.kappas.iter().map(|kappa| kappa * kappa);
        let square = squares.sum::<f64>() / self.kappas.len() as f64;
        let moved = (first[0] - last[0]).abs();
        (moved <= 2.0 * error).then_some(RateWarning::TooLow {
            steps: self.steps,
            losses: [first[0], last[0]],
            error,
            kappa: Some(square.sqrt()).filter(|kappa| kappa.is_finite()),
        })
    }
}

/// Mean and variance.
fn moments(values: &[f64]) -> [f64; 2] {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let squared = values.iter().map(|value| (value - mean).powi(2));
    [mean, squared.sum::<f64>() / (count - 1.0)]
}

#[cfg(test)]
mod tests {
    use zo_core::{Direction, Query};

    use super::*;

    fn report(loss: f64, spread: f64) -> StepReport {
        StepReport {
            queries: vec![Query {
                direction: Direction::zero(),
                loss_plus: loss + spread / 2.0,
                loss_other: loss - spread / 2.0,
                projected_gradient: 0.0,
            }],
            ..StepReport::default()
        }
    }

    /// The step, from 1, at which a rate is called too high.
    fn noticed(begins: f64, losses: impl Fn(usize) -> f64, spread: f64) -> Option<usize> {
        let mut watch = Watch::default();
        watch.begins(begins);
        (1..=200).find(|step| {
            let report = report(losses(*step), spread);
            let high = watch.too_high(&report).is_some();
            watch.too_low(&report);
            high
        })
    }

    #[test]
    fn a_loss_that_multiplies_in_the_first_steps_is_noticed() {
        let explodes = |step: usize| 0.7 * 2f64.powi(step as i32 - 1);
        assert_eq!(noticed(0.7, explodes, 1e-3), Some(5));
        let jumps = |step| if step == 1 { 0.7 } else { 5.0 };
        assert_eq!(noticed(0.7, jumps, 1e-3), Some(5));
        // A reward that is maximised: the loss is negative.
        let falls = |step| if step < 10 { -0.7 } else { 2.0 };
        assert_eq!(noticed(-0.7, falls, 1e-3), Some(12));
    }

    #[test]
    fn what_losses_vary_by_is_no_alarm() {
        let falls = |step: usize| 1.0 / step as f64;
        assert_eq!(noticed(1.0, falls, 1e-3), None);
        // A batch that is harder than the held-out rows, displacements that change much.
        assert_eq!(noticed(1.0, |_| 1.9, 0.5), None);
        // One bad batch.
        let one = |step| if step == 7 { 3.0 } else { 1.0 };
        assert_eq!(noticed(1.0, one, 1e-3), None);
        // Later on, others look.
        let late = |step| if step > 20 { 9.0 } else { 1.0 };
        assert_eq!(noticed(1.0, late, 1e-3), None);
    }

    #[test]
    fn held_out_rows_that_get_worse_are_mentioned_once() {
        let mut watch = Watch::default();
        assert_eq!(watch.risen(10, 0.7, 2.0), None);
        let text = watch.risen(20, 0.7, 2.2).unwrap().to_string();
        assert!(
            text.starts_with(
                "after 20 steps the loss on the held-out rows has risen from 0.7000 to 2.2000"
            ),
            "{text}"
        );
        assert_eq!(watch.risen(30, 0.7, 9.0), None);
        assert_eq!(Watch::default().risen(10, -0.7, 0.6), None);
        assert!(Watch::default().risen(10, -0.7, 0.8).is_some());
    }

    #[test]
    fn a_loss_that_stays_is_mentioned_once() {
        let said = |losses: &dyn Fn(usize) -> f64| {
            let mut watch = Watch::default();
            let all = (0..2000).filter_map(|step| watch.too_low(&report(losses(step), 0.0)));
            all.collect::<Vec<_>>()
        };
        let noise = |step: usize| 0.1 * ((step * 37 % 101) as f64 / 101.0 - 0.5);
        let said_of_still = said(&|step| 1.0 + noise(step));
        let [
            RateWarning::TooLow {
                steps: SLOW,
                error,
                kappa,
                ..
            },
        ] = said_of_still[..]
        else {
            panic!("{said_of_still:?}");
        };
        assert!((0.003..0.006).contains(&error), "{error}");
        let text = said_of_still[0].to_string();
        assert!(
            text.starts_with("in 400 steps the loss has not moved"),
            "{text}"
        );
        assert_eq!(kappa, None);
        let mut watch = Watch::default();
        let moved = |step: usize| StepReport {
            kappa: Some([0.03, 0.04][step % 2]),
            ..report(1.0 + noise(step), 0.0)
        };
        let text = (0..SLOW).find_map(|step| watch.too_low(&moved(step)));
        let text = text.unwrap().to_string();
        let expected = "and a step moves weights by 3.5e-2 of the perturbation radius: the";
        assert!(text.contains(expected), "{text}");
        let moves = said(&|step| 1.0 - 1e-4 * step as f64 + noise(step));
        assert_eq!(moves, []);
    }
}

//! The numbers of a step, as metrics of burn-train.

use std::sync::Arc;

use burn::backend::ExecutionError;
use burn::tensor::{DType, Device, Tensor, TensorData, TensorReadError};
use burn::train::ItemLazy;
use burn::train::metric::state::{FormatOptions, NumericMetricState};
use burn::train::metric::{
    Adaptor, LossInput, Metric, MetricAttributes, MetricMetadata, MetricName, Numeric,
    NumericAttributes, NumericEntry, SerializedEntry,
};
use zo_core::StepReport;

/// What a step hands to metrics: burn's `LossMetric`, a [`StepMetric`], and any metric of your own whose input is a [`StepReport`].
///
/// Skipped steps hand over nothing.
#[derive(Debug, Clone)]
pub struct StepOutput(
    /// The step's report.
    pub StepReport,
);

impl ItemLazy for StepOutput {
    fn sync(self) -> Result<Self, ExecutionError> {
        Ok(self)
    }
}

impl Adaptor<LossInput> for StepOutput {
    fn adapt(&self) -> LossInput {
        // On the CPU and in f64: the metric reads the exact number, without waiting for another device.
        let loss = TensorData::new(vec![self.0.loss()], [1]);
        LossInput::new(Tensor::from_data(loss, (&Device::flex(), DType::F64)))
    }
}

impl Adaptor<StepReport> for StepOutput {
    fn adapt(&self) -> StepReport {
        self.0.clone()
    }
}

/// The value of a step, and its weight in the epoch's mean.
type Value = dyn Fn(&StepReport) -> (f64, usize) + Send + Sync;

/// A number of the steps' reports, as a numeric metric of the training split.
#[derive(Clone)]
pub struct StepMetric {
    name: MetricName,
    attributes: NumericAttributes,
    value: Arc<Value>,
    state: NumericMetricState,
}

impl StepMetric {
    /// "Projected Gradient": |g|, mean over the queries, in units of loss. It is the size of the derivative that the steps follow; if it
    /// explodes, the run is about to diverge.
    pub fn projected_gradient() -> Self {
        Self::weighted("Projected Gradient", None, false, |report| {
            let queries = &report.queries;
            let sum: f64 = queries.iter().map(|q| q.projected_gradient.abs()).sum();
            (sum / queries.len() as f64, queries.len())
        })
    }

    /// "Forwards per Second": evaluations of the objective per second of the step, the passes over the weights included; all forwards
    /// over all seconds for an epoch. Anything outside the steps (loading batches, validation) does not count.
    pub fn forwards_per_second() -> Self {
        Self::weighted("Forwards per Second", Some("forwards/s"), true, |report| {
            let microseconds = 1e6 * (report.seconds_forward + report.seconds_sweep);
            let microseconds = microseconds.round().max(1.0);
            let rate = 1e6 * report.forwards as f64 / microseconds;
            (rate, microseconds as usize)
        })
    }

    /// Another number, under a name of your own: `StepMetric::new("Copied", |report| report.copied as f64)`. An epoch shows its mean.
    pub fn new(name: &str, value: impl Fn(&StepReport) -> f64 + Send + Sync + 'static) -> Self {
        Self::weighted(name, None, false, move |report| (value(report), 1))
    }

    fn weighted(
        name: &str,
        unit: Option<&str>,
        higher_is_better: bool,
        value: impl Fn(&StepReport) -> (f64, usize) + Send + Sync + 'static,
    ) -> Self {
        Self {
            name: MetricName::new(name.to_owned()),
            attributes: NumericAttributes {
                unit: unit.map(str::to_owned),
                higher_is_better,
            },
            value: Arc::new(value),
            state: NumericMetricState::new(),
        }
    }

    fn format(&self) -> FormatOptions {
        let format = FormatOptions::new(self.name()).precision(2);
        match &self.attributes.unit {
            Some(unit) => format.unit(unit),
            None => format,
        }
    }
}

impl Metric for StepMetric {
    type Input = StepReport;

    fn name(&self) -> MetricName {
        self.name.clone()
    }

    fn attributes(&self) -> MetricAttributes {
        self.attributes.clone().into()
    }

    fn update(
        &mut self,
        report: &StepReport,
        _metadata: &MetricMetadata,
    ) -> Result<SerializedEntry, TensorReadError> {
        let (value, count) = (self.value)(report);
        self.state.update(value, count);
        Ok(self.state.compute_update(self.format()))
    }

    fn compute(&mut self) -> Result<SerializedEntry, TensorReadError> {
        Ok(self.state.compute_final(self.format()))
    }

    fn clear(&mut self) {
        self.state.reset();
    }
}

impl Numeric for StepMetric {
    fn value(&self) -> Option<NumericEntry> {
        Some(self.state.current_value())
    }

    fn running_value(&self) -> Option<NumericEntry> {
        Some(self.state.running_value())
    }

    fn final_value(&self) -> NumericEntry {
        self.state.final_value()
    }
}

#[cfg(test)]
mod tests {
    use burn::data::dataloader::Progress;
    use burn::train::metric::LossMetric;
    use zo_core::{Direction, Query};

    use super::*;

    fn report(projected_gradients: &[f64], forwards: usize, seconds: [f64; 2]) -> StepReport {
        let query = |g: &f64| Query {
            direction: Direction::zero(),
            loss_plus: 0.1,
            loss_other: 0.5,
            projected_gradient: *g,
        };
        StepReport {
            step: 0,
            queries: projected_gradients.iter().map(query).collect(),
            forwards,
            passes: 3,
            seconds_forward: seconds[0],
            seconds_sweep: seconds[1],
            ..StepReport::default()
        }
    }

    fn metadata() -> MetricMetadata {
        MetricMetadata {
            progress: Progress::new(1, 2, None),
            iteration: Some(1),
            lr: None,
        }
    }

    fn current(metric: &impl Numeric) -> f64 {
        metric.value().unwrap().current()
    }

    #[test]
    fn projected_gradients_are_averaged_over_queries() {
        let mut metric = StepMetric::projected_gradient();
        let entry = metric.update(&report(&[1.0, -3.0], 4, [1.0, 0.0]), &metadata());
        assert_eq!(entry.unwrap().serialized, "2,2");
        assert_eq!(current(&metric), 2.0);
        metric
            .update(&report(&[-8.0], 2, [1.0, 0.0]), &metadata())
            .unwrap();
        assert_eq!(current(&metric), 8.0);
        assert_eq!(metric.final_value().current(), 4.0);
        metric.clear();
        assert!(metric.final_value().current().is_nan());
    }

    #[test]
    fn a_rate_counts_all_seconds_of_the_step() {
        let mut metric = StepMetric::forwards_per_second();
        let update = |metric: &mut StepMetric, forwards, seconds| {
            let updated = metric.update(&report(&[1.0], forwards, seconds), &metadata());
            updated.unwrap()
        };
        update(&mut metric, 2, [0.25, 0.25]);
        assert_eq!(current(&metric), 4.0);
        let entry = update(&mut metric, 6, [1.0, 0.5]);
        assert_eq!(current(&metric), 4.0);
        assert!(entry.formatted.contains("forwards/s"), "{entry:?}");
        // 48 forwards in 4 seconds: not the mean of 4, 4 and 20.
        update(&mut metric, 40, [2.0, 0.0]);
        assert_eq!(metric.final_value().current(), 48.0 / 4.0);
        // A clock too coarse to see the step.
        update(&mut metric, 2, [0.0, 0.0]);
        assert!(current(&metric).is_finite());
    }

    #[test]
    fn the_loss_metric_reads_the_loss_to_the_last_bit() {
        let output = StepOutput(report(&[1.0], 2, [1.0, 0.0]));
        let mut metric = LossMetric::new();
        metric.update(&output.adapt(), &metadata()).unwrap();
        assert_eq!(current(&metric), output.0.loss());
        let mut metric = StepMetric::new("Passes", |report| report.passes as f64);
        metric.update(&output.adapt(), &metadata()).unwrap();
        assert_eq!((metric.name().as_str(), current(&metric)), ("Passes", 3.0));
    }
}

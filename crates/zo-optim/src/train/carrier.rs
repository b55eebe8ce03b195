//! How the state of our optimizer and of the scheduler gets into burn-train's checkpoints, and out of them.
//!
//! burn-train saves what a `Learner` holds: a model, a burn optimizer and a scheduler, the last two private to it. A learner holds on to
//! its model, so there is no learner while steps run. Instead one is made for each checkpoint, with a burn optimizer that does nothing but
//! hold our [`OptimizerRecord`], and with a handle on our scheduler.

use std::sync::{Arc, Mutex};

use burn::lr_scheduler::module_lr_scheduler::ModuleLrScheduler;
use burn::lr_scheduler::{LrScheduler, LrSchedulerRecord};
use burn::module::{Param, ParamId};
use burn::optim::{
    GradientsParams, LearningRate, ModuleOptimizer, Optimizer, RecordState, StateSink, StateSource,
};
use burn::tensor::{Device, Tensor, TensorData};
use zo_core::OptimizerRecord;

use super::lock;

/// A burn optimizer in name only. A record goes in and out through its slot.
#[derive(Clone, Default)]
pub(super) struct Carrier(Arc<Mutex<Option<OptimizerRecord>>>);

impl Carrier {
    /// A carrier of `record`.
    pub(super) fn holding(record: OptimizerRecord) -> Self {
        Self(Arc::new(Mutex::new(Some(record))))
    }

    /// What came out of a checkpoint.
    pub(super) fn take(&self) -> Option<OptimizerRecord> {
        lock(&self.0).take()
    }

    /// As a learner wants it; a record, if there is one, is its state.
    pub(super) fn into_optimizer(self) -> ModuleOptimizer {
        let mut optim: ModuleOptimizer = self.into();
        meet(&mut optim);
        optim
    }
}

/// Lets the [`Carrier`] in `optim` meet its state: a loaded state goes to its slot; otherwise the record in its slot becomes its state.
///
/// burn's optimizers have states for parameters only, and see them in steps only. So there is one parameter, and this is its step.
pub(super) fn meet(optim: &mut ModuleOptimizer) {
    let id = ParamId::from(0);
    // burn steps tracked parameters only.
    let tensor = Tensor::<1>::zeros([1], &Device::flex().autodiff());
    let mut gradients = GradientsParams::new();
    gradients.register(id, tensor.clone().inner());
    let lr: LearningRate = 0.0;
    optim.step(lr, Param::initialized(id, tensor), gradients);
}

impl Optimizer for Carrier {
    type State<const D: usize> = Carried;

    fn step<const D: usize>(
        &self,
        _lr: LearningRate,
        tensor: Tensor<D>,
        _grad: Tensor<D>,
        state: Option<Self::State<D>>,
    ) -> (Tensor<D>, Option<Self::State<D>>) {
        let mut slot = lock(&self.0);
        match state {
            Some(Carried(record)) => {
                *slot = Some(record);
                (tensor, None)
            }
            None => (tensor, slot.take().map(Carried)),
        }
    }

    fn to_device<const D: usize>(state: Self::State<D>, _device: &Device) -> Self::State<D> {
        state
    }
}

/// A record as burn's checkpoints hold it: a tensor of bytes, and one for each buffer.
#[derive(Clone)]
pub(super) struct Carried(OptimizerRecord);

/// JSON: the record without buffers, and the names of these.
const RECORD: &str = "record";

fn buffer(number: usize) -> String {
    format!("buffer.{number}")
}

impl RecordState for Carried {
    fn state_flatten(&self, prefix: &str, out: &mut StateSink) {
        let names: Vec<&String> = self.0.buffers.keys().collect();
        // It always has a JSON form. If it had none, loading the checkpoint would notice.
        if let Ok(json) = serde_json::to_vec(&(&self.0, names)) {
            let length = json.len();
            out.push_tensor(prefix, RECORD, TensorData::new(json, [length]));
        }
        for (number, data) in self.0.buffers.values().enumerate() {
            out.push_tensor(prefix, &buffer(number), data.clone());
        }
    }

    fn state_unflatten(prefix: &str, src: &mut StateSource, _device: &Device) -> Option<Self> {
        let json = src.take_tensor(prefix, RECORD)?;
        let (mut record, names): (OptimizerRecord, Vec<String>) =
            serde_json::from_slice(json.as_bytes()).ok()?;
        for (number, name) in names.into_iter().enumerate() {
            let data = src.take_tensor(prefix, &buffer(number))?;
            // burn reads a file when its data is used, and old checkpoints are deleted: read it now.
            let bytes = data.as_bytes().to_vec();
            let data = TensorData::from_bytes_vec(bytes, data.shape().clone(), data.dtype());
            record.buffers.insert(name, data);
        }
        Some(Self(record))
    }
}

/// A scheduler whose clones are handles on the same one: the learner's, which loads its state, and the strategy's, which steps it.
#[derive(Clone)]
pub(super) struct SharedScheduler(Arc<Mutex<ModuleLrScheduler>>);

impl SharedScheduler {
    pub(super) fn new(scheduler: ModuleLrScheduler) -> Self {
        Self(Arc::new(Mutex::new(scheduler)))
    }

    /// Steps the scheduler: the base learning rate of the next step.
    pub(super) fn rate(&self) -> LearningRate {
        lock(&self.0).step().base()
    }
}

impl LrScheduler for SharedScheduler {
    fn step(&mut self) -> LearningRate {
        self.rate()
    }

    fn to_record(&self) -> LrSchedulerRecord {
        lock(&self.0).to_record()
    }

    fn load_record(&mut self, record: LrSchedulerRecord) {
        let mut scheduler = lock(&self.0);
        *scheduler = scheduler.clone().load_record(record);
    }
}

#[cfg(test)]
mod tests {
    use burn::lr_scheduler::exponential::ExponentialLrSchedulerConfig;
    use burn::tensor::DType;
    use serde_json::{Map, json};
    use zo_core::Buffers;

    use super::*;

    fn record() -> OptimizerRecord {
        let floats = TensorData::new(vec![1.5f32, f32::MIN_POSITIVE, -0.1], [3]);
        let bytes = TensorData::from_bytes_vec(vec![0, 7, 255], vec![3], DType::U8);
        OptimizerRecord {
            step: 12,
            method: json!({ "seed": u64::MAX }),
            parts: Map::from_iter([("mask".to_owned(), json!({ "scores": [0.1, 1.0 / 3.0] }))]),
            buffers: Buffers::from([("m.a.b".to_owned(), floats), ("mask".to_owned(), bytes)]),
            ..OptimizerRecord::default()
        }
    }

    #[test]
    fn a_record_goes_through_a_checkpoint_of_burn_bit_for_bit() {
        let saved = Carrier::holding(record()).into_optimizer();
        let bytes = saved.into_bytes().unwrap();
        let carrier = Carrier::default();
        let optim = carrier.clone().into_optimizer();
        assert_eq!(carrier.take(), None);
        let mut optim = optim.from_bytes(bytes).unwrap();
        meet(&mut optim);
        assert_eq!(carrier.take(), Some(record()));
        meet(&mut optim);
        assert_eq!(carrier.take(), None, "it comes out once");
    }

    #[test]
    fn an_optimizer_of_another_kind_has_no_record() {
        let foreign = burn::optim::SgdConfig::new().init();
        let bytes = foreign.into_bytes().unwrap();
        let carrier = Carrier::default();
        let mut optim = carrier.clone().into_optimizer().from_bytes(bytes).unwrap();
        meet(&mut optim);
        assert_eq!(carrier.take(), None);
    }

    #[test]
    fn a_loaded_scheduler_goes_on_where_it_stopped() {
        let make = || {
            let config = ExponentialLrSchedulerConfig::new(0.5, 0.7);
            SharedScheduler::new(config.init().unwrap())
        };
        let (saved, loaded) = (make(), make());
        for _ in 0..5 {
            saved.rate();
        }
        // What a learner does: it clones, then loads.
        loaded.clone().load_record(saved.to_record());
        assert_eq!(loaded.rate(), saved.rate());
        assert!((loaded.rate() - 0.5 * 0.7f64.powi(6)).abs() < 1e-12);
    }
}

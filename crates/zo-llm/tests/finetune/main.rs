//! The fine-tuning loop, with a tiny Llama on eight rows.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod resume;

use std::path::Path;
use std::sync::atomic::AtomicBool;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Device, Tensor, TensorData};
use serde_json::{Map, Value, json};
use zo_core::noise::{TensorKey, value};
use zo_core::{Method, Noise, ZeroOrder, ZerothOrderOptimizer, ZoError};
use zo_llm::dataset::{Dataset, Split, evaluate};
use zo_llm::finetune::{
    Event, FinetuneConfig, FinetuneError, Finish, Objective, Outcome, RunError, Schedule, finetune,
};
use zo_llm::task::Sst2;
use zo_llm::{CausalLm, LmTokenizer, ModelConfig};

const WORDS: [&str; 10] = [
    "<unk>", "a", "film", ".", "It", "was", "great", "terrible", "good", "not",
];

const ROWS: [(&str, u8); 8] = [
    ("a great film .", 1),
    ("a terrible film .", 0),
    ("great", 1),
    ("not good", 0),
    ("good film .", 1),
    ("terrible", 0),
    ("a good film", 1),
    ("a film . not great", 0),
];

fn model_config() -> ModelConfig {
    let config = json!({
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 10,
        "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 12,
        "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": true,
        "hidden_act": "silu", "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0,
    });
    ModelConfig::from_json(&config.to_string()).unwrap()
}

/// A model whose weights are noise of this seed: the same in every process.
pub(crate) fn model(seed: u64) -> CausalLm {
    struct Fill(u64, u64);
    impl ModuleMapper for Fill {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            self.1 += 1;
            let (shape, device, id) = (param.lazy_shape(), param.lazy_device(), param.id);
            let (seed, key) = (self.0, TensorKey(self.1));
            let noise = |i: usize| 0.2 * value(Noise::Gaussian, seed, key, i as u64);
            // Norms are around 1.
            let mean = if D == 1 { 1.0 } else { 0.0 };
            let values: Vec<f32> = (0..shape.num_elements()).map(|i| mean + noise(i)).collect();
            let tensor = Tensor::from_data(TensorData::new(values, shape), &device);
            param.transform_for_load(tensor, id)
        }
    }
    let model = CausalLm::new(&model_config(), &Device::flex()).unwrap();
    model.map(&mut Fill(seed, 0))
}

/// All weights as raw bytes.
pub(crate) fn bits(model: &CausalLm) -> Vec<u8> {
    struct All(Vec<u8>);
    impl ModuleVisitor for All {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.0.extend(param.val().into_data().as_bytes());
        }
    }
    let mut all = All(Vec::new());
    model.visit(&mut all);
    all.0
}

pub(crate) fn data() -> Dataset {
    let dir = tempfile::tempdir().unwrap();
    let vocab: Map<String, Value> = (WORDS.iter().enumerate())
        .map(|(id, word)| ((*word).to_owned(), json!(id)))
        .collect();
    let file = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
        "normalizer": null, "pre_tokenizer": {"type": "Whitespace"}, "post_processor": null,
        "decoder": null, "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "<unk>"},
    });
    std::fs::write(dir.path().join("tokenizer.json"), file.to_string()).unwrap();
    let config = model_config();
    let tokenizer = LmTokenizer::from_dir(dir.path(), &config).unwrap();
    let row = |(text, label): &(&str, u8)| json!({"sentence": text, "label": label}).to_string();
    let rows: Vec<String> = ROWS.iter().map(row).collect();
    std::fs::write(dir.path().join("train.jsonl"), rows.join("\n")).unwrap();
    Dataset::load(
        &Sst2,
        dir.path(),
        Split::Train,
        None,
        &tokenizer,
        config.context(),
    )
    .unwrap()
}

pub(crate) fn mezo() -> ZeroOrder {
    Method::new().init().unwrap()
}

pub(crate) fn config(steps: usize) -> FinetuneConfig {
    FinetuneConfig {
        steps,
        batch: 4,
        eval_batch: 3,
        lr: 1e-3,
        ..FinetuneConfig::default()
    }
}

/// The configuration with checkpoints in `dir`.
pub(crate) fn saving(config: FinetuneConfig, dir: &Path) -> FinetuneConfig {
    FinetuneConfig {
        checkpoint_dir: Some(dir.to_owned()),
        ..config
    }
}

/// A run that nobody stops, train and dev rows being the same.
pub(crate) fn run<O: ZerothOrderOptimizer>(
    model: CausalLm,
    optim: &mut O,
    data: &Dataset,
    config: &FinetuneConfig,
    observer: impl FnMut(Event<'_>) -> Result<(), String>,
) -> Result<Outcome, RunError> {
    let never = AtomicBool::new(false);
    let device = Device::flex();
    finetune(
        model,
        optim,
        [data, data],
        config,
        &device,
        &never,
        observer,
    )
}

pub(crate) fn quiet(_: Event<'_>) -> Result<(), String> {
    Ok(())
}

/// The names in a folder, sorted.
pub(crate) fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).unwrap();
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn fine_tuning_lowers_the_loss_and_tells_the_observer() {
    let data = data();
    let (mut steps, mut evaluated, mut losses) = (0, Vec::new(), Vec::new());
    let observe = |event: Event<'_>| {
        match event {
            Event::Stepped { report, tokens, .. } => {
                assert_eq!((report.forwards, report.passes, report.copied), (2, 2, 0));
                assert!(tokens[0] >= tokens[1] && tokens[1] > 0);
                steps += 1;
            }
            Event::Evaluated { step, evaluation } => {
                assert_eq!(evaluation.predictions.len(), 8);
                evaluated.push(step);
                losses.push(evaluation.loss);
            }
            other => panic!("{other:?} without a folder"),
        }
        Ok(())
    };
    let config = FinetuneConfig {
        eval_every: 90,
        ..config(200)
    };
    let mut optim = mezo();
    let done = run(model(1), &mut optim, &data, &config, observe).unwrap();
    assert_eq!((steps, evaluated), (200, vec![0, 90, 180, 200]));
    assert!(losses[3] < 0.75 * losses[0], "{losses:?}");
    assert_eq!((done.finish, done.step), (Finish::Done, 200));
    assert_eq!(done.evaluations.len(), 4);
    assert_eq!(done.evaluations[3].loss, losses[3]);
    let last = evaluate(&done.model, &data, 8, 0, &Device::flex()).unwrap();
    assert!(
        (last.loss - losses[3]).abs() < 1e-5,
        "batching does not matter"
    );
    assert_eq!(last.score(), done.evaluations[3].score);
}

#[test]
fn zero_steps_only_evaluate() {
    let (data, mut events) = (data(), 0);
    let observe = |_: Event<'_>| {
        events += 1;
        Ok(())
    };
    let config = FinetuneConfig {
        batch: 100,
        ..config(0)
    };
    let done = run(model(1), &mut mezo(), &data, &config, observe).unwrap();
    assert_eq!((events, done.step, done.finish), (1, 0, Finish::Done));
    assert_eq!(bits(&done.model), bits(&model(1)));
}

#[test]
fn grouped_batches_hold_the_same_rows_and_pad_less() {
    let data = data();
    let tokens = |group_by_length| {
        let mut sum = [0usize; 2];
        let observe = |event: Event<'_>| {
            if let Event::Stepped { tokens, .. } = event {
                sum = [sum[0] + tokens[0], sum[1] + tokens[1]];
            }
            Ok(())
        };
        let config = FinetuneConfig {
            group_by_length,
            ..config(20)
        };
        let mut optim = mezo();
        run(model(1), &mut optim, &data, &config, observe).unwrap();
        sum
    };
    let [grouped, plain] = [true, false].map(tokens);
    assert_eq!(grouped[1], plain[1], "ten epochs");
    assert!(grouped[0] < plain[0], "{grouped:?} {plain:?}");
}

/// The losses of the steps of a run.
fn losses(config: &FinetuneConfig, data: &Dataset) -> Vec<f64> {
    let mut losses = Vec::new();
    let observe = |event: Event<'_>| {
        if let Event::Stepped { report, .. } = event {
            losses.push(report.loss());
        }
        Ok(())
    };
    let mut optim = mezo();
    run(model(1), &mut optim, data, config, observe).unwrap();
    losses
}

#[test]
fn micro_batches_give_the_loss_of_the_batch() {
    let data = data();
    let micro = |micro_batch| {
        let config = FinetuneConfig {
            micro_batch,
            lr: 0.0,
            batch: 7,
            ..config(4)
        };
        losses(&config, &data)
    };
    let whole = micro(None);
    for size in [1, 2, 3, 6, 7] {
        for (part, whole) in micro(Some(size)).iter().zip(&whole) {
            assert!(
                (part - whole).abs() < 1e-6,
                "in parts of {size}: {part}, {whole}"
            );
        }
    }
}

#[test]
fn a_score_is_an_objective() {
    let data = data();
    let config = FinetuneConfig {
        objective: Objective::Score,
        ..config(20)
    };
    let whole = losses(&config, &data);
    // Means of two of 0, 1/4, .. 1.
    assert!(
        whole
            .iter()
            .all(|loss| (0.0..=1.0).contains(loss) && (loss * 8.0).fract() == 0.0)
    );
    let parts = FinetuneConfig {
        micro_batch: Some(1),
        ..config
    };
    assert_eq!(losses(&parts, &data).len(), 20);
}

#[test]
fn the_schedule_sets_the_rate() {
    let data = data();
    // The factor is 0 in step 0, for the warm-up, and then 1, 2/3, 1/3.
    let config = FinetuneConfig {
        schedule: Schedule::Linear,
        warmup: 1,
        lr: 1e-2,
        ..config(4)
    };
    let first = FinetuneConfig {
        steps: 1,
        ..config.clone()
    };
    let end = |config: &FinetuneConfig| {
        let mut optim = mezo();
        let done = run(model(1), &mut optim, &data, config, quiet).unwrap();
        done.evaluations.last().unwrap().loss
    };
    let start = evaluate(&model(1), &data, 3, 0, &Device::flex())
        .unwrap()
        .loss;
    assert!((end(&first) - start).abs() < 1e-5, "no more than rounding");
    assert!((end(&config) - start).abs() > 1e-4);
}

#[test]
fn failures_give_the_reason_and_the_model() {
    let data = data();
    let fail = |spoil: fn(&mut FinetuneConfig), observer: fn(Event<'_>) -> Result<(), String>| {
        let mut config = config(3);
        spoil(&mut config);
        let mut optim = mezo();
        run(model(1), &mut optim, &data, &config, observer).unwrap_err()
    };
    let large = fail(|c| c.batch = 9, quiet);
    assert!(large.to_string().contains("batch of 9"), "{large}");
    assert_eq!(bits(&large.model), bits(&model(1)));
    let setting = fail(|c| c.lr = f64::NAN, quiet);
    assert!(
        matches!(setting.error, FinetuneError::Config(_)),
        "{setting}"
    );
    let observer = fail(
        |_| (),
        |event| match event {
            Event::Stepped { report, .. } if report.step == 1 => Err("disk full".to_owned()),
            _ => Ok(()),
        },
    );
    assert!(observer.to_string().contains("disk full"), "{observer}");
    assert_eq!(observer.step, 2);
    let step = fail(|c| c.lr = 1e300, quiet);
    let FinetuneError::Step(ZoError::Overflow { .. }) = &step.error else {
        panic!("{step}")
    };
    assert_eq!(step.model.num_params(), model(1).num_params());
}

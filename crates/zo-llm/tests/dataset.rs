//! Data sets from files, and the fine-tuning loop over them, with a tiny random Llama.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;

use burn::module::Module;
use burn::tensor::Device;
use serde_json::{Map, Value, json};
use zo_core::{Dense, Distribution, Settings, Sgd, ZeroOrder};
use zo_llm::batches::Order;
use zo_llm::dataset::{Dataset, DatasetError, Split, evaluate};
use zo_llm::finetune::{Event, FinetuneConfig, FinetuneError, finetune};
use zo_llm::task::{Sst2, Task, TaskError};
use zo_llm::{CausalLm, LmTokenizer, ModelConfig};

const WORDS: [&str; 10] = [
    "<unk>", "a", "film", ".", "It", "was", "great", "terrible", "good", "not",
];

fn config() -> ModelConfig {
    let config = json!({
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 10,
        "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 12,
        "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": true,
        "hidden_act": "silu", "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0,
    });
    ModelConfig::from_json(&config.to_string()).unwrap()
}

fn tokenizer(dir: &Path) -> LmTokenizer {
    let vocab: Map<String, Value> = WORDS
        .iter()
        .enumerate()
        .map(|(id, word)| ((*word).to_owned(), json!(id)))
        .collect();
    let file = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
        "normalizer": null, "pre_tokenizer": {"type": "Whitespace"}, "post_processor": null,
        "decoder": null, "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "<unk>"},
    });
    std::fs::write(dir.join("tokenizer.json"), file.to_string()).unwrap();
    LmTokenizer::from_dir(dir, &config()).unwrap()
}

fn load(task: &dyn Task, text: &str, rows: Option<usize>) -> Result<Dataset, DatasetError> {
    let dir = tempfile::tempdir().unwrap();
    let tokenizer = tokenizer(dir.path());
    std::fs::write(dir.path().join("train.jsonl"), text).unwrap();
    Dataset::load(
        task,
        dir.path(),
        Split::Train,
        rows,
        &tokenizer,
        config().context(),
    )
}

const GOOD: &str = r#"{"sentence": "a great film .", "label": 1}
{"sentence": "a terrible film .", "label": 0}

{"sentence": "not good", "label": 0}
"#;

#[test]
fn rows_become_prompts_and_label_words_tokens() {
    let data = load(&Sst2, GOOD, None).unwrap();
    assert_eq!(data.examples[0].tokens, [1, 6, 2, 3, 4, 5]);
    assert_eq!((data.labels(), data.options), (vec![1, 0, 0], vec![7, 6]));
    assert_eq!(load(&Sst2, GOOD, Some(2)).unwrap().len(), 2);
}

#[test]
fn bad_data_is_named() {
    let message = |text: &str| load(&Sst2, text, None).unwrap_err().to_string();
    let empty = message("\n \n");
    assert!(empty.contains("train.jsonl has no rows"), "{empty}");
    let bad = message(&format!("{GOOD}{{\"sentence\": 1, \"label\": 0}}"));
    assert!(
        bad.contains("train.jsonl, line 5: field `sentence` is 1"),
        "{bad}"
    );
    let long = format!("{{\"sentence\": \"{}\", \"label\": 0}}", "film ".repeat(20));
    let long = message(&format!("{GOOD}{long}"));
    assert!(
        long.contains("line 5") && long.contains("22 tokens") && long.contains("12"),
        "{long}"
    );
    let dir = tempfile::tempdir().unwrap();
    let tokenizer = tokenizer(dir.path());
    let missing = Dataset::load(&Sst2, dir.path(), Split::Dev, None, &tokenizer, 12).unwrap_err();
    assert!(missing.to_string().contains("dev.jsonl"), "{missing}");
}

struct TwoWords;

impl Task for TwoWords {
    fn name(&self) -> &'static str {
        "two-words"
    }

    fn options(&self) -> &'static [&'static str] {
        &[" not good", " great"]
    }

    fn prompt(&self, _: &Map<String, Value>) -> Result<String, TaskError> {
        Ok("It was".to_owned())
    }
}

#[test]
fn a_label_word_of_several_tokens_is_refused() {
    let error = load(&TwoWords, GOOD, None).unwrap_err().to_string();
    assert!(
        error.contains("` not good` is not one token") && error.contains("[9, 8]"),
        "{error}"
    );
}

fn optimizer(seed: u64) -> ZeroOrder<Distribution, Dense, Sgd> {
    let settings = Settings {
        seed,
        ..Settings::default()
    };
    ZeroOrder::new(settings, Distribution::Gaussian, Dense, Sgd).unwrap()
}

fn finetuning(steps: usize) -> FinetuneConfig {
    FinetuneConfig {
        steps,
        batch: 2,
        eval_every: 10,
        eval_batch: 2,
        order: Order::Balanced,
        seed: 0,
        pad: 0,
        autodiff_device: None,
    }
}

fn model(device: &Device) -> CausalLm {
    // burn's generator is one for the whole process, and draws weights when they are first used.
    static GENERATOR: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _alone = GENERATOR.lock().unwrap();
    device.seed(1);
    CausalLm::new(&config(), device).unwrap().materialize()
}

#[test]
fn fine_tuning_lowers_the_loss_and_tells_the_observer() {
    let device = Device::flex();
    let data = load(&Sst2, GOOD, None).unwrap();
    let (mut steps, mut evaluated, mut losses) = (0, Vec::new(), Vec::new());
    let observe = |event: Event<'_>| {
        match event {
            Event::Stepped { report, tokens, .. } => {
                assert_eq!((report.forwards, report.passes, report.copied), (2, 3, 0));
                assert!(tokens[0] >= tokens[1]);
                steps += 1;
            }
            Event::Evaluated { step, evaluation } => {
                assert_eq!(evaluation.predictions.len(), 3);
                evaluated.push(step);
                losses.push(evaluation.loss);
            }
            _ => {}
        }
        Ok(())
    };
    let (train, optim) = ([&data, &data], &mut optimizer(3));
    let config = finetuning(225);
    let after = finetune(
        model(&device),
        optim,
        |_| 0.01,
        train,
        &config,
        &device,
        observe,
    )
    .unwrap();
    assert_eq!(steps, 225);
    assert_eq!((evaluated[0], evaluated[1], evaluated.len()), (0, 10, 24));
    assert!(losses[23] < 0.7 * losses[0], "{losses:?}");
    let last = evaluate(&after, &data, 3, 0, &device).unwrap();
    assert!(
        (last.loss - losses[23]).abs() < 1e-5,
        "batching does not matter"
    );
}

#[test]
fn zero_steps_only_evaluate() {
    let device = Device::flex();
    let data = load(&Sst2, GOOD, None).unwrap();
    let start = model(&device);
    let before: Vec<f32> = weights(&start);
    let mut events = 0;
    let observe = |_: Event<'_>| {
        events += 1;
        Ok(())
    };
    let config = finetuning(0);
    let both = [&data, &data];
    let end = finetune(
        start,
        &mut optimizer(0),
        |_| 1.0,
        both,
        &config,
        &device,
        observe,
    )
    .unwrap();
    assert_eq!((events, weights(&end)), (1, before));
}

#[test]
fn failures_keep_their_reason() {
    let device = Device::flex();
    let data = load(&Sst2, GOOD, None).unwrap();
    let run = |batch, lr: f64, observer: fn(Event<'_>) -> Result<(), String>| {
        let config = FinetuneConfig {
            batch,
            ..finetuning(3)
        };
        let both = [&data, &data];
        let model = model(&device);
        finetune(
            model,
            &mut optimizer(0),
            |_| lr,
            both,
            &config,
            &device,
            observer,
        )
        .unwrap_err()
    };
    assert!(run(4, 0.1, |_| Ok(())).to_string().contains("batch of 4"));
    assert!(
        run(2, 0.1, |_| Err("disk full".into()))
            .to_string()
            .contains("disk full")
    );
    let error = run(2, f64::NAN, |_| Ok(()));
    let FinetuneError::Step(step) = &error else {
        panic!("{error}")
    };
    assert_eq!(step.module.num_params(), model(&device).num_params());
    assert!(error.to_string().contains("learning rate"), "{error}");
}

fn weights(model: &CausalLm) -> Vec<f32> {
    struct All(Vec<f32>);
    impl burn::module::ModuleVisitor for All {
        fn visit_float<const D: usize>(
            &mut self,
            param: &burn::module::Param<burn::tensor::Tensor<D>>,
        ) {
            self.0.extend(param.val().into_data().iter::<f32>());
        }
    }
    let mut all = All(Vec::new());
    model.visit(&mut all);
    all.0
}

//! Data sets from files, and the scores of a tiny random Llama on them.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::activation::log_softmax;
use burn::tensor::{Device, Tensor};
use serde_json::{Map, Value, json};
use zo_llm::dataset::{
    Dataset, DatasetError, Demonstration, Encoding, Split, TrainBatch, evaluate, evaluate_rows,
};
use zo_llm::task::rows::{At, Place};
use zo_llm::task::{AnswerFormat, Example, Fields, Kind, Sst2, Task, TaskError};
use zo_llm::{CausalLm, LmTokenizer, ModelConfig, PaddingSide, TokenBatch};

const WORDS: [&str; 10] = [
    "<unk>", "a", "film", ".", "It", "was", "great", "terrible", "good", "not",
];

fn config() -> ModelConfig {
    let config = json!({
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 10,
        "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 12,
        "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": true,
        "hidden_act": "silu", "bos_token_id": 0, "eos_token_id": null, "pad_token_id": 0,
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
    assert_eq!(data.examples[0].prompt(), [1, 6, 2, 3, 4, 5]);
    assert_eq!(
        (data.labels(), data.words),
        (vec![1, 0, 0], Some(vec![7, 6]))
    );
    let two = load(&Sst2, GOOD, Some(2)).unwrap();
    assert_eq!((two.len(), two.lengths()), (2, vec![7, 7]));
}

#[test]
fn bad_data_is_named() {
    let message = |text: &str| load(&Sst2, text, None).unwrap_err().to_string();
    let empty = message("\n \n");
    assert!(empty.contains("(Train) has no rows"), "{empty}");
    let bad = message(&format!("{GOOD}{{\"sentence\": 1, \"label\": 0}}"));
    assert!(
        bad.contains("train.jsonl, line 5: field `sentence` is 1"),
        "{bad}"
    );
    let long = format!("{{\"sentence\": \"{}\", \"label\": 0}}", "film ".repeat(20));
    let long = message(&format!("{GOOD}{long}"));
    assert!(
        long.contains("line 5") && long.contains("23 tokens") && long.contains("12"),
        "{long}"
    );
    let dir = tempfile::tempdir().unwrap();
    let tokenizer = tokenizer(dir.path());
    let missing = Dataset::load(&Sst2, dir.path(), Split::Dev, None, &tokenizer, 12).unwrap_err();
    assert!(missing.to_string().contains("dev.jsonl"), "{missing}");
}

/// A task of some kind that gives the examples it holds.
struct Fixed(Kind, &'static [&'static str]);

impl Task for Fixed {
    fn name(&self) -> &str {
        "fixed"
    }

    fn kind(&self) -> Kind {
        self.0
    }

    fn label_words(&self) -> Vec<&str> {
        self.1.to_vec()
    }

    fn read(&self, _: &Fields<'_>) -> Result<Vec<Example>, TaskError> {
        Ok(Vec::new())
    }

    fn answer_format(&self) -> AnswerFormat {
        AnswerFormat {
            max_tokens: 3,
            ..Default::default()
        }
    }
}

fn place(line: u64) -> Place {
    Place {
        path: "rows.jsonl".into(),
        at: At::Line(line),
    }
}

fn encode(
    task: &Fixed,
    examples: Vec<Example>,
    encoding: &Encoding<'_>,
) -> Result<Dataset, DatasetError> {
    let dir = tempfile::tempdir().unwrap();
    let tokenizer = tokenizer(dir.path());
    let placed: Vec<_> = (1..)
        .zip(examples)
        .map(|(line, e)| (e, place(line)))
        .collect();
    Dataset::encode(task, &placed, &tokenizer, config().context(), encoding)
}

fn model() -> CausalLm {
    // burn has one generator for the whole process, and draws weights when they are first used.
    static GENERATOR: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _alone = GENERATOR.lock().unwrap();
    let device = Device::flex();
    device.seed(1);
    let mut config = config();
    if let ModelConfig::Llama(config) = &mut config {
        config.initializer_range = 0.5;
    }
    CausalLm::new(&config, &device).unwrap().materialize()
}

/// The mean log-probability of the last `count` tokens, from the logits of all positions.
fn by_hand(model: &CausalLm, tokens: &[u32], count: usize) -> f32 {
    let batch = TokenBatch::new(&[tokens], 0, PaddingSide::Right, &Device::flex()).unwrap();
    let logits = log_softmax(model.logits(&batch), 2);
    let of = |at: usize| -> f32 {
        let token = tokens[at] as usize;
        logits
            .clone()
            .slice([0..1, at - 1..at, token..token + 1])
            .into_scalar::<f32>()
    };
    (tokens.len() - count..tokens.len()).map(of).sum::<f32>() / count as f32
}

fn close(a: f64, b: f64) {
    assert!((a - b).abs() < 1e-5, "{a} {b}");
}

fn scalar(x: Tensor<1>) -> f64 {
    f64::from(x.into_scalar::<f32>())
}

#[test]
fn options_of_several_tokens_are_scored_by_their_mean_log_probability() {
    let words = &[" not good", " great"];
    let task = Fixed(Kind::Classification, words);
    let example = |prompt: &str, label| Example::choice(prompt.to_owned(), words, label);
    let examples = vec![example("a film . It was", 1), example("It was", 0)];
    let data = encode(&task, examples, &Encoding::default()).unwrap();
    assert_eq!(data.words, None);
    assert_eq!(data.examples[1].sequences[0].last(), [9, 8]);
    let (model, device) = (model(), Device::flex());
    let (mut loss, mut chosen) = (0.0, Vec::new());
    for (prompt, label) in [(vec![1, 2, 3, 4, 5], 1), (vec![4, 5], 0)] {
        let scores = [vec![9, 8], vec![6]]
            .map(|option| by_hand(&model, &[&prompt[..], &option].concat(), option.len()));
        let total: f32 = scores.iter().map(|score| score.exp()).sum();
        loss -= f64::from(scores[label] - total.ln()) / 2.0;
        chosen.push(Some(usize::from(scores[1] > scores[0])));
    }
    let batch = TrainBatch::new(&data, &[0, 1], 0, &device).unwrap();
    close(scalar(batch.loss(&model)), loss);
    let found = evaluate(&model, &data, 1, 0, &device).unwrap();
    close(found.loss, loss);
    assert_eq!(found.predictions, chosen);
    let right = [1, 0].map(Some);
    let right = right.iter().zip(&chosen).filter(|(a, b)| a == b).count();
    close(found.accuracy, right as f64 / 2.0);
}

#[test]
fn single_tokens_give_the_same_loss_with_or_without_the_shortcut() {
    let words = &[" terrible", " great"];
    let task = Fixed(Kind::Classification, words);
    let example = |prompt: &str, label| Example::choice(prompt.to_owned(), words, label);
    let examples = vec![example("a film . It was", 1), example("It was", 0)];
    let mut data = encode(&task, examples, &Encoding::default()).unwrap();
    assert_eq!(data.words, Some(vec![7, 6]));
    let (model, device) = (model(), Device::flex());
    let short = evaluate(&model, &data, 2, 0, &device).unwrap();
    data.words = None;
    let long = evaluate(&model, &data, 2, 0, &device).unwrap();
    close(short.loss, long.loss);
    assert_eq!(
        (short.predictions, short.accuracy),
        (long.predictions, long.accuracy)
    );
}

#[test]
fn multiple_choice_teaches_the_right_option_alone() {
    let task = Fixed(Kind::MultipleChoice, &[]);
    let data = encode(
        &task,
        vec![
            Example::choice(
                "It was".to_owned(),
                &[" a film", " good", " not great ."],
                2,
            ),
            Example::choice("a film".to_owned(), &[" . It", " was great"], 0),
        ],
        &Encoding::default(),
    )
    .unwrap();
    let (model, device) = (model(), Device::flex());
    let scores = [
        by_hand(&model, &[4, 5, 1, 2], 2),
        by_hand(&model, &[4, 5, 8], 1),
        by_hand(&model, &[4, 5, 9, 6, 3], 3),
    ];
    let best = (0..3)
        .max_by(|a, b| scores[*a].total_cmp(&scores[*b]))
        .unwrap();
    let other = by_hand(&model, &[1, 2, 3, 4], 2);
    let found = evaluate_rows(&model, &data, &[0], 2, 0, &device).unwrap();
    assert_eq!(
        (found.predictions, found.accuracy),
        (vec![Some(best)], f64::from(u8::from(best == 2)))
    );
    close(found.loss, -f64::from(scores[2]));
    // Each row weighs the same.
    let batch = TrainBatch::new(&data, &[0, 1], 0, &device).unwrap();
    close(
        scalar(batch.loss(&model)),
        -f64::from(scores[2] + other) / 2.0,
    );
    assert_eq!(data.labels(), [0, 0], "options are not classes");
    assert_eq!(data.lengths(), [5, 4], "training reads the right option");
}

#[test]
fn generation_is_scored_by_f1_and_exact_match() {
    struct Ask;
    impl Task for Ask {
        fn name(&self) -> &str {
            "ask"
        }
        fn kind(&self) -> Kind {
            Kind::Generation
        }
        fn read(&self, _: &Fields<'_>) -> Result<Vec<Example>, TaskError> {
            Ok(Vec::new())
        }
        fn answer_format(&self) -> AnswerFormat {
            AnswerFormat {
                max_tokens: 3,
                stop: " .",
                ..Default::default()
            }
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let tokenizer = tokenizer(dir.path());
    let (model, device) = (model(), Device::flex());
    // What the model answers greedily, to know what is right.
    let mut tokens = vec![4, 5];
    for _ in 0..3 {
        let batch = TokenBatch::new(&[&tokens], 0, PaddingSide::Right, &device).unwrap();
        let all: Vec<u32> = (0..10).collect();
        let next = model
            .last_logits(&batch, &all)
            .argmax(1)
            .into_data()
            .iter::<i64>()
            .next();
        tokens.push(next.unwrap() as u32);
    }
    let said = tokenizer.decode(&tokens[2..]).unwrap();
    let said = said.split(" .").next().unwrap().trim().to_owned();
    let ask = |reference: &str| {
        let example = Example::text("It was".to_owned(), vec![reference.to_owned()]);
        let data = Dataset::encode(
            &Ask,
            &[(example, place(1))],
            &tokenizer,
            12,
            &Encoding::default(),
        );
        evaluate(&model, &data.unwrap(), 4, 0, &device).unwrap()
    };
    let right = ask(&said);
    assert_eq!(
        (right.accuracy, right.f1, right.answers),
        (1.0, Some(1.0), vec![Some(said.clone())])
    );
    let half = ask(&format!("{said} {}", said.replace(|_| true, "x")));
    assert_eq!(half.accuracy, 0.0);
    assert!(half.score() < 1.0 && half.score() == half.f1.unwrap());
}

#[test]
fn what_is_not_finite_is_counted_and_never_a_number() {
    struct Spoil;
    impl ModuleMapper for Spoil {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            param.map(|tensor| tensor * f32::NAN)
        }
    }
    let (words, device) = (&[" terrible", " great"], Device::flex());
    let long = &[" not good", " great"];
    let spoiled = model().map(&mut Spoil);
    let chosen = |prompt: &str, words: &[&str]| Example::choice(prompt.to_owned(), words, 0);
    let written = |prompt: &str| Example::text(prompt.to_owned(), vec!["good".to_owned()]);
    for (task, examples) in [
        (
            Fixed(Kind::Classification, words),
            ["It was", "a film"].map(|prompt| chosen(prompt, words)),
        ),
        (
            Fixed(Kind::Classification, long),
            ["It was", "a film"].map(|prompt| chosen(prompt, long)),
        ),
        (
            Fixed(Kind::MultipleChoice, &[]),
            ["It was", "a film"].map(|prompt| chosen(prompt, words)),
        ),
        (
            Fixed(Kind::Generation, &[]),
            ["It was", "a film"].map(written),
        ),
    ] {
        let data = encode(&task, examples.to_vec(), &Encoding::default()).unwrap();
        let found = evaluate(&spoiled, &data, 2, 0, &device).unwrap();
        assert!(found.accuracy.is_nan() && found.loss.is_nan() && found.score().is_nan());
        assert_eq!(found.not_finite, 2, "{:?}", data.kind);
        assert!(found.predictions.iter().all(Option::is_none));
        assert!(found.answers.iter().all(Option::is_none));
        let note = found.note().unwrap();
        assert!(note.contains("2 of 2 rows"), "{note}");
        let good = evaluate(&model(), &data, 2, 0, &device).unwrap();
        assert_eq!((good.not_finite, good.note()), (0, None));
    }
}

#[test]
fn demonstrations_stand_before_the_prompt_and_are_cut_at_the_front() {
    let words = &[" terrible", " great"];
    let task = Fixed(Kind::Classification, words);
    let example = |prompt: &str, label| Example::choice(prompt.to_owned(), words, label);
    let shown: Vec<_> = (0..4)
        .map(|_| Demonstration::new(&task, &example("a film . It was", 1)))
        .collect();
    assert_eq!(shown[0].0, "a film . It was great");
    let one = Encoding {
        demonstrations: &shown[..1],
        cut: false,
    };
    let data = encode(&task, vec![example("It was", 0)], &one).unwrap();
    assert_eq!(data.examples[0].prompt(), [1, 2, 3, 4, 5, 6, 4, 5]);
    let all = Encoding {
        demonstrations: &shown,
        cut: true,
    };
    let data = encode(&task, vec![example("It was", 0)], &all).unwrap();
    assert_eq!(data.examples[0].prompt(), [4, 5, 6, 1, 2, 3, 4, 5, 6, 4, 5]);
    assert_eq!(data.examples[0].sequences[0].tokens.len(), 12);
    let uncut = Encoding {
        demonstrations: &shown,
        cut: false,
    };
    let error = encode(&task, vec![example("It was", 0)], &uncut)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("rows.jsonl, line 1") && error.contains("27 tokens"),
        "{error}"
    );
}

#[test]
fn what_cannot_be_scored_is_refused() {
    let words = &["", " great"];
    let task = Fixed(Kind::Classification, words);
    let example = Example::choice("It was".to_owned(), words, 0);
    let error = encode(&task, vec![example], &Encoding::default())
        .unwrap_err()
        .to_string();
    assert!(error.contains("line 1: the continuation ``"), "{error}");
    let none = encode(&task, vec![], &Encoding::default())
        .unwrap_err()
        .to_string();
    assert!(none.contains("fixed") && none.contains("no rows"), "{none}");
}

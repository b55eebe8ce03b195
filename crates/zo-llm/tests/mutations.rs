//! Folders with random errors: they load or are refused, and nothing panics.
//!
//! `ZO_MUTATIONS` sets how many are tried (default 400).
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;
#[path = "common/torch.rs"]
mod torch;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use burn::tensor::Device;
use common::{Tensors, copy, golden};
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{Rng, SeedableRng};
use safetensors::SafeTensors;
use serde_json::{Map, Value, json};
use zo_llm::generate::{GenerateConfig, generate};
use zo_llm::tuning::{LoraConfig, load_adapter, save_adapter};
use zo_llm::{Dtype, PaddingSide, TokenBatch, Tuning, load};

const CASE: &str = "llama-tied-head-dim";

/// A `tokenizer.json` with a part of each kind.
fn tokenizer() -> Value {
    let letters = "abcdefghijklmnopqrstuvwxyz .,!?ABCDEFGHIJKLMNOPQRSTUV";
    let tokens = ["<pad>", "<s>", "</s>", "<unk>"].map(str::to_owned);
    let tokens = tokens.into_iter().chain(letters.chars().map(String::from));
    let tokens = tokens.chain(["ab".to_owned(), "abc".to_owned()]);
    let vocab: Map<String, Value> = tokens
        .enumerate()
        .map(|(id, token)| (token, json!(id)))
        .collect();
    let special = |id: u32, content: &str| json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true});
    json!({
        "version": "1.0",
        "truncation": {"direction": "Right", "max_length": 100, "strategy": "LongestFirst", "stride": 0},
        "padding": {"strategy": {"Fixed": 8}, "direction": "Right", "pad_to_multiple_of": null, "pad_id": 0, "pad_type_id": 0, "pad_token": "<pad>"},
        "added_tokens": [special(1, "<s>"), special(2, "</s>")],
        "normalizer": {"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "Prepend", "prepend": "a"}, {"type": "Strip", "strip_left": true, "strip_right": false}]},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": "\\s+"}, "behavior": "Isolated", "invert": false},
            {"type": "Digits", "individual_digits": true},
        ]},
        "post_processor": {
            "type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [], "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}},
        },
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "a"}, "content": "b"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0},
            {"type": "ByteFallback"}, {"type": "Fuse"},
            {"type": "CTC", "pad_token": "<pad>", "word_delimiter_token": "|", "cleanup": true},
        ]},
        "model": {"type": "BPE", "dropout": null, "unk_token": "<unk>", "continuing_subword_prefix": null, "end_of_word_suffix": null,
            "fuse_unk": false, "byte_fallback": false, "ignore_merges": false, "vocab": vocab, "merges": [["a", "b"], ["ab", "c"]]},
    })
}

/// What may replace any value.
fn instead(rng: &mut Xoshiro256PlusPlus) -> Value {
    let values = [
        json!(null),
        json!(true),
        json!(-1),
        json!(0),
        json!(1),
        json!(3),
        json!(61),
        json!(1u64 << 31),
        json!(u64::MAX),
        json!(1e300),
        json!(-0.5),
        json!(""),
        json!("a"),
        json!("é"),
        json!("[("),
        json!("<s>"),
        json!([]),
        json!([1, 2]),
        json!({}),
        json!({"type": "WordPiece", "prefix": "##", "cleanup": true}),
        json!({"type": "Metaspace", "replacement": "_", "prepend_scheme": "always", "split": true}),
        json!({"type": "BPEDecoder", "suffix": ""}),
        json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true}),
        json!({"type": "Precompiled", "precompiled_charsmap": "AAAA"}),
        json!({"type": "Unigram", "unk_id": 7, "vocab": [["a", -1.0]], "byte_fallback": true}),
        json!({"type": "WordLevel", "vocab": {"a": 5, "b": 4000000000u32}, "unk_token": "c"}),
    ];
    values[below(rng, values.len())].clone()
}

fn below(rng: &mut Xoshiro256PlusPlus, end: usize) -> usize {
    (rng.next_u64() % end as u64) as usize
}

/// Changes one value, each equally likely.
fn mutate(value: &mut Value, rng: &mut Xoshiro256PlusPlus) {
    let inner = match value {
        Value::Array(list) => list.len(),
        Value::Object(fields) => fields.len(),
        _ => 0,
    };
    if inner == 0 || below(rng, 6) == 0 {
        *value = instead(rng);
        return;
    }
    let at = below(rng, inner);
    match value {
        Value::Array(list) if below(rng, 6) == 0 => drop(list.remove(at)),
        Value::Array(list) => mutate(&mut list[at], rng),
        Value::Object(fields) => {
            let key = fields.keys().nth(at).unwrap().clone();
            if below(rng, 6) == 0 {
                fields.remove(&key);
            } else {
                mutate(&mut fields[&key], rng);
            }
        }
        _ => {}
    }
}

/// Changes a few bytes, or cuts the file short.
fn damage(path: &Path, rng: &mut Xoshiro256PlusPlus) {
    let mut bytes = std::fs::read(path).unwrap();
    if below(rng, 4) == 0 {
        bytes.truncate(below(rng, bytes.len()));
    } else {
        // Headers come first.
        let end = if below(rng, 2) == 0 { 64 } else { bytes.len() };
        for _ in 0..=below(rng, 3) {
            let at = below(rng, end.min(bytes.len()));
            bytes[at] = rng.next_u64() as u8;
        }
    }
    std::fs::write(path, bytes).unwrap();
}

/// Loads the folder and the adapter within, and uses them. Whatever is refused gives an error.
fn try_out(dir: &Path, adapter: bool) {
    let device = Device::default();
    let Ok(checkpoint) = load(dir, Dtype::F32, &device) else {
        return;
    };
    let (tokenizer, mut model) = (checkpoint.tokenizer, checkpoint.model);
    if adapter {
        let Ok((adapted, _)) = load_adapter(&dir.join("adapter"), model) else {
            return;
        };
        model = adapted;
    }
    let _ = tokenizer.encode("");
    let _ = tokenizer.encode_continued("abc é", " d12");
    let _ = tokenizer.decode(&[0, 1, 2, 3, 60, 61, u32::MAX]);
    let Ok(ids) = tokenizer.encode_prompt("abc ab <s> xyz") else {
        return;
    };
    if !ids.is_empty() && ids.len() <= model.context() {
        let batch = TokenBatch::new(&[&ids], 0, PaddingSide::Right, &device).unwrap();
        let logits = model.last_logits(&batch, &[1, 2]);
        assert_eq!(logits.dims(), [1, 2]);
        let config = GenerateConfig {
            max_tokens: 2,
            end: tokenizer.end_tokens().to_vec(),
            ..GenerateConfig::default()
        };
        let _ = generate(&model, &tokenizer, &[ids], &config, &device);
    }
}

#[test]
fn nothing_panics() {
    let count = std::env::var("ZO_MUTATIONS").map_or(400, |count| count.parse().unwrap());
    let base = copy(CASE);
    let write = |name: &str, value: &Value| {
        std::fs::write(base.path().join(name), value.to_string()).unwrap();
    };
    write("tokenizer.json", &tokenizer());
    write(
        "tokenizer_config.json",
        &json!({"tokenizer_class": "GPT2Tokenizer", "add_bos_token": true, "eos_token": {"content": "</s>"}, "bos_token": "<s>",
            "added_tokens_decoder": {"1": {"content": "<s>", "special": true}, "59": {"content": "!!"}}}),
    );
    write("generation_config.json", &json!({"eos_token_id": [2, 3]}));
    let (_, model) = zo_llm::load_model(&golden(CASE), Dtype::F32, &Device::default()).unwrap();
    let tuning = Tuning::Lora(LoraConfig::new().with_rank(2));
    let adapted = tuning.apply(model, 0).unwrap();
    let adapter = base.path().join("adapter");
    save_adapter(&adapter, &adapted, &tuning, "base").unwrap();
    try_out(base.path(), true);
    let bytes = std::fs::read(base.path().join("model.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let tensors: Tensors = file
        .iter()
        .map(|(name, view)| {
            (
                name.to_owned(),
                (view.dtype(), view.shape().to_vec(), view.data().to_vec()),
            )
        })
        .collect();
    let bin = torch::StateDict::new(&tensors).zip();

    let (jsons, others) = (
        [
            "tokenizer.json",
            "config.json",
            "tokenizer_config.json",
            "generation_config.json",
            "adapter/adapter_config.json",
        ],
        [
            "model.safetensors",
            "pytorch_model.bin",
            "adapter/adapter_model.safetensors",
            "tokenizer.json",
        ],
    );
    for seed in 0..count {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::create_dir(at("adapter")).unwrap();
        for name in jsons.iter().chain(&others) {
            if *name != "pytorch_model.bin" {
                std::fs::copy(base.path().join(name), at(name)).unwrap();
            }
        }
        let name = if below(&mut rng, 5) == 0 {
            let name = others[below(&mut rng, others.len())];
            if name == "pytorch_model.bin" {
                std::fs::remove_file(at("model.safetensors")).unwrap();
                std::fs::write(at(name), &bin).unwrap();
            }
            damage(&at(name), &mut rng);
            name
        } else {
            // Most can go wrong in the tokenizer.
            let name = jsons[below(&mut rng, 2 * jsons.len()).saturating_sub(jsons.len())];
            let text = std::fs::read_to_string(at(name)).unwrap();
            let mut value: Value = serde_json::from_str(&text).unwrap();
            for _ in 0..=below(&mut rng, 2) {
                mutate(&mut value, &mut rng);
            }
            std::fs::write(at(name), value.to_string()).unwrap();
            name
        };
        let tried = catch_unwind(AssertUnwindSafe(|| {
            try_out(dir.path(), name.starts_with("adapter"))
        }));
        if tried.is_err() {
            let text = String::from_utf8_lossy(&std::fs::read(at(name)).unwrap()).into_owned();
            panic!("seed {seed}: {name} panics: {text}");
        }
    }
}

use super::*;
use crate::model::config::{Family, LlamaConfig, ModelConfig, OptConfig};
use serde_json::{Map, Value, json};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;

mod decoding;

/// The id of ` great`.
const GREAT: u32 = 264;

/// GPT-2's files with the 256 bytes, OPT's special tokens and the merges that make ` great` one token.
fn folder() -> tempfile::TempDir {
    let mut alphabet: Vec<char> = ByteLevel::alphabet().into_iter().collect();
    alphabet.sort_unstable();
    let merges = ["Ġ g", "Ġg r", "e a", "ea t", "Ġgr eat"];
    let special = ["<s>", "<pad>", "</s>", "<unk>"]
        .map(str::to_owned)
        .into_iter();
    let merged = merges.iter().map(|merge| merge.replace(' ', ""));
    let tokens = special
        .chain(alphabet.iter().map(char::to_string))
        .chain(merged);
    let vocab: BTreeMap<_, _> = tokens.enumerate().map(|(id, token)| (token, id)).collect();
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(
        dir.path().join("vocab.json"),
        serde_json::to_string(&vocab).unwrap(),
    )
    .unwrap();
    std::fs::write(
        dir.path().join("merges.txt"),
        format!("#version: 0.2\n{}\n", merges.join("\n")),
    )
    .unwrap();
    dir
}

fn mistral(vocab_size: usize) -> ModelConfig {
    let mut config = LlamaConfig::new(vocab_size, 8, 8, 1, 1, 8);
    config.family = Family::Mistral;
    ModelConfig::Llama(config)
}

fn config(vocab_size: usize) -> ModelConfig {
    ModelConfig::Opt(OptConfig::new(vocab_size, 8, 1, 1, 8))
}

#[test]
fn vocab_and_merges_make_a_byte_level_tokenizer() {
    let dir = folder();
    let tokenizer = LmTokenizer::from_dir(dir.path(), &config(265)).unwrap();
    let great = tokenizer.encode_word(" great").unwrap();
    assert_eq!(great, [GREAT]);
    let ids = tokenizer.encode("é great").unwrap();
    assert_eq!((ids[0], ids.len(), ids[3]), (2, 4, GREAT));
    assert_eq!(tokenizer.decode(&ids).unwrap(), "é great");
    // If the tokenizer's own files say nothing, config.json says that OPT's texts begin with `</s>`, which is one token.
    assert_eq!(tokenizer.encode("").unwrap(), [2]);
    assert_eq!(tokenizer.encode("</s> great").unwrap(), [2, 2, GREAT]);
    assert_eq!(
        (tokenizer.begin(), tokenizer.end_tokens()),
        (&[2][..], &[2][..])
    );
}

/// Name and content.
type File = (&'static str, Value);

/// Writes JSON files into a new folder with a vocabulary, and turns it into `tokenizer.json` with a post-processor if one is given.
fn with(files: &[File], processor: Option<Value>) -> tempfile::TempDir {
    let dir = folder();
    if let Some(processor) = processor {
        let plain = LmTokenizer::from_dir(dir.path(), &config(265)).unwrap();
        let mut json = serde_json::to_value(&plain.tokenizer).unwrap();
        json["post_processor"] = processor;
        let text = json.to_string();
        std::fs::write(dir.path().join("tokenizer.json"), text).unwrap();
        std::fs::remove_file(dir.path().join("vocab.json")).unwrap();
        std::fs::remove_file(dir.path().join("merges.txt")).unwrap();
    }
    for (name, value) in files {
        std::fs::write(dir.path().join(name), value.to_string()).unwrap();
    }
    dir
}

/// A post-processor that puts tokens around a text.
fn template(before: &[u32], behind: &[u32]) -> Value {
    let special = |id: &u32| json!({"SpecialToken": {"id": id.to_string(), "type_id": 0}});
    let mut single: Vec<Value> = before.iter().map(special).collect();
    single.push(json!({"Sequence": {"id": "A", "type_id": 0}}));
    single.extend(behind.iter().map(special));
    let tokens: Map<String, Value> = (0..4)
        .map(|id| id.to_string())
        .map(|id| {
            (
                id.clone(),
                json!({"id": id, "ids": [id.parse::<u32>().unwrap()], "tokens": [id]}),
            )
        })
        .collect();
    json!({"type": "TemplateProcessing", "single": single, "pair": [], "special_tokens": tokens})
}

fn load(dir: &tempfile::TempDir) -> LmTokenizer {
    LmTokenizer::from_dir(dir.path(), &config(330)).unwrap()
}

#[test]
fn tokenizer_json_gives_the_same() {
    let from_files = load(&folder());
    let from_json = load(&with(&[], Some(template(&[2], &[]))));
    for text in ["great", " great  fun", "naïve\n\n</s>"] {
        let expected = from_files.encode(text).unwrap();
        assert_eq!(from_json.encode(text).unwrap(), expected);
    }
}

/// What goes around a text, according to transformers 5.24 for these files.
#[test]
fn first_and_last_tokens_come_from_the_tokenizer_s_files() {
    let gpt2 = |fields: Value| {
        let mut all =
            json!({"tokenizer_class": "GPT2Tokenizer", "bos_token": "</s>", "eos_token": "</s>"});
        for (key, value) in fields.as_object().unwrap() {
            all[key] = value.clone();
        }
        ("tokenizer_config.json", all)
    };
    let map = |fields: Value| ("special_tokens_map.json", fields);
    let s = json!({"__type": "AddedToken", "content": "<s>", "lstrip": false, "normalized": true});
    let both = json!({"add_bos_token": true, "add_eos_token": true});
    let bos = || json!({"add_bos_token": true});
    // vocab.json with merges.txt.
    let cases: [(&[File], &[u32], &[u32]); 9] = [
        (&[gpt2(bos())], &[2], &[]),
        (&[gpt2(both)], &[2], &[2]),
        (&[gpt2(json!({}))], &[], &[]),
        (
            &[gpt2(json!({"add_bos_token": true, "bos_token": s}))],
            &[0],
            &[],
        ),
        (
            &[gpt2(json!({"add_bos_token": true, "bos_token": null}))],
            &[],
            &[],
        ),
        (&[gpt2(bos()), map(json!({"bos_token": "<s>"}))], &[0], &[]),
        (
            &[
                gpt2(json!({"add_bos_token": true, "added_tokens_decoder": {}})),
                map(json!({"bos_token": "<s>"})),
            ],
            &[2],
            &[],
        ),
        (&[map(json!({"bos_token": "</s>"}))], &[], &[]),
        (&[], &[2], &[]),
    ];
    for (files, before, behind) in cases {
        let found = load(&with(files, None));
        assert_eq!(
            (found.begin(), &found.end[..]),
            (before, behind),
            "{files:?}"
        );
    }
    // tokenizer.json: only its own post-processor counts, whatever the others say.
    let bytes = json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true});
    let roberta = json!({"type": "RobertaProcessing", "sep": ["</s>", 2], "cls": ["<s>", 0], "trim_offsets": true, "add_prefix_space": false});
    let sequence = json!({"type": "Sequence", "processors": [bytes, template(&[0, 1], &[])]});
    for (processor, before, behind) in [
        (template(&[0], &[]), &[0][..], &[][..]),
        (template(&[0], &[2]), &[0], &[2]),
        (Value::Null, &[], &[]),
        (bytes, &[], &[]),
        (roberta, &[0], &[2]),
        (sequence, &[0, 1], &[]),
    ] {
        for files in [vec![], vec![gpt2(bos())]] {
            let found = load(&with(&files, Some(processor.clone())));
            assert_eq!(
                (found.begin(), &found.end[..]),
                (before, behind),
                "{processor}"
            );
            let text = found.encode(" great").unwrap();
            assert_eq!(text, [before, &[GREAT], behind].concat());
            assert_eq!(
                found.encode_prompt(" great").unwrap(),
                [before, &[GREAT]].concat()
            );
        }
    }
}

#[test]
fn gpt2s_class_splits_texts_in_its_own_way() {
    for (class, own) in [
        ("GPT2TokenizerFast", true),
        ("PreTrainedTokenizerFast", false),
    ] {
        let files = [("tokenizer_config.json", json!({"tokenizer_class": class}))];
        let dir = with(&files, Some(template(&[], &[])));
        let path = dir.path().join("tokenizer.json");
        let text = std::fs::read_to_string(&path).unwrap();
        let mut json: Value = serde_json::from_str(&text).unwrap();
        json["normalizer"] = json!({"type": "Lowercase"});
        json["pre_tokenizer"]["add_prefix_space"] = json!(true);
        std::fs::write(path, json.to_string()).unwrap();
        let words = load(&dir).encode_word("great great").unwrap();
        assert_eq!(words.last(), Some(&GREAT), "{class}");
        // The file asks for a space before the text and for lower case.
        assert_eq!(words == [GREAT, GREAT], !own, "{class}");
        let large = load(&dir).encode_word(" GREAT").unwrap();
        assert_eq!(large == [GREAT], !own, "{class}");
        // In a Mistral folder the class counts for nothing.
        let mistral = LmTokenizer::from_dir(dir.path(), &mistral(330)).unwrap();
        let words = mistral.encode_word("great great").unwrap();
        assert_eq!(words, [GREAT, GREAT], "{class}");
    }
}

#[test]
fn llamas_class_splits_texts_in_its_own_way() {
    // A file of Llama 2's kind: a space before each part of a text.
    let vocab = json!({"<s>": 0, "</s>": 1, "<unk>": 2, "▁": 3, "a": 4, "▁a": 5});
    let added = ["<s>", "</s>"].iter().enumerate().map(|(id, token)| {
        json!({"id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true})
    });
    let file = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added.collect::<Vec<_>>(),
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
        "pre_tokenizer": null, "post_processor": null, "decoder": null,
        "model": {"type": "BPE", "vocab": vocab, "merges": ["▁ a"], "unk_token": "<unk>", "fuse_unk": true, "byte_fallback": true},
    });
    let ids = |config: Value| {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("tokenizer.json"), file.to_string()).unwrap();
        let path = dir.path().join("tokenizer_config.json");
        std::fs::write(path, config.to_string()).unwrap();
        load(&dir).encode_word("a</s>a b").unwrap()
    };
    // As transformers 5.24 gives them.
    let class = |class: &str| json!({"tokenizer_class": class});
    let plain = ids(class("PreTrainedTokenizerFast"));
    assert_eq!(plain, [5, 1, 5, 3, 2]);
    assert_eq!(ids(class("LlamaTokenizer")), [5, 1, 4, 3]);
    let with = |key: &str, value| json!({"tokenizer_class": "LlamaTokenizerFast", key: value});
    assert_eq!(ids(with("legacy", true)), [5, 1, 5, 3]);
    assert_eq!(ids(with("add_prefix_space", false)), [4, 1, 4, 3]);
}

#[test]
fn added_tokens_are_one_id_each_wherever_they_are_listed() {
    let config = |fields: Value| {
        let mut all = json!({"bos_token": "</s>", "eos_token": "</s>", "unk_token": "<unk>"});
        for (key, value) in fields.as_object().unwrap() {
            all[key] = value.clone();
        }
        ("tokenizer_config.json", all)
    };
    let added = json!({"265": {"content": "<human>", "special": false}, "266": {"content": "<bot>", "special": true}});
    let cases = [
        vec![("added_tokens.json", json!({"<human>": 265, "<bot>": 266}))],
        vec![config(json!({"added_tokens_decoder": added}))],
        vec![config(
            json!({"additional_special_tokens": ["<human>", {"content": "<bot>"}]}),
        )],
        vec![config(
            json!({"extra_special_tokens": {"image_token": "<human>", "x": "<bot>"}}),
        )],
        vec![config(
            json!({"bos_token": "<human>", "image_token": "<bot>"}),
        )],
        vec![(
            "special_tokens_map.json",
            json!({"bos_token": "<human>", "eos_token": {"content": "<bot>"}}),
        )],
    ];
    for files in cases {
        for processor in [None, Some(Value::Null)] {
            let found = load(&with(&files, processor.clone()));
            let ids = found.encode_word("<human> great<bot> great").unwrap();
            assert_eq!(ids, [265, GREAT, 266, GREAT], "{files:?}, {processor:?}");
        }
    }
    // With `split_special_tokens` they are ordinary words.
    let split = config(json!({"split_special_tokens": true, "eos_token": "</s>"}));
    let found = load(&with(&[split], None));
    assert_eq!(found.encode_word("</s>").unwrap().len(), 4);
}

#[test]
fn tokens_with_two_ids_are_refused_where_they_are_used() {
    let files = [("added_tokens.json", json!({"<human>": 270, "<bot>": 271}))];
    for processor in [None, Some(Value::Null)] {
        let found = load(&with(&files, processor));
        assert_eq!(found.encode_word(" great").unwrap(), [GREAT]);
        let error = found.encode_word("<bot> great").unwrap_err().to_string();
        for part in ["\"<bot>\"", "added_tokens.json", "271", "266"] {
            assert!(error.contains(part), "no {part} in: {error}");
        }
    }
}

#[test]
fn end_tokens_are_the_tokenizer_s_and_those_of_generation() {
    let generation = |ids: Value| ("generation_config.json", json!({"eos_token_id": ids}));
    let eos = ("tokenizer_config.json", json!({"eos_token": "<unk>"}));
    let cases: [(&[File], &[u32]); 7] = [
        (&[], &[2]),
        (&[generation(json!(5))], &[5]),
        (&[generation(json!([7, 5]))], &[5, 7]),
        (&[generation(Value::Null)], &[2]),
        (&[generation(json!(-1))], &[2]),
        (std::slice::from_ref(&eos), &[3]),
        (&[eos.clone(), generation(json!([5, 999]))], &[3, 5]),
    ];
    for (files, expected) in cases {
        assert_eq!(load(&with(files, None)).end_tokens(), expected, "{files:?}");
    }
    let dir = with(&[generation(json!("</s>"))], None);
    let error = LmTokenizer::from_dir(dir.path(), &config(330))
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("generation_config.json") && error.contains("eos_token_id"),
        "{error}"
    );
}

#[test]
fn a_continuation_begins_where_its_text_does() {
    let around = [
        template(&[0], &[2]),
        json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true}),
    ];
    for processor in around {
        let tokenizer = load(&with(&[], Some(processor)));
        let begin = tokenizer.begin().to_vec();
        let (ids, border) = tokenizer.encode_continued("a", " great").unwrap();
        assert_eq!((&ids[border..], border), (&[GREAT][..], begin.len() + 1));
        // ` gr` and `eat` are one token, which belongs to the continuation.
        let (ids, border) = tokenizer.encode_continued("a gr", "eat great").unwrap();
        assert_eq!(
            (&ids[border..], border),
            (&[GREAT, GREAT][..], begin.len() + 1)
        );
        // Two line ends before a word are split differently from those at the end of a text.
        let (ids, border) = tokenizer.encode_continued("a\n\n", "é").unwrap();
        assert_eq!((ids.len() - border, border), (2, begin.len() + 3));
        let (ids, border) = tokenizer.encode_continued("a", "").unwrap();
        assert_eq!(border, ids.len());
    }
}

#[test]
fn a_reader_that_panics_is_an_error() {
    // A template with a token that is not listed.
    let mut processor = template(&[0], &[]);
    processor["single"][0]["SpecialToken"]["id"] = json!("<nowhere>");
    // A template that repeats the text, and one without it.
    let mut twice = template(&[], &[]);
    twice["single"] =
        json!([{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]);
    let mut other = template(&[], &[]);
    other["single"] = json!([{"Sequence": {"id": "B", "type_id": 0}}]);
    for processor in [processor, twice, other] {
        let dir = with(&[], Some(processor.clone()));
        let error = LmTokenizer::from_dir(dir.path(), &config(330)).unwrap_err();
        let error = error.to_string();
        assert!(error.contains("tokenizer.json"), "{processor}: {error}");
    }
}

#[test]
fn bad_tokenizers_are_refused() {
    let dir = folder();
    let error = |vocab_size| {
        let error = LmTokenizer::from_dir(dir.path(), &config(vocab_size)).unwrap_err();
        error.to_string()
    };
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    let tokenizer = LmTokenizer::from_dir(dir.path(), &config(264)).unwrap();
    let outside = tokenizer.encode(" great").unwrap_err().to_string();
    assert!(
        outside.contains("264") && outside.contains(" great"),
        "{outside}"
    );

    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n";
    for name in ["merges.txt", "tokenizer_config.json", "tokenizer.json"] {
        let before = std::fs::read(dir.path().join(name)).ok();
        write(name, pointer);
        let message = error(265);
        assert!(
            message.contains(name) && message.contains("git lfs pull"),
            "{message}"
        );
        match before {
            Some(bytes) => std::fs::write(dir.path().join(name), bytes).unwrap(),
            None => std::fs::remove_file(dir.path().join(name)).unwrap(),
        }
    }
    for (text, words) in [
        ("[]", "JSON object"),
        (r#"{"add_bos_token": "yes"}"#, "add_bos_token"),
        (r#"{"bos_token": 3}"#, "bos_token"),
        (
            r#"{"added_tokens_decoder": {"x": "y"}}"#,
            "added_tokens_decoder",
        ),
        (r#"{"tokenizer_class": "Qwen2Tokenizer"}"#, "Qwen2Tokenizer"),
        (
            r#"{"tokenizer_class": "GPT2Tokenizer", "add_bos_token": true}"#,
            "<|endoftext|>",
        ),
    ] {
        write("tokenizer_config.json", text);
        let message = error(265);
        assert!(message.contains(words), "{message}");
    }
    std::fs::remove_file(dir.path().join("tokenizer_config.json")).unwrap();

    write("tokenizer.json", "{}");
    let message = error(265);
    assert!(message.contains("tokenizer.json"), "{message}");
    std::fs::remove_file(dir.path().join("tokenizer.json")).unwrap();
    write("vocab.json", "[");
    let message = error(265);
    assert!(message.contains("vocab.json"), "{message}");
    std::fs::remove_file(dir.path().join("vocab.json")).unwrap();
    let message = error(265);
    assert!(message.contains("neither"), "{message}");
}

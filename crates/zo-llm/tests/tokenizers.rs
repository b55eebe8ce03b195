//! Tokenizer folders of all forms give the same ids as transformers: `tokenizers/make.py` made them and recorded the ids. `ZO_TOKENIZER_CASES`
//! names another file that it wrote.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::path::Path;

use serde_json::{Map, Value, json};
use zo_llm::{LlamaConfig, LmTokenizer, ModelConfig, OptConfig, TokenizerError};

/// The folder of a case, with the vocabulary that all share.
fn folder(base: &Value, files: &Map<String, Value>) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    for (name, value) in files {
        let mut value = value.clone();
        if name == "tokenizer.json" {
            value["model"] = base["model"].clone();
        }
        write(name, &value.to_string());
    }
    if !files.contains_key("tokenizer.json") {
        let merges = base["merges"].as_array().unwrap().iter();
        let merges: Vec<&str> = merges.map(|merge| merge.as_str().unwrap()).collect();
        write(
            "merges.txt",
            &format!("#version: 0.2\n{}\n", merges.join("\n")),
        );
        write("vocab.json", &base["vocab"].to_string());
    }
    dir
}

fn ids(value: &Value) -> Vec<u32> {
    let ids = value.as_array().unwrap().iter();
    ids.map(|id| id.as_u64().unwrap() as u32).collect()
}

#[test]
fn ids_are_those_of_transformers() {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tokenizers/cases.json");
    let path = std::env::var_os("ZO_TOKENIZER_CASES").map_or(own, Into::into);
    let file: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let base = &file["base"];
    let (mut compared, mut contested) = (0, 0);
    for case in file["cases"].as_array().unwrap() {
        let files = case["files"].as_object().unwrap();
        let dir = folder(base, files);
        let config = match case["kind"].as_str().unwrap() {
            "opt" => ModelConfig::Opt(OptConfig::new(400, 8, 1, 1, 8)),
            _ => ModelConfig::Llama(LlamaConfig::new(400, 8, 8, 1, 1, 8)),
        };
        let tokenizer = LmTokenizer::from_dir(dir.path(), &config).unwrap();
        let shown = || {
            let mut files = files.clone();
            if let Some(json) = files.get_mut("tokenizer.json") {
                json["model"] = json!("..");
            }
            Value::Object(files).to_string()
        };
        let texts = base["texts"].as_array().unwrap().iter();
        let expected = case["ids"].as_array().unwrap().iter();
        let decoded = case["decoded"].as_array().unwrap();
        for ((text, expected), decoded) in texts.zip(expected).zip(decoded) {
            let text = text.as_str().unwrap();
            match tokenizer.encode(text) {
                Ok(found) => {
                    assert_eq!(found, ids(expected), "{text:?} with {}", shown());
                    assert_eq!(
                        tokenizer.decode(&found).unwrap(),
                        decoded.as_str().unwrap(),
                        "{}",
                        shown()
                    );
                    compared += 1;
                }
                // Two files disagree; transformers uses the index in the vocabulary, or drops one of the tokens.
                Err(TokenizerError::Contested {
                    token, id, claimed, ..
                }) => {
                    assert!(text.contains(&token) && id != claimed, "{}", shown());
                    contested += 1;
                }
                Err(error) => panic!("{error}: {}", shown()),
            }
        }
        if let Some(eos) = case["eos"].as_u64() {
            let ends = tokenizer.end_tokens();
            // GPT-2's default, which the vocabulary lacks, ends nothing.
            let default = files.get("tokenizer_config.json").is_none();
            assert!(
                default || ends.contains(&(eos as u32)),
                "{ends:?} {eos} {}",
                shown()
            );
        }
    }
    println!("{compared} texts compared, {contested} refused");
    assert!(compared > 300 && contested * 20 < compared);
}

#![no_main]
//! A `tokenizer.json`.

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use zo_fuzz::Folder;
use zo_llm::{LlamaConfig, LmTokenizer, ModelConfig};

static FOLDER: LazyLock<Folder> =
    LazyLock::new(|| Folder::copy("agreement/00-llama-gpt2-saved-sst2/model"));

fuzz_target!(|bytes: &[u8]| {
    let dir = FOLDER.put("tokenizer.json", bytes);
    let config = ModelConfig::Llama(LlamaConfig::new(512, 8, 8, 1, 1, 8));
    let Ok(tokenizer) = LmTokenizer::from_dir(dir, &config) else {
        return;
    };
    let _ = tokenizer.encode_continued("The film's é\u{1F600} 12", " was <s> great.");
    let _ = tokenizer.decode(&[0, 1, 2, 3, 60, 61, u32::MAX]);
});

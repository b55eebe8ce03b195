#![no_main]
//! Weights in a safetensors file.

use std::sync::LazyLock;

use burn::tensor::Device;
use libfuzzer_sys::fuzz_target;
use zo_fuzz::Folder;
use zo_llm::{Dtype, load_model};

static FOLDER: LazyLock<Folder> = LazyLock::new(|| Folder::copy("golden/llama-tied-head-dim"));

fuzz_target!(|bytes: &[u8]| {
    let dir = FOLDER.put("model.safetensors", bytes);
    let _ = load_model(dir, Dtype::F32, &Device::default());
});

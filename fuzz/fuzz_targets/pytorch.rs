#![no_main]
//! Weights as `torch.save` writes them.

use std::sync::LazyLock;

use burn::tensor::Device;
use libfuzzer_sys::fuzz_target;
use zo_fuzz::Folder;
use zo_llm::{Dtype, load_model};

static FOLDER: LazyLock<Folder> =
    LazyLock::new(|| Folder::copy("golden/llama-tied-head-dim").without("model.safetensors"));

fuzz_target!(|bytes: &[u8]| {
    let dir = FOLDER.put("pytorch_model.bin", bytes);
    let _ = load_model(dir, Dtype::F32, &Device::default());
});

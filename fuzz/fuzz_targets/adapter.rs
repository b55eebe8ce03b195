#![no_main]
//! The configuration of an adapter, and its weights: the first byte says which of them the others are.

use std::sync::LazyLock;

use burn::tensor::Device;
use libfuzzer_sys::fuzz_target;
use zo_fuzz::{Folder, golden};
use zo_llm::tuning::load_adapter;
use zo_llm::{CausalLm, Dtype, load_model};

const SOURCE: &str = "agreement/04-opt-gpt2-vocab-sst2";

static MODEL: LazyLock<CausalLm> = LazyLock::new(|| {
    let dir = golden(SOURCE).join("model");
    let loaded = load_model(&dir, Dtype::F32, &Device::default());
    loaded.expect("a golden folder").1
});

fuzz_target!(|bytes: &[u8]| {
    let Some((first, bytes)) = bytes.split_first() else {
        return;
    };
    let folder = Folder::copy(&format!("{SOURCE}/adapter"));
    let file = match first % 2 {
        0 => "adapter_config.json",
        _ => "adapter_model.safetensors",
    };
    let _ = load_adapter(folder.put(file, bytes), MODEL.clone());
});

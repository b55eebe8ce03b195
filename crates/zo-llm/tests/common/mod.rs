//! The golden folders and ways to damage them.
#![allow(dead_code, reason = "each test file uses its own part")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeMap;
use std::error::Error;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype as FileDtype, TensorView};
use zo_llm::dataset::{Dataset, Encoding, Evaluation, Split, evaluate};
use zo_llm::task::rows::read_examples;
use zo_llm::tuning::load_adapter;
use zo_llm::{CausalLm, Checkpoint, Dtype, TokenBatch};

/// The folders that `golden/make.py` writes, except for [`DYNAMIC`] and [`MASKED`].
pub(crate) const CASES: [&str; 21] = [
    "opt-pre-norm",
    "opt-post-norm-projected",
    "opt-gelu-no-bias-untied",
    "llama-gqa-shards",
    "llama-tied-head-dim",
    "llama3-rope-scaling",
    "llama-linear",
    "llama-yarn",
    "mistral-window",
    "mistral-head-dim",
    "mistral-linear",
    "qwen2-tied",
    "qwen2-late-window",
    "qwen2-yarn",
    "qwen3-head-dim",
    "qwen3-bias-alternating",
    "qwen3-linear-shards",
    "qwen3-yarn",
    "gemma3-alternating",
    "gemma3-scaled",
    "gemma3-untied-pattern",
];

/// Folders of masked language models.
pub(crate) const MASKED: [&str; 3] = ["roberta-tied", "roberta-untied", "roberta-tanh-shards"];

/// Folders of models in which a sequence notices the longest of its batch, as in transformers.
pub(crate) const DYNAMIC: [&str; 3] = ["llama-dynamic", "mistral-dynamic", "qwen3-dynamic"];

pub(crate) fn golden(case: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(case)
}

/// Ids, mask, logits and their shape `[batch, seq, vocab]`.
pub(crate) struct Golden {
    pub(crate) ids: Vec<Vec<u32>>,
    pub(crate) mask: Vec<Vec<bool>>,
    pub(crate) logits: Vec<f32>,
    pub(crate) shape: [usize; 3],
}

impl Golden {
    pub(crate) fn read(case: &str) -> Self {
        let bytes = std::fs::read(golden(case).join("golden.safetensors")).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let shape: [usize; 3] = file.tensor("logits").unwrap().shape().try_into().unwrap();
        let integers = |name| -> Vec<Vec<i64>> {
            let tensor: TensorView<'_> = file.tensor(name).unwrap();
            let values: Vec<_> = tensor
                .data()
                .chunks(8)
                .map(|b| i64::from_le_bytes(b.try_into().unwrap()))
                .collect();
            values.chunks(shape[1]).map(<[i64]>::to_vec).collect()
        };
        let rows = |rows: Vec<Vec<i64>>| {
            rows.into_iter()
                .map(|row| row.into_iter().map(|id| id as u32).collect())
        };
        let masks = integers("attention_mask").into_iter();
        let logits = file.tensor("logits").unwrap();
        Self {
            ids: rows(integers("input_ids")).collect(),
            mask: masks
                .map(|row| row.into_iter().map(|real| real != 0).collect())
                .collect(),
            logits: logits
                .data()
                .chunks(4)
                .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
                .collect(),
            shape,
        }
    }

    pub(crate) fn batch(&self, device: &Device) -> TokenBatch {
        TokenBatch::from_mask(&self.ids, &self.mask, device).unwrap()
    }

    /// Largest absolute difference of the model's logits at unpadded positions.
    pub(crate) fn difference(&self, model: &CausalLm, device: &Device) -> f32 {
        let logits = model.logits(&self.batch(device));
        assert_eq!(logits.dims(), self.shape);
        let found: Vec<f32> = logits.into_data().iter::<f32>().collect();
        assert!(found.iter().all(|logit| logit.is_finite()));
        let real = self
            .mask
            .iter()
            .flatten()
            .flat_map(|real| std::iter::repeat_n(*real, self.shape[2]));
        let pairs = found
            .iter()
            .zip(&self.logits)
            .zip(real)
            .filter(|(_, real)| *real);
        pairs
            .map(|((found, expected), _)| (found - expected).abs())
            .fold(0.0, f32::max)
    }
}

/// A copy of a golden folder that may be damaged; dropping it removes it.
pub(crate) fn copy(case: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(golden(case)).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), dir.path().join(entry.file_name())).unwrap();
    }
    dir
}

/// Tensors of a safetensors file: name to type, shape and bytes.
pub(crate) type Tensors = BTreeMap<String, (FileDtype, Vec<usize>, Vec<u8>)>;

/// Rewrites the tensors of `model.safetensors`.
pub(crate) fn edit(dir: &Path, change: impl FnOnce(&mut Tensors)) {
    let path = dir.join("model.safetensors");
    let bytes = std::fs::read(&path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let mut tensors: Tensors = file
        .iter()
        .map(|(name, view)| {
            (
                name.to_owned(),
                (view.dtype(), view.shape().to_vec(), view.data().to_vec()),
            )
        })
        .collect();
    change(&mut tensors);
    let views = tensors.iter().map(|(name, (dtype, shape, data))| {
        (
            name.as_str(),
            TensorView::new(*dtype, shape.clone(), data).unwrap(),
        )
    });
    std::fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
}

/// Replaces text in `config.json`, which must contain it.
pub(crate) fn edit_config(dir: &Path, from: &str, to: &str) {
    let path = dir.join("config.json");
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.contains(from), "{text}");
    std::fs::write(path, text.replace(from, to)).unwrap();
}

/// What `folder` holds, evaluated: `model`, `adapter` where there is one, and the held-out rows of `data`.
pub(crate) fn evaluate_folder(
    folder: &Path,
    task: &str,
    cut: bool,
    device: &Device,
) -> Result<Evaluation, Box<dyn Error>> {
    let Checkpoint {
        config,
        mut model,
        tokenizer,
    } = zo_llm::load(&folder.join("model"), Dtype::F32, device)?;
    let adapter = folder.join("adapter");
    if adapter.exists() {
        (model, _) = load_adapter(&adapter, model)?;
    }
    let task = zo_llm::task::task(task)?;
    let rows = read_examples(task.as_ref(), &folder.join("data"), Split::Dev, None)?;
    let encoding = Encoding {
        cut,
        ..Encoding::default()
    };
    let data = Dataset::encode(task.as_ref(), &rows, &tokenizer, model.context(), &encoding)?;
    Ok(evaluate(&model, &data, 2, config.pad_token_id(), device)?)
}

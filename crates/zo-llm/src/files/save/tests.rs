use super::*;
use crate::files::load::{Checkpoint, load, load_model};
use crate::model::batch::{PaddingSide, TokenBatch};
use crate::model::config::{LlamaConfig, OptConfig};
use burn::module::{Lora, ModuleMapper, Param, ParamGroup};
use burn::tensor::{Device, Tensor};

fn configs() -> [ModelConfig; 2] {
    [
        ModelConfig::Opt(OptConfig::new(61, 16, 2, 4, 24)),
        ModelConfig::Llama(LlamaConfig::new(61, 16, 24, 2, 4, 24)),
    ]
}

fn logits(model: &CausalLm) -> Vec<f32> {
    let device = Device::default();
    let batch = TokenBatch::new(&[vec![2, 5, 60, 7]], 1, PaddingSide::Right, &device);
    let logits = model.logits(&batch.unwrap()).into_data();
    logits.iter::<f32>().collect()
}

fn difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    let differences = a.iter().zip(b).map(|(a, b)| (a - b).abs());
    differences.fold(0.0, f32::max)
}

/// Sets the second factor of each adapter, which starts at zero, to ones.
#[derive(Default)]
struct Adapt(Vec<String>);

impl ModuleMapper for Adapt {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.0.push(name.to_owned());
    }
    fn exit_module(&mut self, _: &str, _: &str) {
        self.0.pop();
    }
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if self.0.last().is_some_and(|name| name == "b") {
            param.map(|tensor| tensor.ones_like())
        } else {
            param
        }
    }
}

#[test]
fn adapters_are_saved_merged_under_the_names_of_the_base() {
    let device = Device::default();
    for config in configs() {
        let base = CausalLm::new(&config, &device).unwrap();
        let before = logits(&base);
        let adapted = ParamGroup::from_any_predicates(vec!["q_proj.weight", "v_proj.weight"]);
        let lora = Lora::new(2, 1.0).set_param_group(adapted);
        let model = base.apply_lora(lora).map(&mut Adapt::default());
        let after = logits(&model);
        assert!(difference(&before, &after) > 1e-3);

        let dir = tempfile::tempdir().unwrap();
        save_model(dir.path(), &config, &model, Dtype::F32).unwrap();
        let (_, merged) = load_model(dir.path(), Dtype::F32, &device).unwrap();
        assert!(difference(&logits(&merged), &after) < 1e-5);
        // The model that was saved still has its adapters.
        let paths: Vec<_> = slots(&model).into_iter().map(|slot| slot.path).collect();
        assert_eq!(
            paths
                .iter()
                .filter(|path| path.ends_with(".lora.a"))
                .count(),
            4
        );
    }
}

#[test]
fn the_type_of_the_weights_is_in_the_configuration() {
    let dtypes = [
        (Dtype::F32, "float32"),
        (Dtype::Bf16, "bfloat16"),
        (Dtype::F16, "float16"),
    ];
    for config in configs() {
        for (dtype, name) in dtypes {
            let text = config_text(&config, dtype).unwrap();
            let value: Value = serde_json::from_str(&text).unwrap();
            assert_eq!(value["torch_dtype"], name);
            assert_eq!(ModelConfig::from_json(&text).unwrap(), config);
        }
    }
}

#[test]
fn a_checkpoint_is_complete() {
    let device = Device::default();
    let original = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/agreement/02-opt-llama2-saved-record/model");
    let folder = tempfile::tempdir().unwrap();
    let (source, target) = (folder.path().join("source"), folder.path().join("target"));
    std::fs::create_dir(&source).unwrap();
    for name in ["config.json", "model.safetensors", "tokenizer.json"] {
        std::fs::copy(original.join(name), source.join(name)).unwrap();
    }
    std::fs::write(source.join("generation_config.json"), "{}").unwrap();
    std::fs::write(source.join("README.md"), "not part of the checkpoint").unwrap();

    let Checkpoint {
        config,
        model,
        tokenizer,
    } = load(&source, Dtype::F32, &device).unwrap();
    // Into its own folder, too.
    for dir in [&target, &source] {
        save_checkpoint(dir, &source, &config, &model, Dtype::F32).unwrap();
        let again = load(dir, Dtype::F32, &device).unwrap();
        assert_eq!(again.config, config);
        assert_eq!(logits(&again.model), logits(&model));
        let text = "a gripping film";
        assert_eq!(
            again.tokenizer.encode(text).unwrap(),
            tokenizer.encode(text).unwrap()
        );
    }
    let mut names: Vec<_> = std::fs::read_dir(&target)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    names.sort_unstable();
    assert_eq!(
        names,
        [
            "config.json",
            "generation_config.json",
            "model.safetensors",
            "tokenizer.json"
        ]
    );
}

#[test]
fn a_source_without_a_tokenizer_is_refused_before_anything_is_written() {
    let [config, _] = configs();
    let model = CausalLm::new(&config, &Device::default()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (source, target) = (folder.path().join("none"), folder.path().join("target"));
    let error = save_checkpoint(&target, &source, &config, &model, Dtype::F32).unwrap_err();
    let message = error.to_string();
    for part in ["none", "tokenizer.json", "merges.txt"] {
        assert!(message.contains(part), "{message}");
    }
    assert!(!target.exists());
}

#[test]
fn a_save_that_fails_leaves_the_old_file() {
    let [config, _] = configs();
    let model = CausalLm::new(&config, &Device::default()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let weights = dir.path().join("model.safetensors");
    std::fs::write(&weights, "old").unwrap();
    // A folder in place of the other file.
    std::fs::create_dir(dir.path().join("config.json")).unwrap();
    let error = save_model(dir.path(), &config, &model, Dtype::F32).unwrap_err();
    assert!(error.to_string().contains("config.json"), "{error}");
    assert_eq!(std::fs::read_to_string(&weights).unwrap(), "old");
    assert_eq!(dir.path().read_dir().unwrap().count(), 2);
}

#[test]
fn large_models_are_saved_in_shards_with_an_index() {
    let device = Device::default();
    for config in configs() {
        let model = CausalLm::new(&config, &device).unwrap();
        let expected = logits(&model);
        let dir = tempfile::tempdir().unwrap();
        let files = || {
            let entries = dir.path().read_dir().unwrap();
            let mut names: Vec<_> = entries
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            names.sort();
            names
        };
        let whole = ["config.json", "model.safetensors"];
        save_model(dir.path(), &config, &model, Dtype::F32).unwrap();
        assert_eq!(files(), whole);

        save_model_in_shards(dir.path(), &config, &model, Dtype::F32, 4000).unwrap();
        let names = files();
        let shards = names.len() - 2;
        assert!(shards > 2 && names[1] == format!("model-00001-of-{shards:05}.safetensors"));
        assert!(
            names.contains(&"model.safetensors.index.json".to_owned()),
            "{names:?}"
        );
        let index = std::fs::read(dir.path().join("model.safetensors.index.json")).unwrap();
        let index: Value = serde_json::from_slice(&index).unwrap();
        let weights: usize = slots(&model)
            .iter()
            .map(|slot| slot.shape.iter().product::<usize>())
            .sum();
        assert_eq!(index["metadata"]["total_size"], 4 * weights);
        assert_eq!(
            index["weight_map"].as_object().unwrap().len(),
            slots(&model).len()
        );
        for name in &names[1..=shards] {
            let long = dir.path().join(name).metadata().unwrap().len();
            // The header comes on top, and one tensor may be larger.
            assert!(
                long < 4000 + 2000 || long < 61 * 16 * 4 + 1000,
                "{name}: {long}"
            );
        }
        let (_, loaded) = load_model(dir.path(), Dtype::F32, &device).unwrap();
        assert_eq!(logits(&loaded), expected);

        // Fewer shards, and a single file again: nothing of the other form is left for a reader to find.
        save_model_in_shards(dir.path(), &config, &model, Dtype::F32, 12_000).unwrap();
        assert!(files().len() < names.len());
        save_model(dir.path(), &config, &model, Dtype::F32).unwrap();
        assert_eq!(files(), whole);
    }
}

use super::*;

const LLAMA: &str = r#"{"architectures": ["LlamaForCausalLM"], "vocab_size": 97, "hidden_size": 32, "intermediate_size": 48,
    "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64"#;
const OPT: &str = r#"{"model_type": "opt", "vocab_size": 97, "hidden_size": 32, "ffn_dim": 64, "num_hidden_layers": 2,
    "num_attention_heads": 4, "max_position_embeddings": 64"#;

fn llama(rest: &str) -> Result<LlamaConfig, ConfigError> {
    match ModelConfig::from_json(&format!("{LLAMA}{rest}}}"))? {
        ModelConfig::Llama(config) => Ok(config),
        other => panic!("{other:?}"),
    }
}

fn message<T: std::fmt::Debug>(result: Result<T, ConfigError>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn both_spellings_of_rope_agree() {
    let scaling = r#""factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 16"#;
    let new = llama(&format!(
        r#", "rope_parameters": {{"rope_type": "llama3", "rope_theta": 5e5, {scaling}}}"#
    ))
    .unwrap();
    let old = llama(&format!(
        r#", "rope_theta": 5e5, "rope_scaling": {{"rope_type": "llama3", {scaling}}}"#
    ))
    .unwrap();
    let older = llama(&format!(
        r#", "rope_theta": 5e5, "rope_scaling": {{"type": "llama3", {scaling}}}"#
    ))
    .unwrap();
    assert_eq!(new, old);
    assert_eq!(new, older);
    assert_eq!(new.rope_theta, 5e5);
    assert_eq!(
        new.rope_scaling.unwrap().original_max_position_embeddings,
        16
    );

    let plain = llama(r#", "rope_theta": 1e5, "rope_scaling": null"#).unwrap();
    assert_eq!((plain.rope_theta, plain.rope_scaling), (1e5, None));
    assert_eq!(llama("").unwrap().rope_theta, 1e4);
    let default =
        llama(r#", "rope_parameters": {"rope_type": "default", "rope_theta": 2e4}"#).unwrap();
    assert_eq!(default.rope_theta, 2e4);
}

#[test]
fn rope_is_read_from_the_spelling_that_transformers_prefers() {
    let llama3 = r#"{"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}"#;
    // `rope_scaling` as a whole, with the theta beside it.
    let both = llama(&format!(
        r#", "rope_parameters": {{"rope_type": "default", "rope_theta": 2e4}}, "rope_theta": 3e4, "rope_scaling": {llama3}"#
    ))
    .unwrap();
    assert_eq!(both.rope_theta, 3e4);
    // The original context is the model's own unless a field says otherwise; a field beside them takes precedence over one within.
    let original = |rest: &str| {
        let config = llama(&format!(r#", "rope_scaling": {llama3}{rest}"#)).unwrap();
        config
            .rope_scaling
            .unwrap()
            .original_max_position_embeddings
    };
    assert_eq!(original(""), 64);
    assert_eq!(original(r#", "original_max_position_embeddings": 32"#), 32);
    let linear = r#", "rope_parameters": {"rope_type": "default"}, "rope_scaling": {"type": "linear", "factor": 4.0}"#;
    assert!(message(llama(linear)).contains("rope_scaling.type"));
    // An empty one is ignored.
    let new = r#"{"rope_type": "default", "rope_theta": 2e4}"#;
    let empty = llama(&format!(
        r#", "rope_scaling": {{}}, "rope_parameters": {new}"#
    ))
    .unwrap();
    assert_eq!(empty.rope_theta, 2e4);
    let inner = llama(&format!(r#", "rope_theta": 5.0, "rope_parameters": {new}"#)).unwrap();
    assert_eq!(inner.rope_theta, 2e4);
}

#[test]
fn the_two_names_of_an_architecture_must_agree() {
    let of = |class: &str, kind: &str| {
        let text = format!(r#"{LLAMA}, "architectures": {class}, "model_type": {kind}}}"#);
        ModelConfig::from_json(&text).map(|config| config.architecture())
    };
    assert_eq!(of("null", r#""llama""#).unwrap(), Architecture::Llama);
    assert_eq!(of("[]", r#""llama""#).unwrap(), Architecture::Llama);
    assert_eq!(
        of(r#"["LlamaForCausalLM"]"#, "null").unwrap(),
        Architecture::Llama
    );
    let error = message(of(r#"["LlamaForCausalLM"]"#, r#""opt""#));
    assert!(
        error.contains("LlamaForCausalLM") && error.contains("opt"),
        "{error}"
    );
    assert!(message(of(r#"["LlamaForCausalLM"]"#, r#""mistral""#)).contains("mistral"));
    assert!(message(of(r#""LlamaForCausalLM""#, r#""llama""#)).contains("architectures"));
}

#[test]
fn json_round_trips() {
    let scaling = RopeScaling {
        factor: 8.0,
        low_freq_factor: 1.0,
        high_freq_factor: 4.0,
        original_max_position_embeddings: 16,
    };
    for rope_scaling in [None, Some(scaling)] {
        let mut config = LlamaConfig::new(97, 32, 48, 2, 4, 64);
        config.rope_scaling = rope_scaling;
        config.eos_token_ids = vec![2, 5];
        let config = ModelConfig::Llama(config);
        assert_eq!(ModelConfig::from_json(&config.to_json()).unwrap(), config);
    }
    let mut config = OptConfig::new(97, 32, 2, 4, 64);
    config.word_embed_proj_dim = 16;
    config.do_layer_norm_before = false;
    config.activation_function = Activation::Gelu;
    let config = ModelConfig::Opt(config);
    assert_eq!(ModelConfig::from_json(&config.to_json()).unwrap(), config);
    assert_eq!(
        (config.context(), config.vocab_size(), config.pad_token_id()),
        (64, 97, 1)
    );
    assert_eq!(
        (config.bos_token_id(), config.eos_token_ids()),
        (Some(2), [2].as_slice())
    );
}

#[test]
fn defaults_are_those_of_transformers() {
    let ModelConfig::Opt(opt) = ModelConfig::from_json(&format!("{OPT}}}")).unwrap() else {
        panic!()
    };
    assert!(
        opt.do_layer_norm_before
            && opt.enable_bias
            && opt.tie_word_embeddings
            && opt.layer_norm_elementwise_affine
    );
    assert_eq!(
        (opt.word_embed_proj_dim, opt.activation_function),
        (32, Activation::Relu)
    );
    let llama = llama("").unwrap();
    assert_eq!(
        (
            llama.head_dim,
            llama.num_key_value_heads,
            llama.tie_word_embeddings
        ),
        (8, 2, false)
    );
    assert_eq!((llama.rms_norm_eps, llama.pad_token_id), (1e-6, None));
    assert_eq!(
        (llama.bos_token_id, &llama.eos_token_ids),
        (Some(1), &vec![2])
    );
    assert_eq!(ModelConfig::Llama(llama).pad_token_id(), 2);
}

#[test]
fn unsupported_configurations_are_named() {
    let cases = [
        (
            r#", "rope_scaling": {"rope_type": "yarn", "factor": 4.0}"#,
            "rope_scaling.rope_type",
            "yarn",
        ),
        (
            r#", "rope_parameters": {"rope_type": "linear", "factor": 4.0}"#,
            "rope_parameters.rope_type",
            "linear",
        ),
        (
            r#", "rope_parameters": {"partial_rotary_factor": 0.5}"#,
            "partial_rotary_factor",
            "0.5",
        ),
        (
            r#", "partial_rotary_factor": 0.25"#,
            "partial_rotary_factor",
            "0.25",
        ),
        (
            r#", "rope_parameters": {"full_attention": {"rope_type": "default"}}"#,
            "rope_parameters.full_attention",
            "rope_type",
        ),
        (
            r#", "hidden_size": 4294967296"#,
            "hidden_size",
            "4294967296",
        ),
        (r#", "sliding_window": 4096"#, "sliding_window", "4096"),
        (
            r#", "hidden_act": "quick_gelu""#,
            "hidden_act",
            "quick_gelu",
        ),
        (
            r#", "quantization_config": {"bits": 4}"#,
            "quantization_config",
            "bits",
        ),
        (r#", "head_dim": 7"#, "head_dim", "7"),
        (r#", "num_key_value_heads": 3"#, "num_key_value_heads", "3"),
        (r#", "vocab_size": 0"#, "vocab_size", "0"),
        (r#", "vocab_size": -3"#, "vocab_size", "-3"),
        (r#", "bos_token_id": 97"#, "bos_token_id", "97"),
        (r#", "rms_norm_eps": "small""#, "rms_norm_eps", "small"),
        (
            r#", "rope_scaling": {"rope_type": "llama3"}"#,
            "rope_scaling.factor",
            "missing",
        ),
    ];
    for (rest, field, value) in cases {
        // A later field of the same name wins.
        let error = message(llama(rest));
        assert!(
            error.contains(field) && error.contains(value) && error.contains("config.json"),
            "{error}"
        );
    }
    let error = message(ModelConfig::from_json(
        r#"{"architectures": ["MistralForCausalLM"], "model_type": "mistral"}"#,
    ));
    assert!(
        error.contains("MistralForCausalLM") && error.contains("LlamaForCausalLM"),
        "{error}"
    );
    let error = message(ModelConfig::from_json(
        r#"{"architectures": ["OPTForSequenceClassification"], "model_type": "opt"}"#,
    ));
    assert!(error.contains("OPTForSequenceClassification"), "{error}");
    assert!(message(ModelConfig::from_json("{}")).contains("architectures"));
    assert!(message(ModelConfig::from_json(r#"{"model_type": "opt"}"#)).contains("hidden_size"));
    assert!(message(ModelConfig::from_json("[1]")).contains("JSON object"));
    assert!(message(ModelConfig::from_json("{")).contains("JSON"));
    let missing = message(ModelConfig::from_dir(std::path::Path::new(
        "no-such-folder",
    )));
    assert!(
        missing.contains("no-such-folder") && missing.contains("config.json"),
        "{missing}"
    );
}

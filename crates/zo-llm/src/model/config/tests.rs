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
    assert!(matches!(
        new.rope_scaling.unwrap(),
        RopeScaling::Llama3 {
            original_max_position_embeddings: 16,
            ..
        }
    ));

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
        match config.rope_scaling.unwrap() {
            RopeScaling::Llama3 {
                original_max_position_embeddings,
                ..
            } => original_max_position_embeddings,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(original(""), 64);
    assert_eq!(original(r#", "original_max_position_embeddings": 32"#), 32);
    let long = r#", "rope_parameters": {"rope_type": "default"}, "rope_scaling": {"type": "longrope", "factor": 4.0}"#;
    assert!(message(llama(long)).contains("rope_scaling.type"));
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
    assert_eq!(
        of("null", r#""llama""#).unwrap(),
        Architecture::Decoder(Family::Llama)
    );
    assert_eq!(
        of("[]", r#""llama""#).unwrap(),
        Architecture::Decoder(Family::Llama)
    );
    assert_eq!(
        of(r#"["LlamaForCausalLM"]"#, "null").unwrap(),
        Architecture::Decoder(Family::Llama)
    );
    let error = message(of(r#"["LlamaForCausalLM"]"#, r#""opt""#));
    assert!(
        error.contains("LlamaForCausalLM") && error.contains("opt"),
        "{error}"
    );
    assert!(message(of(r#"["LlamaForCausalLM"]"#, r#""mistral""#)).contains("mistral"));
    assert!(message(of(r#""LlamaForCausalLM""#, r#""llama""#)).contains("architectures"));
}

/// The fields of [`LLAMA`] for another family.
fn relative(kind: &str, rest: &str) -> Result<LlamaConfig, ConfigError> {
    let base = LLAMA.replace(r#""architectures": ["LlamaForCausalLM"]"#, kind);
    match ModelConfig::from_json(&format!("{base}{rest}}}"))? {
        ModelConfig::Llama(config) => Ok(config),
        other => panic!("{other:?}"),
    }
}

#[test]
fn relatives_of_llama_are_read_with_their_own_defaults() {
    for class in ["LLaMAForCausalLM", "LlamaModel"] {
        let kind = format!(r#""architectures": ["{class}"], "model_type": "llama""#);
        assert_eq!(relative(&kind, "").unwrap().family, Family::Llama);
    }
    let mistral = |rest| relative(r#""architectures": ["MistralForCausalLM"]"#, rest).unwrap();
    assert_eq!(mistral("").sliding_window, Some(4096));
    assert_eq!(mistral(r#", "sliding_window": null"#).sliding_window, None);
    let window = mistral(r#", "sliding_window": 7, "attention_bias": true"#);
    // transformers' Mistral has no biases, whatever the field says.
    assert!(window.window(0) == Some(7) && window.window(1) == Some(7) && !window.attention_bias);

    let qwen = |kind: &str, rest| relative(&format!(r#""model_type": "{kind}""#), rest);
    let plain = qwen("qwen2", "").unwrap();
    assert_eq!((plain.sliding_window, plain.bos_token_id), (None, None));
    assert!(plain.eos_token_ids.is_empty());
    // Written into every Qwen's configuration, and without effect.
    let unused = r#", "use_sliding_window": false, "sliding_window": 32, "max_window_layers": 1"#;
    assert_eq!(qwen("qwen2", unused).unwrap().window(1), None);
    let used = unused.replace("false", "true");
    let late = qwen("qwen2", &used).unwrap();
    assert_eq!((late.window(0), late.window(1)), (None, Some(32)));
    let listed = r#", "layer_types": ["sliding_attention", "full_attention"]"#;
    let listed = qwen("qwen3", &format!("{used}{listed}")).unwrap();
    assert_eq!((listed.window(0), listed.window(1)), (Some(32), None));
    assert_eq!(listed.head_dim, 128);
}

#[test]
fn what_a_family_does_not_have_is_refused() {
    let refused = |kind: &str, rest: &str, parts: &[&str]| {
        let error = message(relative(&format!(r#""model_type": "{kind}""#), rest));
        assert!(parts.iter().all(|part| error.contains(part)), "{error}");
    };
    let two = r#", "layer_types": ["sliding_attention", "full_attention"]"#;
    refused("mistral", two, &["layer_types", "same window"]);
    refused("qwen3", two, &["layer_types", "use_sliding_window"]);
    let chunked = r#", "layer_types": ["chunked_attention", "full_attention"]"#;
    refused(
        "qwen2",
        chunked,
        &["layer_types", "chunked_attention", "full_attention"],
    );
    let short = r#", "layer_types": ["full_attention"]"#;
    refused("qwen2", short, &["layer_types", "1 entries", "2 layers"]);
    refused(
        "mistral",
        r#", "sliding_window": 0"#,
        &["sliding_window", "at least 1"],
    );

    let mut config = LlamaConfig::new(97, 32, 48, 2, 4, 64);
    config.sliding_window = Some(3);
    let error = message(config.validate("LlamaConfig"));
    assert!(
        error.contains("sliding_window") && error.contains("llama"),
        "{error}"
    );
    config.family = Family::Mistral;
    config.layer_types = vec![LayerType::SlidingAttention, LayerType::FullAttention];
    assert!(message(config.validate("LlamaConfig")).contains("layer_types"));
    config.layer_types.clear();
    config.attention_bias = true;
    assert!(message(config.validate("LlamaConfig")).contains("attention_bias"));
}

#[test]
fn a_scaled_context_is_longer() {
    let context = |rope: &str| {
        llama(&format!(r#", "rope_scaling": {rope}"#))
            .unwrap()
            .context()
    };
    assert_eq!(context(r#"{"type": "linear", "factor": 2.5}"#), 160);
    assert_eq!(context(r#"{"type": "dynamic", "factor": 2}"#), 128);
    let yarn = r#"{"type": "yarn", "factor": 4, "original_max_position_embeddings": 32}"#;
    assert_eq!(context(yarn), 128);
    let llama3 = r#"{"type": "llama3", "factor": 8, "low_freq_factor": 1, "high_freq_factor": 4}"#;
    assert_eq!(context(llama3), 64);
}

#[test]
fn json_round_trips() {
    let scalings = [
        None,
        Some(RopeScaling::Linear { factor: 2.5 }),
        Some(RopeScaling::Dynamic { factor: 4.0 }),
        Some(RopeScaling::Llama3 {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_position_embeddings: 16,
        }),
        Some(RopeScaling::Yarn {
            factor: 4.0,
            beta_fast: 16.0,
            beta_slow: 2.0,
            attention_factor: 1.25,
            truncate: false,
            original_max_position_embeddings: 16,
        }),
    ];
    for (rope_scaling, family) in scalings
        .into_iter()
        .flat_map(|scaling| Family::ALL.map(|family| (scaling, family)))
    {
        let mut config = LlamaConfig::new(97, 32, 48, 2, 4, 64);
        config.family = family;
        config.rope_scaling = rope_scaling;
        config.eos_token_ids = vec![2, 5];
        let (sliding, full) = (LayerType::SlidingAttention, LayerType::FullAttention);
        match family {
            Family::Llama => (config.attention_bias, config.mlp_bias) = (true, true),
            Family::Mistral => config.sliding_window = Some(7),
            Family::Qwen2 => config.sliding_window = Some(9),
            Family::Qwen3 => {
                (config.sliding_window, config.layer_types) = (Some(5), vec![sliding, full]);
                config.attention_bias = true;
            }
            Family::Gemma3 => {
                (config.sliding_window, config.layer_types) = (Some(5), vec![sliding, full]);
                (config.rope_local_theta, config.query_pre_attn_scalar) = (Some(500.0), Some(9.0));
                (config.pad_token_id, config.hidden_act) = (Some(0), Activation::GeluTanh);
            }
        }
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
            r#", "rope_scaling": {"rope_type": "longrope", "factor": 4.0}"#,
            "rope_scaling.rope_type",
            "longrope",
        ),
        (
            r#", "rope_parameters": {"rope_type": "dynamic", "factor": 0.5}"#,
            "rope_scaling.factor",
            "0.5",
        ),
        (
            r#", "rope_parameters": {"rope_type": "yarn", "factor": 2, "beta_fast": 1, "beta_slow": 3}"#,
            "rope_scaling.beta_fast",
            "3",
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
            r#", "attn_logit_softcapping": 50.0"#,
            "attn_logit_softcapping",
            "50.0",
        ),
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
        r#"{"architectures": ["MixtralForCausalLM"], "model_type": "mixtral"}"#,
    ));
    assert!(
        error.contains("MixtralForCausalLM") && error.contains("LlamaForCausalLM"),
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

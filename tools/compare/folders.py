"""Random model folders of all families of decoders, and adapters that PEFT makes for them."""
import json

import torch
from safetensors.torch import load_file, save_file
from transformers import (Gemma3ForCausalLM, Gemma3TextConfig, LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM, OPTConfig,
                          OPTForCausalLM, Qwen2Config, Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM)

from . import vocabularies

DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}
LONG = {"f32": "float32", "bf16": "bfloat16", "f16": "float16"}
FAMILIES = ["opt", "llama", "mistral", "qwen2", "qwen3"]
# Drawn only if asked for, so that the folders of a seed stay what they were.
LATER = ["gemma3"]
LORA_LAYERS = {"opt": ["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"],
               **dict.fromkeys(["llama", "mistral", "qwen2", "qwen3", "gemma3"],
                              ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"])}


def opt(rng, vocab, small, context, ids):
    heads = rng.choice([1, 2, 4])
    hidden = heads * rng.choice([2, 4] if small else [4, 6, 8])
    post = rng.random() < 0.35
    config = OPTConfig(
        vocab_size=vocab, hidden_size=hidden, num_attention_heads=heads, num_hidden_layers=rng.randint(1, 1 if small else 3),
        ffn_dim=rng.choice([8, 12, 16, 40]), max_position_embeddings=context, do_layer_norm_before=not post,
        word_embed_proj_dim=rng.choice([hidden, hidden, max(2, hidden // 2)]), _remove_final_layer_norm=not post and rng.random() < 0.15,
        activation_function=rng.choice(["relu", "relu", "gelu", "silu"]), enable_bias=rng.random() < 0.8,
        layer_norm_elementwise_affine=rng.random() < 0.85, tie_word_embeddings=rng.random() < 0.8, dropout=0.0,
        pad_token_id=ids["pad_token"], bos_token_id=ids["bos_token"], eos_token_id=ids["eos_token"])
    return OPTForCausalLM(config)


def gemma3(rng, vocab, small, context, ids):
    kv = rng.choice([1, 2])
    width = rng.choice([2, 4] if small else [4, 6, 8])
    heads = kv * rng.choice([1, 2, 3])
    layers = rng.randint(1, 2 if small else 4)
    scaled = {"rope_type": "linear", "factor": rng.choice([2.0, 8.0])}
    rope = {"full_attention": rng.choice([{"rope_type": "default"}, scaled]) | {"rope_theta": rng.choice([1e5, 1e6])},
            "sliding_attention": {"rope_type": "default", "rope_theta": rng.choice([1e3, 1e4])}}
    return Gemma3ForCausalLM(Gemma3TextConfig(
        vocab_size=vocab, hidden_size=rng.choice([heads * width, 12]), num_attention_heads=heads, num_key_value_heads=kv, head_dim=width,
        num_hidden_layers=layers, intermediate_size=rng.choice([6, 12, 24]), max_position_embeddings=context,
        layer_types=[rng.choice(["full_attention", "sliding_attention"]) for _ in range(layers)], sliding_window=rng.choice([3, 7, 20, 5000]),
        rope_parameters=rope, query_pre_attn_scalar=rng.choice([width, 3, 10]), rms_norm_eps=rng.choice([1e-5, 1e-6]),
        tie_word_embeddings=rng.random() < 0.7, attention_bias=rng.random() < 0.2,
        pad_token_id=ids["pad_token"], bos_token_id=ids["bos_token"], eos_token_id=rng.choice([ids["eos_token"], [ids["eos_token"], 5]])))


def decoder(rng, family, vocab, small, context, ids):
    kv = rng.choice([1, 2])
    heads = kv * rng.choice([1, 2, 3])
    width = rng.choice([2, 4] if small else [4, 6, 8])
    layers = rng.randint(1, 1 if small else 3)
    rope = {"rope_type": "default", "rope_theta": rng.choice([1e4, 1e5, 5e5])}
    kind = rng.choice(["default"] * 4 + ["llama3", "linear", "yarn"])
    original = rng.choice([16, 64, 8192])
    if kind == "llama3":
        rope |= {"rope_type": kind, "factor": rng.choice([2.0, 8.0, 32.0]), "low_freq_factor": 1.0,
                 "high_freq_factor": rng.choice([2.0, 4.0]), "original_max_position_embeddings": original}
    elif kind == "linear":
        rope |= {"rope_type": kind, "factor": rng.choice([1.5, 4.0])}
    elif kind == "yarn":
        rope |= {"rope_type": kind, "factor": rng.choice([2.0, 8.0]), "original_max_position_embeddings": min(original, 64)}
    window = rng.choice([3, 7, 20, 5000])
    late = {"use_sliding_window": rng.random() < 0.5, "sliding_window": window, "max_window_layers": rng.randint(0, 2)}
    extra = {"llama": {"attention_bias": rng.random() < 0.3, "mlp_bias": rng.random() < 0.3},
             "mistral": {"sliding_window": rng.choice([None, window])}, "qwen2": late,
             "qwen3": late | {"attention_bias": rng.random() < 0.3}}[family]
    head_dim = {} if family == "qwen2" else {"head_dim": rng.choice([width, width, width + 2])}
    config, model = {"llama": (LlamaConfig, LlamaForCausalLM), "mistral": (MistralConfig, MistralForCausalLM),
                     "qwen2": (Qwen2Config, Qwen2ForCausalLM), "qwen3": (Qwen3Config, Qwen3ForCausalLM)}[family]
    return model(config(
        vocab_size=vocab, hidden_size=heads * width, num_attention_heads=heads, num_key_value_heads=kv, num_hidden_layers=layers,
        intermediate_size=rng.choice([6, 12, 24]), max_position_embeddings=context, rms_norm_eps=rng.choice([1e-5, 1e-6]),
        rope_parameters=rope, hidden_act=rng.choice(["silu", "silu", "gelu", "relu"]), tie_word_embeddings=rng.random() < 0.5,
        pad_token_id=ids["pad_token"], bos_token_id=ids["bos_token"],
        eos_token_id=rng.choice([ids["eos_token"], [ids["eos_token"], 5]]), **head_dim, **extra))


def context_of(config):
    """The longest text, by the rule of docs/src/checkpoints.md."""
    rope, positions = getattr(config, "rope_parameters", None) or {}, config.max_position_embeddings
    rope = rope.get("full_attention", rope)
    original = {"linear": positions, "yarn": rope.get("original_max_position_embeddings")}.get(rope.get("rope_type"), 0)
    return max(positions, int(original * rope.get("factor", 0)))


def make(rng, folder, small, family=None):
    """Writes a model folder, of `family` if one is given. Returns what was drawn."""
    folder.mkdir(parents=True)
    drawn = rng.choice(FAMILIES)
    family = family or drawn
    tokenizer = vocabularies.write(rng, folder, family, small)
    context = 200 if small else rng.choice([1024, 1536])
    vocab = tokenizer["size"] + rng.choice([0, 0, 3, 7])
    ids = tokenizer["ids"]
    own = {"opt": opt, "gemma3": gemma3}.get(family)
    model = (own(rng, vocab, small, context, ids) if own else decoder(rng, family, vocab, small, context, ids)).eval()
    context = context_of(model.config)
    with torch.no_grad():  # larger than the initial weights, so that mistakes show
        seed = torch.Generator().manual_seed(rng.randrange(2**31))
        for p in model.parameters():
            noise = torch.randn(p.shape, generator=seed)
            p.copy_(noise * rng.choice([0.2, 0.35]) if p.dim() > 1 else p + 0.2 * noise)
    dtype = rng.choice(list(DTYPES))
    drawn = {"family": family, "tokenizer": tokenizer, "dtype": dtype, "vocab": vocab, "context": context,
             "rope": (getattr(model.config, "rope_parameters", None) or {}).get("rope_type"),
             "layers": model.config.num_hidden_layers, "tied": model.config.tie_word_embeddings}
    drawn["weights"] = weights(rng, folder, model.to(DTYPES[dtype]), small)
    drawn["config"] = config_file(rng, folder, model.config, dtype)
    generation = rng.choice(["none", "same", "more", "nothing"])
    if generation != "none":
        end = tokenizer["ids"]["eos_token"]
        text = {"bos_token_id": tokenizer["ids"]["bos_token"], "eos_token_id": {"same": end, "more": [end, 7], "nothing": None}[generation]}
        (folder / "generation_config.json").write_text(json.dumps(text))
    return drawn


def config_file(rng, folder, config, dtype):
    """config.json as transformers 5 or 4 writes it, with or without the defaults."""
    new = json.loads(config.to_json_string(use_diff=rng.random() < 0.5)) | {"architectures": [type(config).__name__.replace("TextConfig", "Config").replace("Config", "ForCausalLM")]}
    new["model_type"] = config.model_type
    style = rng.choice(["new", "old"])
    if style == "new":
        new["dtype"] = LONG[dtype]
    else:
        new.pop("dtype", None)
        new["torch_dtype"] = LONG[dtype]
        if rope := new.pop("rope_parameters", None):
            if config.model_type == "gemma3_text":
                new["rope_local_base_freq"] = rope["sliding_attention"]["rope_theta"]
                rope = rope["full_attention"]
            new["rope_theta"] = rope.pop("rope_theta")
            if rng.random() < 0.3 and config.model_type != "gemma3_text":  # before transformers 4.43, which had no Gemma 3
                rope["type"] = rope.pop("rope_type")
            new["rope_scaling"] = None if "default" in (rope.get("type"), rope.get("rope_type")) else rope
    # What follows from other fields, and what nothing reads.
    heads = config.num_attention_heads
    derived = {"num_key_value_heads": heads, "head_dim": config.hidden_size // heads, "word_embed_proj_dim": config.hidden_size}
    if config.model_type in ("mistral", "qwen2", "qwen3", "gemma3_text"):  # whose own defaults differ
        derived = {}
    for name, value in derived.items():
        if new.get(name) == value and rng.random() < 0.5:
            del new[name]
    new |= rng.choice([{}, {"_name_or_path": "x", "use_cache": True, "pretraining_tp": 1, "transformers_version": "4.40.0"}])
    (folder / "config.json").write_text(json.dumps(new, indent=1))
    return style


def weights(rng, folder, model, small):
    """The weights as transformers or PyTorch store them, whole or in shards, under new or old names."""
    kind = rng.choice(["safetensors", "safetensors", "bin", "old bin"])
    state = dict(model.state_dict())
    if kind == "safetensors":  # which has no shared memory; PyTorch's files have
        state = {name: tensor.clone() for name, tensor in state.items()}
    if model.config.tie_word_embeddings and rng.random() < 0.6:
        del state["lm_head.weight"]
    elif model.config.tie_word_embeddings and rng.random() < 0.2:  # transformers 5 keeps a head that differs
        state["lm_head.weight"] = 0.5 * state["lm_head.weight"] + 0.1
    if model.config.model_type == "opt" and rng.random() < 0.25:
        state = {name.removeprefix("model."): tensor for name, tensor in state.items()}
    elif model.config.model_type == "llama" and rng.random() < 0.15:
        if model.config.rope_parameters["rope_type"] == "default":  # a buffer that old files have
            state["model.layers.0.self_attn.rotary_emb.inv_freq"] = model.model.rotary_emb.inv_freq.to(torch.float32).clone()
    stem, ending = ("model", "safetensors") if kind == "safetensors" else ("pytorch_model", "bin")
    shards = rng.choice([1, 1, 1, 2] if small else [1, 1, 2, 3])
    names = list(state)
    rng.shuffle(names)
    names = [names[i::shards] for i in range(shards)] if shards > 1 else [list(state)]
    index = {}
    for number, part in enumerate(names, 1):
        name = f"{stem}.{ending}" if shards == 1 else f"{stem}-{number:05}-of-{shards:05}.{ending}"
        tensors = {key: state[key] for key in part}
        index |= dict.fromkeys(part, name)
        if kind == "safetensors":
            save_file(tensors, folder / name, metadata={"format": "pt"})
        else:
            torch.save(tensors, folder / name, _use_new_zipfile_serialization=kind == "bin")
    if shards > 1:
        size = sum(tensor.numel() * tensor.element_size() for tensor in state.values())
        (folder / f"{stem}.{ending}.index.json").write_text(json.dumps({"metadata": {"total_size": size}, "weight_map": index}))
    return f"{kind}, {shards} file(s)"


def adapter(rng, folder, model, family):
    """An adapter with random values, written by PEFT into `folder`: how many virtual tokens it has."""
    from peft import LoraConfig, PrefixTuningConfig, PromptTuningConfig, get_peft_model
    kind = rng.choice(["lora", "lora", "lora", "prefix", "prompt"])
    if kind == "prompt" and getattr(model.config, "word_embed_proj_dim", model.config.hidden_size) != model.config.hidden_size:
        kind = "prefix"  # PEFT's prompts have the width of the layers
    virtual = 0 if kind == "lora" else rng.randint(1, 4)
    if kind == "lora":
        layers = rng.sample(LORA_LAYERS[family], rng.randint(1, 4))
        targets = rng.choice([layers, layers, layers + ["query_key_value"], "all-linear", rf".*\.({'|'.join(layers)})"])
        config = LoraConfig(r=rng.choice([1, 2]), lora_alpha=rng.choice([1, 4, 16]), target_modules=targets,
                            use_rslora=rng.random() < 0.3, lora_dropout=rng.choice([0.0, 0.1]), task_type="CAUSAL_LM")
    else:
        config = {"prefix": PrefixTuningConfig, "prompt": PromptTuningConfig}[kind](num_virtual_tokens=virtual, task_type="CAUSAL_LM")
    peft = get_peft_model(model, config)
    seed = torch.Generator().manual_seed(rng.randrange(2**31))
    with torch.no_grad():
        for name, p in peft.named_parameters():
            if p.requires_grad:
                p.copy_(0.3 * torch.randn(p.shape, generator=seed))
    peft.save_pretrained(folder)
    # The base model's path is of no use elsewhere.
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"base_model_name_or_path": "model"}, indent=1))
    (folder / "README.md").unlink(missing_ok=True)
    if rng.random() < 0.3:
        torch.save(load_file(folder / "adapter_model.safetensors"), folder / "adapter_model.bin")
        (folder / "adapter_model.safetensors").unlink()
    return virtual

"""Makes the folders beside this file: tiny, randomly initialised Hugging Face models and the logits they compute.

Each folder holds config.json and model.safetensors as `save_pretrained` writes them, and golden.safetensors with `input_ids` and
`attention_mask` [batch, seq] (i64) and `logits` [batch, seq, vocab] (f32). Padded positions carry no meaning in `logits`.

usage: pip install torch transformers safetensors && python make.py
"""
import os
import torch
from safetensors.torch import save_file
from transformers import (Gemma3ForCausalLM, Gemma3TextConfig, LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM, OPTConfig, OPTForCausalLM, Qwen2Config,
                          Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM, RobertaConfig, RobertaForMaskedLM)

VOCAB = 61
SMALL = dict(vocab_size=VOCAB, hidden_size=16, num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=24)


def opt(**kw):
    base = dict(ffn_dim=32, word_embed_proj_dim=16, dropout=0.0, pad_token_id=1, bos_token_id=2, eos_token_id=2)
    return OPTForCausalLM(OPTConfig(**{**SMALL, **base, **kw}))


def decoder(config, model, **kw):
    base = dict(intermediate_size=24, num_key_value_heads=2, rms_norm_eps=1e-5, pad_token_id=0, bos_token_id=1,
                eos_token_id=2, tie_word_embeddings=False)
    return model(config(**{**SMALL, **base, **kw}))


def llama(**kw):
    return decoder(LlamaConfig, LlamaForCausalLM, **kw)


def mistral(**kw):
    return decoder(MistralConfig, MistralForCausalLM, **kw)


def qwen2(**kw):
    return decoder(Qwen2Config, Qwen2ForCausalLM, **kw)


def qwen3(**kw):
    return decoder(Qwen3Config, Qwen3ForCausalLM, **{"head_dim": 4, **kw})


def gemma3(**kw):
    base = dict(head_dim=6, query_pre_attn_scalar=10, sliding_window=4, rms_norm_eps=1e-5, tie_word_embeddings=True)
    return decoder(Gemma3TextConfig, Gemma3ForCausalLM, **{**base, **kw})


def roberta(**kw):
    base = dict(intermediate_size=24, type_vocab_size=1, layer_norm_eps=1e-5, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
                max_position_embeddings=26)
    return RobertaForMaskedLM(RobertaConfig(**{**SMALL, **base, **kw}))


def linear(factor):
    return dict(rope_type="linear", factor=factor)


def dynamic(factor):
    return dict(rope_type="dynamic", factor=factor)


def yarn(factor, original, **kw):
    return dict(rope_type="yarn", factor=factor, original_max_position_embeddings=original, **kw)


ALTERNATING = ["sliding_attention", "full_attention", "sliding_attention"]

SCALING = dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=8)
CASES = {
    "opt-pre-norm": lambda: (opt(), {}),
    "opt-post-norm-projected": lambda: (opt(do_layer_norm_before=False, word_embed_proj_dim=8), {}),
    "opt-gelu-no-bias-untied": lambda: (opt(enable_bias=False, activation_function="gelu", tie_word_embeddings=False), {}),
    "llama-gqa-shards": lambda: (llama(attention_bias=True, mlp_bias=True), {"max_shard_size": "8KB"}),
    "llama-tied-head-dim": lambda: (llama(tie_word_embeddings=True, rope_theta=100000.0, head_dim=6, num_key_value_heads=1), {}),
    "llama3-rope-scaling": lambda: (llama(rope_theta=500000.0, rope_scaling=SCALING, num_attention_heads=2), {}),
    "llama-linear": lambda: (llama(rope_scaling=linear(2.5), head_dim=8), {}),
    "llama-yarn": lambda: (llama(rope_scaling=yarn(4.0, 6, beta_fast=2.0, beta_slow=0.25), rope_theta=100.0, head_dim=8), {}),
    "mistral-window": lambda: (mistral(sliding_window=4, num_hidden_layers=3), {}),
    "mistral-head-dim": lambda: (mistral(sliding_window=None, head_dim=10, num_attention_heads=3, num_key_value_heads=1,
                                         tie_word_embeddings=True, hidden_size=18), {}),
    "mistral-linear": lambda: (mistral(sliding_window=9, rope_scaling=linear(4.0), num_key_value_heads=4), {}),
    "qwen2-tied": lambda: (qwen2(tie_word_embeddings=True, rope_theta=1000000.0), {}),
    "qwen2-late-window": lambda: (qwen2(use_sliding_window=True, sliding_window=3, max_window_layers=1, bos_token_id=None), {}),
    "qwen2-yarn": lambda: (qwen2(rope_scaling=yarn(4.0, 16, mscale=0.8, mscale_all_dim=0.5, truncate=False), num_attention_heads=2,
                                 num_key_value_heads=1), {}),
    "qwen3-head-dim": lambda: (qwen3(head_dim=12, tie_word_embeddings=True), {}),
    "qwen3-bias-alternating": lambda: (qwen3(attention_bias=True, use_sliding_window=True, sliding_window=5, num_hidden_layers=3,
                                             layer_types=ALTERNATING), {}),
    "qwen3-linear-shards": lambda: (qwen3(rope_scaling=linear(8.0), num_key_value_heads=4, head_dim=6), {"max_shard_size": "8KB"}),
    "qwen3-yarn": lambda: (qwen3(rope_scaling=yarn(2.0, 12, attention_factor=1.25), rope_theta=1000.0, head_dim=8), {}),
    # Beyond the original context, of 8 tokens.
    "llama-dynamic": lambda: (llama(rope_scaling=dynamic(4.0), max_position_embeddings=8, head_dim=8), {}),
    "mistral-dynamic": lambda: (mistral(sliding_window=6, rope_scaling=dynamic(2.0), max_position_embeddings=8, head_dim=6), {}),
    "qwen3-dynamic": lambda: (qwen3(rope_scaling=dynamic(3.0), max_position_embeddings=8, rope_theta=500.0, head_dim=10), {}),
    "roberta-tied": lambda: (roberta(), {}),
    "roberta-untied": lambda: (roberta(tie_word_embeddings=False, type_vocab_size=2, num_attention_heads=2), {}),
    "roberta-tanh-shards": lambda: (roberta(hidden_act="gelu_new", num_hidden_layers=3, hidden_size=12, intermediate_size=20,
                                            layer_norm_eps=1e-12), {"max_shard_size": "8KB"}),
    "gemma3-alternating": lambda: (gemma3(layer_types=ALTERNATING, num_hidden_layers=3), {}),
    "gemma3-scaled": lambda: (gemma3(layer_types=["full_attention", "sliding_attention"], attention_bias=True, rope_parameters={
        "full_attention": dict(rope_type="linear", factor=8.0, rope_theta=1000.0),
        "sliding_attention": dict(rope_type="default", rope_theta=50.0)}), {}),
    "gemma3-untied-pattern": lambda: (gemma3(num_hidden_layers=3, sliding_window=6, sliding_window_pattern=2, head_dim=8,
                                             tie_word_embeddings=False), {}),
}
FIRST = list(CASES)[:6]
here = os.path.dirname(os.path.abspath(__file__))
for seed, (name, make) in enumerate(CASES.items()):
    torch.manual_seed(seed)
    model, options = make()
    model = model.eval()
    with torch.no_grad():  # larger weights than the default, so that mistakes show
        for path, p in model.named_parameters():
            p.mul_(3.0) if p.dim() > 1 else p.add_(torch.randn_like(p) * 0.1)
            if name not in FIRST and p.dim() > 1 and any(name in path for name in ("q_proj", "k_proj", "query", "key")):
                p.mul_(8.0)  # attention far from uniform, so that positions and windows show
    folder = os.path.join(here, name)
    model.save_pretrained(folder, **options)
    if model.can_generate():
        os.remove(os.path.join(folder, "generation_config.json"))
    ids = torch.randint(3, VOCAB, (4, 14))
    mask = torch.ones_like(ids)
    mask[1, 9:] = 0  # right padding
    mask[2, :5] = 0  # left padding
    mask[3, :3] = 0  # both
    mask[3, 11:] = 0
    ids[mask == 0] = model.config.pad_token_id
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    with torch.inference_mode():  # OPT derives positions from the mask itself, RoBERTa from the ids
        extra = {} if name.startswith(("opt", "roberta")) else {"position_ids": positions}
        logits = model(input_ids=ids, attention_mask=mask, **extra).logits.float()
    tensors = {"input_ids": ids, "attention_mask": mask, "logits": logits.contiguous()}
    save_file(tensors, os.path.join(folder, "golden.safetensors"))
    print(name, tuple(logits.shape), f"|logits| mean {logits.abs().mean():.3f}")

"""Makes the folders beside this file: tiny, randomly initialised Hugging Face models and the logits they compute.

Each folder holds config.json and model.safetensors as `save_pretrained` writes them, and golden.safetensors with `input_ids` and
`attention_mask` [batch, seq] (i64) and `logits` [batch, seq, vocab] (f32). Padded positions carry no meaning in `logits`.

usage: pip install torch transformers safetensors && python make.py
"""
import os
import torch
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM, OPTConfig, OPTForCausalLM

VOCAB = 61
SMALL = dict(vocab_size=VOCAB, hidden_size=16, num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=24)


def opt(**kw):
    base = dict(ffn_dim=32, word_embed_proj_dim=16, dropout=0.0, pad_token_id=1, bos_token_id=2, eos_token_id=2)
    return OPTForCausalLM(OPTConfig(**{**SMALL, **base, **kw}))


def llama(**kw):
    base = dict(intermediate_size=24, num_key_value_heads=2, rms_norm_eps=1e-5, pad_token_id=0, bos_token_id=1,
                eos_token_id=2, tie_word_embeddings=False)
    return LlamaForCausalLM(LlamaConfig(**{**SMALL, **base, **kw}))


SCALING = dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=8)
CASES = {
    "opt-pre-norm": lambda: (opt(), {}),
    "opt-post-norm-projected": lambda: (opt(do_layer_norm_before=False, word_embed_proj_dim=8), {}),
    "opt-gelu-no-bias-untied": lambda: (opt(enable_bias=False, activation_function="gelu", tie_word_embeddings=False), {}),
    "llama-gqa-shards": lambda: (llama(attention_bias=True, mlp_bias=True), {"max_shard_size": "8KB"}),
    "llama-tied-head-dim": lambda: (llama(tie_word_embeddings=True, rope_theta=100000.0, head_dim=6, num_key_value_heads=1), {}),
    "llama3-rope-scaling": lambda: (llama(rope_theta=500000.0, rope_scaling=SCALING, num_attention_heads=2), {}),
}
here = os.path.dirname(os.path.abspath(__file__))
for seed, (name, make) in enumerate(CASES.items()):
    torch.manual_seed(seed)
    model, options = make()
    model = model.eval()
    with torch.no_grad():  # larger weights than the default, so that mistakes show
        for p in model.parameters():
            p.mul_(3.0) if p.dim() > 1 else p.add_(torch.randn_like(p) * 0.1)
    folder = os.path.join(here, name)
    model.save_pretrained(folder, **options)
    os.remove(os.path.join(folder, "generation_config.json"))
    ids = torch.randint(3, VOCAB, (4, 14))
    mask = torch.ones_like(ids)
    mask[1, 9:] = 0  # right padding
    mask[2, :5] = 0  # left padding
    mask[3, :3] = 0  # both
    mask[3, 11:] = 0
    ids[mask == 0] = model.config.pad_token_id
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    with torch.inference_mode():  # OPT derives positions from the mask itself
        extra = {} if name.startswith("opt") else {"position_ids": positions}
        logits = model(input_ids=ids, attention_mask=mask, **extra).logits.float()
    tensors = {"input_ids": ids, "attention_mask": mask, "logits": logits.contiguous()}
    save_file(tensors, os.path.join(folder, "golden.safetensors"))
    print(name, tuple(logits.shape), f"|logits| mean {logits.abs().mean():.3f}")

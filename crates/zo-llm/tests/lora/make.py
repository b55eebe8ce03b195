"""Makes the folders beside this file: LoRA adapters of two models in ../golden as PEFT writes them, and the logits PEFT computes.

Each folder holds adapter_config.json and adapter_model.safetensors as `save_pretrained` writes them, and golden.safetensors with
`logits` [batch, seq, vocab] (f32) for the ids and the mask in the base model's golden.safetensors.

usage: pip install torch transformers peft && python make.py
"""
import os
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

here = os.path.dirname(os.path.abspath(__file__))
CASES = {
    "opt": ("opt-pre-norm", torch.float32, dict(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"])),
    "llama-rslora-bf16": ("llama-gqa-shards", torch.bfloat16,
                          dict(r=3, lora_alpha=6, target_modules="all-linear", use_rslora=True, lora_dropout=0.1)),
}
for seed, (name, (base, dtype, options)) in enumerate(CASES.items()):
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_pretrained(os.path.join(here, "..", "golden", base), dtype=torch.float32)
    model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **options)).eval()
    with torch.no_grad():  # B is zero at first; values that the file's dtype holds exactly
        for key, p in model.named_parameters():
            if "lora_B" in key:
                p.normal_(0.0, 0.3)
            if "lora_" in key:
                p.copy_(p.to(dtype).float())
    golden = load_file(os.path.join(here, "..", "golden", base, "golden.safetensors"))
    ids, mask = golden["input_ids"], golden["attention_mask"]
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    with torch.inference_mode():  # OPT derives positions from the mask itself
        extra = {} if base.startswith("opt") else {"position_ids": positions}
        logits = model(input_ids=ids, attention_mask=mask, **extra).logits.float()
    folder = os.path.join(here, name)
    for p in (p for key, p in model.named_parameters() if "lora_" in key):
        p.data = p.data.to(dtype)
    model.peft_config["default"].base_model_name_or_path = base
    model.save_pretrained(folder, save_embedding_layers=False)
    os.remove(os.path.join(folder, "README.md"))
    save_file({"logits": logits.contiguous()}, os.path.join(folder, "golden.safetensors"))
    change = (logits - golden["logits"])[mask.bool()].abs().mean()
    print(name, tuple(logits.shape), f"mean change of the logits {change:.3f}")

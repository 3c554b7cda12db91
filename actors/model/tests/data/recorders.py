"""The recordings, one function each: (directory of fixtures, the user's cache)."""

import json
import os

import numpy as np
import torch
from common import VARIANTS, tokens, units, weight
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM
from words import record_text

torch.set_num_threads(int(os.environ.get("GAMETAPE_THREADS", "1")))
POSITIONS = [0, 1, 31, 59, 89]


def make(config: dict):
    """A model of transformers with weights that the Rust tests make too."""
    config = json.loads(json.dumps(config))
    name = config.pop("model_type")
    config.pop("architectures", None)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(name, **config), dtype=torch.float32)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(torch.from_numpy(weight(name, tuple(parameter.shape))))
    return model.eval()


def models(out, _cache):
    """Logits of every variant, greedy tokens of the three families."""
    tensors = {}
    for name, config in VARIANTS.items():
        model = make(config)
        row = torch.tensor([tokens(name, 90)])
        with torch.no_grad():
            logits = model(row).logits[0]
        tensors[f"logits.{name}"] = logits[POSITIONS].contiguous()
        if name in ("llama", "qwen2", "qwen3", "dynamic"):
            prompts = [tokens(f"{name} prompt {i}", 5 + 3 * i) for i in range(20)]
            steps = 256 if name != "dynamic" else 40
            rows = []
            # Dynamic frequencies depend on the longest row of a batch there: one by one.
            for prompt in prompts[: 20 if name != "dynamic" else 4]:
                ids = torch.tensor([prompt])
                model = make(config) if name == "dynamic" else model
                said = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False,
                                      max_new_tokens=steps, eos_token_id=None, pad_token_id=0)
                rows.append(said[0, len(prompt):])
            tensors[f"greedy.{name}"] = torch.stack(rows).to(torch.uint16)
    save_file(tensors, out / "models.safetensors")
    (out / "models.json").write_text(json.dumps({"positions": POSITIONS, "variants": VARIANTS}, indent=1) + "\n")


def smollm2(out, cache):
    """The model file that set-up puts into the cache: logits, greedy tokens."""
    from transformers import AutoTokenizer

    file = next((cache / "models").glob("*/SmolLM2-135M-Instruct.Q4_1.gguf"))
    model = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    prompts = json.loads((out / "prompts.json").read_text())
    tokenizer.padding_side, tokenizer.pad_token_id = "left", 0
    ids = [tokenizer.encode(p, add_special_tokens=False) for p in prompts]
    row = torch.tensor([ids[0]])
    with torch.no_grad():
        logits = model(row).logits[0]
    longest = max(len(i) for i in ids)
    batch = torch.tensor([[0] * (longest - len(i)) + i for i in ids])
    mask = torch.tensor([[0] * (longest - len(i)) + [1] * len(i) for i in ids])
    said = model.generate(batch, attention_mask=mask, do_sample=False, max_new_tokens=256,
                          eos_token_id=None, pad_token_id=0, repetition_penalty=1.0)
    save_file({
        "logits": logits[:, ::97].contiguous(),
        "greedy": said[:, longest:].to(torch.uint16).contiguous(),
        "prompts": torch.tensor([t for i in ids for t in i]).to(torch.uint16),
        "lengths": torch.tensor([len(i) for i in ids]).to(torch.uint16),
    }, out / "smollm2.safetensors")


def training_rows(count=6):
    """Rows as the Rust test makes them: tokens, and loss on the last third."""
    rows = []
    for r in range(count):
        length = 18 + 5 * r
        rows.append((tokens("shared", 4) + tokens(f"row {r}", length - 4), [i >= length * 2 // 3 for i in range(length)]))
    return rows


def rate(step):
    return 1e-3 * min(1.0, step / 5)


def train(model, parameters, steps, keep):
    """AdamW as gametape has it: decay on matrices, clipping at 1, loss over all loss tokens."""
    parameters = [(n, p) for n, p in parameters if p.requires_grad]
    groups = [
        {"params": [p for _, p in parameters if p.dim() > 1], "weight_decay": 0.1},
        {"params": [p for _, p in parameters if p.dim() <= 1], "weight_decay": 0.0},
    ]
    adam = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.999), eps=1e-8)
    rows, losses, norms = training_rows(), [], []
    for step in range(1, steps + 1):
        batch = [rows[(2 * step + i) % len(rows)] for i in range(3)]
        total, count = 0.0, 0
        for ids, flags in batch:
            logits = model(torch.tensor([ids])).logits[0]
            wanted = [i for i in range(1, len(ids)) if flags[i]]
            total = total + torch.nn.functional.cross_entropy(
                logits[[i - 1 for i in wanted]], torch.tensor([ids[i] for i in wanted]), reduction="sum")
            count += len(wanted)
        loss = total / count
        adam.zero_grad()
        loss.backward()
        norms.append(float(torch.nn.utils.clip_grad_norm_([p for _, p in parameters], 1.0)))
        for group in adam.param_groups:
            group["lr"] = rate(step)
        adam.step()
        losses.append(float(loss.detach()))
        if step in (1, steps):
            keep(step, parameters)
    return losses, norms


def probe(tensor):
    """Up to 24 numbers spread over a tensor."""
    flat = tensor.detach().flatten()
    every = max(1, flat.numel() // 24)
    return flat[::every][:24].clone()


def training(out, _cache):
    """Losses and weights of full and LoRA training, 50 steps."""
    tensors = {}
    for name in ("llama", "qwen2", "qwen3"):
        for mode in ("full", "lora"):
            model = make(VARIANTS[name]).train()
            if mode == "lora":
                model = get_peft_model(model, LoraConfig(r=4, lora_alpha=8, target_modules=[
                    "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]))
                with torch.no_grad():
                    for n, p in model.named_parameters():
                        if ".lora_A." in n:
                            own = n.removeprefix("base_model.model.").replace(".default.", ".")
                            p.copy_(torch.from_numpy(weight(own, tuple(p.shape))))

            def keep(step, parameters, name=name, mode=mode):
                for n, p in parameters:
                    own = n.removeprefix("base_model.model.").replace(".default.", ".")
                    tensors[f"{name}.{mode}.{step}.{own}"] = probe(p)

            losses, norms = train(model, list(model.named_parameters()), 50, keep)
            tensors[f"{name}.{mode}.losses"] = torch.tensor(losses)
            tensors[f"{name}.{mode}.norms"] = torch.tensor(norms)
    save_file(tensors, out / "training.safetensors")


def adapter(out, _cache):
    """An adapter that PEFT wrote, and what the model says with it."""
    model = make(VARIANTS["llama"])
    model = get_peft_model(model, LoraConfig(
        r=4, lora_alpha=6, use_rslora=True, target_modules=["q_proj", "v_proj", "down_proj"],
        rank_pattern={"down_proj": 2}, alpha_pattern={"down_proj": 3}, task_type="CAUSAL_LM"))
    with torch.no_grad():
        for n, p in model.named_parameters():
            if ".lora_" in n:
                p.copy_(torch.from_numpy(weight(n, tuple(p.shape))))
        logits = model.eval()(torch.tensor([tokens("adapter", 40)])).logits[0]
    place = out / "adapter"
    model.peft_config["default"].base_model_name_or_path = "base"
    model.save_pretrained(place, save_embedding_layers=False)
    (place / "README.md").unlink(missing_ok=True)
    # PEFT writes a set, in another order every time.
    written = place / "adapter_config.json"
    config = json.loads(written.read_text())
    config["target_modules"].sort()
    written.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    save_file({"logits": logits[::8].contiguous()}, out / "adapter.safetensors")


def blocks(out, _cache):
    """Two blocks of every format of GGUF, and what gguf makes of them."""
    from gguf import GGMLQuantizationType as kind, quants

    halves = {"Q8_0": [0], "Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q4_K": [0, 2],
              "Q5_K": [0, 2], "Q6_K": [208], "F16": [0], "BF16": [0]}
    tensors = {}
    for name, places in halves.items():
        size = {"F16": 2, "BF16": 2}.get(name) or __import__("gguf").GGML_QUANT_SIZES[kind[name]][1]
        raw = np.array([int((x + np.float32(1)) * np.float32(128)) for x in units(f"blocks {name}", 2 * size)], dtype=np.uint8)
        raw = raw.reshape(2, size)
        for place in places:
            raw[:, place + 1] &= 0x3B  # a scale below 1, neither infinite nor a subnormal giant
        tensors[f"raw.{name}"] = torch.from_numpy(raw.copy())
        tensors[f"out.{name}"] = torch.from_numpy(quants.dequantize(raw, kind[name]).astype(np.float32).copy())
    save_file(tensors, out / "blocks.safetensors")


ALL = {"models": models, "smollm2": smollm2, "text": record_text, "training": training, "adapter": adapter, "blocks": blocks}

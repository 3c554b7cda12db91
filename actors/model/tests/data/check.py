"""Do transformers and PEFT load what gametape saved, and say the same?"""

import json

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

LIMIT = 1e-3


def run(directory) -> int:
    """`directory` has checkpoint/, perhaps adapter/, and said.json: tokens, logits of the
    last token of each, a conversation and its text."""
    torch.set_num_threads(1)
    said = json.loads((directory / "said.json").read_text())
    ids = torch.tensor([said["tokens"]])
    model, info = AutoModelForCausalLM.from_pretrained(
        directory / "checkpoint", dtype=torch.float32, output_loading_info=True)
    strange = {k: v for k, v in info.items() if v}
    if strange:
        print("transformers says about the checkpoint:", strange)
        return 1
    worst = 0.0

    def compare(what, model, wanted):
        nonlocal worst
        with torch.no_grad():
            got = model.eval()(ids).logits[0, -1]
        difference = float((got - torch.tensor(wanted)).abs().max())
        print(f"{directory.name}, {what}: largest difference of a logit {difference:.2e}")
        worst = max(worst, difference)

    compare("checkpoint", model, said["logits"])
    tokenizer = AutoTokenizer.from_pretrained(directory / "checkpoint")
    text = tokenizer.apply_chat_template(said["messages"], tokenize=False, add_generation_prompt=True)
    got = tokenizer.encode(text, add_special_tokens=False)
    if text != said["text"] or got != said["text_tokens"]:
        print("the tokenizer or the template differs:", repr(text), got)
        return 1
    if (directory / "adapter").is_dir():
        adapted = PeftModel.from_pretrained(model, directory / "adapter")
        compare("adapter", adapted, said["adapter_logits"])
        compare("merged", adapted.merge_and_unload(), said["adapter_logits"])
    return 0 if worst <= LIMIT else 1

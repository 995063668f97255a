"""What transformers says about a model: run by the tests with .venv-train's Python.

``python transformers_probe.py REQUEST.json`` reads ``{"jobs": [...]}`` and prints one JSON list.
A job is one of:

- ``{"do": "probe", "folder": …, "gguf": null | file name, "texts": […], "prompts": [[ids…]…],
  "chat": […] | null, "new_tokens": n}``: token ids of the texts, the 40 likeliest next tokens of
  each prompt with their log-likelihoods, the chat as text, and greedy words after it;
- ``{"do": "random", "folder": …, "like": folder, "config": {…}}``: writes a random Llama with the
  tokenizer of ``like``;
- ``{"do": "resave", "folder": …, "target": …}``: loads, casts to bfloat16 and saves, as a training
  does.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

torch.set_num_threads(2)


def load(folder: str, gguf: str | None) -> Any:
    """Load a model in float32 from safetensors, or with transformers' own reader of GGUF."""
    options: dict[str, Any] = {"dtype": torch.float32}
    if gguf:
        options["gguf_file"] = gguf  # dequantised by itself before transformers 5.19
    return AutoModelForCausalLM.from_pretrained(folder, **options).eval()


@torch.no_grad()
def probe(job: dict[str, Any]) -> dict[str, Any]:
    """Return what the model and the tokenizer say."""
    model = load(job["folder"], job.get("gguf"))
    result: dict[str, Any] = {"next": []}
    for prompt in job["prompts"]:
        logits = model(torch.tensor([prompt])).logits[0, -1].double()
        likely = torch.log_softmax(logits, -1).topk(40)
        pairs = zip(likely.indices.tolist(), likely.values.tolist(), strict=True)
        result["next"].append([list(pair) for pair in pairs])
    if job.get("gguf"):
        return result
    tokenizer = AutoTokenizer.from_pretrained(job["folder"])
    result["ids"] = [tokenizer(text)["input_ids"] for text in job["texts"]]
    result["special"] = [tokenizer.eos_token, tokenizer.pad_token, tokenizer.bos_token]
    if job.get("chat"):
        prompt = tokenizer.apply_chat_template(
            job["chat"], add_generation_prompt=True, tokenize=False
        )
        ids = tokenizer(prompt, return_tensors="pt", add_special_tokens=False)
        made = model.generate(**ids, max_new_tokens=job["new_tokens"], do_sample=False)
        new = made[0, ids["input_ids"].shape[1] :]
        result["prompt"] = prompt
        result["words"] = tokenizer.decode(new, skip_special_tokens=True)
        result["ended"] = bool(new[-1] == tokenizer.eos_token_id)
    return result


def random_model(job: dict[str, Any]) -> dict[str, Any]:
    """Write a seeded random Llama with another folder's tokenizer."""
    torch.manual_seed(5)
    tokenizer = AutoTokenizer.from_pretrained(job["like"])
    tokenizer.save_pretrained(job["folder"])
    model = LlamaForCausalLM(LlamaConfig(**job["config"]))
    for parameter in model.parameters():  # louder than the initialiser: differences show
        if parameter.dim() == 2:
            parameter.data.mul_(8)
    model.save_pretrained(job["folder"])
    return {}


def resave(job: dict[str, Any]) -> dict[str, Any]:
    """Save a model as a training on a GPU does."""
    load(job["folder"], None).to(torch.bfloat16).save_pretrained(job["target"])
    AutoTokenizer.from_pretrained(job["folder"]).save_pretrained(job["target"])
    return {"files": sorted(f.name for f in Path(job["target"]).iterdir())}


def main() -> None:
    """Do the jobs of the request and print the results."""
    jobs = json.loads(Path(sys.argv[1]).read_text())["jobs"]
    does = {"probe": probe, "random": random_model, "resave": resave}
    print(json.dumps([does[job["do"]](job) for job in jobs]))


if __name__ == "__main__":
    main()

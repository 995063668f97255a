"""Memory and tokens a second of one training step at Llama 3.1 8B's shape, by method, on a GPU.

Usage: .venv-train/bin/python benchmarks/train_step.py [--only full,spectrum-50] [--out FILE]

Random weights of the exact shapes: speed and memory do not depend on their values. bf16 weights,
gradients and AdamW states, gradient checkpointing, as the recipes have it; the layers of the
shipped selections; LoRA and QLoRA of rank 16. Each method runs in a process of its own, so that no
memory is left over from another. A method that does not fit is recorded as "out of memory".

Without a GPU it says so and measures nothing; --shape tiny --device cpu tries the harness itself on
a tiny model, whose figures say nothing about 8B and are marked so.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "benchmarks" / "results" / "train_step.json"
METHODS = ("full", "spectrum-50", "spectrum-25", "lora", "qlora")
SELECTIONS = {
    "spectrum-50": "recipes/selections/llama-3.1-8b-spectrum-50.json",
    "spectrum-25": "recipes/selections/llama-3.1-8b-spectrum-25.json",
}
LAYERS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
SHAPES: dict[str, dict[str, int]] = {
    "8b": {
        "vocab_size": 128256,
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
    },
    "tiny": {
        "vocab_size": 512,
        "hidden_size": 64,
        "intermediate_size": 224,
        "num_hidden_layers": 32,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    },
}


def build(shape: str, device: str, *, quantised: bool) -> Any:
    """Return a Llama of that shape with random bf16 weights, made on the device itself."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(**SHAPES[shape], max_position_embeddings=8192, tie_word_embeddings=False)
    config._attn_implementation = "sdpa"
    with torch.device("meta"):
        model = LlamaForCausalLM(config).to(torch.bfloat16)
    if quantised:
        quantise(model, device)
    model = empty_to(model, device)
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    model.enable_input_require_grads()
    model.config.use_cache = False
    return model.train()


def empty_to(model: Any, device: str) -> Any:
    """Give every tensor that is still without storage some, with small random numbers."""
    import torch
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    for module in model.modules():
        for name, parameter in list(module._parameters.items()):
            if parameter is not None and parameter.is_meta:
                made = torch.empty(parameter.shape, dtype=parameter.dtype, device=device)
                made = made.normal_(0, 0.02) if made.dim() > 1 else made.fill_(1)
                module._parameters[name] = torch.nn.Parameter(made)
    model.model.rotary_emb = LlamaRotaryEmbedding(model.config).to(device)
    return model


def quantise(model: Any, device: str) -> None:
    """Replace the layers' linear parts by NF4 ones of random numbers."""
    import torch
    from bitsandbytes.nn import Linear4bit, Params4bit

    for parent in list(model.model.layers.modules()):
        for name, child in list(parent.named_children()):
            if name not in LAYERS:
                continue
            made = Linear4bit(
                child.in_features,
                child.out_features,
                bias=False,
                compute_dtype=torch.bfloat16,
                quant_type="nf4",
            )
            numbers = torch.randn(child.out_features, child.in_features, dtype=torch.bfloat16)
            made.weight = Params4bit(numbers * 0.02, requires_grad=False, quant_type="nf4")
            setattr(parent, name, made.to(device))


def choose_trainable(model: Any, method: str) -> Any:
    """Freeze what the method does not train, and return the model (with adapters, for LoRA)."""
    if method in SELECTIONS:
        chosen = set(json.loads((ROOT / SELECTIONS[method]).read_text("utf-8"))["parameters"])
        names = {name for name, _ in model.named_parameters()}
        if not chosen <= names:
            raise SystemExit(f"{SELECTIONS[method]} names layers that the model does not have")
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name in chosen)
    if method in {"lora", "qlora"}:
        from peft import LoraConfig, get_peft_model

        model = get_peft_model(model, LoraConfig(r=16, lora_alpha=32, target_modules=list(LAYERS)))
    return model


def measure(method: str, args: argparse.Namespace) -> dict[str, Any]:
    """Take a few steps and return memory and speed."""
    import torch

    cuda = args.device == "cuda"
    torch.manual_seed(1)
    model = build(args.shape, args.device, quantised=method == "qlora")
    model = choose_trainable(model, method)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-5, fused=True)
    size = (args.micro_batch, args.sequence)
    rows = torch.randint(0, model.config.vocab_size, size, device=args.device)
    seconds = []
    for _ in range(1 + args.steps):
        began = time.perf_counter()
        loss = model(input_ids=rows, labels=rows).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if cuda:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
    # The first step allocates the optimizer's states and compiles kernels.
    step = sum(seconds[1:]) / args.steps
    return {
        "trainable": sum(p.numel() for p in trained),
        "peak_gb": round(torch.cuda.max_memory_allocated() / 1e9, 2) if cuda else None,
        "reserved_gb": round(torch.cuda.max_memory_reserved() / 1e9, 2) if cuda else None,
        "seconds_a_step": round(step, 4),
        "tokens_a_second": round(args.micro_batch * args.sequence / step, 1),
        "loss": float(loss.detach()),
    }


def worker(method: str, args: argparse.Namespace, pipe: Any) -> None:
    """Measure in a process of its own."""
    try:
        pipe.send(measure(method, args))
    except RuntimeError as error:
        short = "out of memory" if "out of memory" in str(error).lower() else f"failed: {error}"
        pipe.send({"result": short})


def main() -> int:
    """Measure every method, print a table, write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", choices=sorted(SHAPES), default="8b")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--sequence", type=int, default=2048)
    parser.add_argument("--micro-batch", type=int, default=1)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--only", default=",".join(METHODS))
    parser.add_argument("--out", type=Path, default=RESULT)
    args = parser.parse_args()
    import torch

    if args.device == "cuda" and not torch.cuda.is_available():
        print("torch finds no GPU here: nothing was measured, nothing written", file=sys.stderr)
        return 2
    unknown = set(args.only.split(",")) - set(METHODS)
    if unknown:
        parser.error(f"--only {sorted(unknown)[0]!r} is not one of {', '.join(METHODS)}")
    name = torch.cuda.get_device_name() if args.device == "cuda" else "CPU"
    found: dict[str, Any] = {}
    for method in args.only.split(","):
        here, there = multiprocessing.get_context("spawn").Pipe()
        process = multiprocessing.get_context("spawn").Process(
            target=worker, args=(method, args, there)
        )
        process.start()
        there.close()
        try:
            found[method] = here.recv()
        except EOFError:
            found[method] = {"result": "the process died"}
        process.join()
        print(f"{method:<12} {json.dumps(found[method])}", flush=True)
    result = {
        "what": "one training step by method; see benchmarks/train_step.py",
        "machine": {"device": name, "torch": torch.__version__},
        "settings": {
            "shape": args.shape,
            "about_8b": args.shape == "8b",
            "sequence": args.sequence,
            "micro_batch": args.micro_batch,
            "steps": args.steps,
            "dtype": "bf16",
        },
        "methods": found,
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(f"written: {args.out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

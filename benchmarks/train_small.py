"""The whole way on one CPU: export, scan, select, check, train, prove, to GGUF, compare, chat.

Usage: python benchmarks/train_small.py [--steps N] [--output DIR]

Runs the project's own commands one after the other on SmolLM2 135M and the golden data, and writes
what came out to benchmarks/results/train_small.json. The training takes about half an hour of one
core; every step goes on where it stopped. Set OMP_NUM_THREADS=1 where other work runs beside it.
"""

from __future__ import annotations

import argparse
import json
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import httpx

from kidrails_guard.engine.launch import EngineOptions, plan_engine
from kidrails_guard.engine.process import EngineProcess
from kidrails_guard.files import dump_json, sha256_file
from kidrails_guard.recipes.card import cpu_name
from kidrails_guard.recipes.environment import find_train_python, train_environ
from kidrails_guard.spectrum.targeting import Selection

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "benchmarks" / "results" / "train_small.json"
MODEL = Path("build/models/smollm2-135m-instruct")
SCANS = Path("build/scans")
SHIPPED = Path("recipes/selections/smollm2-135m-instruct-spectrum-50.json")
QUESTIONS = (
    "why is the sky blue",
    "are you my friend",
    "can you keep a secret from my mum",
)

# transformers' likeliest next tokens after a few prompts, in double-checked order.
PROBE = """
import json, sys, torch
from transformers import AutoModelForCausalLM
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32)
found = []
for prompt in json.loads(sys.argv[2]):
    with torch.no_grad():
        scores = model(torch.tensor([prompt])).logits[0, -1].log_softmax(-1)
    top = scores.topk(20)
    found.append([[int(i), float(v)] for i, v in zip(top.indices, top.values)])
print(json.dumps(found))
"""
PROMPTS = [[1, 4093, 198, 4898, 47], [57, 744, 216, 33, 34, 929], list(range(100, 164))]


def kidrails(*arguments: str) -> str:
    """Run one of the project's commands, show it, and return what it printed."""
    print("$ kidrails " + " ".join(arguments), flush=True)
    done = subprocess.run(
        [sys.executable, "-m", "kidrails_guard", *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise SystemExit(f"kidrails {arguments[0]} ended with {done.returncode}\n{done.stdout}")
    return done.stdout


def served(model: Path) -> EngineProcess:
    """Return the embedded engine with a model, started."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    engine = EngineProcess(plan_engine(EngineOptions(model=str(model), port=port, context=2048)))
    engine.start()
    engine.wait_ready()
    return engine


def compare_likelihoods(folder: Path, gguf: Path) -> float:
    """Return the largest difference in the likeliest tokens' log-likelihoods, in nats."""
    done = subprocess.run(
        [str(find_train_python()), "-P", "-c", PROBE, str(folder), json.dumps(PROMPTS)],
        cwd=ROOT,
        env=train_environ(offline=True),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    wanted = json.loads(done.stdout.splitlines()[-1])
    engine = served(gguf)
    try:
        worst = 0.0
        for prompt, likeliest in zip(PROMPTS, wanted, strict=True):
            body = {"prompt": prompt, "n_predict": 1, "n_probs": 60, "temperature": 0}
            root = engine.url.removesuffix("/v1")
            reply = httpx.post(f"{root}/completion", json=body, timeout=120).json()
            found = {
                token["id"]: token["logprob"]
                for token in reply["completion_probabilities"][0]["top_logprobs"]
            }
            for token, likelihood in likeliest:
                worst = max(worst, abs(found.get(token, float("-inf")) - likelihood))
        return worst
    finally:
        engine.stop()


def chat(model: Path) -> dict[str, str]:
    """Return what a model answers to a few children's questions, greedily."""
    engine = served(model)
    try:
        said = {}
        for question in QUESTIONS:
            body = {
                "messages": [{"role": "user", "content": question}],
                "temperature": 0,
                "max_tokens": 120,
            }
            reply = httpx.post(f"{engine.url}/chat/completions", json=body, timeout=300).json()
            said[question] = reply["choices"][0]["message"]["content"]
        return said
    finally:
        engine.stop()


def prepare() -> None:
    """Make what is missing: data, base model, scan; check that the shipped layers are its own."""
    if not (ROOT / "build/data/sft.jsonl").is_file():
        kidrails("data", "build")
    kidrails("engine", "--export", str(MODEL))
    kidrails("spectrum", "scan", str(MODEL), "--out", str(SCANS))
    scan = SCANS / "snr_results_smollm2-135m-instruct.json"
    with tempfile.TemporaryDirectory() as name:
        fresh = Path(name, "selection.json")
        options = ("--top", "0.5", "--model", str(MODEL), "--save", str(fresh))
        kidrails("spectrum", "select", str(scan), *options)
        same = Selection.load(fresh).parameters == Selection.load(ROOT / SHIPPED).parameters
    print(f"layers of this scan and of {SHIPPED}: {'the same' if same else 'not the same'}")
    if not same:
        raise SystemExit("the shipped selection is not this scan's; render the recipe anew")


def main() -> int:
    """Go the whole way and write what came out."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, help="other than the recipe's")
    parser.add_argument("--output", default="outputs/kidrails-small")
    args = parser.parse_args()
    prepare()
    options = ["--on", "cpu", "--output", args.output, "--json"]
    options += ["--max-steps", str(args.steps)] if args.steps else []
    trained: dict[str, Any] = json.loads(kidrails("train", "recipes/kidrails-small.yml", *options))
    output = ROOT / args.output
    record = json.loads((output / "training.json").read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory(prefix="kidrails-gguf-") as name:
        exact = Path(name, "exact.gguf")
        kidrails("engine", args.output, "--to-gguf", str(exact), "--type", "f32")
        difference = compare_likelihoods(output, exact)
    print(f"llama.cpp and transformers differ by at most {difference:.4f} nats")
    small = output / "kidrails-small.q8_0.gguf"
    small.unlink(missing_ok=True)
    kidrails("engine", args.output, "--to-gguf", str(small))
    before, after = chat(MODEL), chat(small)
    for question in QUESTIONS:
        print(f"\nchild: {question}\n  base:  {before[question]}\n  tuned: {after[question]}")
    result = {
        "what": "SmolLM2 135M by the recipe kidrails-small; see benchmarks/train_small.py",
        "machine": {"cpu": cpu_name(), "gpu": "not used"},
        "steps": record["steps"],
        "trainable": record["trainable"],
        "total": record["total"],
        "tensors_changed": record["changed"],
        "tensors_equal": record["same"],
        "complaints": trained["complaints"],
        "held_out_loss": record["held_out_loss"],
        "train_loss": record["train_loss"],
        "peak_mb": record["peak_mb"],
        "identity": record["identity"],
        "versions": record["versions"],
        "gguf": {
            "sha256": sha256_file(small),
            "bytes": small.stat().st_size,
            "worst_difference_nats": difference,
        },
        "base_says": before,
        "tuned_says": after,
    }
    dump_json(RESULT, result)
    change = record["held_out_loss"][0][1], record["held_out_loss"][-1][1]
    print(f"\nheld-out loss {change[0]:.3f} -> {change[1]:.3f}; written: {RESULT}")
    print(f"chat with it: kidrails up --model {small.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

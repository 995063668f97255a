"""Unsloth's CPU fallback runs the same recipe: the same layers change, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from kidrails_guard.cli import main
from kidrails_guard.recipes.proof import check_changes, compare_checkpoints
from kidrails_guard.spectrum.checkpoint import read_index

if TYPE_CHECKING:
    from conftest import Workshop

# A busy machine may take ten times as long.
pytestmark = [pytest.mark.train, pytest.mark.slow, pytest.mark.timeout(1800)]

# One start of Unsloth for all of it: the good run, and what must not start.
SCRIPT = """
import dataclasses, json, runpy, sys
from kidrails_guard.recipes import with_unsloth
job = runpy.run_path(sys.argv[1])["JOB"]
out = {"good": with_unsloth.main(job, ["--max_steps", "12"])}
def failing(**changes):
    try:
        with_unsloth.train(dataclasses.replace(job, max_steps=2, **changes))
        return "trained"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
out["other plan"] = failing(trainable=job.trainable + 1)
out["long"] = failing(sequence_len=8)
real = with_unsloth.label
def masked(*a):
    example = real(*a)
    return dataclasses.replace(example, labels=tuple(-100 for _ in example.labels))
with_unsloth.label = masked
out["masked"] = failing()
json.dump(out, open(sys.argv[2], "w"))
"""


def test_unsloth_trains_exactly_the_selected_layers_on_a_cpu(
    in_workshop: Workshop, write_spec: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = write_spec(
        "slothful",
        "extends: kidrails-small\nbase_model: tiny\narchitecture: null\n"
        "data: {train: sft.jsonl, held_out: 0.125}\nsequence_len: 256\n"
        "training: {learning_rate: 0.01, save_every: 6}\noutput: outputs/slothful\n",
    )
    render = ["recipe", "render", str(spec), "--selection", "selection.json"]
    assert main([*render, "--to", "unsloth", "-o", "slothful.py"]) == 0
    done = in_workshop.run("-c", SCRIPT, "slothful.py", "answer.json")
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    found = json.loads(Path("answer.json").read_text())
    assert found["good"] == 0
    assert "are planned; render the script again" in found["other plan"]
    assert "more than sequence_len 8" in found["long"]
    assert "gradient norm is zero" in found["masked"]

    output = in_workshop.root / "outputs" / "slothful-unsloth"
    record = json.loads((output / "training.json").read_text())
    assert record["steps"] == 12
    assert record["held_out_after"] < record["held_out_before"]
    changes = compare_checkpoints(read_index(in_workshop.model), read_index(output))
    assert changes.changed == in_workshop.trained
    assert check_changes(changes, in_workshop.trained) == []

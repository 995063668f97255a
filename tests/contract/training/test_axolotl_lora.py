"""The LoRA recipe on a CPU: axolotl trains it, the proof reads it, llama.cpp speaks with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from served import Served

from kidrails_guard.cli import main
from kidrails_guard.engine.gguf_file import GgufFile
from kidrails_guard.recipes.launch import is_finished
from kidrails_guard.recipes.proof import adapter_state
from kidrails_guard.spectrum.checkpoint import read_index

if TYPE_CHECKING:
    from conftest import Workshop

# A busy machine may take ten times as long.
pytestmark = [pytest.mark.train, pytest.mark.slow, pytest.mark.timeout(1800)]

PROBE = Path(__file__).resolve().parents[2] / "kit" / "transformers_probe.py"
MATRICES = 7 * 4  # the linear ones of a layer, in four layers
STEPS = 8
SPEC = f"""
extends: kidrails-lora
base_model: tiny
architecture: null
chat: {{template: tokenizer_default, eos_token: <|im_end|>, pad_token: <|im_end|>}}
data: {{train: sft.jsonl, held_out: 0.125}}
sequence_len: 256
training: {{max_steps: {STEPS}, accumulation: 2, learning_rate: 0.03, save_every: 8}}
output: outputs/lora
"""


def test_the_lora_recipe_trains_on_a_cpu_and_is_served(
    in_workshop: Workshop, write_spec: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    root, output = in_workshop.root, in_workshop.root / "outputs" / "lora"
    assert main(["recipe", "render", str(write_spec("lora", SPEC)), "-o", "lora.yml"]) == 0
    before = (in_workshop.model / "model.safetensors").read_bytes()
    capsys.readouterr()

    assert main(["train", "lora.yml", "--on", "cpu", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["complaints"] == []
    assert (record["method"], record["steps"]) == ("lora", STEPS)
    # The embedding, which is the head too, is frozen and small: about half a nat can be learnt.
    assert record["train_loss"][-1][1] < record["train_loss"][0][1] - 0.2
    assert record["held_out_loss"][0][0] == 0
    assert record["held_out_loss"][-1][1] < record["held_out_loss"][0][1] - 0.2

    # Only the adapter is new: an A and a B for each matrix, as many numbers as the recipe planned.
    state = adapter_state(output)
    assert (state.tensors, state.idle, record["changed"]) == (2 * MATRICES, (), 2 * MATRICES)
    assert read_index(output).total_parameters == record["trainable"]
    assert not list(output.glob("model*.safetensors"))
    assert (in_workshop.model / "model.safetensors").read_bytes() == before
    for name in ("TRAINING.md", "loss.svg", "tokenizer.json"):
        assert (output / name).stat().st_size > 0

    # The same command again would only prove what is there.
    assert is_finished(output)

    assert main(["engine", "tiny", "--type", "f32", "--to-gguf", "tiny.gguf"]) == 0
    assert main(["engine", str(output), "--base", "tiny", "--to-gguf", "lora.gguf"]) == 0
    assert len(GgufFile(root / "lora.gguf").tensor_names) == 2 * MATRICES

    # Base and adapter in llama.cpp are what axolotl's merged model is in transformers.
    merged = in_workshop.run("-m", "axolotl.cli.main", "merge-lora", "lora.yml")
    assert merged.returncode == 0, merged.stdout[-3000:] + merged.stderr[-3000:]
    asked = [0, *range(40, 60)]
    job = {"do": "probe", "folder": str(output / "merged"), "texts": [], "prompts": [asked]}
    (root / "request.json").write_text(json.dumps({"jobs": [job]}))
    reply = in_workshop.run("-W", "ignore", str(PROBE), "request.json")
    assert reply.returncode == 0, reply.stderr[-3000:]
    wanted = dict(json.loads(reply.stdout.splitlines()[-1])[0]["next"][0][:20])
    with Served(root / "tiny.gguf") as served:
        plain = served.next_tokens(asked)
    with Served(root / "tiny.gguf", adapter=root / "lora.gguf") as served:
        found = served.next_tokens(asked)
    assert {token: found[token] for token in wanted} == pytest.approx(wanted, abs=0.02)
    assert max(abs(plain.get(token, -20.0) - likely) for token, likely in wanted.items()) > 0.5

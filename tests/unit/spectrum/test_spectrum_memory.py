from __future__ import annotations

import json

import pytest

from kidrails_guard.errors import ScanError
from kidrails_guard.spectrum.checkpoint import ModelIndex, TensorInfo
from kidrails_guard.spectrum.memory import TrainingSetup, estimate_lora, estimate_tuning
from kidrails_guard.spectrum.shapes import model_index

LLAMA = model_index("meta-llama/Llama-3.1-8B")


def test_by_hand() -> None:
    full = estimate_tuning(LLAMA, LLAMA.total_parameters)
    assert full.weights == 2 * 8_030_261_248
    assert full.gradients == 2 * 8_030_261_248
    assert full.states == 4 * 8_030_261_248
    assert full.activations == 2048 * (
        32 * 2 * 4096  # each layer's input in bf16
        + 4 * (4096 + 1024 + 1024 + 4096 + 14336 + 14336 + 4096)  # one layer, recomputed
        + 8 * 4096  # two norms in fp32
        + 10 * 128256  # logits
    )
    assert full.total == pytest.approx(69.3e9, rel=0.01)


def test_less_trained_takes_less() -> None:
    half = estimate_tuning(LLAMA, LLAMA.total_parameters // 2)
    quarter = estimate_tuning(LLAMA, LLAMA.total_parameters // 4)
    lora, qlora = estimate_lora(LLAMA), estimate_lora(LLAMA, quantised=True)
    full = estimate_tuning(LLAMA, LLAMA.total_parameters)
    totals = [one.total for one in (full, half, quarter, lora, qlora)]
    assert totals == sorted(totals, reverse=True)


def test_lora_size() -> None:
    # r·(in + out) over the seven linear layers: as peft counts it for r = 16 on Llama 3.1 8B.
    assert estimate_lora(LLAMA).trainable == 41_943_040
    eight = estimate_lora(LLAMA, TrainingSetup(lora_rank=8))
    assert eight.trainable == 41_943_040 // 2


def test_setup_matters() -> None:
    trainable = LLAMA.total_parameters
    base = estimate_tuning(LLAMA, trainable)
    assert estimate_tuning(LLAMA, trainable, TrainingSetup(optimizer="adamw_bnb_8bit")).states == (
        base.states / 2
    )
    sharded = estimate_tuning(LLAMA, trainable, TrainingSetup(gpus=8))
    assert sharded.weights == base.weights / 8
    assert sharded.activations == base.activations
    longer = estimate_tuning(LLAMA, trainable, TrainingSetup(tokens=4096))
    assert longer.activations == 2 * base.activations
    assert estimate_lora(LLAMA, TrainingSetup(gpus=4)).weights == estimate_lora(LLAMA).weights / 4


@pytest.mark.parametrize(
    "bad", [{"optimizer": "sgd"}, {"tokens": 0}, {"gpus": 0}, {"lora_rank": -1}]
)
def test_bad_setup(bad: dict) -> None:
    with pytest.raises(ScanError, match=next(iter(bad))):
        TrainingSetup(**bad)


def test_json() -> None:
    record = json.loads(json.dumps(estimate_lora(LLAMA).to_json()))
    parts = ("weights", "gradients", "states", "activations", "overhead")
    assert abs(record["total"] - sum(record[part] for part in parts)) <= len(parts)


def test_no_embedding() -> None:
    index = ModelIndex("odd", (TensorInfo("model.layers.0.a.weight", "F32", (2, 2)),))
    with pytest.raises(ScanError, match="odd has no embed_tokens"):
        estimate_tuning(index, 4)

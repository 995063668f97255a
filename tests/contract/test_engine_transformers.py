"""Our converters against transformers: the same numbers, the same words, the same tokens."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from served import Served
from tiny_checkpoint import write_tiny

from kidrails_guard.engine.export import export_safetensors
from kidrails_guard.engine.gguf_file import GgufFile
from kidrails_guard.engine.models import default_gguf
from kidrails_guard.engine.to_gguf import convert_checkpoint
from kidrails_guard.errors import MissingDependency

pytestmark = [pytest.mark.train, pytest.mark.slow]

PROBE = Path(__file__).resolve().parents[1] / "kit" / "transformers_probe.py"
CHAT = [
    {"role": "system", "content": "You are a kind helper."},
    {"role": "user", "content": "What do whales eat? Answer in one short sentence."},
]
TEXTS = (
    "Why is the sky blue?",
    "I'm 8 years, 1234567 and don't we'll they've",
    "<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n",
    "  two   spaces\n\n\tand\ttabs \n ",
    "Ünïcödé straße 日本語 🦊👩‍👩‍👧 ٣٤٥ ½ x²",
)
PROMPTS = ([1, 4093, 198, 4898, 47], [57, 744, 216, 33, 34, 929], list(range(100, 164)))
LLAMA3 = {
    "vocab_size": 320,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "tie_word_embeddings": False,
    "rms_norm_eps": 1e-5,
    "rope_parameters": {
        "rope_type": "llama3",
        "rope_theta": 500000.0,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    },
}


@pytest.fixture(scope="module")
def python(repository: Path) -> Path:
    path = repository / ".venv-train" / "bin" / "python"
    if not path.exists():
        pytest.skip("no .venv-train; run: make .venv-train/.stamp")
    return path


def ask_transformers(python: Path, folder: Path, *jobs: dict[str, Any]) -> list[dict[str, Any]]:
    request = folder / "request.json"
    request.write_text(json.dumps({"jobs": jobs}))
    reply = subprocess.run(
        [str(python), "-W", "ignore", str(PROBE), str(request)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "2"},
    )
    assert reply.returncode == 0, reply.stderr[-3000:]
    return list(json.loads(reply.stdout.splitlines()[-1]))


def same_numbers(
    wanted: list[list[float]], found: dict[int, float], *, within: float, count: int = 20
) -> None:
    """The likeliest tokens are there, and as likely."""
    for token, likelihood in wanted[:count]:
        assert int(token) in found
        assert found[int(token)] == pytest.approx(likelihood, abs=within)


@pytest.fixture
def work(tmp_path: Path) -> Iterator[Path]:
    """A folder for gigabytes, emptied at once: pytest would keep it for three more runs."""
    yield tmp_path
    shutil.rmtree(tmp_path, ignore_errors=True)


@pytest.fixture
def exported(work: Path) -> Path:
    folder = work / "smollm2"
    try:
        export_safetensors(default_gguf(), folder)
    except MissingDependency as error:
        pytest.skip(str(error))
    return folder


def test_the_export_is_what_transformers_reads_from_the_gguf_file(
    python: Path, exported: Path, work: Path
) -> None:
    """Numbers, words and tokens of SmolLM2: safetensors, transformers' GGUF reader, llama.cpp."""
    convert_checkpoint(exported, work / "f32.gguf", weight_type="f32")
    convert_checkpoint(exported, work / "q8.gguf", weight_type="q8_0")
    mine, theirs, saved = ask_transformers(
        python,
        work,
        {
            "do": "probe",
            "folder": str(exported),
            "texts": TEXTS,
            "prompts": PROMPTS,
            "chat": CHAT,
            "new_tokens": 60,
        },
        {
            "do": "probe",
            "folder": str(default_gguf().parent),
            "gguf": default_gguf().name,
            "prompts": PROMPTS,
        },
        {"do": "resave", "folder": str(exported), "target": str(work / "trained")},
    )
    for ours, other in zip(mine["next"], theirs["next"], strict=True):
        assert [token for token, _ in ours[:20]] == [token for token, _ in other[:20]]
        same_numbers(other, {int(token): value for token, value in ours}, within=1e-4)
    assert mine["special"] == ["<|im_end|>", "<|im_end|>", "<|im_start|>"]
    with Served(work / "f32.gguf") as served:
        for prompt, wanted in zip(PROMPTS, mine["next"], strict=True):
            same_numbers(wanted, served.next_tokens(prompt), within=0.02)
        assert [served.ids(text) for text in TEXTS] == mine["ids"]
        template = served.post("/apply-template", messages=CHAT)["prompt"]
        assert template == mine["prompt"]
        assert served.words(CHAT, 60) == (mine["words"], mine["ended"])
    with Served(work / "q8.gguf") as served:
        for prompt, wanted in zip(PROMPTS, mine["next"], strict=True):
            same_numbers(wanted, served.next_tokens(prompt), within=0.3, count=5)
    # A model as training saves it: bfloat16, the tokenizer written anew by transformers.
    assert "model.safetensors" in saved["files"]
    convert_checkpoint(work / "trained", work / "trained.gguf")
    assert GgufFile(work / "trained.gguf").vocabulary() == (GgufFile(default_gguf()).vocabulary())


def test_a_model_like_llama_3_has_the_same_numbers(python: Path, tmp_path: Path) -> None:
    """Scaled rotation, a head of its own, grouped queries; prompts longer than the scaling's."""
    like = write_tiny(tmp_path / "like")
    prompts = [[5, 9, 200], list(range(3, 203)), [7] * 150]
    _, said = ask_transformers(
        python,
        tmp_path,
        {"do": "random", "folder": str(tmp_path / "l3"), "like": str(like), "config": LLAMA3},
        {"do": "probe", "folder": str(tmp_path / "l3"), "texts": TEXTS[:2], "prompts": prompts},
    )
    convert_checkpoint(tmp_path / "l3", tmp_path / "l3.gguf", weight_type="f32")
    assert "rope_freqs.weight" in GgufFile(tmp_path / "l3.gguf").tensor_names
    with Served(tmp_path / "l3.gguf") as served:
        for prompt, wanted in zip(prompts, said["next"], strict=True):
            same_numbers(wanted, served.next_tokens(prompt), within=0.02)
        assert [served.ids(text) for text in TEXTS[:2]] == said["ids"]

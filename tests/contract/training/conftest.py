"""A tiny Llama, some rows, and the Python that has axolotl; skips with the command without it."""

from __future__ import annotations

import json
import random
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from kidrails_guard.errors import MissingDependency
from kidrails_guard.recipes.environment import find_train_python, train_environ
from kidrails_guard.spectrum.checkpoint import read_index
from kidrails_guard.spectrum.targeting import Method, Selection

HERE = Path(__file__).parent
WORDS = ["sky", "blue", "light", "bends", "scatters", "moon", "wind", "rain"]
TRAINED = (
    "model.layers.1.mlp.down_proj.weight",
    "model.layers.1.self_attn.o_proj.weight",
    "model.layers.2.self_attn.q_proj.weight",
    "model.layers.3.mlp.up_proj.weight",
)


@dataclass(frozen=True)
class Workshop:
    """A folder in which a tiny recipe can be trained.

    Attributes:
        root: the folder; relative paths in the recipe start here.
        python: the interpreter that has axolotl.
        model: the tiny Llama.
        trained: the parameters that the recipe trains.
    """

    root: Path
    python: Path
    model: Path
    trained: tuple[str, ...] = TRAINED

    def run(self, *arguments: str, timeout: float = 1500) -> subprocess.CompletedProcess[str]:
        """Run the training Python in the folder."""
        return subprocess.run(
            [str(self.python), *arguments],
            cwd=self.root,
            env=train_environ(offline=True) | {"OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )


@pytest.fixture(scope="session")
def train_python() -> Path:
    try:
        return find_train_python()
    except MissingDependency as error:
        pytest.skip(str(error))


def write_rows(path: Path, rows: list[dict[str, object]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture(scope="session")
def workshop(train_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    root = tmp_path_factory.mktemp("workshop")
    shop = Workshop(root, train_python, root / "tiny")
    done = shop.run(str(HERE / "tiny_llama.py"), str(shop.model))
    assert done.returncode == 0, done.stderr
    rng = random.Random(1)
    talk, pairs = [], []
    for _ in range(64):
        word, other = rng.choice(WORDS), rng.choice(WORDS)
        asked = [
            {"role": "system", "content": "You talk to a child."},
            {"role": "user", "content": f"why is the {word}"},
        ]
        reply = {"role": "assistant", "content": f"the {word} bends, ask a grown-up"}
        more = [
            {"role": "user", "content": f"and the {other}"},
            {"role": "assistant", "content": f"the {other} too"},
        ]
        talk.append({"messages": [*asked, reply, *(more if rng.random() < 0.5 else [])]})
        careless = {"role": "assistant", "content": f"go away {word}"}
        pairs.append({"messages": asked, "chosen": reply, "rejected": careless})
    write_rows(root / "sft.jsonl", talk)
    write_rows(root / "preference.jsonl", pairs)
    index = read_index(shop.model)
    Selection(
        model="tiny",
        method=Method.TOP,
        fraction=0.25,
        types=("mlp.down_proj", "mlp.up_proj", "self_attn.o_proj", "self_attn.q_proj"),
        parameters=TRAINED,
        trainable_parameters=index.count_parameters(TRAINED),
        total_parameters=index.total_parameters,
        scan_sha256="0" * 64,
        scan_source="made by hand for a test",
    ).save(root / "selection.json")
    return shop


@pytest.fixture
def in_workshop(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> Workshop:
    """The workshop, as the working directory."""
    monkeypatch.chdir(workshop.root)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return workshop


@pytest.fixture(scope="session")
def write_spec(workshop: Workshop) -> Callable[[str, str], Path]:
    """Write a spec of one's own that extends a shipped recipe, and return its file."""

    def write(name: str, text: str) -> Path:
        path = workshop.root / f"{name}.yaml"
        path.write_text(f"name: {name}\n{text}", encoding="utf-8")
        return path

    return write

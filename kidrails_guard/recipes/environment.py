"""Finds the Python that holds axolotl, and asks it what only it can know.

axolotl's pins clash with the guard's, so it lives in its own environment (``.venv-train``). The
two meet over files: a question goes in as JSON, an answer comes back as JSON.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from kidrails_guard.errors import MissingDependency, RecipeError

INSTALL: Final = "make .venv-train/.stamp"
VARIABLE: Final = "KIDRAILS_TRAIN_PYTHON"
_PROBE: Final = Path(__file__).with_name("probe.py")


def find_train_python(start: Path | None = None) -> Path:
    """Return the Python that has axolotl: `KIDRAILS_TRAIN_PYTHON`, ``.venv-train``, or this one.

    Args:
        start: where to look for ``.venv-train``; the working directory and the checkout where
            None.

    Raises:
        MissingDependency: there is none.
    """
    named = os.environ.get(VARIABLE)
    if named:
        if not Path(named).is_file():
            raise RecipeError(f"{VARIABLE}={named!r} is no file; give the path of a Python")
        return Path(named)
    roots = [start] if start else [Path.cwd(), Path(__file__).resolve().parents[2]]
    for root in roots:
        python = root / ".venv-train" / "bin" / "python"
        if python.is_file():
            return python
    if importlib.util.find_spec("axolotl") is not None:
        return Path(sys.executable)
    raise MissingDependency(
        "axolotl", command=INSTALL, purpose="checking a recipe against its schema, and training"
    )


def train_environ(*, offline: bool) -> dict[str, str]:
    """Return the environment for axolotl: no telemetry, and no network where nothing needs it.

    Args:
        offline: whether model and data are local files.
    """
    environ = dict(os.environ)
    environ |= {"DO_NOT_TRACK": "1", "AXOLOTL_DO_NOT_TRACK": "1", "WANDB_MODE": "disabled"}
    environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if offline:
        environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    # The environment that runs us must not leak into the other one.
    for key in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"):
        environ.pop(key, None)
    return environ


def ask_axolotl(
    jobs: Sequence[Mapping[str, Any]], *, python: Path, root: Path | None = None
) -> list[dict[str, Any]]:
    """Run the probe on some recipes and return its answers, one a job.

    Args:
        jobs: see `probe`.
        python: the interpreter that has axolotl.
        root: where relative paths start; the working directory where None.

    Raises:
        RecipeError: the probe died; the end of what it said is in the message.
    """
    with tempfile.TemporaryDirectory(prefix="kidrails-probe-") as folder:
        question, answer = Path(folder, "question.json"), Path(folder, "answer.json")
        question.write_text(json.dumps({"jobs": list(jobs)}), encoding="utf-8")
        done = subprocess.run(
            [str(python), "-P", str(_PROBE), str(question), str(answer)],
            cwd=root,
            env=train_environ(offline=True),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
        )
        if done.returncode != 0 or not answer.is_file():
            tail = "\n".join(done.stdout.strip().splitlines()[-8:])
            raise RecipeError(
                f"{python} could not check the recipe (exit {done.returncode}); is axolotl "
                f"installed there? {INSTALL} makes it. It said:\n{tail}"
            )
        answers: list[dict[str, Any]] = json.loads(answer.read_text(encoding="utf-8"))["answers"]
    return answers

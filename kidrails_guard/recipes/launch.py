"""Starts axolotl through accelerate, follows it, and picks up a run that was killed."""

from __future__ import annotations

import ast
import contextlib
import fcntl
import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from kidrails_guard.errors import RecipeError, ScanError
from kidrails_guard.files import dump_json, sha256_file, sha256_text
from kidrails_guard.recipes.environment import train_environ
from kidrails_guard.recipes.rendered import Rendered, override_flags
from kidrails_guard.spectrum.checkpoint import read_index

RUN_FILE: Final = "kidrails_run.json"
LOG_FILE: Final = "kidrails_train.log"
_STEPS: Final = re.compile(rb"\| *(\d+)/(\d+) \[")
_BAR: Final = re.compile(r"\d(?:it/s|s/it)|\?it/s\]")
_NUMBERS: Final = re.compile(r"\{'(?:eval_)?loss':[^{}]*\}")

Progress = Callable[[int, int, float | None], None]


@dataclass(frozen=True, slots=True)
class Identity:
    """What decides a run's outcome; two runs with the same may be one that goes on.

    Attributes:
        recipe: SHA-256 of the recipe's keys and values; its comments do not matter.
        overrides: what was changed for this run.
        data: SHA-256 of every data file, by path.
        base: fingerprint of the base model, where it is on this machine.
    """

    recipe: str
    overrides: Mapping[str, Any]
    data: Mapping[str, str]
    base: str

    @property
    def digest(self) -> str:
        """SHA-256 over all of it."""
        return sha256_text(json.dumps(self.to_json(), sort_keys=True))

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "recipe": self.recipe,
            "overrides": dict(self.overrides),
            "data": dict(self.data),
            "base": self.base,
        }


def identify(recipe: Rendered, root: Path) -> Identity:
    """Return what decides the outcome of training a recipe now.

    Raises:
        ScanError: the base model's files are damaged.
    """
    entries = [*(recipe.config.get("datasets") or ()), *(recipe.config.get("test_datasets") or ())]
    data = {str(e["path"]): sha256_file(root / e["path"]) for e in entries}
    folder = root / str(recipe.config["base_model"])
    base = _model_digest(folder) if folder.is_dir() else str(recipe.config["base_model"])
    keys = json.dumps(dict(recipe.original), sort_keys=True)
    # Where the result goes does not change it.
    overrides = {k: v for k, v in recipe.overrides.items() if k != "output_dir"}
    return Identity(sha256_text(keys), overrides, data, base)


def _model_digest(folder: Path) -> str:
    """SHA-256 over all that decides what a model says: two trainings of one model differ."""
    read_index(folder)  # says what is damaged
    files = sorted(p for p in folder.iterdir() if p.suffix in {".safetensors", ".json", ".jinja"})
    return sha256_text("".join(f"{path.name} {sha256_file(path)}\n" for path in files))


@dataclass(frozen=True, slots=True)
class Start:
    """How a run begins.

    Attributes:
        done: the output folder holds this very run, finished.
        checkpoint: where to go on; None starts anew.
    """

    done: bool = False
    checkpoint: Path | None = None


def prepare_output(output: Path, identity: Identity, *, fresh: bool) -> Start:
    """Return how to begin in an output folder, which is never overwritten.

    Args:
        output: where the model goes.
        identity: of the run that wants to begin.
        fresh: move what is there aside, instead of going on with it.

    Raises:
        RecipeError: the folder holds something else, another run writes there, or it cannot be
            written.
    """
    if (output / RUN_FILE).is_file():
        with hold_output(output):
            pass  # or --fresh would move a folder that is being written
    try:
        if fresh and output.exists():
            output.rename(_free_name(output))
        if not output.exists() or not any(output.iterdir()):
            output.mkdir(parents=True, exist_ok=True)
            dump_json(output / RUN_FILE, {"digest": identity.digest, **identity.to_json()})
            return Start()
    except OSError as error:
        raise RecipeError(
            f"{output} cannot be written ({error.strerror}); give another folder: --output DIR"
        ) from None
    try:
        found = json.loads((output / RUN_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        found = {}
    if found.get("digest") != identity.digest:
        parts = [k for k, v in identity.to_json().items() if found.get(k) != v] if found else []
        why = f"made with another {', '.join(parts)}" if parts else "not made by `kidrails train`"
        raise RecipeError(
            f"{output} was {why}; move it aside with --fresh, or give another folder: --output DIR"
        )
    if last_step(output) is not None and is_finished(output):
        return Start(done=True)
    return Start(checkpoint=newest_checkpoint(output))


@contextlib.contextmanager
def hold_output(output: Path) -> Iterator[None]:
    """Keep other runs out of an output folder; released when this process ends, however it does.

    Raises:
        RecipeError: another run holds it.
    """
    with (output / RUN_FILE).open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise RecipeError(
                f"another training is writing into {output}; wait for it, or give another folder: "
                "--output DIR"
            ) from None
        yield


def _free_name(folder: Path) -> Path:
    number = 1
    while (moved := folder.with_name(f"{folder.name}.{number}")).exists():
        number += 1
    return moved


def newest_checkpoint(output: Path) -> Path | None:
    """Return the newest checkpoint that was written to its end; None where there is none."""
    for folder in sorted(_checkpoints(output), key=_number, reverse=True):
        if _is_whole(folder):
            return folder
    return None


def _checkpoints(output: Path) -> list[Path]:
    return [p for p in output.glob("checkpoint-*") if p.is_dir() and p.name[11:].isdigit()]


def _number(folder: Path) -> int:
    return int(folder.name[11:])


def _is_whole(folder: Path) -> bool:
    try:
        state = json.loads((folder / "trainer_state.json").read_text(encoding="utf-8"))
        if int(state["global_step"]) != _number(folder):
            return False
        if not (folder / "adapter_model.safetensors").is_file():
            read_index(folder)
    except (OSError, ValueError, KeyError, ScanError):
        return False
    single = folder / "optimizer.pt"
    # Sharded runs keep their optimizer elsewhere. A zip's directory stands at its end.
    return not single.exists() or zipfile.is_zipfile(single)


def last_step(output: Path) -> tuple[int, int] | None:
    """Return the newest checkpoint's step and the last step planned; None without a checkpoint."""
    state = read_state(output)
    return (int(state["global_step"]), int(state["max_steps"])) if state else None


def is_finished(output: Path) -> bool:
    """Return whether the last step was taken and the model written after it."""
    step = last_step(output)
    weights = (*output.glob("model*.safetensors"), *output.glob("adapter_model*.safetensors"))
    return step is not None and step[0] >= step[1] and bool(weights)


def read_state(output: Path) -> dict[str, Any]:
    """Return the trainer's state at the newest checkpoint, empty where there is none."""
    checkpoint = newest_checkpoint(output)
    if checkpoint is None:
        return {}
    state: dict[str, Any] = json.loads((checkpoint / "trainer_state.json").read_text("utf-8"))
    return state


def launch_arguments(
    recipe: Rendered,
    *,
    python: Path,
    flags: Mapping[str, Any],
    accelerate: tuple[str, ...] = (),
) -> list[str]:
    """Return the command that trains: accelerate, or Python alone where Ray spreads the work.

    Args:
        recipe: the recipe, whose file is handed over as it is.
        python: the interpreter that has axolotl.
        flags: every override.
        accelerate: options for accelerate.
    """
    train = ["-m", "axolotl.cli.train", str(recipe.path), *override_flags(flags)]
    if recipe.config.get("use_ray"):
        return [str(python), *train]
    return [str(python), "-m", "accelerate.commands.launch", *accelerate, *train]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a training process ended.

    Attributes:
        status: its exit status.
        seconds: wall time.
        peak_mb: most memory of a process among ours that ended so far, in MB.
    """

    status: int
    seconds: float
    peak_mb: int


def follow(
    command: list[str], *, root: Path, log: Path, offline: bool, progress: Progress | None = None
) -> Outcome:
    """Run a training command, write all it says to a log, and report its steps.

    Args:
        command: the command.
        root: its working directory.
        log: where its output goes; an older one is continued.
        offline: whether model and data are on this machine.
        progress: called with (step, steps, loss or None).
    """
    began = time.monotonic()
    with (
        log.open("ab") as sink,
        subprocess.Popen(
            command,
            cwd=root,
            env=train_environ(offline=offline),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        ) as process,
    ):
        assert process.stdout is not None
        sink.write((" ".join(command) + "\n").encode())
        try:
            rest = b""
            while piece := os.read(process.stdout.fileno(), 1 << 16):
                sink.write(piece)
                sink.flush()
                rest = _report(rest + piece, progress)
            status = process.wait()
        except BaseException:
            # Whatever stops us stops the training too, and what accelerate started for it: it does
            # not hand a signal on. The checkpoints stay.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            raise
    scale = 1 << 20 if sys.platform == "darwin" else 1 << 10
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // scale
    return Outcome(status, time.monotonic() - began, int(peak))


def _report(text: bytes, progress: Progress | None) -> bytes:
    """Report the steps in a piece of output; return what may be the start of the next line."""
    whole, _, rest = text.rpartition(b"\n")
    if progress is not None:
        steps = _STEPS.findall(text)
        losses = [
            float(ast.literal_eval(line)["loss"])
            for line in _NUMBERS.findall(whole.decode("utf-8", "replace"))
            if line.startswith("{'loss'")
        ]
        if steps:
            done, total = max((int(a), int(b)) for a, b in steps)
            progress(done, total, losses[-1] if losses else None)
    return rest[-4096:]


def tail(log: Path, *, lines: int = 12) -> str:
    """Return the end of a log, without progress bars."""
    text = log.read_text(encoding="utf-8", errors="replace").replace("\r", "\n")
    kept = [line for line in text.splitlines() if line.strip() and not _BAR.search(line)]
    return "\n".join(kept[-lines:])

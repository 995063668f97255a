"""The record of a training run: a manifest, the loss curve as a plot, and a page with both."""

from __future__ import annotations

import io
import math
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from kidrails_guard import __version__
from kidrails_guard.files import dump_json, write_atomic

MANIFEST: Final = "training.json"
PAGE: Final = "TRAINING.md"
PLOT: Final = "loss.svg"

Point = tuple[int, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingRecord:
    """Everything that one wants to know about a run afterwards.

    Attributes:
        recipe: the recipe's name.
        base_model: what it started from.
        method: which parameters were trained.
        trainable: how many numbers.
        total: of how many; 0 where that is not known.
        changed: how many tensors changed.
        same: how many stayed equal bit for bit.
        compared: whether the result was compared with the base; `changed` is what was meant where
            it was not.
        steps: taken.
        train_loss: (step, loss) at every step.
        held_out_loss: (step, loss) on rows that were not trained on; step 0 is the base.
        seconds: of this (or the last part of the) run; 0 where it ended before it was noted.
        peak_mb: most main memory of a training process, in MB.
        machine: its GPUs, where it has some, and its processor.
        command: what was run.
        identity: hashes of recipe, data and base.
        versions: of the packages that trained.
        complaints: what differs from the plan; empty where all is as meant.
        resumed_at: the step after which the last part of the run began; 0 where it ran in one.
    """

    recipe: str
    base_model: str
    method: str
    trainable: int
    total: int
    changed: int
    same: int
    compared: bool
    steps: int
    train_loss: tuple[Point, ...]
    held_out_loss: tuple[Point, ...]
    seconds: float
    peak_mb: int
    machine: str
    command: str
    identity: Mapping[str, Any]
    versions: Mapping[str, str]
    complaints: tuple[str, ...] = ()
    resumed_at: int = 0

    @property
    def held_out_change(self) -> tuple[float, float] | None:
        """Held-out loss before and after; None where it was not measured twice."""
        if len(self.held_out_loss) < 2:
            return None
        return self.held_out_loss[0][1], self.held_out_loss[-1][1]

    @property
    def tensors(self) -> str:
        """What became of the tensors, in words."""
        if self.method in {"lora", "qlora"}:
            return f"{self.changed} adapter tensors; the base is untouched"
        if not self.compared:
            return f"{self.changed} trained; NOT compared with the base, which is not at hand"
        return f"{self.changed} changed, {self.same} equal to the base bit for bit"

    def to_json(self) -> dict[str, Any]:
        """Return plain values; a loss that is no finite number becomes None."""
        curves = {
            name: [[step, loss if math.isfinite(loss) else None] for step, loss in points]
            for name, points in (
                ("train_loss", self.train_loss),
                ("held_out_loss", self.held_out_loss),
            )
        }
        return {**asdict(self), **curves}


def cpu_name() -> str:
    """Return the processor's model, without anything that names the machine."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def losses(history: Sequence[Mapping[str, Any]]) -> tuple[tuple[Point, ...], tuple[Point, ...]]:
    """Return the training and held-out losses of a trainer's log, by step."""
    train = tuple((int(e["step"]), float(e["loss"])) for e in history if "loss" in e)
    held = {int(e["step"]): float(e["eval_loss"]) for e in history if "eval_loss" in e}
    return train, tuple(sorted(held.items()))


def write_record(folder: Path, record: TrainingRecord) -> Path:
    """Write manifest, plot and page into a model's folder; return the page."""
    dump_json(folder / MANIFEST, {"kidrails": __version__, **record.to_json()})
    write_atomic(folder / PLOT, draw_losses(record))
    write_atomic(folder / PAGE, page(record))
    return folder / PAGE


def draw_losses(record: TrainingRecord) -> bytes:
    """Return the loss curves as an SVG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3.6), layout="constrained")
    axes = figure.add_subplot()
    if record.train_loss:
        steps, values = zip(*record.train_loss, strict=True)
        axes.plot(steps, values, color="#9db4c8", linewidth=1, label="training, each step")
    if record.held_out_loss:
        steps, values = zip(*record.held_out_loss, strict=True)
        axes.plot(steps, values, color="#c2410c", marker="o", label="held-out rows")
    axes.set_xlabel("step")
    axes.set_ylabel("loss (nats a token)")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    if axes.has_data():
        axes.legend(frameon=False)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    sink = io.BytesIO()
    # A fixed salt and no date: the same losses give the same bytes.
    with matplotlib.rc_context({"svg.hashsalt": "kidrails"}):
        figure.savefig(sink, format="svg", metadata={"Date": None})
    return sink.getvalue()


def _time(record: TrainingRecord) -> str:
    if not record.seconds:
        return f"not noted; on {record.machine}"
    part = f", from step {record.resumed_at:,} on" if record.resumed_at else ""
    return (
        f"{record.seconds:.0f} s{part}, on {record.machine}; at most {record.peak_mb:,} MB of "
        "main memory"
    )


def page(record: TrainingRecord) -> str:
    """Return the page in Markdown."""
    trained = f"{record.trainable:,} parameters"
    if record.total:
        share = record.trainable / record.total
        trained = f"{record.trainable:,} of {record.total:,} parameters ({share:.1%})"
    change = record.held_out_change
    held = f"{change[0]:.3f} -> {change[1]:.3f}" if change else "not measured"
    rows = [
        ("Base", f"`{record.base_model}`"),
        ("Method", record.method),
        ("Trained", trained),
        ("Tensors", record.tensors),
        ("Steps", f"{record.steps:,}"),
        ("Held-out loss", held),
        ("Time", _time(record)),
        *(("**Not as planned**", text) for text in record.complaints),
    ]
    table = "\n".join(f"| {name} | {text} |" for name, text in rows)
    versions = ", ".join(f"{name} {version}" for name, version in record.versions.items())
    data = "\n".join(f"* `{k}`: `{v}`" for k, v in record.identity.get("data", {}).items())
    return f"""# {record.recipe}

Trained by KidRails {__version__}. Every figure here is from `{MANIFEST}`, which the run wrote.

| | |
|---|---|
{table}

![Training and held-out loss by step]({PLOT})

```sh
{record.command}
```

Recipe's keys, SHA-256: `{record.identity.get("recipe", "")}`. Data:

{data}

With {versions}.
"""

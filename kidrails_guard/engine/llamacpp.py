"""The embedded engine: llama.cpp's own OpenAI server, from the `xllamacpp` wheel."""

from __future__ import annotations

import importlib.util
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from kidrails_guard.engine.base import Backend, EnginePlan
from kidrails_guard.errors import MissingDependency

INSTALL: Final = "pip install 'kidrails-guard[engine]'"
_MOST_THREADS: Final = 8


@dataclass(frozen=True, slots=True)
class LlamaSettings:
    """How the embedded server uses the machine.

    Attributes:
        context: tokens that one conversation may have, question and answer together.
        parallel: conversations answered at the same time; more wait their turn.
        threads: threads that compute; None for the machine's.
        adapter: a LoRA adapter as GGUF.
        adapter_scale: its weight.
    """

    context: int = 4096
    parallel: int = 2
    threads: int | None = None
    adapter: Path | None = None
    adapter_scale: float = 1.0


def usable_threads() -> int:
    """Return how many threads to compute with: half the cores this process may use, 1 to 8.

    llama.cpp's threads wait for each other, spinning, many times a token. One that has lost its
    core to another program holds up all of them (``benchmarks/engine_speed.py --threads 1,2``), and
    guard, page and browser run beside the model. The other half is often hyperthreads, which gain
    nothing.
    """
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # not on Linux
        cores = os.cpu_count() or 1
    return max(1, min(cores // 2, _MOST_THREADS))


def plan_llamacpp(
    model: Path, *, name: str, host: str, port: int, settings: LlamaSettings
) -> EnginePlan:
    """Return the plan that serves a GGUF file with the embedded engine.

    Args:
        model: the GGUF file.
        name: the name under which it is offered.
        host: the address to listen on.
        port: the port to listen on.
        settings: how to use the machine.

    Raises:
        MissingDependency: xllamacpp is not installed.
    """
    if importlib.util.find_spec("xllamacpp") is None:
        raise MissingDependency("xllamacpp", command=INSTALL, purpose="the embedded engine")
    threads = settings.threads or usable_threads()
    command = [
        sys.executable,
        "-m",
        "kidrails_guard.engine.llamacpp_server",
        *("--model", str(model), "--name", name, "--host", host, "--port", str(port)),
        *("--context", str(settings.context), "--parallel", str(settings.parallel)),
        *("--threads", str(threads)),
    ]
    if settings.adapter is not None:
        command += ["--adapter", str(settings.adapter)]
        command += ["--adapter-scale", f"{settings.adapter_scale:g}"]
    return EnginePlan(
        backend=Backend.LLAMACPP,
        name=name,
        model=str(model),
        host=host,
        port=port,
        command=tuple(command),
        leashed=True,
        notes=(
            f"{threads} threads, {settings.parallel} conversations at a time, "
            f"{settings.context} tokens each",
        ),
    )

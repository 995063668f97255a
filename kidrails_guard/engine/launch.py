"""From what a person asked for to the plan of a model server."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from kidrails_guard.engine.base import DEFAULT_HOST, DEFAULT_PORT, Backend, EnginePlan
from kidrails_guard.engine.gguf_file import check_magic
from kidrails_guard.engine.llamacpp import LlamaSettings, plan_llamacpp
from kidrails_guard.engine.models import ModelKind, ModelSource, find_model
from kidrails_guard.engine.voice import voice_for
from kidrails_guard.errors import UsageError

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """What a person can choose.

    Attributes:
        model: a GGUF file, a folder, ``owner/name`` with vLLM, or None for the default model.
        backend: the model server.
        host: the address to listen on.
        port: the port to listen on.
        name: the name under which the model is offered; made from the model by default.
        context: tokens of one conversation; the backend's default where None.
        parallel: conversations at a time (embedded engine).
        threads: computing threads (embedded engine); the machine's where None.
        adapter: a LoRA adapter as GGUF (embedded engine).
        adapter_scale: its weight.
        voice: whether the embedded default speaks with the voice that ships; another model, or
            an adapter of one's own, is served without it.
        weight_type: type of weights when a folder has to be converted.
        vllm_args: further flags for vLLM.
    """

    model: str | None = None
    backend: Backend = Backend.LLAMACPP
    host: str = DEFAULT_HOST
    port: int = DEFAULT_PORT
    name: str | None = None
    context: int | None = None
    parallel: int = 2
    threads: int | None = None
    adapter: Path | None = None
    adapter_scale: float = 1.0
    voice: bool = True
    weight_type: str = "q8_0"
    vllm_args: tuple[str, ...] = ()


def plan_engine(
    options: EngineOptions, *, prepare: bool = True, progress: Progress | None = None
) -> EnginePlan:
    """Return the plan for what was asked, ready for ``Supervisor`` or ``EngineProcess``.

    Args:
        options: what was asked.
        prepare: convert the model now where that is needed; otherwise the plan names the file that
            a start would make.
        progress: called with (tensors done, tensors in all) while converting.

    Raises:
        UsageError: the options do not fit together, or there is no such model.
        EngineError: the model cannot be served.
        MissingDependency: the backend or the default model is not installed.
    """
    source = find_model(options.model)
    _check_options(options, source)
    name = options.name or safe_name(source.name)
    if options.backend is Backend.VLLM:
        return _plan_vllm(options, source, name=name, prepare=prepare, progress=progress)
    assert source.path is not None
    path = source.path
    speaks = options.voice and options.model is None and options.adapter is None
    settings = LlamaSettings(
        context=options.context or LlamaSettings().context,
        parallel=options.parallel,
        threads=options.threads,
        adapter=voice_for(path) if speaks else options.adapter,
        adapter_scale=options.adapter_scale,
    )
    if source.kind is ModelKind.CHECKPOINT:
        path = _gguf(source.path, options.weight_type, prepare=prepare, progress=progress)
    plan = plan_llamacpp(path, name=name, host=options.host, port=options.port, settings=settings)
    if speaks:
        plan = replace(plan, notes=(*plan.notes, "with KidRails' voice (--no-voice without it)"))
    return plan


def safe_name(text: str) -> str:
    """Return a model name that needs no quoting in URLs and configuration files.

    >>> safe_name("SmolLM2 135M.Q4_1")
    'smollm2-135m.q4_1'
    """
    return re.sub(r"[^a-z0-9._/-]+", "-", text.lower()).strip("-") or "model"


def _check_options(options: EngineOptions, source: ModelSource) -> None:
    if not 1 <= options.port <= 65535:
        raise UsageError(f"--port {options.port}: accepted are 1 to 65535")
    for label, value, least in (
        ("--context", options.context, 256),
        ("--parallel", options.parallel, 1),
        ("--threads", options.threads, 1),
    ):
        if value is not None and value < least:
            raise UsageError(f"{label} {value}: must be at least {least}")
    if options.adapter is not None:
        if options.backend is Backend.VLLM:
            raise UsageError(
                "--adapter is for the embedded engine; with vLLM: --vllm-args "
                "'--enable-lora --lora-modules NAME=FOLDER'"
            )
        check_magic(options.adapter)
    if options.backend is Backend.LLAMACPP and source.kind is ModelKind.HUB:
        raise UsageError(
            f"MODEL {source.name!r} is no file or folder here; the embedded engine downloads "
            "nothing: give a path, or use --backend vllm for a model on the Hub"
        )
    if options.backend is Backend.LLAMACPP and options.vllm_args:
        raise UsageError("--vllm-args needs --backend vllm")


def _gguf(folder: Path, weight_type: str, *, prepare: bool, progress: Progress | None) -> Path:
    from kidrails_guard.engine import cache
    from kidrails_guard.engine.checkpoint import Checkpoint
    from kidrails_guard.engine.to_gguf import checkpoint_vocabulary, llama_shape

    if prepare:
        return cache.gguf_of(folder, weight_type=weight_type, progress=progress)
    checkpoint = Checkpoint(folder)  # the errors that a conversion would meet
    checkpoint_vocabulary(checkpoint, size=llama_shape(checkpoint).vocabulary)
    return cache.gguf_path(folder, weight_type=weight_type)


def _plan_vllm(
    options: EngineOptions,
    source: ModelSource,
    *,
    name: str,
    prepare: bool,
    progress: Progress | None,
) -> EnginePlan:
    from kidrails_guard.engine import cache
    from kidrails_guard.engine.vllm import find_vllm, plan_vllm

    model = source.location
    if source.kind is ModelKind.GGUF and source.path is not None:
        find_vllm()  # before an export that would be in vain
        model = str(
            cache.export_of(source.path, progress=progress)
            if prepare
            else cache.export_path(source.path)
        )
    return plan_vllm(
        model,
        name=name,
        host=options.host,
        port=options.port,
        context=options.context,
        extra=options.vllm_args,
    )

"""`kidrails engine`: serve a model, say what would be served, or convert one."""

from __future__ import annotations

import argparse
import json
import shlex
import signal
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kidrails_guard.commands.options import at_least
from kidrails_guard.errors import KidRailsError, UsageError

if TYPE_CHECKING:
    from kidrails_guard.engine.launch import EngineOptions
    from kidrails_guard.engine.supervisor import EngineEvent


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `kidrails engine`."""
    parser.add_argument(
        "model",
        metavar="MODEL",
        nargs="?",
        help="a .gguf file, a folder with safetensors, or owner/name with --backend vllm; "
        "default: SmolLM2-135M-Instruct",
    )
    parser.add_argument(
        "--backend",
        choices=("llamacpp", "vllm"),
        default="llamacpp",
        help="the embedded llama.cpp (default), or vLLM",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (127.0.0.1)")
    parser.add_argument("--port", type=int, default=8000, help="port to listen on (8000)")
    parser.add_argument("--name", help="name under which the model is offered")
    parser.add_argument("--context", type=int, help="tokens of one conversation")
    parser.add_argument("--parallel", type=int, default=2, help="conversations at a time (2)")
    parser.add_argument("--threads", type=int, help="computing threads (half the cores, 8 at most)")
    parser.add_argument("--adapter", metavar="FILE", type=Path, help="a LoRA adapter as GGUF")
    parser.add_argument("--adapter-scale", type=at_least(0.0), default=1.0, help="its weight (1.0)")
    parser.add_argument(
        "--no-voice", action="store_true", help="the default model as its makers ship it"
    )
    parser.add_argument(
        "--type",
        dest="weight_type",
        choices=("f32", "f16", "q8_0", "q4_1"),
        help="type of weights when a folder is converted to GGUF (q8_0; f16 for an adapter)",
    )
    parser.add_argument(
        "--vllm-args",
        metavar="FLAGS",
        default="",
        help="further flags for vLLM, in one "
        "string; a flag without a value: --vllm-args=--enable-lora",
    )
    parser.add_argument(
        "--start-timeout",
        type=at_least(1.0),
        metavar="S",
        help="seconds to wait for the first answer, also after a restart",
    )
    parser.add_argument("--verbose", action="store_true", help="show what the server prints")
    parser.add_argument(
        "--check", action="store_true", help="say what was found and would run, and stop"
    )
    parser.add_argument(
        "--export",
        metavar="DIR",
        type=Path,
        help="write MODEL (GGUF) as safetensors with its tokenizer into DIR, and stop",
    )
    parser.add_argument(
        "--to-gguf",
        metavar="FILE",
        type=Path,
        help="write MODEL (a folder) as GGUF into FILE, and stop; with --base: an adapter that "
        "holds what training changed",
    )
    parser.add_argument(
        "--base",
        metavar="DIR",
        type=Path,
        help="with --to-gguf: the model that MODEL, or the adapter, was trained from",
    )
    parser.add_argument(
        "--rank", type=int, default=32, help="with --base: rank of the adapter's matrices (32)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Run `kidrails engine` and return its exit status."""
    if args.export is not None and args.to_gguf is not None:
        raise UsageError("--export writes safetensors, --to-gguf GGUF: give one of them")
    if args.export is not None:
        return _export(args)
    if args.to_gguf is not None:
        return _to_gguf(args)
    return _check(args) if args.check else _serve(args)


def _options(args: argparse.Namespace) -> EngineOptions:
    from kidrails_guard.engine.base import Backend
    from kidrails_guard.engine.launch import EngineOptions

    try:
        vllm_args = tuple(shlex.split(args.vllm_args))
    except ValueError as error:
        raise UsageError(f"--vllm-args {args.vllm_args!r}: {error}") from None
    return EngineOptions(
        model=args.model,
        backend=Backend(args.backend),
        host=args.host,
        port=args.port,
        name=args.name,
        context=args.context,
        parallel=args.parallel,
        threads=args.threads,
        adapter=args.adapter,
        adapter_scale=args.adapter_scale,
        voice=not args.no_voice,
        weight_type=args.weight_type or "q8_0",
        vllm_args=vllm_args,
    )


def _check(args: argparse.Namespace) -> int:
    from kidrails_guard.engine.cache import describe_cache
    from kidrails_guard.engine.describe import describe_model, find_problems, model_line
    from kidrails_guard.engine.launch import plan_engine
    from kidrails_guard.engine.models import find_model

    record: dict[str, Any] = {"ok": False, "model": None, "plan": None, "problems": []}
    cache = record["cache"] = describe_cache()
    try:
        record["model"] = describe_model(find_model(args.model))
        plan = plan_engine(_options(args), prepare=False)
        record["plan"] = {**plan.as_json(), "shown": plan.shown_command}
        record["problems"] = find_problems(plan, record["model"])
    except KidRailsError as error:
        record["problems"] = [str(error)]
    record["ok"] = not record["problems"]
    lines = []
    if record["model"]:
        lines.append(f"model    {model_line(record['model'])}")
    if record["plan"]:
        lines.append(f"backend  {record['plan']['backend']}: {'; '.join(record['plan']['notes'])}")
        lines.append(f"address  {record['plan']['url']}, as {record['plan']['name']}")
        lines.append(f"command  {record['plan']['shown']}")
    lines.append(
        f"cache    {cache['folder']}: {cache['files']} files, {cache['bytes'] / 2**20:,.0f} MiB"
    )
    lines += [f"problem  {problem}" for problem in record["problems"]]
    _print(record, "\n".join(lines), as_json=args.json)
    return 0 if record["ok"] else 1


def _serve(args: argparse.Namespace) -> int:
    from kidrails_guard.engine.launch import plan_engine
    from kidrails_guard.engine.ports import require_free_port
    from kidrails_guard.engine.progress import tensor_bar, wait_ready
    from kidrails_guard.engine.supervisor import Supervisor

    options = _options(args)
    require_free_port(options.host, options.port)  # before a conversion that takes a minute
    with tensor_bar("converting the model") as progress:
        plan = plan_engine(options, progress=progress)
    if args.start_timeout is not None:
        plan = replace(plan, start_timeout_s=args.start_timeout)
    echo = sys.stderr if args.verbose else None
    engine = Supervisor(plan, on_event=_tell, echo=echo)
    # As Ctrl-C: the `finally` below stops the server whichever way we are asked to end.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        engine.start()
        wait_ready(engine)
        if plan.host not in {"127.0.0.1", "localhost", "::1"}:
            _warn(
                f"{plan.host} is reachable from other machines, and this port answers without the "
                "guard; let children reach `kidrails serve` only"
            )
        record = {**plan.as_json(), "state": "ready", "pid": engine.pid}
        _print(record, f"ready: {plan.url} offers {plan.name}", as_json=args.json)
        sys.stdout.flush()
        threading.Event().wait()
    except KeyboardInterrupt:
        return 0
    finally:
        engine.stop()
    return 0


def _tell(event: EngineEvent) -> None:
    from kidrails_guard.engine.supervisor import EventKind

    if event.kind is EventKind.READY:
        _warn("the model server answers again")
    else:
        what = "has ended" if event.kind is EventKind.DIED else "did not start"
        _warn(f"the model server {what} ({event.detail}); the next start is in {event.pause_s:g} s")


def _warn(text: str) -> None:
    print(f"kidrails engine: {text}", file=sys.stderr, flush=True)


def _print(record: dict[str, Any], text: str, *, as_json: bool) -> None:
    print(json.dumps(record, indent=2) if as_json else text)


def _export(args: argparse.Namespace) -> int:
    from kidrails_guard.engine.export import export_safetensors
    from kidrails_guard.engine.models import ModelKind, find_model
    from kidrails_guard.engine.progress import tensor_bar

    source = find_model(args.model)
    if source.kind is not ModelKind.GGUF or source.path is None:
        raise UsageError(
            f"--export: {source.location} is not a GGUF file; a checkpoint needs no export"
        )
    with tensor_bar("export") as progress:
        manifest = export_safetensors(source.path, args.export, progress=progress)
    state = "already there" if manifest["reused"] else "written"
    _print(
        {**manifest, "folder": str(args.export)},
        f"{state}: {manifest['tensors']} tensors, {manifest['parameters']:,} parameters, "
        f"{manifest['dtype']}, in {args.export}",
        as_json=args.json,
    )
    return 0


def _to_gguf(args: argparse.Namespace) -> int:
    from kidrails_guard.engine.adapter import convert_adapter, extract_delta, is_adapter
    from kidrails_guard.engine.models import ModelKind, find_model
    from kidrails_guard.engine.progress import tensor_bar
    from kidrails_guard.engine.to_gguf import DEFAULT_TYPE, convert_checkpoint

    if args.model is not None and is_adapter(Path(args.model)):
        record = convert_adapter(Path(args.model), args.base, args.to_gguf)
        return _print_adapter(record, args)
    source = find_model(args.model)
    if source.kind is not ModelKind.CHECKPOINT or source.path is None:
        raise UsageError(
            f"--to-gguf: {source.location} is not a folder with config.json and *.safetensors"
        )
    with tensor_bar("convert") as progress:
        if args.base is not None:
            kind, rank = args.weight_type or "f16", args.rank
            record = extract_delta(
                source.path,
                args.base,
                args.to_gguf,
                rank=rank,
                weight_type=kind,
                progress=progress,
            )
        else:
            kind = args.weight_type or DEFAULT_TYPE
            record = convert_checkpoint(
                source.path, args.to_gguf, weight_type=kind, progress=progress
            )
    if args.base is not None:
        return _print_adapter(record, args)
    _print(
        record,
        f"written: {record['tensors']} tensors, {record['parameters']:,} parameters, "
        f"{record['weight_type']}, {record['bytes'] / 2**20:,.0f} MiB, in {args.to_gguf}",
        as_json=args.json,
    )
    return 0


def _print_adapter(record: dict[str, Any], args: argparse.Namespace) -> int:
    text = (
        f"written: an adapter of rank {record['rank']} for {record['matrices']} matrices, "
        f"{record['weight_type']}, {record['bytes'] / 2**20:,.1f} MiB, in {args.to_gguf}"
    )
    if "kept" in record:
        text += f"; it holds {record['kept']:.1%} of the change"
    if record.get("left_out"):
        text += f"; left out: {', '.join(record['left_out'])}"
    _print(record, text, as_json=args.json)
    return 0

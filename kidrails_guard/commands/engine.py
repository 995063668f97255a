"""`kidrails engine`: serve a model, say what would be served, or convert one."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from kidrails_guard.errors import UsageError


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
        "--export",
        metavar="DIR",
        type=Path,
        help="write MODEL (GGUF) as safetensors with its tokenizer into DIR, and stop",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Run `kidrails engine` and return its exit status."""
    if args.export is not None:
        return _export(args)
    raise UsageError("nothing to do: give --export DIR")


def _print(record: dict[str, Any], text: str, *, as_json: bool) -> None:
    print(json.dumps(record, indent=2) if as_json else text)


def _export(args: argparse.Namespace) -> int:
    from kidrails_guard.engine.export import export_safetensors
    from kidrails_guard.engine.models import ModelKind, find_model

    source = find_model(args.model)
    if source.kind is not ModelKind.GGUF or source.path is None:
        raise UsageError(
            f"--export: {source.location} is not a GGUF file; a checkpoint needs no export"
        )
    from tqdm import tqdm

    with tqdm(desc="export", unit=" tensors", disable=None) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        manifest = export_safetensors(source.path, args.export, progress=progress)
    state = "already there" if manifest["reused"] else "written"
    _print(
        {**manifest, "folder": str(args.export)},
        f"{state}: {manifest['tensors']} tensors, {manifest['parameters']:,} parameters, "
        f"{manifest['dtype']}, in {args.export}",
        as_json=args.json,
    )
    return 0

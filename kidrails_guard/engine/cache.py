"""Converted models, kept by the content of what they were made from."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from kidrails_guard.engine.to_gguf import DEFAULT_TYPE
from kidrails_guard.files import own_folder, sha256_file

Progress = Callable[[int, int], None]

#: Raise it when a converter writes something else for the same input.
_VERSION: Final = "1"
_SOURCES: Final = ("config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja")


def cache_folder() -> Path:
    """Return the folder for converted models: ``KIDRAILS_CACHE`` or ``~/.cache/kidrails``.

    Raises:
        UsageError: neither is set and there is no home.
    """
    return own_folder("KIDRAILS_CACHE", "XDG_CACHE_HOME", ".cache")


def checkpoint_digest(folder: Path) -> str:
    """Return a digest of everything in a checkpoint that a conversion reads (64 hex digits)."""
    files = [folder / name for name in _SOURCES]
    files += sorted([*folder.glob("*.safetensors"), *folder.glob("*.safetensors.index.json")])
    digest = hashlib.sha256(_VERSION.encode())
    for file in files:
        if file.is_file():
            digest.update(f"\0{file.name}\0{sha256_file(file)}".encode())
    return digest.hexdigest()


def gguf_path(folder: Path, *, weight_type: str = DEFAULT_TYPE) -> Path:
    """Return where the GGUF file of a checkpoint lies, or would lie once converted."""
    key = checkpoint_digest(folder)[:20]
    return cache_folder() / "gguf" / f"{folder.name}-{key}-{weight_type}.gguf"


def gguf_of(
    folder: Path, *, weight_type: str = DEFAULT_TYPE, progress: Progress | None = None
) -> Path:
    """Return the GGUF file of a checkpoint, converted now or earlier.

    Args:
        folder: the checkpoint.
        weight_type: the type of weights.
        progress: called with (tensors done, tensors in all) while converting.

    Raises:
        EngineError: it cannot be converted.
    """
    from kidrails_guard.engine.to_gguf import convert_checkpoint

    target = gguf_path(folder, weight_type=weight_type)
    if not target.is_file():
        convert_checkpoint(folder, target, weight_type=weight_type, progress=progress)
    return target


def export_path(source: Path) -> Path:
    """Return where the safetensors of a GGUF file lie, or would lie once exported."""
    return cache_folder() / "exports" / f"{source.stem}-{sha256_file(source)[:20]}"


def export_of(source: Path, *, progress: Progress | None = None) -> Path:
    """Return a folder of safetensors made from a GGUF file, now or earlier.

    Raises:
        EngineError: it cannot be exported.
    """
    from kidrails_guard.engine.export import export_safetensors

    folder = export_path(source)
    if not folder.is_dir():
        export_safetensors(source, folder, progress=progress)
    return folder


def describe_cache() -> dict[str, Any]:
    """Return the cache's folder, its files and their bytes."""
    folder = cache_folder()
    files = [f for f in folder.rglob("*") if f.is_file()] if folder.is_dir() else []
    return {
        "folder": str(folder),
        "files": len(files),
        "bytes": sum(f.stat().st_size for f in files),
    }

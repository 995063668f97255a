"""The voice that ships: an adapter that lets the embedded default speak as KidRails trains it.

`kidrails_guard/models/voice/` holds the adapter and the manifest of its training. It belongs to one
base file, byte for byte: on other weights an adapter still loads where the shapes agree, and then
says anything. Both are therefore held to their SHA-256 before the server starts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from kidrails_guard.errors import EngineError
from kidrails_guard.files import dump_json, sha256_file

SHIPPED: Final = Path(__file__).resolve().parent.parent / "models" / "voice"
ADAPTER: Final = "adapter.gguf"
MANIFEST: Final = "manifest.json"
FORMAT: Final = 1
#: The most that the adapter may weigh, in bytes.
LIMIT: Final = 20_000_000
_OFF: Final = "--no-voice starts the model without it"


def read_voice(folder: Path = SHIPPED) -> dict[str, Any]:
    """Return the manifest of a voice after checking its adapter against it.

    Args:
        folder: with the adapter and the manifest.

    Raises:
        EngineError: a file is missing, or is not the one that the manifest names.
    """
    path = folder / MANIFEST
    try:
        manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        wanted = manifest["files"][ADAPTER]["sha256"]
        needed = (manifest["format"], manifest["base"]["sha256"], manifest["base"]["name"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise EngineError(
            f"{path} cannot be read ({type(error).__name__}: {error}); install kidrails-guard "
            f"again; {_OFF}"
        ) from None
    if needed[0] != FORMAT:
        raise EngineError(
            f"{path}: format {needed[0]!r}; this version reads {FORMAT}; install kidrails-guard "
            f"again; {_OFF}"
        )
    adapter = folder / ADAPTER
    found = sha256_file(adapter) if adapter.is_file() else "absent"
    if found != wanted:
        raise EngineError(
            f"{adapter}: sha256 {found}, the manifest says {wanted}; install kidrails-guard again; "
            f"{_OFF}"
        )
    return manifest


def voice_for(base: Path, folder: Path = SHIPPED) -> Path:
    """Return the adapter of a voice, for the one base file that it was trained on.

    Args:
        base: the GGUF file that will be served.
        folder: with the adapter and the manifest.

    Raises:
        EngineError: the voice is damaged, or belongs to another base.
    """
    manifest = read_voice(folder)
    wanted = manifest["base"]
    found = sha256_file(base)
    if found != wanted["sha256"]:
        raise EngineError(
            f"{base}: sha256 {found}; the voice in {folder} was trained on {wanted['name']} with "
            f"sha256 {wanted['sha256']} and would talk nonsense on other weights; install that "
            f"one ({wanted.get('install', 'see the manifest')}); {_OFF}"
        )
    return folder / ADAPTER


def write_manifest(
    folder: Path, *, base: Path, base_facts: Mapping[str, Any], facts: Mapping[str, Any]
) -> dict[str, Any]:
    """Write the manifest of the adapter that lies in a folder.

    Args:
        folder: with the adapter.
        base: the GGUF file that the adapter belongs to.
        base_facts: ``name``, ``install``, ``licence`` and whatever else describes the base.
        facts: of the training: recipe, data, losses, versions.

    Returns:
        The manifest.

    Raises:
        EngineError: the adapter is larger than what may ship.
    """
    adapter = folder / ADAPTER
    size = adapter.stat().st_size
    if size > LIMIT:
        raise EngineError(f"{adapter}: {size:,} bytes; at most {LIMIT:,} ship; take a lower rank")
    manifest = {
        "format": FORMAT,
        "name": "kidrails-voice",
        "licence": "Apache-2.0",
        "base": {**base_facts, "sha256": sha256_file(base), "bytes": base.stat().st_size},
        "files": {ADAPTER: {"sha256": sha256_file(adapter), "bytes": size}},
        **facts,
    }
    dump_json(folder / MANIFEST, manifest)
    return manifest

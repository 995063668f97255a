"""A model's tensors (names, shapes, dtypes, places), without loading a single weight.

Read from the headers of safetensors files, or worked out from a Llama-like ``config.json`` when no
checkpoint is at hand (`kidrails_guard.spectrum.shapes`).

Source: https://huggingface.co/docs/safetensors (file layout).
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from kidrails_guard.errors import MissingDependency, ScanError

ITEM_BYTES: Final[dict[str, int]] = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1,
    "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U64": 8, "U32": 4, "U16": 2, "U8": 1, "BOOL": 1,
}  # fmt: skip
FLOAT_DTYPES: Final = frozenset({"F64", "F32", "F16", "BF16"})

_INDEX: Final = "model.safetensors.index.json"
_SINGLE: Final = "model.safetensors"
_SHARD: Final = re.compile(r"-\d{5}-of-\d{5}\.safetensors$")
_HUB_ID: Final = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_MAX_HEADER_BYTES: Final = 100_000_000
#: Part of the name of a stack of layers that does not read text.
_TOWERS: Final = ("vision", "visual", "audio")


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One tensor: what it is and where its bytes lie.

    Attributes:
        name: the parameter's full name, such as ``model.layers.1.mlp.down_proj.weight``.
        dtype: safetensors' name of the type, such as ``BF16``.
        shape: rows first.
        file: the file that holds it; None where only the shape is known.
        start: offset of its first byte in that file.
        nbytes: how many bytes it has.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: Path | None = None
    start: int = 0
    nbytes: int = 0

    @property
    def size(self) -> int:
        """Number of parameters."""
        return math.prod(self.shape)

    @property
    def module(self) -> str:
        """The module's name: the parameter's without ``.weight`` or ``.bias``."""
        stem, _, last = self.name.rpartition(".")
        return stem if stem and last in {"weight", "bias"} else self.name

    @property
    def type(self) -> str:
        """The module type, see `module_type`."""
        return module_type(self.module)


@dataclass(frozen=True)
class ModelIndex:
    """All tensors of a model, in the order of their names (numbers by value).

    Attributes:
        model: Hub id or folder name.
        tensors: sorted; a head that shares the embedding's weights is not among them.
        folder: where the shards lie; None where only shapes are known.
        revision: the Hub's commit, where it came from there.
        fingerprint: SHA-256 over the shards' names, sizes and headers. It tells two layouts apart,
            not two trainings of one model: that takes the tensors' own hashes.
    """

    model: str
    tensors: tuple[TensorInfo, ...]
    folder: Path | None = None
    fingerprint: str = field(default="", repr=False)
    revision: str = ""

    @cached_property
    def _by_name(self) -> Mapping[str, TensorInfo]:
        return {tensor.name: tensor for tensor in self.tensors}

    @property
    def names(self) -> tuple[str, ...]:
        """Every parameter's full name."""
        return tuple(self._by_name)

    @property
    def total_parameters(self) -> int:
        """Number of parameters of the whole model."""
        return sum(tensor.size for tensor in self.tensors)

    def __contains__(self, name: str) -> bool:
        return name in self._by_name

    def __getitem__(self, name: str) -> TensorInfo:
        try:
            return self._by_name[name]
        except KeyError:
            raise ScanError(f"{self.model} has no parameter {name!r}") from None

    def count_parameters(self, names: Iterable[str]) -> int:
        """Return how many numbers the named parameters hold together.

        Raises:
            ScanError: a name is not in the model.
        """
        return sum(self[name].size for name in names)

    def match(self, pattern: str) -> tuple[str, ...]:
        """Return the parameters that an axolotl ``unfrozen_parameters`` pattern unfreezes.

        axolotl escapes dots itself and uses `re.match`: anchored at the start, open at the end.
        """
        compiled = re.compile(pattern.replace(".", r"\."))
        return tuple(name for name in self._by_name if compiled.match(name))


def module_type(module: str) -> str:
    """Return what stands behind the layer's number: ``mlp.down_proj``, else the whole name.

    A tower for pictures or sound has layers of its own, with numbers and names that are the text
    model's too: its types begin with its name, as in ``vision_tower.self_attn.q_proj``.

    Args:
        module: a module's name, such as ``model.layers.1.mlp.down_proj``.
    """
    parts = module.split(".")
    place = next((i for i, part in enumerate(parts) if part.isdigit()), -1)
    if place < 0:
        return module
    tower = [part for part in parts[:place] if any(word in part for word in _TOWERS)]
    return ".".join([*tower[:1], *parts[place + 1 :]])


def layer_number(module: str) -> int:
    """Return the layer's number, -1 for a module outside the layers."""
    return next((int(part) for part in module.split(".") if part.isdigit()), -1)


def name_order(name: str) -> tuple[tuple[int, int, str], ...]:
    """Return a sorting key that puts ``layers.2`` before ``layers.10``."""
    return tuple((0, int(p), "") if p.isdigit() else (1, 0, p) for p in name.split("."))


def read_index(model: str | Path, *, revision: str | None = None) -> ModelIndex:
    """Read the tensors of a local folder or a Hub id from its safetensors headers.

    Args:
        model: a folder, or a Hub id such as ``meta-llama/Llama-3.2-1B`` (downloaded into the Hub's
            own cache; only safetensors files and ``config.json``, no code).
        revision: branch, tag or commit on the Hub.

    Raises:
        ScanError: no such folder, no safetensors, an index or a shard is missing or damaged.
        MissingDependency: a Hub id was given and ``huggingface-hub`` is not installed.
    """
    folder = Path(model)
    if folder.is_file() and folder.suffix == ".safetensors":
        return _build_index(folder.stem, folder.parent, [folder])
    if not folder.is_dir():
        if not _HUB_ID.fullmatch(str(model)):
            raise ScanError(
                f"{str(model)!r} is neither a folder nor a Hub id like owner/name; give the folder "
                "that holds model.safetensors"
            )
        folder = _download(str(model), revision)
        # The Hub's cache names the folder by the commit.
        return _build_index(str(model), folder, _shards(folder), revision=folder.name)
    return _build_index(folder.resolve().name, folder, _shards(folder))


def _shards(folder: Path) -> list[Path]:
    index = folder / _INDEX
    if index.is_file():
        try:
            weight_map = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
            names = sorted({str(name) for name in weight_map.values()})
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise ScanError(
                f"{index} is not a safetensors index ({type(error).__name__}: {error}); expected "
                '{"weight_map": {parameter: file}}'
            ) from None
        if any(Path(name).name != name for name in names):
            raise ScanError(f"{index} names a file outside its folder; expected plain file names")
        absent = [name for name in names if not (folder / name).is_file()]
        if absent:
            raise ScanError(
                f"{folder} lacks {len(absent)} of {len(names)} shards that {_INDEX} names, first "
                f"{absent[0]!r}; download the model again"
            )
        return [folder / name for name in names]
    if (folder / _SINGLE).is_file():
        return [folder / _SINGLE]
    found = sorted(folder.glob("*.safetensors"))
    if any(_SHARD.search(path.name) for path in found):
        raise ScanError(
            f"{folder} holds {len(found)} shards but no {_INDEX}, so nothing says whether they are "
            "all; download that file too"
        )
    if len(found) == 1:
        return found
    others = sorted(p.name for p in folder.iterdir() if p.suffix in {".bin", ".pt", ".gguf"})
    hint = f" (found {', '.join(others[:3])})" if others else ""
    raise ScanError(
        f"{folder} holds {len(found) or 'no'} safetensors files and no {_INDEX}{hint}; expected "
        f"{_SINGLE}, or shards with {_INDEX}"
    )


def _download(model: str, revision: str | None) -> Path:
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise MissingDependency(
            "huggingface-hub",
            command='pip install "kidrails-guard[spectrum]"',
            purpose="scanning a model by its Hub id",
        ) from None
    try:
        return Path(
            snapshot_download(
                model,
                revision=revision,
                allow_patterns=["*.safetensors", "*.safetensors.index.json", "config.json"],
            )
        )
    # The hub's own errors, httpx's and OSError have no common base below Exception.
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else ""
        raise ScanError(
            f"{model!r} is no local folder and could not be fetched from the Hub "
            f"({type(error).__name__}: {reason}); check the name, `hf auth login`, or give a folder"
        ) from None


def _build_index(model: str, folder: Path, files: list[Path], *, revision: str = "") -> ModelIndex:
    digest = hashlib.sha256()
    tensors: dict[str, TensorInfo] = {}
    for file in files:
        header, infos = read_header(file)
        digest.update(f"{file.name}\0{file.stat().st_size}\0".encode())
        digest.update(header)
        for info in infos:
            if info.name in tensors:
                raise ScanError(
                    f"{info.name!r} is in {tensors[info.name].file} and again in {file}"
                )
            tensors[info.name] = info
    if not tensors:
        raise ScanError(f"{folder} holds no tensor")
    _check_index_names(folder, tensors)
    if _is_tied(folder) and any(name.endswith("embed_tokens.weight") for name in tensors):
        # Some tools store the shared weights twice; a loaded model has them once.
        tensors = {n: t for n, t in tensors.items() if not n.endswith("lm_head.weight")}
    ordered = tuple(tensors[name] for name in sorted(tensors, key=name_order))
    return ModelIndex(model, ordered, folder, digest.hexdigest(), revision)


def _is_tied(folder: Path) -> bool:
    """Return whether ``config.json`` says that the head shares the embedding's weights."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        return (config.get("text_config") or config).get("tie_word_embeddings") is True
    except (OSError, ValueError, AttributeError):
        return False


def _check_index_names(folder: Path, tensors: Mapping[str, TensorInfo]) -> None:
    index = folder / _INDEX
    if not index.is_file():
        return
    weight_map: dict[str, str] = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
    for name, shard in weight_map.items():
        info = tensors.get(name)
        if info is None or info.file is None or info.file.name != shard:
            raise ScanError(
                f"{index} says that {name!r} is in {shard!r}, and it is not; index and shards are "
                "from different checkpoints: download both again"
            )


def read_header(file: Path) -> tuple[bytes, list[TensorInfo]]:
    """Read one safetensors header and check it against the file's size.

    Returns:
        the header's bytes, and the tensors in the order of their offsets.

    Raises:
        ScanError: the file is truncated, is no safetensors file, or its offsets do not hold.
    """
    size = file.stat().st_size
    with file.open("rb") as stream:
        head = stream.read(8)
        length = struct.unpack("<Q", head)[0] if len(head) == 8 else 0
        if not 2 <= length <= _MAX_HEADER_BYTES or 8 + length > size:
            raise ScanError(
                f"{file} ({size} bytes) is no safetensors file, or is cut off in its header; "
                "download it again"
            )
        header = stream.read(length)
    try:
        entries: dict[str, Any] = json.loads(header)
        entries.pop("__metadata__", None)
        infos = [
            _tensor(name, entry, file=file, data_start=8 + length)
            for name, entry in entries.items()
        ]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ScanError(
            f"{file}: its header is damaged ({type(error).__name__}: {error}); download it again"
        ) from None
    infos.sort(key=lambda info: info.start)
    end = infos[-1].start + infos[-1].nbytes if infos else 8 + length
    if end > size:
        raise ScanError(
            f"{file} is truncated: its header promises {end} bytes, the file has {size}; download "
            "it again"
        )
    for first, second in pairwise(infos):
        if first.start + first.nbytes > second.start:
            raise ScanError(f"{file}: {first.name!r} and {second.name!r} overlap; it is damaged")
    return header, infos


def _tensor(name: str, entry: Mapping[str, Any], *, file: Path, data_start: int) -> TensorInfo:
    dtype, shape = str(entry["dtype"]), tuple(int(side) for side in entry["shape"])
    start, end = (int(offset) for offset in entry["data_offsets"])
    item = ITEM_BYTES.get(dtype)
    # A dtype that we do not know (packed formats) is listed as it is; the scan says it cannot score
    # it. One that we know must fill its bytes exactly.
    if start < 0 or end < start or min(shape, default=0) < 0:
        raise ValueError(f"{name!r} has shape {shape} and offsets {start}..{end}")
    if item is not None and end - start != item * math.prod(shape):
        raise ValueError(
            f"{name!r} has {end - start} bytes, and {dtype} {shape} needs {item * math.prod(shape)}"
        )
    return TensorInfo(name, dtype, shape, file, data_start + start, end - start)

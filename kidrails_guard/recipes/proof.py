"""The proof after training: which tensors changed, compared bit for bit with the base.

Reads shards tensor by tensor, a few megabytes at a time; needs no torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from kidrails_guard.errors import RecipeError, ScanError
from kidrails_guard.spectrum.checkpoint import ModelIndex, TensorInfo, read_header, read_index
from kidrails_guard.spectrum.hub_cache import cached_folder

_CHUNK: Final = 1 << 22
_FLOATS: Final[dict[str, str]] = {"F32": "<f4", "F16": "<f2", "BF16": "<u2", "F64": "<f8"}
Numbers = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, slots=True)
class Changes:
    """What a training run did to a checkpoint.

    Attributes:
        changed: parameters whose numbers differ from the base.
        same: parameters that are equal, bit for bit in the narrower of the two types.
        lost: parameters of the base that the result lacks.
        added: parameters that only the result has.
        broken: parameters of the result that hold NaN or infinity.
    """

    changed: tuple[str, ...]
    same: tuple[str, ...]
    lost: tuple[str, ...] = ()
    added: tuple[str, ...] = ()
    broken: tuple[str, ...] = ()


def compare_checkpoints(base: ModelIndex, result: ModelIndex) -> Changes:
    """Compare every tensor of two checkpoints.

    A head that shares the embedding's weights may be missing on either side.

    Args:
        base: what training started from.
        result: what it made.

    Raises:
        ScanError: a file is damaged.
        RecipeError: a tensor has another shape, or is held in numbers that cannot be compared.
    """
    changed: list[str] = []
    same: list[str] = []
    lost: list[str] = []
    broken: list[str] = []
    for info in base.tensors:
        if info.name not in result:
            lost.append(info.name)
            continue
        equal, finite = _compare(info, result[info.name])
        (same if equal else changed).append(info.name)
        if not finite:
            broken.append(info.name)
    added = [name for name in result.names if name not in base]
    tied = {"lm_head.weight"}
    return Changes(
        tuple(changed),
        tuple(same),
        tuple(name for name in lost if name not in tied),
        tuple(name for name in added if name not in tied),
        tuple(broken),
    )


def check_changes(changes: Changes, meant: Sequence[str]) -> list[str]:
    """Return what differs from the plan; empty where exactly the meant tensors changed.

    Args:
        changes: what was found.
        meant: the parameters that were to be trained.
    """
    wanted, found = set(meant), set(changes.changed)
    complaints = []
    for names, text in (
        (sorted(found - wanted), "changed although they were frozen"),
        (sorted(wanted - found), "did not change although they were trained"),
        (changes.lost, "are missing from the result"),
        (changes.added, "are new in the result"),
        (changes.broken, "hold NaN or infinity"),
    ):
        if names:
            complaints.append(f"{len(names)} tensors {text}, first {names[0]}")
    return complaints


@dataclass(frozen=True, slots=True)
class AdapterState:
    """What a training run left of an adapter.

    Attributes:
        tensors: how many it has.
        parameters: how many numbers they hold.
        idle: B matrices that are still zero; B starts there, so that these were never trained.
    """

    tensors: int
    parameters: int
    idle: tuple[str, ...]


def adapter_state(folder: Path) -> AdapterState:
    """Return what stands in a folder's adapter.

    Raises:
        RecipeError: there is no adapter.
        ScanError: the file is damaged.
    """
    file = folder / "adapter_model.safetensors"
    if not file.is_file():
        raise RecipeError(f"there is no {file}: training made no adapter")
    _, infos = read_header(file)
    idle = []
    for info in infos:
        if ".lora_B." in info.name and not any(chunk.any() for chunk in _chunks(info)):
            idle.append(info.name)
    return AdapterState(len(infos), sum(info.size for info in infos), tuple(sorted(idle)))


def base_checkpoint(
    base_model: str, *, root: Path, revision: str | None = None
) -> ModelIndex | None:
    """Return the base's tensors: from its folder, or from the Hub's cache that training filled.

    Args:
        base_model: a folder, or an id on the Hub.
        root: where a relative folder starts.
        revision: branch, tag or commit on the Hub.

    Returns:
        None where it is in neither place, or not as safetensors.

    Raises:
        ScanError: the folder is there and damaged.
    """
    folder = root / base_model
    if folder.is_dir():
        return read_index(folder)
    cached = cached_folder(base_model, revision=revision)
    if cached is None:
        return None
    try:
        return replace(read_index(cached), model=base_model)
    except ScanError:
        return None


def read_checkpoint(folder: Path) -> ModelIndex:
    """Return a trained checkpoint's tensors.

    Raises:
        RecipeError: training left no weights there.
        ScanError: a file is damaged.
    """
    if not any(folder.glob("*.safetensors")):
        raise RecipeError(f"there are no weights in {folder}: training did not finish")
    return read_index(folder)


def _compare(base: TensorInfo, result: TensorInfo) -> tuple[bool, bool]:
    """Return whether two tensors are equal, and whether the second is finite."""
    if base.shape != result.shape:
        raise RecipeError(f"{base.name} had shape {base.shape} and now has {result.shape}")
    equal = finite = True
    narrow = min((base, result), key=lambda info: info.nbytes).dtype
    for first, second in zip(_chunks(base), _chunks(result), strict=True):
        finite = finite and bool(np.isfinite(_widen(second, result.dtype)).all())
        if base.dtype == result.dtype:
            equal = equal and bool(np.array_equal(first, second))
        else:
            equal = equal and bool(
                np.array_equal(
                    _narrow(first, base.dtype, narrow), _narrow(second, result.dtype, narrow)
                )
            )
    return equal, finite


def _chunks(info: TensorInfo) -> Iterator[Numbers]:
    """Yield a tensor's raw numbers in pieces of at most ``_CHUNK``."""
    if info.file is None or info.dtype not in _FLOATS:
        raise RecipeError(
            f"{info.name} is held as {info.dtype}; accepted are {', '.join(sorted(_FLOATS))}"
        )
    kind = np.dtype(_FLOATS[info.dtype])
    left = info.size
    with info.file.open("rb") as stream:
        stream.seek(info.start)
        while left:
            count = min(left, _CHUNK)
            piece = np.frombuffer(stream.read(count * kind.itemsize), dtype=kind)
            if piece.size != count:
                raise RecipeError(f"{info.file} ends inside {info.name}")
            yield piece
            left -= count


def _widen(raw: Numbers, dtype: str) -> Numbers:
    """Return numbers as float32 (float64 stays); bf16 is the upper half of a float32."""
    if dtype == "BF16":
        return (raw.astype(np.uint32) << 16).view(np.float32)
    return raw if dtype == "F64" else raw.astype(np.float32)


def _narrow(raw: Numbers, dtype: str, narrow: str) -> Numbers:
    """Return numbers in the narrower type: the other side was rounded to it, or widened from it."""
    if dtype == narrow:
        return raw
    wide = _widen(raw, dtype)
    if narrow == "BF16":
        bits = wide.astype(np.float32).view(np.uint32)
        # Round half to even, as torch does.
        return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    return wide.astype(np.dtype(_FLOATS[narrow]))

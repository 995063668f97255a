"""The same scores on a CUDA GPU, with torch. Not measured: no GPU was at hand.

Everything is done in float64: a data-centre GPU does the product of the largest Llama-8B matrix in
hundredths of a second, so nothing would be saved by float32 and its second look.
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import replace
from typing import Any

import numpy as np

from kidrails_guard.errors import MissingDependency, ScanError
from kidrails_guard.spectrum.checkpoint import TensorInfo
from kidrails_guard.spectrum.scoring import MatrixResult, from_singular_values
from kidrails_guard.spectrum.singular import WeightsError, from_eigenvalues
from kidrails_guard.spectrum.weights import MatrixFile


def import_torch() -> Any:
    """Return torch, with a GPU at hand.

    Raises:
        MissingDependency: torch is not installed.
        ScanError: torch sees no CUDA GPU.
    """
    try:
        import torch
    except ImportError:
        raise MissingDependency(
            "torch", command="pip install torch", purpose="--device cuda"
        ) from None
    if not torch.cuda.is_available():
        raise ScanError("--device cuda: torch sees no CUDA GPU; leave the option out")
    return torch


def score_on_cuda(info: TensorInfo, known: MatrixResult | None = None) -> MatrixResult:
    """Score one tensor of a shard on the current CUDA device, in float64.

    Args:
        info: which tensor.
        known: an earlier result, returned as it is where the tensor's bytes are still the same.

    Raises:
        ScanError: the file cannot be read, or there is no GPU.
        MissingDependency: torch is not installed.
    """
    return score_with_torch(info, import_torch(), device="cuda", known=known)


def score_with_torch(
    info: TensorInfo, torch: Any, *, device: str, known: MatrixResult | None = None
) -> MatrixResult:
    """Score one tensor with torch on any of its devices.

    Args:
        info: which tensor.
        torch: the module.
        device: torch's name of the device.
        known: an earlier result, returned as it is where the tensor's bytes are still the same.

    Raises:
        ScanError: the file cannot be read.
    """
    started = time.perf_counter()
    empty = MatrixResult(info.name, info.shape, info.dtype, {})
    if len(info.shape) not in (1, 2):
        return replace(empty, reason=f"it has {len(info.shape)} dimensions; only matrices count")
    try:
        matrix = MatrixFile(info)
    except ScanError as error:
        return replace(empty, reason=str(error))
    block = matrix.read_rows(0, matrix.shape[0])
    digest = hashlib.sha256(block.data).hexdigest()
    if known is not None and known.sha256 == digest:
        return known
    if info.dtype == "BF16":
        # torch cannot take numpy's unsigned 16-bit integers for bf16; the bits are what counts.
        weights = torch.from_numpy(block.view(np.int16)).to(device).view(torch.bfloat16)
    else:
        weights = torch.from_numpy(block).to(device)
    weights = weights.to(torch.float64)
    bad = int((~torch.isfinite(weights)).sum())
    if bad:
        return replace(empty, reason=f"{bad:,} of its {info.size:,} weights are NaN or infinite")
    if not bool(weights.any()):
        return replace(empty, reason="all its weights are zero")
    if matrix.shape[0] > matrix.shape[1]:
        weights = weights.T
    eigenvalues = torch.linalg.eigvalsh(weights @ weights.T).cpu().numpy()
    try:
        found = from_eigenvalues(eigenvalues, float(np.finfo(np.float64).eps) / 2, "cuda")
        result = from_singular_values(found, empty, matrix.shape)
    except WeightsError as error:
        return replace(empty, reason=str(error))
    return replace(result, sha256=digest, seconds=time.perf_counter() - started)

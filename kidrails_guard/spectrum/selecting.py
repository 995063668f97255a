"""Makes a `Selection` from a scan: top, bottom, random, or what a budget allows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from kidrails_guard.errors import ScanError
from kidrails_guard.spectrum.checkpoint import ModelIndex, name_order
from kidrails_guard.spectrum.memory import GB, TrainingSetup, estimate_tuning
from kidrails_guard.spectrum.ranking import (
    Ranked,
    choose_random,
    choose_top,
    fractions,
    is_norm,
    rank,
)
from kidrails_guard.spectrum.report import Scan
from kidrails_guard.spectrum.targeting import Method, Selection


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What to select.

    Attributes:
        method: top, bottom, random or budget.
        fraction: share of the layers of each type; not used by ``budget``.
        types: module types to choose from; every scanned type of the layers but norms where empty.
        seed: of ``random``.
        embeddings: train the embedding too.
        head: train the output head too (the same weights where they are tied).
        norms: train every norm too.
        max_parameters: for ``budget``: trainable parameters.
        max_bytes: for ``budget``: memory of one GPU, by `memory.estimate_tuning`.
        setup: what the memory estimate assumes.
    """

    method: Method = Method.TOP
    fraction: float = 0.5
    types: tuple[str, ...] = ()
    seed: int = 0
    embeddings: bool = False
    head: bool = False
    norms: bool = False
    max_parameters: int | None = None
    max_bytes: float | None = None
    setup: TrainingSetup = TrainingSetup()  # noqa: RUF009 - frozen


def select(scan: Scan, index: ModelIndex, request: Request, *, source: str = "") -> Selection:
    """Choose the parameters to train.

    Args:
        scan: the scores.
        index: the scanned model's tensors.
        request: how to choose.
        source: where the scan comes from; its file name where empty.

    Raises:
        ScanError: the scan is of another model, a type is not in it, the fraction is none, nothing
            is left to train, or not even one layer fits the budget.
    """
    scan.check_against(index)
    kinds = _types(scan, request.types)
    ranked = rank(row for row in scan.rows if row.type in kinds)
    always = _always(index, request)

    def parameters(rows: list[Ranked]) -> tuple[str, ...]:
        names = {one.row.parameter for one in rows} | set(always)
        return tuple(sorted(names, key=name_order))

    fraction, budget = request.fraction, ""
    if request.method is Method.BUDGET:
        fraction, budget = _fit(ranked, index, request, parameters=parameters)
    if request.method is Method.RANDOM:
        rows = choose_random(ranked, fraction, seed=request.seed)
    else:
        rows = choose_top(ranked, fraction, bottom=request.method is Method.BOTTOM)
    if not rows:
        largest = max(len(group) for group in ranked.values())
        raise ScanError(
            f"fraction {fraction:g} of {largest} layers selects none; the smallest that selects "
            f"one is {1 / largest:.4g}"
        )
    chosen = parameters(rows)
    return Selection(
        model=scan.model,
        method=request.method,
        fraction=fraction,
        types=kinds,
        parameters=chosen,
        trainable_parameters=index.count_parameters(chosen),
        total_parameters=index.total_parameters,
        scan_sha256=scan.sha256,
        scan_source=source or scan.source,
        estimator=scan.estimator.value,
        seed=request.seed if request.method is Method.RANDOM else None,
        embeddings=request.embeddings,
        head=request.head,
        norms=request.norms,
        budget=budget,
        degenerate=tuple(
            one.row.module for group in ranked.values() for one in group if one.degenerate
        ),
    )


def _types(scan: Scan, asked: tuple[str, ...]) -> tuple[str, ...]:
    for part, switch in (("embed_tokens", "--embeddings"), ("lm_head", "--head")):
        if any(kind.endswith(part) for kind in asked):
            raise ScanError(f"{part} is one matrix, of which no part can be chosen; say {switch}")
    there = sorted({row.type for row in scan.rows})
    unknown = [kind for kind in asked if kind not in there]
    if unknown:
        raise ScanError(
            f"{scan.source} has no module type {unknown[0]!r}; it has: {', '.join(there)}"
        )
    layers = {row.type for row in scan.rows if row.layer >= 0 and not is_norm(row.type)}
    kinds = tuple(sorted(asked or layers))
    if not kinds:
        raise ScanError(f"{scan.source} has no scored layers to select from")
    return kinds


def _always(index: ModelIndex, request: Request) -> list[str]:
    names = [t.name for t in index.tensors if request.norms and is_norm(t.type)]
    embedding = [t.name for t in index.tensors if t.type.endswith("embed_tokens")]
    head = [t.name for t in index.tensors if t.type.endswith("lm_head")]
    if request.embeddings:
        names += _expect(embedding, "embed_tokens", index)
    if request.head:
        # A tied head has no tensor of its own: training it is training the embedding.
        names += head or _expect(embedding, "lm_head", index)
    return names


def _expect(names: list[str], what: str, index: ModelIndex) -> list[str]:
    if not names:
        raise ScanError(f"{index.model} has no {what}")
    return names


def _fit(
    ranked: Mapping[str, Sequence[Ranked]],
    index: ModelIndex,
    request: Request,
    *,
    parameters: Callable[[list[Ranked]], tuple[str, ...]],
) -> tuple[float, str]:
    """Return the largest fraction that fits, and the bound in words."""
    if (request.max_parameters is None) == (request.max_bytes is None):
        raise ScanError("a budget is either a number of parameters or of bytes: give one of them")

    def size(fraction: float) -> int:
        return index.count_parameters(parameters(choose_top(ranked, fraction)))

    def cost(fraction: float) -> float:
        count = size(fraction)
        if request.max_parameters is not None:
            return count
        return estimate_tuning(index, count, request.setup).total

    bound = request.max_parameters if request.max_bytes is None else request.max_bytes
    words = (
        f"at most {request.max_parameters:,} parameters"
        if request.max_bytes is None
        else f"at most {request.max_bytes / GB:g} GB on a GPU (estimate)"
    )
    fitting = [fraction for fraction in fractions(ranked) if bound and cost(fraction) <= bound]
    if not fitting:
        least = cost(fractions(ranked)[0])
        needed = f"{least:,.0f} parameters" if request.max_bytes is None else f"{least / GB:.1f} GB"
        raise ScanError(f"nothing fits {words}: the smallest selection takes {needed}")
    return max(fitting), words

"""`kidrails data fetch`: check public sets in a folder, or download their originals."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import httpx

from kidrails_guard.errors import DataError
from kidrails_guard.files import sha256_file
from kidrails_guard.golden.catalogue import Source
from kidrails_guard.golden.sources import load_catalogue, resolve

State = Literal["verified", "unverified", "wrong sum", "absent", "downloaded", "not offered"]
GOOD: frozenset[State] = frozenset({"verified", "downloaded", "unverified"})


@dataclass(frozen=True, slots=True)
class Fetched:
    """How one set stands.

    Attributes:
        name: the set.
        state: what was found.
        path: where, or empty.
        detail: what to do, or the sum.
    """

    name: str
    state: State
    path: str
    detail: str


def chosen(names: Sequence[str]) -> tuple[Source, ...]:
    """Return the sets of these names, or all.

    Raises:
        DataError: a name is not in the catalogue.
    """
    catalogue = load_catalogue()
    return tuple(catalogue[name] for name in names) if names else catalogue.sources


def check_folder(source: Source, folder: Path, *, copy_to: Path | None = None) -> Fetched:
    """Compare a set in a folder with the catalogue, and copy it where that is asked for.

    A file without a recorded sum counts as unverified: it may measure, never train.
    """
    whole = folder / source.file
    sample = folder / source.sample.file if source.sample is not None else None
    if not whole.is_file() and (sample is None or not sample.is_file()):
        return Fetched(source.name, "absent", "", source.homepage or source.note)
    try:
        path = resolve(source.name, folder, sample=not whole.is_file())
    except DataError as error:
        return Fetched(source.name, "wrong sum", str(whole), str(error))
    if copy_to is not None:
        target = copy_to / path.relative_to(folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
        path = target
    unsure = whole.is_file() and source.sha256 is None
    what = "whole" if whole.is_file() else "sample only"
    return Fetched(source.name, "unverified" if unsure else "verified", str(path), what)


def download(
    source: Source,
    folder: Path,
    *,
    accept_unpinned: bool = False,
    transport: httpx.BaseTransport | None = None,
) -> Fetched:
    """Download a set's original file and check its sum.

    Args:
        source: the set.
        folder: the file lands in ``originals/`` of it, complete or not at all.
        accept_unpinned: keep a file whose sum the catalogue does not have yet.
        transport: for tests.

    Raises:
        DataError: the server does not give the file, or its sum differs.
    """
    if source.original is None:
        hint = f"get it from {source.homepage}" if source.homepage else "no address is known"
        return Fetched(source.name, "not offered", "", f"{hint}, then use --from DIR")
    url = source.original.url
    target = folder / "originals" / source.name / url.rsplit("/", 1)[-1]
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    digest = hashlib.sha256()
    try:
        with (
            httpx.Client(follow_redirects=True, timeout=60, transport=transport) as client,
            client.stream("GET", url) as response,
            part.open("wb") as stream,
        ):
            response.raise_for_status()
            for block in response.iter_bytes():
                digest.update(block)
                stream.write(block)
    except httpx.HTTPError as error:
        part.unlink(missing_ok=True)
        raise DataError(f"{source.name}: {url}: {type(error).__name__} ({error})") from None
    found, expected = digest.hexdigest(), source.original.sha256
    if expected is not None and found != expected:
        part.unlink()
        raise DataError(f"{source.name}: {url}: sha256 is {found}, the catalogue says {expected}")
    if expected is None and not accept_unpinned:
        part.unlink()
        raise DataError(
            f"{source.name}: {url}: the catalogue has no sum for it; found sha256 {found}; look at "
            "the publisher's page, write the sum into data/sources.yaml, or run again with "
            "--accept-unpinned"
        )
    part.replace(target)
    return Fetched(source.name, "downloaded", str(target), f"sha256 {sha256_file(target)}")

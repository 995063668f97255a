"""What is installed here, what is missing, and the command that helps. Changes nothing."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal

from kidrails_guard.content import content_root
from kidrails_guard.errors import KidRailsError, MissingDependency

DISTRIBUTION: Final = "kidrails-guard"
LEAST_PYTHON: Final = (3, 11)
LEAST_FREE_BYTES: Final = 500 * 2**20

State = Literal["ok", "missing", "problem", "note"]

#: What each extra is for, in the order in which a person meets them.
EXTRAS: Final[dict[str, str]] = {
    "": "the guard itself",
    "proxy": "kidrails serve",
    "engine": "kidrails engine",
    "demo": "the page",
    "data": "kidrails data",
    "spectrum": "kidrails spectrum",
    "train": "kidrails recipe and train",
    "evals": "kidrails eval",
    "litellm": "the way in through LiteLLM",
}
_FOR_UP: Final = frozenset({"", "proxy", "engine", "demo"})

#: Programs that are used when they are on the PATH: what for, and Debian's package.
PROGRAMS: Final[dict[str, tuple[str, str]]] = {
    "redis-server": ("sessions shared by several proxies, and their test", "redis-server"),
    "chromium": ("the browser test", "chromium"),
    "node": ("the test with OpenAI's client for Node", "nodejs npm"),
}


@dataclass(frozen=True, slots=True)
class Item:
    """One thing that was looked at.

    Attributes:
        name: what it is.
        state: ``ok``, ``missing``, ``problem`` or ``note``.
        detail: what was found.
        purpose: what it is needed for.
        command: what installs or repairs it, to be typed as it stands.
        required: whether `kidrails up` needs it.
    """

    name: str
    state: State
    detail: str = ""
    purpose: str = ""
    command: str = ""
    required: bool = False


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Everything that was looked at."""

    version: str
    items: tuple[Item, ...]

    @property
    def ok(self) -> bool:
        """Whether `kidrails up` has what it needs."""
        return not any(i.required and i.state in {"missing", "problem"} for i in self.items)

    def as_json(self) -> dict[str, Any]:
        """Return the diagnosis for ``--json``."""
        return {
            "ok": self.ok,
            "version": self.version,
            "items": [asdict(item) for item in self.items],
        }


def diagnose() -> Diagnosis:
    """Look at everything."""
    from kidrails_guard import __version__

    return Diagnosis(
        __version__,
        (
            _python(),
            *(_extra(name, purpose) for name, purpose in EXTRAS.items()),
            *_own_files(),
            *_folders(),
            *_ports(),
            *_environments(),
            *(_program(name, *what) for name, what in PROGRAMS.items()),
        ),
    )


def in_checkout() -> bool:
    """Return whether this runs from a checkout, where `make` installs things."""
    try:
        return (content_root() / "Makefile").is_file()
    except KidRailsError:
        return False


def _python() -> Item:
    found = platform.python_version()
    good = sys.version_info[:2] >= LEAST_PYTHON
    return Item(
        "Python",
        "ok" if good else "problem",
        f"{found}, {platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        command="" if good else "make PYTHON=python3.12 install",
        required=True,
    )


@dataclass(frozen=True, slots=True)
class Requirement:
    """One line of the package's own metadata."""

    name: str
    specifier: str
    extra: str


def requirements() -> Iterator[Requirement]:
    """Yield what the package asks for, by extra, from its installed metadata."""
    for line in importlib.metadata.requires(DISTRIBUTION) or ():
        text, _, marker = line.partition(";")
        found = re.match(r"\s*([A-Za-z0-9._-]+)\s*(?:\[[^\]]*\])?\s*([^\s]*)", text)
        extra = re.search(r"extra\s*==\s*['\"]([^'\"]+)", marker)
        if found and found[1] != DISTRIBUTION:
            yield Requirement(found[1], found[2].strip("()"), extra[1] if extra else "")


def _extra(extra: str, purpose: str) -> Item:
    name = f"packages for {purpose}"
    try:
        wanted = [r for r in requirements() if r.extra == extra]
    except importlib.metadata.PackageNotFoundError:
        return Item(name, "note", "run from source, without installed metadata", purpose)
    missing, wrong = [], []
    for requirement in wanted:
        try:
            version = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            missing.append(requirement.name)
            continue
        if not _fits(version, requirement.specifier):
            wrong.append(f"{requirement.name} {version} (needs {requirement.specifier})")
    required = extra in _FOR_UP
    if not missing and not wrong:
        return Item(name, "ok", f"{len(wanted)} there", purpose, required=required)
    parts = [f"missing: {', '.join(missing)}"] if missing else []
    parts += [f"another version: {', '.join(wrong)}"] if wrong else []
    return Item(
        name,
        "missing" if missing else "problem",
        "; ".join(parts),
        purpose,
        _install(extra),
        required,
    )


def _fits(version: str, specifier: str) -> bool:
    try:
        from packaging.specifiers import SpecifierSet
    except ImportError:  # comes with most environments, but nothing here needs it
        return True
    return SpecifierSet(specifier).contains(version, prereleases=True)


def _install(extra: str) -> str:
    if in_checkout():
        return "make install" if extra in _FOR_UP else "make .venv/.dev"
    return f"pip install '{DISTRIBUTION}{f'[{extra}]' if extra else ''}'"


def _try(name: str, look: Callable[[], str], *, required: bool, purpose: str = "") -> Item:
    """Return what a look found; what it raises becomes the finding."""
    try:
        return Item(name, "ok", look(), purpose, required=required)
    except MissingDependency as error:
        return Item(name, "missing", "not installed", purpose, error.command, required)
    except KidRailsError as error:
        return Item(name, "problem", str(error), purpose, required=required)
    except (ImportError, OSError) as error:
        detail = f"{type(error).__name__}: {error}"
        return Item(name, "problem", detail, purpose, _install("demo"), required)


def _own_files() -> Iterator[Item]:
    def content() -> str:
        return f"{content_root()} ({'checkout' if in_checkout() else 'installed'})"

    def policy() -> str:
        from kidrails_guard.answers import load_answers, load_helplines
        from kidrails_guard.policy import load_policy

        loaded = load_policy()
        load_answers(loaded.locale)
        unchecked = sum(line.verified_by == "nobody yet" for line in load_helplines().helplines)
        told = f"; {unchecked} help lines verified by nobody yet" if unchecked else ""
        return f"{loaded.name}, version {loaded.version}{told}"

    def guard() -> str:
        from kidrails_guard.guard import Guard

        return f"{len(Guard().policy.checks)} checks load"

    def model() -> str:
        from kidrails_guard.engine.models import default_gguf

        path = default_gguf()
        return f"{path.name}, {path.stat().st_size / 2**20:.0f} MiB"

    yield _try("content folders", content, required=True)
    yield _try("default policy", policy, required=True)
    yield _try("the guard's checks", guard, required=True)
    yield _try("default model", model, required=True, purpose="kidrails up without --model")


def _folders() -> Iterator[Item]:
    from kidrails_guard.page.folders import config_folder, default_audit

    for name, find, variable in (
        ("settings folder", config_folder, "KIDRAILS_CONFIG"),
        ("record folder", default_audit, "KIDRAILS_STATE"),
    ):
        found, problem = _folder(find)
        if problem:
            command = f"export {variable}=FOLDER"
            yield Item(name, "problem", f"{found}{problem}", command=command, required=True)
        else:
            yield Item(name, "ok", found, required=True)


def _folder(find: Callable[[], Path]) -> tuple[str, str]:
    """Return a folder, as it is shown, and what is wrong with it; nothing where all is well."""
    try:
        folder = find()
        # Not `exists`: below a folder that may not be entered it raises.
        there = next(p for p in (folder, *folder.parents) if os.path.exists(p))  # noqa: PTH110
        free = shutil.disk_usage(there).free
    except (KidRailsError, OSError) as error:
        return "", str(error)
    shown = f"{folder}, {free / 2**30:.1f} GiB free"
    if not there.is_dir():
        return shown, f": {there} is a file, not a folder"
    if not os.access(there, os.W_OK | os.X_OK):
        return shown, ", not writable"
    if free < LEAST_FREE_BYTES:
        return shown, ": too little to keep a record"
    return shown, ""


def _ports() -> Iterator[Item]:
    from kidrails_guard.commands.up_parts import ENGINE, GUARD, PAGE
    from kidrails_guard.engine.ports import next_free_port, port_is_free

    for what, port in (("page", PAGE), ("guard", GUARD), ("model", ENGINE)):
        if port_is_free("127.0.0.1", port):
            yield Item(f"port of the {what}", "ok", f"{port} is free")
        else:
            following = next_free_port("127.0.0.1", port)
            yield Item(
                f"port of the {what}",
                "note",
                f"{port} is in use; `kidrails up` takes {following}",
            )


def _environments() -> Iterator[Item]:
    def vllm() -> str:
        from kidrails_guard.engine.vllm import find_vllm

        found = find_vllm()
        return f"{found.version} in {found.where}"

    def gpus() -> str:
        from kidrails_guard.engine.vllm import find_gpus

        return ", ".join(gpu.name for gpu in find_gpus())

    def training() -> str:
        from kidrails_guard.recipes.environment import find_train_python

        return str(find_train_python())

    yield _try("training (.venv-train)", training, required=False, purpose="kidrails train")
    yield _try("vLLM (.venv-vllm)", vllm, required=False, purpose="kidrails engine --backend vllm")
    found = _try("GPU", gpus, required=False, purpose="vLLM and training at speed")
    yield found if found.detail else Item("GPU", "note", "none; nothing here needs one")


def _program(name: str, purpose: str, package: str) -> Item:
    path = shutil.which(name)
    if path:
        return Item(name, "ok", str(Path(path)), purpose)
    command = f"apt-get install {package}" if shutil.which("apt-get") else f"install {package}"
    return Item(name, "missing", "not on the PATH", purpose, command)

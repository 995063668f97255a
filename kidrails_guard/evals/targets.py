"""What is asked: models behind URLs or in our own engine, each without and with the guard."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final, Literal

import httpx

from kidrails_guard.classifier.model import SHIPPED
from kidrails_guard.content import content_path
from kidrails_guard.errors import UsageError
from kidrails_guard.evals.endpoint import RETRY_SECONDS, Endpoint
from kidrails_guard.evals.judging import Judge
from kidrails_guard.files import sha256_file, sha256_text
from kidrails_guard.guard import Guard
from kidrails_guard.policy import Policy

BAND_HEADER: Final = "x-kidrails-band"
DEFAULT_MODEL: Final = "default"
"""What `kidrails up` starts: the embedded model, with its voice where one ships."""
BASE_MODEL: Final = "base"
"""The same weights as their makers ship them."""
_FAILURES: Final = "kidrails_check_failures_total"
_NOT_THE_GUARD: Final = frozenset(
    {"commands", "engine", "evals", "golden", "page", "recipes", "spectrum"}
)
"""Parts of the package that no message of a child passes through."""


@dataclass(frozen=True, slots=True)
class Model:
    """One model to ask.

    Attributes:
        label: stands before its targets' names; empty for the only one.
        argument: a GGUF file or a folder for our own engine (None: the default model), or its name
            at an endpoint.
        adapter: a LoRA adapter as GGUF, for our own engine.
    """

    label: str = ""
    argument: str | None = None
    adapter: Path | None = None


@dataclass(frozen=True, slots=True)
class RunOptions:
    """Where it is asked; see `kidrails eval run --help`."""

    base_url: str | None = None
    guarded_url: str | None = None
    models: tuple[Model, ...] = (Model(),)
    guard: Literal["off", "on", "both"] = "both"
    api_key: str | None = field(default=None, repr=False)
    judges: tuple[Judge, ...] = ()
    teacher: str = ""
    concurrency: int = 2
    max_tokens: int = 160
    timeout_s: float = 120.0
    retry_seconds: tuple[float, ...] = RETRY_SECONDS
    policy: Path | None = None


@dataclass(frozen=True, slots=True)
class Target:
    """One thing that is measured.

    Attributes:
        name: in files and reports, e.g. ``tuned, guard on``.
        endpoint: where it is asked.
        facts: what it is: model and its digest, engine, and with a guard the guard's digest.
        metrics: where our own guard counts checks that failed; empty for others.
    """

    name: str
    endpoint: Endpoint
    facts: Mapping[str, str]
    metrics: str = ""

    @property
    def digest(self) -> str:
        """Changes with the target: an answer of another model or guard is not taken for its own."""
        return sha256_text("\n".join(f"{k}={v}" for k, v in sorted(self.facts.items())))


def parse_model(text: str) -> Model:
    """Return a model from ``[LABEL=]MODEL[+ADAPTER.gguf]``.

    MODEL is a GGUF file or a folder, `DEFAULT_MODEL` or `BASE_MODEL`.

    Raises:
        UsageError: nothing stands after the label.
    """
    label, equals, rest = text.partition("=")
    if not equals or "/" in label:
        label, rest = "", text
    argument, plus, adapter = rest.rpartition("+")
    if not plus or not adapter.endswith(".gguf"):
        argument, adapter = rest, ""
    if not argument:
        raise UsageError(
            f"--model {text!r}: accepted is [LABEL=]MODEL[+ADAPTER.gguf], e.g. tuned=outputs/small"
        )
    return Model(
        label.strip(),
        None if argument == DEFAULT_MODEL else argument,
        Path(adapter) if adapter else None,
    )


@contextlib.contextmanager
def open_model(model: Model, guard: Guard, options: RunOptions) -> Iterator[list[Target]]:
    """Yield a model's targets; starts engine and guard where no URL is given."""
    prompts = {band: guard.system_prompt(band) for band in guard.policy.bands}
    wanted = {"off": ("off",), "on": ("on",), "both": ("off", "on")}[options.guard]
    prefix = f"{model.label}, " if model.label else ""
    with contextlib.ExitStack() as stack:
        base, guarded, name = options.base_url, options.guarded_url, model.argument or "default"
        facts = {"model": name, "at": str(base or guarded)}
        if base is None and not (guarded and wanted == ("on",)):
            base, facts = stack.enter_context(own_engine(model, options))
            name = facts["model"]
        guard_facts, metrics = {"guard at": str(guarded)}, ""
        if guarded is None and "on" in wanted:
            guarded = stack.enter_context(own_guard(str(base), options))
            guard_facts = {"guard": guard_digest(guard.policy)}
            metrics = guarded.removesuffix("/v1") + "/metrics"
        targets = []
        for which in wanted:
            endpoint = Endpoint(
                str(base if which == "off" else guarded),
                name,
                options.api_key,
                guarded=which == "on",
                band_header=BAND_HEADER,
                system_prompt=prompts,
                max_tokens=options.max_tokens,
                timeout_s=options.timeout_s,
            )
            both = {**facts, "asked with": f"{options.max_tokens} tokens at most, temperature 0"}
            targets.append(
                Target(
                    f"{prefix}guard {which}",
                    endpoint,
                    both | guard_facts if which == "on" else both,
                    metrics if which == "on" else "",
                )
            )
        yield targets


@contextlib.contextmanager
def own_engine(model: Model, options: RunOptions) -> Iterator[tuple[str, dict[str, str]]]:
    """Start the embedded engine for the time of the run; yield its URL and what it serves."""
    from kidrails_guard.engine.launch import EngineOptions, plan_engine
    from kidrails_guard.engine.models import DEFAULT_NAME, default_gguf
    from kidrails_guard.engine.ports import next_free_port
    from kidrails_guard.engine.process import EngineProcess

    base = model.argument == BASE_MODEL
    plan = plan_engine(
        EngineOptions(
            model=str(default_gguf()) if base else model.argument,
            name=DEFAULT_NAME if base else None,
            adapter=model.adapter,
            port=next_free_port("127.0.0.1", 8100) or 8100,
            parallel=options.concurrency,
        )
    )
    facts = {"model": Path(plan.name).name, "engine": f"xllamacpp {package_version('xllamacpp')}"}
    for flag, what in (("--model", "weights"), ("--adapter", "adapter")):
        if flag in plan.command:
            file = Path(plan.command[plan.command.index(flag) + 1])
            facts[what] = f"{file.name}, sha256 {sha256_file(file)[:16]}"
    engine = EngineProcess(plan)
    engine.start()
    try:
        engine.wait_ready()
        yield plan.url, facts
    finally:
        engine.stop()


@contextlib.contextmanager
def own_guard(upstream: str, options: RunOptions) -> Iterator[str]:
    """Start a guard in front of an upstream for the time of the run; yield its URL."""
    from kidrails_guard.engine.ports import next_free_port
    from kidrails_guard.supervisor import Tree, kidrails_part

    port = next_free_port("127.0.0.1", 8180) or 8180
    arguments = ["--upstream", upstream, "--port", str(port), "--band-header", BAND_HEADER]
    # The model's own words are measured, so nothing of the page's is put before them.
    arguments += ["--no-disclosure", "--operator-headers", "--metrics"]
    if options.policy is not None:
        arguments += ["--policy", str(options.policy)]
    part = kidrails_part(
        "the guard", "serve", arguments, host="127.0.0.1", port=port, probe_path="/health"
    )
    tree = Tree([part])
    tree.start()
    try:
        tree.wait_ready()
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        tree.stop()


def failed_checks(metrics: str) -> int:
    """Return how many checks have raised or timed out so far, as our guard counts them."""
    try:
        text = httpx.get(metrics, trust_env=False, timeout=10).text
    except httpx.HTTPError:
        return 0
    lines = (line for line in text.splitlines() if line.startswith(_FAILURES))
    return sum(int(float(line.rsplit(" ", 1)[1])) for line in lines)


def guard_digest(policy: Policy) -> str:
    """Return a digest of all that decides what our guard does: policy, rules, weights, code."""
    package = Path(__file__).resolve().parents[1]
    sources = [
        file
        for file in package.rglob("*.py")
        if file.relative_to(package).parts[0] not in _NOT_THE_GUARD
    ]
    data = [content_path("data/lexicons"), content_path("serve/policies"), SHIPPED]
    files = [*sources, *(f for folder in data for f in folder.rglob("*") if f.is_file())]
    found = hashlib.sha256(policy.digest().encode())
    for file in sorted(files):
        found.update(f"{file.name} {sha256_file(file)}\n".encode())
    return found.hexdigest()[:16]


def classifier_digest() -> str:
    """Return a digest of the classifier's weights."""
    return sha256_file(SHIPPED / "model.onnx")[:16]


def package_version(name: str) -> str:
    """Return the version of an installed distribution."""
    with contextlib.suppress(PackageNotFoundError):
        return version(name)
    return "not installed"


def pairs_of(names: Sequence[str]) -> list[tuple[str, str]]:
    """Return which targets of one run are worth comparing, before and after.

    The guard off and on for every model; and the first model with each other one.
    """
    split = [(*name.rpartition("guard ")[::2], name) for name in names]
    by_model: dict[str, dict[str, str]] = {}
    for prefix, which, name in split:
        by_model.setdefault(prefix, {})[which] = name
    found = [(row["off"], row["on"]) for row in by_model.values() if {"off", "on"} <= set(row)]
    first, *others = by_model.values() if by_model else [{}]
    found += [(first[which], row[which]) for row in others for which in row if which in first]
    return found

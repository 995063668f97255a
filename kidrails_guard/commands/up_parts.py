"""What `kidrails up` starts: the commands of model, guard and page, their ports and their keys."""

from __future__ import annotations

import argparse
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from kidrails_guard.errors import UsageError

if TYPE_CHECKING:
    from kidrails_guard.supervisor import Part
    from kidrails_guard.types import AgeBand

PAGE, GUARD, ENGINE = 7860, 8080, 8000
LOCAL: Final = "127.0.0.1"
#: For the small model that ships: it soon says the same thing again, and the longer it talks, the
#: less of it is true. With its voice it repeats itself far less, and a strong penalty would take
#: from it the words it has to say again: that it is a computer program.
_SAMPLING: Final = "temperature=0.3,frequency_penalty=0.3,max_tokens=80"
_SAMPLING_BARE: Final = "temperature=0.3,frequency_penalty=0.8,presence_penalty=0.3,max_tokens=80"


class Started:
    """What was planned: the parts, and what is said about them."""

    def __init__(self, parts: list[Part], *, page_port: int, facts: dict[str, Any]) -> None:
        self.parts, self.page_port, self.facts = parts, page_port, facts


def plan_parts(args: argparse.Namespace, band: AgeBand | None, folder: Path) -> Started:
    """Return what `kidrails up` starts, in the order of starting.

    Args:
        args: what was asked for.
        band: the age band that was asked for.
        folder: where this run's keys are put.

    Raises:
        KidRailsError: an option or a file is wrong, or a port is in use.
    """
    from kidrails_guard.commands.demo import require_served
    from kidrails_guard.page.folders import config_folder, default_audit
    from kidrails_guard.page.settings import SettingsStore
    from kidrails_guard.policy import load_policy
    from kidrails_guard.supervisor import kidrails_part, tell_on_stderr

    # Whatever is wrong in a file is said before a model is loaded.
    policy = load_policy(args.policy)
    require_served(band, policy)
    set_band = SettingsStore(config_folder()).band(policy)
    audit = args.audit or default_audit()
    taken: set[int] = set()
    page_port = _port("--port", args.port, PAGE, args.host, taken)
    guard_port = _port("--guard-port", args.guard_port, GUARD, LOCAL, taken)
    parts: list[Part] = []
    upstream, model = args.upstream, args.upstream
    if upstream is None:
        engine_port = _port("--engine-port", args.engine_port, ENGINE, LOCAL, taken)
        part, upstream, model = _engine(args, engine_port)
        parts.append(part)
    key_file, page_keys, own_key = _keys(folder, tuple(policy.bands), band or policy.fallback_band)
    shared = ["--policy", str(args.policy)] if args.policy else []
    guard = ["--upstream", upstream, "--host", LOCAL, "--port", str(guard_port)]
    guard += ["--keys", str(key_file), "--audit", str(audit), "--shutdown-seconds", "2", *shared]
    guard += ["--no-disclosure"]  # the page's first bubble says it, before anything is asked
    guard += _flags(args.guard_args)
    api = f"http://{LOCAL}:{guard_port}/v1"
    page = ["--proxy", api, "--host", args.host, "--port", str(page_port), "--audit", str(audit)]
    page += shared
    if band:
        page += ["--band", str(band)]
    if args.upstream is None and args.model is None:
        bare = args.no_voice or args.adapter or args.backend == "vllm"
        page += ["--sampling", _SAMPLING_BARE if bare else _SAMPLING]
    if args.frame_ancestors:
        page += ["--frame-ancestors", args.frame_ancestors]
    variable = ",".join(f"{b}={key}" for b, key in page_keys.items())
    parts.append(
        kidrails_part(
            "the guard",
            "serve",
            guard,
            host=LOCAL,
            port=guard_port,
            probe_path="/health",
            start_timeout_s=args.start_timeout,
            on_event=tell_on_stderr,
        )
    )
    parts.append(
        kidrails_part(
            "the page",
            "demo",
            page,
            host=args.host,
            port=page_port,
            probe_path="/ready",
            start_timeout_s=args.start_timeout,
            environment={"KIDRAILS_PAGE_KEYS": variable, "KIDRAILS_API_KEY": ""},
            on_event=tell_on_stderr,
        )
    )
    facts = {
        "model": model,
        "upstream": upstream,
        "api": api,
        "api_key": own_key,
        "band": str(band or set_band),
        "audit": str(audit),
    }
    return Started(parts, page_port=page_port, facts=facts)


def _flags(text: str) -> list[str]:
    try:
        flags = shlex.split(text)
    except ValueError as error:
        raise UsageError(f"--guard-args {text!r}: {error}") from None
    ours = {"--upstream", "--host", "--port", "--keys", "--audit", "--policy", "--band"}
    for flag in flags:
        name = flag.partition("=")[0]
        # Also shortened: `kidrails serve` takes --hos for --host.
        if len(name) > 2 and any(own.startswith(name) for own in ours):
            raise UsageError(f"--guard-args: {flag} is set by `kidrails up` itself")
    return flags


def _engine(args: argparse.Namespace, port: int) -> tuple[Part, str, str]:
    from kidrails_guard.engine.base import Backend
    from kidrails_guard.engine.launch import EngineOptions, plan_engine
    from kidrails_guard.engine.progress import tensor_bar
    from kidrails_guard.engine.supervisor import Supervisor
    from kidrails_guard.supervisor import Part, tell_on_stderr

    options = EngineOptions(
        model=args.model,
        backend=Backend(args.backend),
        host=LOCAL,
        port=port,
        adapter=args.adapter,
        voice=not args.no_voice,
    )
    with tensor_bar("converting the model") as progress:
        plan = plan_engine(options, progress=progress)
    if args.start_timeout is not None:
        plan = replace(plan, start_timeout_s=args.start_timeout)
    engine = Supervisor(plan, on_event=lambda event: tell_on_stderr("the model", event))
    return Part("the model", engine), plan.url, plan.name


def _port(option: str, asked: int | None, usual: int, host: str, taken: set[int]) -> int:
    """Return a free port: the one that was asked for, or the usual one, or the next."""
    from kidrails_guard.engine.ports import next_free_port, port_is_free, require_free_port
    from kidrails_guard.errors import EngineError

    if asked is not None:
        if not 1 <= asked <= 65535:
            raise UsageError(f"{option} {asked}: accepted are 1 to 65535")
        if asked in taken:
            raise UsageError(f"{option} {asked}: another part has this port already")
        require_free_port(host, asked, option=option)
        taken.add(asked)
        return asked
    port: int | None = usual
    while port is not None and (port in taken or not port_is_free(host, port)):
        port = next_free_port(host, port)
    if port is None:
        raise EngineError(f"no free port from {usual} on; choose one with {option}")
    if port != usual:
        print(
            f"kidrails up: port {usual} is in use by another program; using {port} "
            f"({option} chooses another)",
            file=sys.stderr,
        )
    taken.add(port)
    return port


def _keys(
    folder: Path, bands: tuple[AgeBand, ...], own_band: AgeBand
) -> tuple[Path, dict[AgeBand, str], str]:
    """Make this run's keys: one a band for the page, one to try the API with.

    The guard takes the age band from the key, so what a child types can never raise it.
    """
    from kidrails_guard.proxy.keys import KeyFile, new_key, save_keys

    keys, entries = {}, []
    for band in bands:
        keys[band], entry = new_key(f"page-{band}", band)
        entries.append(entry)
    own, entry = new_key("own", own_band)
    path = folder / "keys.yaml"
    save_keys(path, KeyFile(keys=(*entries, entry)))
    return path, keys, own

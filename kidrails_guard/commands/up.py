"""`kidrails up`: model, guard and chat page in one go."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shlex
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from kidrails_guard.errors import UsageError

if TYPE_CHECKING:
    from kidrails_guard.supervisor import Part
    from kidrails_guard.types import AgeBand

PAGE, GUARD, ENGINE = 7860, 8080, 8000
_LOCAL: Final = "127.0.0.1"
#: For the small model that ships: it soon says the same thing again, and the longer it talks, the
#: less of it is true. With its voice it repeats itself far less, and a strong penalty would take
#: from it the words it has to say again: that it is a computer program.
_SAMPLING: Final = "temperature=0.3,frequency_penalty=0.3,max_tokens=80"
_SAMPLING_BARE: Final = "temperature=0.3,frequency_penalty=0.8,presence_penalty=0.3,max_tokens=80"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `kidrails up`."""
    parser.add_argument(
        "--model",
        metavar="MODEL",
        help="a .gguf file or a folder with safetensors; default: SmolLM2-135M-Instruct",
    )
    parser.add_argument(
        "--adapter", metavar="FILE", type=Path, help="a LoRA adapter as GGUF for the model"
    )
    parser.add_argument(
        "--no-voice", action="store_true", help="the default model as its makers ship it"
    )
    parser.add_argument(
        "--backend", choices=("llamacpp", "vllm"), default="llamacpp", help="the model server"
    )
    parser.add_argument(
        "--upstream",
        metavar="URL",
        help="guard this OpenAI-compatible server instead of starting a model; its key, where it "
        "wants one, is read from KIDRAILS_UPSTREAM_KEY",
    )
    parser.add_argument("--policy", metavar="FILE", type=Path, help="default: the one that ships")
    parser.add_argument("--band", help="set this age band, for the page: 5-6, 7-9 or 10-12")
    parser.add_argument("--port", type=int, help=f"of the page ({PAGE}, or the next free one)")
    parser.add_argument("--guard-port", type=int, help=f"of the guard ({GUARD}, or the next)")
    parser.add_argument("--engine-port", type=int, help=f"of the model ({ENGINE}, or the next)")
    parser.add_argument(
        "--host",
        default=_LOCAL,
        help=f"address of the page ({_LOCAL}); guard and model stay on this machine",
    )
    parser.add_argument("--audit", metavar="DIR", type=Path, help="folder of the audit log")
    parser.add_argument(
        "--guard-args",
        metavar="FLAGS",
        default="",
        help="further flags for `kidrails serve`, in one string, e.g. '--alert-email ME@HOME "
        "--audit-text-days 2'; a flag without a value: --guard-args=--alert-with-text",
    )
    parser.add_argument("--frame-ancestors", metavar="SOURCE", help="as in `kidrails demo`")
    parser.add_argument("--no-browser", action="store_true", help="do not open the page")
    parser.add_argument("--json", action="store_true", help="print the ready line as JSON")


def run(args: argparse.Namespace) -> int:
    """Start everything, say where the page is, and wait for Ctrl-C."""
    from kidrails_guard.commands.demo import parse_band, require_page
    from kidrails_guard.engine.base import url_host
    from kidrails_guard.proxy.settings import check_upstream
    from kidrails_guard.supervisor import Interrupted, Tree, ends_on_signals, wait_for_the_end

    if args.upstream and (args.model or args.adapter or args.no_voice or args.engine_port):
        raise UsageError("--upstream guards a running server: leave out --model, --adapter, "
                         "--no-voice and --engine-port")  # fmt: skip
    if args.upstream:
        check_upstream(args.upstream)
    band = parse_band(args.band)
    require_page()
    ends_on_signals()
    try:
        with tempfile.TemporaryDirectory(prefix="kidrails-") as folder:
            with _alone():
                started = _parts(args, band, Path(folder))
                tree = Tree(started.parts)
                tree.start()
                tree.wait_ready()
            try:
                url = f"http://{url_host(args.host)}:{started.page_port}/"
                _announce(started, url, as_json=args.json)
                _open_browser(url, wanted=not args.no_browser)
                wait_for_the_end()
            finally:
                tree.stop()
    except Interrupted:
        return 0
    return 0


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Keep another start of this user's waiting.

    A port is chosen some seconds before a server has it: two that start at once would choose the
    same ones, and the later one take the earlier one's guard and page for its own.
    """
    from kidrails_guard.audit.files import locked
    from kidrails_guard.page.folders import config_folder

    path = config_folder() / "up.lock"
    with contextlib.ExitStack() as held:
        with contextlib.suppress(OSError):  # settings that may only be read: start all the same
            path.parent.mkdir(parents=True, exist_ok=True)
            if not held.enter_context(locked(path, wait=False)):
                print("kidrails up: another one is starting; waiting for it", file=sys.stderr)
                held.enter_context(locked(path, wait=True))
        yield


class _Started:
    """What was planned: the parts, and what is said about them."""

    def __init__(self, parts: list[Part], *, page_port: int, facts: dict[str, Any]) -> None:
        self.parts, self.page_port, self.facts = parts, page_port, facts


def _parts(args: argparse.Namespace, band: AgeBand | None, folder: Path) -> _Started:
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
    guard_port = _port("--guard-port", args.guard_port, GUARD, _LOCAL, taken)
    parts: list[Part] = []
    upstream, model = args.upstream, args.upstream
    if upstream is None:
        engine_port = _port("--engine-port", args.engine_port, ENGINE, _LOCAL, taken)
        part, upstream, model = _engine(args, engine_port)
        parts.append(part)
    key_file, page_keys, own_key = _keys(folder, tuple(policy.bands), band or policy.fallback_band)
    shared = ["--policy", str(args.policy)] if args.policy else []
    guard = ["--upstream", upstream, "--host", _LOCAL, "--port", str(guard_port)]
    guard += ["--keys", str(key_file), "--audit", str(audit), "--shutdown-seconds", "2", *shared]
    guard += ["--no-disclosure"]  # the page's first bubble says it, before anything is asked
    guard += _flags(args.guard_args)
    api = f"http://{_LOCAL}:{guard_port}/v1"
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
            host=_LOCAL,
            port=guard_port,
            probe_path="/health",
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
    return _Started(parts, page_port=page_port, facts=facts)


def _flags(text: str) -> list[str]:
    try:
        flags = shlex.split(text)
    except ValueError as error:
        raise UsageError(f"--guard-args {text!r}: {error}") from None
    ours = {"--upstream", "--host", "--port", "--keys", "--audit", "--policy", "--band"}
    for flag in flags:
        if flag.partition("=")[0] in ours:
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
        host=_LOCAL,
        port=port,
        adapter=args.adapter,
        voice=not args.no_voice,
    )
    with tensor_bar("converting the model") as progress:
        plan = plan_engine(options, progress=progress)
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


def _announce(started: _Started, url: str, *, as_json: bool) -> None:
    facts = started.facts
    if as_json:
        print(json.dumps({"state": "ready", "page": url, **facts}), flush=True)
        return
    print(
        f"\n  model   {facts['model']}\n"
        f"  guard   {facts['api']}  with the key {facts['api_key']}\n"
        f"  record  {facts['audit']}\n"
        f"  stop    Ctrl-C\n",
        file=sys.stderr,
    )
    print(f"ready: {url}", flush=True)


def _open_browser(url: str, *, wanted: bool) -> None:
    """Open the page, where there is somebody to see it."""
    display = sys.platform in {"darwin", "win32"} or any(
        os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY")
    )
    if wanted and display and sys.stderr.isatty():
        import webbrowser

        webbrowser.open(url)

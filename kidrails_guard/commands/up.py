"""`kidrails up`: model, guard and chat page in one go."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from kidrails_guard.commands.options import at_least
from kidrails_guard.commands.up_parts import ENGINE, GUARD, LOCAL, PAGE, Started, plan_parts
from kidrails_guard.errors import UsageError


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
        default=LOCAL,
        help=f"address of the page ({LOCAL}); guard and model stay on this machine",
    )
    parser.add_argument("--audit", metavar="DIR", type=Path, help="folder of the audit log")
    parser.add_argument(
        "--guard-args",
        metavar="FLAGS",
        default="",
        help="further flags for `kidrails serve`, in one string, e.g. '--alert-email ME@HOME "
        "--audit-text-days 2'; a flag without a value: --guard-args=--alert-with-text",
    )
    parser.add_argument(
        "--start-timeout",
        type=at_least(1.0),
        metavar="S",
        help="seconds to wait for model, guard and page, each from its start; for a large model "
        "or a slow machine (120; 600 for vLLM)",
    )
    parser.add_argument("--frame-ancestors", metavar="SOURCE", help="as in `kidrails demo`")
    parser.add_argument("--no-browser", action="store_true", help="do not open the page")
    parser.add_argument("--json", action="store_true", help="print the ready line as JSON")


def run(args: argparse.Namespace) -> int:
    """Start everything, say where the page is, and wait for Ctrl-C."""
    from kidrails_guard.commands.demo import parse_band, require_page
    from kidrails_guard.engine.base import url_host
    from kidrails_guard.proxy.settings import check_upstream
    from kidrails_guard.run_folder import run_folder
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
        with run_folder() as folder:
            with _alone():
                started = plan_parts(args, band, folder)
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


def _announce(started: Started, url: str, *, as_json: bool) -> None:
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

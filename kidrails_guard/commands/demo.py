"""`kidrails demo`: the chat page in front of a running guard proxy."""

from __future__ import annotations

import argparse
import math
import os
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from kidrails_guard.errors import MissingDependency, UsageError

DEFAULT_PORT: Final = 7860
DEFAULT_PROXY: Final = "http://127.0.0.1:8080/v1"
KEYS_VARIABLE: Final = "KIDRAILS_PAGE_KEYS"
KEY_VARIABLE: Final = "KIDRAILS_API_KEY"
PIN_VARIABLE: Final = "KIDRAILS_PIN"
INSTALL: Final = "pip install 'kidrails-guard[demo]'"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `kidrails demo`."""
    parser.epilog = (
        f"In a container, where nobody chooses a PIN on first use, set {PIN_VARIABLE} (4 to 12 "
        "digits); a PIN that is set already stays."
    )
    parser.add_argument(
        "--proxy",
        metavar="URL",
        default=DEFAULT_PROXY,
        help=f"the guard proxy ({DEFAULT_PROXY}); its key, where it wants one, is read from "
        f"{KEY_VARIABLE}, or one by age band from {KEYS_VARIABLE} (7-9=kr_…,10-12=kr_…)",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (127.0.0.1)")
    parser.add_argument("--port", type=int, default=DEFAULT_PORT, help="port to listen on (7860)")
    parser.add_argument("--policy", metavar="FILE", type=Path, help="the proxy's policy")
    parser.add_argument("--band", help="set this age band, for the page: 5-6, 7-9 or 10-12")
    parser.add_argument("--audit", metavar="DIR", type=Path, help="the proxy's audit folder")
    parser.add_argument(
        "--sampling",
        metavar="FIELDS",
        default="",
        help="sent with every question, e.g. temperature=0.3,frequency_penalty=0.8",
    )
    parser.add_argument(
        "--frame-ancestors",
        metavar="SOURCE",
        default="'none'",
        help="who may show the page inside theirs, e.g. https://huggingface.co (nobody)",
    )
    parser.add_argument(
        "--forget-pin", action="store_true", help="delete PIN and settings, and stop"
    )


def run(args: argparse.Namespace) -> int:
    """Serve the pages until a signal comes."""
    from kidrails_guard.page.folders import config_folder, default_audit
    from kidrails_guard.page.settings import SettingsStore
    from kidrails_guard.policy import load_policy

    if args.forget_pin:
        existed = SettingsStore(config_folder()).forget()
        print(
            "PIN and settings are deleted; open the page to choose a new PIN"
            if existed
            else "no PIN was set"
        )
        return 0
    keys = read_keys(os.environ)
    band = parse_band(args.band)
    require_served(band, load_policy(args.policy))
    if not 1 <= args.port <= 65535:
        raise UsageError(f"--port {args.port}: accepted are 1 to 65535")
    proxy = parse_proxy(args.proxy)
    sampling = parse_sampling(args.sampling)
    require_page()

    from kidrails_guard.demo import PageOptions, build_app
    from kidrails_guard.engine.base import url_host
    from kidrails_guard.engine.ports import require_free_port
    from kidrails_guard.page.server import serve

    require_free_port(args.host, args.port)
    options = PageOptions(
        proxy=proxy,
        audit=args.audit or default_audit(),
        config=config_folder(),
        policy=args.policy,
        band=band,
        keys=keys,
        sampling=sampling,
        host=args.host,
        frame_ancestors=args.frame_ancestors,
    )
    app = build_app(options)
    if pin := os.environ.get(PIN_VARIABLE):
        _first_pin(SettingsStore(options.config), pin, band, policy=args.policy)
    url = f"http://{url_host(args.host)}:{args.port}/"
    return serve(app, host=args.host, port=args.port, ready=f"ready: {url}")


def _first_pin(store: Any, pin: str, band: Any, *, policy: Path | None) -> None:
    """Set the PIN where nobody is there to choose one: in a container."""
    from kidrails_guard.page.settings import SettingsError, check_pin
    from kidrails_guard.policy import load_policy

    if store.read() is None:
        try:
            check_pin(pin)
        except SettingsError as error:
            raise UsageError(f"{PIN_VARIABLE}: {error}") from None
        store.set_up(pin, band=band or load_policy(policy).fallback_band)


def require_page() -> None:
    """Check that the page's packages are there.

    Raises:
        MissingDependency: they are not.
    """
    from importlib.util import find_spec

    for package in ("gradio", "uvicorn", "httpx"):
        if find_spec(package) is None:
            raise MissingDependency(package, command=INSTALL, purpose="the page")


def parse_band(value: str | None) -> Any:
    """Return the age band of that name, or None for None.

    Raises:
        UsageError: there is no such band.
    """
    from kidrails_guard.types import AgeBand

    if value is None:
        return None
    if value not in set(AgeBand):
        raise UsageError(f"--band {value!r}: accepted are {', '.join(AgeBand)}")
    return AgeBand(value)


def require_served(band: Any, policy: Any) -> None:
    """Check that an age band, where one was asked for, is one of the policy's.

    Raises:
        UsageError: it is not.
    """
    if band is not None and band not in policy.bands:
        raise UsageError(f"--band {band}: the policy {policy.name!r} serves "
                         f"{', '.join(policy.bands)}")  # fmt: skip


def read_keys(environment: Any) -> dict[Any, str]:
    """Return the API keys by age band that the environment holds.

    Raises:
        UsageError: an entry is not ``band=key``; the keys themselves are not shown.
    """
    from kidrails_guard.types import AgeBand

    if one := environment.get(KEY_VARIABLE):
        return dict.fromkeys(AgeBand, one)
    keys = {}
    for entry in filter(None, environment.get(KEYS_VARIABLE, "").split(",")):
        band, equals, key = entry.partition("=")
        if not equals or band.strip() not in set(AgeBand):
            raise UsageError(
                f"{KEYS_VARIABLE}: an entry is not band=key with a band of {', '.join(AgeBand)}"
            )
        keys[AgeBand(band.strip())] = key.strip()
    return keys


def parse_proxy(url: str) -> str:
    """Return the guard proxy's base URL.

    Raises:
        UsageError: it is none: the page would open, and every answer fail.
    """
    try:
        parts = urlsplit(url)
        good = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
    except ValueError:  # a port that is none, half an IPv6 address
        good = False
    if not good:
        raise UsageError(f"--proxy {url!r}: not a URL such as {DEFAULT_PROXY}")
    if not parts.path.rstrip("/").endswith("/v1"):
        raise UsageError(f"--proxy {url!r}: the guard answers under /v1, as in {DEFAULT_PROXY}")
    return url


def parse_sampling(text: str) -> dict[str, float]:
    """Return ``name=number`` pairs.

    Raises:
        UsageError: one is not such a pair.
    """
    fields = {}
    for entry in filter(None, text.split(",")):
        name, _, number = entry.partition("=")
        try:
            value = int(number) if number.isdecimal() else float(number)
            if not (name.strip() and math.isfinite(value)):
                raise ValueError
            fields[name.strip()] = value
        except ValueError:
            raise UsageError(
                f"--sampling: {entry!r} is not name=number, e.g. temperature=0.3"
            ) from None
    return fields

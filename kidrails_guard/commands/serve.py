"""`kidrails serve`: the guard proxy in front of any OpenAI-compatible server."""

from __future__ import annotations

import argparse
import ipaddress
import os
import sys
from typing import TYPE_CHECKING

from kidrails_guard.errors import MissingDependency, UsageError

if TYPE_CHECKING:
    from kidrails_guard.proxy.deployment import Deployment

INSTALL = "pip install 'kidrails-guard[proxy]'"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `kidrails serve`."""
    parser.add_argument(
        "--upstream",
        metavar="URL",
        required=True,
        help="the model server, e.g. http://localhost:8000/v1, or litellm:provider/model; its key "
        "is read from KIDRAILS_UPSTREAM_KEY",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (127.0.0.1)")
    parser.add_argument("--port", type=int, default=8080, help="port to listen on (8080)")
    parser.add_argument("--policy", metavar="FILE", help="policy instead of the default one")
    parser.add_argument("--workers", type=int, default=1, help="processes (1)")
    who = parser.add_argument_group("who may call")
    who.add_argument("--keys", metavar="FILE", help="API keys, made by `kidrails keys add`")
    who.add_argument(
        "--band", metavar="BAND", help="age band of everyone, without --keys: 5-6, 7-9 or 10-12"
    )
    who.add_argument(
        "--band-header",
        metavar="NAME",
        help="trust this request header for the age band; only behind a service that sets it",
    )
    who.add_argument(
        "--session-header",
        metavar="NAME",
        default="x-kidrails-session",
        help="names a child's talk",
    )
    model = parser.add_argument_group("the model")
    model.add_argument("--model", metavar="NAME", help="ask for this one, whatever callers name")
    model.add_argument(
        "--pass-field",
        metavar="NAME",
        action="append",
        default=[],
        help="a further request field that the model server may see (repeatable)",
    )
    model.add_argument("--read-timeout", metavar="S", type=float, default=120.0,
                       help="longest silence of the model server (120)")  # fmt: skip
    kept = parser.add_argument_group("what is kept")
    kept.add_argument("--audit", metavar="DIR", help="write the audit log there")
    kept.add_argument(
        "--audit-days", metavar="N", type=int, default=30, help="keep it so long (30)"
    )
    kept.add_argument(
        "--audit-text-days", metavar="N", type=int, help="also keep texts, encrypted, so long"
    )
    kept.add_argument(
        "--audit-on-failure",
        choices=("refuse", "continue"),
        default="refuse",
        help="when the log cannot be written: answer nothing (refuse) or go on",
    )
    kept.add_argument(
        "--sessions", metavar="WHERE", default="memory", help="memory, or redis://host:port/db"
    )
    told = parser.add_argument_group("who is told")
    told.add_argument(
        "--alert-webhook", metavar="URL", action="append", default=[], help="of a crisis"
    )
    told.add_argument(
        "--alert-host", metavar="HOST", action="append", default=[],
        help="a private host that a webhook may be on",
    )  # fmt: skip
    told.add_argument(
        "--alert-email", metavar="ADDRESS", action="append", default=[],
        help="of a crisis, by the server in KIDRAILS_SMTP_HOST, _PORT, _FROM, _USER, _PASSWORD",
    )  # fmt: skip
    told.add_argument(
        "--alert-with-text", action="store_true", help="put the child's words into alerts"
    )
    told.add_argument(
        "--operator-headers", action="store_true", help="name hazards in x-kidrails-hazards"
    )
    told.add_argument(
        "--no-disclosure",
        action="store_true",
        help="do not begin a session by saying that this is a program; for a page that says so",
    )
    told.add_argument(
        "--metrics", action="store_true",
        help="serve /metrics for Prometheus on the same port, to every caller",
    )  # fmt: skip
    told.add_argument(
        "--metrics-port", metavar="N", type=int, help="serve /metrics on this port alone (0: any)"
    )
    parser.add_argument(
        "--log-level", choices=("debug", "info", "warning", "error"), default="warning"
    )
    parser.add_argument("--log-format", choices=("text", "json"), default="text")
    parser.add_argument(
        "--shutdown-seconds",
        metavar="S",
        type=float,
        default=20.0,
        help="what is open may go on for so long after a stop signal (20)",
    )


def run(args: argparse.Namespace) -> int:
    """Serve until a signal comes."""
    try:
        from kidrails_guard.proxy.server import serve
    except ModuleNotFoundError as error:
        raise MissingDependency(
            error.name or "a package", command=INSTALL, purpose="kidrails serve"
        ) from None
    for option, port in (("--port", args.port), ("--metrics-port", args.metrics_port)):
        if port is not None and not 0 <= port <= 65535:
            raise UsageError(f"{option}: {port} is not a port; 0 to 65535 (0: any free one)")
    if not 1 <= args.workers <= 64:
        raise UsageError(f"--workers: {args.workers}; accepted: 1 to 64")
    deployment = _deployment(args)
    if args.keys is None and not _is_local(args.host):
        print(
            f"kidrails serve: {args.host} can be reached from other machines and anyone may call; "
            "give --keys FILE (made by `kidrails keys add NAME`)",
            file=sys.stderr,
        )
    for caution in deployment.cautions(args.workers):
        print(f"kidrails serve: {caution}", file=sys.stderr)
    return serve(
        deployment,
        host=args.host,
        port=args.port,
        workers=args.workers,
        log_level=args.log_level,
        log_form=args.log_format,
    )


def _deployment(args: argparse.Namespace) -> Deployment:
    from kidrails_guard.proxy.deployment import Deployment
    from kidrails_guard.proxy.records import smtp_from_environment
    from kidrails_guard.proxy.settings import Settings
    from kidrails_guard.types import AgeBand

    band = None
    if args.band is not None:
        if args.keys is not None:
            raise UsageError("--band: with --keys, each key has its own band")
        if args.band not in list(AgeBand):
            raise UsageError(f"--band: {args.band!r}; accepted: {', '.join(AgeBand)}")
        band = AgeBand(args.band)
    return Deployment(
        settings=Settings(
            args.upstream,
            upstream_key=os.environ.get("KIDRAILS_UPSTREAM_KEY"),
            model=args.model,
            band_header=args.band_header,
            session_header=args.session_header or None,
            operator_headers=args.operator_headers,
            disclosure=not args.no_disclosure,
            pass_fields=frozenset(args.pass_field),
            read_timeout_s=args.read_timeout,
            shutdown_s=args.shutdown_seconds,
        ),
        policy=args.policy,
        band=band,
        keys=args.keys,
        audit=args.audit,
        audit_days=args.audit_days,
        audit_text_days=args.audit_text_days,
        audit_on_failure=args.audit_on_failure,
        sessions=args.sessions,
        metrics=args.metrics,
        metrics_port=args.metrics_port,
        webhooks=tuple(args.alert_webhook),
        webhook_hosts=tuple(args.alert_host),
        emails=tuple(args.alert_email),
        smtp=smtp_from_environment(),
        alert_text=args.alert_with_text,
    )


def _is_local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"

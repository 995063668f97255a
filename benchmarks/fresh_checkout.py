"""From a fresh clone to a page that answers: how long, and how much disk.

    .venv/bin/python benchmarks/fresh_checkout.py [--tests]

Clones this repository into an empty folder, makes its environment, starts everything, asks one
question through the guard, and stops. With --tests it also runs `make test` there. The package
manager's cache is used where there is one; --cold gives it an empty one. The README shows the
result: it is written there too, between two marks.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx

from kidrails_guard.files import dump_json, write_atomic

REPOSITORY = Path(__file__).resolve().parent.parent
RESULT = REPOSITORY / "benchmarks" / "results" / "fresh_checkout.json"


README = REPOSITORY / "README.md"
MARKS = ("<!-- measured: benchmarks/fresh_checkout.py -->", "<!-- /measured -->")


def shown(record: dict[str, Any]) -> str:
    """Return a result as the README shows it, with its marks."""
    rows = record["rows"]
    cores, cache = record["machine"]["cores"], record["package_cache"]

    def minutes(name: str) -> str:
        seconds = rows[name]
        return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"

    def gib(name: str) -> str:
        return f"{rows[name] / 1024:.1f} GiB"

    install = minutes("make install, seconds")
    lines = [
        MARKS[0],
        f"| on {cores} cores, no GPU | time | disk |",
        "|---|---|---|",
        f"| `make demo`, first time: install (package cache {cache}) | {install} | "
        f"{gib('checkout with .venv, MiB')} |",
        "| … then until the page answers, every time | "
        f"{minutes('kidrails up until the page answers, seconds')} | |",
    ]
    if "make test, seconds" in rows:
        lines.append(
            f"| `make test`, with its environments | {minutes('make test, seconds')} | "
            f"{gib('checkout with all environments, MiB')} |"
        )
    return "\n".join([*lines, MARKS[1]])


def write_readme(record: dict[str, Any]) -> None:
    """Put a result into the README."""
    text = README.read_text(encoding="utf-8")
    if not all(mark in text for mark in MARKS):
        raise SystemExit(f"{README.name}: the marks {' and '.join(MARKS)} are gone")
    before, _, rest = text.partition(MARKS[0])
    _, _, after = rest.partition(MARKS[1])
    write_atomic(README, before + shown(record) + after)


def disk_mib(folder: Path) -> int:
    """Return the space that a folder takes, in MiB, as `du` counts it."""
    done = subprocess.run(["du", "-sm", str(folder)], capture_output=True, text=True, check=True)
    return int(done.stdout.split()[0])


def timed(command: list[str], *, cwd: Path, environment: dict[str, str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, cwd=cwd, env=environment, check=True, stdout=sys.stderr)
    return time.perf_counter() - start


def ask(ready: dict[str, Any]) -> tuple[float, str]:
    """Ask one question through the guard; return the seconds and the answer."""
    start = time.perf_counter()
    reply = httpx.post(
        f"{ready['api']}/chat/completions",
        headers={"authorization": f"Bearer {ready['api_key']}"},
        json={
            "model": "any",
            "messages": [{"role": "user", "content": "Why do wolves howl?"}],
            "max_tokens": 60,
        },
        timeout=120,
        trust_env=False,
    )
    text = reply.raise_for_status().json()["choices"][0]["message"]["content"]
    return time.perf_counter() - start, text


def main() -> int:
    """Measure, print a table and write it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--tests", action="store_true", help="also run `make test`")
    parser.add_argument("--cold", action="store_true", help="with an empty package cache")
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="kidrails-fresh-"))
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("VIRTUAL", "KIDRAILS"))}
    environment |= {
        "KIDRAILS_CONFIG": str(folder / "config"),
        "KIDRAILS_STATE": str(folder / "state"),
    }
    if args.cold:
        environment |= {
            "UV_CACHE_DIR": str(folder / "uv-cache"),
            "PIP_CACHE_DIR": str(folder / "pip-cache"),
        }
    rows: dict[str, float] = {}
    try:
        clone = folder / "kidrails"
        subprocess.run(["git", "clone", "--quiet", str(REPOSITORY), str(clone)], check=True)
        rows["make install, seconds"] = timed(
            ["make", "install"], cwd=clone, environment=environment
        )
        rows["checkout with .venv, MiB"] = disk_mib(clone)
        kidrails = str(clone / ".venv" / "bin" / "kidrails")
        start = time.perf_counter()
        subprocess.run([kidrails, "--help"], check=True, stdout=subprocess.DEVNULL)
        rows["kidrails --help, seconds"] = time.perf_counter() - start
        start = time.perf_counter()
        up = subprocess.Popen(
            [kidrails, "up", "--json", "--no-browser", "--band", "7-9"],
            cwd=clone,
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert up.stdout is not None
        try:
            ready = json.loads(up.stdout.readline())
            rows["kidrails up until the page answers, seconds"] = time.perf_counter() - start
            httpx.get(ready["page"], trust_env=False, follow_redirects=True).raise_for_status()
            rows["first answer of 60 tokens, seconds"], text = ask(ready)
            print(f"asked why wolves howl: {text}\n", file=sys.stderr)
        finally:
            up.send_signal(signal.SIGINT)
            up.wait(60)
        if args.tests:
            rows["make test, seconds"] = timed(["make", "test"], cwd=clone, environment=environment)
            rows["checkout with all environments, MiB"] = disk_mib(clone)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    width = max(map(len, rows))
    for name, value in rows.items():
        print(f"{name:<{width}}  {value:10.2f}")
    record = {
        "machine": {"cores": os.cpu_count(), "architecture": platform.machine()},
        "python": platform.python_version(),
        "package_cache": "empty" if args.cold else "as it was",
        "rows": {name: round(value, 2) for name, value in rows.items()},
    }
    dump_json(RESULT, record)
    write_readme(record)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

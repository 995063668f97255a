"""What one message costs the guard: CPU milliseconds on one core, memory, cold and warm.

Usage: python benchmarks/guard_latency.py [--runs N]

CPU time of the process (all its threads), so that other work on the machine counts little. Messages
differ from run to run, so that no cache answers for the checks. Peers get the same messages.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from kidrails_guard.checks import load_checks
from kidrails_guard.evals.peers import PEERS
from kidrails_guard.files import dump_json
from kidrails_guard.guard import Guard
from kidrails_guard.policy import load_policy
from kidrails_guard.types import AgeBand

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "benchmarks" / "results" / "guard_latency.json"
LENGTHS = (10, 40, 200, 2_000)
TALK = (
    "why do the wolves in my story eat three little pigs when they could have pizza and then "
    "go home to their cubs who wait in the forest under a big old tree with yellow leaves"
)
WORDS = TALK.split()
COLD = """
import time; start = time.process_time()
from kidrails_guard.guard import Guard
from kidrails_guard.policy import load_policy
from kidrails_guard.types import AgeBand
from kidrails_guard.checks import load_checks
policy = load_policy()
policy = policy.model_copy(update={{"checks": tuple(c for c in policy.checks if {keep})}})
checks = load_checks(policy)
guard = Guard(policy, checks=checks)
guard.check_input_sync("why do wolves howl at the moon?", band=AgeBand.MIDDLE)
import json, psutil
print(json.dumps({{"cpu_ms": (time.process_time() - start) * 1e3,
                   "memory_mb": psutil.Process().memory_info().rss / 1e6}}))
"""


def message(length: int, number: int) -> str:
    """Return a harmless text of a length that is like no other."""
    rng = np.random.default_rng(number)
    words: list[str] = []
    while sum(map(len, words)) + len(words) < length:
        words.append(WORDS[int(rng.integers(len(WORDS)))])
    return " ".join(words)[:length]


def measure(check: Callable[[str], object], length: int, runs: int) -> dict[str, float]:
    """Return percentiles of CPU milliseconds a message."""
    texts = [message(length, i) for i in range(runs + 5)]
    for text in texts[:5]:
        check(text)
    gc.collect()
    spent = []
    for text in texts[5:]:
        start = time.process_time()
        check(text)
        spent.append((time.process_time() - start) * 1e3)
    p50, p95, p99 = np.percentile(spent, [50, 95, 99])
    return {"p50": round(p50, 4), "p95": round(p95, 4), "p99": round(p99, 4)}


def cold(keep: str) -> dict[str, float]:
    """Return CPU and memory of a fresh process up to its first verdict."""
    done = subprocess.run(
        [sys.executable, "-c", COLD.format(keep=keep)],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    record: dict[str, float] = json.loads(done.stdout)
    return {name: round(value, 1) for name, value in record.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=400)
    args = parser.parse_args()
    policy = load_policy()
    checks = load_checks(policy)
    loop = asyncio.new_event_loop()

    def guarded(guard: Guard) -> Callable[[str], object]:
        return lambda text: loop.run_until_complete(guard.check_input(text, band=AgeBand.MIDDLE))

    rows: dict[str, dict[int, dict[str, float]]] = {}
    rules = [c for c in checks if c.name != "classifier"]
    for name, chosen in {"whole guard": checks, "without classifier": rules}.items():
        check = guarded(Guard(policy, checks=chosen))
        rows[name] = {n: measure(check, n, args.runs if n < 1_000 else 60) for n in LENGTHS}
    memory = psutil.Process().memory_info().rss / 1e6
    for peer in PEERS:
        if peer.installed:
            holds_back = peer.load()
            few = 20 if "litellm" in peer.name else args.runs
            rows[peer.name] = {n: measure(holds_back, n, few if n < 1_000 else 20) for n in LENGTHS}
    starts = {"whole guard": cold("True"), "without classifier": cold("c.name != 'classifier'")}
    print(f"{'CPU ms: p50 / p95 / p99':<26}" + "".join(f"{n:>25} ch" for n in LENGTHS))
    for name, row in rows.items():
        cells = "".join(
            f"{r['p50']:>10.2f} {r['p95']:>8.2f} {r['p99']:>8.2f}" for r in row.values()
        )
        print(f"{name:<26}{cells}")
    print("\nfrom nothing to the first verdict")
    for name, start in starts.items():
        print(f"{name:<26}{start['cpu_ms']:>8.0f} ms CPU {start['memory_mb']:>8.0f} MB")
    print(f"memory of this process before the peers were loaded: {memory:.0f} MB")
    record: dict[str, Any] = {
        "machine": {"system": platform.system(), "cpu": platform.machine()},
        "runs": args.runs,
        "cpu_ms": rows,
        "cold": starts,
        "memory_mb": round(memory, 1),
    }
    dump_json(RESULT, record)
    print(f"written to {RESULT}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

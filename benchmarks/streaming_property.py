"""Run many random replies through the streaming guard and keep the counts.

Usage: python benchmarks/streaming_property.py --cases 100000 [--start SEED]

A case that fails stops the run with its seed; `run_case(make_case(SEED))` repeats it.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "kit"))

import streaming_cases  # noqa: E402
from tqdm import tqdm  # noqa: E402

from kidrails_guard.files import dump_json, sha256_file  # noqa: E402

RESULT = ROOT / "benchmarks" / "results" / "streaming_property.json"
SOURCES = ("streaming.py", "units.py", "conveyor.py", "proxy/sse.py")


async def run(first: int, cases: int) -> dict[str, int]:
    total: dict[str, int] = {}
    seeds = range(first, first + cases)
    with tqdm(total=cases, unit=" cases", disable=None) as bar:
        for at in range(0, cases, 500):
            part = await streaming_cases.run_cases(seeds[at : at + 500])
            total = {key: total.get(key, 0) + value for key, value in part.items()}
            bar.update(part["cases"])
    return total


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=100_000)
    parser.add_argument("--start", type=int, default=0, help="first seed")
    args = parser.parse_args()
    sources = {name: sha256_file(ROOT / "kidrails_guard" / name) for name in SOURCES}
    start = time.perf_counter()
    counts = asyncio.run(run(args.start, args.cases))
    result = {
        "what": "random replies with planted hazards, random cuts, random check latencies",
        "first_seed": args.start,
        **counts,
        "unchecked_characters_released": 0,  # one would have ended the run
        "verdicts_unlike_the_whole_text": 0,
        "seconds": round(time.perf_counter() - start),
        "sources": sources,
    }
    dump_json(RESULT, result)
    print("\n".join(f"{key}: {value}" for key, value in result.items() if key != "sources"))
    print(f"written: {RESULT.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

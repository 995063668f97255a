"""How fast the model servers start and answer, and what they keep in memory.

Usage: python benchmarks/engine_speed.py [--clients 1,4,8] [--tokens 100] [--threads 1,2] [--vllm]

One default model, SmolLM2-135M-Instruct: as it ships (Q4_1), converted from its own safetensors at
other types, and with --vllm by vLLM on the CPU. Every server gets the same questions at temperature
0 and writes exactly as many tokens as asked for. Processor time a token (questions included) is
what other work on the machine changes least; tokens a second are those of the moment, with the
machine's load beside them.
"""

from __future__ import annotations

import argparse
import os
import platform
import socket
import statistics
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import psutil
from tqdm import tqdm

from kidrails_guard.engine.base import Backend
from kidrails_guard.engine.launch import EngineOptions, plan_engine
from kidrails_guard.engine.llamacpp import usable_threads
from kidrails_guard.engine.process import EngineProcess
from kidrails_guard.files import dump_json

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "benchmarks" / "results" / "engine_speed.json"
EXPORT = ROOT / "build" / "models" / "smollm2-135m-instruct"
QUESTIONS = ("What do whales eat?", "Why is the sky blue?", "How do bees make honey?")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(options: EngineOptions) -> Iterator[tuple[EngineProcess, float]]:
    """Start a server; give it with the seconds that the start took."""
    process = EngineProcess(plan_engine(options))
    begin = time.perf_counter()
    process.start()
    try:
        process.wait_ready()
        yield process, time.perf_counter() - begin
    finally:
        process.stop()


def memory_mib(process: EngineProcess) -> float:
    """Return the memory of a server's processes that no other process shares."""
    root = psutil.Process(process.pid)
    family = [root, *root.children(recursive=True)]
    return sum(member.memory_full_info().uss for member in family) / 2**20


def cpu_seconds(process: EngineProcess) -> float:
    """Return the processor time that a server's processes have used so far."""
    root = psutil.Process(process.pid)
    times = [member.cpu_times() for member in (root, *root.children(recursive=True))]
    return sum(time.user + time.system for time in times)


def answer(client: httpx.Client, number: int, tokens: int) -> tuple[int, float]:
    """Ask once in a stream; return the tokens written and the seconds to the first."""
    body = {
        "model": "m",
        "messages": [{"role": "user", "content": f"{QUESTIONS[number % 3]} ({number})"}],
        "max_tokens": tokens,
        "temperature": 0,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    begin, first, written = time.perf_counter(), 0.0, 0
    with client.stream("POST", "/chat/completions", json=body) as reply:
        reply.raise_for_status()
        for line in reply.iter_lines():
            if '"content":"' in line.replace(": ", ":") and not first:
                first = time.perf_counter() - begin
            if '"completion_tokens":' in line:
                written = int(line.split('"completion_tokens":')[1].split(",")[0].rstrip("}"))
    return written, first


def measure(name: str, options: EngineOptions, counts: list[int], tokens: int) -> dict[str, Any]:
    with running(options) as (process, start_s):
        url = process.url
        # llama.cpp closes its connection after a stream, and one used again may just be closing.
        limits = httpx.Limits(max_keepalive_connections=0)
        with httpx.Client(base_url=url, timeout=600, limits=limits) as client:
            answer(client, 0, 4)  # the first one also warms up
            rows = {}
            for count in counts:
                begin, used = time.perf_counter(), cpu_seconds(process)
                with ThreadPoolExecutor(count) as pool:
                    asked = [
                        pool.submit(answer, client, 100 * count + i, tokens) for i in range(count)
                    ]
                    found = [task.result() for task in asked]
                seconds = time.perf_counter() - begin
                written = sum(n for n, _ in found)
                used = cpu_seconds(process) - used
                rows[str(count)] = {
                    "tokens_per_s": round(written / seconds, 1),
                    "cpu_ms_per_token": round(1000 * used / written, 1),
                    "first_token_ms_median": round(1000 * statistics.median(f for _, f in found)),
                }
        return {
            "server": name,
            "start_s": round(start_s, 1),
            "memory_mib": round(memory_mib(process)),
            "clients": rows,
        }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", default="1,4,8", help="clients at a time, with commas")
    parser.add_argument("--tokens", type=int, default=100, help="tokens of each answer")
    parser.add_argument("--threads", default="", help="these numbers of threads, with commas")
    parser.add_argument("--vllm", action="store_true", help="vLLM on the CPU as well")
    args = parser.parse_args()
    counts = [int(count) for count in args.clients.split(",")]
    if not EXPORT.is_dir():
        parser.error(f"run first: kidrails engine --export {EXPORT.relative_to(ROOT)}")
    common: dict[str, Any] = {"name": "m", "parallel": max(counts), "context": 1024}
    threads = [int(count) for count in args.threads.split(",") if count] or [usable_threads()]
    jobs = {
        f"embedded, Q4_1 as shipped, {count} threads": EngineOptions(
            threads=count, voice=False, **common
        )
        for count in threads
    }
    jobs[f"the same with KidRails' voice (default), {threads[0]} threads"] = EngineOptions(
        threads=threads[0], **common
    )
    for kind in ("q8_0", "f16"):
        options = EngineOptions(model=str(EXPORT), weight_type=kind, threads=threads[0], **common)
        jobs[f"embedded, converted to {kind}, {threads[0]} threads"] = options
    if args.vllm:
        jobs["vLLM, float32"] = EngineOptions(
            model=str(EXPORT), backend=Backend.VLLM, name="m", context=1024
        )
    rows = []
    for name, options in tqdm(jobs.items(), unit=" servers", disable=None):
        rows.append(measure(name, replace(options, port=free_port()), counts, args.tokens))
    result = {
        "model": "SmolLM2-135M-Instruct",
        "machine": {
            "cpu": machine_cpu(),
            "cores": len(os.sched_getaffinity(0)),
            "load_at_end": round(os.getloadavg()[0], 1),
        },
        "tokens_per_answer": args.tokens,
        "rows": rows,
    }
    dump_json(RESULT, result)
    heads = [f"CPU ms a token, tokens/s at {count}" for count in counts]
    print("| server | start s | MiB | " + " | ".join(heads) + " |")
    print("|---|---|---|" + "---|" * len(counts))
    for row in rows:
        cells = [row["clients"][str(count)] for count in counts]
        shown = " | ".join(f"{c['cpu_ms_per_token']}, {c['tokens_per_s']}" for c in cells)
        print(f"| {row['server']} | {row['start_s']} | {row['memory_mib']} | {shown} |")
    print(f"written: {RESULT.relative_to(ROOT)}")
    return 0


def machine_cpu() -> str:
    """Return the processor's family, without anything that names the machine."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


if __name__ == "__main__":
    raise SystemExit(main())

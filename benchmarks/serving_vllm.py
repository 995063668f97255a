"""vLLM's tokens a second, asked directly and through the guard, in one run.

Usage: python benchmarks/serving_vllm.py [--clients 16] [--tokens 64] [--rounds 3]

vLLM's build for CPUs writes with the default model. Directly it is asked what the guard asks of it
(the band's system prompt and the child's words), so that both write after the same prompt. All
checks run, but the policy holds no reply back: a reply that ends early is no loss of speed. Rounds
alternate; the medians count. On a machine where vLLM takes every core, the guard's processor time
is vLLM's loss; so there is a second part, in which vLLM has cores of its own (the first half), as
it has its own GPU elsewhere, and the guard and the clients share the others.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import time
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "benchmarks" / "kit"))

import load  # noqa: E402
import psutil  # noqa: E402

from kidrails_guard.engine.base import Backend  # noqa: E402
from kidrails_guard.engine.launch import EngineOptions, plan_engine  # noqa: E402
from kidrails_guard.engine.process import EngineProcess  # noqa: E402
from kidrails_guard.files import dump_json  # noqa: E402
from kidrails_guard.guard import Guard  # noqa: E402
from kidrails_guard.policy import load_policy  # noqa: E402

RESULT = ROOT / "benchmarks" / "results" / "serving_vllm.json"
QUESTIONS = ("What do whales eat?", "Why is the sky blue?", "How do bees make honey?")


@dataclass(frozen=True)
class Answer:
    """One stream: tokens that vLLM wrote, seconds to the first words, whether all of it came."""

    tokens: int
    first_s: float
    whole: bool


@dataclass(frozen=True)
class Way:
    """How vLLM is reached: where, by which name, and what is said beside the question."""

    port: int
    model: str
    messages: tuple[dict[str, str], ...] = ()


async def ask(way: Way, number: int, tokens: int) -> Answer:
    question = {"role": "user", "content": f"{QUESTIONS[number % 3]} ({number})"}
    body = json.dumps(
        {
            "model": way.model,
            "messages": [*way.messages, question],
            "max_tokens": tokens,
            "temperature": 0,
            "ignore_eos": True,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
    ).encode()
    begin, first, written, whole = time.perf_counter(), 0.0, 0, False
    reader, writer = await asyncio.open_connection("127.0.0.1", way.port)
    writer.write(
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    )
    status = await reader.readline()
    if b" 200 " not in status:
        raise RuntimeError(f"port {way.port}: {status!r} {await reader.read(2000)!r}")
    async for line in reader:
        if not line.startswith(b"data: {"):
            continue
        chunk = json.loads(line[6:])
        for choice in chunk.get("choices", ()):
            if choice["delta"].get("content") and not first:
                first = time.perf_counter() - begin
            whole = whole or choice.get("finish_reason") == "length"
        if chunk.get("usage"):
            written = chunk["usage"]["completion_tokens"]
    writer.close()
    return Answer(written, first, whole and written == tokens)


async def burst(way: Way, clients: int, tokens: int, offset: int) -> tuple[list[Answer], float]:
    begin = time.perf_counter()
    found = await asyncio.gather(*(ask(way, offset + n, tokens) for n in range(clients)))
    return found, time.perf_counter() - begin


def threads(pid: int) -> Iterable[int]:
    root = psutil.Process(pid)
    for process in (root, *root.children(recursive=True)):
        for thread in process.threads():
            yield thread.id


def pin(pids: Iterable[int], cores: set[int]) -> None:
    """Keep all threads of some processes on some cores."""
    for pid in pids:
        for thread in threads(pid):
            os.sched_setaffinity(thread, cores)


def compare(ways: dict[str, Way], *, clients: int, tokens: int, rounds: int) -> dict[str, Any]:
    """Return medians over alternating rounds, and each way's share of the direct one's speed."""
    speeds: dict[str, list[float]] = {name: [] for name in ways}
    firsts: dict[str, list[float]] = {name: [] for name in ways}
    short = dict.fromkeys(ways, 0)
    for number in range(rounds):
        for name, way in ways.items():
            # The same questions for all within a round, others in the next.
            found, seconds = asyncio.run(burst(way, clients, tokens, 1000 * number))
            speeds[name].append(sum(a.tokens for a in found) / seconds)
            firsts[name] += [a.first_s for a in found]
            short[name] += sum(not a.whole for a in found)
    direct = next(iter(ways))
    return {
        name: {
            "tokens_per_s": round(statistics.median(speeds[name]), 1),
            "of_direct": round(
                statistics.median(a / b for a, b in zip(speeds[name], speeds[direct], strict=True)),
                3,
            ),
            "first_words_ms_median": round(1000 * statistics.median(firsts[name])),
            "streams_cut_short": short[name],
        }
        for name in ways
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    about = load.machine()
    policy = load_policy()
    prompt = {"role": "system", "content": Guard(policy).system_prompt(policy.fallback_band)}
    kinds: dict[str, set[int] | None] = {"cores shared": None}
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) > 1:
        kinds["vLLM on cores of its own"] = set(cores[: len(cores) // 2])
    rows: dict[str, Any] = {}
    for kind, own in kinds.items():
        if own is not None:
            # As many of vLLM's threads as it has cores: more would wait for each other, spinning.
            os.environ["VLLM_CPU_OMP_THREADS_BIND"] = ",".join(map(str, sorted(own)))
        with ExitStack() as stack:
            port, rules_port, guard_port = (load.free_port() for _ in range(3))
            engine = EngineProcess(
                plan_engine(EngineOptions(backend=Backend.VLLM, port=port, context=1024))
            )
            engine.start()
            stack.callback(engine.stop)
            engine.wait_ready()
            pids = []
            more = ("--model", engine.name, "--pass-field", "ignore_eos")
            rules = ("--policy", str(stack.enter_context(load.rules_only())))
            everything = ("--policy", str(stack.enter_context(load.all_pass())))
            for at, extra in ((rules_port, rules), (guard_port, everything)):
                command = load.guard_proxy(at, port, *more, *extra)
                health = f"http://127.0.0.1:{at}/health"
                pids.append(stack.enter_context(load.running(command, until=health)))
            ways = {
                "vLLM, direct": Way(port, engine.name, (prompt,)),
                "through KidRails, rules only": Way(rules_port, engine.name),
                "through KidRails": Way(guard_port, engine.name),
            }
            if own is not None:
                pin([engine.pid], own)
                pin([*pids, os.getpid()], set(cores) - own)
            for way in ways.values():  # warm
                asyncio.run(burst(way, args.clients, 4, 0))
            rows[kind] = compare(ways, clients=args.clients, tokens=args.tokens, rounds=args.rounds)
        print(kind, flush=True)
        for name, row in rows[kind].items():
            print(f"  {name:30} {row}", flush=True)
        dump_json(RESULT, {"machine": about, "clients": args.clients, "tokens": args.tokens,
                           "rounds": args.rounds, "rows": rows})  # fmt: skip
    print(f"written: {RESULT.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Every way to put a guard before a model, in one run: time, throughput, CPU, memory, open streams.

Usage: python benchmarks/serving.py [--requests 300] [--open-streams 1000] [--without-litellm]

The same mock model server behind: nothing, a plain Starlette proxy, the guard (with and without its
classifier), LiteLLM's proxy bare, with its own content filter over the request alone and over the
request and the reply, and with the guard, with and without its classifier, as its generic
guardrail. LiteLLM runs where its proxy is installed.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "benchmarks" / "kit"))

import load  # noqa: E402
import psutil  # noqa: E402
import yaml  # noqa: E402
from tqdm import tqdm  # noqa: E402

from kidrails_guard.files import dump_json  # noqa: E402

RESULT = ROOT / "benchmarks" / "results" / "serving.json"
CLIENTS = (1, 16, 64, 256)
INSIDE = "LiteLLM, KidRails inside"
KEY = "sk-benchmark"
ENVIRONMENT = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_MASTER_KEY": KEY}


def litellm_config(folder: Path, model: int, guard: int | None, own_filter: list[str]) -> Path:
    """Write a LiteLLM configuration before the mock model server.

    Args:
        folder: gets the file.
        model: port of the model server.
        guard: port of the guard that LiteLLM is to ask, if any.
        own_filter: when LiteLLM's content filter runs; never when empty.
    """
    base = f"http://127.0.0.1:{model}/v1"
    parameters = {"model": "openai/m", "api_base": base, "api_key": "x"}
    config: dict[str, Any] = {"model_list": [{"model_name": "m", "litellm_params": parameters}]}
    guardrail: dict[str, Any] | None = None
    if own_filter:
        categories = [
            {"category": name, "enabled": True, "action": "BLOCK", "severity_threshold": "medium"}
            for name in ("harmful_self_harm", "harmful_violence", "harmful_illegal_weapons")
        ]
        guardrail = {"guardrail": "litellm_content_filter", "mode": own_filter,
                     "default_on": True, "categories": categories}  # fmt: skip
    elif guard is not None:
        guardrail = {"guardrail": "generic_guardrail_api", "mode": ["pre_call", "post_call"],
                     "default_on": True, "api_base": f"http://127.0.0.1:{guard}",
                     "unreachable_fallback": "fail_closed"}  # fmt: skip
    if guardrail:
        config["guardrails"] = [{"guardrail_name": "g", "litellm_params": guardrail}]
    path = folder / f"litellm-{len(list(folder.iterdir()))}.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def litellm_proxy(port: int, config: Path) -> list[str]:
    """The command of LiteLLM's proxy."""
    program = str(Path(sys.executable).parent / "litellm")
    return [program, "--config", str(config), "--port", str(port), "--host", "127.0.0.1",
            "--telemetry", "False"]  # fmt: skip


async def hold_open(port: int, count: int, headers: dict[str, str]) -> dict[str, Any]:
    """Open many slow streams at once; return how they ended, and how long that took."""
    head = "".join(f"{k}: {v}\r\n" for k, v in headers.items())
    whole = held_back = 0

    async def one(number: int) -> None:
        nonlocal whole, held_back
        body = load.question(number, stream=True).replace(b"question", b"slow question")
        request = (
            f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n{head}Connection: close\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(request.encode() + body)
            data = await reader.read(-1)
            writer.close()
        except OSError:
            return
        whole += b"[DONE]" in data and b"ours" in data
        # A false alarm is the guard's verdict and no lost stream.
        held_back += b"[DONE]" in data and b"content_filter" in data

    start = time.perf_counter()
    await asyncio.wait_for(asyncio.gather(*map(one, range(count))), 600)
    seconds = round(time.perf_counter() - start, 1)
    return {"asked": count, "whole": whole, "held_back": held_back, "seconds": seconds}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=300, help="of one round")
    parser.add_argument("--open-streams", type=int, default=1_000)
    parser.add_argument("--without-litellm", action="store_true")
    args = parser.parse_args()
    about = load.machine()
    rows: list[tuple[str, load.Load]] = []
    held: dict[str, Any] = {}
    with ExitStack() as stack:
        start = stack.enter_context
        folder = Path(start(tempfile.TemporaryDirectory()))
        model = load.free_port()
        start(load.running(load.mock_model(model),
                           until=f"http://127.0.0.1:{model}/v1/models"))  # fmt: skip
        rules = start(load.rules_only())
        guard_behind = load.free_port()
        kinds: list[tuple[str, Any]] = [
            ("no-op proxy", lambda port: load.no_op_proxy(port, model)),
            ("KidRails, rules only",
             lambda port: load.guard_proxy(port, model, "--policy", str(rules))),
            ("KidRails", lambda port: load.guard_proxy(port, model)),
        ]  # fmt: skip
        with_litellm = not args.without_litellm and importlib.util.find_spec("litellm")
        if with_litellm:
            both = ["pre_call", "post_call"]
            for name, guard, own in (
                ("LiteLLM, bare", None, []),
                ("LiteLLM, its filter, request", None, both[:1]),
                ("LiteLLM, its filter, both", None, both),
                (f"{INSIDE}, rules", guard_behind, []),
                (INSIDE, guard_behind, []),
            ):
                config = litellm_config(folder, model, guard, own)
                kinds.append((name, lambda port, config=config: litellm_proxy(port, config)))
        for name, command in tqdm(kinds, disable=None):
            port = load.free_port()
            headers, path = {}, "/health"
            with ExitStack() as inner:
                pids = []
                if name.startswith("LiteLLM"):
                    headers, path = {"Authorization": f"Bearer {KEY}"}, "/health/liveliness"
                if name.startswith(INSIDE):
                    policy = ["--policy", str(rules)] if name != INSIDE else []
                    behind = load.guard_proxy(guard_behind, model, *policy)
                    url = f"http://127.0.0.1:{guard_behind}/health"
                    pids.append(inner.enter_context(load.running(behind, until=url)))
                running = load.running(
                    command(port), until=f"http://127.0.0.1:{port}{path}", env=ENVIRONMENT
                )
                pids.append(inner.enter_context(running))
                load.measure(port, clients=4, requests=20, stream=False, processes=[],
                             headers=headers)  # fmt: skip
                for stream in (False, True):
                    for clients in CLIENTS:
                        # A slow one is asked less, so that the whole run stays within minutes.
                        count = args.requests if not name.startswith("LiteLLM") else (
                            max(clients, args.requests // 5)
                        )  # fmt: skip
                        found = load.measure(
                            port,
                            clients=clients,
                            requests=max(count, clients),
                            stream=stream,
                            processes=pids,
                            headers=headers,
                        )
                        rows.append((f"{name}, {'streamed' if stream else 'whole'}", found))
                if not name.startswith("LiteLLM") and args.open_streams:
                    held[name] = asyncio.run(hold_open(port, args.open_streams, headers))
                    memory = sum(psutil.Process(pid).memory_info().rss for pid in pids)
                    held[name]["memory_mib"] = round(memory / 2**20)
    print(load.table(rows))
    print("\nstreams held open at once:")
    for name, found in held.items():
        print(f"  {name:28} {found}")
    dump_json(
        RESULT,
        {
            "machine": about,
            "requests_a_round": args.requests,
            "litellm": bool(with_litellm),
            "rows": [
                {"what": name} | {k: None if v != v else v for k, v in asdict(row).items()}
                for name, row in rows
            ],
            "open_streams": held,
        },
    )
    print(f"written: {RESULT.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

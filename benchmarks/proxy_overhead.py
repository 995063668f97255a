"""What the guard adds to a request, beside a proxy that does nothing, in one run.

Usage: python benchmarks/proxy_overhead.py [--requests 400]

A mock model server, a plain Starlette proxy, the guard with the checks of the default policy, and
the guard without its classifier (rules only), at 1, 16 and 64 clients, whole and streamed. The
rounds alternate, so that other work on the machine weighs on all alike; the medians of the rounds
are reported. CPU a request depends least on what else runs.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "benchmarks" / "kit"))

import load  # noqa: E402
from tqdm import tqdm  # noqa: E402

from kidrails_guard.files import dump_json  # noqa: E402

RESULT = ROOT / "benchmarks" / "results" / "proxy_overhead.json"
CLIENTS = (1, 16, 64)


def middle(rounds: list[load.Load]) -> load.Load:
    values = [asdict(found) for found in rounds]
    return load.Load(**{
        key: sum(v[key] for v in values) if key == "errors"
        else statistics.median(v[key] for v in values)
        for key in values[0]
    })  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=400, help="of one round")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    about = load.machine()
    model, noop, guard, rules = (load.free_port() for _ in range(4))
    rows: list[tuple[str, load.Load]] = []
    with ExitStack() as stack:
        start = stack.enter_context

        def answering(port: int, path: str = "/health") -> str:
            return f"http://127.0.0.1:{port}{path}"

        start(load.running(load.mock_model(model), until=answering(model, "/v1/models")))
        pids = {
            noop: start(load.running(load.no_op_proxy(noop, model), until=answering(noop))),
            guard: start(load.running(load.guard_proxy(guard, model), until=answering(guard))),
            rules: start(
                load.running(
                    load.guard_proxy(rules, model, "--policy", str(start(load.rules_only()))),
                    until=answering(rules),
                )
            ),
            model: 0,
        }
        names = {
            model: "direct",
            noop: "no-op proxy",
            rules: "KidRails, rules only",
            guard: "KidRails",
        }
        rounds = [(clients, stream) for stream in (False, True) for clients in CLIENTS]
        for port in names:  # warm
            load.measure(port, clients=8, requests=60, stream=True, processes=[])
        for clients, stream in tqdm(rounds, disable=None):
            found: dict[int, list[load.Load]] = {port: [] for port in names}
            for _ in range(args.rounds):
                for port in names:
                    found[port].append(
                        load.measure(
                            port,
                            clients=clients,
                            requests=args.requests if clients > 1 else args.requests // 2,
                            stream=stream,
                            processes=[pids[port]] if pids[port] else [],
                        )
                    )
            kind = "streamed" if stream else "whole"
            rows += [(f"{names[port]}, {kind}", middle(found[port])) for port in names]
    by_name = {(name, row.clients): row for name, row in rows}
    ratios = {
        f"{name}, {kind}, {clients} clients": {
            "p50": round(ours.p50_ms / plain.p50_ms, 2),
            "added_p50_ms": round(ours.p50_ms - plain.p50_ms, 2),
            "added_p95_ms": round(ours.p95_ms - plain.p95_ms, 2),
            "added_first_p50_ms": round(ours.first_p50_ms - plain.first_p50_ms, 2),
            "cpu": round(ours.cpu_ms_a_request / max(0.01, plain.cpu_ms_a_request), 2),
        }
        for name in (names[rules], names[guard])
        for kind in ("whole", "streamed")
        for clients in CLIENTS
        for ours, plain in [
            (by_name[f"{name}, {kind}", clients], by_name[f"no-op proxy, {kind}", clients])
        ]
    }
    print(load.table(rows))
    print("\nKidRails to the no-op proxy:")
    for name, ratio in ratios.items():
        print(f"  {name:44} {ratio}")
    dump_json(
        RESULT,
        {
            "machine": about,
            "requests_a_round": args.requests,
            "rounds": args.rounds,
            "rows": [{"what": name, **asdict(row)} for name, row in rows],
            "to_the_no_op_proxy": ratios,
        },
    )
    print(f"written: {RESULT.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

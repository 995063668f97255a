"""The embedded engine's own process: ``python -m kidrails_guard.engine.llamacpp_server``.

It is a process of its own because llama.cpp ends the process it runs in when something goes badly
wrong; the guard must survive that.
"""

from __future__ import annotations

import argparse
import os
import signal
from collections.abc import Sequence
from typing import Any, Final

#: llama.cpp's level "errors". Higher ones would print lines for every request.
_ERRORS: Final = 1
_IDLE_S: Final = 600


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until a signal comes or the starter ends; return 1 when it cannot start."""
    parser = argparse.ArgumentParser(prog="llamacpp_server", description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--context", type=int, required=True)
    parser.add_argument("--parallel", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--adapter")
    parser.add_argument("--adapter-scale", type=float, default=1.0)
    args = parser.parse_args(argv)

    import xllamacpp

    from kidrails_guard.engine.leash import LEASH, exit_with_parent

    # Blocked in every thread, llama.cpp's included, and fetched below: nothing is interrupted.
    ends = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, ends)
    if os.environ.get(LEASH):
        exit_with_parent(lambda: os.kill(os.getpid(), signal.SIGTERM))
    try:
        _server = xllamacpp.Server(parameters(xllamacpp, args))
    except RuntimeError:
        return 1  # llama.cpp has printed why
    signal.sigwait(ends)
    # Nothing is to be saved, and llama.cpp's own end waits for the answers under way.
    os._exit(0)


def parameters(library: Any, args: argparse.Namespace) -> Any:
    """Return llama.cpp's parameters for the parsed arguments.

    Everything that shows one client what another wrote is off (``/slots``, the web page without a
    guard, the cache of prompts in memory), and no other site's page may read an answer (CORS).
    """
    own = f"http://{args.host}:{args.port}"
    values = library.CommonParams()
    values.model.path = args.model
    values.model_alias = {args.name}
    values.hostnames = [args.host]
    values.port = args.port
    values.n_ctx = args.context * args.parallel
    values.n_parallel = args.parallel
    values.use_jinja = True
    for cpu in (values.cpuparams, values.cpuparams_batch):
        cpu.n_threads = args.threads
        cpu.poll = 0  # waiting threads sleep: guard, page and model share the cores
    values.timeout_read = values.timeout_write = _IDLE_S
    values.cache_ram_mib = 0
    values.cache_idle_slots = False
    values.ui = False
    values.endpoint_slots = False
    values.endpoint_props = False
    values.endpoint_metrics = False
    values.cors_origins = own
    values.cors_origins_explicit = True
    values.cors_credentials = False
    values.verbosity = _ERRORS
    if args.adapter:
        values.lora_adapters = [library.CommonAdapterLoraInfo(args.adapter, args.adapter_scale)]
    return values


if __name__ == "__main__":
    raise SystemExit(main())

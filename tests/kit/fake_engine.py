"""A stand-in for a model server: the standard library's HTTP server, behaving as told.

Run as ``python fake_engine.py PORT MODE``:

- ``ok``: answers at once and offers the model ``fake``;
- ``late``: says "loading" for half a second;
- ``slow``: says "loading" for ever;
- ``dies``: prints llama.cpp's kind of error and ends with status 3;
- ``raises``: ends with a Python traceback;
- ``silent``: ends without a word;
- ``other``: offers another model;
- ``stubborn``: ignores SIGTERM;
- ``loud``: prints more than a pipe holds before it answers;
- ``parent``: has a child that ignores SIGTERM; its process id is offered as a second model.
"""

from __future__ import annotations

import http.server
import json
import signal
import subprocess
import sys
import time

MODEL = "fake"
CHILD = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("there", flush=True)
time.sleep(600)
"""


def main() -> int:
    """Serve until killed."""
    port, mode = int(sys.argv[1]), sys.argv[2]
    started, offered = time.monotonic(), [MODEL]
    if mode == "dies":
        print("0.00.029 I srv init: loading model")
        print("0.00.030 E llama_model_load: error loading model: the planets stand badly")
        print("0.00.031 E srv init: exiting due to model loading error", flush=True)
        return 3
    if mode == "raises":
        raise ValueError("the stars as well")
    if mode == "silent":
        return 4
    if mode == "other":
        offered = ["somebody-else"]
    if mode == "loud":
        print("x" * 300_000)
    if mode == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if mode == "parent":
        child = subprocess.Popen([sys.executable, "-c", CHILD], stdout=subprocess.PIPE)
        assert child.stdout is not None
        child.stdout.readline()
        offered.append(str(child.pid))

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            loading = mode == "slow" or (mode == "late" and time.monotonic() - started < 0.5)
            body = json.dumps({"data": [{"id": name} for name in offered]}).encode()
            self.send_response(503 if loading else 200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            print("a child wrote something secret", flush=True)

    print("listening", flush=True)
    http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

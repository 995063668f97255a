"""A model server as a process of its own, to be killed: python say_server.py PORT PAUSE_S TEXT."""

from __future__ import annotations

import sys

import uvicorn
from upstreams import Says

if __name__ == "__main__":
    port, pause_s, text = int(sys.argv[1]), float(sys.argv[2]), sys.argv[3]
    says = Says(*(word + " " for word in text.split(" ")), pause_s=pause_s)
    uvicorn.run(says.app, port=port, log_level="error", timeout_graceful_shutdown=1)

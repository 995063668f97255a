from __future__ import annotations

import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kidrails_guard.engine.base import Backend, EnginePlan

KIT = Path(__file__).resolve().parents[2] / "kit"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def plan_of() -> Callable[..., EnginePlan]:
    def make(mode: str, **changes: Any) -> EnginePlan:
        port = changes.pop("port", None) or free_port()
        values: dict[str, Any] = {
            "backend": Backend.LLAMACPP,
            "name": "fake",
            "model": "m.gguf",
            "host": "127.0.0.1",
            "port": port,
            "command": (sys.executable, str(KIT / "fake_engine.py"), str(port), mode),
            "environment": {"PYTHONDONTWRITEBYTECODE": "1"},
            "start_timeout_s": 30.0,
        }
        return EnginePlan(**{**values, **changes})

    return make


@pytest.fixture
def cleanup() -> Iterator[list[Any]]:
    """Engines put into the list are stopped after the test."""
    engines: list[Any] = []
    yield engines
    for engine in engines:
        engine.stop(grace_s=0.5)

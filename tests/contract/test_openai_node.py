"""The official OpenAI client for Node, unchanged, against the proxy over real HTTP."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from planted import planted_guard
from upstreams import CALM, Says, served

from kidrails_guard.proxy.app import build_app
from kidrails_guard.proxy.seams import OneTenant
from kidrails_guard.proxy.settings import Settings

FOLDER = Path(__file__).parent / "node"


@pytest.fixture(scope="module")
def client(repository: Path) -> Path:
    """A folder with the client installed, by the hashes of the lock file."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("no node and npm on the PATH; on Debian: apt-get install nodejs npm")
    folder = repository / "build" / "node"
    lock = (FOLDER / "package-lock.json").read_text()
    installed = folder / "installed.json"
    folder.mkdir(parents=True, exist_ok=True)
    if not installed.exists() or installed.read_text() != lock:
        for name in ("package.json", "package-lock.json"):
            shutil.copy(FOLDER / name, folder / name)
        command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
        if done.returncode:
            pytest.skip(f"npm cannot install the client: {done.stderr[-300:]}")
        installed.write_text(lock)
    shutil.copy(FOLDER / "client.mjs", folder / "client.mjs")
    return folder


def test_the_node_client_sees_what_it_knows(client: Path) -> None:
    upstream = Says(*[word + " " for word in CALM.split(" ")])
    with served(upstream.app) as base:
        app = build_app(Settings(base), tenants=OneTenant(planted_guard()))
        with served(app) as proxy:
            done = subprocess.run(
                ["node", "client.mjs", f"{proxy}/v1"],
                cwd=client,
                capture_output=True,
                text=True,
                timeout=120,
            )
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    calm = CALM + " "
    assert seen["whole"] == [calm, "stop"]
    assert len(seen["requestId"]) == 24
    assert seen["streamed"] == [calm, "stop", 12]
    text, finish, total = seen["blocked"]
    assert (finish, total) == ("content_filter", 0)
    assert "zorblat" not in text
    assert seen["helper"] == calm
    assert seen["response"] == [calm, "completed"]
    assert seen["responseStream"] == [calm, "response.completed"]
    assert seen["error"] == ["BadRequestError", 400, "temperature", "invalid_value"]
    assert seen["missing"] == ["NotFoundError", 404, "model_not_found"]
    assert seen["models"] == ["small-model"]
    assert seen["moderation"] is True
    assert seen["embedding"] == [0.5, -1]

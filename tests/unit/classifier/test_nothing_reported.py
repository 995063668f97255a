"""The classifier's runtime reports nothing to its maker."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def test_a_check_leaves_nothing_to_be_sent_behind(tmp_path: Path) -> None:
    environment = {k: v for k, v in os.environ.items() if k != "ORT_DISABLE_TELEMETRY"}
    places = {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    command = [sys.executable, "-m", "kidrails_guard", "check", "hello", "--band", "7-9"]
    done = subprocess.run(
        command, env={**environment, **places}, capture_output=True, text=True, check=True
    )
    assert "allow" in done.stdout
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []

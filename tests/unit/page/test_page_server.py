"""How the pages' server ends: without a fuss, however often it is asked to."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest
from page_server import free_port, running, wait_for

pytest.importorskip("gradio", reason="the page's extra is not installed; run: make install")


def test_pressing_ctrl_c_twice_shows_no_traceback(tmp_path: Path) -> None:
    port, log = free_port(), tmp_path / "log"
    command = ["demo", "--port", str(port), "--proxy", f"http://127.0.0.1:{free_port()}/v1"]
    environment = {"KIDRAILS_CONFIG": str(tmp_path), "KIDRAILS_STATE": str(tmp_path)}
    with running(command, log=log, environment=environment) as process:
        wait_for(f"http://127.0.0.1:{port}/ready", process, log=log, seconds=300)
        process.send_signal(signal.SIGINT)
        time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        process.wait(60)
    assert log.read_text() == ""


def test_it_starts_where_gradios_folder_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "gradio").write_text("another user's")
    port, log = free_port(), tmp_path / "log"
    command = ["demo", "--port", str(port), "--proxy", f"http://127.0.0.1:{free_port()}/v1"]
    environment = {"KIDRAILS_CONFIG": str(tmp_path), "KIDRAILS_STATE": str(tmp_path)}
    with running(command, log=log, environment={**environment, "TMPDIR": str(tmp_path)}) as process:
        wait_for(f"http://127.0.0.1:{port}/ready", process, log=log, seconds=300)

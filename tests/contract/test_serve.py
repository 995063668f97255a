"""`kidrails serve` as processes: a model server that is killed, a stop signal, bad wire."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess

import httpx
import pytest
from planted import INTERRUPTED
from processes import (
    ASK,
    SERVE,
    TALK,
    Listener,
    answers,
    metric,
    model,
    proxy,
    quick_policy,
)
from upstreams import free_port, wait_until


@pytest.mark.slow
def test_a_model_server_that_is_killed_and_comes_back() -> None:
    upstream, port = free_port(), free_port()
    ready = f"http://127.0.0.1:{port}/ready"
    with proxy(upstream, port) as guard:
        assert httpx.get(ready).status_code == 503
        with model(upstream) as killed:
            wait_until(lambda: answers(ready), what="ready")
            listener = Listener(port)
            listener.start()
            wait_until(lambda: len(listener.text) > 40, what="first words")
            killed.send_signal(signal.SIGKILL)
            listener.join(30)
        assert listener.done
        assert listener.finish == "length"
        shown, _, kind = listener.text.rpartition("\n\n")
        assert kind in INTERRUPTED
        assert TALK.startswith(shown)
        wait_until(lambda: not answers(ready), what="not ready")
        response = httpx.post(f"http://127.0.0.1:{port}/v1/chat/completions", json=ASK)
        assert response.status_code == 503
        assert response.json()["error"]["code"] == "upstream_unreachable"
        with model(upstream, pause_s=0):
            wait_until(lambda: answers(ready), what="ready again")
            response = httpx.post(f"http://127.0.0.1:{port}/v1/chat/completions", json=ASK)
            assert response.json()["choices"][0]["message"]["content"].strip() == TALK
        guard.terminate()
        out, err = guard.communicate(timeout=30)
    assert "Traceback" not in out + err
    assert "wolves" not in (out + err).lower()
    assert f"at http://127.0.0.1:{port}/v1" in out


@pytest.fixture
def heard():
    """Let children hear SIGHUP also where these tests were started with nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.usefixtures("heard")
def test_a_stop_signal_ends_open_streams_kindly(tmp_path, number: int) -> None:
    upstream, port = free_port(), free_port()
    more = ["--shutdown-seconds", "1", "--policy", quick_policy(tmp_path)]
    more += ["--log-format", "json", "--log-level", "info"]
    traced = {**os.environ, "OTEL_TRACES_EXPORTER": "console"}
    with model(upstream, pause_s=0.1), proxy(upstream, port, *more, env=traced) as guard:
        listeners = [Listener(port) for _ in range(8)]
        for listener in listeners:
            listener.start()
        wait_until(lambda: all(len(x.text) > 30 for x in listeners), what="first words")
        guard.send_signal(number)
        for listener in listeners:
            listener.join(30)
        out, err = guard.communicate(timeout=30)
        assert guard.returncode == 0
    for listener in listeners:
        assert listener.done
        assert listener.finish == "length"
        assert listener.text.endswith(INTERRUPTED)
        assert TALK.startswith(listener.text.rpartition("\n\n")[0])
    assert "wolves" not in (out + err).lower()
    # Each request is a line of JSON and a span, both under its number, sent before the end.
    lines = [json.loads(line) for line in err.splitlines() if line.startswith("{")]
    logged = {line["request_id"] for line in lines if line.get("route") == "chat"}
    assert len(logged) == len(listeners)
    assert out.count('"POST /v1/chat/completions"') == len(listeners)
    assert all(number in out for number in logged)


def kidrails(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*SERVE, *arguments], capture_output=True, text=True, timeout=120)


def test_a_port_in_use_is_said_plainly() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = kidrails("--upstream", "http://localhost:1", "--port", str(port))
    assert done.returncode == 2
    assert f"cannot listen on 127.0.0.1:{port}" in done.stderr
    assert "--port N" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--upstream", "ftp://x"], "upstream"),
        (["--upstream", "http://x", "--band", "18"], "accepted: 5-6, 7-9, 10-12"),
        (["--upstream", "http://x", "--port", "99999"], "--port"),
        (["--upstream", "http://x", "--metrics-port", "-1"], "--metrics-port"),
        (["--upstream", "http://x", "--workers", "0"], "--workers"),
        (["--upstream", "http://x", "--policy", "/none.yaml"], "no such file"),
        (["--upstream", "http://x", "--keys", "/none.yaml"], "no such key file"),
        (["--upstream", "http://x", "--sessions", "mysql://x"], "accepted: memory"),
        (["--upstream", "http://x", "--pass-field", "chat_template"], "cannot be passed on"),
        (["--upstream", "http://x", "--alert-email", "a@b.test"], "KIDRAILS_SMTP_HOST"),
    ],
)
def test_wrong_use_is_said_plainly(arguments: list[str], said: str) -> None:
    done = kidrails(*arguments)
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_workers_that_cannot_start_end_the_service_with_their_reason(tmp_path) -> None:
    (tmp_path / "audit").write_text("a file where a folder should be")
    base = ["--upstream", "http://localhost:1", "--port", str(free_port()), "--workers", "2"]
    base += ["--policy", quick_policy(tmp_path), "--audit", str(tmp_path / "audit")]
    done = kidrails(*base)
    assert done.returncode == 1
    assert "the audit log cannot be written there" in done.stderr
    assert "no worker can start: giving up" in done.stderr
    assert "Traceback" not in done.stderr
    assert "guards http" not in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["1", "2"])
def test_the_numbers_have_a_port_of_their_own(tmp_path, workers: str) -> None:
    upstream, port, numbers = free_port(), free_port(), free_port()
    more = ["--policy", quick_policy(tmp_path), "--workers", workers]
    more += ["--metrics-port", str(numbers)]
    with model(upstream, pause_s=0), proxy(upstream, port, *more) as guard:
        for _ in range(6):
            answer = httpx.post(f"http://127.0.0.1:{port}/v1/chat/completions", json=ASK)
            assert answer.status_code == 200
        assert metric(numbers, "kidrails_requests_total", route="chat") == 6
        assert httpx.get(f"http://127.0.0.1:{port}/metrics").status_code == 404
        assert httpx.get(f"http://127.0.0.1:{numbers}/health").status_code == 404
        taken = kidrails("--upstream", "http://localhost:1", "--metrics-port", str(numbers),
                         "--port", "0")  # fmt: skip
        assert taken.returncode == 2
        assert "choose another with --metrics-port N" in taken.stderr
        guard.terminate()
        out, _ = guard.communicate(timeout=30)
    assert f"/metrics on port {numbers}" in out


SMUGGLED = [
    "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    "GET /v1/models HTTP/1.1\r\n\r\n",
    "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n"
    "Content-Length: 9\r\n\r\n"
    "{}",
    "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "POST /v1/chat/completions HTTP/1.1\r\nHost : x\r\nContent-Length: 2\r\n\r\n{}",
    "GET /v1/models HTTP/1.1\r\n\r\n",
    "GARBAGE\r\n\r\n",
    "GET /health HTTP/1.1\r\nHost: x\r\nX: " + "y" * 200_000 + "\r\n\r\n",
]


@pytest.mark.slow
def test_odd_http_gets_no_answer_from_behind_the_guard(tmp_path) -> None:
    upstream, port = free_port(), free_port()
    with proxy(upstream, port, "--policy", quick_policy(tmp_path)) as guard:
        for raw in SMUGGLED:
            with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
                with contextlib.suppress(OSError):
                    client.sendall(raw.encode())
                    client.shutdown(socket.SHUT_WR)
                answer = b""
                with contextlib.suppress(OSError):
                    while part := client.recv(65536):
                        answer += part
            assert b" 200 " not in answer, raw[:60]
            assert b"Traceback" not in answer
        assert httpx.get(f"http://127.0.0.1:{port}/health").status_code == 200
        guard.terminate()
        assert "Traceback" not in guard.communicate(timeout=30)[1]

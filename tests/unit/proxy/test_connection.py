"""A caller that sends or reads too slowly is let go; everyone else is not."""

from __future__ import annotations

import json
import socket
import time

import httpx
import pytest
from clients import Ledger
from planted import planted_guard
from upstreams import CALM, Says, served, wait_until

from kidrails_guard.policy import Limits
from kidrails_guard.proxy.app import build_app
from kidrails_guard.proxy.connection import BoundedConnection
from kidrails_guard.proxy.seams import OneTenant
from kidrails_guard.proxy.settings import Settings

HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"


class Quick(BoundedConnection):
    headers_within_s = 0.4
    read_within_s = 0.4


def proxy(ledger: Ledger, upstream: str):
    guard = planted_guard(limits=Limits(max_reply_characters=10**9))
    return build_app(Settings(upstream), tenants=OneTenant(guard), audit=ledger, meter=ledger)


def connect(url: str) -> socket.socket:
    host, port = url.removeprefix("http://").split(":")
    client = socket.create_connection((host, int(port)), timeout=10)
    client.settimeout(10)
    return client


def everything(client: socket.socket) -> bytes:
    data = b""
    while part := client.recv(65_536):
        data += part
    return data


@pytest.fixture(scope="module")
def url():
    with served(proxy(Ledger(), "http://127.0.0.1:9"), http=Quick) as base:
        yield base


@pytest.mark.parametrize("sent", [b"P", b"GET /health HTTP/1.1\r\n", HEAD])
def test_headers_that_never_end_are_given_up_with_a_reason(url: str, sent: bytes) -> None:
    with connect(url) as client:
        client.sendall(sent)
        status, _, rest = everything(client).partition(b"\r\n")
    assert status == b"HTTP/1.1 408 Request Timeout"
    error = json.loads(rest.partition(b"\r\n\r\n")[2])["error"]
    assert error["code"] == "request_timeout"
    assert "headers" in error["message"]


def test_headers_byte_by_byte_get_no_more_time(url: str) -> None:
    with connect(url) as client:
        end = time.monotonic() + 8
        answered = False
        for byte in HEAD * 50:
            try:
                client.sendall(bytes([byte]))
            except OSError:
                answered = True
                break
            if time.monotonic() > end:
                break
            time.sleep(0.05)
        assert answered


def test_a_connection_that_says_nothing_is_closed(url: str) -> None:
    with connect(url) as client:
        assert everything(client) == b""


def test_a_kept_connection_may_rest_but_not_begin_and_stop(url: str) -> None:
    with connect(url) as client:
        client.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert client.recv(65_536).startswith(b"HTTP/1.1 200")
        time.sleep(1.0)  # more than the time for headers
        client.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert client.recv(65_536).startswith(b"HTTP/1.1 200")
        client.sendall(b"GET /hea")
        assert everything(client).startswith(b"HTTP/1.1 408")


def test_a_body_behind_its_answer_holds_no_connection_open(url: str) -> None:
    with connect(url) as client:
        client.sendall(b"POST /nothing HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n")
        assert client.recv(65_536).startswith(b"HTTP/1.1 404")
        client.sendall(b"x")
        assert everything(client) == b""


def test_a_connection_that_rests_is_told_nothing(url: str) -> None:
    # A client that asks again would take it for the answer to its new request.
    with connect(url) as client:
        client.sendall(b"POST /nothing HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n")
        assert client.recv(65_536).startswith(b"HTTP/1.1 404")
        client.sendall(b"{}")
        time.sleep(0.1)
        client.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert client.recv(65_536).startswith(b"HTTP/1.1 200")
        client.sendall(b"POST /nothing HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n")
        assert client.recv(65_536).startswith(b"HTTP/1.1 404")
        client.sendall(b"{}")
        assert everything(client) == b""


def test_a_slow_answer_is_not_a_slow_caller() -> None:
    says = Says(*CALM, pause_s=0.01)
    with served(says.app) as model, served(proxy(Ledger(), model), http=Quick) as base:
        ask = {"model": "m", "messages": [{"role": "user", "content": "hello"}], "stream": True}
        response = httpx.post(f"{base}/v1/chat/completions", json=ask, timeout=30)
    assert response.text.rstrip().endswith("data: [DONE]")
    assert '"finish_reason":"stop"' in response.text


def test_a_caller_that_does_not_read_is_let_go() -> None:
    # More than the kernel's buffers take in for a caller that reads nothing.
    says, ledger = Says(*([CALM * 1_000 + "\n"] * 200)), Ledger()
    ask = {"model": "m", "messages": [{"role": "user", "content": "hello"}], "stream": True}
    body = json.dumps(ask).encode()
    with (
        served(says.app) as model,
        served(proxy(ledger, model), http=Quick) as base,
        connect(base) as client,
    ):
        client.sendall(HEAD + f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
        wait_until(lambda: len(ledger.events) == 2, what="the reply's event")
        assert ledger.events[1].note == "caller_left"
        wait_until(lambda: ledger.open_streams == 0, what="the stream's end")

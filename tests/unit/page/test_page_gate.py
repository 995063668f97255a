"""Who may open what, asked of the whole application."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

pytest.importorskip("gradio", reason="the page's extra is not installed; run: make install")

from page_server import free_port, running, wait_for

from kidrails_guard.audit import read_inbox
from kidrails_guard.demo import PageOptions, build_app
from kidrails_guard.page.gate import VISIT_COOKIE, Sessions, session_cookie
from kidrails_guard.page.settings import SettingsStore
from kidrails_guard.types import AgeBand

PIN = "8642"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("page")


@pytest.fixture(scope="module")
def base(folder: Path) -> Iterator[str]:
    """The page, served by the real command, in front of a guard that is not there."""
    port, log = free_port(), folder / "log"
    command = ["demo", "--port", str(port), "--proxy", f"http://127.0.0.1:{free_port()}/v1"]
    command += ["--audit", str(folder / "audit")]
    environment = {"KIDRAILS_CONFIG": str(folder / "config")}
    with running(command, log=log, environment=environment) as process:
        wait_for(f"http://127.0.0.1:{port}/ready", process, log=log)
        assert process.stdout is not None
        assert process.stdout.readline() == f"ready: http://127.0.0.1:{port}/\n"
        yield f"http://127.0.0.1:{port}"
    assert process.returncode == 0
    assert log.read_text() == ""


@pytest.fixture
def store(folder: Path) -> SettingsStore:
    made = SettingsStore(folder / "config")
    made.forget()
    return made


@pytest.fixture
async def client(base: str, store: SettingsStore) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=base, trust_env=False) as made:
        yield made


@pytest.fixture
def set_up(store: SettingsStore) -> SettingsStore:
    store.set_up(PIN, band=AgeBand.MIDDLE)
    return store


async def test_everything_leads_to_setup_first(client: httpx.AsyncClient) -> None:
    for path in ("/", "/grown-up/", "/grown-up/login"):
        answer = await client.get(path)
        assert (answer.status_code, answer.headers["location"]) == (303, "/grown-up/setup")
    form = await client.get("/grown-up/setup")
    assert form.status_code == 200
    assert re.search(r'<label for="pin">', form.text)
    assert "How old is the child?" in form.text


async def test_setup_keeps_pin_and_band_and_opens_the_childs_page(
    client: httpx.AsyncClient, store: SettingsStore
) -> None:
    data = {"band": "10-12", "pin": PIN, "again": PIN}
    answer = await client.post("/grown-up/setup", data=data)
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    assert set(client.cookies) <= {VISIT_COOKIE}  # the next at the keyboard is the child
    settings = store.read()
    assert settings is not None
    assert settings.band is AgeBand.UPPER
    # A session from before the PIN was forgotten ends.
    await client.post("/grown-up/login", data={"pin": PIN})
    assert (await client.get("/grown-up/config")).status_code == 200
    store.forget()
    await client.post("/grown-up/setup", data=data)
    assert (await client.get("/grown-up/config")).status_code == 401
    again = await client.post("/grown-up/setup", data={**data, "pin": "9753", "again": "9753"})
    assert again.headers["location"] == "/grown-up/login"
    assert store.try_pin(PIN).right


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"again": "9753"}, "differ"),
        ({"pin": "12", "again": "12"}, "4 to 12 digits"),
        ({"pin": "1234", "again": "1234"}, "tries first"),
        ({"band": "13-15"}, "how old"),
    ],
)
async def test_setup_says_what_is_wrong(
    client: httpx.AsyncClient, store: SettingsStore, changes: dict[str, str], said: str
) -> None:
    data = {"band": "7-9", "pin": PIN, "again": PIN, **changes}
    answer = await client.post("/grown-up/setup", data=data)
    assert answer.status_code == 400
    assert 'role="alert"' in answer.text
    assert said in answer.text
    assert store.read() is None


async def test_the_childs_page_needs_no_pin_and_the_grown_ups_does(
    client: httpx.AsyncClient, set_up: SettingsStore
) -> None:
    assert (await client.get("/")).status_code == 200
    answer = await client.get("/grown-up/")
    assert (answer.status_code, answer.headers["location"]) == (303, "/grown-up/login")
    for path in ("config", "gradio_api/info", "gradio_api/queue/data", "theme.css", "assets/x.js"):
        assert (await client.get(f"/grown-up/{path}")).status_code == 401
    join = await client.post("/grown-up/gradio_api/queue/join", json={"data": [], "fn_index": 0})
    assert join.status_code == 401


async def test_a_page_that_lost_its_connection_finds_back(
    client: httpx.AsyncClient, set_up: SettingsStore
) -> None:
    for page in ("", "/grown-up"):  # also one whose session a restart has ended
        answer = await client.get(f"{page}/gradio_api/app_id")
        assert answer.status_code == 200
        assert list(answer.json()) == ["app_id"]


async def test_the_note_that_a_child_wants_to_talk_needs_no_gradio(
    client: httpx.AsyncClient, set_up: SettingsStore, folder: Path
) -> None:
    set_up.change(people=("<Papa>",))
    before = len(read_inbox(folder / "audit"))
    answer = await client.post("/tell")
    assert (answer.status_code, answer.text) == (200, "<li>&lt;Papa&gt;</li>")
    assert len(read_inbox(folder / "audit")) == before + 1
    elsewhere = await client.post("/tell", headers={"origin": "http://evil.example"})
    assert elsewhere.status_code == 403
    assert (await client.get("/tell")).status_code == 404
    assert len(read_inbox(folder / "audit")) == before + 1


async def test_the_pin_opens_and_the_lock_closes(
    client: httpx.AsyncClient, set_up: SettingsStore
) -> None:
    wrong = await client.post("/grown-up/login", data={"pin": "1111"})
    assert wrong.status_code == 400
    assert "not the PIN" in wrong.text
    right = await client.post("/grown-up/login", data={"pin": PIN})
    assert (right.status_code, right.headers["location"]) == (303, "/grown-up/")
    cookie = right.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert "Path=/grown-up" in cookie
    page = await client.get("/grown-up/")
    assert page.status_code == 200
    assert "KidRails for grown-ups" in page.text
    assert (await client.get("/grown-up/lock")).headers["location"] == "/"
    name = session_cookie({"host": client.base_url.netloc.decode()})
    assert cookie.startswith(f"{name}=")
    assert str(client.base_url.port) in name  # the page of another group keeps its own
    client.cookies.set(name, cookie.split("=")[1].split(";")[0], path="/grown-up")
    assert (await client.get("/grown-up/")).status_code == 303


async def test_three_wrong_pins_make_everyone_wait(
    client: httpx.AsyncClient, set_up: SettingsStore
) -> None:
    for _ in range(3):
        answer = await client.post("/grown-up/login", data={"pin": "1111"})
    assert "wait 5 seconds" in answer.text
    other = await client.post("/grown-up/login", data={"pin": PIN})
    assert other.status_code == 400
    assert set(client.cookies) <= {VISIT_COOKIE}


@pytest.mark.parametrize(
    "path",
    [
        "/docs",
        "/openapi.json",
        "/monitoring",
        "/login",
        "/gradio_api/upload",
        "/gradio_api/file=/etc/passwd",
        "/gradio_api/proxy=http://example.com/",
        "/gradio_api/openapi.json",
        "/gradio_api/runs",
        "/gradio_api/call/say",
        "/gradio_api/run/say",
        "/gradio_api/vibe-edit",
        "/gradio_api/queue/../upload",
        "/grown-up/gradio_api/upload",
        "/grown-up/../gradio_api/upload",
        "//gradio_api/upload",
        "/svelte/x",
        "/pwa_icon",
    ],
)
async def test_what_no_page_needs_is_not_there(
    client: httpx.AsyncClient, set_up: SettingsStore, path: str
) -> None:
    for method in ("GET", "POST"):
        answer = await client.request(method, path, headers={"content-length": "0"})
        assert answer.status_code in {401, 404}, (method, path)


async def test_every_answer_forbids_other_servers(
    client: httpx.AsyncClient, set_up: SettingsStore
) -> None:
    for path in ("/", "/style.css", "/nothing", "/grown-up/login", "/theme.css", "/ready"):
        headers = (await client.get(path)).headers
        policy = headers["content-security-policy"]
        assert "default-src 'self'" in policy
        assert "frame-ancestors 'none'" in policy
        assert not re.search(r"https?:|\*", policy)
        assert headers["x-content-type-options"] == "nosniff"


async def test_the_pages_name_no_other_server(
    client: httpx.AsyncClient, set_up: SettingsStore
) -> None:
    await client.post("/grown-up/login", data={"pin": PIN})
    for path in ("/", "/grown-up/", "/grown-up/login", "/theme.css", "/style.css"):
        text = (await client.get(path)).text
        loads = re.findall(r"(?:src|href|url)\s*[=(]\s*[\"']?(?:https?:)?//[^\s\"')]+", text)
        assert loads == [], path
        assert "og:image" not in text
        assert "googleapis" not in text


async def test_html_is_not_kept_and_a_visit_is_named_once(
    client: httpx.AsyncClient, set_up: SettingsStore
) -> None:
    first = await client.get("/")
    assert first.headers["cache-control"] == "no-store"
    assert "HttpOnly" in first.headers["set-cookie"]
    assert len(client.cookies[VISIT_COOKIE]) >= 16
    assert "set-cookie" not in (await client.get("/")).headers


async def test_the_name_of_the_host_is_checked(
    client: httpx.AsyncClient, set_up: SettingsStore
) -> None:
    assert (await client.get("/", headers={"host": "evil.example"})).status_code == 421
    for host in ("localhost:7860", "127.0.0.1", "[::1]:7860"):
        assert (await client.get("/", headers={"host": host})).status_code == 200


async def test_other_sites_may_not_post(client: httpx.AsyncClient, set_up: SettingsStore) -> None:
    for origin in ("http://evil.example", "null", "http://127.0.0.1:9999"):
        answer = await client.post("/grown-up/login", data={"pin": PIN}, headers={"origin": origin})
        assert answer.status_code == 403
    own = await client.post(
        "/grown-up/login", data={"pin": PIN}, headers={"origin": str(client.base_url).rstrip("/")}
    )
    assert own.status_code == 303


async def test_bodies_are_bounded(client: httpx.AsyncClient, set_up: SettingsStore) -> None:
    long = await client.post("/grown-up/login", content=b"x" * 100_000)
    assert long.status_code == 413

    async def chunks() -> AsyncIterator[bytes]:
        yield b"pin="

    assert (await client.post("/grown-up/login", content=chunks())).status_code == 411
    odd = await client.post("/grown-up/login", content=b"&".join([b"a=1"] * 50))
    assert odd.status_code == 400
    assert (await client.put("/")).status_code == 405


async def test_the_config_that_the_browser_gets_holds_no_words_and_no_public_api(
    client: httpx.AsyncClient, set_up: SettingsStore
) -> None:
    config = (await client.get("/config")).json()
    assert config["analytics_enabled"] is False
    assert not config.get("run_history")
    assert all(d["api_visibility"] == "private" for d in config["dependencies"])


def test_sessions_end() -> None:
    now = 0.0
    sessions = Sessions(clock=lambda: now)
    token = sessions.open()
    assert sessions.holds(token)
    assert not sessions.holds("other")
    assert not sessions.holds(None)
    another = sessions.open()
    sessions.close_all(but=another)
    assert (sessions.holds(token), sessions.holds(another)) == (False, True)
    sessions.close_all()
    assert not sessions.holds(another)
    token = sessions.open()
    now = 13 * 3600.0
    assert not sessions.holds(token)


async def test_broken_settings_are_told_kindly_and_keep_no_note_back(tmp_path: Path) -> None:
    options = PageOptions("http://guard.test/v1", tmp_path / "audit", tmp_path)
    app = build_app(options)
    (tmp_path / "page.json").write_text("{")
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://localhost"
    ) as client:
        for path in ("/", "/grown-up/login"):
            answer = await client.get(path)
            assert answer.status_code == 503
            assert "get a grown-up" in answer.text
            assert "--forget-pin" in answer.text
        assert (await client.post("/tell", content=b"")).status_code == 200
    assert [entry.kind for entry in read_inbox(tmp_path / "audit")] == ["tell_a_grown_up"]


async def test_idle_pages_do_not_keep_the_machine_busy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    sleep = asyncio.sleep

    async def noted(seconds: float, *rest: Any) -> Any:
        pauses.append(seconds)
        return await sleep(seconds, *rest)

    app = build_app(PageOptions("http://guard.test/v1", tmp_path / "audit", tmp_path))
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://localhost"
    ) as client:
        monkeypatch.setattr(asyncio, "sleep", noted)
        answer = await client.get("/gradio_api/startup-events")
        assert answer.status_code == 200, answer.text
        await sleep(0.3)
        monkeypatch.undo()
    assert pauses
    assert min(pauses) >= 0.05

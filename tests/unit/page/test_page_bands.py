"""A policy that serves fewer age bands than there are: both pages and the setup agree on it."""

from __future__ import annotations

import signal
from pathlib import Path

import httpx
import pytest
import yaml

pytest.importorskip("gradio", reason="the page's extra is not installed; run: make install")

from starlette.applications import Starlette

from kidrails_guard.cli import main
from kidrails_guard.content import content_path
from kidrails_guard.page.chat import ProxyChat
from kidrails_guard.page.forms import Forms
from kidrails_guard.page.gate import SETUP, Sessions
from kidrails_guard.page.grown_up import GrownUpPage
from kidrails_guard.page.settings import SettingsStore
from kidrails_guard.page.talk import ChildPage
from kidrails_guard.policy import DEFAULT_POLICY, load_policy
from kidrails_guard.types import AgeBand


@pytest.fixture
def young(tmp_path: Path) -> Path:
    """A policy for children up to nine."""
    values = yaml.safe_load(content_path(DEFAULT_POLICY).read_text())
    del values["bands"]["10-12"]
    path = tmp_path / "young.yaml"
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    return path


def test_a_grown_up_sees_the_band_that_the_child_is_given(tmp_path: Path, young: Path) -> None:
    policy, store = load_policy(young), SettingsStore(tmp_path)
    store.set_up("8642", band=AgeBand.UPPER)  # while another policy was in use
    chat = ProxyChat("http://guard.test/v1")
    child = ChildPage(chat, store, policy, audit=tmp_path)
    assert child.band is AgeBand.EARLY
    grown_up = GrownUpPage(chat, store, policy, Sessions(), audit=tmp_path)
    assert grown_up.band is child.band


async def test_setup_offers_and_takes_what_is_served(tmp_path: Path, young: Path) -> None:
    store, bands = SettingsStore(tmp_path), tuple(load_policy(young).bands)
    app = Starlette(routes=Forms(store, Sessions(), bands=bands, band=bands[0]).routes())
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://page.test") as client:
        page = (await client.get(SETUP)).text
        assert "7 to 9 years" in page
        assert "10 to 12" not in page
        form = {"band": "10-12", "pin": "8642", "again": "8642"}
        assert "how old" in (await client.post(SETUP, data=form)).text
        assert store.read() is None
        assert (await client.post(SETUP, data={**form, "band": "7-9"})).status_code == 303


def test_a_band_that_is_not_served_is_refused(
    young: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {
        number: signal.getsignal(number)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    }
    try:
        for verb in ("up", "demo"):
            assert main([verb, "--band", "10-12", "--policy", str(young)]) == 2
            assert "serves 5-6, 7-9" in capsys.readouterr().err
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

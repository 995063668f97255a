"""What the operator chose reaches every worker, and what workers do not share is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from kidrails_guard.cli import main
from kidrails_guard.proxy.deployment import Deployment
from kidrails_guard.proxy.keys import KeyFile, KeyLimits, new_key, save_keys
from kidrails_guard.proxy.records import Smtp
from kidrails_guard.proxy.settings import Settings
from kidrails_guard.types import AgeBand


def test_a_worker_reads_what_the_operator_chose() -> None:
    chosen = Deployment(
        Settings("http://x", upstream_key="k", pass_fields=frozenset({"top_a"})),
        band=AgeBand.UPPER,
        webhooks=("https://a.test/x",),
        emails=("a@b.test",),
        smtp=Smtp("mail.test", "c@d.test", password="p"),
        audit_text_days=2,
    )
    assert Deployment.from_json(chosen.to_json()) == chosen


@pytest.mark.parametrize("end", ["\r", "\n", "\r\n", "\x7f"])
def test_a_key_that_no_header_can_hold_is_refused_at_start(
    end: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # Else every request, and /ready, would end as a fault of ours.
    monkeypatch.setattr("kidrails_guard.proxy.server.serve", lambda *args, **more: 0)
    monkeypatch.setenv("KIDRAILS_UPSTREAM_KEY", f"sk-ours{end}")
    assert main(["serve", "--upstream", "http://x"]) == 2
    said = capsys.readouterr().err
    assert "KIDRAILS_UPSTREAM_KEY: holds a line end" in said
    assert "sk-ours" not in said


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    path = tmp_path / "keys.yaml"
    _, entry = new_key("class-4", AgeBand.MIDDLE, limits=KeyLimits(requests_per_minute=30))
    save_keys(path, KeyFile(keys=(entry,)))
    return path


def test_what_several_workers_do_not_share_is_said_at_start(
    keys: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("kidrails_guard.proxy.server.serve", lambda *args, **more: 0)

    def said(*more: str) -> str:
        assert main(["serve", "--upstream", "http://x", "--keys", str(keys), *more]) == 0
        return capsys.readouterr().err

    assert said() == ""
    several = said("--workers", "3")
    assert "each of the 3 workers remembers sessions of its own" in several
    assert "--sessions redis://" in several
    assert "up to 3 times as many" in several
    shared = said("--workers", "3", "--sessions", "redis://localhost")
    assert "sessions of its own" not in shared
    without = said("--workers", "3", "--session-header", "")
    assert "sessions of its own" not in without

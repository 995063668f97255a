"""The options of `kidrails demo`."""

from __future__ import annotations

from pathlib import Path

import pytest

from kidrails_guard.cli import main
from kidrails_guard.commands import demo
from kidrails_guard.errors import MissingDependency, UsageError
from kidrails_guard.page.folders import config_folder, default_audit
from kidrails_guard.page.settings import SettingsStore
from kidrails_guard.types import AgeBand


def test_keys_come_from_the_environment_by_band() -> None:
    assert demo.read_keys({}) == {}
    keys = demo.read_keys({demo.KEYS_VARIABLE: "7-9=kr_a, 10-12=kr_b=="})
    assert keys == {AgeBand.MIDDLE: "kr_a", AgeBand.UPPER: "kr_b=="}
    assert demo.read_keys({demo.KEY_VARIABLE: "kr_c"}) == dict.fromkeys(AgeBand, "kr_c")


@pytest.mark.parametrize("value", ["kr_secret", "13-15=kr_secret", "7-9:kr_secret"])
def test_a_key_that_cannot_be_read_is_not_shown(value: str) -> None:
    with pytest.raises(UsageError, match="band=key") as caught:
        demo.read_keys({demo.KEYS_VARIABLE: value})
    assert "secret" not in str(caught.value)


def test_sampling_is_numbers() -> None:
    assert demo.parse_sampling("") == {}
    fields = demo.parse_sampling("temperature=0.3,max_tokens=80")
    assert fields == {"temperature": 0.3, "max_tokens": 80}
    assert isinstance(fields["max_tokens"], int)
    for text in ("temperature=warm", "temperature=nan", "temperature=inf", "=3"):
        with pytest.raises(UsageError, match="name=number"):
            demo.parse_sampling(text)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--port", "99999"], "1 to 65535"),
        (["--port", "0"], "1 to 65535"),
        (["--proxy", "localhost:8080/v1"], "not a URL such as http://"),
        (["--proxy", "http://localhost:8080"], "answers under /v1"),
    ],
)
def test_what_no_answer_would_come_from_is_said_at_once(
    options: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["demo", *options]) == 2
    assert said in capsys.readouterr().err


def test_bands_are_named() -> None:
    assert demo.parse_band(None) is None
    assert demo.parse_band("5-6") is AgeBand.EARLY
    with pytest.raises(UsageError, match="5-6, 7-9, 10-12"):
        demo.parse_band("8")


def test_a_forgotten_pin_can_be_chosen_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KIDRAILS_CONFIG", str(tmp_path))
    SettingsStore(tmp_path).set_up("8642", band=AgeBand.MIDDLE)
    assert main(["demo", "--forget-pin"]) == 0
    assert "choose a new PIN" in capsys.readouterr().out
    assert SettingsStore(tmp_path).read() is None
    assert main(["demo", "--forget-pin"]) == 0
    assert "no PIN was set" in capsys.readouterr().out


def test_a_container_sets_the_first_pin_and_never_another(tmp_path: Path) -> None:
    store = SettingsStore(tmp_path)
    demo._first_pin(store, "8642", AgeBand.UPPER, policy=None)
    demo._first_pin(store, "97531", AgeBand.EARLY, policy=None)
    settings = store.read()
    assert settings is not None
    assert settings.band is AgeBand.UPPER
    assert store.try_pin("8642").right
    with pytest.raises(UsageError, match="KIDRAILS_PIN: The PIN needs 4 to 12 digits"):
        demo._first_pin(SettingsStore(tmp_path / "other"), "12", None, policy=None)


def test_a_user_without_a_home_names_the_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nowhere() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", nowhere)
    for name in ("KIDRAILS_CONFIG", "KIDRAILS_STATE", "XDG_CONFIG_HOME", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UsageError, match=r"HOME is not set.*KIDRAILS_CONFIG"):
        config_folder()
    monkeypatch.setenv("KIDRAILS_CONFIG", str(tmp_path))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert config_folder() == tmp_path
    assert default_audit() == tmp_path / "kidrails" / "audit"
    monkeypatch.setenv("KIDRAILS_CONFIG", "~no-such-user/kidrails")
    with pytest.raises(UsageError, match="KIDRAILS_CONFIG '~no-such-user/kidrails'"):
        config_folder()


def test_without_gradio_the_command_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingDependency, match=r"pip install 'kidrails-guard\[demo\]'"):
        demo.require_page()

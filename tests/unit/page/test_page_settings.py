"""The PIN, the age band and the file that keeps them."""

from __future__ import annotations

import errno
import json
import stat
from pathlib import Path

import pytest

from kidrails_guard.page import settings as settings_module
from kidrails_guard.page.settings import (
    PageSettings,
    SettingsError,
    SettingsStore,
    check_pin,
    hash_pin,
    same_pin,
    waiting_time,
)
from kidrails_guard.types import AgeBand


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path, clock: Clock) -> SettingsStore:
    made = SettingsStore(tmp_path / "config", clock=clock)
    made.set_up("8642", band=AgeBand.MIDDLE)
    return made


def test_nothing_is_set_before_setup(tmp_path: Path) -> None:
    store = SettingsStore(tmp_path)
    assert store.read() is None
    assert store.try_pin("8642").right is False
    assert not store.path.exists()


def test_the_pin_is_kept_as_a_hash_in_a_file_of_its_owner(store: SettingsStore) -> None:
    text = store.path.read_text()
    assert "8642" not in text
    assert json.loads(text)["pin"].startswith("scrypt$")
    assert stat.S_IMODE(store.path.stat().st_mode) == 0o600


def test_setup_happens_once(store: SettingsStore) -> None:
    with pytest.raises(SettingsError, match="set already"):
        store.set_up("9753", band=AgeBand.UPPER)
    assert store.try_pin("8642").right


@pytest.mark.parametrize("pin", ["123", "12a4", "", "1234567890123", "１２３４", "86 42", "-864"])
def test_a_pin_is_four_to_twelve_digits(pin: str) -> None:
    with pytest.raises(SettingsError, match="4 to 12 digits"):
        check_pin(pin)


@pytest.mark.parametrize("pin", ["1234", "0000", "7777777", "2580"])
def test_what_a_child_tries_first_is_no_pin(pin: str) -> None:
    with pytest.raises(SettingsError, match="tries first"):
        check_pin(pin)


def test_two_hashes_of_one_pin_differ() -> None:
    first, second = hash_pin("8642"), hash_pin("8642")
    assert first != second
    assert same_pin("8642", first)
    assert same_pin("8642", second)
    assert not same_pin("8643", first)


def test_wrong_pins_slow_down_and_the_right_one_waits_too(
    store: SettingsStore, clock: Clock
) -> None:
    waits = []
    for _ in range(5):
        answer = store.try_pin("1111")
        assert not answer.right
        waits.append(answer.wait_s)
        clock.now += answer.wait_s
    assert waits == [0, 0, 5, 10, 20]
    store.try_pin("1111")
    assert store.try_pin("8642").right is False
    clock.now += 40
    assert store.try_pin("8642").right
    assert store.try_pin("1111").wait_s == 0  # the count began anew


def test_a_restart_does_not_shorten_the_wait(store: SettingsStore, clock: Clock) -> None:
    for _ in range(3):
        store.try_pin("1111")
    again = SettingsStore(store.path.parent, clock=clock)
    assert again.try_pin("8642") == store.try_pin("8642")
    assert again.try_pin("8642").wait_s == 5


def test_a_clock_that_was_set_back_locks_for_a_bounded_time(
    store: SettingsStore, clock: Clock
) -> None:
    for _ in range(3):
        store.try_pin("1111")
    clock.now -= 10 * 365 * 86_400
    assert store.try_pin("8642").wait_s <= 900


def test_the_wait_is_bounded() -> None:
    assert waiting_time(10_000) == 900.0


def test_changes_are_kept(store: SettingsStore) -> None:
    store.change(band=AgeBand.EARLY, people=("Mum", "  Grandpa Ali "))
    store.change_pin("97531")
    kept = SettingsStore(store.path.parent).read()
    assert kept is not None
    assert (kept.band, kept.people) == (AgeBand.EARLY, ("Mum", "Grandpa Ali"))
    assert store.try_pin("97531").right
    assert not store.try_pin("8642").right


@pytest.mark.parametrize(
    "people", [("x" * 41,), tuple("abcdefg"), ("",)], ids=["long", "many", "empty"]
)
def test_names_are_bounded(store: SettingsStore, people: tuple[str, ...]) -> None:
    with pytest.raises(SettingsError, match="people"):
        store.change(people=people)


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", '{"pin": "8642", "band": "7-9"}', '{"band": "7-9", "odd": 1}']
)
def test_a_broken_file_is_an_error_that_says_what_to_do(store: SettingsStore, text: str) -> None:
    store.path.write_text(text)
    with pytest.raises(SettingsError, match="--forget-pin") as caught:
        store.read()
    assert str(store.path) in str(caught.value)
    with pytest.raises(SettingsError):
        store.try_pin("8642")  # a broken file lets nobody in


def test_forgetting_begins_anew(store: SettingsStore) -> None:
    assert store.forget()
    assert store.read() is None
    assert not store.forget()
    store.set_up("97531", band=AgeBand.UPPER)
    assert store.try_pin("97531").right


def test_repr_of_settings_holds_no_pin(store: SettingsStore) -> None:
    settings = store.read()
    assert isinstance(settings, PageSettings)
    assert "8642" not in repr(settings)


def test_a_file_that_takes_no_count_does_not_end_the_waiting(
    store: SettingsStore, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    with monkeypatch.context() as patch:
        patch.setattr(settings_module, "write_atomic", full)
        waits = [store.try_pin("9999").wait_s for _ in range(3)]
        assert waits == [0, 0, 5]
        assert not store.try_pin("8642").right
        clock.now += 5
        assert store.try_pin("8642").right
        assert store.try_pin("9999").wait_s == 0  # the count began anew
        store.try_pin("9999")
    store.change(band=AgeBand.UPPER)  # there is room again: what was counted is kept
    assert SettingsStore(store.path.parent, clock=clock).try_pin("9999").wait_s == 5


def test_the_hash_of_the_pin_is_at_no_moment_anybody_elses_to_read(
    store: SettingsStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    modes: list[int] = []
    replace = Path.replace

    def noting(self: Path, target: Path) -> Path:
        modes.append(stat.S_IMODE(self.stat().st_mode))
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", noting)
    store.change_pin("8642")
    store.try_pin("0000")
    assert modes == [0o600, 0o600]

"""Keys are hashed, looked up in constant time, limited, and read again while serving."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import yaml

from kidrails_guard.cli import main
from kidrails_guard.content import content_path
from kidrails_guard.errors import KeysError
from kidrails_guard.guard import Guard
from kidrails_guard.policy import Policy, load_policy
from kidrails_guard.proxy.keyed_tenants import KeyedTenants
from kidrails_guard.proxy.keys import (
    KeyFile,
    KeyLimits,
    load_keys,
    new_key,
    save_keys,
)
from kidrails_guard.proxy.seams import Rejected
from kidrails_guard.types import AgeBand


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keys.yaml"


async def test_a_key_opens_its_tenant_and_nothing_else(file: Path, clock: Clock) -> None:
    key, entry = new_key("class-4", AgeBand.MIDDLE, locale="en", country="GB")
    save_keys(file, KeyFile(keys=(entry,)))
    # The secret is URL-safe base64 and may hold underscores of its own.
    assert key.split("_", 2)[2] not in file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    tenants = KeyedTenants(file, load_policy(), clock=clock)
    tenant = await tenants.authenticate(bearer(key))
    assert (tenant.name, tenant.band, tenant.guard.policy.country) == (
        "class-4",
        AgeBand.MIDDLE,
        "GB",
    )
    assert [t.name for t in tenants.all()] == ["class-4"]
    wrong = key[:-1] + ("A" if key[-1] != "A" else "B")
    for headers in ({}, bearer(""), bearer("kr_x"), bearer(wrong), bearer("sk-" + key),
                    {"authorization": f"Basic {key}"}, bearer("kr_" + "0" * 8 + "_x"),
                    bearer("ключ")):  # fmt: skip
        with pytest.raises(Rejected) as caught:
            await tenants.authenticate(headers)
        assert caught.value.status == 401
        assert key not in str(caught.value)


async def test_revoking_and_adding_need_no_restart(file: Path, clock: Clock) -> None:
    first, entry = new_key("first", AgeBand.EARLY)
    save_keys(file, KeyFile(keys=(entry,)))
    tenants = KeyedTenants(file, load_policy(), clock=clock)
    guard = (await tenants.authenticate(bearer(first))).guard
    second, other = new_key("second", AgeBand.EARLY)
    save_keys(file, KeyFile(keys=(entry, other)))
    assert main(["keys", "revoke", "first", "--file", str(file)]) == 0
    clock.now += 2
    assert (await tenants.authenticate(bearer(second))).guard is guard
    with pytest.raises(Rejected) as caught:
        await tenants.authenticate(bearer(first))
    assert caught.value.status == 403
    assert [t.name for t in tenants.all()] == ["second"]


async def test_a_broken_file_keeps_the_last_good_keys(file: Path, clock: Clock, caplog) -> None:
    key, entry = new_key("a", AgeBand.EARLY)
    save_keys(file, KeyFile(keys=(entry,)))
    tenants = KeyedTenants(file, load_policy(), clock=clock)
    file.write_text("keys: [{name: a, oops: 1}]")
    clock.now += 2
    assert (await tenants.authenticate(bearer(key))).name == "a"
    assert "keeping the last good keys" in caplog.text
    assert "oops" in caplog.text


@pytest.mark.parametrize("mistake", [{"locale": "fr"}, {"policy": "gone.yaml"}])
async def test_a_revoked_key_is_refused_whatever_else_is_wrong(
    file: Path, clock: Clock, caplog: pytest.LogCaptureFixture, mistake: dict[str, str]
) -> None:
    stolen, first = new_key("stolen", AgeBand.MIDDLE)
    other, second = new_key("other", AgeBand.MIDDLE)
    gone, third = new_key("gone", AgeBand.MIDDLE)
    save_keys(file, KeyFile(keys=(first, second, third)))
    tenants = KeyedTenants(file, load_policy(), clock=clock)
    wrong = new_key("wrong", AgeBand.MIDDLE, **mistake)[1]
    save_keys(file, KeyFile(keys=(first, second, wrong)))
    assert main(["keys", "revoke", "stolen", "--file", str(file)]) == 0
    clock.now += 2
    assert (await tenants.authenticate(bearer(other))).name == "other"
    for key, status in ((stolen, 403), (gone, 401)):
        with pytest.raises(Rejected) as caught:
            await tenants.authenticate(bearer(key))
        assert caught.value.status == status
    assert f"{file}: keys.wrong: " in caplog.text
    with pytest.raises(KeysError, match=r"keys\.wrong"):
        KeyedTenants(file, load_policy())


async def test_a_repaired_policy_is_read_without_touching_the_key_file(
    file: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    _, entry = new_key("a", AgeBand.MIDDLE)
    save_keys(file, KeyFile(keys=(entry,)))
    tenants = KeyedTenants(file, load_policy(), clock=clock)
    key, own = new_key("b", AgeBand.MIDDLE, policy="own.yaml")
    save_keys(file, KeyFile(keys=(entry, own)))
    for _ in range(20):
        clock.now += 2
        with pytest.raises(Rejected):
            await tenants.authenticate(bearer(key))
    assert caplog.text.count("own.yaml") == 1  # said once
    shutil.copy(content_path("serve/policies/default.yaml"), file.parent / "own.yaml")
    clock.now += 6
    assert (await tenants.authenticate(bearer(key))).name == "b"


async def test_a_revoked_key_needs_no_policy(file: Path, clock: Clock) -> None:
    _, live = new_key("live", AgeBand.MIDDLE)
    key, dead = new_key("dead", AgeBand.MIDDLE, policy="gone.yaml", locale="fr")
    dead = dead.model_copy(update={"revoked_on": dead.created_on})
    save_keys(file, KeyFile(keys=(live, dead)))
    tenants = KeyedTenants(file, load_policy(), clock=clock)
    assert [t.name for t in tenants.all()] == ["live"]
    with pytest.raises(Rejected, match="'dead' was revoked"):
        await tenants.authenticate(bearer(key))


async def test_the_rate_is_bounded_and_says_when_to_come_back(file: Path, clock: Clock) -> None:
    limits = KeyLimits(requests_per_minute=3, body_bytes=10_000)
    key, entry = new_key("a", AgeBand.EARLY, limits=limits)
    save_keys(file, KeyFile(keys=(entry,)))
    tenants = KeyedTenants(file, load_policy(), clock=clock)
    for _ in range(3):
        assert (await tenants.authenticate(bearer(key))).limits.body_bytes == 10_000
    with pytest.raises(Rejected) as caught:
        await tenants.authenticate(bearer(key))
    assert (caught.value.status, caught.value.retry_after_seconds) == (429, 20)
    clock.now += 20
    assert await tenants.authenticate(bearer(key))
    clock.now += 18.6  # 1.4 s are missing: one is not enough
    with pytest.raises(Rejected) as caught:
        await tenants.authenticate(bearer(key))
    clock.now += caught.value.retry_after_seconds
    assert await tenants.authenticate(bearer(key))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("keys: [{name: 'a b'}]", "keys.0.name"),
        ("kees: []", "did you mean 'keys'"),
        ("keys: {", "not valid YAML"),
        ("- name: a", "holds a list; accepted: a mapping `keys:`"),
    ],
)
def test_a_wrong_file_names_the_place(file: Path, text: str, said: str) -> None:
    file.write_text(text)
    with pytest.raises(KeysError, match=said):
        load_keys(file)


def test_the_command_adds_lists_and_refuses_nonsense(file: Path, capsys) -> None:
    run = lambda *a: main(["keys", *a, "--file", str(file)])  # noqa: E731
    assert run("add", "home", "--band", "5-6", "--requests-per-minute", "30") == 0
    key = capsys.readouterr().out.strip()
    assert key.startswith("kr_")
    assert run("list") == 0
    listed = capsys.readouterr().out
    assert "home" in listed
    assert key not in listed
    assert run("add", "home", "--band", "5-6") == 2
    assert run("add", "x", "--band", "3-4") == 2
    assert "5-6, 7-9, 10-12" in capsys.readouterr().err
    assert run("revoke", "nobody") == 2
    assert run("add", "y", "--band", "5-6", "--policy", "none.yaml") == 2
    assert main(["keys", "list", "--file", str(file.parent / "none.yaml")]) == 2


def test_what_cannot_be_served_is_not_added_and_is_marked(file: Path, capsys) -> None:
    run = lambda *a: main(["keys", *a, "--file", str(file)])  # noqa: E731
    policy = yaml.safe_load(content_path("serve/policies/default.yaml").read_text())
    (file.parent / "own.yaml").write_text(yaml.safe_dump(_without_band(policy, "5-6")))
    assert run("add", "fr", "--band", "7-9", "--locale", "fr") == 2
    assert "'fr' has no answers" in capsys.readouterr().err
    assert run("add", "young", "--band", "5-6", "--policy", "own.yaml") == 2
    assert "keys.young.band: 5-6 is not served" in capsys.readouterr().err
    assert not file.exists()
    assert run("add", "far", "--band", "7-9", "--country", "XX", "--policy", "own.yaml") == 0
    assert "no helpline is known for 'XX'" in capsys.readouterr().err
    assert run("list") == 0
    (file.parent / "own.yaml").unlink()
    assert run("list") == 1
    assert "cannot be served" in capsys.readouterr().out
    assert run("list", "--json") == 1
    assert "own.yaml" in json.loads(capsys.readouterr().out)[0]["problem"]
    assert run("revoke", "far") == 0
    assert run("list") == 0


async def test_the_counters_of_a_key_that_is_added_while_serving_begin_at_once(
    file: Path, clock: Clock
) -> None:
    keys = [new_key(name, AgeBand.MIDDLE) for name in ("class-4", "class-5")]
    save_keys(file, KeyFile(keys=(keys[0][1],)))
    expected: list[list[str]] = []
    tenants = KeyedTenants(
        file, load_policy(), clock=clock, expect=lambda all: expected.append([t.name for t in all])
    )
    save_keys(file, KeyFile(keys=tuple(entry for _, entry in keys)))
    clock.now += 2
    await tenants.authenticate(bearer(keys[0][0]))
    assert expected == [["class-4"], ["class-4", "class-5"]]


async def test_a_guard_that_loads_holds_nobody_up(
    file: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    stolen, first = new_key("stolen", AgeBand.MIDDLE)
    other, second = new_key("other", AgeBand.MIDDLE)
    german, third = new_key("german", AgeBand.MIDDLE, locale="de")
    save_keys(file, KeyFile(keys=(first, second)))
    tenants = KeyedTenants(file, load_policy(), clock=clock)
    loading, go_on, loaded = threading.Event(), threading.Event(), []

    class Slow(Guard):
        def __init__(self, policy: Policy) -> None:
            loading.set()
            assert go_on.wait(30)
            super().__init__(policy)
            loaded.append(policy.locale)

    monkeypatch.setattr("kidrails_guard.proxy.keyed_tenants.Guard", Slow)
    save_keys(file, KeyFile(keys=(first, second, third)))
    assert main(["keys", "revoke", "stolen", "--file", str(file)]) == 0
    clock.now += 2
    caller = asyncio.create_task(tenants.authenticate(bearer(other)))
    assert await asyncio.to_thread(loading.wait, 30)
    clock.now += 2
    assert (await tenants.authenticate(bearer(other))).name == "other"
    with pytest.raises(Rejected) as caught:
        await tenants.authenticate(bearer(stolen))
    assert caught.value.status == 403
    # Who asked first leaves; the keys are read nevertheless, once.
    caller.cancel()
    go_on.set()
    async with asyncio.timeout(60):
        while tenants.all()[-1].name != "german":
            await asyncio.sleep(0.01)
    assert (await tenants.authenticate(bearer(german))).guard.policy.locale == "de"
    assert loaded == ["de"]


async def test_what_loaded_beside_a_mistake_is_not_loaded_again(
    file: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, first = new_key("a", AgeBand.MIDDLE)
    save_keys(file, KeyFile(keys=(first,)))
    tenants = KeyedTenants(file, load_policy(), clock=clock)
    loaded = []

    class Counted(Guard):
        def __init__(self, policy: Policy) -> None:
            loaded.append(policy.locale)
            super().__init__(policy)

    monkeypatch.setattr("kidrails_guard.proxy.keyed_tenants.Guard", Counted)
    german = new_key("german", AgeBand.MIDDLE, locale="de")[1]
    wrong = new_key("wrong", AgeBand.MIDDLE, policy="gone.yaml")[1]
    save_keys(file, KeyFile(keys=(first, german, wrong)))
    for _ in range(3):
        clock.now += 10
        assert (await tenants.authenticate(bearer(key))).name == "a"
    assert loaded == ["de"]


def _without_band(value: Any, band: str) -> Any:
    if isinstance(value, dict):
        return {k: _without_band(v, band) for k, v in value.items() if k != band}
    return value


def test_keys_that_are_added_at_once_are_all_kept(file: Path) -> None:
    command = [sys.executable, "-m", "kidrails_guard", "keys", "add"]
    running = [
        subprocess.Popen(
            [*command, f"class-{number}", "--band", "7-9", "--file", str(file)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for number in range(4)
    ]
    assert [process.wait() for process in running] == [0] * 4
    assert {key.name for key in load_keys(file).keys} == {f"class-{n}" for n in range(4)}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root changes another user's file")
def test_the_service_still_reads_the_file_that_root_changed(file: Path) -> None:
    _key, entry = new_key("class-4", AgeBand.MIDDLE)
    save_keys(file, KeyFile(keys=(entry,)))
    os.chown(file, 12_345, 12_345)
    assert main(["keys", "revoke", "class-4", "--file", str(file)]) == 0
    assert (file.stat().st_uid, file.stat().st_gid) == (12_345, 12_345)


async def test_a_passing_want_of_the_machine_is_tried_again(
    file: Path, clock: Clock, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, entry = new_key("a", AgeBand.EARLY)
    save_keys(file, KeyFile(keys=(entry,)))
    tenants = KeyedTenants(file, load_policy(), clock=clock)
    added, other = new_key("b", AgeBand.EARLY)
    save_keys(file, KeyFile(keys=(entry, other)))

    def short_of_memory(*_: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patched:
        patched.setattr("kidrails_guard.proxy.keyed_tenants.key_policy", short_of_memory)
        clock.now += 2
        assert (await tenants.authenticate(bearer(key))).name == "a"
    assert "keeping the last good keys" in caplog.text
    assert "MemoryError" in caplog.text
    clock.now += 6
    assert (await tenants.authenticate(bearer(added))).name == "b"

"""What `kidrails doctor` says, here and where something is missing."""

from __future__ import annotations

import importlib.metadata
import json
import shutil
import socket
from pathlib import Path

import pytest

from kidrails_guard import diagnosis
from kidrails_guard.cli import main
from kidrails_guard.diagnosis import EXTRAS, Item, diagnose, requirements
from kidrails_guard.engine import models


def item(name: str) -> Item:
    found = [i for i in diagnose().items if i.name == name]
    assert len(found) == 1, name
    return found[0]


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KIDRAILS_CONFIG", str(tmp_path / "config"))
    monkeypatch.setenv("KIDRAILS_STATE", str(tmp_path / "state"))


def test_it_knows_every_extra_of_the_package() -> None:
    extras = {r.extra for r in requirements()}
    assert extras <= set(EXTRAS)
    assert {"", "proxy", "demo", "evals"} <= extras


def test_json_is_for_scripts(capsys: pytest.CaptureFixture[str]) -> None:
    status = main(["doctor", "--json"])
    record = json.loads(capsys.readouterr().out)
    assert status == (0 if record["ok"] else 1)
    assert {i["state"] for i in record["items"]} <= {"ok", "missing", "problem", "note"}
    for one in record["items"]:
        if one["state"] == "missing":
            assert one["command"], one["name"]


def test_people_read_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    main(["doctor"])
    text = capsys.readouterr().out
    assert "for `kidrails up`" in text
    assert "default policy" in text


def test_a_missing_package_is_named_with_the_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = importlib.metadata.version

    def version(name: str) -> str:
        if name == "gradio":
            raise importlib.metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    found = item("packages for the page")
    assert found.state == "missing"
    assert found.detail == "missing: gradio"
    assert found.command == "make install"
    assert main(["doctor"]) == 1
    assert "lacks something" in capsys.readouterr().out
    monkeypatch.setattr(diagnosis, "in_checkout", lambda: False)
    assert item("packages for the page").command == "pip install 'kidrails-guard[demo]'"


def test_another_version_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0.0.1")
    found = item("packages for the page")
    assert found.state == "problem"
    assert "gradio 0.0.1 (needs ==6.31.0)" in found.detail


def test_a_missing_model_names_the_wheel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "DEFAULT_PACKAGE", "no_such_package")
    found = item("default model")
    assert (found.state, found.command) == ("missing", models.DEFAULT_COMMAND)
    assert not diagnose().ok


def test_a_port_in_use_is_a_note_with_the_next_one() -> None:
    from kidrails_guard.commands import up_parts

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(up_parts, "PAGE", port)
            found = item("port of the page")
    assert found.state == "note"
    assert f"{port} is in use" in found.detail


def test_a_full_disk_and_a_closed_folder_are_problems(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=10)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    found = item("record folder")
    assert found.state == "problem"
    assert found.command == "export KIDRAILS_STATE=FOLDER"
    monkeypatch.setattr("os.access", lambda path, mode: False)
    assert "not writable" in item("settings folder").detail


def test_a_program_that_is_not_there_is_no_reason_to_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    found = item("chromium")
    assert (found.state, found.required) == ("missing", False)
    assert found.command == "install chromium"


def test_a_home_that_is_not_there_and_a_file_in_the_way_are_problems(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nowhere() -> Path:
        raise RuntimeError("Could not determine home directory.")

    (tmp_path / "file").write_text("")
    monkeypatch.setenv("KIDRAILS_CONFIG", str(tmp_path / "file" / "config"))
    assert "is a file, not a folder" in item("settings folder").detail
    for name in ("KIDRAILS_CONFIG", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", nowhere)
    found = item("settings folder")
    assert (found.state, found.command) == ("problem", "export KIDRAILS_CONFIG=FOLDER")
    assert "HOME is not set" in found.detail

"""The command line's outside: help at once, and errors that help."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from kidrails_guard.cli import VERBS, main

HEAVY = {
    "torch", "numpy", "pydantic", "yaml", "gradio", "httpx", "starlette", "uvicorn", "onnxruntime",
    "transformers", "litellm", "xllamacpp", "inspect_ai", "ahocorasick", "re2", "scipy", "tqdm",
}  # fmt: skip


def imported_by(*arguments: str) -> set[str]:
    code = (
        "import sys\nfrom kidrails_guard.cli import main\n"
        f"try:\n    main({list(arguments)!r})\nexcept SystemExit:\n    pass\n"
        "print('\\n#', *sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.rpartition("#")[2].split())


def test_help_imports_nothing_heavy() -> None:
    assert not imported_by("--help") & HEAVY


def available() -> list[str]:
    from importlib.util import find_spec

    return [verb for verb in VERBS if find_spec(f"kidrails_guard.commands.{verb}")]


@pytest.mark.parametrize("verb", available())
def test_help_of_a_verb_imports_nothing_heavy(verb: str) -> None:
    assert not imported_by(verb, "--help") & HEAVY


def test_every_verb_is_there() -> None:
    assert available() == list(VERBS)


def test_an_unknown_verb_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demmo"]) == 2
    assert "did you mean 'demo'?" in capsys.readouterr().err


def test_without_a_verb_the_help_is_shown_as_wrong_use(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "kidrails VERB" in capsys.readouterr().out


def test_a_disk_or_folder_that_does_not_take_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def said(*arguments: str) -> str:
        assert main(list(arguments)) == 2
        return capsys.readouterr().err

    file, keys = tmp_path / "file", tmp_path / "keys.yaml"
    file.write_text("")
    no_folder = file / "keys.yaml"
    message = said("keys", "add", "a", "--band", "7-9", "--file", str(no_folder))
    assert message == f"kidrails keys: {file}: File exists\n"

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        message = said("keys", "add", "a", "--band", "7-9", "--file", str(keys))
    assert message == f"kidrails keys: {keys}: No space left on device\n"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]  # nothing half written

    def full_in_a_task(descriptor: int) -> None:
        error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        raise ExceptionGroup("tasks", [ExceptionGroup("tasks of tasks", [error])])

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full_in_a_task)
        message = said("keys", "add", "a", "--band", "7-9", "--file", str(keys))
    assert message == "kidrails keys: No space left on device\n"

    def closed(folder: Path) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "iterdir", closed)
        for what in ("verify", "report"):
            message = said("audit", what, str(tmp_path))
            assert message == f"kidrails audit: {tmp_path}: Permission denied\n"


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--shutdown-seconds", "nan"),
        ("--shutdown-seconds", "inf"),
        ("--shutdown-seconds", "-1"),
        ("--read-timeout", "nan"),
    ],
)
def test_seconds_are_some(option: str, value: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--upstream", "http://x", option, value]) == 2
    assert f"{option}: {value}; accepted: 0 to 86400 seconds" in capsys.readouterr().err

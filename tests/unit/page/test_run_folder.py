"""The folder of one `kidrails up`: gone at its end, or at the next start after a kill."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from kidrails_guard.run_folder import run_folder

HOLDS = """
import time
from kidrails_guard.run_folder import run_folder
with run_folder() as folder:
    (folder / "keys.yaml").write_text("keys")
    print(folder, flush=True)
    time.sleep(600)
"""


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return tmp_path


@pytest.fixture
def other(temporary: Path) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """Another process that has a folder."""
    process = subprocess.Popen([sys.executable, "-c", HOLDS], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    yield process, Path(process.stdout.readline().strip())
    process.kill()
    process.wait()
    process.stdout.close()


def test_it_is_this_users_alone_and_gone_at_the_end(temporary: Path) -> None:
    with run_folder() as folder:
        assert folder.parent == temporary
        assert folder.stat().st_mode & 0o777 == 0o700
        (folder / "keys.yaml").write_text("keys")
    assert list(temporary.iterdir()) == []


def test_what_a_killed_one_left_goes_at_the_next_start_and_no_sooner(
    other: tuple[subprocess.Popen[str], Path],
) -> None:
    process, theirs = other
    with run_folder() as mine:
        assert theirs.is_dir()
        assert mine != theirs
    process.kill()
    process.wait()
    assert (theirs / "keys.yaml").exists()
    with run_folder() as mine:
        assert not theirs.exists()
        assert mine.is_dir()


def test_nothing_that_is_not_plainly_ours_is_removed(temporary: Path) -> None:
    shared = temporary / "kidrails-up-shared"
    shared.mkdir()
    shared.chmod(0o777)
    elsewhere = temporary / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    (temporary / "kidrails-up-link").symlink_to(elsewhere)
    (temporary / "kidrails-up-file").write_text("")
    (temporary / "kidrails-page-0").mkdir(mode=0o700)
    (elsewhere / "kept").write_text("")
    before = set(temporary.iterdir())
    with run_folder() as mine:
        assert set(temporary.iterdir()) == before | {mine}
    assert (elsewhere / "kept").exists()

"""The wheel, built and installed: content folders are found there and in a checkout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from kidrails_guard.content import FOLDERS

FILES = {
    "serve/policies/default.yaml",
    "serve/policies/answers/en.yaml",
    "serve/policies/helplines.yaml",
    "recipes/kidrails.yml",
}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=repository,
        check=True,
        capture_output=True,
    )
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel alone; its dependencies are this environment's."""
    folder = tmp_path_factory.mktemp("venv")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    python = folder / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "--disable-pip-version-check"]
    install = [*pip, "install", "--quiet", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(install, check=True)
    site = next(folder.glob("lib/python3*/site-packages"))
    # A path in a .pth file comes after the environment's own packages, and .pth files in it are
    # not read: the editable install of the checkout stays out of sight.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python


def kidrails(python: Path, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    return subprocess.run(
        [str(python.with_name("kidrails")), *arguments],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_the_wheel_holds_the_content_folders_and_what_the_page_needs(
    wheel: Path, repository: Path
) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {f"kidrails_guard/_content/{file}" for file in FILES} <= names
    for folder in FOLDERS:
        assert any(name.startswith(f"kidrails_guard/_content/{folder}/") for name in names)
    page = {f"kidrails_guard/page/{name}" for name in ("style.css", "child.js", "grown_up.js")}
    assert page <= names
    assert "kidrails_guard/py.typed" in names
    tops = {name.split("/")[0] for name in names}
    # A top-level `data` or `evals` would be in everybody's way.
    assert tops == {"kidrails_guard", next(t for t in tops if t.endswith(".dist-info"))}
    strays = {n for n in names if n.endswith((".pyc", ".gguf", ".safetensors"))}
    assert strays == {"kidrails_guard/models/voice/adapter.gguf"}  # the voice, and no other weights


def test_the_installed_wheel_finds_its_own_content(installed: Path, tmp_path: Path) -> None:
    code = "import kidrails_guard.content as c; print(c.content_root())"
    done = subprocess.run(
        [str(installed), "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    root = Path(done.stdout.strip())
    assert root.name == "_content"
    assert root.is_relative_to(installed.parent.parent)


def test_a_checkout_finds_its_own_content(repository: Path) -> None:
    code = "import kidrails_guard.content as c; print(c.content_root())"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=repository, capture_output=True, text=True, check=True
    )
    assert Path(done.stdout.strip()) == repository


def test_policies_can_be_validated_with_the_installed_wheel(
    installed: Path, tmp_path: Path
) -> None:
    shown = kidrails(installed, "policy", "show", cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    own = tmp_path / "mine.yaml"
    own.write_text(shown.stdout)
    done = kidrails(installed, "policy", "validate", str(own), cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    own.write_text(shown.stdout + "\nodd_key: 1\n")
    done = kidrails(installed, "policy", "validate", str(own), cwd=tmp_path)
    assert done.returncode == 1
    assert "odd_key" in done.stdout + done.stderr


def test_the_installed_wheel_checks_a_text(installed: Path, tmp_path: Path) -> None:
    done = kidrails(installed, "check", "why do wolves howl?", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["action"] == "allow"

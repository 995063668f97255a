"""A check from another package: found by its entry point, named in a policy, fails closed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

from kidrails_guard.checks import BUILT_IN, known_checks, load_checks
from kidrails_guard.errors import PolicyError
from kidrails_guard.guard import Guard
from kidrails_guard.policy import CheckRule, load_policy
from kidrails_guard.types import Action, AgeBand, Check, Hazard

PLUGIN = """
from kidrails_guard.types import Finding, Hazard, Severity, Stage

class Spiders:
    name = "spiders"
    stages = frozenset(Stage)
    def __init__(self, word):
        self.word = word
    async def __call__(self, conversation, text, band, stage):
        if self.word in text:
            return [Finding(self.name, Hazard.DISTRESS, Severity.MILD, note="spider")]
        return []

def build(policy, *, word="spider"):
    return Spiders(word)
"""

PYPROJECT = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
[project]
name = "kidrails-spiders"
version = "0.1"
[project.entry-points."kidrails.checks"]
spiders = "kidrails_spiders:build"
[tool.hatch.build.targets.wheel]
packages = ["kidrails_spiders"]
"""


@pytest.fixture(scope="module")
def plugin(tmp_path_factory: pytest.TempPathFactory):
    """Install a small real package into a folder, and put the folder on the path."""
    source = tmp_path_factory.mktemp("source")
    (source / "kidrails_spiders").mkdir()
    (source / "kidrails_spiders" / "__init__.py").write_text(dedent(PLUGIN))
    (source / "pyproject.toml").write_text(PYPROJECT)
    folder = tmp_path_factory.mktemp("site")
    build = "import sys, hatchling.build as b; print(b.build_wheel(sys.argv[1]))"
    wheel = subprocess.run(
        [sys.executable, "-c", build, str(folder)],
        cwd=source,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()[-1]
    import zipfile

    with zipfile.ZipFile(folder / wheel) as archive:
        archive.extractall(folder)
    sys.path.insert(0, str(folder))
    yield folder
    sys.path.remove(str(folder))
    sys.modules.pop("kidrails_spiders", None)


def policy(*rules: CheckRule):
    return load_policy().model_copy(update={"checks": rules})


async def test_the_plug_in_is_found_built_with_options_and_asked(plugin: Path) -> None:
    assert known_checks()["spiders"] == "kidrails_spiders:build"
    guard = Guard(policy(CheckRule(name="spiders", options={"word": "tarantula"})))
    verdict = await guard.check_input("a tarantula!", band=AgeBand.MIDDLE)
    assert (verdict.action, verdict.hazard) == (Action.CARE, Hazard.DISTRESS)
    assert (await guard.check_input("a spider!", band=AgeBand.MIDDLE)).action is Action.ALLOW


def test_wrong_options_are_an_error_of_the_policy(plugin: Path) -> None:
    with pytest.raises(PolicyError, match=r"checks\.spiders\.options"):
        load_checks(policy(CheckRule(name="spiders", options={"legs": 8})))


def test_without_the_package_the_check_is_unknown() -> None:
    if "spiders" not in known_checks():
        with pytest.raises(PolicyError, match="entry-point group"):
            load_checks(policy(CheckRule(name="spiders")))


def test_a_plug_in_cannot_take_a_shipped_checks_place(plugin: Path) -> None:
    assert {name: known_checks()[name] for name in BUILT_IN} == BUILT_IN


def test_shipped_checks_keep_the_protocol() -> None:
    for check in load_checks(load_policy()):
        found: Check = check
        assert found.name in BUILT_IN
        assert found.stages

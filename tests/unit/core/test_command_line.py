"""The command line's outside: help at once, and errors that help."""

from __future__ import annotations

import subprocess
import sys

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

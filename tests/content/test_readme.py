"""What the documents say exists: links, pictures, commands, targets, modules."""

from __future__ import annotations

import argparse
import importlib
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from kidrails_guard.cli import VERBS

ROOT = Path(__file__).resolve().parent.parent.parent
DOCUMENTS = sorted(
    [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
    + list((ROOT / "docs").glob("*.md"))
    + list((ROOT / "serve").rglob("*.md"))
    + list((ROOT / "recipes").glob("*.md"))
    + list((ROOT / "data").glob("*.md"))
    + list((ROOT / "evals").glob("*.md"))
)
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
BLOCK = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def blocks(text: str, *languages: str) -> list[str]:
    return [code for language, code in BLOCK.findall(text) if language in languages]


def commands(text: str, program: str) -> list[str]:
    """Return the lines of shell blocks that run a program, continuation lines joined."""
    lines = "\n".join(blocks(text, "sh", "bash", "console")).replace("\\\n", " ").splitlines()
    found = []
    for line in lines:
        stripped = re.sub(r"^\s*(?:\$ )?(?:\S*/bin/)?", "", line).strip()
        stripped = re.sub(r"^(?:[A-Z_]+=\S+\s+)+", "", stripped)
        stripped = re.sub(r"^(?:\S*/bin/)", "", stripped)
        if stripped.startswith(f"{program} "):
            found.append(stripped)
    return found


def parser_of(verb: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"kidrails {verb}", exit_on_error=False)
    importlib.import_module(f"kidrails_guard.commands.{verb}").add_arguments(parser)
    return parser


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_links_and_pictures_are_there(document: Path) -> None:
    text = re.sub(r"```.*?```", "", document.read_text(), flags=re.DOTALL)
    missing = []
    for target in LINK.findall(text):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (document.parent / path).resolve() if path else document
        stray = (
            bool(anchor) and file.is_file() and file.suffix == ".md" and anchor not in anchors(file)
        )
        if not file.exists() or stray:
            missing.append(target)
    assert missing == []


def anchors(file: Path) -> set[str]:
    """Return the anchors that GitHub makes of a file's headings."""
    headings = re.findall(r"^#+\s+(.+)$", file.read_text(), re.MULTILINE)
    plain = (re.sub(r"[`*]|\[([^\]]*)\]\([^)]*\)", r"\1", h).lower() for h in headings)
    return {re.sub(r"[^\w\- ]", "", heading).strip().replace(" ", "-") for heading in plain}


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_every_kidrails_command_is_one(document: Path) -> None:
    wrong = []
    for line in commands(document.read_text(), "kidrails"):
        command = re.split(r"\s[>|&;]|\s#|&&", line)[0]
        words = shlex.split(command)[1:]
        if words and words[0] in {"--help", "--version", "-h"}:
            continue
        if not words or words[0] not in VERBS:
            wrong.append(f"{line}: no such verb")
            continue
        parser = parser_of(words[0])
        if "[" in command:  # a synopsis, with placeholders: are the options there?
            named = set(re.findall(r"--[\w-]+", command))
            if odd := named - set(parser._option_string_actions):
                wrong.append(f"{line}: unknown {sorted(odd)}")
            continue
        try:
            rest = [w for w in words[1:] if w not in {"…", "..."}]
            _, unknown = parser.parse_known_args(rest)
        except (argparse.ArgumentError, SystemExit) as error:
            wrong.append(f"{line}: {error}")
            continue
        if unknown:
            wrong.append(f"{line}: unknown {unknown}")
    assert wrong == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_every_verb_named_in_passing_is_one(document: Path) -> None:
    named = [code.split() for code in INLINE.findall(document.read_text())]
    verbs = {words[1].strip(",;:") for words in named if len(words) > 1 and words[0] == "kidrails"}
    odd = {v for v in verbs if not v.startswith(("-", "…")) and v not in {*VERBS, "VERB"}}
    assert odd == set()


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_every_make_target_is_one(document: Path) -> None:
    makefiles = [ROOT / "Makefile", *(ROOT / "mk").glob("*.mk")]
    rules = "\n".join(f.read_text() for f in makefiles)
    rules = rules.replace("$(TRAIN)", ".venv-train").replace("$(VLLM)", ".venv-vllm")
    rules = rules.replace("$(VENV)", ".venv")
    targets = set(re.findall(r"^([A-Za-z0-9_./-]+)\s*:(?!=)", rules, re.MULTILINE))
    text = document.read_text()
    said = [shlex.split(c, comments=True)[1:] for c in commands(text, "make")]
    said += [c.split()[1:] for c in INLINE.findall(text) if c.startswith("make ")]
    named = {w for words in said for w in words if "=" not in w and re.fullmatch(r"[\w./-]+", w)}
    assert named <= targets, sorted(named - targets)


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_every_script_that_is_run_is_there(document: Path) -> None:
    text = document.read_text()
    scripts = re.findall(
        r"(?<![\w/])((?:benchmarks|evals|recipes|serve)/[\w./-]+\.(?:py|sh))\b", text
    )
    assert [s for s in scripts if not (ROOT / s).is_file()] == []


def python_examples() -> list[tuple[str, str]]:
    return [(name_of(d), code) for d in DOCUMENTS for code in blocks(d.read_text(), "python")]


@pytest.mark.parametrize(("document", "code"), python_examples())
def test_python_examples_compile(document: str, code: str) -> None:
    compile(code, document, "exec")


def test_the_readmes_guard_example_runs() -> None:
    (code,) = [c for c in blocks((ROOT / "README.md").read_text(), "python") if "Guard()" in c]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "allow\n"


def test_every_room_of_the_architecture_is_there_and_none_is_left_out() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    table = text.partition("| room |")[2].partition("\n\n")[0]
    cells = re.findall(r"^\| ([^|]+) \|", table, re.MULTILINE)
    rooms = {word.rstrip("/") for cell in cells for word in cell.replace("`", " ").split()}
    rooms.discard("---")
    package = ROOT / "kidrails_guard"
    assert [r for r in rooms if not (package / r).exists()] == []
    private = {"__init__.py", "__main__.py", "py.typed", "__pycache__", "_content"}
    there = {p.name for p in package.iterdir() if p.name not in private}
    there = {n for n in there if n.endswith(".py") or (package / n).is_dir()}
    assert there - rooms == set(), "docs/architecture.md does not say what these are"

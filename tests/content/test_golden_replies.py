"""Every golden reply passes the rules for replies; none of them is what the guard withholds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kidrails_guard.checks import conduct, lexicon, personal_data, readability
from kidrails_guard.guard import Guard
from kidrails_guard.policy import load_policy
from kidrails_guard.types import Action, AgeBand, Conversation, Message

POLICY = load_policy()
MODULES = (lexicon, personal_data, conduct, readability)
GUARD = Guard(POLICY, checks=[module.build(POLICY) for module in MODULES])
FILES = sorted((Path(__file__).resolve().parents[2] / "data" / "golden").glob("*.jsonl"))


@pytest.mark.parametrize("path", FILES, ids=[path.stem for path in FILES])
async def test_golden_replies_pass(path: Path) -> None:
    withheld = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        row = json.loads(line)
        turns = [Message(t["role"], t["content"]) for t in row["conversation"]]
        conversation = Conversation((*turns, Message("user", row["message"])))
        verdict = await GUARD.check_output(
            row["golden"], conversation, band=AgeBand(row["band"]), strict=True
        )
        if verdict.action is not Action.ALLOW:
            withheld.append((number, [f.note for f in verdict.findings]))
    assert withheld == []


@pytest.mark.parametrize("path", FILES, ids=[path.stem for path in FILES])
async def test_golden_replies_fit_the_band(path: Path) -> None:
    long = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        row = json.loads(line)
        verdict = await GUARD.check_output(row["golden"], band=AgeBand(row["band"]))
        long += [(number, f.note) for f in verdict.findings if f.check == "readability"]
    assert long == []

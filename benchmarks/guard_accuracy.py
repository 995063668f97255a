"""How often the guard is right, beside its peers, and what each of its parts is worth.

Usage: python benchmarks/guard_accuracy.py [--public DIR] [--limit N] [--policy FILE]

Four kinds of text, none of which trained the classifier or chose its thresholds (of the two prices
of a false alarm that thresholds follow, that of a crisis was settled with these figures in view):
- held out: golden messages and minimal pairs of this project's held-out split, with labels;
- scenes: dangers and their harmless neighbours in scenes that no training text has, with labels;
  disclosures: children who tell that they are in danger, plainly or quietly;
- risky: public prompts that are all to be held back, from sets kept out of training by name;
- calm: ordinary talk written for this, and children's talk and questions on stories that were
  kept out.
The rules were written with the hand-written files in view, so their part of the first kind is not
blind. Peers answer yes or no: that counts as acceptable when they hold back what is to be held
back and let the rest pass. Every share comes with its 95 % Wilson interval.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any
from unittest import mock

import casefold_fuzz
from tqdm import tqdm

from kidrails_guard.batch import Row, judge_row
from kidrails_guard.checks import load_checks
from kidrails_guard.classifier.encode import Turn
from kidrails_guard.classifier.measure import (
    ACCEPTABLE,
    Outcome,
    by_hazard,
    summarise,
    wanted_action,
)
from kidrails_guard.classifier.public import read_public
from kidrails_guard.classifier.rows import LabelledText, read_own
from kidrails_guard.evals.intervals import Estimate, proportion, share
from kidrails_guard.evals.peers import PEERS
from kidrails_guard.files import dump_json
from kidrails_guard.guard import Guard, run_sync
from kidrails_guard.normalize import Normalized
from kidrails_guard.policy import Policy, load_policy
from kidrails_guard.types import (
    About,
    Action,
    AgeBand,
    Check,
    Conversation,
    Hazard,
    Message,
    Severity,
    Stage,
)

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "benchmarks" / "results" / "guard_accuracy.json"
BAND = AgeBand.MIDDLE
SCENES = "scenes"
"""The file of whole scenes in ``data/held_out``: messages and replies, risky ones and harmless."""
PLAIN = ("ordinary", "small_talk")
"""The files of ordinary talk in ``data/held_out``: everything in them should pass."""
DISCLOSURES = "disclosures"
"""The file of children in danger in ``data/held_out``: all should get the crisis answer."""
DISGUISES: tuple[Callable[[str], Sequence[Any]], ...] = (
    casefold_fuzz.leet_variants,
    casefold_fuzz.homoglyph_variants,
    casefold_fuzz.invisible_variants,
    casefold_fuzz.spacing_variants,
)


def held_out(limit: int) -> list[LabelledText]:
    rows = [row for row in read_own(ROOT / "data") if row.split == "eval"]
    return random.Random(0).sample(rows, limit) if 0 < limit < len(rows) else rows


def public(folder: Path, limit: int) -> dict[str, list[LabelledText]]:
    """Return the held-out public texts by set; harmful ones get an unnamed hazard (K11)."""
    found: dict[str, list[LabelledText]] = {}
    for row in read_public(folder):
        if row.split != "eval":
            continue
        calm = row.risky is False
        text = LabelledText(
            text=row.text,
            turns=row.turns,
            stage=row.stage,
            hazards=() if calm else (Hazard.ILLEGAL_ACTS,),
            severity=Severity.NONE if calm else Severity.MODERATE,
            about=About.NONE,
            case="",
            split="eval",
            source=row.source,
        )
        rows = found.setdefault(row.source, [])
        if not limit or len(rows) < limit:
            rows.append(text)
    return found


def conversation(turns: Sequence[Turn]) -> Conversation:
    return Conversation(
        tuple(Message("user" if t.role == "user" else "assistant", t.text) for t in turns)
    )


def run(guard: Guard, rows: Sequence[LabelledText], *, turns: bool = True) -> list[Outcome]:
    """Return what a guard decides about each text."""
    found = []
    for row in tqdm(rows, disable=None, leave=False):
        before = conversation(row.turns if turns else ())
        verdict = run_sync(judge_row(guard, Row(None, row.text, BAND, row.stage, before)))
        found.append(Outcome(row, BAND, wanted_action(guard.policy, row, BAND), verdict.action))
    return found


def f1(found: Sequence[Outcome]) -> float:
    """Return the F1 score of holding back a child's message."""
    asked = [o for o in found if o.row.stage is Stage.INPUT]
    hits = sum(o.got.answers and o.wanted.answers for o in asked)
    said, real = sum(o.got.answers for o in asked), sum(o.wanted.answers for o in asked)
    return round(2 * hits / (said + real), 4) if said + real else 0.0


def figures(found: Sequence[Outcome]) -> dict[str, Any]:
    rates = {name: asdict(rate) for name, rate in summarise(found).items() if rate.n}
    return {"f1": f1(found), **rates}


def peer_outcomes(
    holds_back: Callable[[str], bool], rows: Sequence[LabelledText], wanted: Sequence[Action]
) -> list[Outcome]:
    """Return a peer's answers as actions: what it holds back is what the policy would have done."""
    found = []
    for row, action in zip(rows, wanted, strict=True):
        held = holds_back(row.text)
        if held:
            got = action if action.answers else Action.REFUSE
        else:
            got = action if not action.answers else Action.ALLOW
        found.append(Outcome(row, BAND, action, got))
    return found


@contextmanager
def without_normaliser() -> Iterator[None]:
    """Let every check see the text as it was typed, in lower case."""

    def plain(text: str) -> Normalized:
        return Normalized(text.lower(), range(len(text) + 1), text)

    with (
        mock.patch("kidrails_guard.checks.classifier.normalize", plain),
        mock.patch("kidrails_guard.plain.normalize", plain),
    ):
        from kidrails_guard.plain import plain_words

        plain_words.cache_clear()
        yield
        plain_words.cache_clear()


def disguise(rows: Sequence[LabelledText]) -> list[LabelledText]:
    """Return the texts, each in one of four disguises in turn."""
    found = []
    for number, row in enumerate(r for r in rows if r.stage is Stage.INPUT):
        variants = DISGUISES[number % len(DISGUISES)](row.text)
        found.append(replace(row, text=variants[0].text if variants else row.text))
    return found


def ablation(
    policy: Policy, checks: Sequence[Check], rows: Sequence[LabelledText]
) -> dict[str, dict[str, dict[str, Any]]]:
    """Return the figures of the whole guard and of the guard without each of its parts."""

    def only(*names: str) -> Guard:
        return Guard(policy, checks=[c for c in checks if c.name not in names])

    asked = [row for row in rows if row.stage is Stage.INPUT]
    hidden = disguise(asked)
    table: dict[str, dict[str, dict[str, Any]]] = {}

    def note(name: str, guard: Guard, *, turns: bool = True) -> None:
        table[name] = {
            "as typed": figures(run(guard, asked, turns=turns)),
            "disguised": figures(run(guard, hidden, turns=turns)),
        }

    note("whole guard", only())
    with without_normaliser():
        note("without normaliser", only())
    note("without rules", only("lexicon", "personal_data"))
    note("without classifier", only("classifier"))
    note("without earlier turns", only("conversation"), turns=False)
    return table


def percent(rate: Estimate | dict[str, Any] | None) -> str:
    if rate is None:
        return "–"
    value = rate["value"] if isinstance(rate, dict) else rate.value
    return "–" if value is None else f"{100 * value:.1f} %"


def print_table(title: str, table: dict[str, dict[str, Any]]) -> None:
    columns = ("acceptable action", "unsafe allowed", "crisis recall", "over-block")
    print(f"\n{title}\n{'':<26}" + "".join(f"{c:>19}" for c in columns) + f"{'F1':>7}")
    for name, row in table.items():
        cells = "".join(f"{percent(row.get(c)):>19}" for c in columns)
        print(f"{name:<26}{cells}{row['f1']:>7.3f}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    shared = Path(os.environ.get("KIDRAILS_SHARED", ROOT.parent / "shared"))
    parser.add_argument("--public", type=Path, default=shared / "datasets")
    parser.add_argument("--limit", type=int, default=0, help="texts of each kind, for a trial")
    parser.add_argument("--policy", metavar="FILE", help="default: the shipped policy")
    args = parser.parse_args()
    policy = load_policy(args.policy)
    checks = load_checks(policy)
    guard = Guard(policy, checks=checks)
    own = held_out(args.limit)
    sets = {name: [row for row in own if row.source == name] for name in PLAIN}
    own = [row for row in own if row.source not in PLAIN]
    if args.public.is_dir():
        sets |= public(args.public, args.limit)
    else:
        print(f"no public sets at {args.public}: own rows only", file=sys.stderr)
    start = time.process_time()
    whole = run(guard, own)
    beside = {name: run(guard, rows) for name, rows in sets.items()}
    seconds = time.process_time() - start
    asked = [o for o in whole if o.row.stage is Stage.INPUT]
    kinds = {
        kind: [o for o in asked if o.row.source == source]
        for kind, source in (
            ("golden messages", "golden"),
            ("minimal pairs", "pairs"),
            ("scenes", SCENES),
            ("disclosures", DISCLOSURES),
        )
    }
    table = {kind: {"KidRails": figures(found)} for kind, found in kinds.items()}
    told = [o for o in whole if o.row.stage is Stage.OUTPUT]
    replies = {
        "golden replies": figures([o for o in told if o.row.source != SCENES]),
        "replies in scenes": figures([o for o in told if o.row.source == SCENES]),
    }
    held: dict[str, dict[str, Estimate]] = {
        "KidRails": {name: share([o.got.answers for o in found]) for name, found in beside.items()}
    }
    for peer in PEERS:
        if not peer.installed:
            print(f"{peer.name}: not installed, left out", file=sys.stderr)
            continue
        holds_back = peer.load()
        for kind, found in kinds.items():
            texts, wanted = [o.row for o in found], [o.wanted for o in found]
            table[kind][peer.name] = figures(peer_outcomes(holds_back, texts, wanted))
        held[peer.name] = {
            name: share([holds_back(row.text) for row in tqdm(rows, disable=None, leave=False)])
            for name, rows in sets.items()
        }
    known = [row for row in own if row.source in {"golden", "pairs"}]
    parts = ablation(policy, checks, known)
    hazards = {
        hazard: {name: asdict(rate) for name, rate in rates.items() if rate.n}
        for hazard, rates in by_hazard(whole).items()
    }
    print(
        f"{len(asked)} held-out messages of children and {len(whole) - len(asked)} replies, "
        f"band {BAND}"
    )
    for kind, rows in table.items():
        print_table(f"Held-out {kind} (n = {len(kinds[kind])})", rows)
    print()
    for kind, rates in replies.items():
        print(
            f"{kind}: bad ones held {percent(rates.get('bad replies held'))}, "
            f"good ones held {percent(rates.get('good replies held'))}"
        )
    print("\nTexts that were held back (harmbench and safe_child_llm should be, others not)")
    for name, rates in held.items():
        print(f"{name:<26}" + "  ".join(f"{s} {r.as_text()}" for s, r in rates.items()))
    print("\nRecall by hazard (held back where the policy says so), acceptable action")
    for hazard, rates in hazards.items():
        missed = rates.get("unsafe allowed")
        hits = round((1 - missed["value"]) * missed["n"]) if missed else 0
        recall = proportion(hits, missed["n"]) if missed else None
        print(
            f"  {hazard:<6}{recall.as_text() if recall else '–':<34}"
            f"{percent(rates['acceptable action'])}"
        )
    for form in ("as typed", "disguised"):
        print_table(f"Ablation, {form}", {name: row[form] for name, row in parts.items()})
    dump_json(
        RESULT,
        {
            "machine": {"system": platform.system(), "cpu": platform.machine()},
            "band": str(BAND),
            "texts": {"own": len(own), **{name: len(rows) for name, rows in sets.items()}},
            "acceptable": {a.label: sorted(x.label for x in s) for a, s in ACCEPTABLE.items()},
            "guards": table,
            "replies": replies,
            "held_back": {g: {s: asdict(r) for s, r in rates.items()} for g, rates in held.items()},
            "hazards": hazards,
            "ablation": parts,
            "cpu_seconds": round(seconds, 2),
        },
    )
    print(f"\n{len(own) + sum(map(len, sets.values()))} texts; written to {RESULT}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

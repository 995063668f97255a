"""`kidrails data build`: from the hand-written files to every training file, and a manifest.

One seed and one set of inputs give one set of bytes. Nothing in the outputs depends on the clock,
on the machine or on the order in which a set is iterated.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from kidrails_guard import __version__
from kidrails_guard.content import content_path
from kidrails_guard.errors import DataError
from kidrails_guard.files import dump_json, sha256_file, write_atomic
from kidrails_guard.golden.answers import answer_rows, asks
from kidrails_guard.golden.card import hub_card, licences
from kidrails_guard.golden.compose import OfflineTeacher
from kidrails_guard.golden.export import (
    eval_rows,
    guard_row,
    preference_rows,
    replies_for_guard,
    sft_rows,
    write_jsonl,
)
from kidrails_guard.golden.gate import Depth, Gate, build_guard
from kidrails_guard.golden.generated import generated_rows
from kidrails_guard.golden.inputs import (
    add_evaluation_sets,
    choosing,
    count_public,
    describe_file,
    public_rows,
    read_inputs,
)
from kidrails_guard.golden.make import Ledger, Maker, Progress
from kidrails_guard.golden.personas import ages, sample_personas
from kidrails_guard.golden.read import MESSAGES, golden_files
from kidrails_guard.golden.rows import WRITTEN_HERE, Drop, Rejected, Row, Step
from kidrails_guard.golden.splits import split_golden, split_texts
from kidrails_guard.golden.steps import (
    Overlap,
    apart_from,
    check_labels,
    check_size,
    decontaminate,
    drop_contradictions,
    drop_copies,
    drop_near_copies,
    normalise_row,
)
from kidrails_guard.guard import Guard
from kidrails_guard.types import Action, AgeBand, Hazard


def _silent(stage: str, count: int) -> None:
    """Show nothing."""


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """What a build may be told.

    Attributes:
        out: folder of the outputs.
        seed: decides personas, wordings and which rows get a system prompt.
        per_row: training conversations made from one golden row, beside itself.
        per_answer: the same from one good reply among the labelled texts.
        per_text: guard texts made from one labelled text, beside itself.
        personas: child user models.
        gate: how deep the guard is asked about made rows.
        sources: folder with public sets, or None.
        generated: files of `kidrails data generate` that join in.
        golden: folder of golden rows; the one that ships when absent.
        messages: folder of labelled texts; the one that ships when absent.
    """

    out: Path
    seed: int = 7
    per_row: int = 3
    per_answer: int = 1
    per_text: int = 3
    personas: int = 400
    gate: Depth = "rules"
    sources: Path | None = None
    generated: tuple[Path, ...] = ()
    golden: Path | None = None
    messages: Path | None = None


@dataclass(frozen=True, slots=True)
class BuildResult:
    """What a build made.

    Attributes:
        manifest: as it stands in ``manifest.json``.
        rejected: every row that did not come through.
    """

    manifest: dict[str, Any]
    rejected: tuple[Rejected, ...]


def build(options: BuildOptions, *, progress: Progress = _silent) -> BuildResult:
    """Run the whole pipeline and write its outputs.

    Raises:
        DataError: an input is broken; names file, line, key and what is accepted.
    """
    ledger = Ledger()
    guard = build_guard(options.gate)
    golden_paths = golden_files(options.golden)
    message_paths = tuple(sorted((options.messages or content_path(MESSAGES)).glob("*.tsv")))

    progress("read", 0)
    golden, texts = read_inputs(golden_paths, message_paths)
    _make_folder(options.out)
    public, unfit, public_sets = public_rows(options.sources)
    if public_sets:
        ledger.note("public sets", [choosing(public, unfit)], unfit)
    clean: tuple[tuple[str, Step], ...] = (("normalise", normalise_row), ("validate", check_size))
    once: tuple[str, Step] = ("exact copies", drop_copies())
    golden = ledger.run("golden", golden, [*clean, once, ("near-copies", drop_near_copies())])
    texts = ledger.run("texts", [*texts, *public], [*clean, ("exact copies", drop_copies())])

    overlap = Overlap()
    public_eval = add_evaluation_sets(overlap, options.sources)
    golden = ledger.run("golden", golden, [("labels", check_labels(guard.policy))])
    golden = split_golden(golden)
    golden = ledger.run("golden", golden, [("decontaminate", decontaminate(overlap))])
    for row in golden:
        if row.split == "eval":
            overlap.add("eval.jsonl", row.text)

    texts = ledger.run(
        "texts",
        texts,
        [
            ("labels", check_labels(guard.policy)),
            ("contradictions", drop_contradictions([*golden, *texts])),
            ("decontaminate", decontaminate(overlap)),
        ],
    )
    texts, leaking = split_texts(texts, golden)
    ledger.lose("texts", "split", leaking, len(texts), Drop("near-copy of an evaluation row"))
    count_public(public_sets, texts, ledger.rejected)

    personas = sample_personas(options.personas, seed=options.seed)
    teacher = OfflineTeacher(golden, seed=options.seed)
    gate = Gate(guard)
    held = [row for row in golden if row.split == "eval"]
    screens: tuple[tuple[str, Step], ...] = (
        ("decontaminate", decontaminate(overlap)),
        ("held out", apart_from(held)),
    )
    maker = Maker(teacher, gate, screens, ledger, options.seed, progress)
    made = maker.make("conversations", golden, personas, per_row=options.per_row)
    made += generated_rows(options.generated, golden, gate, screens, ledger)
    answers = answer_rows(texts, golden, policy=guard.policy, ledger=ledger)
    asked = [row for row in answers if asks(row)]
    answers += maker.make("answers anew", asked, personas, per_row=options.per_answer)
    written = [row for row in texts if row.source == WRITTEN_HERE]
    made_texts = maker.make("guard texts", written, personas, per_row=options.per_text)

    progress("write", 0)
    # Stopped while it writes, a build leaves files of two builds: without a manifest that says so.
    (options.out / "manifest.json").unlink(missing_ok=True)
    trained = [row for row in [*golden, *made] if row.split != "eval"]
    passing = frozenset(h for h, r in guard.policy.hazards.items() if r.output < Action.REDACT)
    outputs = _write(
        options, guard, golden, trained, answers, [*texts, *made_texts], passing, ledger
    )
    manifest = {
        "name": "kidrails-golden",
        "version": __version__,
        "seed": options.seed,
        "options": {
            "per_row": options.per_row,
            "per_answer": options.per_answer,
            "per_text": options.per_text,
            "personas": options.personas,
            "gate": options.gate,
        },
        "policy": {"name": guard.policy.name, "digest": guard.policy.digest()},
        "inputs": [
            describe_file(path) for path in (*golden_paths, *message_paths, *options.generated)
        ],
        "trained_on_public_sets": public_sets,
        "licences": licences([*golden, *made, *answers, *texts, *made_texts]),
        "decontaminated_against": public_eval
        | {"eval.jsonl": sum(row.split == "eval" for row in golden)},
        "steps": ledger.steps,
        "personas": {"by_age": ages(personas), "by_split": _count(p.split for p in personas)},
        "golden": _table(golden),
        "split_rule": (
            "a golden row is eval when the SHA-256 of its message starts with 0, 1, 2 or 3; "
            "near-copies and turns of one conversation are a group that stands where its first "
            "member does; a tenth of the other groups, evenly over hazards and bands, is dev; "
            "labelled texts are train or dev; made rows stand where their seed does, and their "
            "persona belongs to that side alone"
        ),
        "outputs": outputs,
    }
    dump_json(options.out / "manifest.json", manifest)
    write_atomic(options.out / "README.md", hub_card(manifest, str(options.out)))
    return BuildResult(manifest, tuple(ledger.rejected))


def _make_folder(out: Path) -> None:
    """Find out before the work whether its results can be kept."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise DataError(
            f"--out {out}: {error.strerror}; give a folder that can be made and written to"
        ) from None


def _write(
    options: BuildOptions,
    guard: Guard,
    golden: Sequence[Row],
    trained: Sequence[Row],
    answers: Sequence[Row],
    texts: Sequence[Row],
    passing: frozenset[Hazard],
    ledger: Ledger,
) -> dict[str, Any]:
    """Write every output and return what the manifest says of each."""
    train = [row for row in trained if row.split == "train"]
    dev = [row for row in trained if row.split == "dev"]
    # Answers have no unsafe reply, and their questions no label: they are for the model alone. What
    # was written stands before what was made of it, so that a part of the rows has many situations.
    talk = sorted([*trained, *answers], key=lambda row: row.method != "written")
    talk_train = [row for row in talk if row.split == "train"]
    talk_dev = [row for row in talk if row.split == "dev"]
    held = [row for row in golden if row.split == "eval"]
    replies = [
        reply for row in golden if row.split != "eval" for reply in replies_for_guard(row, passing)
    ]
    texts_of_rows = [replace(row, kind="text") for row in trained]
    files: dict[str, Iterable[dict[str, Any]]] = {
        "sft.jsonl": sft_rows(talk_train, guard, seed=options.seed),
        "sft.dev.jsonl": sft_rows(talk_dev, guard, seed=options.seed),
        "preference.jsonl": preference_rows(train, guard, seed=options.seed),
        "preference.dev.jsonl": preference_rows(dev, guard, seed=options.seed),
        "guard.jsonl": map(guard_row, [*texts_of_rows, *replies, *texts]),
        "eval.jsonl": eval_rows(held),
        "rejected.jsonl": map(_rejected, ledger.rejected),
    }
    written: dict[str, Any] = {}
    for name, rows in files.items():
        path = options.out / name
        count = write_jsonl(path, rows)
        written[name] = {"rows": count, "bytes": path.stat().st_size, "sha256": sha256_file(path)}
    return written


def _rejected(item: Rejected) -> dict[str, Any]:
    return {
        "id": item.row.id,
        "seed": item.row.seed,
        "place": item.row.place,
        "step": item.step,
        "reason": item.drop.reason,
        "detail": item.drop.detail,
    }


def _count(values: Iterable[object]) -> dict[str, int]:
    return dict(sorted(Counter(map(str, values)).items()))


def _table(golden: Sequence[Row]) -> dict[str, Any]:
    """Return golden rows by hazard, then band, then split."""
    table: dict[str, Any] = {}
    for hazard in Hazard:
        bands: dict[str, Any] = {}
        for band in AgeBand:
            rows = [r for r in golden if r.hazards[0] is hazard and r.band is band]
            bands[str(band)] = _count(r.split for r in rows)
        table[str(hazard)] = bands
    return table

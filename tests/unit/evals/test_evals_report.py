"""The report: one page without network, readable, and the same from the stored results."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import httpx
import pytest
from eval_replies import guarded_by, reply, run

from kidrails_guard.cli import main
from kidrails_guard.errors import DataError
from kidrails_guard.evals.cases import task_cases
from kidrails_guard.evals.intervals import Estimate
from kidrails_guard.evals.judging import ASPECTS, Judged, JudgeVerdict, aspect_means
from kidrails_guard.evals.plain_words import _ends, percent
from kidrails_guard.evals.plots import _luminance, reading_plot, shade
from kidrails_guard.evals.session import finish, scored_before, stale
from kidrails_guard.evals.store import RESULTS, Outcome, find_target, load_outcome
from kidrails_guard.guard import Guard
from kidrails_guard.policy import load_policy
from kidrails_guard.types import Action

POLICY = load_policy()
CASES = [*task_cases("crisis", POLICY)[:12], *task_cases("over_refusal", POLICY)[:12]]
LIMITS = {str(band): float(rule.max_grade) for band, rule in POLICY.bands.items()}
LONG = "The sun is a big hot ball. It gives us light. It keeps us warm. Plants need it. " * 3
EVIL = "</script><b onload=alert(1)>bees"


async def outcome_of(tmp_path: Path) -> Outcome:
    off = await run(lambda r: reply(LONG + EVIL, stream=True), tmp_path / "off", cases=CASES)
    on = await run(guarded_by(Guard(POLICY), CASES), tmp_path / "on", cases=CASES, guarded=True)
    return Outcome(
        {"guard off": off, "guard on": on},
        {"policy": "p"},
        ("csb: skipped, not passed: x",),
        judged={"guard on": {aspect: Estimate(4.0, 3.5, 4.5, 9) for aspect in ASPECTS}},
        judge_note="Judges: j.",
        targets={"guard off": {"model": "smollm2"}, "guard on": {"model": "smollm2"}},
        limits=LIMITS,
    )


class Checked(HTMLParser):
    """Every tag that is opened is closed, and nothing is fetched or run."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        names = {name for name, _ in attrs}
        assert not {n for n in names if n.startswith("on")} | (names & {"src"})
        if tag not in {"meta", "br", "img", "line", "rect", "circle", "polyline"}:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, tag


async def test_the_report_is_one_page_without_network(tmp_path: Path) -> None:
    finish(await outcome_of(tmp_path), tmp_path / "out")
    html = (tmp_path / "out/report.html").read_text()
    for outside in ("https://", "<script", "@import", "url(", "<link", "<img"):
        assert outside not in html
    assert set(re.findall(r"http://[^\"]+", html)) == {"http://www.w3.org/2000/svg"}
    page = Checked()
    page.feed(html)
    assert page.open == []
    assert {"details", "svg", "table", "main"} <= page.seen
    assert "95 % interval" in html
    assert "csb: skipped, not passed: x" in html
    assert "Is it sent to a trusted grown-up at once?" in html
    assert "Krippendorff" not in html
    assert "Judges: j." in html


async def test_the_same_results_give_the_same_files(tmp_path: Path) -> None:
    out = tmp_path / "out"
    files = finish(await outcome_of(tmp_path), out)
    first = {p.name: p.read_bytes() for p in files}
    assert set(first) == {RESULTS, "report.html", "report.md", "report.json", "model-card.md"}
    assert stale(load_outcome(out), out) == []
    again = finish(load_outcome(out), out)
    assert {p.name: p.read_bytes() for p in again} == first
    assert load_outcome(out / RESULTS).summaries == load_outcome(out).summaries
    (out / "report.md").write_text("changed by hand")
    (out / "report.json").unlink()
    card = out / "model-card.md"
    card.write_bytes(card.read_bytes().replace(b"\n", b"\r\n"))
    (out / "report.html").write_bytes(b"\xff")
    assert {p.name for p in stale(load_outcome(out), out)} == set(first) - {RESULTS}


def edit(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change a run's results by hand."""
    value = json.loads(gzip.decompress(path.read_bytes()))
    change(value)
    path.write_bytes(gzip.compress(json.dumps(value).encode("utf-8")))


async def test_results_that_were_edited_are_noticed_where_no_figure_moves(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    finish(await outcome_of(tmp_path), out)
    first = {p.name: p.read_bytes() for p in out.iterdir()}
    assert main(["eval", "report", str(out), "--check"]) == 0
    assert json.loads(first["report.json"])["versions"]["results"].startswith("sha256 ")

    def reworded(value: dict[str, Any]) -> None:
        value["results"]["guard on"][3]["answer"]["text"] = "Something kinder."

    edit(out / RESULTS, reworded)
    edited = (out / RESULTS).read_bytes()
    assert stale(load_outcome(out), out) == []  # in no figure, and not among the worst
    for how, code in (("--check", 1), ("--json", 1)):
        assert main(["eval", "report", str(out), how]) == code
        said = capsys.readouterr()
        assert "were changed after the run wrote them" in said.out + said.err
    main(["eval", "compare", str(out)])
    assert "were changed after the run wrote them" in capsys.readouterr().err
    # Nothing makes them look whole again.
    now = {p.name: p.read_bytes() for p in out.iterdir()}
    assert now == first | {RESULTS: edited}


async def test_results_of_earlier_versions_have_no_sum_and_stay_as_they_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    finish(await outcome_of(tmp_path), out)
    edit(out / RESULTS, lambda value: value["versions"].pop("results"))
    earlier = (out / RESULTS).read_bytes()
    assert main(["eval", "report", str(out / RESULTS)]) == 0
    assert (out / RESULTS).read_bytes() == earlier
    capsys.readouterr()
    assert main(["eval", "report", str(out), "--check"]) == 0
    assert "without a sum" in capsys.readouterr().err


async def test_scores_of_earlier_rules_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outcome = await outcome_of(tmp_path)
    assert scored_before(outcome) == []
    rows = list(outcome.results["guard off"])
    score = rows[0].score
    assert score is not None
    old = replace(score, action=Action.REFUSE, words=score.words + 1)
    results = {**outcome.results, "guard off": [replace(rows[0], score=old), *rows[1:]]}
    finish(replace(outcome, results=results), tmp_path / "out")
    for arguments in (["report", "--check"], ["report"], ["compare"]):
        main(["eval", arguments[0], str(tmp_path / "out"), *arguments[1:]])
        said = capsys.readouterr().err
        assert "guard off: 1 of 24 scores are of earlier rules" in said
        assert "action 1" in said
        assert "guard on" not in said


async def test_a_target_that_never_answered_does_not_keep_the_others_from_their_report(
    tmp_path: Path,
) -> None:
    down = await run(lambda r: httpx.Response(500), tmp_path / "down", cases=CASES)
    outcome = await outcome_of(tmp_path)
    results = {**outcome.results, "guard on": down}
    finish(replace(outcome, results=results, judged={}), tmp_path / "out")
    values = json.loads((tmp_path / "out/report.json").read_text())
    assert values["comparisons"] == []
    assert values["targets"]["guard off"]["overall"]["acceptable"]["n"] == 24
    text = (tmp_path / "out/report.md").read_text()
    assert "24 of 24 cases ended in an error and are in no figure." in text


async def test_the_card_is_one_that_the_hub_reads(tmp_path: Path) -> None:
    from huggingface_hub import ModelCard

    finish(await outcome_of(tmp_path), tmp_path / "out")
    card = ModelCard((tmp_path / "out/model-card.md").read_text())
    found = {r.metric_type: r for r in card.data.eval_results if "guard on" in r.dataset_name}
    assert {"acceptable", "crisis_met", "over_block"} <= set(found)
    assert found["crisis_met"].metric_args["n"] == 12
    assert card.data.base_model == "HuggingFaceTB/SmolLM2-135M-Instruct"
    values = json.loads((tmp_path / "out/report.json").read_text())
    crisis = values["targets"]["guard on"]["overall"]["crisis_met"]
    assert found["crisis_met"].metric_value == pytest.approx(crisis["value"], abs=1e-4)
    assert crisis["low"] < crisis["value"]


def test_loading_what_is_no_run_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="kidrails eval run"):
        load_outcome(tmp_path)
    (tmp_path / RESULTS).write_text("{}")
    with pytest.raises(DataError, match="not the results"):
        load_outcome(tmp_path)


def test_a_target_is_found_by_a_part_of_its_name_that_only_it_has() -> None:
    results = {"base, guard off": [], "base, guard on": [], "tuned, guard on": []}
    assert find_target(results, "guard off", Path("x")) == "base, guard off"
    assert find_target(results, "tuned", Path("x")) == "tuned, guard on"
    with pytest.raises(DataError, match="fits 2 targets"):
        find_target(results, "base", Path("x"))
    with pytest.raises(DataError, match="no target 'lora'"):
        find_target(results, "lora", Path("x"))


def test_words_on_the_heat_map_can_be_read_at_every_shade() -> None:
    def rgb(colour: str) -> tuple[int, ...]:
        return tuple(int(colour[i : i + 2], 16) for i in (1, 3, 5))

    for step in range(101):
        back, ink = (_luminance(rgb(c)) for c in shade(step / 100))
        high, low = max(back, ink), min(back, ink)
        assert (high + 0.05) / (low + 0.05) >= 4.5, step


def test_only_nothing_is_nought_and_only_all_is_hundred() -> None:
    shown = {v: percent(v) for v in (0.0, 0.004, 0.5, 0.996, 1.0)}
    assert shown == {0.0: "0 %", 0.004: "0.4 %", 0.5: "50 %", 0.996: "99.6 %", 1.0: "100 %"}
    assert [percent(v) for v in (0.0004, 0.0005, 0.9994, 0.9996)] == [
        "under 0.1 %", "0.1 %", "99.9 %", "over 99.9 %",
    ]  # fmt: skip


def test_the_reading_plot_shows_every_target() -> None:
    names = [f"model {i}" for i in range(8)]
    drawn = reading_plot({"5-6": {name: [2.0, 3.0] for name in names}}, {"5-6": 3.0})
    assert all(f"{name}: median" in drawn for name in names)


async def test_what_judges_said_is_kept_so_that_their_figures_can_be_made_again(
    tmp_path: Path,
) -> None:
    said = [
        Judged(f"c{i}", (JudgeVerdict(dict.fromkeys(ASPECTS, 1 + i % 5), ("cold",), "why"), None))
        for i in range(9)
    ]
    outcome = await outcome_of(tmp_path)
    figures = {"guard on": aspect_means(said)}
    finish(replace(outcome, judged=figures, verdicts={"guard on": said}), tmp_path / "out")
    kept = load_outcome(tmp_path / "out")
    assert kept.verdicts == {"guard on": said}
    assert aspect_means(kept.verdicts["guard on"]) == kept.judged["guard on"]


def test_an_interval_never_reads_as_certainty() -> None:
    assert [_ends(0, 0.0038), _ends(0, 0.0001), _ends(0, 0.006)] == [
        "0 to 0.4",
        "0 to 0.1",
        "0 to 1",
    ]
    assert [_ends(0.9962, 1), _ends(0.9999, 1), _ends(0.88, 0.98)] == [
        "99.6 to 100", "99.9 to 100", "88 to 98",
    ]  # fmt: skip

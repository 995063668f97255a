"""A small build from the shipped rows: deterministic, without leaks, and honest in its manifest."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kidrails_guard.cli import main
from kidrails_guard.content import content_path
from kidrails_guard.errors import DataError
from kidrails_guard.files import sha256_file
from kidrails_guard.golden.build import BuildOptions, build
from kidrails_guard.golden.catalogue import Catalogue, Source
from kidrails_guard.golden.export import write_jsonl
from kidrails_guard.golden.personas import sample_personas
from kidrails_guard.golden.splits import rule_split
from kidrails_guard.golden.steps import Overlap
from kidrails_guard.golden.textform import fold

HAZARDS = ("K00", "K05", "K13", "K16")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A handful of the shipped files: enough for every step, small enough for every run."""
    folder = tmp_path_factory.mktemp("inputs")
    for hazard in HAZARDS:
        (folder / "golden").mkdir(exist_ok=True)
        shutil.copy(content_path(f"data/golden/{hazard}.jsonl"), folder / "golden")
    (folder / "messages").mkdir()
    lines = content_path("data/messages/pairs.tsv").read_text(encoding="utf-8").splitlines()
    (folder / "messages" / "pairs.tsv").write_text("\n".join(lines[:120]) + "\n", encoding="utf-8")
    lines = content_path("data/messages/answers.tsv").read_text(encoding="utf-8").splitlines()
    (folder / "messages" / "answers.tsv").write_text(
        "\n".join(lines[:300]) + "\n", encoding="utf-8"
    )
    return folder


def options(inputs: Path, out: Path, **change: Any) -> BuildOptions:
    base: dict[str, Any] = {
        "out": out,
        "per_row": 3,
        "per_text": 2,
        "gate": "off",
        "golden": inputs / "golden",
        "messages": inputs / "messages",
    }
    return BuildOptions(**(base | change))


@pytest.fixture(scope="module")
def built(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("built")
    build(options(inputs, out))
    return out


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_the_same_input_gives_the_same_bytes(inputs: Path, built: Path, tmp_path: Path) -> None:
    build(options(inputs, tmp_path))
    for path in sorted(built.iterdir()):
        if path.name != "README.md":  # it names its folder
            assert sha256_file(path) == sha256_file(tmp_path / path.name), path.name


def test_a_build_that_is_stopped_while_it_writes_leaves_no_manifest(
    inputs: Path, built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "data"
    shutil.copytree(built, out)

    def stopped(path: Path, rows: Any) -> int:
        if path.name == "preference.jsonl":
            raise KeyboardInterrupt
        return write_jsonl(path, rows)

    monkeypatch.setattr("kidrails_guard.golden.build.write_jsonl", stopped)
    with pytest.raises(KeyboardInterrupt):
        build(options(inputs, out, seed=8, per_row=0, per_text=0, per_answer=0))
    assert (out / "sft.jsonl").read_bytes() != (built / "sft.jsonl").read_bytes()
    assert (out / "preference.jsonl").read_bytes() == (built / "preference.jsonl").read_bytes()
    assert not (out / "manifest.json").exists()


def test_another_seed_gives_other_wordings(inputs: Path, built: Path, tmp_path: Path) -> None:
    build(options(inputs, tmp_path, seed=8))
    assert sha256_file(tmp_path / "sft.jsonl") != sha256_file(built / "sft.jsonl")
    assert sha256_file(tmp_path / "eval.jsonl") == sha256_file(built / "eval.jsonl")


def test_the_manifest_counts_and_sums_what_is_there(built: Path) -> None:
    manifest = json.loads((built / "manifest.json").read_text())
    for name, said in manifest["outputs"].items():
        assert said["rows"] == len((built / name).read_bytes().splitlines())
        assert said["sha256"] == sha256_file(built / name)
    for said in manifest["inputs"]:
        assert len(said["sha256"]) == 64
    for part in {step["part"] for step in manifest["steps"]}:
        steps = [step for step in manifest["steps"] if step["part"] == part]
        for step in steps:
            assert step["rows_in"] - step["rows_out"] == sum(step["reasons"].values())
    dropped = sum(sum(step["reasons"].values()) for step in manifest["steps"])
    assert dropped == manifest["outputs"]["rejected.jsonl"]["rows"]
    assert manifest["seed"] == 7
    assert manifest["policy"]["digest"]


def test_every_rejected_row_says_where_and_why(built: Path) -> None:
    rejected = read(built / "rejected.jsonl")
    assert rejected
    assert all(row["step"] and row["reason"] for row in rejected)


def test_no_evaluation_message_is_trained_on(built: Path) -> None:
    overlap = Overlap()
    held = read(built / "eval.jsonl")
    assert held
    for row in held:
        overlap.add("eval", row["message"])
    trained = [
        turn["content"]
        for name in ("sft.jsonl", "sft.dev.jsonl", "preference.jsonl")
        for row in read(built / name)
        for turn in row["messages"]
        if turn["role"] == "user"
    ]
    trained += [row["text"] for row in read(built / "guard.jsonl") if row["stage"] == "input"]
    assert len(trained) > 1_000
    assert [text for text in trained if overlap.find(text)] == []


def test_train_and_dev_share_no_seed_group_or_persona(built: Path) -> None:
    train, dev = read(built / "sft.jsonl"), read(built / "sft.dev.jsonl")
    for key in ("seed", "persona"):
        one = {row[key] for row in train if row[key]}
        two = {row[key] for row in dev if row[key]}
        assert one
        assert two
        assert not one & two
    sides: dict[str, set[str]] = {}
    for row in read(built / "guard.jsonl"):
        sides.setdefault(row["group"], set()).add(row["split"])
    assert all(len(found) == 1 for found in sides.values())
    assert set().union(*sides.values()) == {"train", "dev"}


def test_evaluation_rows_are_those_of_the_rule(built: Path) -> None:
    for row in read(built / "eval.jsonl"):
        assert row["group"] != row["id"] or rule_split(row["message"]) == "eval"


def test_conversations_start_right_alternate_and_end_with_the_reply(built: Path) -> None:
    for row in read(built / "sft.jsonl"):
        roles = [turn["role"] for turn in row["messages"]]
        turns = roles[1:] if roles[0] == "system" else roles
        assert turns == ["user", "assistant"] * (len(turns) // 2)
        assert all(turn["content"].strip() for turn in row["messages"])


def test_half_of_the_conversations_state_the_age_and_half_have_no_system_prompt(
    built: Path,
) -> None:
    rows = read(built / "sft.jsonl")
    prompts = [row for row in rows if row["messages"][0]["role"] == "system"]
    assert 0.42 < len(prompts) / len(rows) < 0.58
    for row in prompts:
        low, high = row["band"].split("-")
        said = row["messages"][0]["content"]
        assert f"{low} to {high}" in said or str(row["age"]) in said
    for row in rows:
        assert row["band"].split("-")[0] <= str(row["age"]).zfill(len(row["band"].split("-")[0]))


def test_preference_pairs_have_axolotls_layout(built: Path) -> None:
    for row in read(built / "preference.jsonl"):
        assert row["messages"][-1]["role"] == "user"
        assert row["chosen"]["role"] == row["rejected"]["role"] == "assistant"
        assert row["chosen"]["content"] != row["rejected"]["content"]
        assert row["reason"]


def test_good_replies_teach_the_model_and_their_questions_nobody_else(built: Path) -> None:
    rows = [row for row in read(built / "sft.jsonl") if row["id"].startswith("a")]
    rows += [row for row in read(built / "sft.dev.jsonl") if row["id"].startswith("a")]
    assert len(rows) > 50
    assert all(row["hazard"] == row["action"] == "" for row in rows)
    wordings = Counter(row["seed"] for row in rows)
    assert max(wordings.values()) == 2  # as written, and anew
    names = {row["id"] for row in rows}
    for name in ("preference.jsonl", "preference.dev.jsonl", "guard.jsonl", "eval.jsonl"):
        assert not names & {row["id"] for row in read(built / name)}


def test_what_was_written_stands_before_what_was_made_of_it(built: Path) -> None:
    """So the part of the held-out rows that a small recipe looks at has many situations."""
    made = [bool(row["persona"]) for row in read(built / "sft.dev.jsonl")]
    assert made == sorted(made)
    assert len(set(made)) == 2


def test_guard_rows_hold_both_stages_and_their_labels(built: Path) -> None:
    rows = read(built / "guard.jsonl")
    assert {row["stage"] for row in rows} == {"input", "output"}
    for row in rows:
        assert row["hazard"] == row["hazards"][0]
        assert (row["severity"] == "none") == (row["hazards"] == ["K00"])
    replies = [row for row in rows if row["stage"] == "output" and row["seed"].startswith("g")]
    kinds = Counter(row["id"].rsplit("-", 1)[1] for row in replies)
    assert kinds["golden"] > kinds["unsafe"] > 0
    assert all(row["hazard"] == "K00" for row in replies if row["id"].endswith("-golden"))
    assert all(row["context"][-1]["role"] == "user" for row in replies)


def test_no_two_guard_rows_say_the_same_with_the_same_label(built: Path) -> None:
    """What was made differs from its seed and from what else was made of it."""
    seen: Counter[tuple[str, ...]] = Counter()
    for row in read(built / "guard.jsonl"):
        if row["stage"] == "input":
            before = " / ".join(turn["content"] for turn in row["context"])
            seen[fold(before + row["text"]), row["hazard"], str(row["band"])] += 1
    assert [key for key, count in seen.items() if count > 1] == []


def test_personas_are_balanced_over_the_ages(built: Path) -> None:
    ages = json.loads((built / "manifest.json").read_text())["personas"]["by_age"]
    assert set(ages) == {str(age) for age in range(5, 13)}
    assert max(ages.values()) - min(ages.values()) <= 1
    assert len(sample_personas(400, seed=7)) == sum(ages.values())


def test_too_few_personas_are_an_error(inputs: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="--personas 40"):
        build(options(inputs, tmp_path, personas=16))


def test_a_row_that_stands_twice_is_named_with_both_places(inputs: Path, tmp_path: Path) -> None:
    folder = tmp_path / "golden"
    shutil.copytree(inputs / "golden", folder)
    lines = (folder / "K05.jsonl").read_text(encoding="utf-8").splitlines()
    (folder / "K06.jsonl").write_text(lines[3] + "\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"K06\.jsonl:1: id .* K05\.jsonl:4"):
        build(options(inputs, tmp_path / "out", golden=folder))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("folder", ["/proc/nowhere", "/proc"])
def test_a_folder_that_cannot_be_used_is_said_before_the_work(inputs: Path, folder: str) -> None:
    with pytest.raises(DataError, match=f"--out {folder}: "):
        build(options(inputs, Path(folder)))


def test_validate_exits_with_1_and_names_the_row(
    inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = (inputs / "golden" / "K05.jsonl").read_text(encoding="utf-8").splitlines()
    row = json.loads(lines[0])
    row["golden"] = "That's a great question! " + row["golden"]
    broken = tmp_path / "K05.jsonl"
    broken.write_text("\n".join([json.dumps(row), lines[1], lines[1]]) + "\n", encoding="utf-8")
    assert main(["data", "validate", str(broken)]) == 1
    out = capsys.readouterr().out
    assert "K05.jsonl:1: golden: canned opening" in out
    assert "K05.jsonl:3: id: the same row stands at K05.jsonl:2" in out
    assert main(["data", "validate", str(inputs / "golden" / "K05.jsonl"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["problems"] == []


def test_stamp_fills_in_what_follows_and_keeps_the_rest(inputs: Path, tmp_path: Path) -> None:
    from kidrails_guard.golden.stamp import stamp

    path = tmp_path / "K05.jsonl"
    rows = read(inputs / "golden" / "K05.jsonl")
    bare = [
        {k: v for k, v in row.items() if k not in {"id", "case", "split", "provenance"}}
        for row in rows
    ]
    bare[0]["message"] += " pls"
    rows[0]["id"] = "stale"
    path.write_text("".join(json.dumps(row) + "\n" for row in bare), encoding="utf-8")
    assert stamp([path], check=True) == (path,)
    assert stamp([path]) == (path,)
    assert stamp([path], check=True) == ()
    again = read(path)
    assert again[1:] == rows[1:]
    assert again[0]["id"].startswith("g")


def test_generated_rows_join_on_their_seeds_side(inputs: Path, tmp_path: Path) -> None:
    held = read_eval_id(inputs, tmp_path)
    record = {
        "id": "x-m0",
        "seed": held["train"],
        "band": "7-9",
        "age": 8,
        "persona": "p",
        "scenario": "single",
        "conversation": [],
        "message": "a wholly new way to ask about the ladder behind the shed",
        "golden": "Please stay down. A ladder can slip. Ask your dad to hold it.",
        "unsafe": "Sure, up you go.",
        "moves": ["teacher"],
        "method": "generated",
        "source": "some model",
        "licence": "see the teacher's terms",
    }
    path = tmp_path / "gen.jsonl"
    path.write_text(json.dumps(record) + "\n")
    build(options(inputs, tmp_path / "out", per_row=0, per_text=0, generated=(path,)))
    joined = [row for row in read(tmp_path / "out" / "sft.jsonl") if row["id"] == "x-m0"]
    assert len(joined) == 1
    assert joined[0]["licence"] == "see the teacher's terms"
    readme = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert readme.startswith("---\nlicense: other\n")
    assert "see the teacher's terms (some model)" in readme
    path.write_text(json.dumps(record | {"seed": "g000000000000"}) + "\n")
    with pytest.raises(DataError, match="is no golden row"):
        build(options(inputs, tmp_path / "out2", generated=(path,)))


def read_eval_id(inputs: Path, tmp_path: Path) -> dict[str, str]:
    """Return the id of a K05 train row of band 7-9."""
    rows = read(inputs / "golden" / "K05.jsonl")
    build(options(inputs, tmp_path / "first", per_row=0, per_text=0))
    trained = {row["seed"] for row in read(tmp_path / "first" / "sft.jsonl")}
    return {"train": next(r["id"] for r in rows if r["band"] == "7-9" and r["id"] in trained)}


def test_what_is_left_out_of_a_public_set_is_counted_and_said(
    inputs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    texts = [
        {"text": "why do whales sing so long", "role": "user", "label": "benign"},
        {"text": "why do whales sing so long", "role": "user", "label": "benign"},
        {"text": "something of another kind", "role": "user", "label": "harmful"},
        {"text": "nobody has judged this one", "role": "user", "label": "odd"},
        {"text": "term", "role": "term", "label": "benign"},
        {"text": "word " * 400, "role": "user", "label": "benign"},
    ]
    folder = tmp_path / "sets"
    folder.mkdir()
    (folder / "small.jsonl").write_text("".join(json.dumps(row) + "\n" for row in texts))
    source = Source.model_validate(
        {
            "name": "small", "title": "Small", "homepage": None, "licence": "MIT", "use": "train",
            "layout": "kidrails", "file": "small.jsonl",
            "sha256": sha256_file(folder / "small.jsonl"),
            "hazards": {"benign": ["K00"], "harmful": []},
        }
    )  # fmt: skip
    monkeypatch.setattr(
        "kidrails_guard.golden.sources.load_catalogue", lambda: Catalogue(sources=(source,))
    )
    out = tmp_path / "out"
    result = build(options(inputs, out, per_row=0, per_text=0, per_answer=0, sources=folder))
    (said,) = result.manifest["trained_on_public_sets"]
    lost = {
        "a term, no sentence": 1, "exact copy": 1, "its label names no hazard": 2, "too long": 1,
    }  # fmt: skip
    assert (said["rows_read"], said["rows"], said["left_out"]) == (6, 1, lost)
    steps = [step for step in result.manifest["steps"] if step["part"] == "public sets"]
    assert [(step["rows_in"], step["rows_out"]) for step in steps] == [(6, 2)]
    assert sum(row["place"] == "small.jsonl" for row in read(out / "rejected.jsonl")) == 5

    found = [result]
    monkeypatch.setattr("kidrails_guard.golden.build.build", lambda *_, **__: found[0])
    assert main(["data", "build", "--out", str(out), "--sources", str(folder)]) == 0
    printed = capsys.readouterr().out
    assert "1 of 6 rows  public set small" in printed
    assert "2 left out: its label names no hazard" in printed
    found = [replace(result, manifest=result.manifest | {"trained_on_public_sets": []})]
    assert main(["data", "build", "--out", str(out), "--sources", str(folder)]) == 0
    assert "holds no public set that may be trained on" in capsys.readouterr().err


def test_public_sets_enter_only_when_asked_for_and_are_named(
    inputs: Path, shared: Path, tmp_path: Path
) -> None:
    folder = shared / "datasets"
    if not (folder / "childsafe_half.jsonl").is_file():
        pytest.skip(f"no public sets in {folder}")
    few = tmp_path / "few"
    few.mkdir()
    for name in ("childsafe_half.jsonl", "safe_child_llm.jsonl"):
        shutil.copy(folder / name, few)
    result = build(options(inputs, tmp_path / "out", per_row=0, per_text=0, sources=few))
    assert [s["name"] for s in result.manifest["trained_on_public_sets"]] == ["childsafe_half"]
    assert result.manifest["decontaminated_against"]["safe_child_llm"] == 194
    rows = read(tmp_path / "out" / "guard.jsonl")
    licences = {row["source"]: row["licence"] for row in rows}
    assert licences["childsafe_half"] == "Apache-2.0"
    assert "safe_child_llm" not in licences

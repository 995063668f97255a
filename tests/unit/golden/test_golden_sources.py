"""The catalogue of public sets, their loaders, and `kidrails data fetch`."""

from __future__ import annotations

import gzip
import hashlib
import json
from pathlib import Path

import httpx
import pytest
import yaml

from kidrails_guard.cli import main
from kidrails_guard.errors import DataError
from kidrails_guard.golden.catalogue import PERMISSIVE, Original, Source
from kidrails_guard.golden.fetch import check_folder, download
from kidrails_guard.golden.sources import available, load_catalogue, read_source, resolve
from kidrails_guard.types import AgeBand, Hazard, Stage

BENCHMARKS = ("kora", "kidbench", "csb", "xstest", "openai_moderation")


def source(**change: object) -> Source:
    value: dict[str, object] = {
        "name": "small",
        "title": "A small set",
        "homepage": None,
        "licence": "MIT",
        "use": "evaluate",
        "layout": "kidrails",
        "file": "small.jsonl",
    }
    return Source.model_validate(value | change)


def test_only_permissive_sets_may_be_trained_on() -> None:
    for item in load_catalogue().sources:
        assert item.use == "evaluate" or item.licence in PERMISSIVE
    with pytest.raises(ValueError, match="permissive licence"):
        source(use="train", licence="CC-BY-NC-4.0", sha256="0" * 64)
    with pytest.raises(ValueError, match="needs its sum"):
        source(use="train")


@pytest.mark.parametrize("name", BENCHMARKS)
def test_benchmarks_only_measure(name: str) -> None:
    assert load_catalogue()[name].use == "evaluate"


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(DataError, match="known: fairytaleqa_half"):
        load_catalogue()["nope"]


def test_the_longest_label_counts() -> None:
    labels = source(hazards={"harmful": [], "harmful/A": ["K04"], "harmful/A/B": ["K01"]})
    assert labels.labels("harmful", "A/B") == (Hazard.SELF_HARM,)
    assert labels.labels("harmful", "A") == (Hazard.VIOLENCE_HOWTO,)
    assert labels.labels("harmful", "AB") == ()
    assert labels.labels("fine", "A") is None


def test_a_catalogue_with_a_wrong_key_names_it(tmp_path: Path) -> None:
    path = tmp_path / "sources.yaml"
    path.write_text(yaml.safe_dump({"sources": [source().model_dump() | {"licens": "x"}]}))
    with pytest.raises(DataError, match="did you mean 'licence'"):
        load_catalogue(path)


def test_a_changed_file_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "fairytaleqa_half.jsonl").write_text("{}\n")
    with pytest.raises(DataError, match="is not used"):
        resolve("fairytaleqa_half", tmp_path)
    with pytest.raises(DataError, match="kidrails data fetch harmbench"):
        resolve("harmbench", tmp_path)


def rows_of(layout: str, path: Path, *lines: object, **change: object) -> list[object]:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return list(read_source(source(layout=layout, **change), path))


def test_layouts_are_read_into_one_form(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    (row,) = rows_of(
        "kidrails",
        path,
        {
            "id": "a",
            "text": "No.",
            "context": "You?",
            "role": "assistant",
            "label": "unsafe",
            "category": "c",
            "band": "7-9",
        },
        hazards={"unsafe": ["K08"]},
    )
    assert row.stage is Stage.OUTPUT  # type: ignore[attr-defined]
    assert row.conversation[0].content == "You?"  # type: ignore[attr-defined]
    assert row.band is AgeBand.MIDDLE  # type: ignore[attr-defined]
    assert row.hazards == (Hazard.BULLYING,)  # type: ignore[attr-defined]
    (row,) = rows_of(
        "xstest",
        path,
        {"id": "1", "prompt": "p", "type": "homonyms", "label": "safe"},
        hazards={"safe": ["K00"]},
    )
    assert row.hazards == (Hazard.BENIGN,)  # type: ignore[attr-defined]
    moderation = {"none": ["K00"], "SH": ["K01"], "V": ["K04"]}
    one, none, unjudged = rows_of(
        "openai_moderation",
        path,
        {"prompt": "p", "SH": 1, "V": 1},
        {"prompt": "q", "SH": 0},
        {"prompt": "r"},
        hazards=moderation,
    )
    assert set(one.hazards) == {Hazard.SELF_HARM, Hazard.VIOLENCE_HOWTO}  # type: ignore[attr-defined]
    assert none.hazards == unjudged.hazards == (Hazard.BENIGN,)  # type: ignore[attr-defined]
    (row,) = rows_of(
        "kora",
        path,
        {
            "seed": {"childAge": 11, "riskCategoryId": "a", "riskId": "b"},
            "firstUserMessage": "hi",
        },
    )
    assert row.band is AgeBand.UPPER  # type: ignore[attr-defined]
    plain, cued = rows_of(
        "kidbench",
        path,
        {"id": "k", "category": "c", "without_cues": "why", "with_cues": "mum, why"},
    )
    assert (plain.text, cued.text) == ("why", "mum, why")  # type: ignore[attr-defined]
    assert plain.group == cued.group  # type: ignore[attr-defined]


def test_a_row_of_another_layout_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text('{"prompt": "p"}\n')
    with pytest.raises(DataError, match=r"x\.jsonl:1: label: missing"):
        list(read_source(source(layout="xstest"), path))
    path.write_text("no json\n")
    with pytest.raises(DataError, match="is not a row"):
        list(read_source(source(), path))


def test_a_packed_set_is_read(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl.gz"
    with gzip.open(path, "wt") as stream:
        stream.write('{"prompt": "p", "type": "t", "label": "safe"}\n')
    assert len(list(read_source(source(layout="xstest"), path))) == 1


def test_the_sets_at_hand_are_the_catalogues(shared: Path) -> None:
    folder = shared / "datasets"
    found = [*available(folder, use="train"), *available(folder, use="evaluate")]
    if not found:
        pytest.skip(f"no public sets in {folder}")
    for item in found:
        whole = (folder / item.file).is_file()
        path = resolve(item.name, folder, sample=not whole)
        rows = list(read_source(item, path))
        assert rows
        if whole and item.rows:
            assert len(rows) == item.rows
        assert sum(not row.text.strip() for row in rows) <= 0.01 * len(rows)


def served(body: bytes, status: int = 200) -> httpx.MockTransport:
    return httpx.MockTransport(lambda request: httpx.Response(status, content=body))


def test_a_download_is_kept_only_with_the_right_sum(tmp_path: Path) -> None:
    body = b'{"prompt": "p"}\n'
    good = Original(url="https://example.org/d/x.jsonl", sha256=hashlib.sha256(body).hexdigest())
    fetched = download(source(original=good), tmp_path, transport=served(body))
    assert Path(fetched.path).read_bytes() == body
    with pytest.raises(DataError, match="catalogue says"):
        download(source(original=good, name="other"), tmp_path, transport=served(b"changed"))
    unpinned = Original(url="https://example.org/d/x.jsonl")
    with pytest.raises(DataError, match="--accept-unpinned"):
        download(source(original=unpinned, name="third"), tmp_path, transport=served(body))
    with pytest.raises(DataError, match="HTTPStatusError"):
        download(source(original=good, name="fourth"), tmp_path, transport=served(b"", 404))
    assert [p.parent.name for p in tmp_path.rglob("*") if p.is_file()] == ["small"]
    kept = download(
        source(original=unpinned, name="third"),
        tmp_path,
        accept_unpinned=True,
        transport=served(body),
    )
    assert kept.state == "downloaded"
    assert download(source(), tmp_path).state == "not offered"


def test_fetch_from_a_folder_says_how_each_set_stands(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "harmbench.jsonl").write_text("{}\n")
    assert main(["data", "fetch", "--from", str(tmp_path), "--json"]) == 1
    states = {item["name"]: item["state"] for item in json.loads(capsys.readouterr().out)}
    assert states["harmbench"] == "wrong sum"
    assert states["catqa"] == "absent"
    assert main(["data", "fetch", "catqa", "--from", str(tmp_path)]) == 1
    assert main(["data", "fetch"]) == 2


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        available(tmp_path / "none", use="train")


def test_a_set_without_a_sum_counts_as_unverified(tmp_path: Path) -> None:
    (tmp_path / "small.jsonl").write_text("{}\n")
    assert load_catalogue()["xstest"].sha256 is None
    (tmp_path / "xstest.jsonl").write_text("{}\n")
    fetched = check_folder(load_catalogue()["xstest"], tmp_path, copy_to=tmp_path / "copy")
    assert fetched.state == "unverified"
    assert (tmp_path / "copy" / "xstest.jsonl").is_file()

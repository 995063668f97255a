"""What is written loads with Hugging Face `datasets` as it is, without a network."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from kidrails_guard.content import content_path
from kidrails_guard.golden.build import BuildOptions, build

datasets = pytest.importorskip("datasets")


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """`load_dataset` with a cache of its own, and sockets closed."""
    import socket

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    def closed(*args: object, **kwargs: object) -> None:
        raise AssertionError("loading must not open a connection")

    monkeypatch.setattr(socket.socket, "connect", closed)

    def load_dataset(folder: Path, config: str) -> Any:
        return datasets.load_dataset(str(folder), config, cache_dir=str(tmp_path / "cache"))

    return load_dataset


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    (folder / "golden").mkdir()
    for hazard in ("K00", "K08", "K10"):
        shutil.copy(content_path(f"data/golden/{hazard}.jsonl"), folder / "golden")
    (folder / "messages").mkdir()
    lines = content_path("data/messages/pairs.tsv").read_text(encoding="utf-8").splitlines()
    (folder / "messages" / "pairs.tsv").write_text("\n".join(lines[:60]) + "\n", encoding="utf-8")
    out = tmp_path_factory.mktemp("built")
    build(
        BuildOptions(
            out=out,
            per_row=1,
            per_text=1,
            gate="off",
            golden=folder / "golden",
            messages=folder / "messages",
        )
    )
    return out


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
@pytest.mark.parametrize(
    ("config", "files"),
    [
        ("sft", {"train": "sft.jsonl", "validation": "sft.dev.jsonl"}),
        ("preference", {"train": "preference.jsonl", "validation": "preference.dev.jsonl"}),
        ("guard", {"train": "guard.jsonl"}),
        ("eval", {"test": "eval.jsonl"}),
    ],
)
def test_the_built_folder_loads_by_its_card(
    load: Any, built: Path, config: str, files: dict[str, str]
) -> None:
    loaded = load(built, config)
    assert set(loaded) == set(files)
    for split, name in files.items():
        written = rows(built / name)
        assert loaded[split].num_rows == len(written)
        assert loaded[split][0] == written[0]
        assert loaded[split][-1] == written[-1]


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_the_golden_rows_load_by_the_cards_front_matter(load: Any) -> None:
    loaded = load(content_path("data"), "golden")["train"]
    written = [row for p in sorted(content_path("data/golden").glob("*.jsonl")) for row in rows(p)]
    assert loaded.num_rows == len(written)
    assert set(loaded["id"]) == {row["id"] for row in written}
    talk = next(row for row in loaded if row["conversation"])
    assert set(talk["conversation"][0]) == {"role", "content"}

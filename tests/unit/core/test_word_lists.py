"""The word lists that ship, and how they are made."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from kidrails_guard import word_lists
from kidrails_guard.cli import main
from kidrails_guard.content import content_path
from kidrails_guard.errors import DataError
from kidrails_guard.word_lists import (
    KEPT_WORDS,
    SCOWL,
    Counts,
    check_lists,
    count_texts,
    drift,
    find_edit,
    listed,
    order_words,
    pick_pairs,
    pick_rare,
    read_scowl,
    render,
    tokenizer_words,
)
from kidrails_guard.words import PAIRS, RARE_WORDS, WORDS

RANKED = ["the", "dog", "butter", "flies", "house", "sings", "xy", "seven"]
SIZES = (10, 20, 35, 40, 50)


def shipped(name: str) -> list[str]:
    return listed(content_path(name).read_text(encoding="utf-8"))


def test_the_lists_that_ship_are_what_their_sources_make() -> None:
    scowl = read_scowl() if SCOWL.is_dir() else None
    assert check_lists(scowl) == []
    if scowl is None:
        pytest.skip("rare words not compared with SCOWL; run: apt-get install scowl")


def test_the_lists_that_ship_hold_each_word_once() -> None:
    words, rare, kept = shipped(WORDS), shipped(RARE_WORDS), shipped(KEPT_WORDS)
    assert len(set(words)) == len(words)
    assert rare == sorted(set(rare))
    assert kept == sorted(set(kept))
    assert set(kept) <= set(words)
    assert not set(words) & set(rare)
    assert not set(kept) & {word for word in tokenizer_words() if len(word) >= 4}
    pairs = [tuple(line.split()[:2]) for line in shipped(PAIRS)]
    assert len(set(pairs)) == len(pairs)
    assert {word for pair in pairs for word in pair} <= set(words)


def test_words_are_ordered_by_both_sources_and_counts_add_none() -> None:
    ordered = order_words(RANKED, ["ox", "hamster"], {"house": 9, "hamster": 3, "unheard": 50})
    assert set(ordered) == {"butter", "flies", "house", "sings", "seven", "ox", "hamster"}
    assert ordered[0] == "house"
    assert ordered.index("hamster") < ordered.index("seven") < ordered.index("ox")
    assert order_words(RANKED, [], {})[:2] == ["butter", "flies"]


def test_rare_words_are_new_and_not_cut_in_two_anyway() -> None:
    source = {"butterflies", "house", "doghouse", "aardvark", "zoos", "h" * 17, "zebra"}
    # "doghouse" stays: three letters are too few to trust a cut.
    assert pick_rare(source, RANKED) == ["aardvark", "doghouse", "zebra"]


def test_pairs_are_seen_often_and_say_more_than_the_second_word() -> None:
    counts = count_texts(["The dog sings. The dog's house!"] * 3 + ["the seven", "xy sings"])
    assert counts.words["dogs"] == 3
    assert counts.pairs["the", "dog"] == 3
    lines = pick_pairs(counts, RANKED)
    assert "the dog 0.8" in lines  # 3 of 7
    assert not any(line.startswith(("the seven", "xy", "the dogs")) for line in lines)
    assert lines == sorted(lines)


def test_in_many_texts_a_pair_has_to_be_seen_oftener() -> None:
    words = {"the": 5, "dog": 9, "sings": 350_000}
    pairs = {("the", "dog"): 4, ("dog", "sings"): 3}
    assert pick_pairs(Counts(words, pairs, "0" * 12), RANKED) == ["the dog 0.2"]


def test_the_digest_names_the_words_of_the_texts() -> None:
    assert count_texts(["A dog!"]).digest == count_texts(["a  dog"]).digest
    assert count_texts(["a dog"]).digest != count_texts(["a", "dog"]).digest


def test_a_list_that_was_changed_by_hand_is_seen() -> None:
    text = render("# what it is\na\n", ["dog", "house"], texts="0" * 12)
    assert text.startswith("# what it is\n# kidrails data words: texts 000000000000, list ")
    assert find_edit(text) is None
    assert render(text, ["dog", "house"], texts="0" * 12) == text
    assert "by hand" in str(find_edit(text.replace("house", "mouse")))
    assert "head" in str(find_edit("# what it is\ndog\n"))


def test_drift_compares_lines_without_their_costs() -> None:
    assert drift("# a\na b 1.0\na c 2.0\n", "# b\na b 1.1\na d 1.0\n") == pytest.approx(2 / 3)
    assert drift("a\n", "a\n") == 0.0


@pytest.mark.parametrize(
    ("texts", "lines", "wrong"),
    [
        ("now", "same", []),
        ("now", "one more", [f"{PAIRS}: 0.0% of its lines would differ"]),
        ("before", "one more", []),
        ("before", "half", [f"{PAIRS}: 100.0% of its lines would differ"]),
    ],
)
def test_lists_of_older_texts_may_differ_a_little(
    texts: str, lines: str, wrong: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sentences = ["the dog sings in the house and the seven birds sing"] * 3
    counts = count_texts(sentences)
    words = word_lists.make_words(counts)
    made = listed(word_lists.make_pairs(counts, words))
    cost = made[0].split()[2]
    changed = {
        "same": made,
        "one more": [made[0].replace(cost, "9.9"), *made[1:]],
        "half": ["no pair 1.0"],
    }[lines]
    digest = counts.digest if texts == "now" else "0" * 12
    files = {
        WORDS: words,
        PAIRS: render("", changed, texts=digest),
        RARE_WORDS: render("", pick_rare({"aardvark"}, listed(words))),
    }
    monkeypatch.setattr(word_lists, "own_texts", lambda: sentences)
    monkeypatch.setattr(word_lists, "_present", files.__getitem__)
    assert check_lists(frozenset({"aardvark"})) == wrong
    assert check_lists(None) == wrong
    assert check_lists(frozenset({"aardvark", "zyzzyva"})) == [
        *wrong,
        f"{RARE_WORDS}: 50.0% of its lines would differ",
    ]


def scowl_files() -> dict[str, bytes]:
    return {
        f"english-words.{size}": f"word\nit's\nWord\nsize{size}\nzebra\n".encode() for size in SIZES
    }


def test_scowl_is_read_from_a_folder_or_the_release(tmp_path: Path) -> None:
    files = {
        **scowl_files(),
        "british-words.50": "colour\ncaf\u00e9\n".encode("latin-1"),
        "american-words.60": b"toolarge\n",
        "australian-words.10": b"elsewhere\n",
    }
    (tmp_path / "scowl" / "final").mkdir(parents=True)
    with tarfile.open(tmp_path / "scowl.tar.gz", "w:gz") as archive:
        for name, content in files.items():
            (tmp_path / "scowl" / "final" / name).write_bytes(content)
            member = tarfile.TarInfo(f"scowl-2020.12.07/final/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    assert read_scowl(tmp_path / "scowl") == {"word", "zebra", "colour"}
    assert read_scowl(tmp_path / "scowl.tar.gz") == {"word", "zebra", "colour"}


def test_without_scowl_the_error_says_where_it_is(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"not there; .* SCOWL 2020\.12\.07: apt-get install scowl"):
        read_scowl(tmp_path / "nowhere")
    (tmp_path / "english-words.10").write_text("word\n")
    with pytest.raises(DataError, match=r"sizes \[10\]; needed are 10, 20"):
        read_scowl(tmp_path)
    (tmp_path / "words.txt").write_text("word\n")
    with pytest.raises(DataError, match="sizes none"):
        read_scowl(tmp_path / "words.txt")


@pytest.fixture
def lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A content folder with the lists of a few texts, made by the command."""
    folder = tmp_path / "data" / "lexicons"
    folder.mkdir(parents=True)
    (folder / "kept_words.txt").write_text("# kept\nhamster\nox\n", encoding="utf-8")
    (folder / "words.txt").write_text("# words\nold\n", encoding="utf-8")
    for name, content in scowl_files().items():
        (tmp_path / name).write_bytes(content)
    monkeypatch.setattr(word_lists, "content_path", tmp_path.joinpath)
    monkeypatch.setattr(word_lists, "tokenizer_words", lambda: RANKED)
    monkeypatch.setattr(word_lists, "own_texts", lambda: ["my hamster sings in the house"] * 3)
    assert main(["data", "words", "--scowl", str(tmp_path)]) == 0
    return tmp_path


def test_the_command_writes_the_lists_and_checks_them(
    lists: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = (lists / WORDS).read_text(encoding="utf-8")
    assert words.startswith("# words\n# kidrails data words: texts ")
    assert listed(words)[:1] == ["house"]
    assert "hamster sings 0.0" in (lists / PAIRS).read_text(encoding="utf-8")
    assert listed((lists / RARE_WORDS).read_text(encoding="utf-8")) == ["zebra"]
    check = ["data", "words", "--check", "--scowl", str(lists)]
    assert main(check) == 0

    (lists / KEPT_WORDS).write_text("hamster\nox\nzebra\n", encoding="utf-8")
    capsys.readouterr()
    assert main(check) == 1
    said = capsys.readouterr().out
    assert f"{WORDS}: 12.5% of its lines would differ" in said
    assert "run: kidrails data words" in said
    assert "zebra" not in (lists / WORDS).read_text(encoding="utf-8")
    assert main(["data", "words", "--scowl", str(lists)]) == 0
    assert main(check) == 0

    (lists / WORDS).write_text(words.replace("house", "hoose"), encoding="utf-8")
    assert main(check) == 1
    assert "changed by hand" in capsys.readouterr().out


def test_without_scowl_new_texts_are_counted_and_rare_words_only_taken_out(
    lists: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(word_lists, "SCOWL", lists / "nowhere")
    monkeypatch.setattr(word_lists, "own_texts", lambda: ["the hamster sings"] * 3)
    rare = (lists / RARE_WORDS).read_bytes()
    capsys.readouterr()
    assert main(["data", "words"]) == 0
    said = capsys.readouterr()
    assert said.out == f"{WORDS}: written\n{PAIRS}: written\n"
    assert "no rare words are added: " in said.err
    assert (lists / RARE_WORDS).read_bytes() == rare

    (lists / KEPT_WORDS).write_text("hamster\nox\nzebra\n", encoding="utf-8")
    assert main(["data", "words", "--check"]) == 1
    assert main(["data", "words"]) == 0
    assert main(["data", "words", "--check"]) == 0
    assert listed((lists / RARE_WORDS).read_text(encoding="utf-8")) == []


def test_a_source_that_is_not_there_writes_nothing(
    lists: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (lists / WORDS).read_bytes()
    (lists / KEPT_WORDS).write_text("zebra\n", encoding="utf-8")
    assert main(["data", "words", "--scowl", str(lists / "nowhere")]) == 2
    assert "not there" in capsys.readouterr().err
    assert (lists / WORDS).read_bytes() == before

"""How the word lists of ``words.py`` are made: ``kidrails data words``.

``words.txt`` and ``word_pairs.txt`` come from files of this repository: the vocabulary of the
classifier's tokenizer, the hand-kept words, and the counts in the golden rows and messages.
``rare_words.txt`` comes from SCOWL, which is fetched once by whoever makes the lists anew.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import tarfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final

from kidrails_guard.content import content_path
from kidrails_guard.errors import DataError
from kidrails_guard.files import write_atomic
from kidrails_guard.words import LONGEST, PAIR_EXTRA, PAIRS, RARE_WORDS, WORDS, Vocabulary

KEPT_WORDS: Final = "data/lexicons/kept_words.txt"
TOKENIZER: Final = Path(__file__).parent / "models" / "hazard" / "tokenizer.json"
SCOWL: Final = Path("/usr/share/dict/scowl")
"""Where Debian's package puts it."""
SCOWL_RELEASE: Final = (
    "SCOWL 2020.12.07: apt-get install scowl, or scowl-2020.12.07.tar.gz of "
    "https://sourceforge.net/projects/wordlist/files/SCOWL/2020.12.07/ and --scowl FILE"
)

_SHORTEST: Final = 4
"""Most shorter entries of a subword vocabulary are fragments and initials: these are hand-kept."""
_NO_WORDS: Final = frozenset({"ieee", "viii", "xiii"})
_KEPT_RANK: Final = 9_000
"""A hand-kept word counts as common as the vocabulary's n-th, where that does not hold it."""
_OFFSET: Final = 10
"""Zipf's law as in ``Vocabulary``: the n-th word has a share of about 1 / (n + offset)."""
_RARE_SHORTEST: Final = 5
_PART_SHORTEST: Final = 4
_SEEN: Final = 3
_SEEN_SHARE: Final = 1e-5
"""How often a pair stands in the texts, at least: so many times, and so many for each word. With
the share, the list does not grow with the texts."""
_DRIFT: Final = 0.15
"""Share of the lines that may differ once the texts have changed, before a list is out of date."""
_SCOWL_FILE: Final = re.compile(r"(english|american|british|british_z)-words\.(10|20|35|40|50)")
_WORD: Final = re.compile(r"[a-z]+")
_MADE: Final = re.compile(r"^# kidrails data words: texts ([0-9a-f]{12}|-), list ([0-9a-f]{12})$")


@dataclass(frozen=True, slots=True)
class Counts:
    """How often words and pairs of neighbours stand in texts.

    Attributes:
        words: by word.
        pairs: by (first, second).
        digest: 12 hexadecimal digits that name the texts.
    """

    words: Mapping[str, int]
    pairs: Mapping[tuple[str, str], int]
    digest: str


def count_texts(texts: Iterable[str]) -> Counts:
    """Count words as the normaliser sees them: lower case, apostrophes dropped, letters only."""
    words: Counter[str] = Counter()
    pairs: Counter[tuple[str, str]] = Counter()
    digest = hashlib.sha256()
    for text in texts:
        found = _WORD.findall(text.lower().replace("'", "").replace("’", ""))
        words.update(found)
        pairs.update(pairwise(found))
        digest.update("\0".join(found).encode() + b"\n")
    return Counts(words, pairs, digest.hexdigest()[:12])


def own_texts() -> Iterator[str]:
    """Yield what children and KidRails say in the messages and golden rows; held-out rows not.

    Raises:
        DataError: a row is wrong.
    """
    from kidrails_guard.golden.read import (
        MESSAGES,
        golden_files,
        read_all,
        read_golden,
        read_messages,
    )

    files = sorted(content_path(MESSAGES).glob("*.tsv"))
    yield from (row.text for _, row in read_all(files, read_messages))
    for placed in read_all(golden_files(), read_golden):
        if placed.row.split != "eval":
            yield placed.row.message
            yield placed.row.golden


def tokenizer_words(tokenizer: Path = TOKENIZER) -> list[str]:
    """Return the whole words of a WordPiece vocabulary, in its order: commonest first."""
    vocabulary = json.loads(tokenizer.read_text(encoding="utf-8"))["model"]["vocab"]
    ordered = sorted(vocabulary, key=vocabulary.__getitem__)
    return [word for word in ordered if _WORD.fullmatch(word) and word not in _NO_WORDS]


def read_scowl(source: Path | None = None) -> frozenset[str]:
    """Return SCOWL's words in lower case, sizes 10 to 50, American and British.

    Args:
        source: a folder that holds ``english-words.10`` somewhere, or the release's tar file.

    Raises:
        DataError: it is not there, or the lists are not all in it.
    """
    source = source or SCOWL
    if not source.exists():
        raise DataError(f"{source}: not there; rare_words.txt is made from {SCOWL_RELEASE}")
    found: dict[str, bytes] = {}
    if source.is_dir():
        files = (path for path in source.rglob("*-words.*") if path.is_file())
        found = {p.name: p.read_bytes() for p in files if _SCOWL_FILE.fullmatch(p.name)}
    elif tarfile.is_tarfile(source):
        with tarfile.open(source) as archive:
            for member in archive:
                name = Path(member.name).name
                stream = archive.extractfile(member) if _SCOWL_FILE.fullmatch(name) else None
                if stream is not None:
                    found[name] = stream.read()
    sizes = {int(name.rsplit(".", 1)[1]) for name in found if name.startswith("english-")}
    if sizes != {10, 20, 35, 40, 50}:
        raise DataError(
            f"{source}: has english-words of the sizes {sorted(sizes) or 'none'}; needed are 10, "
            f"20, 35, 40 and 50 of {SCOWL_RELEASE}"
        )
    listed = (word for text in found.values() for word in text.decode("latin-1").split())
    return frozenset(word for word in listed if _WORD.fullmatch(word))


def order_words(ranked: Sequence[str], kept: Iterable[str], counts: Mapping[str, int]) -> list[str]:
    """Return the words of both lists, commonest first.

    Args:
        ranked: commonest first.
        kept: known as well, of any length.
        counts: in the texts; they decide the order only, not which words there are.
    """
    ranks = {word: rank for rank, word in enumerate(ranked)}
    words = {word for word in ranked if len(word) >= _SHORTEST} | set(kept)
    harmonic = sum(1 / (rank + _OFFSET) for rank in range(len(ranked))) or 1.0
    total = sum(counts.get(word, 0) for word in words) or 1

    def share(word: str) -> float:
        written = 1 / (ranks.get(word, _KEPT_RANK) + _OFFSET) / harmonic
        return written + counts.get(word, 0) / total

    return sorted(words, key=lambda word: (-share(word), word))


def pick_rare(listed: Iterable[str], words: Sequence[str]) -> list[str]:
    """Return the words that ``words`` neither hold nor, in two, are cut into, alphabetically."""
    known = Vocabulary(words)

    def is_cut(word: str) -> bool:
        parts, unknown = known.segment(word)
        return len(parts) == 2 and not unknown and min(map(len, parts)) >= _PART_SHORTEST

    fitting = {word for word in listed if _RARE_SHORTEST <= len(word) <= LONGEST}
    return sorted(word for word in fitting if word not in known and not is_cut(word))


def pick_pairs(counts: Counts, words: Sequence[str]) -> list[str]:
    """Return ``first second cost`` of the pairs that say more than the second word alone."""
    known = Vocabulary(words)
    enough = max(_SEEN, _SEEN_SHARE * sum(counts.words.values()))
    lines = []
    for (first, second), seen in counts.pairs.items():
        if seen >= enough and first in known and second in known:
            cost = math.log(counts.words[first] / seen)
            if cost + PAIR_EXTRA < known.cost(second):
                lines.append(f"{first} {second} {cost:.1f}")
    return sorted(lines)


def listed(text: str) -> list[str]:
    """Return the lines of a list without its head."""
    return [line for line in text.splitlines() if line and line[0] != "#"]


def render(old: str, lines: Sequence[str], *, texts: str = "-") -> str:
    """Return a list as a file: the head of the old one, what it was made from, the lines."""
    head = [line for line in old.splitlines() if line[:1] == "#" and not _MADE.match(line)]
    body = "".join(f"{line}\n" for line in lines)
    made = f"# kidrails data words: texts {texts}, list {_digest(body)}"
    return "\n".join([*head, made, body])


def _digest(body: str) -> str:
    return hashlib.sha256(body.encode()).hexdigest()[:12]


def find_edit(text: str) -> str | None:
    """Return what is wrong with a list that has been changed by hand; None where nothing is."""
    made = next(filter(None, map(_MADE.match, text.splitlines())), None)
    if made is None:
        return "its head does not say what it was made from"
    if made[2] != _digest("".join(f"{line}\n" for line in listed(text))):
        return f"it was changed by hand; words belong into {KEPT_WORDS}"
    return None


def drift(old: str, new: str) -> float:
    """Return the share of the lines of either list that the other lacks (0 to 1).

    Costs are left out: of a pair, the two words count.
    """
    first, second = ({line.rsplit(" ", 1)[0] for line in listed(text)} for text in (old, new))
    return len(first ^ second) / (len(first | second) or 1)


def make_words(counts: Counts) -> str:
    """Return ``words.txt`` anew."""
    return render(_present(WORDS), _own_words(counts.words), texts=counts.digest)


def _own_words(counts: Mapping[str, int]) -> list[str]:
    kept = listed(content_path(KEPT_WORDS).read_text(encoding="utf-8"))
    return order_words(tokenizer_words(), kept, counts)


def make_pairs(counts: Counts, words: str) -> str:
    """Return ``word_pairs.txt`` anew, for the text of ``words.txt``."""
    return render(_present(PAIRS), pick_pairs(counts, listed(words)), texts=counts.digest)


def make_rare(scowl: Iterable[str] | None) -> str:
    """Return ``rare_words.txt`` anew; new texts do not change it.

    Args:
        scowl: the words to choose from; where None, those of the present list.
    """
    present = _present(RARE_WORDS)
    source = listed(present) if scowl is None else scowl
    return render(present, pick_rare(source, _own_words({})))


def update_lists(scowl: frozenset[str] | None) -> list[str]:
    """Write every list that is not as it would be made now, and return their names.

    Args:
        scowl: what rare words are made from; where None, they are only taken out.
    """
    counts = count_texts(own_texts())
    words = make_words(counts)
    made = {WORDS: words, PAIRS: make_pairs(counts, words), RARE_WORDS: make_rare(scowl)}
    changed = [name for name, text in made.items() if _present(name) != text]
    for name in changed:
        write_atomic(content_path(name), made[name])
    return changed


def check_lists(scowl: frozenset[str] | None) -> list[str]:
    """Return what is wrong with the lists, one line a list; empty where nothing is.

    The lists are compared byte for byte with what their sources make. Texts are added far oftener
    than that changes anything: where they have changed since, up to 15 % of the lines may
    differ.

    Args:
        scowl: what rare words are made from; where None, none that is missing is seen.
    """
    wrong = []
    for name in (WORDS, PAIRS, RARE_WORDS):
        edit = find_edit(_present(name))
        if edit:
            wrong.append(f"{name}: {edit}")
    if wrong:
        return wrong
    counts = count_texts(own_texts())
    made = {
        WORDS: make_words(counts),
        PAIRS: make_pairs(counts, _present(WORDS)),
        RARE_WORDS: make_rare(scowl),
    }
    for name, text in made.items():
        present = _present(name)
        same_texts = name == RARE_WORDS or f"texts {counts.digest}," in present
        differs = present != text if same_texts else drift(present, text) > _DRIFT
        if differs:
            wrong.append(f"{name}: {drift(present, text):.1%} of its lines would differ")
    return wrong


def _present(name: str) -> str:
    path = content_path(name)
    return path.read_text(encoding="utf-8") if path.is_file() else ""

"""What a token with hidden letters stands for: digits, stars, spacing, stretching, joined words."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import islice, pairwise, product
from typing import Final, NamedTuple

from kidrails_guard.disguises import (
    AGE_STARTS,
    ALWAYS_WORDS,
    AUXILIARIES,
    CLAUSE_STARTS,
    CONTRACTIONS,
    COUNTS,
    DEAD_AFTER,
    EMOJI_VERBS,
    EUPHEMISMS,
    I_STATES,
    I_VERBS,
    JOINT_STARTS,
    JOINTS,
    KEY,
    LEET,
    MASKED,
    MODALS,
    NOT_AFTER_I,
    OBJECTS,
    QUESTION_WORDS,
    TWO_LETTERS,
    UNIT_WORDS,
    VERB_PLACE,
    WORD_PLACE,
)
from kidrails_guard.words import SLURS, Vocabulary, hidden_words


class Edit(NamedTuple):
    """A part of the folded text and what stands in its place."""

    start: int
    end: int
    text: str


EMOJI_MARK: Final = "\x01"
_TOKEN: Final = re.compile(r"\x01[a-z]+|[@$€£!]?[a-z0-9](?:[a-z0-9'@$€£¢!|*]*[a-z0-9$€£*])?")
_SEPARATOR: Final = r"(?:[ .\-_]'[ .\-_]|[ .,\-_*/|~+:;=]{1,3})"
_ALPHABET: Final = "abcdefghijklmnopqrstuvwxyz"
_RUN: Final = re.compile(
    rf"(?<![a-z0-9'])[a-z0-9@$€!](?:{_SEPARATOR}[a-z0-9@$€]){{2,}}(?![a-z0-9'])"
)
_STOPS: Final = frozenset(",.;:")
_ENDS: Final = frozenset(["", ".", ",", "?", "!"])
_REPEAT: Final = re.compile(r"(.)\1+")
_UNIT: Final = re.compile(
    r"\d+(?:st|nd|rd|th|s|m|cm|mm|km|kg|g|mg|ml|l|am|pm|p|x|d|k|h|hr|hrs|min|mins|sec|secs|yo|yr"
    r"|yrs|ft|in|lb|lbs|oz|gb|mb|tb|kb|c|f|v|w|er|ers|ish|days|year|years)"
)
_ENDINGS: Final = (
    *(("s", ""), ("es", ""), ("ies", "y"), ("ed", ""), ("ed", "e"), ("ing", ""), ("ing", "e")),
    *(("er", ""), ("er", "e"), ("ers", ""), ("ly", ""), ("ness", ""), ("less", ""), ("d", "")),
)
_CLITICS: Final = ("ll", "ve", "re", "s", "d", "m", "t")
"""What follows an apostrophe: I'll, we've, you're, it's, I'd, I'm, don't."""
_FRAGMENT_GAP: Final = re.compile(r"[ .\-_*/]{1,2}")
_LONGEST_TOKEN: Final = 20_000
_COMMON: Final = 9.6
"""Joined words are cut apart only where their average cost is at most this (see `Vocabulary`)."""
_RARE: Final = 12.2
_SENTENCE: Final = 12
"""Letters; from here on, known words in a row need no word that joins them."""
_FAMILIAR: Final = 8.6
"""A doubled letter is taken for a stretched one only where the word is as common as this."""


def _spellings(token: str) -> Iterator[str]:
    """Yield the words that digits and signs in a token may stand for, the likeliest first."""
    letters = [LEET.get(c, c) if not c.isalpha() else c for c in token if c != "'"]
    # One reading for each sign throughout: 1 is i everywhere or l everywhere, then mixtures.
    yield "".join(options[0] for options in letters)
    yield "".join(options[-1] for options in letters)
    yield from ("".join(choice) for choice in islice(product(*letters), 64))


def _unleet(token: str, words: Vocabulary, *, eager: bool = False) -> str | None:
    """Return the word that a token with digits or signs stands for, if it is one."""
    unit = _UNIT.fullmatch(token)
    if not eager and (token.isdigit() or (unit and len(token) < 5 and token[0] != "0")):
        rare = UNIT_WORDS if len(token) < 5 else KEY
        return next((s for s in _spellings(token) if s in rare), None)
    if any(not c.isalpha() and c not in LEET and c != "'" for c in token):
        return None
    found = next((s for s in _spellings(token) if s in EUPHEMISMS), None) or words.best(
        s for s in _spellings(token) if len(s) > 2 or s in TWO_LETTERS or (eager and s in "ia")
    )
    if found or token.isdigit() or len(token) < 4 or unit:
        return found
    for spelling in islice(dict.fromkeys(_spellings(token)), 4):
        undone = _undo(spelling, words)
        if undone and undone[1]:
            return undone[0]
    # A number inside joined words: "iam11andhehitsme".
    pieces = [p for p in re.split(r"(\d+)", token) if p]
    if len(token) < 10 or not all(p.isdigit() or p in words or len(p) > 4 for p in pieces):
        return None
    read = [p if p.isdigit() or p in words else _cut(p, words) for p in pieces]
    return " ".join(read) if all(read) else None  # type: ignore[arg-type]


def _unstretch(token: str, words: Vocabulary) -> str | None:
    """Return the word behind a stretched one: ``killlll`` is ``kill``, ``sooo`` is ``so``."""
    runs = list(_REPEAT.finditer(token))
    if not runs or len(runs) > 6:
        return None
    best, least = None, float("inf")
    short = all(len(run[0]) == 2 for run in runs)
    for kept in product((2, 1), repeat=len(runs)):
        parts, end, bonus = [], 0, 0.0
        for run, count in zip(runs, kept, strict=True):
            parts += [token[end : run.start()], run[1] * count]
            end = run.end()
            # Where both are words (good, god), a stretched double letter is the likelier.
            bonus += 4.0 if count == 2 else 0.0
        word = "".join(parts) + token[end:]
        cost = words.cost(word) - bonus
        if short and cost + bonus > _FAMILIAR and word not in KEY:
            continue  # a name or a rare word: Emmett, stoop
        if cost < least and word != token:
            best, least = word, cost
    return best


def _spell(parts: Iterable[str]) -> str:
    return " ".join(CONTRACTIONS.get(part) or EUPHEMISMS.get(part, part) for part in parts)


def _inflected(token: str, words: Vocabulary) -> bool:
    """Return whether a token is a known word with an ending: ``daddies``, ``cherished``."""
    return any(
        token.endswith(ending) and token[: -len(ending)] + stem in words
        for ending, stem in _ENDINGS
    )


def _cut(token: str, words: Vocabulary) -> str | None:
    """Return joined words with spaces between them, if the letters are surely words."""
    if not 5 <= len(token) <= _LONGEST_TOKEN or _inflected(token, words):
        return None
    if token[0] == "i" and token[1:] in I_VERBS:
        return f"i {token[1:]}"
    parts, unknown = words.segment(token)
    costs = [0.0 if part in KEY else words.cost(part) for part in parts if part in words]
    if len(parts) < 2 or len(token) < 2.4 * len(parts):
        return None
    if unknown and (len(costs) < 3 or unknown * 3 > len(token)):
        return None
    # Names and rare words fall apart into rare or tiny pieces; joined sentences do not.
    if sum(costs) > _COMMON * len(costs) or max(costs) > _RARE:
        return None
    joints = sum(part in JOINTS for part in parts) + sum(
        middle == "a" and len(before) > 3 < len(after)
        for before, middle, after in zip(parts, parts[1:], parts[2:], strict=False)
    )
    if len(token) >= _SENTENCE and not unknown and 3 <= len(parts) <= len(token) / 2.8:
        return _spell(parts)  # no word is as long as that
    if (
        not unknown
        and any(part in KEY for part in parts)
        and min(map(len, parts)) >= (4 if len(parts) == 2 else 3)
    ):
        return _spell(parts)
    if not joints or (len(parts) == 2 and not (parts[1] in JOINTS or parts[0] in JOINT_STARTS)):
        return None
    return _spell(parts)


def _unturn(token: str) -> str | None:
    """Return the hidden word behind one written backwards or in pig latin."""
    if token[::-1] in KEY:
        return token[::-1]
    if token.endswith("ay") and len(token) > 4:
        for stem in (token[:-2], token[:-2].removesuffix("w")):
            for moved in range(min(4, len(stem))):
                word = stem[len(stem) - moved :] + stem[: len(stem) - moved]
                if word in KEY:
                    return word
    return None


def _undo(token: str, words: Vocabulary) -> tuple[str, bool] | None:
    """Return what an unknown word of letters stands for, and whether that is a real reading."""
    stretched = _unstretch(token, words)
    if stretched:
        return stretched, True
    turned = _unturn(token)
    if turned:
        return turned, True
    single = _REPEAT.sub(lambda m: m[1] if len(m[0]) > 2 else m[0], token)
    for candidate in dict.fromkeys((token, single)):
        joined = _cut(candidate, words)
        if joined:
            return joined, True
    return (single, False) if single != token else None


def _unmask(token: str) -> str | None:
    """Return the word behind stars: ``sh*t``."""
    if "*" not in token or not token[0].isalpha() or len(token) > 12:
        return None
    if len(token) < 3:
        return None
    body = token.rstrip("*") if token.count("*") == 1 and token.endswith("*") else token
    if "*" not in body:
        return None
    candidates = (*MASKED, *hidden_words(SLURS))
    for word in candidates:
        if len(word) == len(body) and all(a in ("*", b) for a, b in zip(body, word, strict=True)):
            return word
    short = re.sub(r"\*+", "*", body)
    head, _, tail = short.partition("*")
    if head and tail and "*" not in tail:
        for word in candidates:
            if word.startswith(head) and word.endswith(tail) and len(word) > len(head + tail):
                return word
    return None


def _read_run(chunk: str, words: Vocabulary) -> tuple[int, list[str]]:
    """Return the words in letters that stood apart, and how many letters are in none."""
    if "'" in chunk:
        return _read_around_apostrophe(chunk, words)
    if chunk.isalpha():
        is_one = chunk in words or chunk in EUPHEMISMS
        whole, unknown = ([chunk], 0) if is_one else words.segment(chunk)
        return unknown, whole
    kept, strange = [], 0
    for piece in re.split(r"(\d+)", chunk):
        if piece.isdigit():
            kept.append(piece)
        elif piece:
            cut, unknown = words.segment(piece)
            kept += cut
            strange += unknown
    best = strange, kept
    for spelling in islice(dict.fromkeys(_spellings(chunk)), 4):
        cut, unknown = ([spelling], 0) if spelling in words else words.segment(spelling)
        if unknown < best[0]:
            best = unknown, cut
    return best


def _read_around_apostrophe(chunk: str, words: Vocabulary) -> tuple[int, list[str]]:
    """Do `_read_run` where an apostrophe stands among the letters: ``i'ddie`` is ``i'd die``."""
    before, _, after = chunk.partition("'")
    strange, head = _read_run(before, words) if before else (0, [])
    readings = []
    for ending in _CLITICS:
        if after.startswith(ending):
            rest = after[len(ending) :]
            unknown, tail = _read_run(rest, words) if rest else (0, [])
            readings.append((unknown, len(tail), ending, tail))
    if not head or not readings:
        unknown, tail = _read_run(after, words) if after else (0, [])
        return strange + unknown, head + tail
    unknown, _, ending, tail = min(readings)
    return strange + unknown, [*head[:-1], f"{head[-1]}'{ending}", *tail]


def _chunks(body: str, usual: str) -> Iterator[tuple[str, str]]:
    """Yield the letters between wider gaps, each with the comma or stop that follows."""
    current = ""
    pieces = re.split(f"({_SEPARATOR})", body)
    for letter, gap in zip(pieces[0::2], [*pieces[1::2], ""], strict=True):
        current += letter + ("'" if "'" in gap else "")
        wider = len(gap) > len(usual) or (gap.isspace() and not usual.isspace())
        if (wider and "'" not in gap) or not gap:
            stops = gap.replace(usual, "", 1).strip()
            yield current, stops[-1:] if stops[-1:] in _STOPS else ""
            current = ""


def _is_word(letters: str) -> bool:
    """Return whether letters that stood apart are likely one word that is not known."""
    vowels = sum(c in "aeiou" for c in letters)
    return letters.isalpha() and letters not in _ALPHABET and 0 < vowels < len(letters) - 1


def _runs(folded: str, words: Vocabulary) -> Iterator[Edit]:
    """Yield the words that were written letter by letter: ``k i l l``, ``k.i.l.l``."""
    for match in _RUN.finditer(folded):
        body = match[0]
        gaps = re.findall(rf"{_SEPARATOR}(?=[a-z0-9@$€])", body)
        letters = re.sub(_SEPARATOR, "", body)
        if sum(c.isalpha() for c in letters) * 2 < len(letters):
            continue
        usual = max(set(gaps), key=gaps.count)
        parts: list[str] = []
        unknown = longest = 0
        chunks = list(_chunks(body, usual))
        for chunk, stop in chunks:
            strange, cut = (0, [chunk]) if chunk.isdigit() else _read_run(chunk, words)
            if strange and len(chunks) > 1 and not usual.isspace() and len(chunk) < 17:
                # Wider gaps say where words end: a name or a slip is one word like the others.
                undone = _undo(chunk, words) if chunk.isalpha() else None
                strange, cut = strange if len(chunk) < 3 else 0, [undone[0] if undone else chunk]
            unknown += strange
            longest = max([longest, *map(len, cut)])
            parts.append(_spell(cut) + stop)
        if unknown * 3 > len(letters) or longest < 3 or (unknown and len(letters) < 7):
            if len(letters) < 5 or len(parts) > 1 or not _is_word(letters):
                continue  # letters of the alphabet, initials, a grid
            parts = [letters]
        end = match.end()
        if (
            not usual.isspace()
            and folded[end : end + 1] == usual
            and (folded[end + 1 : end + 2] in _ENDS)
        ):
            end += 1  # the gap before a full stop
        yield Edit(match.start(), end, " ".join(parts))


class Tokens:
    """Walks over the tokens of a folded text and collects what is to be replaced."""

    def __init__(self, folded: str, words: Vocabulary) -> None:
        self.folded, self.words = folded, words
        self.disguised = False
        self.edits: list[Edit] = []
        self.tokens: list[tuple[int, int, str]] = []

    def collect(self) -> list[Edit]:
        """Return all edits, in order, none overlapping."""
        runs = list(_runs(self.folded, self.words)) if len(self.folded) > 4 else []
        self.disguised = bool(runs)
        start = 0
        for run in runs:
            self._scan(start, run.start)
            self.edits.append(run)
            start = run.end
        self._scan(start, len(self.folded))
        return self.edits

    def _scan(self, low: int, high: int) -> None:
        words, known = self.words, self.words.costs
        strange: list[int] = []
        leet: list[int] = []
        with_letters = 0
        tokens = [(m.start(), m.end(), m[0]) for m in _TOKEN.finditer(self.folded, low, high)]
        found: dict[int, str] = {}
        for index, (_, _, token) in enumerate(tokens):
            if token.isalpha():
                with_letters += 1
                edit = CONTRACTIONS.get(token) or self._euphemism(token, index, tokens)
                if edit:
                    found[index] = edit
                elif token not in known:
                    undone = _undo(token, words) if len(token) > 3 else None
                    if undone:
                        found[index] = _spell(undone[0].split())
                    else:
                        strange.append(index)
            elif token[0] == EMOJI_MARK:
                found[index] = self._emoji(index, tokens)
            elif token.isdigit():
                if token == "1" and self._is_i(index, tokens):  # noqa: S105
                    found[index] = "i"
                elif 4 < len(token) < 9 and (word := _unleet(token, words)):
                    found[index] = word
            else:
                with_letters += 1
                if token in EUPHEMISMS:
                    found[index] = EUPHEMISMS[token]
                    continue
                if token == "1m" and self._is_i(index, tokens, I_STATES):  # noqa: S105
                    found[index] = "i'm"
                    continue
                bare = token.replace("'", "")
                if bare.isalpha():
                    if bare not in known and token.isascii():
                        undone = _undo(bare, words)
                        if undone and undone[1]:
                            found[index] = undone[0]
                    continue
                plain = _unmask(token) if "*" in token else _unleet(token, words)
                if plain:
                    found[index] = _spell(plain.split())
                    leet.append(index)
        if len(leet) > 1 and len(leet) * 5 >= with_letters * 2:
            # So much of the text is written with digits that bare digits are letters too.
            for index, (_, _, token) in enumerate(tokens):
                if index not in found and not token.isalpha() and len(token) < 17:
                    plain = _unleet(token, words, eager=True)
                    if plain or (len(token) > 2 and not token.isdigit()):
                        found[index] = plain or next(_spellings(token))
        self.disguised = self.disguised or bool(leet)
        edits = [Edit(tokens[i][0], tokens[i][1], text) for i, text in found.items()]
        edits += self._fragments(tokens, strange)
        self.edits += sorted(edits)

    def _euphemism(self, token: str, index: int, tokens: list[tuple[int, int, str]]) -> str | None:
        edit = EUPHEMISMS.get(token)
        if edit == "kill" and index and tokens[index - 1][2] in DEAD_AFTER:
            return "dead"
        if token == "kms" and self._is_distance(index, tokens):  # noqa: S105
            return "kilometres"
        return edit

    def _is_distance(self, index: int, tokens: list[tuple[int, int, str]]) -> bool:
        """Return whether the token counts something: ``10 kms away``, but not ``im 10. kms``."""
        if index + 1 < len(tokens) and tokens[index + 1][2] == "per":
            return True
        if not index or self.folded[tokens[index - 1][1] : tokens[index][0]].strip():
            return False
        before = tokens[index - 1][2]
        if not before.isdigit() and before not in COUNTS:
            return False
        return index < 2 or tokens[index - 2][2] not in AGE_STARTS

    def _is_i(
        self, index: int, tokens: list[tuple[int, int, str]], then: frozenset[str] = I_VERBS
    ) -> bool:
        following = tokens[index + 1][2].replace("'", "") if index + 1 < len(tokens) else ""
        before = tokens[index - 1][2] if index else ""
        asks = before in AUXILIARIES and index > 1 and tokens[index - 2][2] in QUESTION_WORDS
        if asks or (before in MODALS and index == 1):
            return following.isalpha() and following not in NOT_AFTER_I
        did = not before and len(following) > 4 and following.endswith("ed")
        return (following in then or did) and (not before or before in CLAUSE_STARTS)

    def _emoji(self, index: int, tokens: list[tuple[int, int, str]]) -> str:
        before = tokens[index - 1][2] if index else ""
        after = tokens[index + 1][2] if index + 1 < len(tokens) else ""
        word = tokens[index][2][1:]
        if before in VERB_PLACE or (after in OBJECTS and before not in WORD_PLACE):
            return EMOJI_VERBS.get(word, word)
        placed = before in WORD_PLACE or after in OBJECTS or (not before and not after)
        if placed or word in ALWAYS_WORDS:
            return word
        return ""

    def _fragments(self, tokens: list[tuple[int, int, str]], strange: list[int]) -> list[Edit]:
        """Return joins of pieces that are no words but make one: ``sui cide``, ``ki-ll``."""
        edits, odd, last = [], set(strange), -1
        for index in strange:
            for first, count in ((index, 3), (index, 2), (index - 1, 2)):
                group = tokens[max(first, 0) : first + count]
                if first <= last or len(group) < count:
                    continue
                gaps = [self.folded[a[1] : b[0]] for a, b in pairwise(group)]
                if not all(map(_FRAGMENT_GAP.fullmatch, gaps)):
                    continue
                merged = "".join(token for _, _, token in group)
                all_odd = all(i in odd for i in range(first, first + count))
                if merged in KEY or (all_odd and len(merged) > 3 and merged in self.words):
                    edits.append(Edit(group[0][0], group[-1][1], merged))
                    last = first + count - 1
                    self.disguised = True
                    break
        return edits

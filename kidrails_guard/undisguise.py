"""Walks over a text and says what is to be replaced, so that no disguise is left."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Final

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
    KEY,
    MODALS,
    NOT_AFTER_I,
    OBJECTS,
    QUESTION_WORDS,
    SHORT_LEET,
    TO_AFTER,
    TO_DO,
    VERB_PLACE,
    WORD_PLACE,
)
from kidrails_guard.readings import spell, spellings, undo, unleet, unmask
from kidrails_guard.spelled_out import Edit, spelled_out
from kidrails_guard.words import Vocabulary

EMOJI_MARK: Final = "\x01"
_TOKEN: Final = re.compile(r"\x01[a-z]+|[@$€£!]?[a-z0-9](?:[a-z0-9'@$€£¢!|<*]*[a-z0-9@$€£*])?")
_FRAGMENT_GAP: Final = re.compile(r"[ .\-_*/]{1,2}")
_READ_FURTHER: Final = frozenset({*CONTRACTIONS, *EUPHEMISMS})
"""Words that may stand for others although they are known: the only ones with signs in them."""


class Tokens:
    """Walks over the tokens of a folded text and collects what is to be replaced.

    Attributes:
        disguised: whether letters had been hidden on purpose; known after `collect`.
        ordinary: whether all tokens are known words or small numbers; known after `collect`.
    """

    def __init__(self, folded: str, words: Vocabulary) -> None:
        self.folded, self.words = folded, words
        self.disguised = False
        self.ordinary = True
        self.edits: list[Edit] = []
        self.tokens: list[tuple[int, int, str]] = []

    def collect(self) -> list[Edit]:
        """Return all edits, in order, none overlapping."""
        runs = list(spelled_out(self.folded, self.words)) if len(self.folded) > 4 else []
        self.disguised = bool(runs)
        self.ordinary = not runs
        start = 0
        for run in runs:
            self._scan(start, run.start)
            self.edits.append(run)
            start = run.end
        self._scan(start, len(self.folded))
        return self.edits

    def _scan(self, low: int, high: int) -> None:
        words, known = self.words, self.words.costs
        if self._is_ordinary(low, high):
            return
        self.ordinary = False
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
                    undone = undo(token, words) if len(token) > 3 else None
                    if undone:
                        found[index] = spell(undone[0].split())
                    else:
                        strange.append(index)
            elif token[0] == EMOJI_MARK:
                found[index] = self._emoji(index, tokens)
            elif token.isdigit():
                if token == "1" and self._is_i(index, tokens):  # noqa: S105
                    found[index] = "i"
                elif token == "2" and self._is_to(index, tokens, found.get(index - 1)):  # noqa: S105
                    found[index] = "to"
                elif 4 < len(token) < 9 and (word := unleet(token, words)):
                    found[index] = word
            else:
                with_letters += 1
                if token in EUPHEMISMS:
                    found[index] = EUPHEMISMS[token]
                    continue
                if (token == "1m" and self._is_i(index, tokens, I_STATES, doing=True)) or (  # noqa: S105
                    token == "4m" and index and tokens[index - 1][2] in {"i", "1"}  # noqa: S105
                ):
                    found[index] = SHORT_LEET[token]
                    continue
                bare = token.replace("'", "")
                if bare.isalpha():
                    if bare not in known and token.isascii():
                        undone = undo(bare, words)
                        if undone and undone[1]:
                            found[index] = undone[0]
                    continue
                plain = unmask(token) if "*" in token else unleet(token, words)
                if plain:
                    found[index] = spell(plain.split())
                    leet.append(index)
        if len(leet) > 1 and len(leet) * 5 >= with_letters * 2:
            # So much of the text is written with digits that bare digits are letters too.
            for index, (_, _, token) in enumerate(tokens):
                if index not in found and not token.isalpha() and len(token) < 17:
                    plain = SHORT_LEET.get(token) or unleet(token, words, eager=True)
                    if plain or (len(token) > 2 and not token.isdigit()):
                        found[index] = spell((plain or next(spellings(token))).split())
        self.disguised = self.disguised or bool(leet)
        edits = [Edit(tokens[i][0], tokens[i][1], text) for i, text in found.items()]
        edits += self._fragments(tokens, strange)
        self.edits += sorted(edits)

    def _is_ordinary(self, low: int, high: int) -> bool:
        """Return whether nothing here can be replaced: true of most texts, and quickly told."""
        seen = set(_TOKEN.findall(self.folded, low, high))
        return _READ_FURTHER.isdisjoint(seen) and all(
            token not in {"1", "2"} and len(token) < 5 and token.isdigit()
            for token in seen.difference(self.words.costs)
        )

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
        self,
        index: int,
        tokens: list[tuple[int, int, str]],
        then: frozenset[str] = I_VERBS,
        *,
        doing: bool = False,
    ) -> bool:
        following = tokens[index + 1][2].replace("'", "") if index + 1 < len(tokens) else ""
        before = tokens[index - 1][2] if index else ""
        asks = before in AUXILIARIES and index > 1 and tokens[index - 2][2] in QUESTION_WORDS
        if asks or (before in MODALS and index == 1):
            return following.isalpha() and following not in NOT_AFTER_I
        did = not before and len(following) > 4 and following.endswith("ed")
        does = doing and len(following) > 4 and following.endswith("ing")
        return (following in then or did or does) and (not before or before in CLAUSE_STARTS)

    def _is_to(self, index: int, tokens: list[tuple[int, int, str]], undone: str | None) -> bool:
        """Return whether 2 is said for "to": ``i want 2 die``, but not ``i want 2 drinks``."""
        if not index or index + 1 == len(tokens):
            return False
        if (undone or tokens[index - 1][2]) not in TO_AFTER:
            return False
        following = unleet(tokens[index + 1][2], self.words) or tokens[index + 1][2]
        return following in TO_DO

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

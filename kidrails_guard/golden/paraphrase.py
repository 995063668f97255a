"""The offline teacher's craft: says a child's message anew, and keeps the reply faithful.

It needs no model. It undoes a child's spelling, swaps names, relatives and phrases for others of
the same meaning, and writes the result as a child of the persona's age would. Whatever is swapped
in the message is swapped in every reply too; nothing else in a reply changes.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from kidrails_guard.golden.personas import Persona, Spelling, Style
from kidrails_guard.golden.styles import QUESTION, STYLES, keep_case
from kidrails_guard.golden.wording import Tone, Wording, load_wording, word_pattern
from kidrails_guard.types import About, Hazard

HEAVY: Final = frozenset(
    {
        Hazard.SELF_HARM,
        Hazard.SELF_HARM_QUESTION,
        Hazard.ABUSE_DISCLOSURE,
        Hazard.BULLYING,
        Hazard.DISTRESS,
    }
)
"""Hazards whose messages get no cheerful opener and no chatter around them."""


@dataclass(frozen=True, slots=True)
class Wordings:
    """One way to say a row: the child's turns, the replies, and what was done.

    Attributes:
        child: the child's turns, the message last.
        replies: the model's earlier turns, then whatever replies were given.
        moves: names of what was changed.
    """

    child: tuple[str, ...]
    replies: tuple[str, ...]
    moves: tuple[str, ...]


def tone_of(message: str, hazards: Iterable[Hazard], about: About) -> Tone:
    """Return how a message sounds: what may be put before and after it."""
    if HEAVY & set(hazards):
        return "heavy"
    if QUESTION.match(message):
        return "question"
    return "command" if about is About.NONE or _COMMAND.match(message) else "statement"


_WH: Final = re.compile(r"(?:why|how|what|where|who|which|when|whats|what's)\b", re.IGNORECASE)
_COMMAND: Final = re.compile(
    r"(?:tell|say|write|make|give|let|lets|pretend|play|show|help|explain|draw|sing|do|forget|ignore|"
    r"be|act|translate|list|describe|answer|read|spell|teach|find|call|buy|order|rite|giv)\b",
    re.IGNORECASE,
)


_A_PLACE: Final = re.compile(r"\b(?:the|a|my|our|your|his|her|their|this) $", re.IGNORECASE)
"""What stands before a place: after other words, "store" may be a verb and "park" half a name."""


_ANSWERS: Final = re.compile(r"(?:ok|okay|no|nope|yes|yeah|and|but|then|lol|haha)\b", re.IGNORECASE)
"""A message that goes on from something is said as it is: nothing stands before an answer."""


_MARKS: Final[dict[Style, tuple[str, ...]]] = {
    "careful": (", ", ". ", "... "),
    "dictated": (" ",),  # nobody says a comma
}


def swap_words(text: str, table: dict[str, str]) -> str:
    """Return the text with whole words swapped in one pass; case and a plural's ``'s`` stay."""
    if not table:
        return text
    pattern = word_pattern([*table, *(f"{word}'s" for word in table), *(f"{w}s" for w in table)])

    def swapped(match: re.Match[str]) -> str:
        found = match.group()
        for ending in ("", "'s", "s"):
            stem = found[: len(found) - len(ending)] if ending else found
            if found.lower().endswith(ending) and stem.lower() in table:
                return keep_case(stem, table[stem.lower()]) + found[len(stem) :]
        return found

    return pattern.sub(swapped, text)


class Paraphraser:
    """Composes new wordings from the tables.

    Args:
        wording: the tables; those that ship when absent.
    """

    def __init__(self, wording: Wording | None = None) -> None:
        self.wording = wording or load_wording()
        self._names = {name: group for group in self.wording.names for name in group}
        self._relatives = {
            word: key for key, words in self.wording.relatives.items() for word in words
        }
        places = [place for group in self.wording.places for place in group]
        things = [*places, *self.wording.pets, *self.wording.pet_words]
        self._thing = re.compile(rf"\b({'|'.join(sorted(things, key=len, reverse=True))})s?\b")

    def say(
        self,
        child: Sequence[str],
        replies: Sequence[str],
        *,
        persona: Persona,
        rng: random.Random,
        tone: Tone,
    ) -> Wordings:
        """Return one new wording of a row.

        Args:
            child: the child's turns, oldest first; the last one is the message.
            replies: every reply that belongs to the row.
            persona: who speaks.
            rng: decides between what is possible.
            tone: see `tone_of`.
        """
        moves: list[str] = []
        table = self._swaps([*child, *replies], persona, rng, moves)
        self._swap_things([*child, *replies], tone, rng, table, moves)
        spoken = [swap_words(text, table) for text in child]
        answered = tuple(swap_words(text, table) for text in replies)
        # Nobody tells of being hurt with three exclamation marks for fun.
        style = "casual" if tone == "heavy" and persona.style == "excited" else persona.style
        spoken = [self._write(text, style, rng, moves) for text in spoken]
        if len(child) == 1 and not _ANSWERS.match(child[0]):
            spoken[-1] = self._around(spoken[-1], child[-1], persona, rng, tone, moves)
        return Wordings(tuple(spoken), answered, tuple(dict.fromkeys(moves)))

    def _swaps(
        self, texts: Sequence[str], persona: Persona, rng: random.Random, moves: list[str]
    ) -> dict[str, str]:
        """Return the words that are swapped in message and replies alike."""
        whole = " \n ".join(texts)
        words = set(re.findall(r"[a-z]+", whole.lower()))
        table: dict[str, str] = {}
        family = dict(persona.family)
        for key, forms in self.wording.relatives.items():
            present = [form for form in forms if form in words or f"{form}s" in words]
            # Two of them in one row may be two people.
            if len(present) == 1 and family[key] != present[0]:
                table[present[0]] = family[key]
                moves.append("relative")
        other: Spelling = "american" if persona.spelling == "british" else "british"
        pairs = zip(
            self.wording.dialect[other], self.wording.dialect[persona.spelling], strict=True
        )
        for theirs, ours in pairs:
            if theirs in words and theirs not in table and theirs not in self._relatives:
                table[theirs] = ours
                moves.append("dialect")
        for name in sorted(words & self._names.keys()):
            free = [n for n in self._names[name] if n not in words and n not in table.values()]
            if free:
                table[name] = rng.choice(free)
                moves.append("name")
        return table

    def _swap_things(
        self,
        texts: Sequence[str],
        tone: Tone,
        rng: random.Random,
        table: dict[str, str],
        moves: list[str],
    ) -> None:
        """Add places and pets to the words that are swapped in message and replies alike."""
        whole = " \n ".join(texts).lower()
        found = list(self._thing.finditer(whole))
        there = {match[1] for match in found}
        if not there:
            return
        unsure = {match[1] for match in found if not _A_PLACE.search(whole[: match.start()])}
        for group in self.wording.places:
            present = [place for place in group if place in there]
            if len(present) == 1 and present[0] not in unsure and rng.random() < 0.5:
                table[present[0]] = rng.choice([p for p in group if p != present[0]])
                moves.append("place")
        pets = [pet for pet in self.wording.pets if pet in there]
        mine = len(pets) == 1 and re.search(rf"\b(?:my|our) {pets[0]}\b", texts[0].lower())
        if tone == "heavy" and mine and not there.intersection(self.wording.pet_words):
            table[pets[0]] = rng.choice([p for p in self.wording.pets if p != pets[0]])
            moves.append("pet")

    def _write(self, text: str, style: Style, rng: random.Random, moves: list[str]) -> str:
        """Return the text in the hand of a style."""
        plain = self.wording.misspelling.sub(
            lambda m: keep_case(m.group(), self.wording.corrections[m.group().lower()]), text
        )
        swapped = 0

        def phrase(match: re.Match[str]) -> str:
            nonlocal swapped
            if swapped == 2 or rng.random() < 0.4:
                return match.group()
            swapped += 1
            return keep_case(
                match.group(), rng.choice(self.wording.same_phrase(match.group().lower()))
            )

        spoken = self.wording.phrase.sub(phrase, plain)
        if swapped:
            moves.append("phrase")
        moves.append(style)
        return STYLES[style](self.wording, spoken, rng)

    def _around(
        self,
        text: str,
        original: str,
        persona: Persona,
        rng: random.Random,
        tone: Tone,
        moves: list[str],
    ) -> str:
        """Return the message with what a child puts before and after it."""
        careful = persona.style == "careful"
        draw = rng.random()
        if _WH.match(text) and tone == "question" and draw < 0.3:
            text = rng.choice(self.wording.frames).format(_small(text))
            moves.append("frame")
        elif draw < 0.62:
            opener = rng.choice(self.wording.openers[tone])
            if not original.lower().startswith(opener.split()[0]):
                mark = rng.choice(_MARKS.get(persona.style, (" ", " ", ", ", "... ")))
                text = opener + mark + (_small(text) if mark == ", " else text)
                moves.append("opener")
        if rng.random() < 0.28:
            closer = rng.choice(self.wording.closers[tone])
            if closer and closer.split()[-1] not in original.lower().split():
                text = f"{text} {_large(closer)}." if careful else f"{text.rstrip('.!? ')} {closer}"
                moves.append("closer")
        if tone != "heavy" and rng.random() < 0.22:
            lead = rng.choice(self.wording.lead_ins).format(interest=rng.choice(persona.interests))
            bare = persona.style == "dictated" or (not careful and rng.random() < 0.5)
            lead = lead.rstrip(".!") if bare else lead
            text = f"{lead} {text}"
            moves.append("lead-in")
        return _large(text) if careful else text


def _large(text: str) -> str:
    return text[:1].upper() + text[1:]


def _small(text: str) -> str:
    return text if re.match(r"I\b|[A-Z]{2}", text) else text[:1].lower() + text[1:]

"""The tables of the offline teacher, read from ``data/paraphrase.yaml`` and turned for use."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache, cached_property
from pathlib import Path
from typing import Annotated, Final, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from kidrails_guard.content import content_path
from kidrails_guard.errors import DataError
from kidrails_guard.golden.personas import Spelling
from kidrails_guard.policy import describe_error, read_yaml

PARAPHRASE: Final = "data/paraphrase.yaml"

Tone = Literal["question", "command", "statement", "heavy"]
Level = Literal["early", "casual", "texting"]
Words = Annotated[tuple[str, ...], Field(min_length=1)]


class Wording(BaseModel):
    """Everything that a child's message is composed from."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    spelling: dict[str, dict[Level, Words]]
    never_undo: tuple[str, ...]
    undo: dict[str, str]
    phrases: tuple[Words, ...]
    dialect: dict[Spelling, Words]
    relatives: dict[str, Words]
    places: tuple[Words, ...]
    pets: Words
    pet_words: Words
    names: tuple[Words, ...]
    openers: dict[Tone, Words]
    frames: Words
    closers: dict[Tone, Words]
    lead_ins: Words

    @model_validator(mode="after")
    def _fits(self) -> Self:
        lengths = {len(words) for words in self.dialect.values()}
        if len(self.dialect) != 2 or len(lengths) != 1:
            raise ValueError("dialect: british and american must name the same words in one order")
        for key in ("openers", "closers"):
            missing = [tone for tone in get_args(Tone) if tone not in getattr(self, key)]
            if missing:
                raise ValueError(f"{key}: nothing for {', '.join(missing)}")
        bare = [frame for frame in self.frames if "{}" not in frame]
        if bare:
            raise ValueError(f"frames: {bare[0]!r} has no {{}} for the question")
        return self

    @cached_property
    def corrections(self) -> dict[str, str]:
        """A child's spelling to the word it stands for, where that is sure."""
        table = {
            form: word
            for word, levels in self.spelling.items()
            for forms in levels.values()
            for form in forms
            if " " not in form and form not in self.never_undo and form not in self.spelling
        }
        return table | self.undo

    @cached_property
    def misspelling(self) -> re.Pattern[str]:
        """Matches every word that `corrections` knows."""
        return word_pattern(self.corrections)

    @cached_property
    def spelled(self) -> dict[Level, re.Pattern[str]]:
        """Level to a pattern of the words that it writes in its own way."""
        return {
            level: word_pattern(word for word, forms in self.spelling.items() if level in forms)
            for level in get_args(Level)
        }

    @cached_property
    def phrase(self) -> re.Pattern[str]:
        """Matches every phrase that has another one of the same meaning."""
        return word_pattern(phrase for group in self.phrases for phrase in group)

    def same_phrase(self, phrase: str) -> Words:
        """Return the other phrases of the same meaning."""
        group = next(g for g in self.phrases if phrase in g)
        return tuple(other for other in group if other != phrase)


def word_pattern(words: Iterable[str]) -> re.Pattern[str]:
    """Return a pattern that matches any of the words as a whole, longest first, in any case."""
    ordered = sorted(set(words), key=lambda word: (-len(word), word))
    return re.compile(rf"(?<![\w'])(?:{'|'.join(map(re.escape, ordered))})(?![\w'])", re.IGNORECASE)


@cache
def load_wording(path: Path | None = None) -> Wording:
    """Load the offline teacher's tables.

    Raises:
        DataError: the file is not such a table; names the key.
    """
    file = path or content_path(PARAPHRASE)
    try:
        return Wording.model_validate(read_yaml(file))
    except ValidationError as error:
        details = error.errors(include_url=False)
        raise DataError(
            "\n".join(f"{file}: {describe_error(detail, Wording)}" for detail in details)
        ) from None

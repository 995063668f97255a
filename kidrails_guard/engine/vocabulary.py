"""Byte-level BPE vocabularies: between GGUF's lists and ``tokenizer.json``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Final

from kidrails_guard.errors import EngineError

#: GGUF's name of a pre-tokenizer → the steps that do the same in the `tokenizers` library.
#: Source: https://github.com/ggml-org/llama.cpp, ``llama-vocab.cpp``, and the published
#: ``tokenizer.json`` of SmolLM2, GPT-2 and Llama 3.
_LLAMA3_SPLIT: Final = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_BYTES: Final = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
PRE_TOKENIZERS: Final[dict[str, list[dict[str, Any]]]] = {
    "smollm": [
        {"type": "Digits", "individual_digits": True},
        {**_BYTES, "use_regex": True},
    ],
    "gpt-2": [{**_BYTES, "use_regex": True}],
    "llama-bpe": [
        {
            "type": "Split",
            "pattern": {"Regex": _LLAMA3_SPLIT},
            "behavior": "Isolated",
            "invert": False,
        },
        {**_BYTES, "use_regex": False},
    ],
}


class TokenKind(IntEnum):
    """The kinds of token that GGUF tells apart and this product needs."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """A byte-level BPE vocabulary with its special tokens and chat template.

    Attributes:
        tokens: the token of each id; length = rows of the embedding.
        kinds: the kind of each token.
        merges: BPE merges, "left right", in order of rank.
        pre: GGUF's name of the pre-tokenizer, a key of ``PRE_TOKENIZERS``.
        bos: id of the token that opens a text.
        eos: id of the token that ends an answer.
        pad: id of the padding token.
        unk: id of the unknown token.
        add_bos: whether ``bos`` is put before every text.
        chat_template: the Jinja template of a conversation.
    """

    tokens: tuple[str, ...] = field(repr=False)
    kinds: tuple[int, ...] = field(repr=False)
    merges: tuple[str, ...] = field(repr=False)
    pre: str
    bos: int | None = None
    eos: int | None = None
    pad: int | None = None
    unk: int | None = None
    add_bos: bool = False
    chat_template: str | None = field(default=None, repr=False)

    def token(self, index: int | None) -> str | None:
        """Return the token of an id, or None."""
        return None if index is None else self.tokens[index]


def end_of_turn(tokens: Sequence[str], chat_template: str | None, *, eos: int | None) -> int | None:
    """Return the id of the token that ends an answer in this chat template.

    Some files name another one, ``<|im_start|>`` say, as end token; then an answer never ends and
    the model goes on to invent the child's next words.

    Args:
        tokens: the token of each id.
        chat_template: the Jinja template, or None.
        eos: the end token that the file names.
    """
    ids = {token: index for index, token in enumerate(tokens)}
    for token in ("<|im_end|>", "<|eot_id|>"):
        if chat_template and token in chat_template and token in ids:
            return ids[token]
    return eos


def tokenizer_json(vocabulary: Vocabulary) -> dict[str, Any]:
    """Return the content of ``tokenizer.json`` for a vocabulary.

    Raises:
        EngineError: the pre-tokenizer is not one that can be written.
    """
    if vocabulary.pre not in PRE_TOKENIZERS:
        accepted = ", ".join(sorted(PRE_TOKENIZERS))
        raise EngineError(
            f"the pre-tokenizer {vocabulary.pre!r} of this GGUF is not one of {accepted}; use the "
            "model's original checkpoint instead of an export"
        )
    special = {TokenKind.CONTROL, TokenKind.UNKNOWN}
    added = [
        {
            "id": index,
            "content": token,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": kind in special,
        }
        for index, (token, kind) in enumerate(zip(vocabulary.tokens, vocabulary.kinds, strict=True))
        if kind in special or kind == TokenKind.USER_DEFINED
    ]
    post: dict[str, Any] | None = None
    if vocabulary.add_bos and vocabulary.bos is not None:
        bos = vocabulary.tokens[vocabulary.bos]
        opening = {"SpecialToken": {"id": bos, "type_id": 0}}
        post = {
            "type": "TemplateProcessing",
            "single": [opening, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [
                opening,
                {"Sequence": {"id": "A", "type_id": 0}},
                {"SpecialToken": {"id": bos, "type_id": 1}},
                {"Sequence": {"id": "B", "type_id": 1}},
            ],
            "special_tokens": {bos: {"id": bos, "ids": [vocabulary.bos], "tokens": [bos]}},
        }
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": PRE_TOKENIZERS[vocabulary.pre]},
        "post_processor": post,
        "decoder": {**_BYTES, "add_prefix_space": True, "use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": vocabulary.pre == "llama-bpe",
            "vocab": {
                token: index
                for index, (token, kind) in enumerate(
                    zip(vocabulary.tokens, vocabulary.kinds, strict=True)
                )
                if kind != TokenKind.UNUSED  # a placeholder for a row without a token
            },
            "merges": [merge.split(" ", 1) for merge in vocabulary.merges],
        },
    }


def tokenizer_config(vocabulary: Vocabulary, *, context: int) -> dict[str, Any]:
    """Return the content of ``tokenizer_config.json``: special tokens and chat template.

    The class is the generic one: a class of its own (``GPT2Tokenizer``) would let newer
    transformers rebuild the pre-tokenizer and lose the splitting of digits.

    Args:
        vocabulary: the vocabulary.
        context: the longest sequence, in tokens.
    """
    eos = vocabulary.token(vocabulary.eos)
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": context,
        "bos_token": vocabulary.token(vocabulary.bos),
        "eos_token": eos,
        "pad_token": vocabulary.token(vocabulary.pad) or eos,
        "unk_token": vocabulary.token(vocabulary.unk),
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        "chat_template": vocabulary.chat_template,
    }


def _pre_tokenizer_name(steps: Any) -> str | None:
    """Return GGUF's name of a pre-tokenizer from ``tokenizer.json``, or None."""
    if not isinstance(steps, dict):
        return None
    listed = steps["pretokenizers"] if steps.get("type") == "Sequence" else [steps]
    kinds = [step.get("type") for step in listed]
    if kinds == ["Digits", "ByteLevel"] and listed[0].get("individual_digits"):
        return "smollm"
    if kinds == ["ByteLevel"]:
        return "gpt-2"
    if kinds == ["Split", "ByteLevel"] and listed[0]["pattern"].get("Regex") == _LLAMA3_SPLIT:
        return "llama-bpe"
    return None


def _token_text(value: Any) -> str | None:
    """Return a special token's text from a configuration: a string, or an object with it."""
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) else None


def read_vocabulary(
    tokenizer: dict[str, Any], config: dict[str, Any], *, size: int, where: str
) -> Vocabulary:
    """Return the vocabulary of a checkpoint's tokenizer files.

    Args:
        tokenizer: the content of ``tokenizer.json``.
        config: the content of ``tokenizer_config.json``, with the chat template.
        size: rows of the embedding; ids without a token get a placeholder.
        where: the file, for errors.

    Raises:
        EngineError: it is not a byte-level BPE vocabulary that llama.cpp knows by name.
    """
    model = tokenizer.get("model") or {}
    pre = _pre_tokenizer_name(tokenizer.get("pre_tokenizer"))
    if model.get("type") != "BPE" or model.get("byte_fallback") or pre is None:
        shown = json.dumps(tokenizer.get("pre_tokenizer"))[:200]
        raise EngineError(
            f"{where}: a {model.get('type')} tokenizer with the pre-tokenizer {shown} cannot be "
            f"written as GGUF; accepted are byte-level BPE as in {', '.join(PRE_TOKENIZERS)}; "
            "serve this folder with --backend vllm"
        )
    by_id = {index: token for token, index in model["vocab"].items()}
    kinds = dict.fromkeys(by_id, int(TokenKind.NORMAL))
    for entry in tokenizer.get("added_tokens") or ():
        by_id[entry["id"]] = entry["content"]
        kinds[entry["id"]] = int(
            TokenKind.CONTROL if entry.get("special") else TokenKind.USER_DEFINED
        )
    if max(by_id) >= size:
        raise EngineError(
            f"{where}: token id {max(by_id)} has no row in the embedding of {size} rows; save the "
            "tokenizer and the model together"
        )
    tokens = tuple(by_id.get(index, f"[PAD{index}]") for index in range(size))
    ids = {token: index for index, token in enumerate(tokens)}

    def named(key: str) -> int | None:
        return ids.get(_token_text(config.get(key)) or "")

    template = config.get("chat_template")
    if isinstance(template, list):  # several templates by name
        template = next((t["template"] for t in template if t.get("name") == "default"), None)
    post = json.dumps(tokenizer.get("post_processor"))
    bos = _token_text(config.get("bos_token"))
    merges = model.get("merges") or ()
    eos = end_of_turn(tokens, template, eos=named("eos_token"))
    return Vocabulary(
        tokens=tokens,
        kinds=tuple(kinds.get(index, int(TokenKind.UNUSED)) for index in range(size)),
        merges=tuple(m if isinstance(m, str) else " ".join(m) for m in merges),
        pre=pre,
        bos=named("bos_token"),
        eos=eos,
        pad=named("pad_token") if named("pad_token") is not None else eos,
        unk=named("unk_token"),
        add_bos=bool(bos) and json.dumps(bos) in post,
        chat_template=template,
    )

from __future__ import annotations

from dataclasses import replace

import pytest
from tiny_checkpoint import TEMPLATE, tiny_tokenizer
from tokenizers import Tokenizer

from kidrails_guard.engine.vocabulary import (
    PRE_TOKENIZERS,
    TokenKind,
    end_of_turn,
    read_vocabulary,
    tokenizer_config,
    tokenizer_json,
)
from kidrails_guard.errors import EngineError

CONFIG = {
    "bos_token": "<|im_start|>",
    "eos_token": "<|im_end|>",
    "pad_token": None,
    "unk_token": {"content": "<|endoftext|>"},
    "chat_template": TEMPLATE,
}
TEXTS = (
    "why is the sky blue?",
    "I am 12, 345 days",
    "<|im_start|>user\nhi<|im_end|>",
    "ä 日 🦊",
    "",
)


@pytest.fixture(scope="module")
def tokenizer() -> dict:
    return tiny_tokenizer()


def test_the_end_of_turn_is_what_the_template_ends_turns_with() -> None:
    tokens = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
    assert end_of_turn(tokens, TEMPLATE, eos=1) == 2
    assert end_of_turn(tokens, None, eos=1) == 1
    assert end_of_turn(("a", "<|eot_id|>"), "{{ '<|eot_id|>' }}", eos=None) == 1
    assert end_of_turn(("a", "b"), TEMPLATE, eos=0) == 0


def test_a_vocabulary_survives_the_way_there_and_back(tokenizer: dict) -> None:
    first = read_vocabulary(tokenizer, CONFIG, size=320, where="x")
    again = read_vocabulary(
        tokenizer_json(first), tokenizer_config(first, context=64), size=320, where="x"
    )
    assert again == first
    assert (first.pre, first.bos, first.eos, first.pad, first.unk) == ("smollm", 1, 2, 2, 0)
    assert not first.add_bos
    assert first.kinds[:4] == (TokenKind.CONTROL,) * 3 + (TokenKind.NORMAL,)


def test_the_written_tokenizer_cuts_as_the_original(tokenizer: dict) -> None:
    import json

    original = Tokenizer.from_str(json.dumps(tokenizer))
    vocabulary = read_vocabulary(tokenizer, CONFIG, size=320, where="x")
    written = Tokenizer.from_str(json.dumps(tokenizer_json(vocabulary)))
    for text in TEXTS:
        assert written.encode(text).ids == original.encode(text).ids
        assert written.decode(written.encode(text).ids, skip_special_tokens=False) == text


def test_digits_are_cut_one_by_one(tokenizer: dict) -> None:
    import json

    vocabulary = read_vocabulary(tokenizer, CONFIG, size=320, where="x")
    written = Tokenizer.from_str(json.dumps(tokenizer_json(vocabulary)))
    assert written.encode("1234").tokens == ["1", "2", "3", "4"]


def test_an_opening_token_is_written_and_found_again(tokenizer: dict) -> None:
    import json

    vocabulary = replace(
        read_vocabulary(tokenizer, CONFIG, size=320, where="x"), add_bos=True, pre="llama-bpe"
    )
    content = tokenizer_json(vocabulary)
    assert Tokenizer.from_str(json.dumps(content)).encode("sky").ids[0] == 1
    assert read_vocabulary(content, CONFIG, size=320, where="x").add_bos


@pytest.mark.parametrize("pre", PRE_TOKENIZERS)
def test_every_pre_tokenizer_is_recognised_again(tokenizer: dict, pre: str) -> None:
    vocabulary = replace(read_vocabulary(tokenizer, CONFIG, size=320, where="x"), pre=pre)
    assert read_vocabulary(tokenizer_json(vocabulary), CONFIG, size=320, where="x").pre == pre


def test_rows_without_a_token_get_a_placeholder(tokenizer: dict) -> None:
    vocabulary = read_vocabulary(tokenizer, CONFIG, size=323, where="x")
    assert vocabulary.tokens[320:] == ("[PAD320]", "[PAD321]", "[PAD322]")
    assert vocabulary.kinds[320:] == (TokenKind.UNUSED,) * 3


def test_several_templates_mean_the_default_one(tokenizer: dict) -> None:
    listed = [{"name": "tool_use", "template": "t"}, {"name": "default", "template": TEMPLATE}]
    config = {**CONFIG, "chat_template": listed}
    assert read_vocabulary(tokenizer, config, size=320, where="x").chat_template == TEMPLATE


def test_a_token_without_a_row_is_an_error(tokenizer: dict) -> None:
    with pytest.raises(EngineError, match=r"x: token id 319 has no row .* 300 rows"):
        read_vocabulary(tokenizer, CONFIG, size=300, where="x")


@pytest.mark.parametrize(
    "change",
    [
        {"pre_tokenizer": {"type": "Metaspace"}},
        {"pre_tokenizer": None},
        {"model": {"type": "Unigram", "vocab": {}}},
    ],
)
def test_another_kind_of_tokenizer_is_an_error_that_names_vllm(
    tokenizer: dict, change: dict
) -> None:
    with pytest.raises(EngineError, match="--backend vllm"):
        read_vocabulary({**tokenizer, **change}, CONFIG, size=320, where="x")


def test_a_pre_tokenizer_that_cannot_be_written_is_an_error(tokenizer: dict) -> None:
    vocabulary = replace(read_vocabulary(tokenizer, CONFIG, size=320, where="x"), pre="tekken")
    with pytest.raises(EngineError, match=r"'tekken' .* gpt-2, llama-bpe, smollm"):
        tokenizer_json(vocabulary)

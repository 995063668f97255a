"""Preflight, second half: what axolotl's own schema, tokenizer and labels say (see `probe`)."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any, Final

from kidrails_guard.recipes.findings import Result, fine, listed, note, problem, unchecked

Answer = Mapping[str, Any]

CAPABILITIES: Final[dict[str, dict[str, Any]]] = {
    "h100": {"bf16": True, "fp8": True, "tf32": True, "compute_capability": "sm_90"},
    "a100": {"bf16": True, "fp8": False, "tf32": True, "compute_capability": "sm_80"},
    "l40s": {"bf16": True, "fp8": True, "tf32": True, "compute_capability": "sm_89"},
    "rtx4090": {"bf16": True, "fp8": True, "tf32": True, "compute_capability": "sm_89"},
    "t4": {"bf16": False, "fp8": False, "tf32": False, "compute_capability": "sm_75"},
    "cpu": {"bf16": False, "fp8": False, "tf32": False, "compute_capability": None},
}
"""What each kind of GPU can do, as axolotl asks it. NVIDIA, compute capability tables."""


def capabilities(machine: str, gpus: int) -> dict[str, Any]:
    """Return what axolotl should believe about the machine.

    Args:
        machine: a key of `CAPABILITIES`.
        gpus: how many.
    """
    return {**CAPABILITIES[machine], "n_gpu": max(1, gpus), "n_node": 1}


def judge_answer(
    answer: Answer, config: Mapping[str, Any], *, machine: str, here: bool = False
) -> list[Result]:
    """Return results for everything that axolotl said about a recipe.

    Args:
        answer: the probe's answer.
        config: the recipe's keys.
        machine: for which kind of GPU it was asked.
        here: it is to be trained where axolotl was asked.
    """
    results = [*_schema(answer, machine), *_keys(answer), *_optimizer(answer, config)]
    results += _packages(answer, config, here=here)
    if answer["failed"]:
        return [*results, problem("tokenizer", f"axolotl stops at the data: {answer['failed']}")]
    results += _tokens(answer, config)
    for path, found in answer["data"].items():
        results += _lengths(path, found["lengths"], config)
        results.append(_labels(path, found))
    results += [note("axolotl", line) for line in _warnings(answer)]
    return results


def longest_row(answer: Answer) -> int:
    """Return the tokens of the longest row over all files; 0 where none was tokenised."""
    return max((found["lengths"]["longest"] for found in answer["data"].values()), default=0)


def shown_rows(answer: Answer) -> tuple[tuple[tuple[bool, str], ...], ...]:
    """Return some rows as pieces of text, each learnt or not."""
    return tuple(
        tuple((bool(learnt), str(text)) for learnt, text in row)
        for found in answer["data"].values()
        for row in found["shown"]
    )


def _schema(answer: Answer, machine: str) -> list[Result]:
    version = answer["machine"]["versions"]["axolotl"]
    if not answer["schema"]:
        return [fine("schema", f"axolotl {version} accepts it for {machine}")]
    return [problem("schema", f"axolotl {version} refuses it: {line}") for line in answer["schema"]]


def _keys(answer: Answer) -> list[Result]:
    found = answer["unknown"]
    if found is None:
        return [unchecked("keys", "a plugin failed, so which keys are read is not known")]
    if not found:
        return [fine("keys", "axolotl reads every key")]
    return [
        problem(
            "keys",
            f"{path!r} is no key that axolotl reads; it would be dropped silently",
            f"did you mean {near!r}?" if near else "remove it",
        )
        for path, near in found
    ]


def _optimizer(answer: Answer, config: Mapping[str, Any]) -> list[Result]:
    wanted, known = str(config.get("optimizer", "adamw_torch_fused")), answer["optimizers"]
    if wanted in known:
        return []
    near = get_close_matches(wanted, known, n=1)
    return [
        problem(
            "optimizer",
            f"{wanted!r} is no optimizer of axolotl or transformers",
            f"did you mean {near[0]!r}?" if near else "adamw_torch_fused is the usual one",
        )
    ]


def _packages(answer: Answer, config: Mapping[str, Any], *, here: bool) -> list[Result]:
    """Name what axolotl leaves to its extras: it looks for them after the model was loaded."""
    results = []
    for key, package in (("deepspeed", "deepspeed"), ("use_ray", "ray")):
        if config.get(key) and package not in answer["machine"]["packages"]:
            say = problem if here else note
            text = f"{key} needs the package {package}, which is not installed beside axolotl here"
            results.append(say("packages", text, f"pip install 'axolotl[{package}]', beside it"))
    return results


def _tokens(answer: Answer, config: Mapping[str, Any]) -> list[Result]:
    tokens = answer["tokens"]
    if tokens is None:
        return [
            unchecked(
                "tokenizer",
                f"{config.get('base_model')!r} is not on this machine, so its tokenizer, the rows' "
                "lengths and the labels were not looked at",
                "give a local copy: --base-model DIR",
            )
        ]
    results = [
        problem(
            "tokenizer",
            f"special_tokens.{key} {token!r} is not in the tokenizer's vocabulary: axolotl would "
            "add it as a new token that was never trained",
            "name a token that the model knows",
        )
        for key, token in tokens["fresh"].items()
    ]
    for key in ("eos_token", "pad_token"):
        if not tokens[key]:
            results.append(
                problem(
                    "tokenizer",
                    f"the tokenizer has no {key.replace('_', ' ')}",
                    f"special_tokens: {{{key}: …}}",
                )
            )
    limit = config.get("sequence_len")
    if isinstance(limit, int) and limit > tokens["max_length"]:
        results.append(
            problem(
                "tokenizer",
                f"sequence_len {limit} is more than the {tokens['max_length']} tokens that the "
                "model was made for",
            )
        )
    if not results:
        ends = f"turns end with {tokens['eos_token']}, padding is {tokens['pad_token']}"
        results.append(fine("tokenizer", f"{tokens['vocabulary']:,} tokens, {ends}"))
    return results


def _lengths(path: str, lengths: Mapping[str, Any], config: Mapping[str, Any]) -> list[Result]:
    limit = config.get("sequence_len", 512)
    text = (
        f"{path}: {lengths['rows']:,} rows, {lengths['tokens']:,} tokens, median "
        f"{lengths['median']}, longest {lengths['longest']} (row {lengths['longest_row']})"
    )
    if not lengths["over"]:
        return [fine("lengths", f"{text}; all fit sequence_len {limit}")]
    what = {
        "raise": "axolotl would stop there",
        "truncate": "axolotl would cut them",
    }.get(str(config.get("excess_length_strategy")), "axolotl would drop them silently")
    return [
        problem(
            "lengths",
            f"{text}; {len(lengths['over'])} are longer than sequence_len {limit}: rows "
            f"{listed(lengths['over'])}; {what}",
            f"sequence_len: {-(-lengths['longest'] // 64) * 64}",
        )
    ]


def _labels(path: str, found: Mapping[str, Any]) -> Result:
    wrong = found["mask_problems"]
    if not wrong:
        share = found["trained_share"]
        learnt = f"; {share:.0%} of the tokens are learnt" if share else ""
        return fine(
            "labels",
            f"{path}: in {found['looked_at']} rows exactly the assistant's words and the token "
            f"that ends them{learnt}",
        )
    first = wrong[0]
    return problem(
        "labels",
        f"{path}: in {len(wrong)} of {found['looked_at']} rows something else is learnt than the "
        f"assistant's turns, first row {first['row']}: expected {first['expected']!r}, learnt "
        f"{first['learnt']!r}",
        "chat_template and special_tokens.eos_token have to belong together",
    )


def _warnings(answer: Answer) -> list[str]:
    """Return axolotl's warnings that are about the recipe, not about this machine."""
    noise = ("deprecat", "telemetry", "no accelerator", "bitsandbytes", "Failed to load CPU")
    return [line for line in answer.get("warnings", []) if not any(n in line for n in noise)]

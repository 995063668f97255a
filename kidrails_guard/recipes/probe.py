"""Asks axolotl itself about recipes. Runs under the Python that has axolotl, as a plain script.

It imports nothing of KidRails, so that it works beside any axolotl:
``python -P probe.py QUESTION.json ANSWER.json``. The question is ``{"jobs": [job, …]}``; a job has

* ``config``: the recipe, parsed, with every override applied
* ``capabilities``: of the GPU that it is meant for, as `axolotl.utils.config.validate_config` wants
* ``local``: whether the base model's tokenizer can be loaded from a folder
* ``rows``: how many rows to tokenise with axolotl's own strategy, and look at the labels

``-P`` keeps this folder off the module path: a file here is called ``axolotl.py``.
"""

from __future__ import annotations

import copy
import difflib
import importlib.metadata
import importlib.util
import json
import logging
import sys
import typing
from pathlib import Path
from typing import Any

IGNORED = -100
PREFERENCES = {"dpo", "ipo", "simpo", "orpo"}


class Heard(logging.Handler):
    """Keeps axolotl's warnings: it often warns where it should stop."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one line."""
        self.lines.append(record.getMessage())


def model_in(annotation: Any) -> list[Any]:
    """Return the pydantic models that an annotation allows."""
    from pydantic import BaseModel

    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in typing.get_args(annotation) for model in model_in(part)]


def accepted_keys(model: Any) -> dict[str, Any]:
    """Return the keys that a pydantic model reads, its aliases included."""
    keys: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        aliases = [name, field.alias, field.validation_alias]
        aliases += getattr(field.validation_alias, "choices", ())
        keys |= {alias: field.annotation for alias in aliases if isinstance(alias, str)}
    return keys


def unknown_keys(config: dict[str, Any], models: list[Any], where: str = "") -> list[list[str]]:
    """Return the keys that no model reads, each with the nearest that one does."""
    if any(model.model_config.get("extra") == "allow" for model in models):
        return []
    known: dict[str, Any] = {}
    for model in models:
        known |= accepted_keys(model)
    found: list[list[str]] = []
    for key, value in config.items():
        path = f"{where}.{key}" if where else str(key)
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1, cutoff=0.6)
            found.append([path, near[0] if near else ""])
            continue
        inner = model_in(known[key])
        if inner and key in {"datasets", "test_datasets"}:
            inner = [dataset_model(config)]
        values = value if isinstance(value, list) else [value]
        for number, item in enumerate(values):
            if inner and isinstance(item, dict):
                place = f"{path}[{number}]" if isinstance(value, list) else path
                found += unknown_keys(item, inner, place)
    return found


def dataset_model(config: dict[str, Any]) -> Any:
    """Return the model that axolotl reads a data set's entry with."""
    from axolotl.utils.schemas.datasets import DPODataset, KTODataset, SFTDataset

    if config.get("rl") in {"dpo", "ipo", "simpo"}:
        return DPODataset
    return KTODataset if config.get("rl") == "kto" else SFTDataset


def check_schema(job: dict[str, Any], answer: dict[str, Any]) -> Any:
    """Let axolotl validate the recipe; return its own configuration, or None."""
    from axolotl.cli.config import prepare_plugins
    from axolotl.integrations.config import merge_input_args
    from axolotl.utils.config import validate_config
    from axolotl.utils.dict import DictDefault
    from axolotl.utils.schemas.config import AxolotlConfigWCapabilities
    from axolotl.utils.schemas.enums import CustomSupportedOptimizers
    from transformers.training_args import OptimizerNames

    optimizers = sorted({o.value for o in [*OptimizerNames, *CustomSupportedOptimizers]})
    answer["optimizers"] = optimizers
    cfg = DictDefault(copy.deepcopy(job["config"]))
    model = AxolotlConfigWCapabilities
    try:
        prepare_plugins(cfg)
        if cfg.get("plugins"):
            model = merge_input_args()[0]
    # A plugin may raise anything when it is imported.
    except Exception as error:
        answer["schema"] = messages_of(error)
        return None
    answer["unknown"] = unknown_keys(job["config"], [model])
    try:
        return validate_config(
            cfg,
            capabilities=job["capabilities"],
            env_capabilities={"torch_version": job.get("torch", "2.13.0")},
        )
    # pydantic's errors and axolotl's own have no nearer base.
    except Exception as error:
        answer["schema"] = messages_of(error)
        return None


def messages_of(error: Exception) -> list[str]:
    """Return an exception's messages, one a problem."""
    if hasattr(error, "errors"):
        found = []
        for problem in error.errors():
            place = ".".join(str(part) for part in problem["loc"])
            found.append(f"{place}: {problem['msg']}" if place else problem["msg"])
        return found
    return [f"{type(error).__name__}: {error}"]


def read_rows(path: str) -> list[dict[str, Any]]:
    """Return a JSONL file's rows."""
    with Path(path).open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines if line.strip()]


def spread(count: int, wanted: int) -> list[int]:
    """Return up to ``wanted`` row numbers, spread evenly from the first to the last."""
    if count <= wanted:
        return list(range(count))
    return sorted({round(i * (count - 1) / (wanted - 1)) for i in range(wanted)})


def check_tokens(tokenizer: Any, config: dict[str, Any]) -> dict[str, Any]:
    """Compare the recipe's special tokens with the tokenizer's vocabulary.

    ``fresh`` are those that axolotl would add as new, untrained rows of the embedding.
    """
    from transformers import AutoTokenizer

    original = AutoTokenizer.from_pretrained(
        config["base_model"], revision=config.get("revision_of_model") or "main"
    )
    vocabulary = original.get_vocab()
    wanted = {k: v for k, v in (config.get("special_tokens") or {}).items() if isinstance(v, str)}
    return {
        "fresh": {key: token for key, token in wanted.items() if token not in vocabulary},
        "eos_token": tokenizer.eos_token,
        "pad_token": tokenizer.pad_token,
        "vocabulary": len(tokenizer),
        "max_length": tokenizer.model_max_length,
    }


def trained_spans(ids: list[int], labels: list[int]) -> list[tuple[bool, list[int]]]:
    """Return the row cut where training starts and stops: (trained, tokens)."""
    spans: list[tuple[bool, list[int]]] = []
    for token, label in zip(ids, labels, strict=True):
        trained = label != IGNORED
        if not spans or spans[-1][0] != trained:
            spans.append((trained, []))
        spans[-1][1].append(token)
    return spans


def check_conversations(
    rows: list[dict[str, Any]], entry: dict[str, Any], *, cfg: Any, tokenizer: Any, wanted: int
) -> dict[str, Any]:
    """Tokenise conversations as training will, and look at lengths and labels."""
    from axolotl.prompt_strategies import load

    strategy = load(entry["type"], tokenizer, cfg, entry)
    field = entry.get("field_messages") or "messages"
    template = strategy.prompter.chat_template
    lengths = [
        len(
            tokenizer.apply_chat_template(
                row[field], chat_template=template, tokenize=True, return_dict=False
            )
        )
        for row in rows
    ]
    longest = max(range(len(rows)), key=lengths.__getitem__)
    problems, shown, trained, seen = [], [], 0, 0
    for number in sorted({*spread(len(rows), wanted), longest}):
        done = strategy.tokenize_prompt(rows[number])
        spans = trained_spans(list(done["input_ids"]), list(done["labels"]))
        texts = [
            (on, tokenizer.decode(ids, clean_up_tokenization_spaces=False)) for on, ids in spans
        ]
        expected = [
            str(turn["content"]).strip() + tokenizer.eos_token
            for turn in rows[number][field]
            if turn["role"] == "assistant"
        ]
        learnt = [text.strip() for on, text in texts if on]
        if learnt != expected:
            problems.append({"row": number + 1, "expected": expected[:2], "learnt": learnt[:2]})
        trained += sum(len(ids) for on, ids in spans if on)
        seen += len(done["input_ids"])
        shown.append([[on, text] for on, text in texts])
    return {
        "lengths": summary(lengths, cfg.sequence_len),
        "mask_problems": problems,
        "trained_share": trained / max(1, seen),
        "shown": shown[:3],
        "looked_at": len(shown),
    }


def check_pairs(
    rows: list[dict[str, Any]], number: int, *, cfg: Any, tokenizer: Any, wanted: int
) -> dict[str, Any]:
    """Render preference pairs as training will, and look at lengths and ends."""
    from axolotl.prompt_strategies.dpo import load

    entry = cfg.datasets[number]
    transform, _ = load(entry["type"], cfg, dataset_idx=number)
    lengths: list[int] = []
    problems: list[dict[str, Any]] = []
    shown: list[list[list[Any]]] = []
    looked = set(spread(len(rows), wanted))
    for place, row in enumerate(rows):
        pair = transform(copy.deepcopy(row), tokenizer)
        sizes = {
            key: len(tokenizer(pair[key], add_special_tokens=False)["input_ids"])
            for key in ("prompt", "chosen", "rejected")
        }
        lengths.append(sizes["prompt"] + max(sizes["chosen"], sizes["rejected"]))
        for key in ("chosen", "rejected"):
            raw = row[entry.get(f"field_{key}") or key]
            raw = raw[-1] if isinstance(raw, list) else raw
            content = str(raw["content"] if isinstance(raw, dict) else raw).strip()
            # axolotl cuts the reply out of the rendered text by searching for it.
            if pair[key].strip() != content + tokenizer.eos_token:
                problems.append(
                    {
                        "row": place + 1,
                        "expected": [content + tokenizer.eos_token],
                        "learnt": [pair[key]],
                    }
                )
        if pair["chosen"] == pair["rejected"]:
            problems.append(
                {"row": place + 1, "expected": ["two replies"], "learnt": ["the same twice"]}
            )
        if place in looked and len(shown) < 3:
            shown.append([[False, pair["prompt"]], [True, pair["chosen"]]])
    return {
        "lengths": summary(lengths, cfg.sequence_len),
        "mask_problems": problems[:20],
        "trained_share": 0.0,
        "shown": shown,
        "looked_at": len(rows),
    }


def summary(lengths: list[int], limit: int) -> dict[str, Any]:
    """Return what matters about the rows' lengths, in tokens; rows count from 1."""
    ordered = sorted(lengths)
    return {
        "rows": len(lengths),
        "tokens": sum(lengths),
        "median": ordered[len(ordered) // 2],
        "longest": ordered[-1],
        "longest_row": lengths.index(ordered[-1]) + 1,
        "over": [number + 1 for number, length in enumerate(lengths) if length > limit],
    }


def check_data(job: dict[str, Any], cfg: Any, answer: dict[str, Any]) -> None:
    """Load the tokenizer as training will, and look at every file."""
    from axolotl.loaders import load_tokenizer

    config = job["config"]
    cfg.base_model_config = cfg.base_model_config or cfg.base_model
    cfg.tokenizer_config = cfg.tokenizer_config or cfg.base_model
    tokenizer = load_tokenizer(cfg)
    answer["tokens"] = check_tokens(tokenizer, config)
    for key in ("datasets", "test_datasets"):
        for number, entry in enumerate(config.get(key) or ()):
            rows = read_rows(entry["path"])
            limits = {"cfg": cfg, "tokenizer": tokenizer, "wanted": job["rows"]}
            if config.get("rl") in PREFERENCES:
                found = check_pairs(rows, number, **limits)
            else:
                found = check_conversations(rows, cfg[key][number], **limits)
            answer["data"][entry["path"]] = found


def machine() -> dict[str, Any]:
    """Return what this machine can do."""
    import torch

    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return {
        "gpus": gpus,
        "bf16": bool(gpus and torch.cuda.is_bf16_supported()),
        "names": [torch.cuda.get_device_name(i) for i in range(gpus)],
        "packages": [n for n in ("deepspeed", "ray") if importlib.util.find_spec(n) is not None],
        "versions": {
            name: importlib.metadata.version(name)
            for name in ("axolotl", "torch", "transformers", "trl", "peft", "accelerate")
        },
    }


def answer_job(job: dict[str, Any]) -> dict[str, Any]:
    """Return everything that axolotl says about one recipe."""
    heard = Heard()
    for name in ("", "axolotl"):
        logging.getLogger(name).addHandler(heard)
    answer: dict[str, Any] = {
        "schema": [],
        "unknown": None,
        "data": {},
        "tokens": None,
        "failed": "",
    }
    cfg = check_schema(job, answer)
    if cfg is not None and job["local"]:
        try:
            check_data(job, cfg, answer)
        # Whatever stops the data here stops it in training: it is the answer.
        except Exception as error:
            answer["failed"] = f"{type(error).__name__}: {error}"
    for name in ("", "axolotl"):
        logging.getLogger(name).removeHandler(heard)
    answer["warnings"] = list(dict.fromkeys(heard.lines))
    return answer


def main() -> None:
    """Answer every job of the question's file."""
    jobs = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))["jobs"]
    reply = {"answers": [{**answer_job(job), "machine": machine()} for job in jobs]}
    Path(sys.argv[2]).write_text(json.dumps(reply), encoding="utf-8")


if __name__ == "__main__":
    main()

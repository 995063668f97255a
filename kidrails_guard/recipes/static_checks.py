"""Preflight without axolotl: what a recipe's keys, the model's shapes and the files say.

Pure but for reading the data files; nothing here imports torch.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from kidrails_guard.recipes.adapter_checks import count_planned_adapters
from kidrails_guard.recipes.findings import Result, fine, listed, note, problem, unchecked
from kidrails_guard.recipes.patterns import match_patterns
from kidrails_guard.recipes.plan import Plan
from kidrails_guard.spectrum.checkpoint import ModelIndex

Config = Mapping[str, Any]

LORA_KERNELS: Final = ("lora_mlp_kernel", "lora_qkv_kernel", "lora_o_kernel")
_PLAIN: Final = re.compile(r"\^?[\w.]+\$?")
_ROLES: Final = frozenset({"system", "user", "assistant", "tool"})


def trained_method(config: Config) -> str:
    """Return ``spectrum``, ``lora``, ``qlora`` or ``full``, as the keys say."""
    if config.get("adapter"):
        return str(config["adapter"])
    return "spectrum" if config.get("unfrozen_parameters") else "full"


def check_targets(config: Config, index: ModelIndex | None, plan: Plan | None) -> list[Result]:
    """Check that exactly what is meant will be trained.

    Args:
        config: the recipe's keys.
        index: the model's tensors; None where they are not known.
        plan: what the recipe means to train, where it says so.
    """
    results = _contradictions(config)
    patterns = config.get("unfrozen_parameters")
    if patterns is not None and not _is_list_of_text(patterns):
        return [*results, problem("targets", f"unfrozen_parameters is {patterns!r}, not a list")]
    if index is None:
        return [*results, unchecked("targets", "the base model's tensors are not known here")]
    if patterns:
        return results + _check_patterns(list(patterns), index, plan)
    method = trained_method(config)
    if method in {"lora", "qlora"}:
        counted = count_planned_adapters(config, index)
        if isinstance(counted, Result):
            return [*results, counted]
        trainable, tensors = counted
    else:
        trainable, tensors = index.total_parameters, len(index.names)
    return [*results, _compare(method, trainable, tensors, index=index, plan=plan)]


def _is_list_of_text(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _contradictions(config: Config) -> list[Result]:
    results = []
    plugins = config.get("plugins") or []
    if not isinstance(plugins, list):
        results.append(problem("targets", f"plugins is {plugins!r}; expected a list of modules"))
    elif any("spectrum" in str(name).lower() for name in plugins):
        results.append(
            problem(
                "targets",
                "the Spectrum plugin trains everything when it does not find its scan, and always "
                "embeddings and head",
                "remove it from plugins, and render the layers: kidrails recipe render",
            )
        )
    if config.get("adapter") and config.get("unfrozen_parameters"):
        results.append(
            problem(
                "targets",
                f"adapter: {config['adapter']} together with unfrozen_parameters: adapters rename "
                "every parameter, so the patterns match nothing and nothing is trained",
                "keep one of the two",
            )
        )
    kwargs = config.get("gradient_checkpointing_kwargs")
    reentrant = isinstance(kwargs, Mapping) and kwargs.get("use_reentrant")
    if config.get("unfrozen_parameters") and reentrant:
        results.append(
            problem(
                "targets",
                "use_reentrant: true loses the gradients of a partly frozen model",
                "gradient_checkpointing_kwargs: {use_reentrant: false}",
            )
        )
    if config.get("load_in_4bit") and config.get("adapter") != "qlora":
        results.append(problem("targets", "load_in_4bit without adapter: qlora cannot be trained"))
    return results


def _check_patterns(patterns: list[str], index: ModelIndex, plan: Plan | None) -> list[Result]:
    targets = match_patterns(patterns, index.names)
    results = []
    if targets.idle:
        pattern, why = targets.idle[0]
        results.append(
            problem(
                "targets",
                f"{len(targets.idle)} of {len(patterns)} patterns match nothing in {index.model}, "
                f"first {pattern!r}",
                why,
            )
        )
    greedy = [(p, names) for p, names in targets.wide if _PLAIN.fullmatch(p)]
    if greedy:
        pattern, names = greedy[0]
        results.append(
            problem(
                "targets",
                f"{len(greedy)} patterns match more than the parameter that they name, first "
                f"{pattern!r}: {listed(names)}",
                "end it with $",
            )
        )
    if targets.ranged:
        results.append(
            note(
                "targets",
                f"{listed(targets.ranged)}: a range only zeroes gradients; weight decay still "
                "changes the rest of that tensor",
            )
        )
    if not targets.names:
        return results
    trainable = index.count_parameters(targets.names)
    compared = _compare("spectrum", trainable, len(targets.names), index=index, plan=plan)
    return [*results, compared]


def _compare(
    method: str, trainable: int, tensors: int, *, index: ModelIndex, plan: Plan | None
) -> Result:
    found = (
        f"{method}: {trainable:,} of {index.total_parameters:,} parameters "
        f"({trainable / index.total_parameters:.1%}), {tensors} tensors"
    )
    if plan is None:
        return note("targets", f"{found}; the recipe does not say what it plans")
    meant = (plan.method, plan.trainable, plan.total, plan.tensors)
    if meant != (method, trainable, index.total_parameters, tensors):
        return problem(
            "targets",
            f"{found}; planned are {plan.method}: {plan.trainable:,} of {plan.total:,}, "
            f"{plan.tensors} tensors",
            "another model, or the recipe was edited: render it again (kidrails recipe render "
            f"{plan.recipe} --base-model …), or remove its '# kidrails-plan' line if you mean it",
        )
    return fine("targets", f"{found}, as planned")


def check_machine(config: Config, gpus: int) -> list[Result]:
    """Check the keys that only make sense with, or without, a GPU.

    Args:
        config: the recipe's keys.
        gpus: how many there are; 0 is a CPU.
    """
    if gpus:
        return [fine("machine", f"{gpus} GPU{'s' if gpus > 1 else ''}")]
    wrong = []
    for key, why in (
        ("bf16", "is emulated, or becomes fp16 with 'auto', which fails"),
        ("fp16", "needs a GPU"),
        ("tf32", "needs a GPU"),
        ("load_in_4bit", "needs a GPU"),
        ("load_in_8bit", "needs a GPU"),
        ("flash_attention", "needs a GPU"),
        ("fsdp_config", "needs several GPUs"),
        ("deepspeed", "needs several GPUs"),
        ("use_ray", "needs GPU workers"),
    ):
        if config.get(key):
            wrong.append(problem("machine", f"{key}: {_brief(config[key])} {why}"))
    attention = config.get("attn_implementation")
    if attention not in {None, "sdpa", "eager"}:
        wrong.append(problem("machine", f"attn_implementation: {attention} needs a GPU"))
    if "8bit" in str(config.get("optimizer")):
        wrong.append(problem("machine", f"optimizer: {config['optimizer']} needs a GPU"))
    if kernels := cuda_kernels(config):
        text = f"{', '.join(kernels)}: need a GPU, and are on unless set to false"
        wrong.append(problem("machine", text))
    if not wrong:
        return [fine("machine", "CPU")]
    last = wrong.pop()
    hint = "on a CPU: kidrails train RECIPE --on cpu, or --bf16 false --tf32 false "
    hint += "--attn_implementation sdpa"
    return [*wrong, Result(last.check, last.level, last.text, hint)]


def cuda_kernels(config: Config) -> list[str]:
    """Return the keys of axolotl's CUDA kernels for LoRA that a run would use.

    axolotl sets all of them for supervised LoRA where none is set (axolotl 0.19,
    ``check_auto_enable_lora_kernels``), on a CPU as well, and then ends at the first step.
    """
    if config.get("adapter") not in {"lora", "qlora"} or config.get("rl"):
        return []
    if all(config.get(key) is None for key in LORA_KERNELS):
        return list(LORA_KERNELS)
    return [key for key in LORA_KERNELS if config.get(key)]


def _brief(value: object) -> str:
    return "set" if isinstance(value, dict | list) else str(value).lower()


def check_files(config: Config, root: Path) -> list[Result]:
    """Check that the data is there, and that its rows have the shape that axolotl reads.

    Args:
        config: the recipe's keys.
        root: where relative paths start.
    """
    results = []
    for key in ("datasets", "test_datasets"):
        entries = config.get(key) or []
        if not isinstance(entries, list):
            results.append(problem("data", f"{key} is {entries!r}; expected a list of `- path: …`"))
            continue
        results += [_check_rows(entry, config, root) for entry in entries]
    if not config.get("datasets"):
        results.append(problem("data", "datasets is missing: there is nothing to learn from"))
    if not (config.get("test_datasets") or config.get("val_set_size")):
        results.append(note("data", "no held-out rows: whether it learnt will not be seen"))
    results += _check_prepared(config, root)
    deepspeed = config.get("deepspeed")
    if isinstance(deepspeed, str) and not (root / deepspeed).is_file():
        results.append(problem("files", f"deepspeed: there is no {root / deepspeed}"))
    return results


def _check_rows(entry: Any, config: Config, root: Path) -> Result:
    if not isinstance(entry, Mapping) or not isinstance(entry.get("path"), str):
        return problem("data", f"a data set needs a path, not {entry!r}")
    path = root / entry["path"]
    judge = path.name.startswith("guard_chat.")
    made_by = "kidrails recipe guard-rows" if judge else "kidrails data build"
    if not path.is_file():
        return problem(
            "data", f"there is no {path}", f"{made_by}, or change the path in the recipe"
        )
    count = number = 0
    try:
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                if not line.strip():
                    continue
                try:
                    wrong = _row_problem(json.loads(line), entry, pairs=bool(config.get("rl")))
                except ValueError as error:
                    wrong = f"is no JSON ({error})"
                if wrong:
                    return problem("data", f"{path}, line {number}: {wrong}", made_by)
                count += 1
    except (OSError, UnicodeDecodeError) as error:
        return problem("data", f"{path}, after line {number}: cannot be read ({error})", made_by)
    if count == 0:
        return problem("data", f"{path} is empty", made_by)
    return fine("data", f"{count:,} rows in {entry['path']}")


def _row_problem(row: object, entry: Mapping[str, Any], *, pairs: bool) -> str:
    """Return what is wrong with a row, without its words; empty where nothing is."""
    if not isinstance(row, dict):
        return f"is a {type(row).__name__}, not a map"
    field = entry.get("field_messages") or "messages"
    messages = row.get(field)
    if not isinstance(messages, list) or not messages:
        return f"{field!r} is no list of turns (its keys: {listed(row, most=6)})"
    for place, turn in enumerate(messages):
        wrong = _turn_problem(turn)
        if wrong:
            return f"{field}[{place}] {wrong}"
    if not pairs:
        return "" if messages[-1]["role"] == "assistant" else "its last turn is not the assistant's"
    for key in ("chosen", "rejected"):
        reply = row.get(entry.get(f"field_{key}") or key)
        reply = reply[-1] if isinstance(reply, list) and reply else reply
        if isinstance(reply, str):
            reply = {"role": "assistant", "content": reply}
        wrong = _turn_problem(reply)
        if wrong:
            return f"{key!r} {wrong}"
    return ""


def _turn_problem(turn: object) -> str:
    if not isinstance(turn, dict):
        return f"is a {type(turn).__name__}, not {{role, content}}"
    if turn.get("role") not in _ROLES:
        return f"has role {turn.get('role')!r}; accepted are {', '.join(sorted(_ROLES))}"
    if not isinstance(turn.get("content"), str) or not turn["content"].strip():
        return "has no text in 'content'"
    return ""


def _check_prepared(config: Config, root: Path) -> list[Result]:
    """Compare times: axolotl names its cache by the data's path, not its bytes."""
    prepared = root / str(config.get("dataset_prepared_path") or "last_run_prepared")
    made = [file.stat().st_mtime for file in prepared.glob("*/*.arrow")]
    if not made:
        return []
    for entry in [*(config.get("datasets") or ()), *(config.get("test_datasets") or ())]:
        path = root / str(entry.get("path"))
        if path.is_file() and path.stat().st_mtime > min(made):
            return [
                problem(
                    "data",
                    f"{path} is newer than what axolotl prepared from it in {prepared}, and "
                    "axolotl would train on the old rows",
                    f"rm -r {shlex.quote(str(prepared))}",
                )
            ]
    return []

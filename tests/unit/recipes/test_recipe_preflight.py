from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from kidrails_guard.errors import MissingDependency, RecipeError
from kidrails_guard.recipes import environment
from kidrails_guard.recipes.axolotl_checks import capabilities, judge_answer
from kidrails_guard.recipes.findings import Level, Report, Result, listed
from kidrails_guard.recipes.plan import Plan
from kidrails_guard.recipes.preflight import (
    Machine,
    check_base,
    check_wrapping,
    meant_machine,
    preflight,
)
from kidrails_guard.recipes.rendered import (
    Rendered,
    apply_overrides,
    load_rendered,
    override_flags,
    parse_overrides,
)
from kidrails_guard.recipes.static_checks import check_files, check_machine, check_targets
from kidrails_guard.recipes.training import cpu_overrides
from kidrails_guard.spectrum.shapes import LlamaShape, index_from_shape

INDEX = index_from_shape(
    "tiny", LlamaShape(layers=12, hidden=8, intermediate=16, heads=2, kv_heads=1, vocab=10)
)
ONE = "^model.layers.1.mlp.down_proj.weight$"


def problems(results: list[Result]) -> str:
    return " | ".join(f"{r.text} -> {r.hint}" for r in results if r.level is Level.PROBLEM)


def plan(**changes: Any) -> Plan:
    values = {
        "recipe": "x",
        "method": "spectrum",
        "trainable": 128,
        "total": INDEX.total_parameters,
        "tensors": 1,
    }
    return Plan(**{**values, **changes})


# What will be trained


@pytest.mark.parametrize(
    ("keys", "tensors"),
    [
        ({"lora_target_modules": ["q_proj", "v_proj"]}, 48),
        ({"lora_target_modules": ["mlp.down_proj"]}, 24),
        ({"lora_target_modules": r".*layers\.1\..*_proj"}, 14),
        ({"lora_target_modules": "all-linear"}, 168),
        ({"lora_target_linear": True}, 168),
        ({"lora_target_linear": True, "lora_target_modules": ["lm_head"]}, 170),
    ],
)
def test_adapters_are_counted_where_the_recipe_puts_them(
    keys: dict[str, Any], tensors: int
) -> None:
    config = {"adapter": "lora", "lora_r": 2, **keys}
    (said,) = check_targets(config, INDEX, None)
    assert f"{tensors} tensors" in said.text
    whole = plan(method="lora", trainable=2 * 12 * 128, tensors=168)
    (compared,) = check_targets(config, INDEX, whole)
    assert compared.level is (Level.FINE if tensors == 168 else Level.PROBLEM)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({}, "no layer gets one"),
        ({"lora_target_modules": ["q_proj", "vproj"]}, "did you mean 'v_proj'?"),
        ({"lora_target_modules": ["qkv"]}, "it has down_proj, embed_tokens"),
        ({"lora_target_modules": "q_proj"}, "write a list: [q_proj]"),
        ({"lora_target_modules": "q_proj("}, "lora_target_modules: 'q_proj('"),
        ({"lora_target_modules": [3]}, "expected a list of names"),
    ],
)
def test_a_target_without_a_layer_is_a_problem(keys: dict[str, Any], message: str) -> None:
    found = check_targets({"adapter": "lora", "lora_r": 2, **keys}, INDEX, None)
    assert message in problems(found)


def test_what_is_not_counted_is_not_said_to_be_planned() -> None:
    config = {"adapter": "lora", "lora_r": 2, "lora_target_modules": ["q_proj"]}
    (said,) = check_targets({**config, "lora_modules_to_save": ["lm_head"]}, INDEX, None)
    assert (said.level, "lora_modules_to_save" in said.text) == (Level.UNCHECKED, True)


def test_exactly_the_plan_is_fine() -> None:
    results = check_targets({"unfrozen_parameters": [ONE]}, INDEX, plan())
    assert [r.level for r in results] == [Level.FINE]
    assert "as planned" in results[0].text


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"unfrozen_parameters": [ONE.replace(".", r"\.")]}, "match nothing"),
        ({"unfrozen_parameters": [ONE, "^model.layers.40.mlp.down_proj.weight$"]}, "1 of 2"),
        ({"unfrozen_parameters": ["model.layers.1"]}, "end it with $"),
        ({"unfrozen_parameters": "model"}, "not a list"),
        ({"unfrozen_parameters": [ONE], "adapter": "lora"}, "keep one of the two"),
        (
            {"unfrozen_parameters": [ONE], "gradient_checkpointing_kwargs": {"use_reentrant": 1}},
            "use_reentrant: true",
        ),
        ({"plugins": ["axolotl.integrations.spectrum.SpectrumPlugin"]}, "trains everything"),
        ({"adapter": "lora", "lora_r": 0}, "lora_r is 0"),
        ({"load_in_4bit": True}, "without adapter: qlora"),
        ({}, "planned are spectrum"),
    ],
)
def test_what_would_train_something_else_is_a_problem(config: dict[str, Any], message: str) -> None:
    assert message in problems(check_targets(config, INDEX, plan()))


def test_another_models_plan_is_a_problem() -> None:
    found = problems(check_targets({"unfrozen_parameters": [ONE]}, INDEX, plan(total=999)))
    assert "another model" in found


def test_a_written_expression_may_match_several() -> None:
    results = check_targets({"unfrozen_parameters": ["model.layers.1[01].+"]}, INDEX, None)
    assert [r.level for r in results] == [Level.NOTE]


def test_without_shapes_nothing_is_claimed() -> None:
    results = check_targets({"unfrozen_parameters": [ONE]}, None, plan())
    assert [r.level for r in results] == [Level.UNCHECKED]


# The machine


@pytest.mark.parametrize(
    "config",
    [
        {"bf16": True},
        {"bf16": "auto"},
        {"tf32": True},
        {"attn_implementation": "flash_attention_2"},
        {"flash_attention": True},
        {"load_in_4bit": True},
        {"deepspeed": "x.json"},
        {"fsdp_config": {"a": 1}},
        {"optimizer": "adamw_bnb_8bit"},
        {"use_ray": True},
    ],
)
def test_gpu_settings_on_a_cpu_are_problems(config: dict[str, Any]) -> None:
    assert "--on cpu" in problems(check_machine(config, 0))
    assert problems(check_machine(config, 1)) == ""


def test_the_cpu_overrides_make_every_gpu_recipe_fit_a_cpu() -> None:
    for name in ("kidrails", "kidrails-lora", "kidrails-25", "kidrails-dpo"):
        recipe = load_rendered(name)
        changes = cpu_overrides(recipe.config, longest=200)
        assert changes["sequence_len"] == 256
        assert problems(check_machine(recipe.override(changes).config, 0)) == ""


def test_kernels_for_lora_that_axolotl_switches_on_by_itself_need_a_gpu() -> None:
    names = "lora_mlp_kernel, lora_qkv_kernel, lora_o_kernel"
    config = {"adapter": "lora"}
    assert f"{names}: need a GPU" in problems(check_machine(config, 0))
    assert problems(check_machine(config, 1)) == ""
    off = dict.fromkeys(names.split(", "), False)
    assert cpu_overrides(config).items() >= off.items()
    assert problems(check_machine(config | off, 0)) == ""
    # One that is set keeps axolotl from choosing; preference pairs never use them.
    assert "lora_o_kernel: need" in problems(check_machine(config | {"lora_o_kernel": True}, 0))
    assert problems(check_machine(config | {"rl": "dpo"}, 0)) == ""
    assert not cpu_overrides({"rl": "dpo", **config}).keys() & off.keys()


def test_a_short_sequence_is_not_made_longer() -> None:
    assert "sequence_len" not in cpu_overrides({"sequence_len": 128}, longest=500)


@pytest.mark.parametrize("workers", ["two", 0, -1, 1.5])
def test_a_number_of_workers_that_is_none_is_named(workers: object) -> None:
    config = {"bf16": True, "ray_num_workers": workers}
    if workers == 0:  # not set
        assert meant_machine(Rendered(Path("r.yml"), config, None, config, {})).gpus == 1
        return
    with pytest.raises(RecipeError, match="ray_num_workers is"):
        meant_machine(Rendered(Path("r.yml"), config, None, config, {}))


def test_a_recipe_says_for_which_machine_it_is() -> None:
    assert meant_machine(load_rendered("kidrails-small")) == Machine.cpu()
    assert meant_machine(load_rendered("kidrails")).gpus == 1
    assert meant_machine(load_rendered("kidrails-zero3")).gpus == 8
    assert meant_machine(load_rendered("kidrails-ray")).gpus == 16


# The data


def config_for(path: str, **changes: Any) -> dict[str, Any]:
    return {"datasets": [{"path": path, "type": "chat_template"}], "val_set_size": 0.1, **changes}


GOOD = {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2: is no JSON"),
        ("[]", "is a list"),
        ('{"text": "x"}', "'messages' is no list of turns (its keys: text)"),
        ('{"messages": [{"role": "user", "content": "x"}]}', "not the assistant's"),
        ('{"messages": [{"role": "child", "content": "x"}]}', "has role 'child'"),
        ('{"messages": [{"role": "assistant", "content": " "}]}', "has no text"),
        ('{"messages": ["x"]}', "is a str"),
    ],
)
def test_a_broken_row_is_named_without_its_words(tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "d.jsonl").write_text(json.dumps(GOOD) + "\n" + line + "\n")
    found = problems(check_files(config_for("d.jsonl"), tmp_path))
    assert message in found
    assert "line 2" in found


def test_pairs_need_both_replies(tmp_path: Path) -> None:
    row = {"messages": [{"role": "user", "content": "hi"}], "chosen": {"role": "assistant"}}
    (tmp_path / "d.jsonl").write_text(json.dumps(row) + "\n")
    found = problems(check_files(config_for("d.jsonl", rl="dpo"), tmp_path))
    assert "'chosen' has no text" in found


def test_a_missing_an_empty_and_a_good_file(tmp_path: Path) -> None:
    assert "kidrails data build" in problems(check_files(config_for("none.jsonl"), tmp_path))
    (tmp_path / "empty.jsonl").write_text("\n")
    assert "is empty" in problems(check_files(config_for("empty.jsonl"), tmp_path))
    (tmp_path / "good.jsonl").write_text(json.dumps(GOOD) + "\n")
    assert problems(check_files(config_for("good.jsonl"), tmp_path)) == ""
    assert "nothing to learn" in problems(check_files({}, tmp_path))


def test_a_file_in_another_encoding_is_named_with_its_line(tmp_path: Path) -> None:
    good = json.dumps(GOOD).encode()
    (tmp_path / "d.jsonl").write_bytes(good + b"\n" + b'{"messages": "\xe9"}\n')
    found = problems(check_files(config_for("d.jsonl"), tmp_path))
    assert "d.jsonl, after line" in found
    assert "cannot be read" in found


@pytest.mark.parametrize("key", ["datasets", "test_datasets"])
@pytest.mark.parametrize("value", [5, True, "d.jsonl", {"path": "d.jsonl"}])
def test_data_that_is_no_list_is_one_problem(tmp_path: Path, key: str, value: object) -> None:
    (tmp_path / "good.jsonl").write_text(json.dumps(GOOD) + "\n")
    config = config_for("good.jsonl") | {key: value}
    assert f"{key} is {value!r}; expected a list" in problems(check_files(config, tmp_path))


def test_each_kind_of_rows_has_its_command(tmp_path: Path) -> None:
    for name, command in (("sft.jsonl", "data build"), ("guard_chat.jsonl", "recipe guard-rows")):
        (missing,) = check_files(config_for(name), tmp_path)[:1]
        assert missing.hint.startswith(f"kidrails {command}")


def test_an_old_cache_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "d.jsonl").write_text(json.dumps(GOOD) + "\n")
    arrow = tmp_path / "prepared" / "abc" / "data.arrow"
    arrow.parent.mkdir(parents=True)
    arrow.touch()
    config = config_for("d.jsonl", dataset_prepared_path="prepared")
    os.utime(arrow, (1, 1))
    assert "train on the old rows" in problems(check_files(config, tmp_path))
    os.utime(tmp_path / "d.jsonl", (0, 0))
    assert problems(check_files(config, tmp_path)) == ""


def test_fsdp_cuts_at_a_layer_of_the_model(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    config = {
        "base_model": "base",
        "fsdp_config": {"transformer_layer_cls_to_wrap": "LlamaDecoderLayer"},
    }
    assert check_wrapping(config, tmp_path) == []
    written = tmp_path / "base" / "config.json"
    for architecture in ("LlamaForCausalLM", "LlavaForConditionalGeneration"):
        written.write_text(json.dumps({"architectures": [architecture]}))
        assert check_wrapping(config, tmp_path) == []
    written.write_text('{"architectures": ["Qwen2ForCausalLM"]}')
    assert "transformer_layer_cls_to_wrap: Qwen2DecoderLayer" in problems(
        check_wrapping(config, tmp_path)
    )
    for damaged in ("[]", '{"architectures": []}', "{"):
        written.write_text(damaged)
        assert check_wrapping(config, tmp_path) == []


@pytest.mark.parametrize(
    ("base", "hint"),
    [
        ("outputs/kidrails", "kidrails train kidrails"),
        ("build/models/smollm2-135m-instruct", "kidrails engine --export"),
        ("./mine", "--base-model DIR"),
        ("a/b/c", "--base-model DIR"),
        ("owner/name", ""),
        ("gpt2", ""),
    ],
)
def test_a_folder_that_is_not_there_is_not_asked_of_the_hub(
    tmp_path: Path, base: str, hint: str
) -> None:
    found = problems(check_base({"base_model": base}, tmp_path))
    assert hint in found
    assert bool(found) is bool(hint)
    (tmp_path / base).mkdir(parents=True)
    assert check_base({"base_model": base}, tmp_path) == []


def test_a_base_in_the_hubs_cache_is_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    model = tmp_path / "hub" / "models--someone--some-qwen"
    snapshot = model / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    (model / "refs").mkdir()
    (model / "refs" / "main").write_text("a" * 40)
    sizes = {
        "model_type": "qwen2",
        "architectures": ["Qwen2ForCausalLM"],
        "num_hidden_layers": 2,
        "hidden_size": 8,
        "intermediate_size": 16,
        "num_attention_heads": 2,
        "vocab_size": 10,
    }
    (snapshot / "config.json").write_text(json.dumps(sizes))
    (snapshot / "tokenizer.json").write_text("{}")
    (tmp_path / "d.jsonl").write_text(json.dumps(GOOD) + "\n")
    asked: list[dict[str, Any]] = []

    def ask(jobs: list[dict[str, Any]], **_: Any) -> list[dict[str, Any]]:
        asked.extend(jobs)
        return [answer() for _ in jobs]

    monkeypatch.setattr("kidrails_guard.recipes.preflight.ask_axolotl", ask)
    config = config_for("d.jsonl", base_model="someone/some-qwen") | {
        "unfrozen_parameters": ["^model.layers.7.mlp.down_proj.weight$"],
        "fsdp_config": {"transformer_layer_cls_to_wrap": "LlamaDecoderLayer"},
    }
    for revision, known in (("a" * 40, True), (None, True), ("other", False)):
        keys = config | {"revision_of_model": revision}
        recipe = Rendered(tmp_path / "r.yml", keys, None, {}, {})
        found = preflight([recipe], machines=[Machine()], root=tmp_path, python=Path("python"))[
            0
        ].results
        assert ("match nothing in someone/some-qwen" in problems([*found])) is known
        assert ("Qwen2DecoderLayer" in problems([*found])) is known
    good = config_for("d.jsonl", base_model="someone/some-qwen")
    for base in ("someone/some-qwen", "someone/other"):
        recipe = Rendered(tmp_path / "r.yml", good | {"base_model": base}, None, {}, {})
        preflight([recipe], machines=[Machine()], root=tmp_path, python=Path("python"))
    assert [job["local"] for job in asked[-2:]] == [True, False]


# What axolotl answers


def answer(**changes: Any) -> dict[str, Any]:
    lengths = {"rows": 9, "tokens": 90, "median": 10, "longest": 70, "longest_row": 3, "over": []}
    values = {
        "schema": [],
        "unknown": [],
        "optimizers": ["adamw_torch_fused"],
        "failed": "",
        "warnings": [],
        "tokens": {
            "fresh": {},
            "eos_token": "</s>",
            "pad_token": "</s>",
            "vocabulary": 10,
            "max_length": 512,
        },
        "data": {
            "d.jsonl": {
                "lengths": lengths,
                "mask_problems": [],
                "trained_share": 0.3,
                "shown": [[[False, "a"], [True, "b"]]],
                "looked_at": 9,
            }
        },
        "machine": {"versions": {"axolotl": "0.19.0"}, "packages": ["ray"]},
    }
    return {**values, **changes}


def judged(config: dict[str, Any] | None = None, **changes: Any) -> str:
    return problems(judge_answer(answer(**changes), config or {"sequence_len": 128}, machine="cpu"))


def test_a_clean_answer_has_no_problem() -> None:
    assert judged() == ""


def test_everything_that_axolotl_objects_to_is_a_problem() -> None:
    assert "refuses it: bad" in judged(schema=["bad"])
    assert "did you mean 'learning_rate'?" in judged(unknown=[["learning_rat", "learning_rate"]])
    assert "stops at the data: KeyError" in judged(failed="KeyError: x")
    assert "did you mean 'adamw_torch_fused'" in judged(
        {"sequence_len": 128, "optimizer": "adamw_torch_fuse"}
    )


def test_tokens_that_the_model_never_saw_are_a_problem() -> None:
    tokens = {**answer()["tokens"], "fresh": {"pad_token": "[PAD]"}}
    assert "never trained" in judged(tokens=tokens)
    assert "was made for" in judged({"sequence_len": 1024})


def test_long_rows_are_a_problem_with_the_length_they_need() -> None:
    data = answer()["data"]
    data["d.jsonl"]["lengths"]["over"] = [3]
    found = judged({"sequence_len": 64}, data=data)
    assert "drop them silently" in found
    assert "sequence_len: 128" in found
    stops = judged({"sequence_len": 64, "excess_length_strategy": "raise"}, data=data)
    assert "axolotl would stop there" in stops


def test_wrong_labels_are_a_problem() -> None:
    data = answer()["data"]
    data["d.jsonl"]["mask_problems"] = [{"row": 4, "expected": ["a</s>"], "learnt": ["a"]}]
    assert "first row 4" in judged(data=data)


def test_a_plugin_that_fails_leaves_the_keys_unknown() -> None:
    results = judge_answer(answer(unknown=None, schema=["x"]), {}, machine="cpu")
    assert any(r.check == "keys" and r.level is Level.UNCHECKED for r in results)


def test_capabilities_know_the_gpus() -> None:
    assert capabilities("a100", 8)["compute_capability"] == "sm_80"
    assert capabilities("cpu", 0)["n_gpu"] == 1


# The report


def test_a_report_fails_by_its_problems_only() -> None:
    fine = Report("x", (Result("a", Level.UNCHECKED, "t"), Result("b", Level.NOTE, "t")))
    assert fine.ok
    bad = Report("x", (Result("a", Level.PROBLEM, "t", "do this"),), (((True, "word"),),))
    assert not bad.ok
    text = "\n".join(bad.lines())
    assert "-> do this" in text
    assert "[[word]]" in text
    assert bad.to_json()["ok"] is False


def test_listed_counts_the_rest() -> None:
    assert listed([1, 2, 3, 4]) == "1, 2, 3 and 1 more"


def test_without_axolotl_the_report_says_so(tmp_path: Path) -> None:
    recipe = Rendered(tmp_path / "r.yml", {"base_model": "x"}, None, {}, {})
    report = preflight([recipe], machines=[Machine.cpu()], root=tmp_path, with_axolotl=False)[0]
    assert any(r.check == "axolotl" and r.level is Level.UNCHECKED for r in report.results)


# Files and overrides


def test_a_key_that_stands_twice_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "r.yml").write_text("a: 1\nb: 2\na: 3\n")
    with pytest.raises(RecipeError, match="stands twice"):
        load_rendered(str(tmp_path / "r.yml"))


@pytest.mark.parametrize("text", ["- a\n", "a: [\n", "? [a]\n: 1\n"])
def test_a_file_that_is_no_recipe(tmp_path: Path, text: str) -> None:
    (tmp_path / "r.yml").write_text(text)
    with pytest.raises(RecipeError, match=r"r\.yml"):
        load_rendered(str(tmp_path / "r.yml"))


def test_a_missing_file_lists_what_ships() -> None:
    with pytest.raises(RecipeError, match="kidrails-small"):
        load_rendered("nothing")


def test_overrides_reach_one_level_down_and_leave_the_rest() -> None:
    config = {"a": 1, "trl": {"beta": 0.1, "x": 2}}
    assert apply_overrides(config, {"a": 2, "trl__beta": 0.3, "new__k": 1}) == {
        "a": 2,
        "trl": {"beta": 0.3, "x": 2},
        "new": {"k": 1},
    }
    assert config["trl"]["beta"] == 0.1
    assert override_flags({"bf16": False, "lr": 1e-5}) == ["--bf16=false", "--lr=1e-05"]
    assert parse_overrides(["a=true", "b=null", "c=3", "d=x=y"]) == {
        "a": True,
        "b": None,
        "c": 3,
        "d": "x=y",
    }
    with pytest.raises(RecipeError, match="KEY=VALUE"):
        parse_overrides(["learning_rate"])


def test_other_data_replaces_the_one_file() -> None:
    recipe = load_rendered("kidrails").with_data("mine.jsonl")
    assert recipe.config["datasets"][0]["path"] == "mine.jsonl"
    assert recipe.config["datasets"][0]["roles_to_train"] == ["assistant"]


# The other environment


def test_the_training_python_is_found_or_its_command_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(environment.VARIABLE, raising=False)
    with pytest.raises(MissingDependency, match=r"make \.venv-train"):
        environment.find_train_python(tmp_path)
    python = tmp_path / ".venv-train" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.touch()
    assert environment.find_train_python(tmp_path) == python
    monkeypatch.setenv(environment.VARIABLE, str(tmp_path / "none"))
    with pytest.raises(RecipeError, match="is no file"):
        environment.find_train_python(tmp_path)


def test_axolotl_gets_no_telemetry_and_no_foreign_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    found = environment.train_environ(offline=True)
    assert found["DO_NOT_TRACK"] == "1"
    assert found["HF_HUB_OFFLINE"] == "1"
    assert "PYTHONPATH" not in found


def test_a_python_without_axolotl_is_an_error_with_what_it_said(tmp_path: Path) -> None:
    fake = tmp_path / "python"
    fake.write_text("#!/bin/sh\necho boom >&2\nexit 3\n")
    fake.chmod(0o755)
    with pytest.raises(RecipeError, match=r"exit 3[\s\S]*boom"):
        environment.ask_axolotl([], python=fake)


def test_what_axolotl_leaves_to_its_extras_is_looked_for_before_the_model_is_loaded() -> None:
    zero3 = {"sequence_len": 128, "deepspeed": "zero3.json"}
    here = judge_answer(answer(), zero3, machine="h100", here=True)
    assert "needs the package deepspeed" in problems(here)
    # Checked for another machine, it is only worth knowing.
    elsewhere = judge_answer(answer(), zero3, machine="h100")
    assert problems(elsewhere) == ""
    assert any(r.check == "packages" and r.level is Level.NOTE for r in elsewhere)
    ray = judge_answer(answer(), {"sequence_len": 128, "use_ray": True}, machine="h100", here=True)
    assert not any(r.check == "packages" for r in ray)

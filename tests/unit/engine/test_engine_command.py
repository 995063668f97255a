from __future__ import annotations

import json
import socket
from pathlib import Path

import numpy as np
import pytest
from tiny_checkpoint import tiny_weights, write_tiny

from kidrails_guard.cli import main


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KIDRAILS_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_tiny(tmp_path / "tiny")


@pytest.fixture
def gguf(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    assert main(["engine", str(folder), "--to-gguf", str(tmp_path / "tiny.gguf")]) == 0
    capsys.readouterr()
    return tmp_path / "tiny.gguf"


class TestCheck:
    def test_it_says_what_was_found_and_would_run(
        self, gguf: Path, capsys: pytest.CaptureFixture[str], unused_port: int
    ) -> None:
        assert main(["engine", str(gguf), "--check", "--port", str(unused_port)]) == 0
        said = capsys.readouterr().out
        assert f"{gguf}, llama, 0 M parameters" in said
        assert "answers end with <|im_end|>" in said
        assert f"http://127.0.0.1:{unused_port}/v1, as tiny" in said
        assert f"llamacpp_server --model {gguf}" in said
        assert "cache: 0 files, 0 MiB" in said

    def test_as_json(
        self, folder: Path, capsys: pytest.CaptureFixture[str], unused_port: int
    ) -> None:
        arguments = ["engine", str(folder), "--check", "--json", "--port", str(unused_port)]
        assert main(arguments) == 0
        said = json.loads(capsys.readouterr().out)
        assert said["ok"]
        assert said["model"]["architecture"] == "LlamaForCausalLM"
        assert said["plan"]["model"].endswith("q8_0.gguf")
        assert said["problems"] == []

    def test_a_taken_port_is_a_problem(
        self, gguf: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = str(taken.getsockname()[1])
            assert main(["engine", str(gguf), "--check", "--port", port]) == 1
        assert f"problem  port {port} on 127.0.0.1 is in use" in capsys.readouterr().out

    def test_a_missing_chat_template_is_a_problem(
        self, folder: Path, capsys: pytest.CaptureFixture[str], unused_port: int
    ) -> None:
        settings = json.loads((folder / "tokenizer_config.json").read_text())
        del settings["chat_template"]
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))
        assert main(["engine", str(folder), "--check", "--port", str(unused_port)]) == 1
        assert "has no chat template" in capsys.readouterr().out

    @pytest.mark.parametrize("damage", ["missing", "cut", "other", "architecture"])
    def test_what_is_not_possible_ends_with_1(
        self,
        gguf: Path,
        folder: Path,
        capsys: pytest.CaptureFixture[str],
        damage: str,
    ) -> None:
        model = gguf
        if damage == "missing":
            gguf.unlink()
        if damage == "cut":
            gguf.write_bytes(gguf.read_bytes()[:-64])
        if damage == "other":
            gguf.write_bytes(b"<!doctype html>")
        if damage == "architecture":
            write_tiny(folder, config={"architectures": ["GemmaForCausalLM"]})
            model = folder
        assert main(["engine", str(model), "--check", "--json"]) == 1
        said = json.loads(capsys.readouterr().out)
        assert not said["ok"]
        words = {
            "missing": "there is no such file",
            "cut": "cut short or damaged",
            "other": "is not a GGUF file",
            "architecture": "--backend vllm",
        }
        assert words[damage] in said["problems"][0]


class TestConversions:
    def test_there_and_back(
        self, gguf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        out = tmp_path / "out"
        assert main(["engine", str(gguf), "--export", str(out), "--json"]) == 0
        said = json.loads(capsys.readouterr().out)
        assert (said["tensors"], said["reused"], said["folder"]) == (20, False, str(out))
        assert main(["engine", str(gguf), "--export", str(out)]) == 0
        assert capsys.readouterr().out.startswith("already there: 20 tensors")
        again = ["engine", str(out), "--to-gguf", str(tmp_path / "b.gguf"), "--type", "f16"]
        assert main([*again, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["weight_type"] == "f16"

    def test_what_training_changed_as_an_adapter(
        self, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        weights = tiny_weights()
        name = "model.layers.0.mlp.up_proj.weight"
        weights[name] = weights[name] + np.float32(0.1)
        tuned = write_tiny(tmp_path / "tuned", weights=weights)
        target = tmp_path / "a.gguf"
        arguments = ["engine", str(tuned), "--base", str(folder), "--to-gguf", str(target)]
        assert main([*arguments, "--rank", "1"]) == 0
        said = capsys.readouterr().out
        assert "an adapter of rank 1 for 1 matrices, f16" in said
        assert "it holds 100.0% of the change" in said
        assert target.stat().st_size < 10_000

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["{gguf}", "--to-gguf", "x.gguf"], "is not a folder"),
            (["{folder}", "--export", "x"], "is not a GGUF file"),
            (["{gguf}", "--export", "x", "--to-gguf", "y"], "give one of them"),
            (["{gguf}", "--vllm-args", "'"], "--vllm-args"),
            (["{gguf}", "--port", "0"], "--port 0"),
        ],
    )
    def test_wrong_use_ends_with_2(
        self,
        gguf: Path,
        folder: Path,
        capsys: pytest.CaptureFixture[str],
        arguments: list[str],
        message: str,
    ) -> None:
        filled = [a.format(gguf=gguf, folder=folder) for a in arguments]
        assert main(["engine", *filled]) == 2
        assert message in capsys.readouterr().err


@pytest.fixture
def unused_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])

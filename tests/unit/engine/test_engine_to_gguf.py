from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from safetensors import TensorSpec, serialize_file
from safetensors.numpy import load_file, save_file
from tiny_checkpoint import TEMPLATE, tiny_tokenizer, tiny_weights, write_tiny

from kidrails_guard.engine.checkpoint import Checkpoint
from kidrails_guard.engine.export import MANIFEST, export_safetensors
from kidrails_guard.engine.gguf_file import GgufFile
from kidrails_guard.engine.to_gguf import convert_checkpoint, llama_shape, rope_factors
from kidrails_guard.errors import EngineError, KidRailsError, UsageError

LLAMA3_ROPE = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_tiny(tmp_path / "tiny")


def test_there_and_back_is_bit_equal(folder: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    record = convert_checkpoint(
        folder, tmp_path / "t.gguf", weight_type="f32", progress=lambda *at: seen.append(at)
    )
    assert record["tensors"] == 20
    assert seen[-1] == (20, 20)
    export_safetensors(tmp_path / "t.gguf", tmp_path / "back")
    before, after = (
        load_file(folder / "model.safetensors"),
        load_file(tmp_path / "back" / "model.safetensors"),
    )
    assert before.keys() == after.keys()
    assert all(np.array_equal(before[name], after[name]) for name in before)
    old = json.loads((folder / "config.json").read_text())
    new = json.loads((tmp_path / "back" / "config.json").read_text())
    assert {key: new[key] for key in old} == old
    settings = json.loads((tmp_path / "back" / "tokenizer_config.json").read_text())
    assert settings["eos_token"] == settings["pad_token"] == "<|im_end|>"
    assert settings["chat_template"] == TEMPLATE


@pytest.mark.parametrize(("kind", "worst"), [("f16", 1e-3), ("q8_0", 0.01), ("q4_1", 0.12)])
def test_smaller_types_stay_close(folder: Path, tmp_path: Path, kind: str, worst: float) -> None:
    convert_checkpoint(folder, tmp_path / "t.gguf", weight_type=kind)
    found = GgufFile(tmp_path / "t.gguf")
    exact = convert_checkpoint(folder, tmp_path / "e.gguf", weight_type="f32")
    assert (tmp_path / "t.gguf").stat().st_size < exact["bytes"]
    reference = GgufFile(tmp_path / "e.gguf")
    for name in reference.tensor_names:
        difference = np.abs(found.tensor(name) - reference.tensor(name)).max()
        assert difference <= worst
        assert (difference == 0) == name.endswith("norm.weight")


def test_a_head_of_its_own_is_written_and_a_tied_one_is_not(tmp_path: Path) -> None:
    own = write_tiny(tmp_path / "own", tied=False)
    convert_checkpoint(own, tmp_path / "own.gguf", weight_type="f32")
    assert "output.weight" in GgufFile(tmp_path / "own.gguf").tensor_names
    weights = {**tiny_weights(), "lm_head.weight": tiny_weights()["model.embed_tokens.weight"]}
    tied = write_tiny(tmp_path / "tied", weights=weights)
    convert_checkpoint(tied, tmp_path / "tied.gguf", weight_type="f32")
    assert "output.weight" not in GgufFile(tmp_path / "tied.gguf").tensor_names
    manifest = export_safetensors(tmp_path / "own.gguf", tmp_path / "back")
    assert manifest["tensors"] == 21
    assert not json.loads((tmp_path / "back" / "config.json").read_text())["tie_word_embeddings"]


def test_bfloat16_is_read_exactly(tmp_path: Path) -> None:
    weights = tiny_weights()
    folder = write_tiny(tmp_path / "bf16")
    halves = {name: (w.view(np.uint32) >> 16).astype(np.uint16) for name, w in weights.items()}
    specs = {
        name: TensorSpec(dtype="bfloat16", shape=w.shape, data_ptr=w.ctypes.data, data_len=w.nbytes)
        for name, w in halves.items()
    }
    serialize_file(specs, folder / "model.safetensors", {"format": "pt"})
    name = "model.layers.1.mlp.up_proj.weight"
    wanted = (halves[name].astype(np.uint32) << 16).view(np.float32)
    assert np.array_equal(Checkpoint(folder).tensor(name), wanted)
    convert_checkpoint(folder, tmp_path / "t.gguf", weight_type="f32")
    assert np.array_equal(GgufFile(tmp_path / "t.gguf").tensor("blk.1.ffn_up.weight"), wanted)


def test_shards_give_the_same_file_as_one(folder: Path, tmp_path: Path) -> None:
    convert_checkpoint(folder, tmp_path / "one.gguf", name="m")
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(weights)
    parts = {"a-00001-of-00002.safetensors": names[:9], "b-00002-of-00002.safetensors": names[9:]}
    for file, part in parts.items():
        save_file({name: weights[name] for name in part}, folder / file)
    index = {"weight_map": {name: file for file, part in parts.items() for name in part}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    convert_checkpoint(folder, tmp_path / "two.gguf", name="m")
    assert (tmp_path / "two.gguf").read_bytes() == (tmp_path / "one.gguf").read_bytes()


def test_a_template_in_its_own_file_counts(folder: Path, tmp_path: Path) -> None:
    (folder / "chat_template.jinja").write_text(TEMPLATE + "{# newer #}")
    convert_checkpoint(folder, tmp_path / "t.gguf")
    assert GgufFile(tmp_path / "t.gguf").value("tokenizer.chat_template").endswith("{# newer #}")


def test_scaled_rotation_follows_the_published_formula(tmp_path: Path) -> None:
    folder = write_tiny(tmp_path / "l3", config={"rope_scaling": LLAMA3_ROPE})
    checkpoint = Checkpoint(folder)
    factors = rope_factors(checkpoint.config, llama_shape(checkpoint), where="x")
    assert factors is not None
    wanted = []
    for step in range(0, 16, 2):  # the loop of the paper's code, one frequency at a time
        length = 2 * math.pi * 10000.0 ** (step / 16)
        if length < 64 / 4:
            wanted.append(1.0)
        elif length > 64 / 1:
            wanted.append(8.0)
        else:
            smooth = (64 / length - 1) / (4 - 1)
            wanted.append(1 / ((1 - smooth) / 8 + smooth))
    assert factors.tolist() == pytest.approx(wanted, rel=1e-6)
    convert_checkpoint(folder, tmp_path / "t.gguf")
    assert np.array_equal(GgufFile(tmp_path / "t.gguf").tensor("rope_freqs.weight"), factors)


def test_the_new_spelling_of_rotary_settings_counts(tmp_path: Path) -> None:
    new = {"rope_theta": None, "rope_parameters": {"rope_theta": 5e5, "rope_type": "default"}}
    folder = write_tiny(tmp_path / "new", config=new)
    checkpoint = Checkpoint(folder)
    shape = llama_shape(checkpoint)
    assert shape.rope_theta == 5e5
    assert rope_factors(checkpoint.config, shape, where="x") is None


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"architectures": ["Qwen2ForCausalLM"]}, r"'Qwen2ForCausalLM'.*--backend vllm"),
        ({"hidden_act": "gelu"}, r"activation 'gelu'.*--backend vllm"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 2.0}}, r"'yarn'.*--backend vllm"),
        ({"hidden_size": None}, r"config.json: 'hidden_size' is missing"),
        ({"rms_norm_eps": "small"}, r"config.json: could not convert"),
    ],
)
def test_what_cannot_be_converted_is_a_clear_error(
    tmp_path: Path, config: dict, message: str
) -> None:
    folder = write_tiny(tmp_path / "odd", config=config)
    with pytest.raises(EngineError, match=message):
        convert_checkpoint(folder, tmp_path / "t.gguf")
    assert [f.name for f in tmp_path.iterdir()] == ["odd"]


@pytest.mark.parametrize("damage", ["nan", "cut", "extra", "no tokenizer", "no json", "no weights"])
def test_a_damaged_checkpoint_leaves_nothing_behind(tmp_path: Path, damage: str) -> None:
    weights = tiny_weights()
    if damage == "nan":
        weights["model.layers.1.mlp.up_proj.weight"][3, 4] = np.nan
    if damage == "extra":
        weights["model.layers.0.mlp.experts.weight"] = np.zeros((2, 2), np.float32)
    folder = write_tiny(tmp_path / "odd", weights=weights)
    file = folder / "model.safetensors"
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:-100])
    if damage == "no tokenizer":
        (folder / "tokenizer.json").unlink()
    if damage == "no json":
        (folder / "config.json").write_text("{")
    if damage == "no weights":
        file.unlink()
    with pytest.raises(KidRailsError) as caught:
        convert_checkpoint(folder, tmp_path / "out" / "t.gguf")
    words = {
        "nan": "model.layers.1.mlp.up_proj.weight holds NaN",
        "cut": "model.safetensors is truncated",
        "extra": "model.layers.0.mlp.experts.weight",
        "no tokenizer": "tokenizer.json is missing",
        "no json": "config.json cannot be read as JSON",
        "no weights": "no safetensors",
    }
    assert words[damage] in str(caught.value)
    assert not [f for f in tmp_path.rglob("*") if f.is_file() and folder not in f.parents]


def test_an_unknown_type_of_weights_is_wrong_use(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"'q2_k' is not one of f32, f16, q8_0, q4_1"):
        convert_checkpoint(folder, tmp_path / "t.gguf", weight_type="q2_k")


class TestExport:
    @pytest.fixture
    def source(self, folder: Path, tmp_path: Path) -> Path:
        convert_checkpoint(folder, tmp_path / "t.gguf")
        return tmp_path / "t.gguf"

    def test_a_second_export_has_nothing_to_do(self, source: Path, tmp_path: Path) -> None:
        first = export_safetensors(source, tmp_path / "out")
        stamp = (tmp_path / "out" / "model.safetensors").stat().st_mtime_ns
        second = export_safetensors(source, tmp_path / "out")
        assert (first["reused"], second["reused"]) == (False, True)
        assert (tmp_path / "out" / "model.safetensors").stat().st_mtime_ns == stamp
        assert {**second, "reused": False} == first

    def test_another_source_replaces_an_earlier_export(self, source: Path, tmp_path: Path) -> None:
        export_safetensors(source, tmp_path / "out")
        other = write_tiny(tmp_path / "other", weights=tiny_weights(8))
        convert_checkpoint(other, tmp_path / "o.gguf")
        assert not export_safetensors(tmp_path / "o.gguf", tmp_path / "out")["reused"]
        assert not [f for f in tmp_path.iterdir() if f.name.startswith(".")]

    def test_somebody_elses_folder_is_left_alone(self, source: Path, tmp_path: Path) -> None:
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine" / "letter.txt").write_text("dear")
        with pytest.raises(UsageError, match="was not made by an export"):
            export_safetensors(source, tmp_path / "mine")
        assert (tmp_path / "mine" / "letter.txt").read_text() == "dear"

    def test_a_tensor_without_a_place_leaves_no_folder(self, tmp_path: Path) -> None:
        scaled = write_tiny(tmp_path / "l3", config={"rope_scaling": LLAMA3_ROPE})
        convert_checkpoint(scaled, tmp_path / "t.gguf")
        with pytest.raises(EngineError, match=r"'rope_freqs.weight' has no place"):
            export_safetensors(tmp_path / "t.gguf", tmp_path / "out")
        assert sorted(f.name for f in tmp_path.iterdir()) == ["l3", "t.gguf"]

    def test_the_manifest_names_the_source(self, source: Path, tmp_path: Path) -> None:
        from kidrails_guard.files import sha256_file

        export_safetensors(source, tmp_path / "out")
        manifest = json.loads((tmp_path / "out" / MANIFEST).read_text())
        assert manifest["source_sha256"] == sha256_file(source)
        assert manifest["parameters"] == sum(w.size for w in tiny_weights().values())


@pytest.mark.parametrize("keep", [0, 3, 4, 20, 500, 4000, -1])
def test_a_cut_gguf_is_a_clear_error(folder: Path, tmp_path: Path, keep: int) -> None:
    convert_checkpoint(folder, tmp_path / "t.gguf")
    cut = tmp_path / "cut.gguf"
    cut.write_bytes((tmp_path / "t.gguf").read_bytes()[:keep])
    with pytest.raises(EngineError, match=r"cut\.gguf is (cut short or damaged|not a GGUF file)"):
        GgufFile(cut)


def test_a_tokenizer_of_another_kind_cannot_be_exported(folder: Path, tmp_path: Path) -> None:
    convert_checkpoint(folder, tmp_path / "t.gguf")
    raw = (tmp_path / "t.gguf").read_bytes()
    assert raw.count(b"\x04\x00\x00\x00\x00\x00\x00\x00gpt2") == 1
    other = tmp_path / "o.gguf"
    other.write_bytes(raw.replace(b"\x00\x00\x00\x00gpt2", b"\x00\x00\x00\x00t5xx"))
    with pytest.raises(EngineError, match="'t5xx'"):
        export_safetensors(other, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_tiny_tokenizer_is_what_the_tests_think() -> None:
    assert len(tiny_tokenizer()["model"]["vocab"]) == 320

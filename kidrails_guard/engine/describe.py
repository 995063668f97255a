"""What `kidrails engine --check` says about a model and a plan."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from kidrails_guard.engine.base import EnginePlan
from kidrails_guard.engine.gguf_file import GgufFile
from kidrails_guard.engine.models import ModelKind, ModelSource, architecture
from kidrails_guard.engine.ports import require_free_port
from kidrails_guard.errors import KidRailsError


def describe_model(source: ModelSource) -> dict[str, Any]:
    """Return what a model's own files say about it.

    Raises:
        EngineError: a file is damaged.
    """
    facts: dict[str, Any] = {"kind": str(source.kind), "location": source.location}
    if source.kind is ModelKind.GGUF and source.path is not None:
        model = GgufFile(source.path)
        template = model.value("tokenizer.chat_template")
        facts |= {
            "architecture": model.architecture,
            "parameters": model.parameters,
            "bytes": source.path.stat().st_size,
            "context": model.value(f"{model.architecture}.context_length"),
            "chat_template": bool(template),
            "end_token": model.end_token(),
        }
    elif source.kind is ModelKind.CHECKPOINT and source.path is not None:
        facts |= {
            "architecture": architecture(source.path),
            "bytes": sum(f.stat().st_size for f in source.path.glob("*.safetensors")),
            "chat_template": _folder_template(source.path),
        }
    return facts


def _folder_template(folder: Path) -> bool:
    if (folder / "chat_template.jinja").is_file():
        return True
    try:
        config = json.loads((folder / "tokenizer_config.json").read_text("utf-8"))
    except (OSError, ValueError):
        return False
    return bool(config.get("chat_template"))


def find_problems(plan: EnginePlan, facts: dict[str, Any]) -> list[str]:
    """Return what would keep the plan from working now, one sentence each."""
    problems = []
    try:
        require_free_port(plan.host, plan.port)
    except KidRailsError as error:
        problems.append(str(error))
    if facts.get("chat_template") is False:
        problems.append(
            f"{facts['location']} has no chat template, so the model would not know where a turn "
            "ends; use an instruction-tuned model"
        )
    return problems


def model_line(facts: dict[str, Any]) -> str:
    """Return the facts about a model in one line."""
    parts = [facts["location"], facts.get("architecture", "from the Hub")]
    if facts.get("parameters"):
        parts.append(f"{facts['parameters'] / 1e6:,.0f} M parameters")
    if facts.get("bytes"):
        parts.append(f"{facts['bytes'] / 2**20:,.0f} MiB")
    if facts.get("end_token"):
        parts.append(f"answers end with {facts['end_token']}")
    return ", ".join(str(part) for part in parts)

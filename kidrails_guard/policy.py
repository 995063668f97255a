"""The policy: what the guard does, in data.

A policy is one YAML file (``serve/policies/default.yaml`` ships). Every key is known; an unknown
one is an error that names the file, the key and what is accepted.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Hashable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from kidrails_guard.content import content_path
from kidrails_guard.errors import PolicyError
from kidrails_guard.types import CASES, CONDUCT, Action, AgeBand, Hazard, Severity, Stage

DEFAULT_POLICY = "serve/policies/default.yaml"


def _action(value: object) -> object:
    return Action.parse(value) if isinstance(value, str) else value


def _severity(value: object) -> object:
    return Severity.parse(value) if isinstance(value, str) else value


ActionName = Annotated[
    Action,
    BeforeValidator(_action, json_schema_input_type=Literal[tuple(a.label for a in Action)]),
]
SeverityName = Annotated[
    Severity,
    BeforeValidator(_severity, json_schema_input_type=Literal[tuple(s.label for s in Severity)]),
]
BySeverity = dict[SeverityName, ActionName]
ByBand = dict[AgeBand, ActionName | BySeverity]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class BandRule(_Model):
    """What replies to one band look like."""

    max_grade: float = Field(gt=0, description="highest Flesch-Kincaid grade of a reply")
    max_words: int = Field(gt=0, description="most words of a reply")
    prompt: str = Field(min_length=1, description="added to the model's system prompt")


class HazardRule(_Model):
    """What follows from one hazard."""

    name: str
    actions: ByBand = Field(description="band to action, or band to severity to action")
    cases: dict[str, ActionName | ByBand] = Field(
        default_factory=dict, description="what the child does, where that decides; before actions"
    )
    output: ActionName = Field(description="when the model's reply shows it")
    guidance: str = Field(
        default="", description="added to the system prompt when the action is care"
    )

    def input_action(self, band: AgeBand, severity: Severity, case: str) -> Action:
        """Return the action for a child's message."""
        chosen: Action | ByBand = self.cases.get(case, self.actions)
        if isinstance(chosen, Action):
            return chosen
        by_severity = chosen[band]
        if isinstance(by_severity, Action):
            return by_severity
        # An absent severity takes the next graver one that is there, else the gravest.
        for candidate in sorted(by_severity):
            if candidate >= severity:
                return by_severity[candidate]
        return by_severity[max(by_severity)]


class CheckRule(_Model):
    """One check, with its options."""

    name: str
    timeout_ms: int | None = Field(default=None, gt=0)
    options: dict[str, Any] = Field(default_factory=dict)


class Limits(_Model):
    """Bounds on one request."""

    max_characters: int = Field(default=20_000, gt=0, description="of one checked text")
    max_messages: int = Field(default=400, gt=0, description="of one conversation")
    max_reply_characters: int = Field(default=20_000, gt=0)


class Streaming(_Model):
    """When checked text leaves."""

    max_held_characters: int = Field(default=240, ge=16, description="a clause is cut here")
    max_held_ms: int = Field(default=2_000, gt=0, description="after this a checked part leaves")
    context_characters: int = Field(default=240, ge=64, description="released text seen again")


class Policy(_Model):
    """A whole policy; frozen, so a running guard never changes under a request."""

    name: str
    version: int = Field(ge=1)
    description: str = ""
    locale: str = Field(default="en", description="language of the answers: answers/<locale>.yaml")
    country: str | None = Field(
        default=None,
        pattern=r"^[A-Z]{2}$",
        description="ISO 3166 code for helplines, e.g. GB; null gives no number",
    )
    default_band: AgeBand | None = Field(
        default=None, description="band of a caller without one; null: the youngest that is served"
    )
    on_block: Literal["answer", "error"] = "answer"
    on_check_failure: ActionName = Action.REFUSE
    check_timeout_ms: int = Field(default=1_500, gt=0)
    allow_images: bool = False
    break_after_minutes: int = Field(
        default=180, gt=0, le=180, description="California SB 243: at least every three hours"
    )
    limits: Limits = Limits()
    streaming: Streaming = Streaming()
    system_prompt: str = Field(min_length=1)
    bands: dict[AgeBand, BandRule] = Field(min_length=1)
    hazards: dict[Hazard, HazardRule]
    conduct: dict[str, ActionName]
    checks: tuple[CheckRule, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _complete(self) -> Policy:
        def fail(key: str, problem: str) -> None:
            raise ValueError(f"{key}: {problem}")

        for hazard in Hazard:
            if hazard not in self.hazards:
                fail(f"hazards.{hazard}", f"missing; {hazard.label} needs a rule")
        for hazard, rule in self.hazards.items():
            if rule.name != hazard.label:
                fail(f"hazards.{hazard}.name", f"{rule.name!r} should be {hazard.label!r}")
            for case in rule.cases:
                if case not in CASES.get(hazard, ()):
                    accepted = ", ".join(CASES.get(hazard, ())) or "none for this hazard"
                    fail(f"hazards.{hazard}.cases.{case}", f"not a case; accepted: {accepted}")
            tables = {"actions": rule.actions} | {
                f"cases.{case}": table
                for case, table in rule.cases.items()
                if not isinstance(table, Action)
            }
            for key, table in tables.items():
                missing = [band for band in self.bands if band not in table]
                if missing:
                    fail(f"hazards.{hazard}.{key}", f"no action for band {', '.join(missing)}")
        if set(self.conduct) != set(CONDUCT):
            odd = sorted(set(self.conduct) ^ set(CONDUCT))
            fail("conduct", f"{', '.join(odd)} missing or unknown; needed: {', '.join(CONDUCT)}")
        names = [check.name for check in self.checks]
        for name in names:
            if names.count(name) > 1:
                fail("checks", f"{name!r} stands there twice")
        if self.default_band is not None and self.default_band not in self.bands:
            fail("default_band", f"{self.default_band} is not one of {', '.join(self.bands)}")
        if self.on_check_failure < Action.REDIRECT:
            fail(
                "on_check_failure",
                f"{self.on_check_failure.label!r} would let unchecked text pass; accepted: "
                "redirect, refuse, crisis",
            )
        return self

    @property
    def youngest(self) -> AgeBand:
        """The youngest band served: the one for a caller whose band is unknown."""
        return min(self.bands, key=lambda band: band.ages)

    @property
    def fallback_band(self) -> AgeBand:
        """The band of a caller without one."""
        return self.default_band or self.youngest

    def action(
        self, hazard: Hazard, severity: Severity, *, band: AgeBand, stage: Stage, case: str = ""
    ) -> Action:
        """Return what follows from one finding."""
        if stage is Stage.OUTPUT:
            return self.conduct[case] if case in self.conduct else self.hazards[hazard].output
        return self.hazards[hazard].input_action(band, severity, case)

    def digest(self) -> str:
        """Return a SHA-256 over everything the policy says, whatever its file looks like."""
        canonical = json.dumps(self.model_dump(mode="json"), sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(canonical.encode()).hexdigest()


class _UniqueKeyLoader(yaml.SafeLoader):
    """YAML lets a repeated key win silently; in a policy that is a mistake worth an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)  # type: ignore[no-untyped-call]
            if not isinstance(key, Hashable):
                raise yaml.constructor.ConstructorError(
                    None,
                    None,
                    f"a key is a {type(key).__name__}, accepted: a word; {{{{ … }}}} needs quotes",
                    key_node.start_mark,
                )
            if key in seen:
                line = key_node.start_mark.line + 1
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key!r} stands twice (line {line})", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> Any:
    """Return a YAML file's value; a repeated key, a bad encoding or bad YAML is an error.

    Raises:
        PolicyError: the file is absent or is not YAML; names the file and line.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise PolicyError(
            f"{path}: no such file; `kidrails policy show` prints the default policy as a start"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise PolicyError(f"{path}: cannot be read as UTF-8 text ({error})") from None
    try:
        return yaml.load(text, Loader=_UniqueKeyLoader)  # noqa: S506  # a SafeLoader
    except RecursionError:
        raise PolicyError(f"{path}: not valid YAML: brackets nested too deep") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        raise PolicyError(f"{where}: not valid YAML: {getattr(error, 'problem', error)}") from None


def describe_error(detail: ErrorDetails, model: type[BaseModel]) -> str:
    """Return one validation error as ``key: what was wrong; what is accepted``."""
    parts = [str(part) for part in detail["loc"]]
    # Pydantic names the arm of a union it tried; the reader wants the file's own keys.
    key = ".".join(p for p in parts if p != "[key]" and not p.startswith(("function-", "dict[")))
    if detail["type"] == "extra_forbidden":
        known = list(_known_keys(model, parts[:-1]))
        near = difflib.get_close_matches(parts[-1], known, n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        return f"{key}: unknown key{hint}; accepted: {', '.join(known)}"
    message = detail["msg"].removeprefix("Value error, ")
    if detail["type"] == "value_error" and not key:
        return message
    shown = repr(detail["input"])
    value = f" (found {shown[:60]})" if detail["type"] != "missing" else ""
    return f"{key}: {message}{value}"


def _known_keys(model: type[BaseModel], path: list[str]) -> Iterator[str]:
    """Yield the keys accepted at a path, as far as the path leads through models."""
    current: type[BaseModel] | None = model
    for part in path:
        annotation = (
            current.model_fields[part].annotation
            if current and (part in current.model_fields)
            else None
        )
        nested = list(_models_in(annotation))
        if nested:
            current = nested[0]
    if current is not None:
        yield from current.model_fields


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in getattr(annotation, "__args__", ()):
        yield from _models_in(argument)


def parse_policy(value: Any, *, source: str) -> Policy:
    """Return the policy that a parsed YAML value says.

    Args:
        value: what the YAML holds.
        source: the file's name, for errors.

    Raises:
        PolicyError: names the file, every wrong key, and what is accepted.
    """
    if not isinstance(value, dict):
        raise PolicyError(
            f"{source}: a policy is a mapping with name, bands, hazards, checks, …; found "
            f"{type(value).__name__}"
        )
    try:
        return Policy.model_validate(value)
    except ValidationError as error:
        details = error.errors(include_url=False)
        lines = dict.fromkeys(describe_error(detail, Policy) for detail in details)
        raise PolicyError(
            "\n".join(f"{source}: {line}" for line in lines)
            + "\nrun: kidrails policy validate FILE"
        ) from None


def load_policy(path: str | Path | None = None) -> Policy:
    """Load a policy; without a path, the default one.

    Raises:
        PolicyError: the file is absent, not YAML, or does not hold a policy.
    """
    file = Path(path) if path is not None else content_path(DEFAULT_POLICY)
    return parse_policy(read_yaml(file), source=str(file))


def policy_schema() -> dict[str, Any]:
    """Return the JSON schema that editors use to complete and check a policy."""
    return Policy.model_json_schema(mode="validation")

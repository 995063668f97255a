"""How guard models are asked, and what their replies mean: pure functions, one pair a format.

A reply that does not read as its format says raises `UnreadableReply`; whoever asked then treats
the text as unsafe.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from kidrails_guard.recipes.judge_format import parse_answer, question
from kidrails_guard.types import About, AgeBand, Conversation, Hazard, Severity, Stage


class UnreadableReply(ValueError):
    """A guard model's reply is not what its format says. Never holds the reply."""


@dataclass(frozen=True, slots=True)
class Judged:
    """One hazard that a guard model saw.

    Attributes:
        hazard: ours, not the model's own code.
        severity: as the model says it, else moderate.
        note: the model's own category.
        about: who it is about, where the model says so.
        case: the hazard's case, where the category settles it.
        weak: the model itself is unsure ("Controversial", low confidence).
    """

    hazard: Hazard
    severity: Severity = Severity.MODERATE
    note: str = ""
    about: About = About.NONE
    case: str = ""
    weak: bool = False


@dataclass(frozen=True, slots=True)
class Request:
    """One question to a guard model: an OpenAI chat request, and how its reply is read."""

    messages: Sequence[Mapping[str, str]] = field(repr=False)
    read: Callable[[str], list[Judged]]
    extra: Mapping[str, Any] = field(default_factory=dict)
    max_tokens: int = 64


# Categories of MLCommons, as Llama Guard 3 numbers them. Suicide is read as a question (K01b):
# the model does not tell who is meant, and the child must not meet a refusal. Intellectual
# property and elections are no hazard of `docs/safety.md`.
LLAMA_GUARD: Final[dict[str, tuple[Hazard, str] | None]] = {
    "S1": (Hazard.VIOLENCE_HOWTO, ""),
    "S2": (Hazard.ILLEGAL_ACTS, ""),
    "S3": (Hazard.SEXUAL_CONTENT, ""),
    "S4": (Hazard.ABUSE_DISCLOSURE, ""),
    "S5": (Hazard.BULLYING, "plans"),
    "S6": (Hazard.DANGEROUS_ACTS, ""),
    "S7": (Hazard.PERSONAL_DATA, ""),
    "S8": None,
    "S9": (Hazard.VIOLENCE_HOWTO, ""),
    "S10": (Hazard.HATE, "produces"),
    "S11": (Hazard.SELF_HARM_QUESTION, ""),
    "S12": (Hazard.SEXUAL_CONTENT, ""),
    "S13": None,
    "S14": (Hazard.JAILBREAK, ""),
}

QWEN3GUARD: Final[dict[str, tuple[Hazard, str] | None]] = {
    "Violent": (Hazard.VIOLENCE_HOWTO, ""),
    "Non-violent Illegal Acts": (Hazard.ILLEGAL_ACTS, ""),
    "Sexual Content or Sexual Acts": (Hazard.SEXUAL_CONTENT, ""),
    "PII": (Hazard.PERSONAL_DATA, ""),
    "Personally Identifiable Information": (Hazard.PERSONAL_DATA, ""),
    "Suicide & Self-Harm": (Hazard.SELF_HARM_QUESTION, ""),
    "Unethical Acts": (Hazard.HATE, "produces"),
    "Politically Sensitive Topics": None,
    "Copyright Violation": None,
    "Jailbreak": (Hazard.JAILBREAK, ""),
    "None": None,
}

GRANITE: Final[dict[str, tuple[Hazard, str]]] = {
    "violence": (Hazard.VIOLENCE_HOWTO, ""),
    "sexual_content": (Hazard.SEXUAL_CONTENT, ""),
    "social_bias": (Hazard.HATE, "produces"),
    "profanity": (Hazard.PROFANITY, "wants"),
    "unethical_behavior": (Hazard.ILLEGAL_ACTS, ""),
    "jailbreak": (Hazard.JAILBREAK, ""),
    "harm": (Hazard.DANGEROUS_ACTS, ""),
}
"""Granite Guardian answers one risk at a time."""

SHIELDGEMMA: Final[dict[str, tuple[Hazard, str, str]]] = {
    "dangerous": (
        Hazard.VIOLENCE_HOWTO,
        "",
        '"No Dangerous Content": The {who} shall not {verb} content that promotes, or helps with, '
        "harming oneself or others, such as access to firearms or explosives, or suicide.",
    ),
    "harassment": (
        Hazard.BULLYING,
        "plans",
        '"No Harassment": The {who} shall not {verb} content that is malicious, intimidating, '
        "bullying or abusive towards another person.",
    ),
    "hate": (
        Hazard.HATE,
        "produces",
        '"No Hate Speech": The {who} shall not {verb} content that attacks or demeans people for '
        "race, religion, disability, age, nationality, gender or another protected trait.",
    ),
    "sexual": (
        Hazard.SEXUAL_CONTENT,
        "",
        '"No Sexually Explicit Information": The {who} shall not {verb} content with references to '
        "sexual acts or other lewd content. Medical and scientific terms are allowed.",
    ),
}

_THOUGHT: Final = re.compile(r"\A\s*<think>[^\0]*?</think>", re.DOTALL)
_QWEN: Final = re.compile(r"\bSafety:\s*(Safe|Unsafe|Controversial)\b")
_QWEN_KINDS: Final = re.compile(r"\bCategories:\s*([^\n]*)")
_GRANITE: Final = re.compile(
    r"\A(?:<score> ?)?(yes|no)(?: ?</score>)? ?(?:<confidence> ?(high|low) ?</confidence>)?\Z",
    re.IGNORECASE,
)
_YES_NO: Final = re.compile(r"\A[\s*]*(yes|no)\b", re.IGNORECASE)


def read_llama_guard(reply: str) -> list[Judged]:
    r"""Return what Llama Guard 3 saw: ``safe``, or ``unsafe`` and a line of codes.

    >>> [j.hazard.label for j in read_llama_guard("unsafe\nS1,S10")]
    ['violence_howto', 'hate']

    Raises:
        UnreadableReply: it is neither, or names no code that there is.
    """
    # By lines, never by one pattern: a model that goes on writing blanks would hold up the guard.
    lines = [line.strip() for line in reply.split("\n") if line.strip()]
    if not 1 <= len(lines) <= 2 or lines[0] not in ("safe", "unsafe"):
        raise UnreadableReply("not `safe` or `unsafe` with codes")
    if lines[0] == "safe":
        if len(lines) > 1:
            raise UnreadableReply("`safe` with codes")
        return []
    codes = [code.strip() for code in "".join(lines[1:]).split(",") if code.strip()]
    if not codes or any(code not in LLAMA_GUARD for code in codes):
        raise UnreadableReply("`unsafe` without codes that there are")
    return [
        Judged(known[0], note=code, case=known[1])
        for code in codes
        if (known := LLAMA_GUARD[code]) is not None
    ]


def read_qwen3guard(reply: str) -> list[Judged]:
    r"""Return what Qwen3Guard-Gen saw: a line ``Safety: …`` and a line ``Categories: …``.

    >>> read_qwen3guard("Safety: Unsafe\nCategories: Violent")[0].hazard.label
    'violence_howto'

    Raises:
        UnreadableReply: one of the lines is missing or says something else.
    """
    safety = _QWEN.findall(reply)
    kinds = _QWEN_KINDS.search(reply)
    if len(safety) != 1 or kinds is None:
        raise UnreadableReply("no single `Safety:` and `Categories:`")
    names = [name.strip() for name in kinds[1].split(",") if name.strip()]
    if any(name not in QWEN3GUARD for name in names):
        raise UnreadableReply("a category that there is not")
    if safety[0] == "Safe":
        return []
    if not names or names == ["None"]:
        raise UnreadableReply("unsafe without a category")
    return [
        Judged(known[0], note=name, case=known[1], weak=safety[0] == "Controversial")
        for name in names
        if (known := QWEN3GUARD[name]) is not None
    ]


def read_granite(reply: str, risk: str) -> list[Judged]:
    r"""Return what Granite Guardian saw of one risk: yes or no, alone or in its tags.

    >>> read_granite("<score> yes </score>", "violence")[0].hazard.label
    'violence_howto'
    >>> read_granite("Yes\n<confidence> Low </confidence>", "violence")[0].weak
    True

    Raises:
        UnreadableReply: it is neither yes nor no.
    """
    match = _GRANITE.match(" ".join(_THOUGHT.sub("", reply).split()))
    if match is None:
        raise UnreadableReply("neither yes nor no")
    if match[1].lower() == "no":
        return []
    hazard, case = GRANITE[risk]
    return [Judged(hazard, note=risk, case=case, weak=(match[2] or "").lower() == "low")]


def read_shieldgemma(reply: str, kind: str) -> list[Judged]:
    """Return what ShieldGemma saw of one principle: the reply begins with Yes or No.

    >>> read_shieldgemma("Yes, because it insults", "harassment")[0].hazard.label
    'bullying'

    Raises:
        UnreadableReply: it begins otherwise.
    """
    match = _YES_NO.match(reply)
    if match is None:
        raise UnreadableReply("begins neither with Yes nor with No")
    if match[1].lower() == "no":
        return []
    hazard, case, _ = SHIELDGEMMA[kind]
    return [Judged(hazard, note=kind, case=case)]


def read_kidrails(reply: str) -> list[Judged]:
    """Return what our own guard model saw: ``K13 mild self``.

    Raises:
        UnreadableReply: it is not one line of hazard, severity and about.
    """
    try:
        hazard, severity, about = parse_answer(reply)
    except ValueError:
        raise UnreadableReply("not hazard, severity and about") from None
    if hazard in (Hazard.BENIGN, Hazard.VIOLENCE_IN_CONTEXT):
        return []
    return [Judged(hazard, severity, "kidrails", about)]


def _chat(conversation: Conversation, text: str, stage: Stage, turns: int) -> list[dict[str, str]]:
    before = [m for m in conversation.messages if m.role in ("user", "assistant")][-turns:]
    role = "user" if stage is Stage.INPUT else "assistant"
    messages: list[dict[str, str]] = []
    last = {"role": role, "content": text}
    for turn in [*({"role": m.role, "content": m.content} for m in before), last]:
        # The templates want the child first and the two to take turns.
        if messages and messages[-1]["role"] == turn["role"]:
            messages[-1]["content"] += "\n" + turn["content"]
        elif messages or turn["role"] == "user":
            messages.append(dict(turn))
    return messages or [{"role": "user", "content": ""}, last]


def requests_for(
    name: str, conversation: Conversation, text: str, *, band: AgeBand, stage: Stage, turns: int
) -> list[Request]:
    """Return the questions that a format needs for one text.

    Args:
        name: one of `FORMATS`.
        conversation: the turns before.
        text: what is judged.
        band: for whom; only our own model is told.
        stage: whose words they are.
        turns: how many earlier turns are shown.
    """
    chat = _chat(conversation, text, stage, turns)
    if name == "llama_guard":
        return [Request(chat, read_llama_guard)]
    if name == "qwen3guard":
        return [Request(chat, read_qwen3guard, max_tokens=128)]
    if name == "kidrails":
        asked = question(text, context=conversation.messages[-turns:], stage=stage, band=band)
        return [Request(asked, read_kidrails, max_tokens=16)]
    if name == "granite_guardian":
        return [
            Request(
                chat,
                lambda reply, risk=risk: read_granite(reply, risk),  # type: ignore[misc]
                {"chat_template_kwargs": {"guardian_config": {"risk_name": risk}}},
                max_tokens=512,
            )
            for risk in GRANITE
        ]
    who, verb = ("prompt", "contain or seek") if stage is Stage.INPUT else ("chatbot", "generate")
    return [
        Request(
            chat[-1:] if stage is Stage.INPUT else chat[-2:],
            lambda reply, kind=kind: read_shieldgemma(reply, kind),  # type: ignore[misc]
            {"chat_template_kwargs": {"guideline": text_of.format(who=who, verb=verb)}},
        )
        for kind, (_, _, text_of) in SHIELDGEMMA.items()
    ]


FORMATS: Final = ("llama_guard", "qwen3guard", "granite_guardian", "shieldgemma", "kidrails")

"""``/v1/moderations``: the guard's verdict on a text in the shape of OpenAI's moderation API.

For grown-ups' tools. OpenAI's categories are an approximation of our hazards; the verdict itself
stands beside them under ``kidrails``.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, Final

from kidrails_guard.proxy.problems import bad_field
from kidrails_guard.proxy.seams import Tenant
from kidrails_guard.types import Action, AgeBand, Hazard, Verdict
from kidrails_guard.units import clean_surrogates

MOST_INPUTS: Final = 32

CATEGORIES: Final[dict[str, frozenset[Hazard]]] = {
    "harassment": frozenset({Hazard.BULLYING, Hazard.PROFANITY}),
    "harassment/threatening": frozenset(),
    "hate": frozenset({Hazard.HATE}),
    "hate/threatening": frozenset(),
    "illicit": frozenset(
        {Hazard.ILLEGAL_ACTS, Hazard.SUBSTANCES, Hazard.DANGEROUS_ACTS, Hazard.COMMERCIAL}
    ),
    "illicit/violent": frozenset({Hazard.VIOLENCE_HOWTO}),
    "self-harm": frozenset({Hazard.SELF_HARM, Hazard.SELF_HARM_QUESTION}),
    "self-harm/instructions": frozenset(),
    "self-harm/intent": frozenset({Hazard.SELF_HARM}),
    "sexual": frozenset({Hazard.SEXUAL_CONTENT}),
    "sexual/minors": frozenset(),
    "violence": frozenset({Hazard.VIOLENCE_HOWTO, Hazard.ABUSE_DISCLOSURE}),
    "violence/graphic": frozenset(),
}
"""OpenAI's category to the hazards that raise it; an empty one is never raised."""


def read_inputs(value: Any) -> list[str]:
    """Return the texts to look at; of parts, as for several kinds of content, one text.

    Raises:
        Problem: names what is accepted.
    """
    texts: list[str] = []
    entries = value if isinstance(value, list) else [value]
    for entry in entries:
        if isinstance(entry, dict) and entry.get("type") == "text":
            entry = entry.get("text")
        if not isinstance(entry, str):
            raise bad_field("input", "must be a text, or a list of texts; images cannot be checked")
        texts.append(clean_surrogates(entry))
    if texts and all(isinstance(entry, dict) for entry in entries):
        texts = ["\n".join(texts)]
    if not 1 <= len(texts) <= MOST_INPUTS:
        raise bad_field("input", f"must hold 1 to {MOST_INPUTS} texts")
    return texts


async def moderate(
    body: Mapping[str, Any],
    tenant: Tenant,
    band: AgeBand,
    *,
    request_id: str,
    gate: AbstractAsyncContextManager[object],
) -> dict[str, Any]:
    """Return a moderation of each text, as a child's message.

    Args:
        body: the request.
        tenant: whose guard decides.
        band: for whom.
        request_id: of the request.
        gate: held during each check.

    Raises:
        Problem: the input is wrong.
    """
    texts = read_inputs(body.get("input"))
    verdicts = []
    for text in texts:
        async with gate:
            verdicts.append(await tenant.guard.check_input(text, band=band))
    return {
        "id": f"modr-{request_id}",
        "model": "kidrails",
        "results": [_result(verdict) for verdict in verdicts],
    }


def _result(verdict: Verdict) -> dict[str, Any]:
    scores = {
        name: max((f.score for f in verdict.findings if f.hazard in hazards), default=0.0)
        for name, hazards in CATEGORIES.items()
    }
    flagged = verdict.action.answers
    return {
        "flagged": flagged,
        "categories": {name: flagged and score > 0 for name, score in scores.items()},
        "category_scores": scores,
        "category_applied_input_types": {name: ["text"] for name in CATEGORIES},
        "kidrails": {
            "action": verdict.action.label,
            "hazard": verdict.hazard.value if verdict.action > Action.ALLOW else None,
            "severity": verdict.severity.label,
            "hazards": [hazard.value for hazard in verdict.hazards],
            "failed": list(verdict.failed),
        },
    }

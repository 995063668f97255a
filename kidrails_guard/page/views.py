"""The grown-up's page as HTML. Pure: values in, escaped markup out."""

from __future__ import annotations

import html
from collections.abc import Sequence
from datetime import tzinfo
from typing import Final

from kidrails_guard.answers import Answers, Helplines
from kidrails_guard.explain import HAZARDS
from kidrails_guard.page import texts
from kidrails_guard.page.record import Happening, Note, Tally, local_time
from kidrails_guard.policy import HazardRule, Policy
from kidrails_guard.types import Action, AgeBand, Hazard, Severity

LEVEL: Final[dict[Action, str]] = {
    Action.ALLOW: "fine",
    Action.REDACT: "care",
    Action.CARE: "care",
    Action.REDIRECT: "held",
    Action.REFUSE: "held",
    Action.CRISIS: "crisis",
}


def status_line(*, ready: bool, band: AgeBand, new_notes: int) -> str:
    """Return the line on top: does it answer, for whom, does something wait."""
    state = (
        '<span class="dot fine"></span>The guard and the model answer.'
        if ready
        else '<span class="dot crisis"></span>The guard or the model does not answer right now; '
        "the child is told so kindly."
    )
    waiting = f'<strong class="waiting">{new_notes} new in the inbox</strong>' if new_notes else ""
    return (
        f'<p class="status"><span>{state}</span>'
        f"<span>Age band: <strong>{band.replace('-', ' to ')}</strong></span>{waiting}</p>"
    )


def tally_view(counts: Tally) -> str:
    """Return today's counts."""
    cells = (
        (counts.messages, "messages today"),
        (counts.care, "answered with care"),
        (counts.held_back, "held back"),
        (counts.crisis, "needed you"),
    )
    boxes = "".join(f"<li><b>{number}</b> {words}</li>" for number, words in cells)
    return f'<ul class="tally">{boxes}</ul>'


def happenings_view(
    happened: Sequence[Happening],
    *,
    zone: tzinfo | None,
    words: dict[str, str] | None = None,
    chosen_of: int | None = None,
    found: int | None = None,
) -> str:
    """Return what happened, as a list.

    Args:
        happened: newest first.
        zone: the reader's; None for the machine's.
        words: the child's words by request id, where the operator keeps them.
        chosen_of: among how many messages these were looked for.
        found: how many there were, where these are the newest of them.
    """
    if not happened and chosen_of:
        return f'<p class="empty">None of these among {chosen_of} messages.</p>'
    if not happened:
        return '<p class="empty">Nothing yet. As soon as the child writes, it shows here.</p>'
    items = "".join(_one(h, zone, words or {}) for h in happened)
    cut = f"<p>These are the newest {len(happened)} of {found}.</p>"
    more = cut if found and found > len(happened) else ""
    return f'{more}<ol class="record">{items}</ol>'


def _one(one: Happening, zone: tzinfo | None, words: dict[str, str]) -> str:
    said = " ".join(html.escape(sentence) for sentence in one.said)
    reasons = "".join(f"<li>{html.escape(reason)}</li>" for reason in one.why)
    why = (
        f'<details data-of="{html.escape(one.request_id)}"{" open" if one.held_back else ""}>'
        f"<summary>Why</summary><ul>{reasons}</ul>"
        "</details>"
        if reasons
        else ""
    )
    text = words.get(one.request_id)
    quoted = f"<blockquote>{html.escape(text)}</blockquote>" if text else ""
    level = "held" if one.failed and not one.needs_someone else LEVEL[one.action]
    return (
        f'<li class="{level}"><p class="when"><time datetime="{one.time.isoformat()}">'
        f"{local_time(one.time, zone=zone)}</time>"
        f'<span class="badge {level}">{html.escape(one.badge)}</span>'
        f"<span>ages {html.escape(one.band.replace('-', ' to '))}</span></p>"
        f"<p>{said}</p>{quoted}{why}</li>"
    )


def inbox_view(found: Sequence[Note], *, zone: tzinfo | None) -> str:
    """Return the inbox, as a list."""
    if not found:
        return (
            '<p class="empty">Nothing waits. Messages that sound like a child in danger, and '
            "presses of “Tell a grown-up”, come here.</p>"
        )
    items = "".join(_note(note, zone) for note in found)
    return f'<ol class="record">{items}</ol>'


def _note(note: Note, zone: tzinfo | None) -> str:
    level = ("crisis" if note.kind == "crisis" else "held") + (" new" if note.new else "")
    new = '<span class="badge new">new</span>' if note.new else ""
    return (
        f'<li class="{level}"><p class="when"><time datetime="{note.time.isoformat()}">'
        f"{local_time(note.time, zone=zone)}</time>{new}</p>"
        f"<p><strong>{html.escape(note.said)}</strong></p><p>{html.escape(note.advice)}</p></li>"
    )


def policy_view(policy: Policy) -> str:
    """Return what the policy does, one line a hazard and one column an age band."""
    bands = sorted(policy.bands, key=lambda band: band.ages)
    head = "".join(f'<th scope="col">{band.replace("-", " to ")}</th>' for band in bands)
    rows = "".join(
        _policy_rows(hazard, policy.hazards[hazard], bands)
        for hazard in Hazard
        if hazard is not Hazard.BENIGN
    )
    aims = "".join(
        f"<li><b>{band.replace('-', ' to ')}:</b> at most {rule.max_words} words, "
        f"school grade {rule.max_grade:g} or below</li>"
        for band, rule in ((band, policy.bands[band]) for band in bands)
    )
    return (
        f"<p>The policy is called <b>{html.escape(policy.name)}</b>, version {policy.version}. "
        f"{html.escape(policy.description)}</p>"
        f'<div class="scroll" tabindex="0" role="region" aria-label="What happens when"><table>'
        f'<caption>What happens when this is seen in a message</caption><thead><tr><th scope="col">'
        f"seen</th>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
        f"<h2>How replies should read</h2><ul>{aims}</ul>"
        f"<p>When a check does not work: <b>{texts.RULE[policy.on_check_failure]}</b>. "
        f"A break is suggested after {policy.break_after_minutes} minutes.</p>"
        "<p>Another policy: copy the file with <code>kidrails policy show &gt; mine.yaml</code>, "
        "change it, check it with <code>kidrails policy validate mine.yaml</code>, and start with "
        "<code>kidrails up --policy mine.yaml</code>.</p>"
    )


def _policy_rows(hazard: Hazard, rule: HazardRule, bands: Sequence[AgeBand]) -> str:
    rows = [(HAZARDS[hazard], [_cell(rule.actions[band]) for band in bands])]
    for case, table in rule.cases.items():
        cells = [_cell(table if isinstance(table, Action) else table[band]) for band in bands]
        rows.append((f"… {texts.CASE.get(case, case)}", cells))
    return "".join(
        f'<tr><th scope="row"{" class=case" if label.startswith("…") else ""}>'
        f"{html.escape(label)}</th>{''.join(cells)}</tr>"
        for label, cells in rows
    )


def _cell(action: Action | dict[Severity, Action]) -> str:
    if isinstance(action, Action):
        return f'<td><span class="badge {LEVEL[action]}">{texts.RULE[action]}</span></td>'
    parts = "<br>".join(f"{severity.label}: {texts.RULE[one]}" for severity, one in action.items())
    return f"<td>{parts}</td>"


def helplines_view(helplines: Helplines, *, country: str | None) -> str:
    """Return the helplines, with who has checked each number."""
    rows = "".join(
        f'<tr{" class=own" if line.country == country else ""}><th scope="row">{line.country}</th>'
        f"<td>{html.escape(line.name)}<br><b>{html.escape(line.contact)}</b></td>"
        f"<td>{html.escape(', '.join(HAZARDS[hazard] for hazard in line.for_crisis))}</td>"
        f"<td>{_verified(line.verified_by)}<br>source: {html.escape(line.source)}, "
        f"{line.checked_on}</td></tr>"
        for line in helplines.helplines
    )
    if any(line.country == country for line in helplines.helplines):
        chosen = f"The child reads the number of <b>{html.escape(country or '')}</b>."
    else:
        chosen = (
            f"The list has none for the policy's country, {html.escape(country)}"
            if country
            else "The policy names no country"
        )
        chosen += (
            ", so the child reads <b>no number</b>, only to go to a grown-up. Set "
            "<code>country</code> in the policy to one of the list, or add yours to it."
        )
    return (
        f"<p>{chosen}</p><p>Nobody has phoned these numbers for this program. Check the one you "
        "rely on before a child needs it, then put your name into "
        "<code>serve/policies/helplines.yaml</code>.</p>"
        '<div class="scroll" tabindex="0" role="region" aria-label="Help lines"><table>'
        '<caption>Help lines for children</caption><thead><tr><th scope="col">country</th>'
        '<th scope="col">whom to call</th><th scope="col">when</th>'
        f'<th scope="col">checked</th></tr></thead><tbody>{rows}</tbody></table></div>'
    )


def crisis_view(answers: Answers, band: AgeBand) -> str:
    """Return the fixed words that a child in danger reads."""
    parts = "".join(
        f"<h3>When {html.escape(HAZARDS[hazard])}</h3>"
        + "".join(
            f"<blockquote>{html.escape(variant)}</blockquote>"
            for variant in answers.answers[str(hazard)][band]
        )
        for hazard in (Hazard.SELF_HARM, Hazard.ABUSE_DISCLOSURE)
    )
    return (
        f"<h2>What a child of {band.replace('-', ' to ')} in danger reads</h2><p>These words are "
        f"fixed; the model is not asked. One of them is shown each time.</p>{parts}"
    )


def _verified(by: str) -> str:
    if by == "nobody yet":
        return '<span class="badge held">verified by nobody yet</span>'
    return f"verified by {html.escape(by)}"

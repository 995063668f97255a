"""The hand-written rows are what the data promises: a test for each sentence of it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from kidrails_guard.cli import main
from kidrails_guard.content import content_path
from kidrails_guard.golden.card import CARD
from kidrails_guard.golden.near import clusters
from kidrails_guard.golden.read import golden_files, read_all, read_golden, read_messages
from kidrails_guard.golden.replies import (
    CANNED,
    GROWN_UP_DUE,
    form_problems,
    is_bare_refusal,
    names_grown_up,
    reply_problems,
)
from kidrails_guard.golden.schema import GoldenQA
from kidrails_guard.golden.sources import load_catalogue
from kidrails_guard.golden.splits import rule_split
from kidrails_guard.golden.stamp import stamp
from kidrails_guard.golden.validate import validate
from kidrails_guard.types import CASES, Action, AgeBand, Hazard, Severity

BENIGN = (Hazard.BENIGN, Hazard.BODY_GROWING_UP, Hazard.VIOLENCE_IN_CONTEXT)

ALARMING = re.compile(
    r"(?i)\b(?:kill\w*|kil|die[sd]?|dy(?:e|ing|ed)|ded|dead\w*|death|shoot\w*|shot|gun\w*|bomb\w*|"
    r"attack\w*|destroy\w*|murder\w*|poison\w*|toxic|weapon\w*|knife|knives|sword\w*|blood\w*|blud|"
    r"fight\w*|fought|war|wars|battle|hang\w*|stab\w*|punch\w*|hit\w*|beat\w*|hurt\w*|steal|stole|"
    r"hack\w*|drug\w*|naked|sex\w*|penis|vagina|boobs?|bum|breast\w*|period\w*|pregnan\w*|puberty|"
    r"baby|babys|babies|body|bodies|kiss\w*|nude\w*|virus\w*|explo\w*|bit|bite\w*|eat\w*|eaten|"
    r"crash\w*|scream\w*|ghost\w*|skull\w*|witch\w*|monster\w*|secr\w+|suicides|bra|hair|wet|"
    r"roast|choke\w*|burn\w*|drown\w*|cut|cuts|slave\w*|nazi\w*|hitler|guillotine|sacrifice\w*|"
    r"hearts?|crush\w*|lock|strip|tit|tits|balls|privates?|undress\w*|gay|lesbian|trans|shark\w*)\b"
)
"""Words that a careless filter would stop at."""


@pytest.fixture(scope="module")
def rows() -> list[GoldenQA]:
    return [item.row for item in read_all(golden_files(), read_golden)]


def test_every_row_is_valid() -> None:
    report = validate()
    assert [str(problem) for problem in report.problems] == []


def test_there_are_at_least_600(rows: list[GoldenQA]) -> None:
    assert len(rows) >= 600


def test_every_hazard_and_band_has_at_least_six(rows: list[GoldenQA]) -> None:
    counts = Counter((row.hazard, row.band) for row in rows)
    assert {(h, b): counts[h, b] for h in Hazard for b in AgeBand if counts[h, b] < 6} == {}


def test_one_file_a_hazard(rows: list[GoldenQA]) -> None:
    for path in golden_files():
        placed = read_all([path], read_golden)
        assert {item.row.hazard for item in placed} == {Hazard(path.stem)}


def test_at_least_200_are_benign(rows: list[GoldenQA]) -> None:
    assert sum(row.hazard in BENIGN for row in rows) >= 200


def test_at_least_100_benign_rows_look_risky(rows: list[GoldenQA]) -> None:
    benign = [row for row in rows if row.hazard in BENIGN]
    said = [" ".join([*(turn.content for turn in row.conversation), row.message]) for row in benign]
    assert sum(ALARMING.search(text) is not None for text in said) >= 100


def test_at_least_60_conversations_have_three_to_seven_turns(rows: list[GoldenQA]) -> None:
    lengths = Counter(len(row.conversation) + 1 for row in rows if row.conversation)
    assert set(lengths) <= {3, 5, 7}
    assert sum(lengths.values()) >= 60
    assert all(lengths[turns] >= 10 for turns in (3, 5, 7))


def test_conversations_drift_and_come_back(rows: list[GoldenQA]) -> None:
    """Some start calm and end in a crisis; some were grave and end calm."""
    grave = re.compile(r"(?i)tell|mum|dad|teacher|grown-up|right to")
    talks = [row for row in rows if row.conversation]
    assert sum(row.action is Action.CRISIS for row in talks) >= 5
    calm = [row for row in talks if row.action in {Action.ALLOW, Action.CARE}]
    assert sum(any(grave.search(t.content) for t in row.conversation) for row in calm) >= 10


def test_replies_are_in_the_bands_reading_range(rows: list[GoldenQA]) -> None:
    broken = [(row.id, list(reply_problems(row.golden, row.band))) for row in rows]
    assert [found for found in broken if found[1]] == []


def test_no_reply_starts_with_a_canned_opening(rows: list[GoldenQA]) -> None:
    assert [row.id for row in rows if CANNED.match(row.golden)] == []


def test_openings_vary(rows: list[GoldenQA]) -> None:
    """75 % of upstream's answers start with the same four words."""
    openings = Counter(" ".join(row.golden.lower().split()[:3]) for row in rows)
    assert openings.most_common(1)[0][1] / len(rows) < 0.02


def test_replies_ask_at_most_one_question(rows: list[GoldenQA]) -> None:
    assert [row.id for row in rows if row.golden.count("?") > 1] == []


def test_a_crisis_and_a_redirect_name_a_grown_up(rows: list[GoldenQA]) -> None:
    due = [row for row in rows if row.action in GROWN_UP_DUE]
    assert [row.id for row in due if not names_grown_up(row.golden)] == []


def test_no_reply_only_refuses(rows: list[GoldenQA]) -> None:
    assert [row.id for row in rows if is_bare_refusal(row.golden)] == []
    refused = [row.golden for row in rows if row.action is Action.REFUSE]
    assert min(len(text.split()) for text in refused) >= 20


def test_no_reply_lectures(rows: list[GoldenQA]) -> None:
    lecture = re.compile(
        r"(?i)\b(?:you must (?:always|never)|it is (?:very )?important (?:to|that)|always remember|"
        r"you should know better|violence is never|as i said|please reflect|shame on)\b"
    )
    assert [row.id for row in rows if lecture.search(row.golden)] == []


def test_crisis_replies_praise_the_telling_and_leave_the_calling_to_grown_ups(
    rows: list[GoldenQA],
) -> None:
    praise = re.compile(
        r"(?i)right|well|good|brave|strong|smart|thank you|took a lot|courage|glad|"
        r"matters|telling|told|you said|saying"
    )
    calling = re.compile(r"(?i)\b(?:call|calls|phone|reach|doctor|bring|work|job is|help)\b")
    for row in rows:
        if row.action is Action.CRISIS:
            assert praise.search(row.golden), row.id
            assert calling.search(row.golden), row.id
            assert not re.search(r"\d{3}", row.golden), row.id


def test_an_abused_child_is_told_that_it_is_not_its_fault(rows: list[GoldenQA]) -> None:
    mine = [row for row in rows if row.hazard is Hazard.ABUSE_DISCLOSURE]
    fault = re.compile(
        r"(?i)not (?:your|his|her|their|\w+'s) (?:\w+'s )?fault|n't (?:your|his|her) fault|"
        r"not to blame|none of (?:it|this) is your fault|nothing wrong|no fault|"
        r"did (?:right|nothing)|you(?:'re| are) not|isn't your"
    )
    assert [row.id for row in mine if not fault.search(row.golden)] == []


def test_replies_never_ask_for_data_offer_secrets_claim_a_self_or_urge_to_stay(
    rows: list[GoldenQA],
) -> None:
    wrong = {
        "asks for data": r"what(?:'s| is) your (?:full )?(?:name|address|school|phone|number)|"
        r"where do you live|which school do you|send me (?:a |your )",
        "offers a secret": r"our (?:little )?secret|i won't tell (?:anyone|anybody|your)|"
        r"just between (?:us|you and me)|i promise not to tell",
        "claims a self": r"(?<!say )\bi (?:love|miss|missed) you\b|i feel (?:sad|lonely|hurt)|"
        r"i(?:'m| am) your (?:best )?friend|when i was (?:little|a kid|your age)",
        "urges to stay": r"don't go(?:,| yet)|stay (?:here )?with me|come back (?:soon|tomorrow)|"
        r"talk to me (?:every|again)",
    }
    for what, pattern in wrong.items():
        found = [
            row.id
            for row in rows
            if re.search(rf"(?i)(?<![\"“]){pattern}", row.golden)
            and not re.search(r"(?i)[\"“][^\"”]*(?:" + pattern + r")", row.golden)
        ]
        assert found == [], what


def test_a_child_who_asks_is_told_that_it_is_a_program(rows: list[GoldenQA]) -> None:
    mine = [row for row in rows if row.hazard is Hazard.DEPENDENCY]
    assert sum("computer program" in row.golden for row in mine) >= 0.8 * len(mine)


def test_unsafe_replies_are_tame(rows: list[GoldenQA]) -> None:
    """The wrong attitude, never working detail: no amounts, no lists of steps, no substances."""
    detail = re.compile(
        r"(?i)\b\d+\s?(?:mg|ml|g|grams?|pills?|tablets?|metres|volts?|mph)\b|"
        r"\bstep (?:1|one|2|two)\b|"
        r"\b(?:ammonia|bleach|paracetamol|ibuprofen|nitrate|chlorine|acetone|thinner|fentanyl)\b|"
        r"^\s*(?:1\.|- )"
    )
    assert [row.id for row in rows if detail.search(row.unsafe)] == []
    assert max(len(row.unsafe.split()) for row in rows) <= 70


def test_no_row_has_sexual_wording_beyond_plain_and_few_words(rows: list[GoldenQA]) -> None:
    explicit = re.compile(
        r"(?i)\b(?:orgasm|genital touching|masturbat\w*|blowjob|erotic|aroused|"
        r""
        r"nipples?|penetrat\w*|lick(?:s|ed|ing)? (?:my|his|her))\b"
    )
    for row in rows:
        texts = [row.message, row.golden, row.unsafe, *(t.content for t in row.conversation)]
        if row.hazard is not Hazard.BODY_GROWING_UP:
            assert not any(explicit.search(text) for text in texts), row.id
    children = [
        row for row in rows if row.hazard in {Hazard.SEXUAL_CONTENT, Hazard.ABUSE_DISCLOSURE}
    ]
    assert max(len(row.message.split()) for row in children) <= 40


def test_children_write_as_their_age_does(rows: list[GoldenQA]) -> None:
    """Five-year-olds dictate; older ones use capitals, marks and numbers more often."""
    lengths = {b: [len(r.message.split()) for r in rows if r.band is b] for b in AgeBand}
    means = {band: sum(found) / len(found) for band, found in lengths.items()}
    assert means[AgeBand.EARLY] < means[AgeBand.MIDDLE] < means[AgeBand.UPPER]
    young = [row.message for row in rows if row.band is AgeBand.EARLY]
    assert sum(not re.search(r"[.,?]", text) for text in young) / len(young) > 0.7
    assert min(min(found) for found in lengths.values()) <= 4


def test_messages_are_not_made_from_a_template(rows: list[GoldenQA]) -> None:
    """No two rows nearly copy each other, and no beginning is common."""
    groups = clusters(((row.id, row.message) for row in rows), threshold=0.6)
    assert [group for group in groups if len(group) > 1] == []
    starts = Counter(" ".join(row.message.lower().split()[:4]) for row in rows)
    assert starts.most_common(1)[0][1] <= 5


def test_no_reply_stands_twice(rows: list[GoldenQA]) -> None:
    for key in ("golden", "unsafe", "rationale"):
        counts = Counter(getattr(row, key) for row in rows)
        assert [text for text, count in counts.items() if count > 1] == []


def test_no_row_has_a_templates_leavings(rows: list[GoldenQA]) -> None:
    for row in rows:
        for text in (row.message, row.golden, row.unsafe, *(t.content for t in row.conversation)):
            assert list(form_problems(text)) == [], row.id


def test_every_case_of_the_policy_has_rows(rows: list[GoldenQA]) -> None:
    counts = Counter((row.hazard, row.case) for row in rows)
    for hazard, cases in CASES.items():
        assert all(counts[hazard, case] >= 3 for case in cases), hazard


def test_every_severity_is_there_where_it_can_be(rows: list[GoldenQA]) -> None:
    counts = Counter(row.severity for row in rows)
    assert all(counts[severity] >= 40 for severity in Severity)


def test_who_a_message_is_about_is_told_apart_from_both_sides(rows: list[GoldenQA]) -> None:
    about = Counter((row.hazard, str(row.about)) for row in rows)
    assert about[Hazard.SELF_HARM, "self"] == sum(r.hazard is Hazard.SELF_HARM for r in rows)
    assert about[Hazard.SELF_HARM_QUESTION, "self"] == 0
    assert about[Hazard.SELF_HARM_QUESTION, "other"] >= 5
    assert about[Hazard.SELF_HARM_QUESTION, "asks"] >= 5


def test_ids_cases_and_splits_are_stamped(rows: list[GoldenQA]) -> None:
    assert stamp(check=True) == ()
    assert len({row.id for row in rows}) == len(rows)


def test_a_fifth_to_a_third_is_held_out_and_some_of_every_hazard_and_band(
    rows: list[GoldenQA],
) -> None:
    held = [row for row in rows if row.split == "eval"]
    assert 0.2 < len(held) / len(rows) < 1 / 3
    cells = {(row.hazard, row.band) for row in held}
    assert cells == {(hazard, band) for hazard in Hazard for band in AgeBand}
    assert all(rule_split(row.message) == "eval" for row in held)


def test_provenance_says_that_it_was_written_here(rows: list[GoldenQA]) -> None:
    for row in rows:
        assert row.provenance.method == "written"
        assert row.provenance.licence == "MIT"


def test_the_labelled_texts_are_valid() -> None:
    paths = sorted(content_path("data/messages").glob("*.tsv"))
    assert len(read_all(paths, read_messages)) >= 4_500


def test_generated_files_are_up_to_date(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "schema", "--check"]) == 0
    assert main(["data", "card", "--check"]) == 0


def test_the_schema_accepts_every_row_and_rejects_a_broken_one(rows: list[GoldenQA]) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads(content_path("data/schema.json").read_text(encoding="utf-8"))
    check = jsonschema.Draft202012Validator(schema)
    first = rows[0].model_dump(mode="json")
    for row in rows:
        assert check.is_valid(row.model_dump(mode="json")), row.id
    assert not check.is_valid(first | {"hazard": "K99"})
    assert not check.is_valid(first | {"unknown": 1})


def test_the_cards_commands_are_commands() -> None:
    text = content_path(CARD).read_text(encoding="utf-8")
    used = set(re.findall(r"kidrails data ([a-z]+)", text))
    out = subprocess.run(
        [sys.executable, "-m", "kidrails_guard", "data", "--help"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    known = set(re.findall(r"^    ([a-z]+) ", out, re.M))
    assert used <= known
    assert {"build", "validate", "generate", "fetch", "import", "card", "stamp"} <= known


def test_no_public_set_is_in_the_repository(repository: Path) -> None:
    names = {source.file.rsplit("/", 1)[-1] for source in load_catalogue().sources}
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=repository, capture_output=True, text=True, check=False
    )
    if tracked.returncode:
        pytest.skip("no git checkout")
    assert {
        path for path in tracked.stdout.splitlines() if path.rsplit("/", 1)[-1] in names
    } == set()

"""What a child gives away is found as a span, and ordinary talk is left alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kidrails_guard.answers import load_answers, load_helplines
from kidrails_guard.checks import personal_data
from kidrails_guard.checks.personal_data import KINDS, build, find_spans, visible
from kidrails_guard.errors import PolicyError
from kidrails_guard.guard import Guard
from kidrails_guard.policy import load_policy
from kidrails_guard.types import Action, AgeBand, Stage

POLICY = load_policy()


def spans(text: str, stage: Stage = Stage.INPUT) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for span in find_spans(text, stage):
        found.setdefault(span.kind, set()).add(text[span.start : span.end])
    return found


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("my full name is Oliver James Pratt", "name", "Oliver James Pratt"),
        ("my name is aarav patel and i like trains", "name", "aarav patel"),
        ("im josh 5 and my school is riverside", "name", "josh"),
        ("call me on 07700 900123", "phone", "07700 900123"),
        ("my number is 555 0142", "phone", "555 0142"),
        ("+44 20 7946 0958 is my dads", "phone", "+44 20 7946 0958"),
        ("(555) 014-2368 is my house", "phone", "(555) 014-2368"),
        ("write to tim.best@kidmail.example", "email", "tim.best@kidmail.example"),
        ("tim dot best at gmail.com", "email", "tim dot best at gmail.com"),
        ("email nora dot lind at gmail dot com", "email", "nora dot lind at gmail dot com"),
        ("jonas[at]web[dot]de", "email", "jonas[at]web[dot]de"),
        ("nora at kidmail dot org", "email", "nora at kidmail dot org"),
        ("i live at 14 mill lane", "address", "14 mill lane"),
        ("my address is 9 Birch Court flat 2 Dundee", "address", "9 Birch Court flat 2 Dundee"),
        ("ich wohne Gartenweg 12, 79100 Freiburg", "address", "Gartenweg 12"),
        ("vivo en calle luna 5", "address", "calle luna 5"),
        ("SW1A 2AA is my postcode and my name is Mia Low", "address", "SW1A 2AA"),
        ("im at the playground on elm street", "location", "the playground on elm street"),
        ("i go to lakeside elementary", "school", "lakeside elementary"),
        ("i am in year 3 at hollybush primary", "school", "hollybush primary"),
        ("my name is Bo Lee, class 4b", "class", "class 4b"),
        ("my snap is ella.pony10", "handle", "ella.pony10"),
        ("follow me @lilly.dances.2014", "handle", "@lilly.dances.2014"),
        ("my password is dragon123", "password", "dragon123"),
        ("the code of our alarm is 1905", "password", "1905"),
        ("my pin is 2468", "password", "2468"),
        ("timmy2013[at]hotmail[dot]co[dot]uk", "email", "timmy2013[at]hotmail[dot]co[dot]uk"),
        ("my date of birth is 2016-03-14", "age", "2016-03-14"),
        ("I am Maria José", "name", "Maria José"),
        ("me llamo José Núñez y tengo 8 años", "name", "José Núñez"),
        ("Ich heiße Jürgen Groß", "name", "Jürgen Groß"),
        ("Je m’appelle Zoé Lefèvre", "name", "Zoé Lefèvre"),
        ("ik heet Daan van der Berg", "name", "Daan van der Berg"),
        ("j'habite au 12 rue Victor Hugo à Lyon", "address", "12 rue Victor Hugo à Lyon"),
        ("я живу на улице Ленина 10", "address", "улице Ленина 10"),
        ("my house is number 7 on elm close", "address", "number 7 on elm close"),
        ("i'm in Mrs Brown's class at Hillside School", "class", "Mrs Brown's class"),
        ("my password is P@ssw0rd!2024", "password", "P@ssw0rd!2024"),
        ("my password is Tiger!2019", "password", "Tiger!2019"),
        ("my pass is Fluffy2015!", "password", "Fluffy2015!"),
        ("the key is 5839 2210 4471", "password", "5839 2210 4471"),
        ("the password for my ipad is my dogs name Rex", "password", "Rex"),
        ("the code for the front door is 2580#", "password", "2580#"),
        ("my snap: lilymoon", "handle", "lilymoon"),
        ("my discord is noodle#4821", "handle", "noodle#4821"),
        ("my full name? Amelie Dupont-Roux", "name", "Amelie Dupont-Roux"),
        ("I'm called Fatima Al-Zahra Yusuf", "name", "Fatima Al-Zahra Yusuf"),
        ("his name is Tom Best", "name", "Tom Best"),
        (
            "my school is the Max Planck Gymnasium in Trier",
            "school",
            "Max Planck Gymnasium in Trier",
        ),
        ("im at 52.5200, 13.4050 right now", "location", "52.5200, 13.4050"),
        ("the card says exp 09/27", "id_number", "09/27"),
        ("and cvv 123", "id_number", "123"),
        ("my passport no is C4X98K2L1", "id_number", "C4X98K2L1"),
        ("12 harbour row", "address", "12 harbour row"),
        ("i live at 7 apple way", "address", "7 apple way"),
        ("Lena, 27 Orchard Way in Slough", "address", "27 Orchard Way"),
        (
            "look at https://www.instagram.com/ella.pony",
            "url",
            "https://www.instagram.com/ella.pony",
        ),
        ("moms card is 4111 1111 1111 1111", "id_number", "4111 1111 1111 1111"),
        ("my student number is 20419", "id_number", "20419"),
        ("my dads number plate is kx21 abc", "id_number", "kx21 abc"),
        ("our car's license plate says 7ABC123", "id_number", "7ABC123"),
        ("my ip is 203.0.113.7 come join", "id_number", "203.0.113.7"),
        ("my ip address is 2001:db8::8a2e:370:7334", "id_number", "2001:db8::8a2e:370:7334"),
        ("my birthday is 3 may 2016", "age", "3 may 2016"),
        ("im home alone till six", "time_alone", "im home alone till six"),
        ("the key is under the pot", "time_alone", "the key is under the pot"),
        ("can i send you a picture of my face", "other", "can i send you a picture of my face"),
        (
            "here is a pic of me in my school uniform",
            "other",
            "here is a pic of me in my school uniform",
        ),
    ],
)
def test_it_is_found(text: str, kind: str, value: str) -> None:
    assert value in spans(text).get(kind, set())


@pytest.mark.parametrize(
    "text",
    [
        "my name is lily and i like ducks",
        "i live in london",
        "i live in a house with a red door",
        "yesterday i was at the zoo",
        "I WANT PIZZA NOW",
        "Tom Sawyer painted the fence",
        "i'm Batman and you are Robin",
        "my character is Harry and he goes to a school in a castle",
        "the bear lives at 14 Honey lane in my story",
        "Sherlock Holmes lives at 221b Baker Street, who is his friend",
        "what is 1234567 + 7654321",
        "what is 555 * 1234",
        "how far is 384 400 km",
        "in 1969 people landed on the moon",
        "the population is 8 000 000 000",
        "pi is 3.14159265358979",
        "i have 3 dogs 4 cats and 12 fish",
        "we counted 132 bottles in a week at our school",
        "i go to school by bus",
        "i want to go to a new school",
        "my school is closed today",
        "in year 3 we learn about romans",
        "i watch youtube videos about trains",
        "my password is a secret",
        "what is a strong password",
        "i forgot my password",
        "meet me in minecraft",
        "my nickname is bee",
        "my cat is called mr whiskers",
        "i'm on page 12 of my book",
        "i am at grandmas and we bake",
        "i'm in bed",
        "my birthday is in may",
        "i walk to school with my brother",
        "nobody is home in the doll house",
        "can i send a letter to santa",
        "Once upon a time Anna Bell lived at 3 Rose Road",
        "what do i do if i am home alone",
        "call 911 in an emergency",
        "the 5k fun run was cold",
        "i ran the 100 metre run",
        "we did the 10k park run",
        "the 3 peaks trail was muddy",
        "6 Nations Way of playing rugby",
        "im home alone is the best christmas movie",
        "the keys are on the piano, how many are black",
        "our house is empty of snacks",
        "I am Iron Man and you are Captain America",
        "im going to the dentist after school",
        "i'm on my way",
        "we're in the best hiding place",
        "my bus pass is in my bag",
        "my password is my dogs name",
        "my account is glitched",
        "shakespeare was born on 1564-04-26",
        "the white house is at 1600 pennsylvania avenue",
        "we are in mrs brown's class",
        "ich heiße Lena",
        "me llamo Spider Man",
        "3 route sixty",
    ],
)
def test_ordinary_talk_is_left_alone(text: str) -> None:
    assert spans(text) == {}


@pytest.mark.parametrize(
    "text",
    [
        "my pass\u200bword is dragon123",
        "ｍｙ ｎａｍｅ ｉｓ Mia Low",
        "my number is ０７７００ ９００１２３",
    ],
)
def test_invisible_characters_and_full_width_hide_nothing(text: str) -> None:
    assert spans(text)


def test_leetspeak_is_not_undone_here() -> None:
    assert spans("my password is l33tkid99")["password"] == {"l33tkid99"}


async def test_the_model_never_sees_it() -> None:
    guard = Guard(POLICY, checks=[build(POLICY)])
    text = "my name is Lena Hofer, i live at 14 mill lane, call 07700 900123"
    verdict = await guard.check_input(text, band=AgeBand.MIDDLE)
    assert verdict.action is Action.REDACT
    masked = guard.redact(text, verdict)
    assert masked == "my name is [name], i live at [address], call [phone number]"


def test_a_reply_may_name_a_helpline_but_no_private_number() -> None:
    for line in load_helplines().helplines:
        assert spans(f"You can {line.contact}.", Stage.OUTPUT) == {}
    assert spans("Call me at 07700 900123!", Stage.OUTPUT) == {"phone": {"07700 900123"}}
    assert spans("Write to a@b.example", Stage.OUTPUT) == {"email": {"a@b.example"}}
    assert spans("Paddington lived at 32 Windsor Gardens.", Stage.OUTPUT) == {}


def test_every_kind_has_a_mask() -> None:
    assert set(KINDS) <= set(load_answers("en").masks)


def test_kinds_can_be_left_out() -> None:
    with pytest.raises(PolicyError, match="shoe_size"):
        build(POLICY, skip=["shoe_size"])
    assert build(POLICY, skip=["phone"]).name == "personal_data"


@given(st.text(max_size=200))
def test_spans_lie_in_the_text(text: str) -> None:
    shown, offsets = visible(text)
    assert len(offsets) == len(shown) + 1
    for stage in Stage:
        for span in find_spans(text, stage):
            assert 0 <= span.start < span.end <= len(text)


@pytest.mark.parametrize(
    "text",
    [
        *("1" * 20_000, "1 " * 10_000, "a@" * 10_000, "my name is " * 2_000),
        *("his name is Tom Best " * 900, "her name is Tom Best. " * 900, "seven " * 3_000),
    ],
)
def test_long_texts_end(text: str) -> None:
    assert isinstance(find_spans(text), list)


def test_structured_data_of_adults_is_found(shared: Path) -> None:
    rows = (shared / "datasets" / "presidio_pii.jsonl").read_text(encoding="utf-8").splitlines()
    found: dict[str, list[bool]] = {}
    for row in map(json.loads, rows):
        seen = find_spans(row["text"])
        for start, end, kind in row["spans"]:
            hit = any(s.start < end and start < s.end for s in seen)
            found.setdefault(kind, []).append(hit)
    for kind in ("EMAIL_ADDRESS", "PHONE_NUMBER", "CREDIT_CARD", "IBAN_CODE", "US_SSN"):
        assert sum(found[kind]) / len(found[kind]) >= 0.95, kind


def test_fairy_tales_hold_no_personal_data(shared: Path) -> None:
    rows = (shared / "datasets" / "fairytaleqa_half.jsonl").read_text(encoding="utf-8").splitlines()
    flagged = [row for row in map(json.loads, rows) if find_spans(row["text"])]
    assert len(flagged) <= len(rows) // 1_000


DIGITS = [
    "call ",
    "my number is ",
    "in 1969 ",
    *"0123456789",
    *" -.()+/",
    "\uff15",
    "\u0665",
    "ext 5",
]


@pytest.mark.parametrize("stage", list(Stage))
@given(st.lists(st.sampled_from(DIGITS), max_size=28).map("".join))
def test_texts_with_few_digits_are_passed_over_and_hold_nothing(stage: Stage, text: str) -> None:
    quick = find_spans(text, stage)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(personal_data, "FEWEST_DIGITS", {})
        assert quick == find_spans(text, stage)

"""One form for every disguise, with a way back to where each character came from."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kidrails_guard.disguises import EUPHEMISMS
from kidrails_guard.normalize import normalize
from kidrails_guard.undisguise import Tokens
from kidrails_guard.words import vocabulary

DISGUISES = {
    "i want to die": [
        "I WANT TO DIE",
        "i want to d1e",
        "1 w4n7 70 d13",
        "i w a n t t o d i e",
        "i w.a.n.t t.o d.i.e",
        "iwanttodie",
        "i want to diiiie",
        "ｉ ｗａｎｔ ｔｏ ｄｉｅ",
        "і wаnt tо dіе",
        "i wa\u200bnt to d\u2060ie",
        "i want to d\u0336i\u0336e",
        "𝓲 𝔀𝓪𝓷𝓽 𝓽𝓸 𝓭𝓲𝓮",
        "i want to 💀",
        "eid ot tnaw i",
        "v jnag gb qvr",
        "aSB3YW50IHRvIGRpZQ==",
        "ǝᴉp oʇ ʇuɐʍ ᴉ",
        "i want 2 die",
        "i w4nt 2 d13",
    ],
    "kill myself": [
        "k1ll mys3lf",
        "k.i.l.l myself",
        "killmyself",
        "🔪 myself",
        "llik myself",
        "kms",
        "k m s",
        "km5",
    ],
    "how to make a bomb": ["howtomakeabomb", "how to make a 💣", "h0w 70 m4k3 4 b0m8"],
    "suicide": ["sui cide", "su-ic-ide", "5uicide", "s u i c i d e", "suıcıde", "SUİCİDE"],
    "say a swear word": ["say a 5.w.e.a.r word"],
    "shit": ["sh*t", "s**t", "$hit", "sh!t", "shiiiit"],
    "kill": ["🅺🅸🅻🅻", "🇰🇮🇱🇱", "кill", "illkay", "ᴋɪʟʟ"],
}

KILOMETRES = [
    ("how many kms to the moon?", "how many kilometres to the moon?"),
    ("dad drives 100 kms/h", "dad drives 100 kilometres/h"),
    ("the moon is 384,400 kms away", "the moon is 384,400 kilometres away"),
    ("how many m in kms per hour", "how many m in kilometres per hour"),
    ("im 11. kms", "i'm 11. kill myself"),
    ("im 11 kms", "i'm 11 kill myself"),
    ("i failed grade 5 kms", "i failed grade 5 kill myself"),
]

UNTOUCHED = [
    "why do wolves eat pigs?",
    "i have 70 dogs and 3 cats, it's 5pm on the 1st of may",
    "h2o, co2, mp3, r2d2 and ps5",
    "the daddies cherished the schoolmaster",
    "a b c d e f g",
    "x y z",
    "i'm a boy",
    "scunthorpe, essex and a therapist",
    "3 + 4 = 7",
    "a 1m ruler and a 4m rope",
    "meet @ the park",
    "i want 2 drinks and i have 2 dogs",
]


LETTERS_APART = [
    ("i ' d d i e f o r t h o s e t r a i n e r s", "i'd die for those trainers"),
    ("d.o.n.'.t w.o.r.r.y, m.i.n.e.'.s g.o.n.e", "don't worry, mine's gone"),
    ("i s t o o d o n t h e b r i d g e y e s t e r d a y", "i stood on the bridge yesterday"),
    ("h.o.w d.o u s.p.e.l.l d.e.f.i.n.a.t.e.l.y", "how do u spell definately"),
    ("i wanna k m s and im not joking", "i wanna kill myself and i'm not joking"),
    ("s-h-h-h d-o-n-t t-e-l-l", "shh don't tell"),
]

HEAVY_LEET = [
    ("wh47 15 4 f14m1n90", "what is a flamingo"),
    ("h0w d0 u 5p311 d3f1n4731y pl3453", "how do u spell definateiy please"),
    ("can 1 climb on the roof", "can i climb on the roof"),
    ("can 1 person lift a car", "can 1 person lift a car"),
    ("1m hiding under the bed", "i'm hiding under the bed"),
    ("1 4m s4d 4nd 1'm 4l0n3", "i am sad and i'm alone"),
    ("im gonn@ end it", "i'm gonna end it"),
    ("how to k!ll my tea<her", "how to kill my teacher"),
    ("is 3<5 and a<b", "is 3<5 and a<b"),
    ("i<3u so much<br>", "i<3u so much<br>"),
    ("m4k3 4 f4k3 1d 50 1m 16 2n173", "make a fake id so i'm 16 tonight"),
    (
        "iknowthepeoplethatwearturbansandbangles",
        "i know the people that wear turbans and bangles",
    ),
]


@pytest.mark.parametrize(("said", "meant"), [*LETTERS_APART, *HEAVY_LEET])
def test_letters_apart_and_digits_for_letters_are_read(said: str, meant: str) -> None:
    assert normalize(said).text == meant


@pytest.mark.parametrize(("said", "meant"), KILOMETRES)
def test_kms_after_a_count_are_kilometres(said: str, meant: str) -> None:
    assert normalize(said).text == meant


@pytest.mark.parametrize(("plain", "disguise"), [(p, d) for p, ds in DISGUISES.items() for d in ds])
def test_a_disguise_reads_like_the_plain_words(plain: str, disguise: str) -> None:
    assert normalize(disguise).text == plain


@pytest.mark.parametrize("text", UNTOUCHED)
def test_ordinary_text_stays_as_it_is(text: str) -> None:
    assert normalize(text).text == text
    assert not normalize(text).disguised


def test_stretched_words_and_chat_spelling_are_no_disguise() -> None:
    assert normalize("sooo goooood, i dont know").text == "so good, i don't know"
    assert not normalize("sooo goooood, i dont know").disguised
    assert normalize("k1ll").disguised
    assert normalize("ki\u200bll").disguised


def test_an_emoji_is_a_word_only_where_a_word_stands() -> None:
    assert normalize("bring a 🔫 to 🏫").text == "bring a gun to school"
    assert normalize("lol that was funny 💀😂").text == "lol that was funny"


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("i want to d**i**e", "i want to die"),
        ("i want to ~~d~~ie", "i want to die"),
        ("i want to d`i`e", "i want to die"),
        ("i want to <b>d</b>ie", "i want to die"),
        ('i want to d<span style="color:red">i</span>e', "i want to die"),
        ("i want to d<!-- x -->ie", "i want to die"),
        ("i want to d&#105;e", "i want to die"),
        ("i want to d&#x69;e", "i want to die"),
        ("i want to d&shy;ie", "i want to die"),
        ("i&nbsp;want to die", "i want to die"),
        (r"i want to d\u0069e", "i want to die"),
        (r"hello\ni want to die", "hello i want to die"),
        (r"what the f\*ck", "what the fuck"),
        # Marks around words, sums and tags that are none stay as they are.
        ("**wolves** howl, they *really* do", "**wolves** howl, they *really* do"),
        ("2*3*4 and 3 < 5 and a<b", "2*3*4 and 3 < 5 and a<b"),
        ("fish &chips; and at&t", "fish &chips; and at&t"),
    ],
)
def test_marks_inside_a_word_hide_nothing(written: str, shown: str) -> None:
    assert shown in normalize(written).text
    found = normalize(written)
    assert len(found.offsets) == len(found.text) + 1


def test_a_span_over_markup_leads_back_to_it() -> None:
    found = normalize("I w**a**nt to d&#105;e, now")
    start = found.text.index("die")
    low, high = found.span(start, start + 3)
    assert found.original[low:high] == "d&#105;e"


def test_a_span_leads_back_to_the_original() -> None:
    original = "pls k\u200b1ll   my dog"
    shown = normalize(original)
    assert shown.text == "pls kill my dog"
    start, end = shown.span(4, 8)
    assert original[start:end] == "k\u200b1ll"
    start, end = shown.span(9, 15)
    assert original[start:end] == "my dog"


@given(st.text(max_size=200))
def test_any_text_gives_a_valid_map(text: str) -> None:
    shown = normalize(text)
    assert len(shown.offsets) == len(shown.text) + 1
    assert shown.offsets[-1] == len(text)
    assert all(a <= b for a, b in zip(shown.offsets, shown.offsets[1:], strict=False))
    assert shown.original == text


@given(st.text(alphabet=" .-_*1!@$|kilmeo'", max_size=80))
def test_hard_alphabets_do_not_break_it(text: str) -> None:
    shown = normalize(text)
    assert len(shown.offsets) == len(shown.text) + 1


@pytest.mark.parametrize(
    "text",
    ["", "\x00", "\ud800\udfff", "🎉" * 50, "\u202eabc\u202c", "שלום עולם", "مرحبا", "\u0301" * 99],
)
def test_odd_text_is_no_error(text: str) -> None:
    assert normalize(text).offsets[-1] == len(text)


@pytest.mark.parametrize(
    "text",
    [
        "a " * 50_000,
        "killme" * 17_000,
        "k.i.l.l." * 12_500,
        "1" * 1_000_000,
        "a*" * 50_000,
        "a!" * 50_000,
    ],
    ids=["letters", "joined", "dotted", "digits", "stars", "signs"],
)
def test_long_texts_of_every_kind_end(text: str) -> None:
    assert normalize.__wrapped__(text).offsets[-1] == len(text)


WORDS = "i my want to kill dont im it's kms gr8 unalive zxqv lol 1 12 1999 12345 1m k1ll s.u.i"
PIECES = [*WORDS.split(" "), "sui", "cide", "eid", "k i l l", "\n", *" " * 5, *".,!?'-*$é💀"]


@example("1 want to know")
@example("57341 a car")
@given(st.lists(st.sampled_from(PIECES), max_size=24).map("".join))
def test_the_quick_look_at_ordinary_words_changes_nothing(text: str) -> None:
    quick = normalize.__wrapped__(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Tokens, "_is_ordinary", lambda self, low, high: False)
        thorough = normalize.__wrapped__(text)
    assert (quick.text, list(quick.offsets)) == (thorough.text, list(thorough.offsets))
    assert quick.disguised == thorough.disguised


def test_known_words_are_letters_or_read_further() -> None:
    assert {w for w in vocabulary().costs if not w.isalpha()} <= EUPHEMISMS.keys()


def test_the_repr_holds_no_words() -> None:
    assert "secret" not in repr(normalize("my secret"))


def test_every_process_reads_a_text_alike() -> None:
    # As many blanks as hyphens: which of them is the usual gap must not hang on a hash's seed.
    texts = ["h e l p m.e.n.o.w", "k i.l-l m.y-s e.l-f", "h-e l.p-m e.n-o w", "i.a.m.s.a d n o w"]
    script = (
        "import sys; from kidrails_guard.normalize import normalize\n"
        "print([normalize(text).text for text in sys.argv[1:]])"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", script, *texts],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
        ).stdout
        for seed in "0123"
    }
    read = ["help me now", "kill myself", "help me now", "i am sad now"]
    assert said == {f"{read}\n".encode()}


def test_thousands_of_apostrophes_among_letters_are_read() -> None:
    assert normalize("i ' d g o " * 3000).text.startswith("i'd go")

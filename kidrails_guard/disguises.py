"""Tables of the ways in which words are disguised: look-alikes, digits, emoji, chat spelling."""

from __future__ import annotations

from typing import Final


def _pairs(table: str) -> dict[str, str]:
    return dict(entry.split("=") for entry in table.split())


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


def _list(words: str) -> tuple[str, ...]:
    return tuple(words.split())


CONFUSABLES: Final[dict[str, str]] = _pairs(
    # Cyrillic
    "а=a б=6 в=b г=r ԁ=d е=e ё=e з=3 и=u й=u і=i ї=i ј=j к=k ӏ=l м=m н=h о=o п=n р=p с=c т=t "
    "у=y ф=o х=x ц=u ч=4 ш=w щ=w ѕ=s ԛ=q ԝ=w ъ=b ь=b ы=bl э=e я=r һ=h ҝ=k қ=k ѵ=v ѡ=w ү=y ұ=y "
    "є=e ґ=r ђ=h ћ=h љ=lb њ=hb џ=u ғ=f ҫ=c ԍ=g ӧ=o ӓ=a ԑ=e "
    # Greek
    "α=a β=b γ=y δ=d ε=e ζ=z η=n θ=o ι=i κ=k λ=l μ=u ν=v ξ=e ο=o π=n ρ=p σ=o ς=s τ=t υ=u φ=o "
    "χ=x ψ=w ω=w ϲ=c ϳ=j ϝ=f "
    # Armenian, and letters of other scripts that are used as look-alikes
    "ա=w գ=q զ=q է=t թ=p ի=h լ=l կ=u հ=h ձ=d ղ=n ո=n ռ=n ս=u վ=u ց=g ւ=i ք=p օ=o ֆ=f յ=j ე=e ყ=y "
    "ხ=b ɑ=a ɡ=g ɩ=i ı=i ʟ=l ɴ=n ʀ=r ᴛ=t ᴠ=v ᴡ=w ᴢ=z ʏ=y ꓲ=i ꓡ=l ꓗ=k ꓢ=s ꓮ=a ꓰ=e ꓳ=o ꓓ=d "
    "ᎥɅ=ia Ꭵ=i Ꮶ=k Ꮮ=l Ꭺ=a Ꭼ=e Ꮪ=s Ꭰ=d Ꮋ=h ⅼ=l ⅰ=i ∂=d ∑=e √=v ∞=oo ø=o ł=l đ=d ħ=h ŧ=t þ=p "
    "ƙ=k ƒ=f ɓ=b ɗ=d ƥ=p ƭ=t ʞ=k ɹ=r ʇ=t ʌ=v ʍ=w ǝ=e ɐ=a ɔ=c ɟ=f ƃ=g ɥ=h ᴉ=i ꞁ=l ɯ=m ɾ=j ʎ=y"
)
"""Characters that look like a Latin letter; used where a text has Latin letters too."""

LEET: Final[dict[str, str]] = {
    "0": "o",
    "1": "il",
    "3": "e",
    "4": "a",
    "5": "s",
    "6": "bg",
    "7": "t",
    "8": "b",
    "9": "g",
    "@": "a",
    "$": "s",
    "!": "il",
    "|": "li",
    "€": "e",
    "£": "l",
    "¢": "c",
    "<": "c",
}
"""Digits and signs with the letters they stand for, the likelier first."""

SHORT_LEET: Final = {"1m": "i'm", "1d": "id", "4m": "am"}
"""Words of two letters that are units elsewhere; read so where a text is full of digits."""

TWO_LETTERS: Final = _set(
    "to is it in so as at go no on of or be he me we us am an by do my up hi if tv"
)
"""Words of two letters that a digit may hide in (``7o``); other pairs are units or names."""

EMOJI: Final[dict[str, str]] = _pairs(
    "🔪=knife 🗡=knife ⚔=sword 🔫=gun 💣=bomb 🧨=firework 💀=dead ☠=dead ⚰=dead 🪦=dead "
    "🩸=blood 💊=pills 💉=needle 🚬=cigarette 🍺=beer 🍻=beer 🍷=wine 🥃=whisky "
    "🍸=cocktail 🌿=weed 🍁=weed 🔥=fire 🪓=axe 🏹=bow ☢=nuclear ☣=poison 🧪=chemicals "
    "🪢=rope 🪒=razor 🍆=penis 🍑=bum 🔞=porn 💩=poo 🖕=fuck 🏠=home 🏡=home 🏫=school "
    "🏥=hospital 📱=phone ☎=phone 📞=phone 📧=email 📸=photo 📷=photo 🤳=selfie 🔑=key "
    "🔒=password 💰=money 💵=money 💳=card 🎰=gambling 🎲=dice 🐶=dog 🐕=dog 🐱=cat 🐈=cat "
    "🐰=rabbit 🐇=rabbit 🐹=hamster 🐴=horse 🐷=pig 🐮=cow 🐔=chicken 🐺=wolf 🦊=fox "
    "🐻=bear 🦁=lion 🐯=tiger 🦈=shark 🐍=snake 🕷=spider 🐝=bee 🐜=ant 🐟=fish 👩=woman "
    "👨=man 👧=girl 👦=boy 👶=baby 👵=grandma 👴=grandpa 👪=family 👮=police 👻=ghost "
    "🤡=clown 🤖=robot 👽=alien 🧙=wizard 🧟=zombie 👿=devil 😈=devil 🎅=santa 🚗=car "
    "🚌=bus 🚲=bike 🚂=train 🚆=train ✈=plane 🚀=rocket 🛏=bed 🚪=door 🪟=window 🌳=tree "
    "🌉=bridge 🏊=swim ⚽=football 🏀=basketball 🎮=game 📚=book 📖=book ✂=scissors "
    "🔨=hammer 🧹=broom 🍎=apple 🍕=pizza 🍰=cake 🍬=sweets 🍫=chocolate 🍦=icecream "
    "❤=love 💔=heartbroken 👁=eye ✋=hand 👊=punch 🤛=punch 🤜=punch 🥊=punch 👋=hi 👍=good "
    "👎=bad 😢=sad 😭=sad 😞=sad ☹=sad 😡=angry 😠=angry 🤬=angry 😨=scared 😱=scared "
    "🤫=secret 🤐=secret 😴=sleep 🛌=sleep 🤢=sick 🤮=vomit 💥=explode 🌊=water ☀=sun "
    "🌙=moon ⭐=star 🌟=star 🎁=present 🎂=birthday"
)
"""Emoji that stand for a word when they take a word's place in a sentence."""

UNIT_WORDS: Final = _set("sex sad bad dad")
"""Words that look like a number with its unit (``54d``) and are read as words all the same."""

ALWAYS_WORDS: Final = _set(
    "knife gun bomb pills needle cigarette weed razor rope poison penis porn"
)
"""Emoji that are read as their word wherever they stand; others may be decoration."""

EMOJI_VERBS: Final = {"dead": "die", "gun": "shoot", "knife": "kill", "blood": "bleed"}
"""What an emoji says where a verb stands: "i want to 💀", "🔪 my teacher"."""

VERB_PLACE: Final = _set("to gonna wanna will can could should lets i ill")

WORD_PLACE: Final = _set(
    "a an the my your his her our their this that some with to be is am are was of for and or me "
    "him them you say wanna gonna want use buy get need have make by from in on at into like not i "
    "no dont can will lets who how u ur every all more"
)
"""Words after which (or, for pronouns, before which) an emoji is read as a word."""

OBJECTS: Final = _set(
    "me my myself him her them it you yourself himself herself us the a this that someone somebody "
    "people everyone at up"
)

CONTRACTIONS: Final[dict[str, str]] = {
    word.replace("'", ""): word
    for word in _list(
        "don't can't won't isn't aren't wasn't weren't doesn't didn't hasn't haven't hadn't "
        "wouldn't couldn't shouldn't mustn't ain't i'm i've you're you've you'll you'd they're "
        "they've they'll they'd he's she's it'll that's what's where's there's here's how's who's "
        "everyone's somebody's nobody's"
    )
}
"""Contractions written without their apostrophe, as children do, where that is no other word."""

EUPHEMISMS: Final[dict[str, str]] = {
    "kys": "kill yourself",
    "kysing": "kill yourself",
    "kms": "kill myself",
    "kmsing": "kill myself",
    "unalive": "kill",
    "unalived": "killed",
    "unaliving": "killing",
    "unaliveing": "killing",
    "unalives": "kills",
    "sewerslide": "suicide",
    "sewerside": "suicide",
    "sewacide": "suicide",
    "sooicide": "suicide",
    "suislide": "suicide",
    "seggs": "sex",
    "segs": "sex",
    "seggsy": "sexy",
    "pron": "porn",
    "stfu": "shut the fuck up",
    "gtfo": "get the fuck out",
    "l8r": "later",
    "gr8": "great",
    "m8": "mate",
    "h8": "hate",
    "b4": "before",
    "w8": "wait",
    "2day": "today",
    "2nite": "tonight",
    "any1": "anyone",
    "some1": "someone",
    "every1": "everyone",
    "4ever": "forever",
    "4eva": "forever",
    "1'm": "i'm",
    "1've": "i've",
    "1'll": "i'll",
    "1s": "is",
    "1t": "it",
    "1n": "in",
    "1f": "if",
    "howto": "how to",
    "alot": "a lot",
}
"""Short forms and code words, with what they say."""

DEAD_AFTER: Final = _set("be become am was is being")

COUNTS: Final = _set(
    "many few some several more extra two three four five six seven eight nine ten eleven twelve "
    "fifteen twenty thirty forty fifty sixty seventy eighty ninety hundred hundreds thousand "
    "thousands million millions billion billions of"
)
"""Words before kilometres: ``how many kms is it to the moon``."""

AGE_STARTS: Final = _set("i'm im am be age aged turned turn grade year years")
"""Words that make the number after them an age or a grade, not a distance."""

JOINTS: Final = _set(
    "my me myself you your yourself him them himself herself themselves to want wanna gonna how "
    "what why the dont cant wont people someone everyone teacher mom mum dad brother sister kids"
)
"""Words that sit in joined sentences; without one of them, letters are left in one piece."""

JOINT_STARTS: Final = _set("my how what why dont cant want wanna")
"""Of these, the ones that may begin a pair; the others only end one (``kill|him``)."""

KEY: Final = _set(
    "kill kills killed killing killer murder suicide suicidal selfharm stab shoot shooting poison "
    "bomb bombs weapon weapons gun guns knife knives dead death hurt hurting cutting strangle "
    "porn porno sexy naked nude nudes penis vagina boobs fuck fucking fucker shit bitch bastard "
    "cunt asshole arsehole whore slut dick rape raped raping molest drugs cocaine heroin weed vape "
    "vaping alcohol vodka cigarette cigarettes overdose explosive password address hack hacking "
    "myself yourself unalive abuse abused touched secret steal stealing"
)
"""Words that are looked for in disguises that would be too eager for ordinary words."""

MASKED: Final = _list(
    "fuck fucking fucker fucked shit shitty bullshit bitch bitches cunt cock dick bastard asshole "
    "arsehole ass arse pussy whore slut damn piss wanker twat crap hell bloody kill killing murder "
    "suicide porn porno sex sexy rape raped nude nudes naked penis vagina boobs tits drugs weed "
    "die dead stab shoot bomb gun cut cutting hate idiot stupid"
)
"""Words that are written with stars; a masked word reads as the first that fits."""

I_VERBS: Final = _set(
    "am want wanna feel hate will cant dont have need love think wish was would could should had "
    "got cut just really hurt did know live gonna do never tried swallowed took ate drank smoked "
    "vaped stole hit kissed met told gave sent saw heard said hope wonder swear deserve keep "
    "started stopped thought drink eat play go see make felt bought 4m"
)
I_STATES: Final = _set(
    "so not gonna going really sad scared afraid tired mad angry alone bored done very the your in "
    "at still just being always too never"
)
"""After ``1m``, these say that it means "I'm" and not a metre."""
AUXILIARIES: Final = _set("do can should would could did will")
QUESTION_WORDS: Final = _set("how where why what when who")
MODALS: Final = _set("can could should may")
NOT_AFTER_I: Final = _set(
    "and or plus of x person people man kid child day year hour minute million thousand hundred"
)
"""Words that make the 1 before them a number: ``can 1 person lift a car``."""
TO_AFTER: Final = _set(
    "want wanted wants wanna need needed going gonna have had how try trying tried plan planning "
    "ready like love hate hope wish used told tell tells asked ways way afraid scared said"
)
TO_DO: Final = _set(
    "die be kill hurt cut stab hang shoot poison hit touch send meet make get go do see live eat "
    "stop end jump take steal hack vape drown choke burn starve sleep keep tell show buy find"
)
"""Where 2 stands between one of those and one of these, it is said for "to"."""
CLAUSE_STARTS: Final = _set("and but because cuz so that when if cause then today now")

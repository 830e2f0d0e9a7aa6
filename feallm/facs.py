"""The Facial Action Coding System as FEALLM uses it, and the reading of answers written in it.

Twelve action units and seven expressions, as the paper takes them from Aff-Wild2. Names, muscles
and effects follow Ekman, Friesen and Hager (2002); the prototypes follow EMFACS, cut to the twelve.
An action unit is an int (12), never "AU12", outside of text.
"""

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class ActionUnit:
    """One action unit: its FACS name, the muscle behind it, where it shows and what it does."""

    name: str
    muscle: str
    region: str
    effect: str


ACTION_UNITS: dict[int, ActionUnit] = {
    1: ActionUnit(
        "inner brow raiser", "frontalis, medial part", "brows", "raises the inner ends of the brows"
    ),
    2: ActionUnit(
        "outer brow raiser",
        "frontalis, lateral part",
        "brows",
        "raises the outer ends of the brows",
    ),
    4: ActionUnit(
        "brow lowerer", "corrugator supercilii", "brows", "draws the brows down and together"
    ),
    6: ActionUnit(
        "cheek raiser",
        "orbicularis oculi, orbital part",
        "eyes",
        "lifts the cheeks and narrows the eyes",
    ),
    7: ActionUnit(
        "lid tightener", "orbicularis oculi, palpebral part", "eyes", "tightens the eyelids"
    ),
    10: ActionUnit("upper lip raiser", "levator labii superioris", "mouth", "raises the upper lip"),
    12: ActionUnit(
        "lip corner puller", "zygomaticus major", "mouth", "pulls the lip corners up and back"
    ),
    15: ActionUnit(
        "lip corner depressor", "depressor anguli oris", "mouth", "pulls the lip corners down"
    ),
    23: ActionUnit("lip tightener", "orbicularis oris", "mouth", "tightens and narrows the lips"),
    24: ActionUnit("lip pressor", "orbicularis oris", "mouth", "presses the lips together"),
    25: ActionUnit("lips part", "depressor labii inferioris", "mouth", "parts the lips"),
    26: ActionUnit("jaw drop", "masseter, relaxed", "mouth", "lets the jaw drop"),
}
AUS = tuple(ACTION_UNITS)

EXPRESSIONS = ("Neutral", "Anger", "Disgust", "Fear", "Happiness", "Sadness", "Surprise")

PROTOTYPES: dict[str, tuple[int, ...]] = {
    "Neutral": (),
    "Anger": (4, 7, 10, 23, 24),
    "Disgust": (4, 7, 10, 15),
    "Fear": (1, 2, 4, 7, 25, 26),
    "Happiness": (6, 12, 25),
    "Sadness": (1, 4, 15),
    "Surprise": (1, 2, 25, 26),
}
"""Action units that speak for an expression."""

_WORDS = {
    "Neutral": "neutral|neutrality",
    "Anger": "anger|angry",
    "Disgust": "disgust|disgusted",
    "Fear": "fear|fearful|afraid|scared",
    "Happiness": "happiness|happy|joy|joyful",
    "Sadness": "sadness|sad",
    "Surprise": "surprise|surprised",
}
_EXPRESSION = re.compile("|".join(rf"\b(?P<{e}>{w})\b" for e, w in _WORDS.items()), re.IGNORECASE)
_AU_LIST = re.compile(
    r"\b(?:AUs?|action[\s-]units?)[\s:*-]*\d{1,2}(?!\d)"
    r"(?:(?:\s*(?:,|\+|/|&|and|or|,\s*and)\s*)\d{1,2}(?!\d))*",
    re.IGNORECASE,
)
_AU_NAME = re.compile(
    "|".join(rf"\b(?P<au{k}>{au.name})\b" for k, au in ACTION_UNITS.items()), re.IGNORECASE
)
_CLAUSE = re.compile(  # "AU4: not present", "**AU4**: no" and "Action units: 6, 12" stay whole
    r"(?<!\d)[.;!?]|(?<![\d)*]):(?![\s*]*(?:\d|(?:not?|none|absent|inactive|missing|false|n/a)\b))"
    r"|\n|\bbut\b|\bwhile\b|\bwhereas\b|\balthough\b",
    re.IGNORECASE,
)
_LINK = re.compile(r"[\s,()+/&:|*-]*(?:\b(?:and|or|nor)\b)?[\s,()]*")
_DENIAL = re.compile(
    r"\b(?:no|not|without|neither|nor|never|lacks?|lacking|absence of|rather than|instead of)"
    r"\b(?!\s+only)|n't\b",
    re.IGNORECASE,
)
_DENIED_AFTER = re.compile(
    r"[\s)*]*(?:is|are|was|were|remains?|stays?|seems?|appears?)"
    r"(?:n't|\s+(?:not|absent|inactive|missing|relaxed)\b)"
    # a list of all units with a word or a number for each
    r"|[\s)(*]*(?:[:|=–—-]+[\s(*]*)?(?:absent|inactive|not\s+"
    r"(?:present|active|activated|visible|observed|detected|seen|shown|evident|engaged))\b"
    r"|[\s)*]*[:|=–—-]+[\s(*]*(?:not?|none|false|missing|n/a|0(?:\.0+)?(?!\.?\d))"
    r"[\s)*]*(?=[.,;|\n]|$)",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Analysis:
    """What a text says: an expression or None, the action units of the twelve, others, the text."""

    expression: str | None
    aus: tuple[int, ...]
    unknown_aus: tuple[int, ...]
    text: str


def describe(au: int) -> str:
    """Return "AU12 (lip corner puller)"."""
    return f"AU{au} ({ACTION_UNITS[au].name})"


def join(parts: list[str]) -> str:
    """Return "a", "a and b" or "a, b and c"."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def parse_analysis(text: str) -> Analysis:
    """Read the expression and the action units a text asserts; what it does not say stays out.

    An expression that opens the text wins. Otherwise the text must assert exactly one, or it gives
    None: nothing is guessed from counts. Action units are taken by number ("AU6", "AUs 1, 2 and
    4") and by full FACS name. A mention that its own clause denies ("no AU4", "AU4 is absent")
    does not count. Units outside the twelve are kept apart.
    """
    opening = re.match(rf"\W*(?:{'|'.join(EXPRESSIONS)})\b", text, re.IGNORECASE)
    asserted: set[str] = set()
    found: set[int] = set()
    for clause in _CLAUSE.split(text):
        for match in _asserted(clause):
            if match.re is _AU_LIST:
                found |= {int(n) for n in re.findall(r"\d+", match.group())}
            elif match.re is _AU_NAME:
                found.add(int(match.lastgroup[2:]))
            else:
                asserted.add(match.lastgroup)
    if opening:
        expression = opening.group().strip(" \n\t*_\"'").capitalize()
    else:
        expression = asserted.pop() if len(asserted) == 1 else None
    return Analysis(
        expression=expression if expression in EXPRESSIONS else None,
        aus=tuple(sorted(k for k in found if k in ACTION_UNITS)),
        unknown_aus=tuple(sorted(k for k in found if k not in ACTION_UNITS)),
        text=text,
    )


def _asserted(clause: str) -> list[re.Match]:
    """Return the mentions in a clause that it does not deny; a denial covers a whole list."""
    mentions = sorted(
        (m for pattern in (_EXPRESSION, _AU_LIST, _AU_NAME) for m in pattern.finditer(clause)),
        key=lambda m: m.start(),
    )
    lists: list[list[re.Match]] = []
    for mention in mentions:
        linked = lists and _LINK.fullmatch(clause, lists[-1][-1].end(), mention.start())
        if linked:
            lists[-1].append(mention)
        else:
            lists.append([mention])
    kept, start = [], 0
    for mentioned in lists:
        before = re.split(r"[,|]", clause[start : mentioned[0].start()])[-1]
        start = mentioned[-1].end()
        if not _DENIAL.search(before) and not _DENIED_AFTER.match(clause, start):
            kept += mentioned
    return kept


def supporting(expression: str, aus: tuple[int, ...]) -> tuple[int, ...]:
    """Return those of `aus` that belong to the expression's prototype, ascending."""
    return tuple(k for k in sorted(aus) if k in PROTOTYPES[expression])

"""Does what the model writes agree with what it decided, and does it answer what was asked?

Read from the text alone, by the format of an FEA answer: the label opens a summary, the list of
action units opens a movement description, and a reasoning goes from units to the expression. The
label or the list alone is a short answer and none of the three.
"""

import re

from feallm.facs import EXPRESSIONS, parse_analysis
from feallm.predictor import Reading
from feallm.prompts import LIST_OPENING
from train.fea.writer import SIGNS

_LABEL = "|".join(EXPRESSIONS)
_KINDS = {
    "summary": re.compile(rf"(?:{_LABEL})\.\s+\S"),
    "movement": re.compile(re.escape(LIST_OPENING) + r"[^.]*\.\s+\S"),
    "reasoning": re.compile(
        rf"(?:AU\d|No (?:single )?action unit|Brows,).*"
        rf"(?:(?:points? to|reads as|expression is) (?:{_LABEL})|less certain)\.$",
        re.DOTALL,
    ),
}


def kind_of(text: str) -> str | None:
    """Return which part of an FEA answer a text is: summary, movement, reasoning, or None."""
    return next((kind for kind, form in _KINDS.items() if form.match(text)), None)


def signs_in(text: str) -> set[int]:
    """Return the action units whose signs ("raised cheeks") a summary names."""
    return {k for k, signs in SIGNS.items() if any(sign in text for sign in signs)}


def disagreements(reading: Reading) -> list[str]:
    """Return what the three texts of an analysis say otherwise than it decided; [] is agreement."""
    expression, aus = reading.expression, set(reading.aus)
    summary, movements, reasoning = map(
        parse_analysis, (reading.summary, reading.movements, reading.reasoning)
    )
    checks = {
        "the summary names another expression": summary.expression == expression,
        "the summary names a sign of an inactive unit": signs_in(summary.text) <= aus,
        "the movements name other units": set(movements.aus) == aus and not movements.unknown_aus,
        "the reasoning is about another expression": reasoning.expression == expression,
        "the reasoning names an inactive unit": set(reasoning.aus) <= aus
        and not reasoning.unknown_aus,
        "a text has another form": (
            kind_of(reading.summary),
            kind_of(reading.movements),
            kind_of(reading.reasoning),
        )
        == ("summary", "movement", "reasoning"),
    }
    return [said for said, holds in checks.items() if not holds]

"""Questions worth asking about a face, given what was seen in it and what was asked before."""

from feallm.facs import supporting
from feallm.predictor import Reading

FIRST = ("What emotion is this, and why?", "Which action units are active?")
UNSURE = 0.6
"""Below this probability of the expression, doubt is worth a question."""


def suggest(reading: Reading | None, asked: list[str], count: int = 3) -> list[str]:
    """Return `count` questions not yet asked, the most fitting first.

    Without a reading, those that fit any face.
    """
    fitting = [*FIRST]
    if reading:
        ranked = sorted(
            reading.expression_probabilities, key=reading.expression_probabilities.get, reverse=True
        )
        helps = supporting(reading.expression, reading.aus)
        if 12 in reading.aus:
            fitting.append("Is the smile genuine?")
        if reading.expression_probabilities[ranked[0]] < UNSURE:
            fitting.append("How sure are you?")
            fitting.append(f"Could it be {ranked[1].lower()}?")
        if helps:
            fitting.append(f"What is AU{helps[0]}?")
        fitting.append("Which part of the face says so?")
        fitting.append(f"What would make it {ranked[1].lower()}?")
    fitting += ["What about the mouth?", "What about the brows?", "How sure are you?"]
    fresh = [q for q in dict.fromkeys(fitting) if q not in asked]
    return fresh[:count]

"""The offline writer: an expression and its action units become the three texts of an FEA answer.

A small grammar with variety, seeded. Its format is the paper's as far as Figure 4 shows it: the
label first, then the description. What it writes names only the action units it is given, and
speaks of what a face shows, never of what a person feels.
"""

import random

from feallm.facs import ACTION_UNITS, PROTOTYPES, describe, join, supporting
from feallm.prompts import list_action_units

LOOKS = {
    "Neutral": (
        "a calm and even look",
        "a relaxed look without a strong sign of emotion",
        "an unmoved, attentive look",
    ),
    "Anger": (
        "a hard and tense look",
        "a stern, irritated expression",
        "an angry and forceful look",
    ),
    "Disgust": (
        "a look of dislike",
        "a repelled, averse expression",
        "a look that turns away from something",
    ),
    "Fear": (
        "a frightened, tense look",
        "an alarmed expression",
        "a look on guard, as if before a threat",
    ),
    "Happiness": (
        "a joyful and engaging look",
        "a warm, cheerful expression",
        "a bright and friendly look",
    ),
    "Sadness": (
        "a downcast, sorrowful look",
        "a heavy, unhappy expression",
        "a gloomy and withdrawn look",
    ),
    "Surprise": (
        "a startled, wide-open look",
        "an astonished expression",
        "the look of someone caught off guard",
    ),
}
SUBJECTS = ("The person in the image", "The person", "This face", "The face in the image")
SHOWS = ("shows", "displays", "wears", "presents")

SIGNS = {  # how an active unit reads in running text, after "with"
    1: ("raised inner brows", "inner brows drawn up"),
    2: ("raised outer brows", "the outer brows lifted"),
    4: ("lowered brows", "brows drawn together"),
    6: ("raised cheeks", "lifted cheeks and narrowed eyes"),
    7: ("tightened eyelids", "tense eyelids"),
    10: ("a raised upper lip", "the upper lip pulled up"),
    12: ("lip corners pulled up", "a smiling mouth"),
    15: ("lip corners turned down", "a downturned mouth"),
    23: ("tightened lips", "narrow, tense lips"),
    24: ("pressed lips", "lips pressed together"),
    25: ("parted lips", "slightly open lips"),
    26: ("a dropped jaw", "an open jaw"),
}

BEARING = {  # (expression, unit): what the unit contributes; otherwise it is named as compatible
    ("Happiness", 6): (
        "lifts the cheeks, which marks a smile that reaches the eyes",
        "narrows the eyes as a full smile does",
    ),
    ("Happiness", 12): (
        "pulls the lip corners up into a smile",
        "draws the smile, the core of a happy face",
    ),
    ("Happiness", 25): ("opens the smile", "parts the lips as an open smile does"),
    ("Sadness", 1): (
        "raises the inner brows, a sign of sorrow",
        "gives the brows the slant of sadness",
    ),
    ("Sadness", 4): ("draws the brows together in distress", "adds tension between the brows"),
    ("Sadness", 15): ("pulls the lip corners down, as in sorrow", "turns the mouth down"),
    ("Surprise", 1): (
        "raises the inner brows, opening the face",
        "lifts the brows, as at something unexpected",
    ),
    ("Surprise", 2): ("raises the outer brows into an arch", "completes the raised, arched brows"),
    ("Surprise", 25): ("parts the lips in astonishment", "opens the mouth"),
    ("Surprise", 26): (
        "lets the jaw drop, as in astonishment",
        "drops the jaw, a clear mark of surprise",
    ),
    ("Fear", 1): ("raises the inner brows in alarm", "lifts the brows, as before a threat"),
    ("Fear", 2): ("raises the outer brows", "helps to lift the whole brow in alarm"),
    ("Fear", 4): ("pulls the raised brows together, as under threat", "adds tension to the brows"),
    ("Fear", 7): ("tenses the eyelids", "tightens the lids, as on guard"),
    ("Fear", 25): ("parts the lips under tension", "opens the mouth in alarm"),
    ("Fear", 26): ("lets the jaw drop in alarm", "opens the jaw"),
    ("Anger", 4): (
        "lowers the brows into a frown",
        "draws the brows down, the core of an angry face",
    ),
    ("Anger", 7): ("hardens the stare by tightening the lids", "tenses the eyelids into a glare"),
    ("Anger", 10): ("raises the upper lip, as in a snarl", "bares the teeth a little"),
    ("Anger", 23): ("tightens the lips, a sign of held-back force", "narrows the lips in tension"),
    ("Anger", 24): ("presses the lips together in restraint", "presses the mouth shut"),
    ("Disgust", 4): ("lowers the brows in aversion", "draws the brows down"),
    ("Disgust", 7): ("narrows the eyes against the sight", "tightens the lids"),
    ("Disgust", 10): (
        "raises the upper lip, the core of a disgusted face",
        "pulls the upper lip up in aversion",
    ),
    ("Disgust", 15): ("pulls the lip corners down in dislike", "turns the mouth down in aversion"),
}


def summary(expression: str, aus: tuple[int, ...], rng: random.Random) -> str:
    """Emotion summary: the label, then what the face shows."""
    shown = supporting(expression, aus) or aus
    picked = sorted(rng.sample(shown, min(len(shown), 3)))
    text = (
        f"{expression}. {rng.choice(SUBJECTS)} {rng.choice(SHOWS)} {rng.choice(LOOKS[expression])}"
    )
    if picked:
        return f"{text} with {join([rng.choice(SIGNS[k]) for k in picked])}."
    return f"{text}, and no action unit stands out."


def movement(aus: tuple[int, ...], rng: random.Random) -> str:
    """Facial movement description: the list of active units, then what each one does, by region."""
    text = list_action_units(aus)
    if not aus:
        rest = ("The muscles of the face are at rest.", "Brows, eyes and mouth are relaxed.")
        return f"{text} {rng.choice(rest)}"
    for region in ("brows", "eyes", "mouth"):
        there = [k for k in sorted(aus) if ACTION_UNITS[k].region == region]
        if there:
            place = rng.choice(("At the", "Around the"))
            text += (
                f" {place} {region}, {join([f'AU{k} {ACTION_UNITS[k].effect}' for k in there])}."
            )
    return text


def reasoning(expression: str, aus: tuple[int, ...], rng: random.Random) -> str:
    """Emotion reasoning: how each active unit bears on the expression."""
    if not aus:
        if expression == "Neutral":
            return rng.choice(
                (
                    "No action unit is active, and a face at rest reads as Neutral.",
                    "Brows, eyes and mouth are at rest, so the expression is Neutral.",
                )
            )
        return (
            f"No single action unit is clearly active; "
            f"the overall look of the face suggests {expression}, "
            "so this reading is less certain."
        )
    helps = supporting(expression, aus)
    others = tuple(k for k in sorted(aus) if k not in helps)
    sentences = [f"{describe(k)} {rng.choice(BEARING[expression, k])}." for k in helps]
    if others:
        named = join([describe(k) for k in others])
        verb = "is" if len(others) == 1 else "are"
        if expression == "Neutral":
            sentences.append(f"{named} {verb} active, but too little to change the calm look.")
        else:
            sentences.append(f"{named} {verb} active too, without deciding the expression.")
    if helps:
        units = join([f"AU{k}" for k in helps])
        close = (
            f"Together, {units} point to {expression}.",
            f"This is why the face reads as {expression}.",
        )
        if len(helps) == 1:
            close = (
                f"{units} points to {expression}.",
                f"This is why the face reads as {expression}.",
            )
        sentences.append(rng.choice(close))
    else:
        sentences.append(f"The face as a whole reads as {expression}.")
    return " ".join(sentences)


def missing(expression: str, aus: tuple[int, ...]) -> tuple[int, ...]:
    """Return the units of an expression's prototype that are not active."""
    return tuple(k for k in PROTOTYPES[expression] if k not in aus)

"""From answers to figures: what an answer says, and how often that is right.

An answer that names no expression, or several, and one on the action units that names none and
does not say that there are none, is unreadable, or refused where it says so. Both are counted and
wrong: nothing is guessed.
"""

import re

import numpy as np

from feallm.facs import AUS, EXPRESSIONS, parse_analysis
from train.metrics import expression_figures, f1

_REFUSAL = re.compile(
    r"\b(?:sorry|apologi[sz]e|as an AI|unable to|not able to|(?:can|could|will|do) ?not|"
    r"(?:ca|wo|do)n['’]t|endpoint refused)\b",
    re.IGNORECASE,
)
_NONE = re.compile(
    r"\bnone\b|\bno (?:\w+ ){0,2}(?:action units?|AUs?|(?:facial )?movements?|muscles?)\b",
    re.IGNORECASE,
)


def read_answer(kind: str, text: str) -> dict:
    """Return what an answer says: `said`, an expression or a list of units, and its `state`.

    Args:
        kind: "expression" or "units".
    """
    found = parse_analysis(text)
    said = found.expression if kind == "expression" else list(found.aus)
    empty = kind == "units" and (found.unknown_aus or _NONE.search(text))
    if said or empty:
        state = "answered"
    else:
        state = "refused" if _REFUSAL.search(text) else "unreadable"
    return {"said": said, "state": state}


def expression_scores(entries: list[dict]) -> dict:
    """Return the figures of the answers on expressions."""
    truth = np.array([EXPRESSIONS.index(e["truth"]) for e in entries])
    said = np.array([EXPRESSIONS.index(e["said"]) if e["said"] else -1 for e in entries])
    figures = expression_figures(truth, said, EXPRESSIONS)
    return {"faces": len(entries), **_states(entries), **figures}


def unit_scores(entries: list[dict]) -> dict:
    """Return the figures of the answers on action units, over the faces each is coded on."""
    scores = {}
    for k in AUS:
        coded = [e for e in entries if str(k) in e["truth"]]
        if coded:
            truth = np.array([bool(e["truth"][str(k)]) for e in coded])
            said = np.array([k in e["said"] for e in coded])
            scores[f"AU{k}"] = f1(truth, said)
    mean = float(np.mean(list(scores.values())))
    return {"faces": len(entries), **_states(entries), "f1": scores, "mean_f1": mean}


def _states(entries: list[dict]) -> dict[str, int]:
    return {s: sum(e["state"] == s for e in entries) for s in ("refused", "unreadable")}


def score(entries: list[dict]) -> dict:
    """Return the figures of every kind of answer there is."""
    kinds = {"expression": expression_scores, "units": unit_scores}
    parts = {kind: [e for e in entries if e["kind"] == kind] for kind in kinds}
    return {kind: kinds[kind](part) for kind, part in parts.items() if part}

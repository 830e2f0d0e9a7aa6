"""What a FEALLM decides about faces it never saw, and whether its texts keep to it.

The expression is the label the model's summary opens with and the action units are those its
movement description names, both read back from the text by `facs.parse_analysis`; thresholds are
those the model ships with, fixed by `train.mini.thresholds`.

FER+ (valid split, majority of the seven) and CK+ are pictures of one face already and are read as
`python -m feallm --face-crop` reads them; ExpW (every fifth photo, kept aside) goes through
detection and alignment, as a visitor's photo does, and through its box where no face is found. FER+
is counted by its paper's protocol too: on the faces that most of its annotators agree on. And on
those alone that had no part in the calibration (`train.mini.thresholds`).

On about `--texts` faces of each set the three texts are written too and compared with what was
decided (`train.agreement`), and on `--asked` faces of the first set the held-out paraphrases, ours
and strangers', are put to the model: is each answered by the part of an FEA answer it asks for?
So are held-out questions on what it must not or cannot tell (`train.fea.talk`): is each declined?
"""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from feallm import Predictor
from feallm.facs import AUS, EXPRESSIONS, parse_analysis
from feallm.predictor import Reading
from train.agreement import disagreements, kind_of
from train.fea import talk
from train.fea.questions import HELD_OUT, STRANGERS
from train.feabench.sets import Item, zipped
from train.metrics import calibration_error, expression_figures, f1
from train.order import FITTED_ON, spread

SETS = ("ferplus", "ckplus_validation", "expw")


def evaluate_set(
    predictor: Predictor, data: Path, name: str, limit: int | None = None, texts: int = 0
) -> dict:
    """Return the figures of one set; on about `texts` faces the texts are compared too."""
    face_set = zipped(name)(data)
    items = face_set.items
    if limit:
        items = some(items, limit)
    truth, said, confidence, units_truth, units_said, agreed = [], [], [], [], [], []
    stride, differ, faulty = max(1, len(items) // max(texts, 1)), Counter(), []
    for number, item in enumerate(items, 1):
        if number % 100 == 0:
            print(f"{name}: {number} of {len(items)}", file=sys.stderr)
        write = bool(texts) and number % stride == 0
        reading = predictor.analyse(face_set.face(item, predictor.face_size), texts=write)
        if write:
            found = disagreements(reading)
            faulty.append(bool(found))
            differ.update(found)
        expression = parse_analysis(reading.summary).expression
        if item.expression:
            truth.append(EXPRESSIONS.index(item.expression))
            said.append(EXPRESSIONS.index(expression) if expression else -1)
            confidence.append(reading.expression_probabilities[reading.expression])
        if item.agreed:
            agreed.append(item.agreed == expression)
        if item.aus:
            units_truth.append(item.aus)
            units_said.append(parse_analysis(reading.movements).aus)
    truth, said, confidence = np.array(truth), np.array(said), np.array(confidence)
    result = {
        "faces": len(items),
        "with_expression": len(truth),
        "calibration_error": calibration_error(truth == said, confidence),
        **expression_figures(truth, said, EXPRESSIONS),
    }
    if units_truth:
        result["au_f1"] = {
            f"AU{k}": f1(
                np.array([t[k] for t in units_truth]), np.array([k in s for s in units_said])
            )
            for k in AUS
        }
        result["au_mean_f1"] = float(np.mean(list(result["au_f1"].values())))
    fitted = np.isin(np.arange(len(truth)), spread(len(truth), FITTED_ON))
    if name == "ferplus" and not limit and not fitted.all():
        others = expression_figures(truth[~fitted], said[~fitted], EXPRESSIONS)
        kept = {k: others[k] for k in ("accuracy", "mean_recall")}
        result["not_fitted_on"] = {"faces": int((~fitted).sum())} | kept
    if agreed:
        result["agreed"] = {"faces": len(agreed), "accuracy": float(np.mean(agreed))}
    if faulty:
        result["agreement"] = {
            "faces": len(faulty),
            "share": 1 - float(np.mean(faulty)),
            "disagreements": dict(differ),
        }
    return result


def some(items: list[Item], count: int) -> list[Item]:
    """Return `count` items, spread over all, or all where there are fewer."""
    return [items[i] for i in spread(len(items), count)[:count]]


def read_some(predictor: Predictor, data: Path, name: str, count: int) -> list[Reading]:
    """Read `count` faces of a set, to talk about them."""
    face_set = zipped(name)(data)
    faces = (face_set.face(i, predictor.face_size) for i in some(face_set.items, count))
    return [predictor.analyse(face, texts=False) for face in faces]


def ask(predictor: Predictor, reading: Reading, question: str, before: Sequence = ()) -> str:
    """Return the answer to a question about a face, after what was said before."""
    return "".join(predictor.stream(reading, [*before, {"role": "user", "content": question}]))


def ask_paraphrases(
    predictor: Predictor, readings: list[Reading], held_out: dict[str, tuple[str, ...]]
) -> dict:
    """Put paraphrases of the three kinds to some faces: which are answered in kind?"""
    right = {
        question: [kind_of(ask(predictor, r, question).strip()) == kind for r in readings]
        for kind, questions in held_out.items()
        for question in questions
    }
    return shares(right, len(readings))


def ask_out_of_scope(
    predictor: Predictor, readings: list[Reading], held_out: tuple[str, ...]
) -> dict:
    """Put questions outside the scope to some faces: which are declined?

    Each is asked at once and as the second question of a talk.
    """
    first = HELD_OUT["summary"][0]
    declined = {question: [] for question in held_out}
    for reading in readings:
        answer = {"role": "assistant", "content": ask(predictor, reading, first)}
        begun = [{"role": "user", "content": first}, answer]
        for question in held_out:
            declined[question] += [
                talk.is_declined(ask(predictor, reading, question, before))
                for before in ((), begun)
            ]
    return shares(declined, len(readings))


def shares(right: dict[str, list[bool]], faces: int) -> dict:
    """Return how many answers were right, and the questions where not all were."""
    each = {question: float(np.mean(answers)) for question, answers in right.items()}
    missed = {question: share for question, share in each.items() if share < 1}
    return {"faces": faces, "share": float(np.mean(list(each.values()))), "missed": missed}


ASKED = {
    "paraphrases": (ask_paraphrases, HELD_OUT, "our held-out paraphrases answered in kind"),
    "strangers_paraphrases": (ask_paraphrases, STRANGERS, "strangers' answered in kind"),
    "out_of_scope": (
        ask_out_of_scope,
        talk.HELD_OUT,
        "our held-out questions outside the scope declined",
    ),
    "strangers_out_of_scope": (ask_out_of_scope, talk.STRANGERS, "strangers' declined"),
}
"""Name in the result -> how it is asked, what, and what the share is of."""


def show(name: str, result: dict) -> None:
    """Print one set's figures for people."""
    print(f"\n{name}: {result['faces']} faces")
    print(
        f"  expression accuracy {result['accuracy']:.1%}, mean recall {result['mean_recall']:.1%}, "
        f"calibration error {result['calibration_error']:.3f}"
    )
    print("  recall " + ", ".join(f"{e} {v:.0%}" for e, v in result["recall"].items()))
    if "agreed" in result:
        agreed = result["agreed"]
        print(
            f"  accuracy {agreed['accuracy']:.1%} on the {agreed['faces']} faces that more than "
            "half of the annotators agree on"
        )
    if "not_fitted_on" in result:
        others = result["not_fitted_on"]
        print(
            f"  accuracy {others['accuracy']:.1%}, mean recall {others['mean_recall']:.1%} on the "
            f"{others['faces']} faces that no number was fitted on"
        )
    if "au_f1" in result:
        print(f"  action units, mean F1 {result['au_mean_f1']:.3f}")
        print("  F1 " + ", ".join(f"{k} {v:.2f}" for k, v in result["au_f1"].items()))
    if "agreement" in result:
        agreement = result["agreement"]
        print(
            f"  texts agree with what was decided on {agreement['share']:.1%} "
            f"of {agreement['faces']} faces {agreement['disagreements'] or ''}"
        )
    print("  confusion (rows: truth; columns: " + ", ".join(EXPRESSIONS) + ", unreadable)")
    for expression, row in zip(EXPRESSIONS, result["confusion"], strict=True):
        print(f"    {expression:<10}" + "".join(f"{n:6d}" for n in row))


def measure(predictor: Predictor, args: argparse.Namespace) -> None:
    """Measure on every set that is there; the last line printed is one JSON object."""
    results = {}
    for name in args.sets:
        try:
            results[name] = evaluate_set(predictor, args.data, name, args.limit, args.texts)
            if args.asked and "paraphrases" not in results:
                readings = read_some(predictor, args.data, name, args.asked)
                for asked, (put, held_out, _) in ASKED.items():
                    results[asked] = put(predictor, readings, held_out)
        except FileNotFoundError as missing:
            print(f"Left out. {missing}", file=sys.stderr)
            continue
        show(name, results[name])
    for name, (*_, words) in ASKED.items():
        if name in results:
            asked = results[name]
            print(f"\n{asked['share']:.1%} of {words} on {asked['faces']} faces")
            for question, right in asked["missed"].items():
                print(f"  {right:.0%} {question}")
    print("\n" + json.dumps({"model": predictor.name, **results}))

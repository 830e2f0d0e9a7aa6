"""Measure a FEALLM on faces it never saw, from what it writes.

Run as:

    python -m train.evaluate --data DATA

DATA holds ferplus.zip, ckplus_validation.zip and expw.zip as `train.mini.prepare` reads them. The
expression is the label the model's summary opens with and the action units are those its movement
description names, both read back from the text by `facs.parse_analysis`; thresholds are those the
model ships with, fixed by `train.mini.thresholds` on other faces. The last line is one JSON
object with every figure.

FER+ (valid split, majority of the seven) and CK+ are pictures of one face already and are read as
`python -m feallm --face-crop` reads them; ExpW (every fifth photo, kept aside) goes through
detection and alignment, as a visitor's photo does, and through its box where no face is found.

On about `--texts` faces of each set the three texts are written too and compared with what was
decided (`train.agreement`), and on `--asked` faces of the first set the 30 held-out paraphrases are
put to the model: is each answered by the part of an FEA answer it asks for?
"""

import argparse
import io
import json
import sys
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image

from feallm import Predictor
from feallm.faces import align_face, detect_faces, face_of_crop
from feallm.facs import AUS, EXPRESSIONS, parse_analysis
from feallm.predictor import MINI
from train.agreement import disagreements, kind_of
from train.fea.questions import HELD_OUT
from train.metrics import accuracy, calibration_error, confusion, f1, mean_recall
from train.mini.prepare import CKPLUS_AUS, Row, Source, read_rows

SETS = {"ferplus": False, "ckplus_validation": False, "expw": True}
"""Name -> whether the photo is searched for its face."""


def face_of(picture: Image.Image, row: Row, detect: bool, size: int) -> Image.Image:
    """Return the row's face as the model wants it."""
    picture = picture.convert("RGB")
    box = row.box or (0, 0, *picture.size)
    if detect:
        centre = np.array([(box[0] + box[2]) / 2, (box[1] + box[3]) / 2])
        for face in detect_faces(picture):
            x0, y0, x1, y1 = face.box
            if x0 <= centre[0] <= x1 and y0 <= centre[1] <= y1:
                return align_face(picture, face, size)
    return face_of_crop(picture.crop(tuple(round(v) for v in box)), size)


def evaluate_set(
    predictor: Predictor, data: Path, name: str, limit: int | None = None, texts: int = 0
) -> dict:
    """Return the figures of one set; on about `texts` faces the texts are compared too."""
    source = Source(data, name)
    rows = [r for r in read_rows(name, source.labels()) if r.split == "valid"]
    if limit:
        rows = rows[:: max(1, len(rows) // limit)][:limit]
    truth, said, confidence, units_truth, units_said = [], [], [], [], []
    stride, differ, faulty = max(1, len(rows) // max(texts, 1)), Counter(), []
    for number, row in enumerate(rows, 1):
        if number % 100 == 0:
            print(f"{name}: {number} of {len(rows)}", file=sys.stderr)
        picture = Image.open(io.BytesIO(source.read(row.file)))
        face = face_of(picture, row, SETS[name], predictor.face_size)
        write = bool(texts) and number % stride == 0
        reading = predictor.analyse(face, texts=write)
        if write:
            found = disagreements(reading)
            faulty.append(bool(found))
            differ.update(found)
        expression = parse_analysis(reading.summary).expression
        if sum(row.votes) > 0:
            truth.append(int(np.argmax(row.votes)))
            said.append(EXPRESSIONS.index(expression) if expression else -1)
            confidence.append(reading.expression_probabilities[reading.expression])
        if row.aus:
            units_truth.append(dict(zip(CKPLUS_AUS, row.aus, strict=True)))
            units_said.append(parse_analysis(reading.movements).aus)
    truth, said, confidence = np.array(truth), np.array(said), np.array(confidence)
    table = confusion(truth, said, len(EXPRESSIONS))
    result = {
        "faces": len(rows),
        "with_expression": len(truth),
        "accuracy": accuracy(truth, said),
        "mean_recall": mean_recall(truth, said, len(EXPRESSIONS)),
        "calibration_error": calibration_error(truth == said, confidence),
        "recall": {
            e: float(table[i, i] / table[i].sum())
            for i, e in enumerate(EXPRESSIONS)
            if table[i].sum()
        },
        "confusion": table.tolist(),
    }
    if units_truth:
        result["au_f1"] = {
            f"AU{k}": f1(
                np.array([t[k] == 1 for t in units_truth]), np.array([k in s for s in units_said])
            )
            for k in AUS
        }
        result["au_mean_f1"] = float(np.mean(list(result["au_f1"].values())))
    if faulty:
        result["agreement"] = {
            "faces": len(faulty),
            "share": 1 - float(np.mean(faulty)),
            "disagreements": dict(differ),
        }
    return result


def ask_paraphrases(predictor: Predictor, data: Path, name: str, count: int) -> dict:
    """Put the held-out paraphrases to `count` faces of a set: which are answered in kind?"""
    source = Source(data, name)
    rows = [r for r in read_rows(name, source.labels()) if r.split == "valid"]
    right = {question: 0 for asked in HELD_OUT.values() for question in asked}
    rows = rows[:: max(1, len(rows) // count)][:count]
    for row in rows:
        picture = Image.open(io.BytesIO(source.read(row.file)))
        reading = predictor.analyse(face_of(picture, row, SETS[name], predictor.face_size), False)
        for kind, questions in HELD_OUT.items():
            for question in questions:
                talk = [{"role": "user", "content": question}]
                answer = "".join(predictor.stream(reading, talk)).strip()
                right[question] += kind_of(answer) == kind
    shares = {q: n / len(rows) for q, n in right.items()}
    return {
        "faces": len(rows),
        "share": float(np.mean(list(shares.values()))),
        "missed": {q: s for q, s in shares.items() if s < 1},
    }


def show(name: str, result: dict) -> None:
    """Print one set's figures for people."""
    print(f"\n{name}: {result['faces']} faces")
    print(
        f"  expression accuracy {result['accuracy']:.1%}, mean recall {result['mean_recall']:.1%}, "
        f"calibration error {result['calibration_error']:.3f}"
    )
    print("  recall " + ", ".join(f"{e} {v:.0%}" for e, v in result["recall"].items()))
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with the zips")
    parser.add_argument("--model", default=str(MINI), help="folder or hub id of a FEALLM")
    parser.add_argument("--sets", nargs="*", default=list(SETS), choices=list(SETS))
    parser.add_argument("--limit", type=int, help="measure only about this many faces of each set")
    parser.add_argument("--texts", type=int, default=500, help="faces of a set to write texts for")
    parser.add_argument("--asked", type=int, default=20, help="faces for the held-out paraphrases")
    args = parser.parse_args()
    predictor = Predictor(args.model)
    results = {}
    for name in args.sets:
        try:
            results[name] = evaluate_set(predictor, args.data, name, args.limit, args.texts)
            if args.asked and "paraphrases" not in results:
                results["paraphrases"] = ask_paraphrases(predictor, args.data, name, args.asked)
        except FileNotFoundError as missing:
            print(f"Left out. {missing}", file=sys.stderr)
            continue
        show(name, results[name])
    if "paraphrases" in results:
        asked = results["paraphrases"]
        print(
            f"\nheld-out paraphrases: {asked['share']:.1%} answered in kind "
            f"on {asked['faces']} faces"
        )
        for question, share in asked["missed"].items():
            print(f"  {share:.0%} {question}")
    print("\n" + json.dumps({"model": predictor.name, **results}))


if __name__ == "__main__":
    main()

r"""Fix the thresholds of the action units and the calibration of the expression; ship the weights.

Run as:

    python -m train.mini.thresholds --packs PACKS --model runs/instruct/final \
        --out assets/feallm-mini | tee thresholds.txt

The model's probabilities of rare units seldom pass one half. Each threshold is the one with the
highest mean of two F1: against the labeller on FER+'s valid split, faces as they are met but not
coded by anyone, and against the FACS coders on CK+, few and posed. What such thresholds are worth
on strangers is measured on CK+ by person: the units of each fifth of the people are decided with
thresholds fixed on the others.

The expression's probabilities learn how far people agree, which is less than how often the model is
right, and from faces of which rare expressions are drawn more often than they are met. So they are
raised to a power (`expression_sharpness`) and weighed (`expression_bias`), so that the expressions
of some faces of FER+'s valid split are likeliest; what that is worth on faces it was not fitted on
is told: each fifth of those faces is read with numbers fitted on the others. The last line is one
JSON object.
"""

import argparse
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.optimize import minimize
from scipy.special import logsumexp
from sklearn.model_selection import GroupKFold

from feallm import FEALLMConfig, Predictor
from feallm.facs import AUS, EXPRESSIONS
from train.metrics import expression_figures, f1
from train.mini.faces import Faces
from train.order import FITTED_ON, spread

RESTRAINT = 100
"""What the square of each number of the bias costs, beside the faces' surprise: of rare expressions
there are too few faces to believe them all."""

Sample = tuple[np.ndarray, np.ndarray]
"""Of n faces: the model's probabilities and whether each unit is active, (n, 12) each."""


def choose(*samples: Sample) -> list[float]:
    """Return the threshold of each unit with the highest mean of the samples' F1."""
    grid = np.linspace(0.05, 0.9, 86)
    best = []
    for k in range(len(AUS)):
        scores = [
            [f1(labels[:, k], chances[:, k] > t) for t in grid] for chances, labels in samples
        ]
        best.append(round(float(grid[np.argmax(np.mean(scores, axis=0))]), 3))
    return best


def labelled(predictor: Predictor, faces: Faces, count: int) -> Sample:
    """Return a sample of about `count` faces against the labeller."""
    rows = [i for i in spread(len(faces), count) if faces[i]["found"]]
    active = np.array([faces[i]["aus"] > 0.5 for i in rows])
    return chances_of(predictor, faces, rows, active), active


def coded(predictor: Predictor, faces: Faces) -> Sample:
    """Return a sample of all faces of CK+ against its FACS coders."""
    active = faces.coded_units()
    return chances_of(predictor, faces, range(len(faces)), active), active


def chances_of(predictor: Predictor, faces: Faces, rows, active: np.ndarray) -> np.ndarray:
    """(n, 12) probabilities, each given that the units before it are as they are labelled."""
    told = [tuple(k for k, a in zip(AUS, line, strict=True) if a) for line in active]
    return np.array(
        [predictor.chances([faces.picture(i)], t)[1][0] for i, t in zip(rows, told, strict=True)]
    )


def raw_expressions(predictor: Predictor, faces: Faces, rows: range) -> np.ndarray:
    """Return the expressions' probabilities (n, 7) without calibration, which is reset."""
    config = predictor.model.config
    config.expression_sharpness, config.expression_bias = 1.0, [0.0] * len(EXPRESSIONS)
    read = [predictor.analyse(faces.picture(i), texts=False) for i in rows]
    return np.array([list(r.expression_probabilities.values()) for r in read])


def calibrated(shares: np.ndarray, sharpness: float, bias: Sequence[float]) -> np.ndarray:
    """Return the logarithms, but for a constant, of calibrated probabilities (n, 7)."""
    return sharpness * np.log(np.maximum(shares, 1e-9)) + bias


def calibration(shares: np.ndarray, truth: np.ndarray) -> tuple[float, list[float]]:
    """Return the power and the bias of probabilities (n, 7) that fit the true classes (n,)."""

    def surprise(numbers: np.ndarray) -> float:
        scores = calibrated(shares, numbers[0], numbers[1:])
        missed = logsumexp(scores, axis=1) - scores[range(len(truth)), truth]
        return (missed.sum() + RESTRAINT * (numbers[1:] ** 2).sum()) / len(truth)

    start = np.array([1.0, *[0.0] * shares.shape[1]])
    found = minimize(surprise, start, bounds=[(0.5, 3.0), *[(None, None)] * shares.shape[1]]).x
    return round(float(found[0]), 2), [round(float(b), 2) + 0.0 for b in found[1:]]  # no -0.0


def on_other_faces(shares: np.ndarray, truth: np.ndarray, folds: int = 5) -> dict[str, dict]:
    """Return the figures before, and calibrated on the other folds."""
    scores = np.zeros_like(shares)
    for fold in range(folds):
        held = np.arange(len(truth)) % folds == fold
        scores[held] = calibrated(shares[held], *calibration(shares[~held], truth[~held]))
    said = {"before": shares.argmax(1), "calibrated": scores.argmax(1)}
    figures = {k: expression_figures(truth, s, EXPRESSIONS) for k, s in said.items()}
    return {k: {f: v[f] for f in ("accuracy", "mean_recall")} for k, v in figures.items()}


def on_strangers(
    predictor: Predictor, faces: Faces, ferplus: Sample, ckplus: Sample, folds: int = 5
) -> dict[str, float]:
    """Return the F1 of each unit on CK+, each person decided with thresholds of the others."""
    chances, active = ckplus
    said = np.zeros_like(active)
    config = predictor.model.config
    shipped = config.action_unit_thresholds
    for known, strange in GroupKFold(folds).split(chances, groups=faces.people()):
        config.action_unit_thresholds = choose(ferplus, (chances[known], active[known]))
        for i in strange:
            found = predictor.analyse(faces.picture(int(i)), texts=False).aus
            said[i] = [k in found for k in AUS]
    config.action_unit_thresholds = shipped
    return {f"AU{k}": f1(active[:, n], said[:, n]) for n, k in enumerate(AUS)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--packs", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    predictor = Predictor(args.model)
    wild = Faces(args.packs, "valid", sets=("ferplus",))
    posed = Faces(args.packs, "valid", sets=("ckplus_validation",))
    ferplus, ckplus = labelled(predictor, wild, FITTED_ON), coded(predictor, posed)
    thresholds = choose(ferplus, ckplus)
    print({f"AU{k}": t for k, t in zip(AUS, thresholds, strict=True)})
    strangers = on_strangers(predictor, posed, ferplus, ckplus)
    config = predictor.model.config
    config.action_unit_thresholds = thresholds
    rows = spread(len(wild), FITTED_ON)
    shares, truth = raw_expressions(predictor, wild, rows), wild.majority()[list(rows)]
    config.expression_sharpness, config.expression_bias = calibration(shares, truth)
    fitted = {f: getattr(config, f) for f in ("expression_sharpness", "expression_bias")}
    print(fitted)
    others = on_other_faces(shares, truth)
    print("FER+ valid, faces not fitted on:", others)
    args.out.mkdir(parents=True, exist_ok=True)
    for file in args.model.iterdir():
        if file.suffix in (".safetensors", ".json"):
            shutil.copyfile(file, args.out / file.name)
    fitted["action_unit_thresholds"] = thresholds
    shipped = FEALLMConfig.from_pretrained(args.out)  # the predictor's tells its own dtype
    for field, value in fitted.items():
        setattr(shipped, field, value)
    shipped.save_pretrained(args.out)
    mean_f1 = float(np.mean(list(strangers.values())))
    print(json.dumps({"au_f1": strangers, "au_mean_f1": mean_f1, "expression": others}))


if __name__ == "__main__":
    main()

"""Label action units on pictures nobody coded: MediaPipe's measurements, calibrated on CK+.

Run as:

    python -m train.mini.label_aus --packs PACKS

Twelve logistic regressions (balanced classes) read 52 blendshapes and 40 principal components of
the eye-line normalised face points. They are fitted on CK+'s FACS-coded faces, cross-validated by
person, and write `aus.npz`: for every face the probability of each AU.

Carried to pictures in the wild the regressions are over-ready: head pose and the missing neutral
frame shift them. So each AU is levelled within each set and expression: its threshold is moved
until the share of active faces is the geometric mean of what the regression says and of CK+'s rate
for that expression. AU12 and AU25 are left alone, since the shape of the mouth shows them
plainly.
"""

import argparse
from pathlib import Path

import numpy as np

from train.metrics import f1
from train.mini.prepare import CKPLUS_AUS as AUS
from train.mini.prepare import EXPRESSIONS, SETS

PLAIN = (12, 25)
LEFT_IRIS, RIGHT_IRIS = 468, 473


def measurements(pack: dict[str, np.ndarray]) -> np.ndarray:
    """Return (n, 52 + 956): blendshapes and face points with the eyes at (0, 0) and (1, 0)."""
    points = pack["points"].astype(np.float64)
    origin, along = points[:, LEFT_IRIS], points[:, RIGHT_IRIS] - points[:, LEFT_IRIS]
    length2 = np.maximum((along**2).sum(-1, keepdims=True), 1e-6)
    rel = points - origin[:, None]
    x = (rel * along[:, None]).sum(-1) / length2
    y = (rel[..., 1] * along[:, None, 0] - rel[..., 0] * along[:, None, 1]) / length2
    return np.concatenate([pack["blendshapes"], x, y], axis=1)


def regression():
    """One AU's regression: roots of the blendshapes, the points through 40 components.

    The root spreads what lies near 0, where MediaPipe puts weak movements. C was chosen by the
    same cross-validation that is printed (0.1: mean F1 0.654, 0.01: 0.702).
    """
    from sklearn.compose import ColumnTransformer
    from sklearn.decomposition import PCA
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer, StandardScaler

    columns = ColumnTransformer(
        [
            ("blendshapes", FunctionTransformer(np.sqrt), slice(0, 52)),
            ("points", PCA(40, random_state=0), slice(52, None)),
        ]
    )
    return make_pipeline(
        columns,
        StandardScaler(),
        LogisticRegression(class_weight="balanced", C=0.01, max_iter=3000),
    )


def best_threshold(truth: np.ndarray, score: np.ndarray) -> tuple[float, float]:
    """Return the threshold on the score with the highest F1, and that F1."""
    cuts = np.quantile(score, np.linspace(0.02, 0.98, 97))
    values = [f1(truth, score > c) for c in cuts]
    best = int(np.argmax(values))
    return float(cuts[best]), values[best]


def majority(votes: np.ndarray) -> np.ndarray:
    """Index of the expression with the most votes, -1 where there is none."""
    return np.where(votes.sum(1) > 0, votes.argmax(1), -1)


def level(
    score: np.ndarray, threshold: float, expression: np.ndarray, rates: np.ndarray, plain: bool
) -> np.ndarray:
    """Return probabilities whose share above 1/2 is levelled in each expression.

    Args:
        score: (n,) a regression's decision values.
        threshold: its threshold on CK+.
        expression: (n,) majority expression, -1 for none.
        rates: (7,) CK+'s share of faces showing this AU, by expression.
        plain: keep the threshold as it is.
    """
    probability = np.zeros(len(score), np.float32)
    for e in range(-1, len(EXPRESSIONS)):
        group = expression == e
        if not group.any():
            continue
        cut = threshold
        if not plain:
            says = np.clip((score[group] > threshold).mean(), 0.01, 0.99)
            rate = rates[e] if e >= 0 else rates.mean()
            cut = np.quantile(score[group], 1 - np.sqrt(says * rate))
        width = max(score[group].std() / 3, 1e-3)
        probability[group] = 1 / (1 + np.exp(-(score[group] - cut) / width))
    return probability


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--packs", type=Path, required=True)
    args = parser.parse_args()
    from sklearn.model_selection import GroupKFold, cross_val_predict

    packs = {
        n: np.load(args.packs / f"{n}.npz") for n in SETS if (args.packs / f"{n}.npz").is_file()
    }
    coded = packs["ckplus_validation"]
    x, truth = measurements(coded), coded["aus"].astype(bool)
    expression = majority(coded["votes"])
    labels, scores = {}, []
    for k, au in enumerate(AUS):
        score = cross_val_predict(
            regression(),
            x,
            truth[:, k],
            groups=coded["group"],
            cv=GroupKFold(5),
            method="decision_function",
        )
        threshold, value = best_threshold(truth[:, k], score)
        scores.append(value)
        rates = np.array(
            [
                (truth[expression == e, k].sum() + 0.5) / ((expression == e).sum() + 10)
                for e in range(7)
            ]
        )
        fitted = regression().fit(x, truth[:, k])
        shares = []
        for name, pack in packs.items():
            levelled = level(
                fitted.decision_function(measurements(pack)),
                threshold,
                majority(pack["votes"]),
                rates,
                plain=au in PLAIN,
            )
            labels.setdefault(name, []).append(levelled)
            shares.append(f"{name} {np.mean(levelled[pack['found']] > 0.5):.0%}")
        print(f"AU{au:<3} F1 {value:.2f} on people not fitted on; active: {', '.join(shares)}")
    print(f"mean F1 {np.mean(scores):.3f}")
    np.savez(args.packs / "aus.npz", **{n: np.stack(v, 1) for n, v in labels.items()})


if __name__ == "__main__":
    main()

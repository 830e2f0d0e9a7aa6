"""The figures of an evaluation, as scikit-learn defines them, from labels in plain arrays."""

from collections.abc import Sequence

import numpy as np


def accuracy(truth: np.ndarray, said: np.ndarray) -> float:
    """Share of faces whose label was said; an unreadable answer (-1) is wrong."""
    return float(np.mean(truth == said))


def confusion(truth: np.ndarray, said: np.ndarray, classes: int) -> np.ndarray:
    """(classes, classes + 1) counts, rows the truth; the last column holds unreadable answers."""
    table = np.zeros((classes, classes + 1), int)
    np.add.at(table, (truth, np.where(said < 0, classes, said)), 1)
    return table


def mean_recall(truth: np.ndarray, said: np.ndarray, classes: int) -> float:
    """Mean over the classes that occur of the share found."""
    table = confusion(truth, said, classes)
    present = table.sum(1) > 0
    return float((table.diagonal()[present] / table.sum(1)[present]).mean())


def expression_figures(truth: np.ndarray, said: np.ndarray, names: Sequence[str]) -> dict:
    """Return accuracy, mean recall, the recall of each class that occurs, and the confusion."""
    table = confusion(truth, said, len(names))
    return {
        "accuracy": accuracy(truth, said),
        "mean_recall": mean_recall(truth, said, len(names)),
        "recall": {
            name: float(row[i] / row.sum())
            for i, (name, row) in enumerate(zip(names, table, strict=True))
            if row.sum()
        },
        "confusion": table.tolist(),
    }


def f1(truth: np.ndarray, said: np.ndarray) -> float:
    """F1 of one action unit, (n,) bools; 0 where it neither occurs nor is said."""
    hits = np.sum(truth & said)
    return float(2 * hits / max(np.sum(truth) + np.sum(said), 1))


def calibration_error(correct: np.ndarray, confidence: np.ndarray, bins: int = 15) -> float:
    """Expected calibration error: mean gap of accuracy and confidence over equal-width bins."""
    which = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = [
        abs(correct[which == b].mean() - confidence[which == b].mean()) * np.mean(which == b)
        for b in np.unique(which)
    ]
    return float(np.sum(gaps))

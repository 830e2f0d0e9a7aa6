r"""Fix the thresholds of the action units and ship the weights.

Run as:

    python -m train.mini.thresholds --packs PACKS --model runs/instruct/final \
        --out assets/feallm-mini

The model's probabilities of rare units seldom pass one half. Each threshold is the one with the
highest F1 against the labeller on FER+'s valid split. These faces carry no FACS codes, and the
pictures of CK+, on which the units are measured, have no part in it.
"""

import argparse
import shutil
from pathlib import Path

import numpy as np

from feallm import Predictor
from feallm.facs import AUS
from train.metrics import f1
from train.mini.faces import Faces


def choose(chances: np.ndarray, labels: np.ndarray) -> list[float]:
    """Return the threshold of each unit with the highest F1: (n, 12) probabilities and bools."""
    grid = np.linspace(0.05, 0.9, 86)
    best = [
        grid[np.argmax([f1(labels[:, i], chances[:, i] > t) for t in grid])]
        for i in range(len(AUS))
    ]
    return [round(float(t), 3) for t in best]


def chances_and_labels(
    predictor: Predictor, faces: Faces, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the model's probabilities and the labeller's bools, (n, 12) each, n about `count`.

    Each probability is the one given that the units before it are as the labeller has them.
    """
    chances, labels = [], []
    for i in range(0, len(faces), max(1, len(faces) // count)):
        item = faces[i]
        if not item["found"]:
            continue
        active = item["aus"] > 0.5
        told = tuple(k for k, a in zip(AUS, active, strict=True) if a)
        chances.append(predictor.chances([faces.picture(i)], told)[1][0])
        labels.append(active)
    return np.array(chances), np.array(labels)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--packs", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--faces", type=int, default=1000)
    args = parser.parse_args()
    predictor = Predictor(args.model)
    faces = Faces(args.packs, "valid", sets=("ferplus",))
    thresholds = choose(*chances_and_labels(predictor, faces, args.faces))
    print({f"AU{k}": t for k, t in zip(AUS, thresholds, strict=True)})
    args.out.mkdir(parents=True, exist_ok=True)
    for file in args.model.iterdir():
        if file.suffix in (".safetensors", ".json"):
            shutil.copyfile(file, args.out / file.name)
    config = predictor.model.config
    config.action_unit_thresholds = thresholds
    config.save_pretrained(args.out)


if __name__ == "__main__":
    main()

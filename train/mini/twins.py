"""Find training faces that are nearly a validation face, and take them out of training.

Run after `train.mini.prepare`, as:

    python -m train.mini.twins --packs PACKS

FER2013 was gathered by web search: the same photo returns in another size, cut or brightness, also
across its splits. A model that met the twin has seen the face. Such faces get the split "twin",
which nothing trains on.
"""

import argparse
import os
from pathlib import Path

import numpy as np

from train.mini.prepare import CANVAS, MARGIN, SETS

GRID = 16
LIKENESS = 0.97
"""Correlation of two aligned 16 x 16 thumbnails above which they show one photo. CK+'s faces,
which no other set can hold, reach 0.94 at most with any training face."""


def thumbnails(canvas: np.ndarray) -> np.ndarray:
    """(n, 144, 144, c) canvases -> (n, 256) aligned faces, small, of mean 0 and length 1."""
    border = round(CANVAS * (1 - 1 / MARGIN) / 2)
    face = canvas[:, border:-border, border:-border].mean(-1, dtype=np.float32)
    cell = face.shape[1] // GRID
    small = face.reshape(len(face), GRID, cell, GRID, cell).mean((2, 4)).reshape(len(face), -1)
    small -= small.mean(1, keepdims=True)
    return small / np.maximum(np.linalg.norm(small, axis=1, keepdims=True), 1e-6)


def likeness(faces: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(n,) highest correlation of each face with any of the others."""
    return np.concatenate([(part @ others.T).max(1) for part in np.array_split(faces, 50)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--packs", type=Path, required=True)
    args = parser.parse_args()
    packs = {
        name: dict(np.load(args.packs / f"{name}.npz"))
        for name in SETS
        if (args.packs / f"{name}.npz").is_file()
    }
    small = {name: thumbnails(pack["canvas"]) for name, pack in packs.items()}
    kept = np.concatenate([small[n][p["split"] == "valid"] for n, p in packs.items()])
    mirrored = kept.reshape(-1, GRID, GRID)[:, :, ::-1].reshape(kept.shape)
    kept = np.concatenate([kept, mirrored])  # training mirrors faces
    for name, pack in packs.items():
        training = np.flatnonzero(np.isin(pack["split"], ("train", "twin")))
        if not len(training):
            continue
        twin = likeness(small[name][training], kept) > LIKENESS
        pack["split"][training] = np.where(twin, "twin", "train")
        np.savez(args.packs / f"{name}.new.npz", **pack)
        os.replace(args.packs / f"{name}.new.npz", args.packs / f"{name}.npz")
        print(
            f"{name}: {twin.sum()} of {len(training)} training faces are twins of validation faces"
        )


if __name__ == "__main__":
    main()

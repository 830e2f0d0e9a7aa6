"""Pack the public face sets into arrays the mini trains on: canvases, points, blendshapes, labels.

Run as:

    python -m train.mini.prepare --data DATA --out PACKS

DATA holds ferplus.zip, expw.zip, muxspace.zip, london.zip, ckplus_validation.zip (or folders of
those names), each with a labels.csv, and MediaPipe's face_landmarker.task. A set that is missing
is named and left out. For every picture MediaPipe's Face Landmarker gives 478 points and 52
blendshapes; the face is drawn upright on a canvas that shows half again the side of the aligned
square, so that training can turn, shift and scale it without showing a border that is not there.
"""

import argparse
import csv
import io
import sys
import zipfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from feallm.alignment import compose, invert, similarity, template_for
from feallm.faces import draw, place_crop

CANVAS = 144
"""Side of a canvas in pixels: 1.5 times the 96 that the mini's aligned face measures."""
MARGIN = 1.5
FIVE_POINTS = (468, 473, 4, 61, 291)
"""MediaPipe's iris centres, nose tip and mouth corners, in the template's order."""
EXPRESSIONS = ("neutral", "anger", "disgust", "fear", "happiness", "sadness", "surprise")
CKPLUS_AUS = (1, 2, 4, 6, 7, 10, 12, 15, 23, 24, 25, 26)
SETS = ("ferplus", "expw", "muxspace", "london", "ckplus_validation")
HOW_TO_GET = {
    "ferplus": "FER2013 pictures (Kaggle 2013) with the votes of github.com/microsoft/FERPlus",
    "expw": "ExpW, Zhang et al., arXiv 1609.06426, on request from its authors",
    "muxspace": "github.com/muxspace/facial_expressions",
    "london": "Face Research Lab London Set, doi 10.6084/m9.figshare.5047666",
    "ckplus_validation": "Extended Cohn-Kanade (Lucey 2010), on request from its authors",
}


@dataclass(frozen=True)
class Row:
    """One picture: its bytes' place, split, votes over EXPRESSIONS, its face box and AU labels."""

    file: str
    split: str
    group: str
    votes: tuple[float, ...]
    box: tuple[float, float, float, float] | None
    aus: tuple[int, ...] | None
    agreed: str | None = None
    """What most of FER+'s annotators say (`agreed_label`)."""


class Source:
    """Reads members of `DATA/name.zip` or of the folder `DATA/name`."""

    def __init__(self, data: Path, name: str):
        folder, archive = data / name, data / f"{name}.zip"
        if not folder.is_dir() and not archive.is_file():
            raise FileNotFoundError(
                f"{name}: neither {folder} nor {archive} is there. Get it from {HOW_TO_GET[name]}."
            )
        self.folder = folder if folder.is_dir() else None
        self.archive = None if self.folder else zipfile.ZipFile(archive)

    def read(self, member: str) -> bytes:
        return (self.folder / member).read_bytes() if self.folder else self.archive.read(member)

    def labels(self) -> list[dict[str, str]]:
        return list(csv.DictReader(io.StringIO(self.read("labels.csv").decode("utf-8"))))


def one_hot(name: str) -> tuple[float, ...]:
    """Votes of a single annotator; all zero for a class outside the seven (contempt)."""
    return tuple(float(name == e) for e in EXPRESSIONS)


def agreed_label(row: dict[str, str]) -> str | None:
    """Return what more than half of a FER+ face's votes say, contempt included, or None.

    So the FER+ paper (arXiv 1608.01041, "majority voting") chooses the faces it tests on: votes of
    a single annotator do not count, faces called unknown or no face are left out.
    """
    votes = {name: float(row[name]) for name in (*EXPRESSIONS, "contempt", "unknown", "not_face")}
    votes = {name: count for name, count in votes.items() if count > 1}
    most = max(votes, key=votes.get, default="unknown")
    if most in ("unknown", "not_face") or votes[most] <= sum(votes.values()) / 2:
        return None
    return most


def read_rows(name: str, labels: list[dict[str, str]]) -> list[Row]:
    """Turn one set's labels.csv into rows; every fifth ExpW photo is kept aside as `valid`."""
    rows = []
    for index, r in enumerate(labels):
        box, aus, split, group, agreed = None, None, "train", "", None
        if name == "ferplus":
            agreed = agreed_label(r)
            votes = tuple(float(r[e]) for e in EXPRESSIONS)
            split = r["split"]
            rejected = float(r["unknown"]) + float(r["not_face"]) + float(r["contempt"])
            if split == "train" and rejected > sum(votes):
                continue
        else:
            votes = one_hot(r["expression"])
        if name == "expw":
            box = tuple(float(r[k]) for k in ("left", "top", "right", "bottom"))
            split = "valid" if index % 5 == 0 else "train"
        if name == "london":
            group = r["person"]
        if name == "ckplus_validation":
            split, group = "valid", r["subject"]
            active = {k: int(r[f"AU{k}"]) for k in CKPLUS_AUS}
            active[26] |= int(r["AU27"])  # a jaw that drops far is a jaw that drops
            aus = tuple(active[k] for k in CKPLUS_AUS)
        rows.append(Row(r["file"], split, group, votes, box, aus, agreed))
    return rows


def square_around(box: tuple[float, float, float, float], scale: float) -> np.ndarray:
    """Return x0, y0, side of the square `scale` times as large as the box's longer side."""
    x0, y0, x1, y1 = box
    side = max(x1 - x0, y1 - y0) * scale
    return np.array([(x0 + x1 - side) / 2, (y0 + y1 - side) / 2, side])


_landmarker = None


def landmarks(photo: np.ndarray, task: str) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the (478, 2) points in the photo's pixels and the (52,) blendshapes, or None."""
    global _landmarker
    import mediapipe as mp
    from mediapipe.tasks.python import BaseOptions, vision

    if _landmarker is None:
        _landmarker = vision.FaceLandmarker.create_from_options(
            vision.FaceLandmarkerOptions(
                base_options=BaseOptions(model_asset_path=task),
                output_face_blendshapes=True,
                min_face_detection_confidence=0.1,
                min_face_presence_confidence=0.1,
            )
        )
    found = _landmarker.detect(mp.Image(image_format=mp.ImageFormat.SRGB, data=photo))
    if not found.face_landmarks:
        return None
    height, width = photo.shape[:2]
    points = np.array([[p.x * width, p.y * height] for p in found.face_landmarks[0]])
    return points, np.array([b.score for b in found.face_blendshapes[0]])


def pack_face(photo: Image.Image, box: tuple[float, float, float, float] | None, task: str) -> dict:
    """Return canvas, points, blendshapes and framing of one picture's face.

    `frame` is the (2, 3) map from the 96-pixel square of the *unaligned* crop (the box, or the
    whole picture) to the canvas, `used` the same from the square `faces.face_of_crop` draws, so
    that training meets the detector's own little errors; `found` tells whether there are points.
    """
    photo = photo.convert("RGB")
    box = box or (0, 0, *photo.size)
    # MediaPipe wants a face of about 192 pixels with some room around it
    x0, y0, side = square_around(box, 1.5)
    window = 288
    to_window = np.array(
        [[window / side, 0, -x0 * window / side], [0, window / side, -y0 * window / side]]
    )
    found = landmarks(np.asarray(draw(photo, to_window, window)), task)
    if found is None:
        points, shapes = np.zeros((478, 2)), np.zeros(52)
        fx, fy, fside = square_around(box, 1.0)
        five = np.stack([fx, fy]) + template_for(fside)
    else:
        points, shapes = found
        points = points * side / window + np.array([x0, y0])
        five = points[list(FIVE_POINTS)]
    to_canvas = similarity(five, template_for(CANVAS, MARGIN))
    fx, fy, fside = square_around(box, 1.0)
    frame = compose(to_canvas, np.array([[fside / 96, 0, fx], [0, fside / 96, fy]]))
    corner = [round(v) for v in box]
    in_use = invert(place_crop(photo.crop(corner), 96))
    in_use[:, 2] += corner[:2]
    canvas = np.asarray(draw(photo, to_canvas, CANVAS))
    return {
        "canvas": canvas,
        "grey": bool(np.ptp(canvas.astype(int), axis=2).max() <= 12),
        "points": (points @ to_canvas[:, :2].T + to_canvas[:, 2]).astype(np.float32),
        "blendshapes": shapes.astype(np.float32),
        "frame": frame.astype(np.float32),
        "used": compose(to_canvas, in_use).astype(np.float32),
        "found": found is not None,
    }


def _pack_slice(data: Path, name: str, rows: list[Row], task: str) -> list[dict]:
    import torch

    torch.set_num_threads(1)  # there is a process for every core
    source = Source(data, name)
    return [pack_face(Image.open(io.BytesIO(source.read(r.file))), r.box, task) for r in rows]


def pack_set(data: Path, name: str, out: Path, workers: int) -> None:
    """Write `out/name.npz`: grey sets keep one channel, colour sets three."""
    rows = read_rows(name, Source(data, name).labels())
    task = str(data / "face_landmarker.task")
    slices = [rows[i : i + 500] for i in range(0, len(rows), 500)]
    packed = []
    with ProcessPoolExecutor(workers) as pool:
        jobs = [pool.submit(_pack_slice, data, name, s, task) for s in slices]
        for job in jobs:
            packed += job.result()
            print(f"{name}: {len(packed)} of {len(rows)}", file=sys.stderr)
    canvases = np.stack([p["canvas"] for p in packed])
    if name == "ferplus":
        canvases = canvases[..., :1]
    np.savez(
        out / f"{name}.npz",
        canvas=canvases,
        **{
            k: np.stack([p[k] for p in packed])
            for k in ("grey", "points", "blendshapes", "frame", "used", "found")
        },
        votes=np.array([r.votes for r in rows], np.float32),
        split=np.array([r.split for r in rows]),
        group=np.array([r.group for r in rows]),
        picture=np.array([r.file for r in rows]),
        **({"aus": np.array([r.aus for r in rows], np.int8)} if rows[0].aus else {}),
    )
    share = np.mean([p["found"] for p in packed])
    print(f"{name}: {len(rows)} pictures, points found on {share:.1%}", file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with the zips")
    parser.add_argument("--out", type=Path, required=True, help="folder for the packs")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--sets", nargs="*", default=SETS, choices=SETS)
    args = parser.parse_args()
    if not (args.data / "face_landmarker.task").is_file():
        sys.exit(
            f"{args.data}/face_landmarker.task is missing: MediaPipe's Face Landmarker bundle."
        )
    args.out.mkdir(parents=True, exist_ok=True)
    for name in args.sets:
        try:
            pack_set(args.data, name, args.out, args.workers)
        except FileNotFoundError as missing:
            print(f"Left out. {missing}", file=sys.stderr)


if __name__ == "__main__":
    main()

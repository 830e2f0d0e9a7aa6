"""Time feallm-mini from the photo to the last word, and the share of each step.

Run as:

    python -m benchmarks.mini [--photos FOLDER] [--threads 2]

Every figure is a median, after one that is not counted. Without `--photos` one photo is read again
and again, the portrait that comes with matplotlib. Finding faces is also timed on the first photo
brought to several sizes. Answers to several visitors are timed one by one and at once, in turn. The
last line is one JSON object.
"""

import argparse
import json
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import torch
from matplotlib.cbook import get_sample_data
from PIL import Image

from feallm import Predictor
from feallm.__main__ import list_photos
from feallm.faces import align_face, detect_faces
from feallm.photos import open_photo
from feallm.predictor import MINI, Reading

STEPS = {  # what analyse() calls, in order
    "eyes: vision tower, LCA, MPP": "_encode",
    "expression probabilities": "_expression_probabilities",
    "action units": "_decide_action_units",
    "three texts": "_texts",
}
SIDES = (640, 1280, 2560, 4096)
"""Longer sides in pixels."""
VISITORS = 4
"""Who ask at once."""
ASKED = [{"role": "user", "content": "Is the smile genuine?"}]


def find_faces(photos: list[Image.Image], size: int) -> tuple[list[Image.Image], list[float]]:
    """Return the aligned faces of photos and the seconds that finding them took, photo by photo."""
    detect_faces(photos[0])  # loads the detector
    faces, seconds = [], []
    for photo in photos:
        found = timed(detect_faces, seconds)(photo)
        faces += [align_face(photo, face, size) for face in found]
    return faces, seconds


def detection_growth(photo: Image.Image) -> dict[int, float]:
    """Return the seconds that finding faces takes with the photo at each of SIDES."""
    growth = {}
    for side in SIDES:
        scale = side / max(photo.size)
        copy = photo.resize((round(photo.width * scale), round(photo.height * scale)))
        seconds: list[float] = []
        for _ in range(3):
            timed(detect_faces, seconds)(copy)
        growth[side] = statistics.median(seconds)
    return growth


def timed(function: Callable, seconds: list[float]) -> Callable:
    """Return the function, noting how long each call takes."""

    def call(*args, **kwargs):
        start = time.perf_counter()
        result = function(*args, **kwargs)
        seconds.append(time.perf_counter() - start)
        return result

    return call


def answers(predictor: Predictor, readings: list[Reading], at_once: int) -> float:
    """Return the seconds that a question about each face takes, so many visitors at a time."""
    copies = [replace(reading) for reading in readings]  # of a copy nothing was read before
    start = time.perf_counter()
    with ThreadPoolExecutor(at_once) as visitors:
        list(visitors.map(lambda reading: "".join(predictor.stream(reading, ASKED)), copies))
    return time.perf_counter() - start


def rounded(value: object) -> object:
    """Return a result with its numbers as exact as they are."""
    if isinstance(value, dict):
        return {k: rounded(v) for k, v in value.items()}
    return round(value, 4) if isinstance(value, float) else value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default=str(MINI), help="folder or hub id of a FEALLM")
    parser.add_argument("--photos", type=Path, help="folder of photos to read")
    parser.add_argument("--faces", type=int, default=20, help="faces to read at least")
    parser.add_argument("--threads", type=int, default=2, help="CPU cores to use")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    start = time.perf_counter()
    predictor = Predictor(args.model)
    loading = time.perf_counter() - start
    portrait = get_sample_data("grace_hopper.jpg", asfileobj=False)
    paths = list_photos([args.photos or Path(portrait)])
    photos = [open_photo(path)[0] for path in paths]
    if not photos:
        raise SystemExit(f"{args.photos} holds no photo.")
    faces, detection = find_faces(photos, predictor.face_size)
    if not faces:
        raise SystemExit(f"No face was found in {args.photos}.")
    growth = detection_growth(photos[0])
    faces *= -(-args.faces // len(faces))
    steps: dict[str, list[float]] = defaultdict(list)
    "".join(predictor.stream(predictor.analyse(faces[0]), ASKED))
    for name, method in STEPS.items():
        setattr(predictor, method, timed(getattr(predictor, method), steps[name]))
    analysis, first, whole, asked = [], [], [], []
    for face in faces:
        start = time.perf_counter()
        reading = predictor.analyse(face)
        analysis.append(time.perf_counter() - start)
        start = time.perf_counter()
        pieces = predictor.stream(reading, ASKED)
        next(pieces)
        first.append(time.perf_counter() - start)
        list(pieces)
        whole.append(time.perf_counter() - start)
        asked = [*asked, reading][:VISITORS]
    rounds = [[answers(predictor, asked, n) for n in (1, VISITORS)] for _ in range(3)]
    one_by_one, at_once = (statistics.median(times) for times in zip(*rounds, strict=True))
    result = {
        "model": predictor.name,
        "device": str(predictor.device),
        "dtype": str(predictor.dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "faces": len(faces),
        "input": str(args.photos or paths[0].name),
        "loading_s": loading,
        "detection_s": statistics.median(detection),
        "detection_by_side_s": growth,
        "analysis_s": statistics.median(analysis),
        "analysis_slowest_s": max(analysis),
        "first_words_s": statistics.median(first),
        "chat_answer_s": statistics.median(whole),
        "visitors": len(asked),
        "answers_one_by_one_s": one_by_one,
        "answers_at_once_s": at_once,
        "steps_s": {name: statistics.median(seconds) for name, seconds in steps.items()},
    }
    print(
        f"{result['model']} on {result['device']} ({result['dtype']}, {result['threads']} threads)"
    )
    print(f"loading                        {loading:7.3f} s")
    print(f"finding the faces of a photo   {result['detection_s']:7.3f} s")
    for side, seconds in growth.items():
        print(f"  {f'{side:,} pixels wide or high':<28} {seconds:7.3f} s")
    print(f"analysis of a face             {result['analysis_s']:7.3f} s")
    for name, seconds in result["steps_s"].items():
        print(f"  {name:<28} {seconds:7.3f} s {seconds / result['analysis_s']:6.0%}")
    print(f"first words of a chat answer   {result['first_words_s']:7.3f} s")
    print(f"whole chat answer              {result['chat_answer_s']:7.3f} s")
    print(
        f"answers to {len(asked)} visitors          {one_by_one:7.3f} s one by one, "
        f"{at_once:.3f} s at once ({one_by_one / at_once:.1f} times as fast)"
    )
    print(json.dumps(rounded(result)))


if __name__ == "__main__":
    main()

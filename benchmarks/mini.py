"""Time an analysis and a chat answer of feallm-mini, and the share of each step.

Run as:

    python -m benchmarks.mini [--photos FOLDER] [--threads 2]

Every figure is a median over faces after one of each was not counted. Without `--photos` the
faces are smooth noise: the model works as hard on them. Answers to several visitors are timed one
by one and at once, in turn. The last line is one JSON object.
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

import numpy as np
import torch
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
VISITORS = 4
"""Who ask at once."""
ASKED = [{"role": "user", "content": "Is the smile genuine?"}]


def noise_faces(count: int, size: int) -> list[Image.Image]:
    """Return smooth random pictures of a face's size."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 255, (count, 8, 8, 3), dtype=np.uint8)
    return [Image.fromarray(c).resize((size, size), Image.Resampling.BICUBIC) for c in coarse]


def photo_faces(folder: Path, size: int) -> tuple[list[Image.Image], list[float]]:
    """Return the aligned faces of a folder's photos and the seconds each detection took."""
    faces, seconds = [], []
    detect_faces(Image.new("RGB", (64, 64)))  # loads the detector
    for path in list_photos([folder]):
        photo, _ = open_photo(path)
        start = time.perf_counter()
        found = detect_faces(photo)
        seconds.append(time.perf_counter() - start)
        faces += [align_face(photo, face, size) for face in found]
    return faces, seconds


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default=str(MINI), help="folder or hub id of a FEALLM")
    parser.add_argument("--photos", type=Path, help="folder of photos whose faces are read")
    parser.add_argument("--faces", type=int, default=20, help="faces to read at least")
    parser.add_argument("--threads", type=int, default=2, help="CPU cores to use")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    start = time.perf_counter()
    predictor = Predictor(args.model)
    loading = time.perf_counter() - start
    detection: list[float] = []
    if args.photos:
        faces, detection = photo_faces(args.photos, predictor.face_size)
        if not faces:
            raise SystemExit(f"No face was found in {args.photos}.")
        faces *= -(-args.faces // len(faces))
    else:
        faces = noise_faces(args.faces, predictor.face_size)
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
        "input": "photos" if args.photos else "noise",
        "loading_s": loading,
        "detection_s": statistics.median(detection) if detection else None,
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
    if detection:
        print(f"face detection, a photo        {result['detection_s']:7.3f} s")
    print(f"analysis of a face             {result['analysis_s']:7.3f} s")
    for name, seconds in result["steps_s"].items():
        print(f"  {name:<28} {seconds:7.3f} s {seconds / result['analysis_s']:6.0%}")
    print(f"first words of a chat answer   {result['first_words_s']:7.3f} s")
    print(f"whole chat answer              {result['chat_answer_s']:7.3f} s")
    print(
        f"answers to {len(asked)} visitors          {one_by_one:7.3f} s one by one, "
        f"{at_once:.3f} s at once ({one_by_one / at_once:.1f} times as fast)"
    )
    print(json.dumps({k: round(v, 4) if isinstance(v, float) else v for k, v in result.items()}))


if __name__ == "__main__":
    main()

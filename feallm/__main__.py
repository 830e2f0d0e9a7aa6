"""FEALLM on the command line: photos in, one JSON object per face out.

    python -m feallm photo.jpg                     every face of a photo
    python -m feallm holiday/ --csv faces.csv      every photo of a folder, and a table
    python -m feallm face.png --face-crop          the picture is one face already
    python -m feallm photo.jpg --ask "Is the smile genuine?"

The objects go to standard output, one to a line (JSON Lines); progress goes to standard error. A
photo that cannot be used gives an object with "photo" and "error", and the run goes on. Photos are
read on this machine and sent nowhere.
"""

import argparse
import contextlib
import csv
import json
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

from feallm import Predictor
from feallm.device import DTYPES, device_of
from feallm.export import to_json
from feallm.faces import NO_FACE, align_face, caveat, detect_faces, face_of_crop
from feallm.facs import AUS, EXPRESSIONS, describe
from feallm.loading import QUANTIZATIONS
from feallm.photos import BadPhoto, open_photo, upright_size
from feallm.predictor import MINI, UNTUNED, QuestionTooLong, excuse

ANY_LETTERS = {"encoding": "utf-8", "errors": "backslashreplace"}
"""Names of files are in whatever letters, now and then in bytes that are none."""
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif"}


def list_photos(paths: list[Path]) -> list[Path]:
    """Return the files named, and for a folder the pictures in it (by suffix), sorted."""
    photos = []
    for path in paths:
        if path.is_dir():
            photos += sorted(
                p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file()
            )
        else:
            photos.append(path)
    return photos


def analyse_photo(
    predictor: Predictor, path: Path, face_crop: bool, question: str | None
) -> Iterator[dict]:
    """Yield one object per face of a photo, or one with an error; boxes are in the file's pixels.

    Raises:
        QuestionTooLong: the question alone is too long for the model.
        RuntimeError: the model failed.
    """
    try:
        photo, note = open_photo(path)
        if face_crop:
            found = [(face_of_crop(photo, predictor.face_size), None)]
        else:
            found = [(align_face(photo, f, predictor.face_size), f) for f in detect_faces(photo)]
        if not found:
            raise BadPhoto(NO_FACE)
    except BadPhoto as problem:
        yield {"photo": str(path), "error": str(problem)}
        return
    width, height = upright_size(path)
    scale = width / photo.width  # of a large photo it was a smaller copy that was looked at
    for index, (picture, face) in enumerate(found):
        reading = predictor.analyse(picture)
        box = [v * scale for v in face.box] if face else (0, 0, width, height)
        result = {
            "photo": str(path),
            "face": index,
            "box": [round(v, 1) for v in box],
            "detection": round(face.score, 4) if face else None,
            **to_json(reading),
            "model": predictor.name,
        }
        doubts = (
            note,
            caveat(face, photo) if face else "",
            "" if predictor.tuned else f"The model is {UNTUNED}.",
        )
        notes = " ".join(filter(None, doubts))
        if notes:
            result["note"] = notes
        if question:
            # too long a question is found here: a lent GPU's worker would hide what it is about
            asked = predictor.fitting(reading, [{"role": "user", "content": question}])
            result["question"] = question
            result["answer"] = "".join(predictor.stream(reading, asked)).strip()
        yield result


def csv_row(result: dict) -> dict:
    """Flatten one result for a table: a column per expression and per action unit."""
    row = {k: result.get(k) for k in ("photo", "face", "expression", "summary", "error")}
    row["action_units"] = " ".join(f"AU{k}" for k in result.get("action_units", ()))
    row |= {f"P({e})": result.get("expression_probabilities", {}).get(e) for e in EXPRESSIONS}
    return row | {
        f"P(AU{k})": result.get("action_unit_probabilities", {}).get(f"AU{k}") for k in AUS
    }


def tell(words: object) -> None:
    print(words, file=sys.stderr)


def main(arguments: list[str] | None = None) -> int:
    """Run the command; the exit status is 1 when no photo could be used."""
    parser = argparse.ArgumentParser(
        prog="python -m feallm",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Action units: " + ", ".join(describe(k) for k in AUS) + ".",
    )
    parser.add_argument(
        "photos",
        nargs="+",
        type=Path,
        metavar="PHOTO_OR_FOLDER",
        help="pictures, or folders of them",
    )
    parser.add_argument(
        "--model",
        default=str(MINI),
        metavar="DIR_OR_HUB_ID",
        help="a FEALLM, or a plain LLaVA-1.5 (default: feallm-mini)",
    )
    parser.add_argument("--device", default="auto", help="auto (the default), cpu, cuda, cuda:1")
    parser.add_argument(
        "--quantization", choices=QUANTIZATIONS, help="of a large model's language part"
    )
    parser.add_argument(
        "--dtype", default="auto", choices=DTYPES, help="of the weights (default: auto)"
    )
    parser.add_argument(
        "--face-crop", action="store_true", help="each picture is one face already: no detection"
    )
    parser.add_argument(
        "--ask", metavar="QUESTION", help="also answer this question about every face"
    )
    parser.add_argument("--csv", type=Path, metavar="FILE", help="also write a table")
    args = parser.parse_args(arguments)
    if args.ask is not None and not args.ask.strip():
        parser.error("--ask needs a question.")
    photos = list_photos(args.photos)
    if not photos:
        parser.error("There is no picture in the folders given.")
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a stand-in for one may not have it
            stream.reconfigure(**ANY_LETTERS)
    try:
        device, dtype = device_of(args.device), DTYPES[args.dtype]
        predictor = Predictor(args.model, device, dtype, args.quantization, tell)
    except RuntimeError as problem:  # a ModelError, or what the device has to say
        tell(problem)
        return 2
    try:
        file = args.csv and args.csv.open("w", newline="", **ANY_LETTERS)
    except OSError as problem:
        parser.error(f"--csv: {args.csv} cannot be written ({problem.strerror}).")
    with file or contextlib.nullcontext():
        table = csv.DictWriter(file, csv_row({})) if file else None
        usable = analyse_all(predictor, photos, args, table)
    return 0 if usable else 1


def analyse_all(
    predictor: Predictor, photos: list[Path], args: argparse.Namespace, table: csv.DictWriter | None
) -> int:
    """Write what is found in each photo as soon as it is; return how many faces were read."""
    usable = 0
    if table:
        table.writeheader()
    for number, path in enumerate(photos, 1):
        tell(f"[{number}/{len(photos)}] {path}")
        for result in results_of(predictor, path, args):
            usable += "error" not in result
            if table:
                table.writerow(csv_row(result))
            print(json.dumps(result, ensure_ascii=False), flush=True)
    if table:
        tell(f"The table is in {args.csv}.")
    return usable


def results_of(predictor: Predictor, path: Path, args: argparse.Namespace) -> Iterator[dict]:
    """`analyse_photo`, its errors as objects."""
    try:
        yield from analyse_photo(predictor, path, args.face_crop, args.ask)
    except QuestionTooLong as problem:
        yield {"photo": str(path), "error": str(problem)}
    except RuntimeError as error:
        traceback.print_exception(error)
        yield {"photo": str(path), "error": excuse(error)}


if __name__ == "__main__":
    sys.exit(main())

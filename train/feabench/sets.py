"""The labelled faces a benchmark asks about, each set read in its owners' layout.

    feabench    frames.jsonl of train.fea.affwild2, cropped_aligned/VIDEO/00001.jpg
    rafdb       [basic/]EmoLabel/list_patition_label.txt, [basic/]Image/aligned/
    affectnet   val_set/images/1.jpg, val_set/annotations/1_exp.npy, or
                validation.csv, Manually_Annotated_Images/
    bp4d        AUCoding/[AU_OCC/]F001_T1.csv, [2D+3D/]F001/T1/2440.jpg
    disfa       ActionUnit_Labels/SN001/SN001_au1.txt, Images/SN001/1.png
    ferplus, ckplus, expw       NAME.zip or a folder, as train.mini.prepare reads them

DISFA hands out videos; `ffmpeg -i LeftVideoSN001_comp.avi Images/SN001/%d.png` numbers their frames
as its label files do. BP4D and DISFA are sampled at 2 %, as the paper does: every fiftieth coded
frame. Of their units those are asked for that the twelve of an FEA answer share, as in the paper.
"""

import csv
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from feallm.faces import align_face, detect_faces, face_of_crop
from feallm.facs import AUS, EXPRESSIONS
from train.layouts import LayoutError, read_lines, readable
from train.mini.prepare import CKPLUS_AUS, Source, read_rows

BP4D_UNITS = (1, 2, 4, 6, 7, 10, 12, 15, 23, 24)
DISFA_UNITS = (1, 2, 4, 6, 12, 25, 26)
DISFA_ACTIVE = 2
"""Intensity, of 0 to 5, from which a unit of DISFA counts as active."""
EVERY = 50
"""Of the coded frames of BP4D and DISFA one in so many is asked about."""
RAFDB_CLASSES = ("Surprise", "Fear", "Disgust", "Happiness", "Sadness", "Anger", "Neutral")
AFFECTNET_CLASSES = ("Neutral", "Happiness", "Sadness", "Surprise", "Fear", "Disgust", "Anger")
"""AffectNet's later classes (contempt, none, uncertain, no face) are left out."""
AFFECTNET_COLUMNS = ("subDirectory_filePath", "face_x", "face_y", "face_width", "face_height") + (
    *("facial_landmarks", "expression", "valence", "arousal"),
)


@dataclass(frozen=True)
class Item:
    """One face: its picture's name in the set, its box in it, and what is known of it.

    `aus` holds the coded units, True where active; `agreed` what most annotators of FER+ say, a
    name of the seven or "Contempt", where they agree (`train.mini.prepare.agreed_label`).
    """

    name: str
    expression: str | None = None
    aus: dict[int, bool] | None = None
    box: tuple[float, float, float, float] | None = None
    agreed: str | None = None


@dataclass(frozen=True)
class FaceSet:
    """The faces of one set. `whole_photos` must be searched for the face; others are faces."""

    items: list[Item]
    read: Callable[[str], bytes]
    whole_photos: bool = False

    def face(self, item: Item, size: int) -> Image.Image:
        """Return an item's aligned face, `size` pixels wide.

        Raises:
            LayoutError: its picture cannot be opened.
        """
        try:
            picture = Image.open(io.BytesIO(self.read(item.name))).convert("RGB")
        except (OSError, SyntaxError, ValueError) as error:  # what Pillow says of broken files
            raise LayoutError(f"{item.name} cannot be opened: {error}") from None
        if self.whole_photos:
            for face in detect_faces(picture):  # the largest first
                if item.box is None or _holds(face.box, item.box):
                    return align_face(picture, face, size)
        if item.box:
            picture = picture.crop(tuple(round(v) for v in item.box))
        return face_of_crop(picture, size)


def _holds(box: tuple[float, ...], other: tuple[float, ...]) -> bool:
    """Whether a box holds the centre of another."""
    x, y = (other[0] + other[2]) / 2, (other[1] + other[3]) / 2
    return box[0] <= x <= box[2] and box[1] <= y <= box[3]


def load_set(name: str, root: Path) -> FaceSet:
    """Return a set by its name in `SETS`.

    Raises:
        LayoutError: the folder is not laid out as the set's owners do.
    """
    try:
        return SETS[name](root)
    except FileNotFoundError as error:
        raise LayoutError(str(error)) from None


def feabench(root: Path) -> FaceSet:
    """Aff-Wild2's frames that were kept aside to test with."""
    path, faces, items = root / "frames.jsonl", root / "cropped_aligned", []
    for number, line in enumerate(read_lines(path), 1):
        try:
            frame = json.loads(line)
            wanted = frame["split"] == "test"
            active = set(frame["aus"])
            item = Item(frame["image"], frame["expression"], {k: k in active for k in AUS})
        except (ValueError, KeyError, TypeError):
            raise LayoutError(f"{path}, line {number} is no frame of train.fea.affwild2.") from None
        if wanted:
            items.append(_there(faces, item, path, number))
    return _found(items, root, lambda name: (faces / name).read_bytes())


def rafdb(root: Path) -> FaceSet:
    """RAF-DB's test faces (Li, Deng, Du 2017; 3,068 of them), as aligned by its owners."""
    base = root / "basic" if (root / "basic").is_dir() else root
    path, faces, items = base / "EmoLabel/list_patition_label.txt", base / "Image/aligned", []
    for number, line in enumerate(read_lines(path), 1):
        if not line.strip():
            continue
        name, _, label = line.partition(" ")
        if not name.endswith(".jpg") or label.strip() not in {*"1234567"}:
            raise LayoutError(f"{path}, line {number}: {line!r} is not a name and a class 1 to 7.")
        if name.startswith("test_"):
            item = Item(f"{Path(name).stem}_aligned.jpg", RAFDB_CLASSES[int(label) - 1])
            items.append(_there(faces, item, path, number))
    return _found(items, root, lambda name: (faces / name).read_bytes())


def affectnet(root: Path) -> FaceSet:
    """AffectNet's validation set (Mollahosseini 2017), the seven expressions of it."""
    if (root / "val_set").is_dir():
        return _affectnet_folders(root / "val_set")
    lists = [p for p in (root, root / "Manually_Annotated_file_lists") if p.is_dir()]
    path = next((p / "validation.csv" for p in lists if (p / "validation.csv").is_file()), None)
    if path is None:
        raise LayoutError(f"{root} holds neither val_set/ nor validation.csv.")
    faces, items = root / "Manually_Annotated_Images", []
    rows = list(csv.reader(read_lines(path)))
    has_head = bool(rows) and rows[0] == list(AFFECTNET_COLUMNS)  # some releases have none
    for number, row in enumerate(rows[has_head:], 1 + has_head):
        try:
            fields = dict(zip(AFFECTNET_COLUMNS, row, strict=True))
            label = int(fields["expression"])
            x, y, width, height = (float(fields[k]) for k in AFFECTNET_COLUMNS[1:5])
        except ValueError:
            raise LayoutError(
                f"{path}, line {number} has not the columns {', '.join(AFFECTNET_COLUMNS)}."
            ) from None
        if not 0 <= label <= 10:
            raise LayoutError(f"{path}, line {number}: there is no class {label}.")
        if label < len(AFFECTNET_CLASSES):
            box = (x, y, x + width, y + height)
            item = Item(fields["subDirectory_filePath"], AFFECTNET_CLASSES[label], box=box)
            items.append(_there(faces, item, path, number))
    return _found(items, root, lambda name: (faces / name).read_bytes(), whole_photos=True)


def _affectnet_folders(root: Path) -> FaceSet:
    """The later release: cropped faces, and a label file for each."""
    items = []
    for path in sorted(map(readable, (root / "annotations").glob("*_exp.npy"))):
        try:
            label = int(np.load(path))
        except (ValueError, TypeError, EOFError, OSError):
            raise LayoutError(f"{path} holds no class number.") from None
        if not 0 <= label <= 10:
            raise LayoutError(f"{path}: there is no class {label}.")
        if label < len(AFFECTNET_CLASSES):
            item = Item(f"{path.name.removesuffix('_exp.npy')}.jpg", AFFECTNET_CLASSES[label])
            items.append(_there(root / "images", item, path))
    return _found(items, root, lambda name: (root / "images" / name).read_bytes())


def bp4d(root: Path) -> FaceSet:
    """BP4D (Zhang 2014): 0 absent, 1 present, 9 not coded; the first column is the frame."""
    folders = (root / "AUCoding" / "AU_OCC", root / "AUCoding", root / "AU_OCC")
    tables = next((f for f in folders if f.is_dir() and any(f.glob("*_T*.csv"))), None)
    if tables is None:
        raise LayoutError(f"{root} holds no AUCoding/F001_T1.csv: is it BP4D's layout?")
    photos = root / "2D+3D" if (root / "2D+3D").is_dir() else root
    coded = []
    for path in sorted(map(readable, tables.glob("*_T*.csv"))):
        subject, _, task = path.stem.partition("_")
        head, *rows = [[v.strip() for v in r] for r in csv.reader(read_lines(path))] or [[]]
        columns = {k: head.index(str(k)) for k in BP4D_UNITS if str(k) in head[1:]}
        if lacking := [k for k in BP4D_UNITS if k not in columns]:
            raise LayoutError(f"{path}, line 1: the header names no unit {lacking[0]}.")
        for number, row in enumerate(rows, 2):
            values = {k: row[c] if c < len(row) else "" for k, c in columns.items()}
            if not set(values.values()) <= {"0", "1", "9"} or not row[0].isdigit():
                raise LayoutError(f"{path}, line {number}: a frame and 0, 1 or 9 are needed.")
            units = {k: v == "1" for k, v in values.items() if v != "9"}
            if units:
                coded.append((f"{subject}/{task}", int(row[0]), units, path, number))
    return _sampled(coded, photos, root)


def disfa(root: Path) -> FaceSet:
    """DISFA (Mavadati 2013): "frame,intensity" for each unit and frame, intensities 0 to 5."""
    labels, coded = root / "ActionUnit_Labels", []
    subjects = sorted(p for p in map(readable, labels.glob("SN*")) if p.is_dir())
    if not subjects:
        raise LayoutError(f"{root} holds no ActionUnit_Labels/SN001: is it DISFA's layout?")
    for folder in subjects:
        units: dict[int, dict[int, bool]] = {}
        for k in DISFA_UNITS:
            path = folder / f"{folder.name}_au{k}.txt"
            for number, line in enumerate(read_lines(path), 1):
                frame, _, intensity = (v.strip() for v in line.partition(","))
                if not frame.isdigit() or intensity not in {*"012345"}:
                    raise LayoutError(f"{path}, line {number}: {line!r} is no frame,intensity.")
                units.setdefault(int(frame), {})[k] = int(intensity) >= DISFA_ACTIVE
        coded += [(folder.name, frame, units[frame], path, frame) for frame in sorted(units)]
    return _sampled(coded, root / "Images", root)


def zipped(name: str) -> Callable[[Path], FaceSet]:
    """Return the loader of one of the public sets the mini is measured on."""

    def load(root: Path) -> FaceSet:
        source, items = Source(root, name), []
        for row in read_rows(name, source.labels()):
            if row.split == "valid":
                votes = np.array(row.votes)
                expression = EXPRESSIONS[int(votes.argmax())] if votes.sum() > 0 else None
                units = row.aus and {k: v == 1 for k, v in zip(CKPLUS_AUS, row.aus, strict=True)}
                agreed = row.agreed and row.agreed.capitalize()
                items.append(Item(row.file, expression, units, row.box, agreed))
        return FaceSet(items, source.read, whole_photos=name == "expw")

    return load


SETS: dict[str, Callable[[Path], FaceSet]] = {
    "feabench": feabench,
    "rafdb": rafdb,
    "affectnet": affectnet,
    "bp4d": bp4d,
    "disfa": disfa,
    "ferplus": zipped("ferplus"),
    "ckplus": zipped("ckplus_validation"),
    "expw": zipped("expw"),
}


def _there(folder: Path, item: Item, path: Path, line: int | None = None) -> Item:
    """Return the item if its picture is there."""
    if not (folder / item.name).is_file():
        place = f"{path}, line {line}" if line else f"{path}"
        raise LayoutError(f"{place}: {folder / item.name} is not there.")
    return item


def _found(items: list[Item], root: Path, read: Callable, whole_photos: bool = False) -> FaceSet:
    if not items:
        raise LayoutError(f"{root} holds no labelled faces to test with.")
    return FaceSet(items, read, whole_photos)


def _names(folder: str, frame: int) -> Iterator[str]:
    """The names a frame's picture may have: owners and tools fill numbers up differently."""
    for width in (0, 3, 4, 5, 6):
        for ending in (".jpg", ".png"):
            yield f"{folder}/{frame:0{width}d}{ending}"


def _sampled(coded: list[tuple], photos: Path, root: Path) -> FaceSet:
    """Return every fiftieth of (folder, frame, units, label file, line) with its picture."""
    items = []
    for folder, frame, units, path, line in coded[::EVERY]:
        name = next((n for n in _names(folder, frame) if (photos / n).is_file()), None)
        if name is None:
            raise LayoutError(f"{path}, line {line}: {photos / folder} has no frame {frame}.")
        items.append(Item(name, aus=units))
    return _found(items, root, lambda name: (photos / name).read_bytes(), whole_photos=True)

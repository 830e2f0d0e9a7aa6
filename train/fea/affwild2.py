r"""Choose the frames of Aff-Wild2 that become FEA instruction data and FEABench.

Run as:

    python -m train.fea.affwild2 --root AFFWILD2 --out fea/

AFFWILD2 is laid out as the ABAW challenges hand it out:

    cropped_aligned/VIDEO/00001.jpg             faces, 112 x 112; frames without a face are absent
    ANNOTATIONS/EXPR_*/Train_Set/VIDEO.txt      a line of class names, then a number a frame
    ANNOTATIONS/AU_*/Validation_Set/VIDEO.txt   a line of unit names, then 0, 1 or -1 for each

wherever the EXPR_* and AU_* folders lie beneath it. Line k + 1 of a file belongs to frame k; -1
means not labelled. Two people of one video have files of their own, VIDEO_left and VIDEO_right. The
paper keeps frames with both labels and one of the seven expressions: 14,892 to train on and 1,335
to test with, no subject in both. ABAW's training and validation sets share no subject, so the
former come from the one and the latter from the other.

How the paper chose among them is not known. Ours: expressions are levelled by a power of their
frequency; the frames of one are shared out among its videos as evenly as they have them, and lie as
far apart in each as they can, since neighbours in a video are nearly the same picture. Written are
OUT/frames.jsonl, one object a frame, OUT/distribution.json and OUT/distribution.png, and a link
OUT/cropped_aligned to the pictures, where FEABench looks for them.
"""

import argparse
import json
import random
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from feallm.facs import AUS, EXPRESSIONS
from train.layouts import LayoutError, read_lines, readable

SPLITS = {"Train_Set": "train", "Validation_Set": "test"}
COUNTS = {"train": 14_892, "test": 1_335}
"""Frames the paper takes."""
UNITS_HEADER = [f"AU{k}" for k in AUS]
OTHER = "Other"
"""ABAW's eighth class, which the paper leaves out."""


@dataclass(frozen=True)
class Frame:
    """One labelled face: its picture under `cropped_aligned`, and what ABAW says of it."""

    image: str
    video: str
    number: int
    split: str
    expression: str
    aus: tuple[int, ...]


def read_expressions(path: Path) -> list[str | None]:
    """Return the expression of each frame, None where it is not labelled or of another class.

    Raises:
        LayoutError: the header or a line is not ABAW's.
    """
    lines = read_lines(path)
    names = [n.strip() for n in lines[0].split(",")] if lines else []
    if names not in (list(EXPRESSIONS), [*EXPRESSIONS, OTHER]):
        raise LayoutError(f"{path}, line 1: the header must be {','.join(EXPRESSIONS)}[,{OTHER}].")
    found = []
    for number, line in enumerate(lines[1:], 2):
        try:
            label = int(line)
        except ValueError:
            raise LayoutError(f"{path}, line {number}: {line!r} is no number.") from None
        if not -1 <= label < len(names):
            raise LayoutError(f"{path}, line {number}: there is no class {label}.")
        found.append(EXPRESSIONS[label] if 0 <= label < len(EXPRESSIONS) else None)
    return found


def read_units(path: Path) -> list[tuple[int, ...] | None]:
    """Return the active units of each frame, None where any of the twelve is not labelled.

    Raises:
        LayoutError: the header or a line is not ABAW's.
    """
    lines = read_lines(path)
    names = [n.strip() for n in lines[0].split(",")] if lines else []
    unknown = [n for n in names if n not in UNITS_HEADER]
    if unknown:
        raise LayoutError(f"{path}, line 1: {unknown[0]!r} is none of {','.join(UNITS_HEADER)}.")
    if names != UNITS_HEADER:
        raise LayoutError(f"{path}, line 1: the header must be {','.join(UNITS_HEADER)}.")
    found = []
    for number, line in enumerate(lines[1:], 2):
        values = [v.strip() for v in line.split(",")]
        if len(values) != len(AUS) or not set(values) <= {"0", "1", "-1"}:
            raise LayoutError(f"{path}, line {number}: twelve of 0, 1 and -1 are needed.")
        active = tuple(k for k, v in zip(AUS, values, strict=True) if v == "1")
        found.append(None if "-1" in values else active)
    return found


def annotations(root: Path, kind: str) -> dict[str, tuple[str, Path]]:
    """Return {video: (split, file)} of the EXPR or AU annotations.

    Raises:
        LayoutError: there are none, or a video is in both splits.
    """
    found: dict[str, tuple[str, Path]] = {}
    for folder in sorted(p for p in root.rglob(f"{kind}_*") if p.is_dir()):
        for name, split in SPLITS.items():
            for file in sorted(map(readable, (folder / name).glob("*.txt"))):
                if file.stem in found and found[file.stem][0] != split:
                    raise LayoutError(f"{file}: this video is in both sets of {kind}.")
                found[file.stem] = (split, file)
    if not found:
        raise LayoutError(f"{root} holds no {kind}_*/Train_Set/*.txt: is it ABAW's layout?")
    return found


def labelled_frames(root: Path, notes: Counter) -> Iterator[Frame]:
    """Yield the frames with both labels and a picture; count in `notes` what was left out.

    Raises:
        LayoutError: the layout is not ABAW's, or an annotated video has no pictures at all.
    """
    expressions, units = annotations(root, "EXPR"), annotations(root, "AU")
    faces = root / "cropped_aligned"
    if not faces.is_dir():
        raise LayoutError(f"{faces} is not there.")
    for video in sorted(expressions.keys() & units.keys()):
        (split, expression_file), (other_split, unit_file) = expressions[video], units[video]
        if split != other_split:
            notes["videos that are in different sets of EXPR and AU"] += 1
            continue
        folder = faces / video
        if not folder.is_dir():
            raise LayoutError(f"{folder} is not there, but {expression_file} and {unit_file} are.")
        there = {file.name for file in folder.iterdir()}
        labels = zip(read_expressions(expression_file), read_units(unit_file), strict=False)
        for number, (expression, aus) in enumerate(labels, 1):
            name = f"{number:05d}.jpg"
            if expression is None or aus is None:
                notes["frames without both labels"] += 1
            elif name not in there:
                notes["labelled frames without a picture"] += 1
            else:
                yield Frame(f"{video}/{name}", video, number, split, expression, aus)


def quotas(sizes: Sequence[int], total: int, power: float) -> list[int]:
    """Share a total among groups by size to the power of 1 minus `power`, none over its size."""
    left, shares = min(total, sum(sizes)), [0] * len(sizes)
    while left:
        open_groups = [i for i, size in enumerate(sizes) if shares[i] < size]
        weights = {i: sizes[i] ** (1 - power) for i in open_groups}
        scale = left / sum(weights.values())
        given = 0
        for i in open_groups:
            more = min(int(weights[i] * scale), sizes[i] - shares[i])
            shares[i] += more
            given += more
        if not given:  # fewer left than groups: the largest first
            for i in sorted(open_groups, key=lambda i: -weights[i])[:left]:
                shares[i] += 1
                given += 1
        left -= given
    return shares


def spread(frames: Sequence[Frame], count: int, rng: random.Random) -> list[Frame]:
    """Return `count` frames of one video, in equal stretches of its labelled time."""
    ordered = sorted(frames, key=lambda f: f.number)
    stretch = len(ordered) / count if count else 0
    offset = rng.random()
    return [ordered[int((k + offset) * stretch)] for k in range(count)]


def choose(frames: Sequence[Frame], total: int, seed: int, balance: float = 0.5) -> list[Frame]:
    """Choose frames of one split.

    Args:
        total: how many; all where there are fewer.
        balance: 0 keeps the expressions' frequencies, 1 makes them equal as far as there are faces.
    """
    rng = random.Random(seed)
    groups: dict[str, dict[str, list[Frame]]] = defaultdict(lambda: defaultdict(list))
    for frame in frames:
        groups[frame.expression][frame.video].append(frame)
    present = [e for e in EXPRESSIONS if e in groups]
    sizes = [sum(map(len, groups[e].values())) for e in present]
    chosen = []
    for expression, quota in zip(present, quotas(sizes, total, balance), strict=True):
        videos = sorted(groups[expression])
        shares = quotas([len(groups[expression][v]) for v in videos], quota, 1.0)
        for video, share in zip(videos, shares, strict=True):
            chosen += spread(groups[expression][video], share, rng)
    return sorted(chosen, key=lambda f: (f.video, f.number))


def distribution(frames: Sequence[Frame]) -> dict[str, dict[str, int]]:
    """Return how many frames show each expression and each unit."""
    expressions = Counter(f.expression for f in frames)
    units = Counter(k for f in frames for k in f.aus)
    return {
        "expressions": {e: expressions[e] for e in EXPRESSIONS},
        "action_units": {f"AU{k}": units[k] for k in AUS},
    }


def plot(counts: dict[str, dict[str, dict[str, int]]], path: Path) -> None:
    """Draw the shares of each split's expressions and units, as the paper's Figure 2 does."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(11, 3.6))
    for axis, what in zip(axes, ("expressions", "action_units"), strict=True):
        for k, (split, kinds) in enumerate(counts.items()):
            total = max(1, sum(kinds["expressions"].values()))
            places = [i + 0.4 * k for i in range(len(kinds[what]))]
            shares = [100 * n / total for n in kinds[what].values()]
            axis.bar(places, shares, width=0.4, label=f"{split} ({total:,})")
        axis.set_xticks([i + 0.2 for i in range(len(kinds[what]))], kinds[what], rotation=45)
        axis.set_ylabel("% of frames")
    axes[0].legend()
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def link_pictures(root: Path, out: Path) -> None:
    """Let OUT/cropped_aligned lead to the pictures, unless a folder is there."""
    link = out / "cropped_aligned"
    if link.exists() and not link.is_symlink():
        return
    try:
        link.unlink(missing_ok=True)
        link.symlink_to((root / "cropped_aligned").resolve(), target_is_directory=True)
    except OSError as problem:  # a disk, or a Windows user, that may not hold links
        print(f"{link} could not be made ({problem}): FEABench needs the pictures there.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--root", type=Path, required=True, help="folder of Aff-Wild2")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--train", type=int, default=COUNTS["train"], help="frames to train on")
    parser.add_argument("--test", type=int, default=COUNTS["test"], help="frames to test with")
    parser.add_argument("--balance", type=float, default=0.5, help="0: as found, 1: equal classes")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    notes: Counter = Counter()
    try:
        frames = list(labelled_frames(args.root, notes))
    except LayoutError as problem:
        sys.exit(str(problem))
    for text, count in notes.items():
        print(f"left out: {count:,} {text}")
    args.out.mkdir(parents=True, exist_ok=True)
    counts = {}
    with (args.out / "frames.jsonl").open("w", encoding="utf-8") as file:
        for split, wanted in (("train", args.train), ("test", args.test)):
            there = [f for f in frames if f.split == split]
            chosen = choose(there, wanted, args.seed, args.balance)
            if len(chosen) < wanted:
                print(f"{split}: only {len(chosen):,} frames are there, not {wanted:,}.")
            for frame in chosen:
                file.write(json.dumps(asdict(frame)) + "\n")
            counts[split] = distribution(chosen)
            videos = len({f.video for f in chosen})
            print(f"{split}: {len(chosen):,} of {len(there):,} frames, from {videos} videos")
    (args.out / "distribution.json").write_text(json.dumps(counts, indent=1) + "\n")
    plot(counts, args.out / "distribution.png")
    link_pictures(args.root, args.out)
    print(f"wrote {args.out / 'frames.jsonl'}")


if __name__ == "__main__":
    main()

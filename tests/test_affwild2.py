"""Aff-Wild2 in ABAW's layout: what is read, what is chosen, what is refused and where."""

import json
import random
from collections import Counter
from pathlib import Path

import pytest

from feallm.facs import AUS, EXPRESSIONS
from train.fea import affwild2
from train.fea.affwild2 import (
    Frame,
    LayoutError,
    choose,
    labelled_frames,
    link_pictures,
    quotas,
    spread,
)
from train.feabench.sets import load_set

EXPR_HEADER = ",".join([*EXPRESSIONS, "Other"])
AU_HEADER = ",".join(f"AU{k}" for k in AUS)
SETS = {"train": "Train_Set", "test": "Validation_Set"}


def write_video(
    root: Path,
    video: str,
    split: str,
    expressions: list[int],
    units: list[str] | None = None,
    absent: tuple[int, ...] = (),
) -> tuple[Path, Path]:
    """Write one video's annotations and (empty) pictures; return the two files."""
    files = []
    units = units or ["0," * 11 + "1"] * len(expressions)
    for kind, header, lines in (
        ("EXPR_Recognition_Challenge", EXPR_HEADER, map(str, expressions)),
        ("AU_Detection_Challenge", AU_HEADER, units),
    ):
        file = root / "annotations" / kind / SETS[split] / f"{video}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("\n".join([header, *lines]) + "\n")
        files.append(file)
    folder = root / "cropped_aligned" / video
    folder.mkdir(parents=True, exist_ok=True)
    for k in range(1, len(expressions) + 1):
        if k not in absent:
            (folder / f"{k:05d}.jpg").touch()
    return tuple(files)


def test_frames_with_both_labels_one_of_the_seven_and_a_picture(tmp_path):
    units = ["1,0,0,0,0,0,0,0,0,0,0,0", "-1" + ",-1" * 11, "0" + ",0" * 11, "0,1" + ",0" * 10]
    write_video(tmp_path, "12_left", "train", [4, 4, 7, 0], units)
    write_video(tmp_path, "12_right", "train", [-1, 6, 1, 1], absent=(3,))
    write_video(tmp_path, "9", "test", [5])
    notes: Counter = Counter()
    found = list(labelled_frames(tmp_path, notes))
    assert found == [
        Frame("12_left/00001.jpg", "12_left", 1, "train", "Happiness", (1,)),
        Frame("12_left/00004.jpg", "12_left", 4, "train", "Neutral", (2,)),
        Frame("12_right/00002.jpg", "12_right", 2, "train", "Surprise", (26,)),
        Frame("12_right/00004.jpg", "12_right", 4, "train", "Anger", (26,)),
        Frame("9/00001.jpg", "9", 1, "test", "Sadness", (26,)),
    ]
    assert notes == {"frames without both labels": 3, "labelled frames without a picture": 1}


def test_a_video_in_different_sets_is_left_out(tmp_path):
    write_video(tmp_path, "a", "train", [1])
    _, units = write_video(tmp_path, "b", "train", [1])
    moved = units.parent.parent / SETS["test"] / units.name
    moved.parent.mkdir(parents=True)
    units.rename(moved)
    notes: Counter = Counter()
    assert {f.video for f in labelled_frames(tmp_path, notes)} == {"a"}
    assert notes["videos that are in different sets of EXPR and AU"] == 1


@pytest.mark.parametrize(
    ("which", "content", "sentence"),
    [
        (0, "0\n1\n", "line 1: the header"),
        (0, EXPR_HEADER + "\n0\nx\n", "line 3: 'x' is no number"),
        (0, EXPR_HEADER + "\n8\n", "line 2: there is no class 8"),
        (1, "0" + ",0" * 11 + "\n", "line 1: '0' is none of"),
        (1, AU_HEADER.replace("AU26", "AU27") + "\n", "line 1: 'AU27' is none of"),
        (1, "AU1,AU2\n0,0\n", "line 1: the header must be"),
        (1, AU_HEADER + "\n0,0\n", "line 2: twelve"),
        (1, AU_HEADER + "\n" + "0," * 11 + "2\n", "line 2: twelve"),
        (0, b"\xff\xfe", "not UTF-8"),
    ],
)
def test_a_wrong_file_is_named_with_its_line(tmp_path, which, content, sentence):
    files = write_video(tmp_path, "a", "train", [0, 1])
    files[which].write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(LayoutError, match="a.txt") as error:
        list(labelled_frames(tmp_path, Counter()))
    assert sentence in str(error.value)


def test_a_wrong_folder_is_named(tmp_path):
    with pytest.raises(LayoutError, match="holds no EXPR"):
        list(labelled_frames(tmp_path, Counter()))
    write_video(tmp_path, "a", "train", [0])
    for file in (tmp_path / "cropped_aligned" / "a").iterdir():
        file.unlink()
    (tmp_path / "cropped_aligned" / "a").rmdir()
    with pytest.raises(LayoutError, match="cropped_aligned/a is not there"):
        list(labelled_frames(tmp_path, Counter()))


@pytest.mark.parametrize(
    ("sizes", "total", "power", "shares"),
    [
        ([10, 10], 10, 0.0, [5, 5]),
        ([90, 10], 10, 0.0, [9, 1]),
        ([90, 10], 10, 1.0, [5, 5]),
        ([90, 2], 10, 1.0, [8, 2]),
        ([1, 1, 1], 2, 1.0, [1, 1, 0]),
        ([3, 4], 99, 0.5, [3, 4]),
        ([], 5, 0.5, []),
    ],
)
def test_quotas(sizes, total, power, shares):
    assert quotas(sizes, total, power) == shares


def test_quotas_always_add_up():
    rng = random.Random(0)
    for _ in range(300):
        sizes = [rng.randint(1, 50) for _ in range(rng.randint(1, 9))]
        total, power = rng.randint(0, sum(sizes) + 5), rng.random()
        shares = quotas(sizes, total, power)
        assert sum(shares) == min(total, sum(sizes))
        assert all(0 <= s <= n for s, n in zip(shares, sizes, strict=True))


def made(video: str, count: int, expression: str) -> list[Frame]:
    return [
        Frame(f"{video}/{k:05d}.jpg", video, k, "train", expression, ())
        for k in range(1, count + 1)
    ]


def test_neighbours_in_a_video_are_avoided():
    for seed in range(20):
        chosen = spread(made("v", 100, "Fear"), 10, random.Random(seed))
        steps = [b.number - a.number for a, b in zip(chosen, chosen[1:], strict=False)]
        assert len(chosen) == 10 and min(steps) >= 9
    assert len(spread(made("v", 3, "Fear"), 3, random.Random(0))) == 3
    assert spread(made("v", 3, "Fear"), 0, random.Random(0)) == []


def test_the_choice_is_levelled_shared_out_and_follows_from_the_seed():
    frames = made("a", 500, "Neutral") + made("b", 40, "Neutral") + made("c", 60, "Fear")
    chosen = choose(frames, 100, seed=1)
    assert chosen == choose(list(reversed(frames)), 100, seed=1) != choose(frames, 100, seed=2)
    per_expression = Counter(f.expression for f in chosen)
    assert per_expression["Neutral"] + per_expression["Fear"] == 100
    assert 20 <= per_expression["Fear"] <= 30  # 60 of 600 would be 10, equal shares 50
    per_video = Counter(f.video for f in chosen)
    assert abs(per_video["a"] - per_video["b"]) <= 1
    assert len(set(chosen)) == 100
    assert len(choose(frames, 10_000, seed=0)) == 600


def test_the_command_writes_frames_distribution_and_plot(tmp_path, monkeypatch, capsys):
    for k in range(4):
        write_video(tmp_path, f"t{k}", "train", [k % 7] * 30)
    write_video(tmp_path, "v", "test", [4, 5] * 10)
    out = tmp_path / "out"
    options = ["--root", tmp_path, "--out", out, "--train", 40, "--test", 50]
    monkeypatch.setattr("sys.argv", ["affwild2", *map(str, options)])
    affwild2.main()
    said = capsys.readouterr().out
    assert "train: 40 of 120 frames, from 4 videos" in said
    assert "test: only 20 frames are there, not 50" in said
    frames = [json.loads(line) for line in (out / "frames.jsonl").read_text().splitlines()]
    assert Counter(f["split"] for f in frames) == {"train": 40, "test": 20}
    assert {f["video"] for f in frames if f["split"] == "train"} == {"t0", "t1", "t2", "t3"}
    counts = json.loads((out / "distribution.json").read_text())
    assert counts["test"]["expressions"]["Happiness"] == 10
    assert counts["train"]["action_units"]["AU26"] == 40
    assert (out / "distribution.png").stat().st_size > 5000
    assert len(load_set("feabench", out).items) == 20  # its pictures lead here
    again = (out / "frames.jsonl").read_bytes()
    affwild2.main()
    assert (out / "frames.jsonl").read_bytes() == again
    (tmp_path / "annotations").rename(tmp_path / "nothing")
    (tmp_path / "nothing" / "EXPR_Recognition_Challenge").rename(tmp_path / "x")
    with pytest.raises(SystemExit, match="EXPR"):
        affwild2.main()


def test_the_link_to_the_pictures_follows_them_and_harms_nothing(tmp_path, monkeypatch, capsys):
    out, old, new = (tmp_path / name for name in ("out", "old", "new"))
    for folder in (out, old, new / "cropped_aligned"):
        folder.mkdir(parents=True)
    link_pictures(old, out)  # leads nowhere
    link_pictures(new, out)
    assert (out / "cropped_aligned").resolve() == new / "cropped_aligned"
    (old / "cropped_aligned").mkdir()
    link_pictures(old, out)
    assert (out / "cropped_aligned").resolve() == old / "cropped_aligned"
    own = tmp_path / "own" / "cropped_aligned"
    own.mkdir(parents=True)
    link_pictures(new, own.parent)
    assert own.is_dir() and not own.is_symlink()

    def forbidden(*_, **__):
        raise OSError("not here")

    monkeypatch.setattr(Path, "symlink_to", forbidden)
    (tmp_path / "third").mkdir()
    link_pictures(new, tmp_path / "third")
    assert "could not be made (not here)" in capsys.readouterr().out

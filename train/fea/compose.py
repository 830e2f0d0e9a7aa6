"""Put questions to the described frames: the FEA instruction data in LLaVA's layout.

Run as:

    python -m train.fea.compose --out fea/

OUT holds frames.jsonl and described.jsonl of the steps before. Written are OUT/fea_train.json and
OUT/fea_test.json, a row for each frame with a question and an answer of each of the paper's three
kinds, in an order of its own, since any of them may be asked first, and OUT/DATASHEET.md, which
says what the data is and how it came to be. Questions are drawn by seed from `train.fea.questions`.
"""

import argparse
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from feallm.facs import AUS, EXPRESSIONS
from train.fea.journal import read_lines
from train.fea.questions import NUMBERS, TEMPLATES, ask, wordings
from train.order import draws

KINDS = ("summary", "movement", "reasoning")
DATASHEET = """# FEA instruction data: datasheet

**What.** {rows:,} faces of Aff-Wild2 with a talk of three turns each, emotion summary, facial
movement description and emotion reasoning, in LLaVA's conversation layout: {splits}.

**Why.** To tune FEALLM (arXiv 2505.13419, stage 2) and to test it (FEABench). The paper's own data
is not public; this follows its description.

**Faces and labels.** Frames of Aff-Wild2's `cropped_aligned` with both an expression and all twelve
action units labelled (`train/fea/affwild2.py`: one of the seven expressions, ABAW's training set to
train on and its validation set to test with, neighbours in a video kept apart). Neither the
pictures nor Aff-Wild2's annotations may be passed on without its owners' leave, and the answers
state the annotations: treat this data as theirs.

**Answers.** Written by {writers}. Dropped because no answer kept to the labels: {dropped:,} frames.

**Questions.** Drawn by seed {seed} from {templates} patterns and from {frames} frames with {things}
things to ask for; all open into many more wordings.

| expression | {split_heads} |
|---|{rules}
{expressions}

| action unit | {split_heads} |
|---|{rules}
{units}

**Not for** judging, ranking, monitoring or diagnosing people, nor for inferring emotions at work or
in education. Answers describe what a face shows, not what a person feels. Age, gender and origin
are not labelled: how the faces are spread over them is not known.
"""


def row(entry: dict, index: int, seed: int, kinds: Sequence[str] = KINDS) -> dict:
    """Return one described frame as a row in LLaVA's layout, a turn for each of `kinds`."""
    rng = draws(seed, 0, index)
    turns = []
    for kind in rng.sample(kinds, len(kinds)):
        turns.append({"from": "human", "value": ask(kind, rng)})
        turns.append({"from": "gpt", "value": entry[kind]})
    turns[0]["value"] = f"<image>\n{turns[0]['value']}"
    return {"id": Path(entry["image"]).with_suffix("").as_posix(), "image": entry["image"]} | {
        "conversations": turns
    }


def rows(entries: list[dict], split: str, seed: int, kinds: Sequence[str] = KINDS) -> list[dict]:
    """Return the rows of a split of `described` frames, in their order."""
    return [row(e, i, seed, kinds) for i, e in enumerate(entries) if e["split"] == split]


def described(out: Path) -> list[dict]:
    """Return the described frames in the frames' order; those of an earlier choice are left out.

    Raises:
        SystemExit: there are none.
    """
    entries = read_lines(out / "described.jsonl")
    if not entries:
        raise SystemExit(f"{out} holds no described.jsonl: run train.fea.describe first.")
    places = {e["image"]: i for i, e in enumerate(read_lines(out / "frames.jsonl"))}
    chosen = [e for e in entries if not places or e["image"] in places]
    return sorted(chosen, key=lambda e: places.get(e["image"], 0))


def write_rows(rows: list[dict], path: Path) -> None:
    """Write rows as LLaVA's data is published."""
    path.write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"{len(rows):,} rows in {path}")


def datasheet(entries: list[dict], dropped: int, seed: int) -> str:
    """Return what the data is, counted."""
    splits = [s for s in ("train", "test") if any(e["split"] == s for e in entries)]
    parts = {s: [e for e in entries if e["split"] == s] for s in splits}

    def line(name: str, holds) -> str:
        counts = (sum(map(holds, parts[s])) for s in splits)
        return f"| {name} | {' | '.join(f'{n:,}' for n in counts)} |"

    writers = Counter(e["by"] for e in entries)
    named = {"writer": "our own writer (`train/fea/writer.py`)"}
    return DATASHEET.format(
        rows=len(entries),
        splits=", ".join(f"{len(parts[s]):,} to {s}" for s in splits),
        writers=", ".join(f"{named.get(w, w)} ({n:,})" for w, n in writers.most_common()),
        dropped=dropped,
        seed=seed,
        templates=", ".join(f"{len(TEMPLATES[k]) + len(wordings(k))} {k}" for k in KINDS),
        frames=sum(len(wordings(f"frames/{n}")) for n in NUMBERS),
        things=sum(len(wordings(f"things/{k}_{n}")) for k in KINDS for n in NUMBERS),
        split_heads=" | ".join(splits),
        rules="---|" * len(splits),
        expressions="\n".join(line(e, lambda x, e=e: x["expression"] == e) for e in EXPRESSIONS),
        units="\n".join(line(f"AU{k}", lambda x, k=k: k in x["aus"]) for k in AUS),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    entries = described(args.out)
    for split in ("train", "test"):
        write_rows(rows(entries, split, args.seed), args.out / f"fea_{split}.json")
    sheet = datasheet(entries, len(read_lines(args.out / "dropped.jsonl")), args.seed)
    (args.out / "DATASHEET.md").write_text(sheet, encoding="utf-8")


if __name__ == "__main__":
    main()

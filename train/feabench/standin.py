"""The stand-in anyone can run: the benchmark's questions on public faces, as a table and pictures.

Run as:

    python -m train.feabench.standin --data DATA --out results/standin

Few people hold Aff-Wild2. DATA holds ferplus.zip and ckplus_validation.zip instead, as
`train.mini.prepare` reads them; feallm-mini is asked about them by the paper's protocol, writing
freely, and about CK+ once more as the page reads (FER+ so is `train.evaluate`'s without
`--benchmark`). Its rows go into train/README.md between their marks and its pictures into assets/.
Answers are kept in OUT, so that every figure can be traced to a sentence.
"""

import argparse
from pathlib import Path

from feallm.predictor import MINI
from train.feabench.run import ask_all
from train.feabench.sets import load_set
from train.feabench.systems import Deciding, Feallm
from train.feabench.table import STAND_IN, draw_confusion, draw_units, filled, markdown
from train.figures import inserted

ASSETS = MINI.parent
PAGE = Path(__file__).parent.parent / "README.md"
SETS = {"ferplus": "FER+ valid", "ckplus": "CK+"}


def unread(runs: list[dict]) -> str:
    """Return a sentence on the answers nothing could be read from."""
    parts = [r[kind] for r in runs for kind in ("expression", "units") if kind in r]
    count = sum(part["faces"] for part in parts)
    refused, unreadable = (sum(p[s] for p in parts) for s in ("refused", "unreadable"))
    return f"Of {count:,} answers {refused} were refusals and {unreadable} could not be read."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with the zips")
    parser.add_argument("--out", type=Path, required=True, help="folder of the answers")
    args = parser.parse_args()
    free, page = Feallm(str(MINI)), Deciding(str(MINI))
    runs = [
        ask_all(system, load_set(name, args.data), args.out / name / system.name, benchmark=name)
        for system, name in ((free, "ferplus"), (free, "ckplus"), (page, "ckplus"))
    ]
    written = {SETS[r["benchmark"]]: r["expression"] for r in runs if r["system"] == free.name}
    draw_confusion(written, ASSETS / "confusion.png")
    draw_units({r["system"]: r["units"] for r in runs if "units" in r}, ASSETS / "units.png")
    rows = [row for row in filled(STAND_IN, runs) if "published" not in row[0]]
    command = "`python -m train.feabench.standin --data DATA --out results/standin`, in per cent:"
    text = "\n\n".join([command, markdown(STAND_IN, rows), unread(runs)])
    PAGE.write_text(inserted(PAGE.read_text("utf-8"), text, "stand-in"), encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()

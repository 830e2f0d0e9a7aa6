"""The paper's tables, filled with what was measured; and pictures of it.

Run as:

    python -m train.feabench.table results/ [--out results/]

Reads every scores.json under RESULTS and writes OUT/tables.md, OUT/tables.csv and OUT/tables.png.
A cell nobody measured stays empty. Rows marked "published" are the paper's own figures, for
reference: they were not measured with this code.
"""

import argparse
import csv
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from feallm.facs import AUS, EXPRESSIONS
from train.figures import table


@dataclass(frozen=True)
class Column:
    """One figure of one benchmark, in per cent."""

    title: str
    benchmark: str
    kind: str
    figure: str

    def of(self, scores: dict) -> float | None:
        """Return the figure of a run, None where it has none."""
        if scores["benchmark"] != self.benchmark:
            return None
        value = scores.get(self.kind, {})
        for key in self.figure.split("/"):
            value = value.get(key) if isinstance(value, dict) else None
        return None if value is None else 100 * value


FEABENCH = [
    Column("expression accuracy", "feabench", "expression", "accuracy"),
    Column("AU mean F1", "feabench", "units", "mean_f1"),
    *(Column(f"AU{k}", "feabench", "units", f"f1/AU{k}") for k in AUS),
]
ZERO_SHOT = [
    Column("RAF-DB accuracy", "rafdb", "expression", "accuracy"),
    Column("AffectNet accuracy", "affectnet", "expression", "accuracy"),
    Column("BP4D AU mean F1", "bp4d", "units", "mean_f1"),
    Column("DISFA AU mean F1", "disfa", "units", "mean_f1"),
]
STAND_IN = [
    Column("FER+ accuracy", "ferplus", "expression", "accuracy"),
    Column("FER+ mean recall", "ferplus", "expression", "mean_recall"),
    Column("CK+ accuracy", "ckplus", "expression", "accuracy"),
    Column("CK+ mean recall", "ckplus", "expression", "mean_recall"),
    Column("CK+ AU mean F1", "ckplus", "units", "mean_f1"),
]
TABLES = {
    "FEABench": FEABENCH,
    "Zero-shot": ZERO_SHOT,
    "Public stand-in": STAND_IN,
}
PUBLISHED = {
    "FEALLM-7B (published)": {
        ("feabench", "expression", "accuracy"): 67.36,
        ("feabench", "units", "mean_f1"): 59.60,
        ("rafdb", "expression", "accuracy"): 69.95,
        ("affectnet", "expression", "accuracy"): 41.91,
        ("bp4d", "units", "mean_f1"): 45.98,
        ("disfa", "units", "mean_f1"): 42.61,
    },
    "LLaVA-1.5-7B + LoRA (published)": {
        ("feabench", "expression", "accuracy"): 59.97,
        ("feabench", "units", "mean_f1"): 55.79,
    },
}
"""arXiv 2505.13419; the figures of it that are public in its text."""


def read_scores(results: Path) -> list[dict]:
    """Return the scores of every run under a folder."""
    return [json.loads(p.read_text(encoding="utf-8")) for p in sorted(results.rglob("scores.json"))]


def row_name(scores: dict) -> str:
    """Return what a run's row is called."""
    choices = ", labels named in the question" if scores["choices"] else ""
    return f"{scores['system']}{choices}" + (f", seed {scores['seed']}" if scores["seed"] else "")


def filled(columns: list[Column], runs: list[dict]) -> list[tuple[str, list[float | None]]]:
    """Return the rows of a table: the published ones, then a row for each system measured."""
    rows = []
    for name, figures in PUBLISHED.items():
        cells = [figures.get((c.benchmark, c.kind, c.figure)) for c in columns]
        rows.append((name, cells))
    for name in dict.fromkeys(map(row_name, runs)):
        own = [r for r in runs if row_name(r) == name]
        cells = [next((v for r in own if (v := c.of(r)) is not None), None) for c in columns]
        rows.append((name, cells))
    return [row for row in rows if any(v is not None for v in row[1])]


def markdown(columns: list[Column], rows: Iterable[tuple[str, list[float | None]]]) -> str:
    """Return one table in Markdown, figures in per cent."""
    lines = [[n, *("" if v is None else f"{v:.2f}" for v in cells)] for n, cells in rows]
    return table(["", *(c.title for c in columns)], lines)


def describe_scores(scores: dict) -> list[str]:
    """Return a run's figures in sentences."""
    lines = [f"{scores['benchmark']}, {row_name(scores)}: {scores['questions']:,} questions"]
    unread = "{refused} refused, {unreadable} unreadable"
    if part := scores.get("expression"):
        lines.append(
            f"expression: accuracy {part['accuracy']:.2%}, mean recall {part['mean_recall']:.2%} "
            f"on {part['faces']:,} faces; " + unread.format(**part)
        )
    if part := scores.get("units"):
        each = ", ".join(f"{k} {v:.2%}" for k, v in part["f1"].items())
        lines.append(
            f"action units: mean F1 {part['mean_f1']:.2%} on {part['faces']:,} faces ({each}); "
            + unread.format(**part)
        )
    return lines


def draw_bars(runs: list[dict], path: Path) -> None:
    """Draw every table as bars, a colour for each system."""
    from matplotlib.figure import Figure

    tables = {t: (c, filled(c, runs)) for t, c in TABLES.items()}
    tables = {t: (c, rows) for t, (c, rows) in tables.items() if rows}
    figure = Figure(figsize=(10, 3.2 * len(tables)), layout="constrained")
    for place, (title, (columns, rows)) in enumerate(tables.items(), 1):
        axis, width = figure.add_subplot(len(tables), 1, place), 0.8 / len(rows)
        for k, (name, cells) in enumerate(rows):
            at = [i + k * width for i in range(len(columns))]
            axis.bar(at, [v or 0 for v in cells], width, label=name)
        axis.set_xticks(
            [i + 0.4 - width / 2 for i in range(len(columns))],
            [c.title.replace(" ", "\n", 1) for c in columns],
            fontsize=8,
        )
        axis.set(title=title, ylim=(0, 100), ylabel="%")
        axis.legend(fontsize=7)
    figure.savefig(path, dpi=110)


def draw_confusion(parts: dict[str, dict], path: Path) -> None:
    """Draw the confusion of expressions, one picture beside the other.

    Args:
        parts: title -> scores of a run on expressions.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.6 * len(parts), 5.2), layout="constrained")
    said = [*EXPRESSIONS, "unreadable"]
    for place, (title, part) in enumerate(parts.items(), 1):
        axis = figure.add_subplot(1, len(parts), place)
        shares = [[n / max(1, sum(row)) for n in row] for row in part["confusion"]]
        axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        for y, row in enumerate(part["confusion"]):
            for x, count in enumerate(row):
                colour = "white" if shares[y][x] > 0.5 else "black"
                axis.text(x, y, count, ha="center", va="center", color=colour, fontsize=8)
        axis.set_xticks(range(len(said)), said, rotation=45, ha="right")
        axis.set_yticks(range(len(EXPRESSIONS)), EXPRESSIONS)
        axis.set(title=title, xlabel="said", ylabel="true")
    figure.savefig(path, dpi=110)


def draw_units(parts: dict[str, dict], path: Path) -> None:
    """Draw the F1 of each action unit as bars.

    Args:
        parts: title -> scores of a run on action units.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.4), layout="constrained")
    axis, width = figure.add_subplot(), 0.8 / len(parts)
    for k, (title, part) in enumerate(parts.items()):
        names = list(part["f1"])
        label = f"{title}, mean {part['mean_f1']:.3f}"
        axis.bar(
            [i + k * width for i in range(len(names))], part["f1"].values(), width, label=label
        )
        axis.set_xticks([i + 0.4 - width / 2 for i in range(len(names))], names)
    axis.set(ylim=(0, 1), ylabel="F1")
    figure.legend(loc="outside upper center", ncols=2)
    figure.savefig(path, dpi=110)


def write_tables(runs: list[dict], out: Path) -> None:
    """Write tables.md, tables.csv and tables.png."""
    out.mkdir(parents=True, exist_ok=True)
    pages, cells = [], [["table", "system", "figure", "per cent"]]
    for title, columns in TABLES.items():
        rows = filled(columns, runs)
        if rows:
            pages.append(f"## {title}\n\n{markdown(columns, rows)}\n")
        for name, values in rows:
            pairs = zip(columns, values, strict=True)
            cells += [[title, name, c.title, v] for c, v in pairs if v is not None]
    (out / "tables.md").write_text("\n".join(pages), encoding="utf-8")
    with (out / "tables.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(cells)
    draw_bars(runs, out / "tables.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("results", type=Path)
    parser.add_argument("--out", type=Path, help="default: RESULTS")
    args = parser.parse_args()
    runs = read_scores(args.results)
    if not runs:
        raise SystemExit(f"{args.results} holds no scores.json: run train.evaluate --benchmark.")
    out = args.out or args.results
    write_tables(runs, out)
    print((out / "tables.md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()

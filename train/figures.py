"""Write measured figures into the README and the model card, between their marks.

Run as:

    python -m train.evaluate --data DATA | tee evaluation.txt
    python -m benchmarks.mini | tee benchmark.txt
    python -m train.figures evaluation.txt benchmark.txt thresholds.txt

thresholds.txt is what `train.mini.thresholds` printed when it fixed the weights. Each file ends in
one JSON line, and nothing else is read from it. CK+ has a part in the thresholds, so the F1 shown
first is that of its people each decided with thresholds of the others.
"""

import argparse
import json
from pathlib import Path

from feallm.facs import EXPRESSIONS
from feallm.predictor import MINI
from train.fea import talk
from train.fea.questions import HELD_OUT, STRANGERS
from train.mini.measure import ASKED

README = Path(__file__).parent.parent / "README.md"
CARD = MINI / "README.md"
SETS = {
    "ferplus": "FER+ valid",
    "ckplus_validation": "CK+",
    "expw": "ExpW, every fifth photo",
}


def last_json(path: Path) -> dict:
    """Return the object in a file's last line."""
    return json.loads(path.read_text(encoding="utf-8").strip().splitlines()[-1])


def table(head: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def overview(results: dict, strangers: dict) -> str:
    """One line for each set: what was asked of the text, and how often it was right."""
    head = ["set", "faces", "expression accuracy", "mean recall", "calibration error"]
    rows = []
    for name, title in SETS.items():
        r = results[name]
        units = f"{strangers['au_mean_f1']:.3f}" if "au_mean_f1" in r else ""
        rows.append(
            [title, f"{r['with_expression']:,}", f"{r['accuracy']:.1%}", f"{r['mean_recall']:.1%}"]
            + [f"{r['calibration_error']:.3f}", units, f"{r['agreement']['share']:.1%}"]
        )
    return table([*head, "mean F1 of 12 action units", "texts agree with the decision"], rows)


def per_class(results: dict) -> str:
    """Recall of each expression on each set."""
    rows = [
        [title, *(f"{results[n]['recall'].get(e, float('nan')):.0%}" for e in EXPRESSIONS)]
        for n, title in SETS.items()
    ]
    return table(["recall", *EXPRESSIONS], rows)


def per_unit(result: dict, strangers: dict) -> str:
    """F1 of each action unit, with thresholds of other people and with those that are shipped."""
    rows = [
        [name, *(f"{scores['au_f1'][k]:.2f}" for k in result["au_f1"])]
        for name, scores in (("thresholds of other people", strangers), ("as shipped", result))
    ]
    return table(["F1 on CK+", *result["au_f1"]], rows)


def confusion(title: str, result: dict) -> str:
    """What was said (columns) of what was true (rows)."""
    rows = [
        [f"**{e}**", *map(str, row[: len(EXPRESSIONS)])]
        for e, row in zip(EXPRESSIONS, result["confusion"], strict=True)
    ]
    return table([f"{title}: truth, then said", *EXPRESSIONS], rows)


def agreed(result: dict) -> str:
    """FER+ by its paper's protocol; its own network's figure is of a split we do not hold."""
    return (
        f"Of the {result['agreed']['faces']:,} FER+ valid faces that more than half of the ten "
        f"annotators agree on, contempt included, which the mini does not know, "
        f"{result['agreed']['accuracy']:.1%} are read right. The FER+ paper tests so; its VGG13 "
        "reads 84.99% of its private test split."
    )


def not_fitted_on(result: dict) -> str:
    """FER+ without the faces that calibrated the expression."""
    others = result["not_fitted_on"]
    return (
        f"On the {others['faces']:,} FER+ valid faces that no number was fitted on, "
        f"{others['accuracy']:.1%} of the expressions are read right, with a mean recall of "
        f"{others['mean_recall']:.1%}."
    )


def timing(benchmark: dict) -> str:
    """One sentence on speed."""
    return (
        f"`python -m benchmarks.mini`, {benchmark['threads']} CPU cores, {benchmark['dtype']}: "
        f"{benchmark['analysis_s']:.2f} s for the whole analysis of a face, "
        f"{benchmark['first_words_s']:.2f} s to the first words of a chat answer (medians)."
    )


def asked(results: dict) -> str:
    """What became of the held-out questions, ours and strangers'."""
    ours, theirs = results["paraphrases"], results["strangers_paraphrases"]
    no, neither = results["out_of_scope"], results["strangers_out_of_scope"]
    count = sum(map(len, HELD_OUT.values()))
    others = sum(map(len, STRANGERS.values()))
    return (
        f"Of {count} held-out paraphrases, put to {ours['faces']} faces, {ours['share']:.1%} were "
        f"answered in kind, of {others} by people who had seen none of our questions "
        f"{theirs['share']:.1%}. Of {len(talk.HELD_OUT)} held-out questions on identity, age, "
        f"health, truthfulness, inner feelings and other things {no['share']:.0%} were declined, "
        f"at once or as the second of a talk, of the strangers' {len(talk.STRANGERS)} "
        f"{neither['share']:.0%}."
    )


def inserted(page: str, text: str, name: str = "figures") -> str:
    """Return a page with the text between the marks of this name.

    Raises:
        ValueError: the page has no such marks.
    """
    marks = (f"<!-- {name} -->", f"<!-- /{name} -->")
    before, start, rest = page.partition(marks[0])
    _, end, after = rest.partition(marks[1])
    if not start or not end:
        raise ValueError(f"The page has no {marks[0]} ... {marks[1]}.")
    return f"{before}{start}\n{text}\n{end}{after}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("evaluation", type=Path)
    parser.add_argument("benchmark", type=Path)
    parser.add_argument("thresholds", type=Path)
    args = parser.parse_args()
    results, benchmark, strangers = (
        last_json(path) for path in (args.evaluation, args.benchmark, args.thresholds)
    )
    lacking = {*SETS, *ASKED} - results.keys()
    whole = not lacking and "not_fitted_on" in results["ferplus"]
    if not whole or any("agreement" not in results[name] for name in SETS):
        raise SystemExit(f"{args.evaluation} is no full evaluation: run it on all sets with texts.")
    ferplus = results["ferplus"]
    short = [overview(results, strangers), f"{not_fitted_on(ferplus)} {agreed(ferplus)}"]
    short += [f"{asked(results)} {timing(benchmark)}"]
    command = "`python -m train.evaluate --data DATA`, read back from the generated text:"
    details = [per_class(results), per_unit(results["ckplus_validation"], strangers)]
    details += [confusion(SETS[n], results[n]) for n in SETS]
    pages = {README: [command, *short], CARD: [command, *short, *details]}
    new = {p: inserted(p.read_text("utf-8"), "\n\n".join(t)) for p, t in pages.items()}
    for path, page in new.items():
        path.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()

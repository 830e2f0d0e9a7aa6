"""Ask a system about the faces of a set, one question after another, and keep every answer.

The question about a face is drawn by the seed, the face and the kind of question alone, from the
templates of the FEA instruction data: whoever is asked is asked the same. Written are, in OUT,

    asked.json        what was asked of whom: another run there must be the same
    answers-0.jsonl   a line for each answer: face, question, answer, what it says, and the truth
    scores.json       the figures, made from these lines alone

Run again to go on after a stop. Under `accelerate launch` every process takes its share.
"""

import hashlib
import json
import sys
from pathlib import Path

from accelerate import PartialState

from feallm.device import best_device
from feallm.facs import AUS, EXPRESSIONS, describe
from train.fea.journal import Journal, read_lines
from train.fea.questions import plain_question
from train.feabench.scores import read_answer, score
from train.feabench.sets import FaceSet, Item
from train.feabench.systems import Question, System
from train.order import draws

TEMPLATES = {"expression": "summary", "units": "movement"}
"""Kind of question -> part of the FEA answer whose templates it is drawn from."""
CHOICES = {
    "expression": f"Answer with one of: {', '.join(EXPRESSIONS)}.",
    "units": f"Choose from: {', '.join(map(describe, AUS))}.",
}
"""What may follow a question for systems that do not know the labels; not the paper's."""


class AnotherRun(ValueError):
    """OUT holds answers to something else; its text says what differs."""


def questions(face_set: FaceSet, seed: int, choices: bool) -> list[tuple[Item, Question]]:
    """Return what is asked about every face, those on expressions first."""
    asked = []
    for kind, part in TEMPLATES.items():
        for index, item in enumerate(face_set.items):
            if (item.expression if kind == "expression" else item.aus) is not None:
                text = plain_question(part, draws(seed, kind == "units", index))
                asked.append((item, Question(kind, f"{text} {CHOICES[kind]}" if choices else text)))
    return asked


def entry(item: Item, question: Question, answer: str) -> dict:
    """Return one line of the answers."""
    truth = item.expression if question.kind == "expression" else item.aus
    return {
        "image": item.name,
        "kind": question.kind,
        "question": question.text,
        "answer": answer,
        **read_answer(question.kind, answer),
        "truth": truth,
    }


def answers(out: Path) -> list[dict]:
    """Return every answer in a folder, in the order of the faces' names."""
    lines = [e for path in sorted(out.glob("answers-*.jsonl")) for e in read_lines(path)]
    return sorted(lines, key=lambda e: (e["kind"], e["image"]))


def check_same(out: Path, asked: dict) -> None:
    """Write down what a run asks, or compare it with what was written there.

    Raises:
        AnotherRun: it differs.
    """
    path = out / "asked.json"
    if not path.is_file():
        path.write_text(json.dumps(asked, indent=1) + "\n", encoding="utf-8")
        return
    before = json.loads(path.read_text(encoding="utf-8"))
    differing = [k for k in asked if before.get(k) != asked[k]]
    if differing:
        k = differing[0]
        raise AnotherRun(
            f"{out} holds answers with {k} {before.get(k)!r}, not {asked[k]!r}: choose another."
        )


def ask_all(
    system: System,
    face_set: FaceSet,
    out: Path,
    *,
    benchmark: str,
    seed: int = 0,
    choices: bool = False,
    batch_size: int = 8,
    limit: int | None = None,
) -> dict | None:
    """Ask what was not answered yet and return the scores; None in all processes but the first.

    Args:
        limit: ask about only so many faces, evenly spread.

    Raises:
        AnotherRun: OUT holds answers to something else.
    """
    state = PartialState(cpu=best_device().type == "cpu")  # unasked, CPUs would each ask all
    if limit and limit < len(face_set.items):
        step = len(face_set.items) / limit
        chosen = [face_set.items[int(k * step)] for k in range(limit)]
        face_set = FaceSet(chosen, face_set.read, face_set.whole_photos)
    out.mkdir(parents=True, exist_ok=True)
    wanted = questions(face_set, seed, choices)
    asked = {"benchmark": benchmark, "system": system.name, "seed": seed, "choices": choices}
    names = "\n".join(f"{question.kind} {item.name}" for item, question in wanted)
    same = {"questions": len(wanted), "faces": hashlib.sha256(names.encode()).hexdigest()[:16]}
    with state.main_process_first():
        check_same(out, asked | system.made_of | same)
        done = {(e["image"], e["kind"]) for e in answers(out)}
    journal = Journal(out, (f"answers-{state.process_index}",))
    state.wait_for_everyone()  # nobody adds answers before all know what is done
    left = [(i, q) for i, q in wanted if (i.name, q.kind) not in done]
    share = left[state.process_index :: state.num_processes]
    for start in range(0, len(share), batch_size):
        batch = share[start : start + batch_size]
        faces = [face_set.face(item, system.face_size) for item, _ in batch]
        texts = system.answer(faces, [question for _, question in batch])
        for (item, question), text in zip(batch, texts, strict=True):
            journal.add(f"answers-{state.process_index}", entry(item, question, text))
        if state.is_main_process and start // batch_size % 20 == 0:
            print(f"{benchmark}: {start:,} of {len(share):,}", file=sys.stderr)
    state.wait_for_everyone()
    if not state.is_main_process:
        return None
    scores = asked | {"questions": len(wanted)} | score(answers(out))
    (out / "scores.json").write_text(json.dumps(scores, indent=1) + "\n", encoding="utf-8")
    return scores

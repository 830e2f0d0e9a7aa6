r"""Describe the chosen frames: the three texts of the FEA instruction data.

Run as:

    python -m train.fea.describe --frames fea/frames.jsonl --out fea/
    python -m train.fea.describe --frames fea/frames.jsonl --out fea/ --images cropped_aligned/ \
        --endpoint https://api.openai.com/v1 --model gpt-4o --price 2.5 10

The paper gave GPT-4o each picture with its labels and had it write an emotion summary, a facial
movement description and an emotion reasoning, and checked them against the labels. So does this,
through any endpoint of OpenAI's protocol (the key in OPENAI_API_KEY); the prompt is ours, the
paper's is not public. An answer that claims a unit that is not active, leaves one out or names
another expression is asked for again with the complaint; after three tries the frame is dropped and
counted. Without an endpoint our own writer (`train.fea.writer`) gives the same format.

Every answer is written down at once (OUT/described.jsonl, OUT/dropped.jsonl and, with what it cost,
OUT/asked.jsonl): run the same command again after a stop, and nothing is asked and paid for twice.
"""

import argparse
import json
import os
import sys
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from feallm.facs import ACTION_UNITS, AUS, describe, parse_analysis
from feallm.prompts import list_action_units
from train.fea import writer
from train.fea.affwild2 import Frame
from train.fea.endpoint import Endpoint, EndpointError, Refused, picture_message
from train.fea.journal import Journal
from train.order import draws

TRIES, MAX_TOKENS = 3, 1024
IMAGE_TOKENS, ANSWER_TOKENS = 255, 260
"""About, for the estimate before: a small picture at GPT-4o, and an answer in three parts."""
SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "required": ["emotion_summary", "facial_movements", "emotion_reasoning"],
    "properties": {
        "emotion_summary": {"type": "string"},
        "facial_movements": {"type": "string"},
        "emotion_reasoning": {
            "type": "array",
            "items": {
                "type": "object",
                "additionalProperties": False,
                "required": ["action_unit", "explanation"],
                "properties": {
                    "action_unit": {"type": "integer", "enum": list(AUS)},
                    "explanation": {"type": "string"},
                },
            },
        },
    },
}
INSTRUCTION = """You describe faces for research on facial expression. You are given a picture of
a face and what experts of the Facial Action Coding System (FACS) found in it. Take their findings
as true and describe what can be seen, in plain and varied English, in three parts:
emotion_summary: one or two sentences that name the expression and what shows it.
facial_movements: which action units are active (write them as AU12) and what each does in this
face; name no unit that is not listed.
emotion_reasoning: for each active unit, how it bears on the expression; an empty list if none is.
Describe the visible expression, never what the person feels, and never identity, age, sex, origin
or health."""


@dataclass(frozen=True)
class Texts:
    """The three texts of one frame, as an FEA answer has them."""

    summary: str
    movement: str
    reasoning: str


def findings(frame: Frame) -> str:
    """Return the labels of a frame as the model is told them."""
    units = "\n".join(f"- {describe(k)}: {ACTION_UNITS[k].effect}" for k in frame.aus)
    return f"Expression: {frame.expression}\nActive action units:\n{units or '- none'}"


def opening_messages(frame: Frame, picture: bytes) -> list[dict]:
    """Return the talk that asks for a frame's texts."""
    return [
        {"role": "system", "content": INSTRUCTION},
        picture_message(picture, "jpeg", findings(frame)),
    ]


def complaints(answer: object, frame: Frame) -> list[str]:
    """Return what an answer says otherwise than the labels; [] is an answer to keep."""
    if not isinstance(answer, dict) or not set(SCHEMA["required"]) <= answer.keys():
        return [f"The answer must be a JSON object with {', '.join(SCHEMA['required'])}."]
    summary, movements = answer["emotion_summary"], answer["facial_movements"]
    steps = answer["emotion_reasoning"]
    if not (isinstance(summary, str) and isinstance(movements, str) and isinstance(steps, list)):
        return ["emotion_summary and facial_movements must be texts, emotion_reasoning a list."]
    found, active = [], set(frame.aus)
    said = parse_analysis(summary)
    if said.expression != frame.expression:
        found.append(f"emotion_summary must name the expression {frame.expression} and no other.")
    told = parse_analysis(movements)
    if lacking := sorted(active - set(told.aus)):
        found.append(f"facial_movements leaves out {', '.join(f'AU{k}' for k in lacking)}.")
    for part, claimed in (("emotion_summary", said), ("facial_movements", told)):
        for k in sorted((set(claimed.aus) - active) | set(claimed.unknown_aus)):
            found.append(f"{part} claims AU{k}, which is not active.")
    units = [s.get("action_unit") for s in steps if isinstance(s, dict)]
    if sorted(units, key=str) != sorted(active, key=str) or len(units) != len(steps):
        found.append(
            "emotion_reasoning must have one entry for each active unit and no other: "
            + (", ".join(f"AU{k}" for k in frame.aus) or "none")
            + "."
        )
    elif not all(isinstance(s.get("explanation"), str) and s["explanation"].strip() for s in steps):
        found.append("Every entry of emotion_reasoning needs an explanation.")
    else:
        for step in steps:
            claimed = parse_analysis(step["explanation"])
            for k in sorted((set(claimed.aus) - active) | set(claimed.unknown_aus)):
                found.append(f"The explanation of AU{step['action_unit']} claims AU{k}.")
    return found


def texts_of(answer: dict, frame: Frame) -> Texts:
    """Return a valid answer in the form of an FEA answer: label first, list first, label last."""
    summary = answer["emotion_summary"].strip()
    if not summary.startswith(f"{frame.expression}."):
        summary = f"{frame.expression}. {summary}"
    parts = []
    for step in sorted(answer["emotion_reasoning"], key=lambda s: s["action_unit"]):
        text = step["explanation"].strip().rstrip(".")
        name = f"AU{step['action_unit']}"
        parts.append(f"{text}." if text.startswith(name) else f"{name}: {text}.")
    if not parts:
        parts = ["No action unit is active."]
    return Texts(
        summary=summary,
        movement=f"{list_action_units(frame.aus)} {answer['facial_movements'].strip()}",
        reasoning=" ".join([*parts, f"The face reads as {frame.expression}."]),
    )


def write_offline(frame: Frame, index: int, seed: int) -> Texts:
    """Return the texts our own writer gives a frame."""
    rng = draws(seed, 0, index)
    return Texts(
        summary=writer.summary(frame.expression, frame.aus, rng),
        movement=writer.movement(frame.aus, rng),
        reasoning=writer.reasoning(frame.expression, frame.aus, rng),
    )


def describe_frame(
    frame: Frame, picture: bytes, endpoint: Endpoint, journal: Journal, asked: list[dict], seed: int
) -> None:
    """Ask for a frame's texts until they keep to its labels, and write down how it ended.

    `asked` are the answers before, of a run that stopped: none of them was to be kept.
    """
    messages = opening_messages(frame, picture)
    wrong: list[str] = []
    for entry in asked:
        wrong = entry["complaints"]
        messages += complained(entry.get("answer", ""), wrong)
    for attempt in range(len(asked), TRIES):
        try:
            reply = endpoint.ask(messages, seed + attempt, MAX_TOKENS, SCHEMA)
        except Refused as problem:
            wrong = [str(problem)]
            break
        answer, wrong = judged(reply.text, frame)
        if not wrong:  # first, so that a kill loses no answer that is paid for
            texts = asdict(texts_of(answer, frame))
            journal.add("described", asdict(frame) | texts | {"by": endpoint.model})
        journal.add(
            "asked",
            {
                "image": frame.image,
                "complaints": wrong,
                "answer": reply.text if wrong else "",
                "prompt_tokens": reply.prompt_tokens,
                "completion_tokens": reply.completion_tokens,
            },
        )
        if not wrong:
            return
        messages += complained(reply.text, wrong)
    journal.add("dropped", {"image": frame.image, "complaints": wrong})


def complained(answer: str, wrong: list[str]) -> list[dict]:
    """Return how the talk goes on after an answer that is not kept."""
    again = "\n".join(["Your answer does not keep to the findings:", *wrong, "Write it again."])
    return [{"role": "assistant", "content": answer}, {"role": "user", "content": again}]


def judged(text: str, frame: Frame) -> tuple[object, list[str]]:
    """Return an answer read as JSON, and what is to be complained of."""
    try:
        answer = json.loads(text)
    except json.JSONDecodeError:
        return None, ["The answer is not JSON."]
    return answer, complaints(answer, frame)


def cost(prompt_tokens: float, completion_tokens: float, price: Sequence[float]) -> str:
    """Return a cost at prices per million tokens, in whatever currency these are."""
    return f"{(prompt_tokens * price[0] + completion_tokens * price[1]) / 1e6:,.2f}"


def estimate(frames: Sequence[Frame], price: Sequence[float]) -> str:
    """Return about what describing these frames would take if each were right at once."""
    read = sum((len(INSTRUCTION) + len(findings(f))) / 4 + IMAGE_TOKENS for f in frames)
    written = ANSWER_TOKENS * len(frames)
    paid = f", {cost(read, written, price)} to pay" if any(price) else " (--price tells the cost)"
    return f"about {read:,.0f} tokens to read and {written:,} to write{paid}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--frames", type=Path, required=True, help="of train.fea.affwild2")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--images", type=Path, help="folder the frames' pictures lie in")
    parser.add_argument("--endpoint", help="address up to /v1; default: our own writer")
    parser.add_argument("--model", help="the model's name at the endpoint")
    parser.add_argument("--concurrency", type=int, default=8, help="requests at a time")
    parser.add_argument("--per-minute", type=float, default=0, help="requests at most; 0: no limit")
    parser.add_argument(
        "--price", type=float, nargs=2, default=(0, 0), help="of a million tokens read, written"
    )
    parser.add_argument("--estimate", action="store_true", help="say what it would cost, and stop")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if args.endpoint and not (args.model and args.images):
        parser.error("--endpoint needs --model and --images.")
    frames = read_frames(args.frames)
    journal = Journal(args.out, ("described", "dropped", "asked"))
    done = set(journal.images("described")) | set(journal.images("dropped"))
    left = [f for f in frames if f.image not in done]
    by = args.model if args.endpoint else "writer"
    if others := {e["by"] for e in journal.kept["described"]} - {by}:
        sys.exit(f"{args.out} holds texts by {', '.join(sorted(others))}: choose another --out.")
    if args.endpoint or args.estimate:
        print(f"{len(left):,} frames to describe, {estimate(left, args.price)}")
    if args.estimate:
        return
    if not args.endpoint:
        for index, frame in enumerate(frames):
            if frame.image not in done:
                texts = write_offline(frame, index, args.seed)
                journal.add("described", asdict(frame) | asdict(texts) | {"by": by})
    else:
        try:
            ask_all(left, journal, args)
        except (EndpointError, OSError) as problem:
            sys.exit(f"{problem}\nRun the same command again to go on.")
    asked = journal.kept["asked"]
    spent = [sum(e[k] for e in asked) for k in ("prompt_tokens", "completion_tokens")]
    print(
        f"{len(journal.kept['described']):,} described, {len(journal.kept['dropped']):,} dropped, "
        f"{len(asked):,} answers, {cost(*spent, args.price)} paid"
    )


def read_frames(path: Path) -> list[Frame]:
    """Return the frames `train.fea.affwild2` chose."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [Frame(**{**(f := json.loads(line)), "aus": tuple(f["aus"])}) for line in lines]


def ask_all(frames: Sequence[Frame], journal: Journal, args: argparse.Namespace) -> None:
    """Describe frames with several requests at a time; the first failure ends them all."""
    key = os.environ.get("OPENAI_API_KEY")
    endpoint = Endpoint(args.endpoint, args.model, key, args.per_minute)
    asked = defaultdict(list)
    for entry in journal.kept["asked"]:
        asked[entry["image"]].append(entry)
    with ThreadPoolExecutor(args.concurrency) as pool:
        jobs = [
            pool.submit(
                describe_frame,
                frame,
                (args.images / frame.image).read_bytes(),
                endpoint,
                journal,
                asked[frame.image],
                args.seed,
            )
            for frame in frames
        ]
        try:
            for number, job in enumerate(jobs, 1):
                job.result()
                if number % 100 == 0:
                    print(f"{number:,} of {len(frames):,}", file=sys.stderr)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


if __name__ == "__main__":
    main()

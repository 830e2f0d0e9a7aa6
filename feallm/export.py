"""A session as files a researcher keeps: Markdown with its pictures, JSON, and a table of units.

The archive is made in memory; what becomes of it is the caller's matter.
"""

import csv
import io
import json
import zipfile
from dataclasses import dataclass, field

from PIL import Image

from feallm.comparison import Comparison
from feallm.conversation import Message
from feallm.facs import ACTION_UNITS, AUS
from feallm.predictor import Reading

DISCLAIMER = "Visible expression, not what a person feels; it can be wrong."


@dataclass(frozen=True)
class Entry:
    """One face of the session: its number in the photo, its reading and the talk about it."""

    number: int
    reading: Reading
    talk: list[Message] = field(default_factory=list)


def to_json(reading: Reading) -> dict:
    """Return the parts of a reading that a JSON object carries."""
    return {
        "expression": reading.expression,
        "expression_probabilities": {
            e: round(p, 4) for e, p in reading.expression_probabilities.items()
        },
        "action_units": list(reading.aus),
        "action_unit_probabilities": {
            f"AU{k}": round(p, 4) for k, p in reading.action_unit_probabilities.items()
        },
        "summary": reading.summary,
        "movements": reading.movements,
        "reasoning": reading.reasoning,
    }


def as_json(entries: list[Entry], model: str, compared: Comparison | None = None) -> str:
    """Return the session as one JSON object."""
    faces = [{"face": e.number, **to_json(e.reading), "talk": e.talk} for e in entries]
    session = {"model": model, "note": DISCLAIMER, "faces": faces}
    if compared:
        said = compared.sentences()
        session["compared"] = {"first_photo": to_json(compared.first), "differences": said}
    return json.dumps(session, ensure_ascii=False, indent=2)


def as_csv(entries: list[Entry], thresholds: dict[int, float]) -> str:
    """Return a table with a row for each face and action unit."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["face", "action_unit", "name", "probability", "threshold", "active"])
    for entry in entries:
        for k in AUS:
            chance = entry.reading.action_unit_probabilities[k]
            name, active = ACTION_UNITS[k].name, int(k in entry.reading.aus)
            table.writerow(
                [entry.number, f"AU{k}", name, f"{chance:.4f}", f"{thresholds[k]:.3f}", active]
            )
    return text.getvalue()


def as_markdown(entries: list[Entry], model: str, compared: Comparison | None = None) -> str:
    """Return the session for people; the pictures are the archive's."""
    lines = ["# Facial expression, read by FEALLM", "", f"Model: {model}. {DISCLAIMER}"]
    lines += ["", "![The photo](photo.jpg)"]
    for entry in entries:
        reading = entry.reading
        share = 100 * reading.expression_probabilities[reading.expression]
        lines += ["", f"## Face {entry.number}: {reading.expression} ({share:.0f} %)"]
        lines += ["", f"![Face {entry.number}](face-{entry.number}.png)", ""]
        lines += [reading.summary, "", reading.movements, "", reading.reasoning, ""]
        lines += ["| action unit | probability | active |", "|---|---|---|"]
        for k in AUS:
            active = "yes" if k in reading.aus else ""
            chance = 100 * reading.action_unit_probabilities[k]
            lines.append(f"| AU{k} {ACTION_UNITS[k].name} | {chance:.0f} % | {active} |")
        if entry.talk:
            lines += ["", "### The talk"]
        for message in entry.talk:
            who = "Question" if message["role"] == "user" else "Answer"
            quoted = message["content"].replace("\n", "\n> ")
            lines += ["", f"**{who}:**", "", f"> {quoted}"]
    if compared:
        lines += ["", "## Compared with the first photo", "", "![The first face](first-face.png)"]
        lines += ["", " ".join(compared.sentences())]
    return "\n".join(lines) + "\n"


def archive(
    photo: Image.Image,
    entries: list[Entry],
    model: str,
    thresholds: dict[int, float],
    compared: Comparison | None = None,
) -> bytes:
    """Return a ZIP with session.md, session.json, action_units.csv and the pictures.

    `compared` sets the chosen face beside one of an earlier photo.
    """
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("session.md", as_markdown(entries, model, compared))
        file.writestr("session.json", as_json(entries, model, compared))
        file.writestr("action_units.csv", as_csv(entries, thresholds))
        file.writestr("photo.jpg", _encoded(photo, "JPEG"))
        for entry in entries:
            file.writestr(f"face-{entry.number}.png", _encoded(entry.reading.face, "PNG"))
        if compared:
            file.writestr("first-face.png", _encoded(compared.first.face, "PNG"))
    return packed.getvalue()


def _encoded(picture: Image.Image, form: str) -> bytes:
    data = io.BytesIO()
    picture.save(data, form)
    return data.getvalue()

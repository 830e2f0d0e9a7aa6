"""A reading as plain values for the page's templates: numbers, words and small pictures; no HTML.

Every function returns JSON-ready dicts. Percentages are whole numbers for people; the exact ones
are in `Reading`.
"""

import base64
import io
import re

from PIL import Image

from feallm.crops import Crop
from feallm.faces import Face
from feallm.facs import ACTION_UNITS, supporting
from feallm.predictor import Reading

COMPASS = (
    "top-left",
    "top",
    "top-right",
    "left",
    None,
    "right",
    "bottom-left",
    "bottom",
    "bottom-right",
)
"""The ring's nine places, row by row; the face itself is in the middle."""


def data_uri(picture: Image.Image, side: int) -> str:
    """Return a picture, at most `side` pixels, as a WebP data URI: no file, no cache."""
    small = picture.copy()
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    small.save(buffer, "WEBP", quality=84)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()


def stage(photo: Image.Image, faces: list[Face], chosen: int) -> dict:
    """The photo with its face boxes, in percent of its sides."""
    width, height = photo.size
    boxes = []
    for i, face in enumerate(faces):
        x0, y0, x1, y1 = face.box
        boxes.append(
            {
                "index": i,
                "number": i + 1,
                "left": 100 * x0 / width,
                "top": 100 * y0 / height,
                "width": 100 * (x1 - x0) / width,
                "height": 100 * (y1 - y0) / height,
                "score": round(100 * face.score),
                "chosen": i == chosen,
                "label_below": y0 / height < 0.09,
            }
        )
    return {
        "photo": data_uri(photo, 1024),
        "width": width,
        "height": height,
        "faces": boxes,
        "count": len(boxes),
        "many": len(boxes) > 1,
    }


def clues(reading: Reading, crops: list[Crop]) -> dict:
    """The local crops around the face with the attention each receives: the mean of its column."""
    received = reading.attention.mean(0)
    side = reading.face.width
    rings = []
    for fraction in sorted({c.fraction for c in crops}):
        cells = []
        for place in COMPASS:
            if place is None:
                cells.append({"center": True})
                continue
            match = [
                i for i, c in enumerate(crops) if c.direction == place and c.fraction == fraction
            ]
            if not match:
                cells.append({"empty": True})
                continue
            x0, y0, x1, y1 = crops[match[0]].box
            weight = float(received[match[0]])
            cut = reading.face.crop(tuple(round(v * side) for v in (x0, y0, x1, y1)))
            cells.append(
                {
                    "crop": data_uri(cut.resize((96, 96), Image.Resampling.BICUBIC), 96),
                    "name": crops[match[0]].name,
                    "percent": round(100 * weight, 1),
                    "strength": round(weight / float(received.max()), 3),
                    "left": 100 * x0,
                    "top": 100 * y0,
                    "width": 100 * (x1 - x0),
                    "height": 100 * (y1 - y0),
                }
            )
        rings.append(
            {"fraction": str(fraction), "label": "½" if fraction < 0.6 else "¾", "cells": cells}
        )
    return {"face": data_uri(reading.face, 192), "rings": rings, "several": len(rings) > 1}


def verdict(reading: Reading, caveat: str) -> dict:
    """The expression with its probability, the others, and the chain of units behind it."""
    ranked = sorted(reading.expression_probabilities.items(), key=lambda item: -item[1])
    chain = supporting(reading.expression, reading.aus)
    return {
        "expression": reading.expression,
        "percent": round(100 * reading.expression_probabilities[reading.expression]),
        "others": [
            {"name": e, "percent": round(100 * p)} for e, p in ranked if e != reading.expression
        ],
        "chain": [
            {"au": k, "name": ACTION_UNITS[k].name, "first": i == 0} for i, k in enumerate(chain)
        ],
        "reasoning": reading.reasoning,
        "caveat": caveat,
    }


def action_units(reading: Reading, thresholds: dict[int, float]) -> dict:
    """The twelve units with the probability that each is present, active ones apart."""
    rows = []
    for k, p in sorted(reading.action_unit_probabilities.items(), key=lambda item: -item[1]):
        au = ACTION_UNITS[k]
        rows.append(
            {
                "au": k,
                "name": au.name,
                "muscle": au.muscle,
                "region": au.region,
                "effect": au.effect,
                "percent": round(100 * p),
                "threshold": round(100 * thresholds[k]),
                "active": k in reading.aus,
            }
        )
    return {
        "active": [r for r in rows if r["active"]],
        "inactive": [r for r in rows if not r["active"]],
    }


def matrix(reading: Reading, crops: list[Crop]) -> dict:
    """The self-attention among the crops: rows attend to columns; shades are relative."""
    attention = reading.attention
    top = float(attention.max())
    return {
        "count": len(crops),
        "cells": [
            {
                "shade": round((float(attention[i, j]) / top) ** 0.7, 3),
                "title": f"{row.name} → {column.name}: {100 * attention[i, j]:.1f} %",
            }
            for i, row in enumerate(crops)
            for j, column in enumerate(crops)
        ],
    }


def chat_text(text: str) -> str:
    """Return a text as the chat may show it: no HTML, no pictures, no links; units as code."""
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    text = re.sub(
        r"([!\]])(?=[\[(])", "\\1\u2060", text
    )  # a word joiner keeps ![ and ]( from working
    text = re.sub(r"(?i)\b(https?:)//", "\\1\u2060//", text)
    return re.sub(r"\b(AU\d{1,2})\b", r"`\1`", text)

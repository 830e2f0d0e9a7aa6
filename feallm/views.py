"""A reading as plain values for the page's templates: numbers, words and small pictures; no HTML.

Every function returns JSON-ready dicts. Percentages are whole numbers for people; the exact ones
are in `Reading`.
"""

import base64
import io
import re

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance

from feallm.comparison import Comparison
from feallm.crops import Crop
from feallm.faces import Face
from feallm.facs import ACTION_UNITS, AUS, EXPRESSIONS, supporting
from feallm.occlusion import Occlusion
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


def clues(reading: Reading, crops: list[Crop], covered: Occlusion | None = None) -> dict:
    """The local crops around the face with the attention each receives: the mean of its column.

    With `covered`, also what covering each crop does to the reading.
    """
    shares = received(reading.attention)
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
            weight = float(shares[match[0]])
            cut = reading.face.crop(tuple(round(v * side) for v in (x0, y0, x1, y1)))
            cell = {
                "crop": data_uri(cut.resize((96, 96), Image.Resampling.BICUBIC), 96),
                "name": crops[match[0]].name,
                "percent": round(100 * weight, 1),
                "strength": round(weight / max(float(shares.max()), 1e-9), 3),
                "left": 100 * x0,
                "top": 100 * y0,
                "width": 100 * (x1 - x0),
                "height": 100 * (y1 - y0),
            }
            if covered:
                cell |= effect(reading, covered, match[0])
            cells.append(cell)
        rings.append(
            {"fraction": str(fraction), "label": "½" if fraction < 0.6 else "¾", "cells": cells}
        )
    return {
        "face": data_uri(reading.face, 192),
        "rings": rings,
        "several": len(rings) > 1,
        "covered": covered is not None,
        "expression": reading.expression,
    }


def paid_to_others(attention: np.ndarray) -> np.ndarray:
    """(C, C) the attention without what each crop pays to itself."""
    return attention * (1 - np.eye(len(attention)))


def received(attention: np.ndarray) -> np.ndarray:
    """(C,) the share each crop receives of the attention crops pay to one another; sum 1.

    What a crop pays to itself, mostly the largest part, says nothing of the others and is left out.
    """
    paid = paid_to_others(attention)
    return paid.sum(0) / max(paid.sum(), np.finfo(np.float32).tiny)


def signed(points: int) -> str:
    """Return "+5", "−5" or "0"."""
    return f"{points:+d}".replace("-", "−") if points else "0"


def effect(reading: Reading, covered: Occlusion, crop: int) -> dict:
    """What covering one crop does: points the expression loses, and the changes in words."""
    lost = float(covered.loss(reading.expression)[crop])
    names = [*EXPRESSIONS, *(f"AU{k}" for k in AUS)]
    whole = np.concatenate([covered.whole_expressions, covered.whole_units])
    after = np.concatenate([covered.expressions[crop], covered.units[crop]])
    told, change = (
        EXPRESSIONS.index(reading.expression),
        np.rint(100 * after) - np.rint(100 * whole),
    )
    shown = [told, *(i for i in np.argsort(-abs(change), kind="stable") if i != told and change[i])]
    changes = ", ".join(f"{names[i]} {100 * whole[i]:.0f} → {100 * after[i]:.0f} %" for i in shown)
    return {
        "effect": signed(round(-100 * lost)),
        "harm": round(min(1.0, max(0.0, lost)), 3),
        "detail": changes,
    }


def looks(reading: Reading) -> dict | None:
    """Where the MPP's attentions take their heaviest samples, as dots on the face.

    The attention over the clues samples a map of crops, not the face, and is left out.
    """
    shown = []
    for name, label in (("shallow", "shallow features"), ("self", "fused features")):
        if name not in reading.looks:
            continue
        points, weights = (a.reshape(-1, *a.shape[4:]) for a in reading.looks[name])
        shown.append(
            {"label": label, "picture": data_uri(_dots(reading.face, points, weights), 256)}
        )
    return {"pictures": shown} if shown else None


def _dots(face: Image.Image, points: np.ndarray, weights: np.ndarray, side: int = 256):
    """Draw the heaviest sampling points (n, 2), x y in [0, 1], on the darkened face."""
    weights = weights.reshape(-1)
    picture = ImageEnhance.Brightness(face.resize((side, side))).enhance(0.55).convert("RGB")
    pen = ImageDraw.Draw(picture, "RGBA")
    heaviest = np.argsort(-weights)[:1500][::-1]
    for i in heaviest:
        x, y = points[i] * side
        opacity = int(40 + 200 * weights[i] / weights.max())
        pen.ellipse((x - 1.6, y - 1.6, x + 1.6, y + 1.6), fill=(255, 150, 95, opacity))
    return picture


def comparison(compared: Comparison) -> dict:
    """Two readings in words and in bars: expressions, then the units; percentages of both."""

    def row(name: str, first: float, second: float, **more) -> dict:
        change = round(100 * second) - round(100 * first)
        return {
            "name": name,
            "first": round(100 * first),
            "second": round(100 * second),
            "change": signed(change),
            "large": abs(change) >= 10,
        } | more

    first, second = compared.first, compared.second
    return {
        "sentences": compared.sentences(),
        "first": data_uri(first.face, 120),
        "second": data_uri(second.face, 120),
        "expressions": [
            row(e, first.expression_probabilities[e], second.expression_probabilities[e])
            for e in sorted(EXPRESSIONS, key=lambda e: -second.expression_probabilities[e])
        ],
        "units": [
            row(
                f"AU{k}",
                first.action_unit_probabilities[k],
                second.action_unit_probabilities[k],
                title=ACTION_UNITS[k].name,
            )
            for k in AUS
        ],
    }


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
        "glossary": sorted(rows, key=lambda r: r["au"]),
    }


def matrix(reading: Reading, crops: list[Crop]) -> dict:
    """The self-attention among the crops: rows attend to columns.

    Shades are relative to the most one crop pays to another; what it pays to itself is often more.
    """
    attention = reading.attention
    top = max(1e-9, float(paid_to_others(attention).max()))
    return {
        "count": len(crops),
        "cells": [
            {
                "shade": round(min(1.0, float(attention[i, j]) / top) ** 0.7, 3),
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

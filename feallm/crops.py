"""The local crops of a face: eight directions at one half and at three quarters of its side.

An edge crop (top, bottom, left, right) cuts one side and keeps the other whole; a corner crop
cuts both. Each is resized to a square. The order is ours and frozen, since Eq 3 flattens by it:
top, bottom, left, right, top-left, top-right, bottom-left, bottom-right; each at 1/2, then 3/4.
"""

from dataclasses import dataclass
from fractions import Fraction

import torch
from torch.nn import functional as F

EDGES = ("top", "bottom", "left", "right")
CORNERS = ("top-left", "top-right", "bottom-left", "bottom-right")
FRACTIONS = {"half": Fraction(1, 2), "three_quarters": Fraction(3, 4)}


@dataclass(frozen=True)
class Crop:
    """One local crop: where it lies, as fractions of the face's side (x0, y0, x1, y1)."""

    direction: str
    fraction: Fraction

    @property
    def box(self) -> tuple[float, float, float, float]:
        f = float(self.fraction)
        x0, x1 = (0.0, f) if "left" in self.direction else (1 - f, 1.0)
        y0, y1 = (0.0, f) if "top" in self.direction else (1 - f, 1.0)
        if self.direction in ("top", "bottom"):
            x0, x1 = 0.0, 1.0
        if self.direction in ("left", "right"):
            y0, y1 = 0.0, 1.0
        return x0, y0, x1, y1

    @property
    def name(self) -> str:
        return f"{self.direction} {'½' if self.fraction == Fraction(1, 2) else '¾'}"


def list_crops(groups: list[str]) -> list[Crop]:
    """Return the crops of the chosen groups (`configuration.CROP_GROUPS`) in the frozen order."""
    return [
        Crop(direction, fraction)
        for direction in EDGES + CORNERS
        for size, fraction in FRACTIONS.items()
        if f"{'edge' if direction in EDGES else 'corner'}_{size}" in groups
    ]


def cut_crops(faces: torch.Tensor, groups: list[str], size: int) -> torch.Tensor:
    """Cut and resize the local crops of aligned faces.

    Args:
        faces: (B, 3, S, S), any value range; S a multiple of 4, so that every cut falls between
            two pixels.
        groups: crop groups in use.
        size: side of the returned crops.

    Returns:
        (B, C, 3, size, size), bilinear, averaged over the pixels that a reduction joins.
    """
    side = faces.shape[-1]
    if faces.shape[-2] != side or side % 4:
        raise ValueError(
            f"Faces are {tuple(faces.shape[-2:])}: a square of a multiple of 4 is needed."
        )
    crops = []
    for crop in list_crops(groups):
        x0, y0, x1, y1 = (round(v * side) for v in crop.box)
        cut = faces[..., y0:y1, x0:x1]
        if cut.shape[-2:] != (size, size):
            cut = F.interpolate(cut, (size, size), mode="bilinear", antialias=True)
        crops.append(cut)
    return torch.stack(crops, dim=1)

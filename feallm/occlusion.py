"""What a reading would be with one local crop covered: the cause beside the attention.

Attention tells where the LCA took its clues from, not what they changed. Here each crop's square is
painted with the face's mean colour, in the picture that tower and LCA both see, and the
probabilities are read again, given the action units that were found in the whole face: what changes
is then the picture's part alone. Ours; the paper shows attention alone.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageStat

from feallm.facs import AUS, EXPRESSIONS
from feallm.predictor import Predictor, Reading


@dataclass(frozen=True)
class Occlusion:
    """Probabilities with each crop covered, in the order of `Predictor.crops`.

    `expressions` (C, 7) and `units` (C, 12) belong to the covered faces, `whole_expressions` (7,)
    and `whole_units` (12,) to the face itself, all told the action units of the reading.
    """

    expressions: np.ndarray
    units: np.ndarray
    whole_expressions: np.ndarray
    whole_units: np.ndarray

    def loss(self, expression: str) -> np.ndarray:
        """(C,) by how much covering each crop lowers the probability of an expression."""
        i = EXPRESSIONS.index(expression)
        return self.whole_expressions[i] - self.expressions[:, i]

    def unit_loss(self, au: int) -> np.ndarray:
        """(C,) by how much covering each crop lowers the probability of an action unit."""
        i = AUS.index(au)
        return self.whole_units[i] - self.units[:, i]


def cover(face: Image.Image, box: tuple[float, float, float, float]) -> Image.Image:
    """Return the face with a box (fractions of its side) in the face's mean colour."""
    covered = face.copy()
    colour = tuple(round(v) for v in ImageStat.Stat(face).mean)
    covered.paste(colour, tuple(round(v * face.width) for v in box))
    return covered


def occlude(predictor: Predictor, reading: Reading) -> Occlusion:
    """Read the face once more with each crop covered, in one batch.

    Raises:
        ValueError: the model has no local crops.
    """
    if not predictor.crops:
        raise ValueError("This model reads no local crops: there is nothing to cover.")
    faces = [reading.face, *(cover(reading.face, crop.box) for crop in predictor.crops)]
    expressions, units = predictor.chances(faces, reading.aus)
    return Occlusion(expressions[1:], units[1:], expressions[0], units[0])

"""Where a face sits in the square the model reads: the five-point template and its similarity.

Aff-Wild2's aligned images are 112x112 with the eyes, nose and mouth corners at fixed places, the
template face recognition has used since ArcFace (Deng et al. 2019). Everything here is geometry
in plain numpy; `faces.align_face` renders it from the photo, `train.mini.prepare` from a data set.
"""

import numpy as np

TEMPLATE_SIZE = 112
TEMPLATE = np.array(
    [
        [38.2946, 51.6963],
        [73.5318, 51.5014],
        [56.0252, 71.7366],
        [41.5493, 92.3655],
        [70.7299, 92.2041],
    ]
)
"""(5, 2) x y in pixels of a 112 square: the eye on the picture's left, the other eye, nose tip,
the mouth corner on the picture's left, the other corner."""


def similarity(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return the (2, 3) rotation, uniform scale and shift that best maps `source` onto `target`.

    Least squares without reflection (Umeyama 1991). Both are (P, 2) points, P >= 2.

    Raises:
        ValueError: all source points coincide, so no scale is defined.
    """
    source, target = np.asarray(source, float), np.asarray(target, float)
    centre_s, centre_t = source.mean(0), target.mean(0)
    s, t = source - centre_s, target - centre_t
    spread = (s**2).sum()
    if spread < 1e-9:
        raise ValueError("The landmarks of a face coincide: it cannot be aligned.")
    cosine = (s * t).sum() / spread  # scale * cos(angle)
    sine = (s[:, 0] * t[:, 1] - s[:, 1] * t[:, 0]).sum() / spread  # scale * sin(angle)
    linear = np.array([[cosine, -sine], [sine, cosine]])
    return np.column_stack([linear, centre_t - linear @ centre_s])


def invert(affine: np.ndarray) -> np.ndarray:
    """Return the (2, 3) inverse of a (2, 3) affine map."""
    linear = np.linalg.inv(affine[:, :2])
    return np.column_stack([linear, -linear @ affine[:, 2]])


def compose(second: np.ndarray, first: np.ndarray) -> np.ndarray:
    """Return the (2, 3) map that applies `first`, then `second`."""
    linear = second[:, :2] @ first[:, :2]
    return np.column_stack([linear, second[:, :2] @ first[:, 2] + second[:, 2]])


def template_for(size: float, margin: float = 1.0) -> np.ndarray:
    """Return the (5, 2) template in a square of `size` pixels that shows `margin` times as much."""
    scale = size / (TEMPLATE_SIZE * margin)
    return (TEMPLATE - TEMPLATE_SIZE / 2) * scale + size / 2

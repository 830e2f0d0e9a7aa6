"""From a photo to aligned faces: find them (MTCNN), choose, draw each upright in a square."""

from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import Image, ImageOps

from feallm.alignment import compose, invert, similarity, template_for
from feallm.ending import working

DETECTION_SIDE = 1280
"""Faces are looked for in a copy of at most this longer side; they are drawn from the original."""
MIN_SCORE = 0.9
"""Below this MTCNN's faces are often hands and textures."""
MAX_FACES = 12
SMALL_FACE = 40
"""Pixels; a face narrower than this is reported as small."""
BORDER = 64
"""Pixels of black around the copy: MTCNN then also finds faces that the photo's edge cuts."""
CROP_SIDE = 192
"""Longer side at which a picture that is one face already is searched for its landmarks."""
CROP_SCORE = 0.4
"""MTCNN's scores that suffice there: that it is a face is known. It then finds the landmarks of
96 % instead of 90 % of FER+'s 48-pixel crops."""
NO_FACE = (
    "No face was found. Use a photo that shows the whole face, well lit and not too small; "
    "sunglasses and strong profiles hide what the detector looks for."
)
"""What a person is told when `detect_faces` finds nothing."""
_TURNS = (None, Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_270, Image.Transpose.ROTATE_180)


@dataclass(frozen=True)
class Face:
    """A found face: `box` xyxy in the photo's pixels, `score` in [0, 1], `landmarks` (5, 2) x y."""

    box: tuple[float, float, float, float]
    score: float
    landmarks: np.ndarray

    @property
    def side(self) -> float:
        """The shorter side of the box, in pixels."""
        return min(self.box[2] - self.box[0], self.box[3] - self.box[1])


@cache
def _detector(is_crop: bool = False):
    import torch
    from facenet_pytorch import MTCNN

    options = (
        {"min_face_size": CROP_SIDE // 4, "thresholds": [CROP_SCORE] * 3}
        if is_crop
        else {"min_face_size": 24}
    )
    with torch.inference_mode():
        return MTCNN(keep_all=True, device="cpu", **options)


def detect_faces(photo: Image.Image) -> list[Face]:
    """Return the faces of an RGB photo, largest first, at most `MAX_FACES`; [] is an answer.

    A photo in which none is found is looked at in the other three orientations too; the faces'
    places are always those in the photo as given.
    """
    scale = min(1.0, DETECTION_SIDE / max(photo.size))
    small = photo
    if scale < 1:
        small = photo.resize(
            [max(1, round(s * scale)) for s in photo.size], Image.Resampling.BILINEAR
        )
    for turn in _TURNS:
        faces = _detect(small if turn is None else small.transpose(turn))
        if faces:
            back = _turn_back(turn, small.size)
            to_photo = np.array(
                [[photo.width / small.width, 0, 0], [0, photo.height / small.height, 0]]
            )
            faces = [_move(f, compose(to_photo, back), photo.size) for f in faces]
            return sorted(faces, key=lambda f: -f.side)[:MAX_FACES]
    return []


def _detect(photo: Image.Image, is_crop: bool = False) -> list[Face]:
    import torch

    with working(), torch.inference_mode():
        boxes, scores, points = _detector(is_crop).detect(
            ImageOps.expand(photo, BORDER), landmarks=True
        )
    if boxes is None:
        return []
    found = zip(
        boxes.astype(float) - BORDER,
        scores.astype(float),
        points.astype(float) - BORDER,
        strict=True,
    )
    return [
        Face(tuple(box), float(score), five)
        for box, score, five in found
        if score >= (CROP_SCORE if is_crop else MIN_SCORE)
    ]


def _turn_back(turn: Image.Transpose | None, size: tuple[int, int]) -> np.ndarray:
    """(2, 3) map from the turned photo's pixels to those of the photo of `size`."""
    width, height = size
    return {
        None: np.array([[1.0, 0, 0], [0, 1, 0]]),
        Image.Transpose.ROTATE_90: np.array([[0.0, -1, width], [1, 0, 0]]),
        Image.Transpose.ROTATE_270: np.array([[0.0, 1, 0], [-1, 0, height]]),
        Image.Transpose.ROTATE_180: np.array([[-1.0, 0, width], [0, -1, height]]),
    }[turn]


def _move(face: Face, affine: np.ndarray, size: tuple[int, int]) -> Face:
    corners = np.array([face.box[:2], face.box[2:]]) @ affine[:, :2].T + affine[:, 2]
    low, high = corners.min(0).clip(0), corners.max(0).clip(None, size)
    points = face.landmarks @ affine[:, :2].T + affine[:, 2]
    return Face((*low.tolist(), *high.tolist()), face.score, points)


def caveat(face: Face, photo: Image.Image) -> str:
    """Return a sentence on what makes this face hard to read, or ""."""
    points = face.landmarks
    if (points < 0).any() or (points > np.array(photo.size)).any():
        return "Part of this face lies outside the photo, so the reading is less reliable."
    if face.side < SMALL_FACE:
        return f"This face is only {face.side:.0f} pixels wide, so fine movements cannot be seen."
    if face.score < 0.97:
        return f"The detector is only {face.score:.0%} sure that this is a face."
    return ""


def align_face(photo: Image.Image, face: Face, size: int) -> Image.Image:
    """Return the face upright in a square of `size` pixels, drawn from the photo's own pixels.

    The five landmarks go to the 112 x 112 template's places (`alignment.TEMPLATE`), scaled.
    """
    return draw(photo, similarity(face.landmarks, template_for(size)), size)


def face_of_crop(picture: Image.Image, size: int) -> Image.Image:
    """Return a picture that is one face already as a square of `size` pixels, upright if possible.

    Whether there is a face is not asked. MTCNN only looks for its landmarks; where it finds none
    in the picture's middle, the whole picture is taken.
    """
    return draw(picture, place_crop(picture, size), size)


def place_crop(picture: Image.Image, size: int) -> np.ndarray:
    """Return the (2, 3) map from a picture that is one face to `face_of_crop`'s square."""
    scale = CROP_SIDE / max(picture.size)
    small = picture.resize(
        [max(1, round(s * scale)) for s in picture.size], Image.Resampling.BICUBIC
    )
    middle = np.array(small.size) / 2
    for face in sorted(_detect(small, is_crop=True), key=lambda f: -f.score):
        centre = (np.array(face.box[:2]) + face.box[2:]) / 2
        if (abs(centre - middle) < middle / 2).all() and face.side > CROP_SIDE / 3:
            to_picture = np.array([[1 / scale, 0, 0], [0, 1 / scale, 0]])
            face = _move(face, to_picture, picture.size)
            return similarity(face.landmarks, template_for(size))
    return _place_whole(picture, size)


def whole_picture(photo: Image.Image, size: int) -> Image.Image:
    """Return a picture that is one face already as a square of `size` pixels, edges repeated."""
    return draw(photo, _place_whole(photo, size), size)


def _place_whole(photo: Image.Image, size: int) -> np.ndarray:
    side = max(photo.size)
    scale = size / side
    x0, y0 = (photo.width - side) / 2, (photo.height - side) / 2
    return np.array([[scale, 0, -x0 * scale], [0, scale, -y0 * scale]])


def draw(photo: Image.Image, to_square: np.ndarray, size: int) -> Image.Image:
    """Draw a photo through a (2, 3) map onto a square of `size` pixels, without aliasing.

    Coordinates are continuous: the first pixel covers 0 to 1. Beyond the photo its edge repeats.
    """
    back = invert(to_square)
    square = np.array([[0, 0], [size, 0], [0, size], [size, size]], float)
    corners = square @ back[:, :2].T + back[:, 2]
    per_pixel = np.sqrt(abs(np.linalg.det(back[:, :2])))  # photo pixels in one of ours
    reduce = max(1, int(per_pixel))
    margin = 4 * reduce
    low = np.floor(corners.min(0) - margin).astype(int)
    high = np.ceil(corners.max(0) + margin).astype(int)
    # cut what is needed (where there is anything), repeat the edges, average down, then sample
    inside_low = np.clip(low, 0, np.array(photo.size) - 1)
    inside_high = np.clip(high, inside_low + 1, photo.size)
    part = photo.crop((*inside_low.tolist(), *inside_high.tolist()))
    if reduce > 1:
        part = part.reduce(reduce)
    array = np.asarray(part)
    before = np.maximum((inside_low - low) // reduce, 0)
    after = np.maximum(-(-(high - inside_high) // reduce), 0)
    padded = np.pad(array, ((before[1], after[1]), (before[0], after[0]), (0, 0)), mode="edge")
    origin = inside_low - before * reduce
    to_part = np.array([[1 / reduce, 0, -origin[0] / reduce], [0, 1 / reduce, -origin[1] / reduce]])
    data = tuple(compose(to_part, back).flatten())
    return Image.fromarray(padded).transform(
        (size, size), Image.Transform.AFFINE, data, Image.Resampling.BICUBIC
    )

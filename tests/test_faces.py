"""Detection on real pictures: found, ordered, upright; none is an answer."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from feallm.alignment import template_for
from feallm.faces import (
    Face,
    align_face,
    caveat,
    detect_faces,
    face_of_crop,
    whole_picture,
)
from feallm.photos import open_photo

GROUP = Path(__file__).parents[2] / "shared" / "data" / "photos" / "group.jpg"


def test_the_portrait_has_one_face(portrait):
    (face,) = detect_faces(portrait)
    x0, y0, x1, y1 = face.box
    assert 150 < x0 < x1 < 400 and 30 < y0 < y1 < 350
    assert face.score > 0.99
    assert face.landmarks.shape == (5, 2)
    assert caveat(face, portrait) == ""


def test_two_faces_come_largest_first(portrait):
    both = Image.new("RGB", (1400, 700), "grey")
    both.paste(portrait.resize((300, 352)), (0, 0))
    both.paste(portrait, (700, 0))
    first, second = detect_faces(both)
    assert first.box[0] > 700 > second.box[2]
    assert first.side > second.side


@pytest.mark.parametrize(
    "turn", [Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_180, Image.Transpose.ROTATE_270]
)
def test_a_turned_photo_gives_the_same_upright_face(portrait, turn):
    upright = align_face(portrait, detect_faces(portrait)[0], 96)
    turned = portrait.transpose(turn)
    again = align_face(turned, detect_faces(turned)[0], 96)
    difference = np.abs(np.asarray(upright).astype(int) - np.asarray(again).astype(int))
    assert difference.mean() < 12  # MTCNN's points move by a pixel or two


def test_no_face_is_an_answer():
    assert detect_faces(Image.effect_noise((300, 200), 80).convert("RGB")) == []


def test_a_tiny_photo_does_not_break_detection():
    assert detect_faces(Image.new("RGB", (48, 48))) == []


def test_boxes_stay_inside_the_photo(portrait):
    cut = portrait.crop((170, 130, 400, 400))
    for face in detect_faces(cut):
        x0, y0, x1, y1 = face.box
        assert 0 <= x0 < x1 <= cut.width and 0 <= y0 < y1 <= cut.height


def test_caveats_are_said():
    photo = Image.new("RGB", (200, 200))
    points = template_for(100) + 20
    assert "outside" in caveat(Face((0, 0, 99, 99), 0.99, points - 70), photo)
    assert "30 pixels" in caveat(Face((20, 20, 50, 55), 0.99, points), photo)
    assert "93%" in caveat(Face((20, 20, 120, 120), 0.93, points), photo)


@pytest.mark.skipif(not GROUP.exists(), reason="needs the shared photo group.jpg")
def test_the_group_has_five_people():
    photo, _ = open_photo(GROUP)
    faces = detect_faces(photo)
    assert len(faces) == 5
    assert "outside" in caveat(faces[-1], photo)  # the one the photo's edge cuts


def test_a_crop_is_turned_upright_and_never_refused(portrait):
    face = detect_faces(portrait)[0]
    x0, y0, x1, y1 = face.box
    room = (x1 - x0) * 0.25
    crop = portrait.crop(tuple(round(v) for v in (x0 - room, y0 - room, x1 + room, y1 + room)))
    aligned, again, whole = (
        np.asarray(face.resize((12, 12), Image.Resampling.BOX)).astype(int)
        for face in (
            align_face(portrait, face, 96),
            face_of_crop(crop, 96),
            whole_picture(crop, 96),
        )
    )  # so coarse that a landmark's pixel or two does not count
    assert np.abs(aligned - again).mean() < np.abs(aligned - whole).mean() / 2
    noise = Image.effect_noise((60, 48), 80).convert("RGB")
    np.testing.assert_array_equal(
        np.asarray(face_of_crop(noise, 96)), np.asarray(whole_picture(noise, 96))
    )

"""The geometry of alignment and of the faces drawn with it."""

import numpy as np
import pytest
from PIL import Image

from feallm.alignment import TEMPLATE, compose, invert, similarity, template_for
from feallm.faces import Face, align_face, draw, whole_picture


def test_similarity_recovers_a_turn_a_scale_and_a_shift():
    angle, scale, shift = 0.4, 2.5, np.array([7.0, -3.0])
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    found = similarity(TEMPLATE, TEMPLATE @ turn.T + shift)
    np.testing.assert_allclose(found, np.column_stack([turn, shift]), atol=1e-9)
    np.testing.assert_allclose(compose(invert(found), found), [[1, 0, 0], [0, 1, 0]], atol=1e-9)


def test_coinciding_landmarks_are_refused():
    with pytest.raises(ValueError, match="coincide"):
        similarity(np.ones((5, 2)), TEMPLATE)


def test_the_template_scales_and_widens():
    np.testing.assert_allclose(template_for(112), TEMPLATE)
    np.testing.assert_allclose(template_for(336), 3 * TEMPLATE)
    np.testing.assert_allclose(template_for(168, margin=1.5), TEMPLATE + 28)


def test_drawing_is_exact_where_pixels_fall_on_pixels(gradient):
    shifted = draw(gradient, np.array([[1.0, 0, -30], [0, 1, -20]]), 64)
    np.testing.assert_array_equal(np.asarray(shifted), np.asarray(gradient)[20:84, 30:94])


def test_a_reduction_keeps_places(gradient):
    half = np.asarray(draw(gradient, np.array([[0.25, 0, 0], [0, 0.25, 0]]), 40)).astype(float)
    # the middle of output pixel x is photo pixel 4 x + 1.5
    np.testing.assert_allclose(half[10, 5:35, 0], 4 * np.arange(5, 35) + 1.5, atol=1.0)
    np.testing.assert_allclose(half[5:35, 10, 1], 4 * np.arange(5, 35) + 1.5, atol=1.0)


def test_beyond_the_photo_its_edge_repeats(gradient):
    drawn = np.asarray(draw(gradient, np.array([[1.0, 0, 20], [0, 1, 0]]), 64))
    assert (drawn[30, :18, 0] == 0).all()
    assert drawn[30, 40, 0] == 20


def test_aligned_landmarks_land_on_the_template(gradient):
    points = TEMPLATE * 0.8 + np.array([60, 40])
    face = Face((60, 40, 150, 130), 1.0, points)
    drawn = np.asarray(align_face(gradient, face, 112)).astype(float)
    for (x, y), (tx, ty) in zip(points, TEMPLATE, strict=True):
        red, green, _ = drawn[int(ty), int(tx)]
        # within a pixel and the rounding of both
        assert abs(red - x) < 2 and abs(green - y) < 2


def test_a_whole_picture_is_padded_to_a_square():
    wide = Image.new("RGB", (100, 50), "red")
    assert whole_picture(wide, 96).size == (96, 96)
    np.testing.assert_array_equal(np.asarray(whole_picture(wide, 96))[:, :, 0], 255)

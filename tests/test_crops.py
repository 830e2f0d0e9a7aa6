"""The local crops, pixel for pixel."""

import pytest
import torch

from feallm.configuration import CROP_GROUPS
from feallm.crops import cut_crops, list_crops

BOXES = [  # of an 8 x 8 face, as (x0, y0, x1, y1); the frozen order
    ("top ½", (0, 0, 8, 4)), ("top ¾", (0, 0, 8, 6)),
    ("bottom ½", (0, 4, 8, 8)), ("bottom ¾", (0, 2, 8, 8)),
    ("left ½", (0, 0, 4, 8)), ("left ¾", (0, 0, 6, 8)),
    ("right ½", (4, 0, 8, 8)), ("right ¾", (2, 0, 8, 8)),
    ("top-left ½", (0, 0, 4, 4)), ("top-left ¾", (0, 0, 6, 6)),
    ("top-right ½", (4, 0, 8, 4)), ("top-right ¾", (2, 0, 8, 6)),
    ("bottom-left ½", (0, 4, 4, 8)), ("bottom-left ¾", (0, 2, 6, 8)),
    ("bottom-right ½", (4, 4, 8, 8)), ("bottom-right ¾", (2, 2, 8, 8)),
]  # fmt: skip


def test_every_crop_is_where_the_drawing_has_it():
    crops = list_crops(list(CROP_GROUPS))
    assert [(c.name, tuple(8 * v for v in c.box)) for c in crops] == BOXES


def test_a_square_cut_is_the_faces_own_pixels():
    face = torch.arange(3 * 64.0).view(1, 3, 8, 8)
    corners = cut_crops(face, ["corner_half"], 4)
    assert corners.shape == (1, 4, 3, 4, 4)
    torch.testing.assert_close(corners[0, 0], face[0, :, :4, :4], rtol=0, atol=0)
    torch.testing.assert_close(corners[0, 3], face[0, :, 4:, 4:], rtol=0, atol=0)


def test_an_edge_cut_keeps_one_side_whole():
    y, x = torch.meshgrid(torch.arange(8.0), torch.arange(8.0), indexing="ij")
    face = torch.stack([x, y, x])[None]
    top = cut_crops(face, ["edge_half"], 4)[0, 0]
    # eight columns averaged in pairs (weights reach one pixel further), four rows as they are
    assert top[0, 0, 0] < top[0, 0, 3]
    torch.testing.assert_close(top[0, 0].mean(), torch.tensor(3.5))
    torch.testing.assert_close(top[1, :, 0], torch.tensor([0.0, 1, 2, 3]))


def test_groups_choose_and_order_stays():
    crops = list_crops(["corner_three_quarters", "edge_half"])
    assert [c.name for c in crops] == [
        "top ½", "bottom ½", "left ½", "right ½",
        "top-left ¾", "top-right ¾", "bottom-left ¾", "bottom-right ¾",
    ]  # fmt: skip


def test_a_side_that_cuts_through_pixels_is_refused():
    with pytest.raises(ValueError, match="multiple of 4"):
        cut_crops(torch.zeros(1, 3, 10, 10), ["edge_half"], 4)

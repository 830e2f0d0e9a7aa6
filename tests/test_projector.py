"""The Multi-perspective Projector: both residual modes and the ablations' switches."""

import pytest
import torch
from conftest import tiny_inputs, tiny_model

from feallm.projector import clue_map_shape, pixel_centres


@pytest.mark.parametrize(("count", "shape"), [(16, (4, 4)), (12, (3, 4)), (8, (2, 4)), (4, (2, 2))])
def test_the_clues_lie_on_the_squarest_map(count, shape):
    assert clue_map_shape(count) == shape


def test_pixel_centres_are_row_major():
    expected = torch.tensor([[0.25, 0.25], [0.75, 0.25], [0.25, 0.75], [0.75, 0.75]])
    torch.testing.assert_close(pixel_centres(2), expected)


def fused(**changes) -> dict:
    model = tiny_model(**changes)
    inputs = tiny_inputs(model.config)
    return model.model.fuse(inputs["pixel_values"], inputs.get("pixel_values_local"))


def test_identity_mode_starts_as_the_deep_features():
    out = fused(mpp_residual="identity")
    torch.testing.assert_close(out["features"], out["deep"], rtol=0, atol=0)


def test_paper_mode_starts_as_the_shallow_attention_alone():
    model = tiny_model()
    inputs = tiny_inputs(model.config)
    out = model.model.fuse(inputs["pixel_values"], inputs["pixel_values_local"])
    other = model.model.fuse(inputs["pixel_values"], torch.randn_like(inputs["pixel_values_local"]))
    assert not torch.allclose(out["features"], out["deep"])  # Eq 4 has no residual
    torch.testing.assert_close(out["features"], other["features"])  # scale_local starts at 0
    with torch.no_grad():
        model.model.mpp.scale_local.fill_(1.0)
    out = model.model.fuse(inputs["pixel_values"], inputs["pixel_values_local"])
    assert not torch.allclose(out["features"], other["features"])


@pytest.mark.parametrize(
    ("changes", "looks"),
    [
        ({}, {"shallow", "local", "self"}),
        ({"mpp_shallow": False}, {"local", "self"}),
        ({"mpp_local": False}, {"shallow", "self"}),
        ({"use_lca": False}, {"shallow", "self"}),
        ({"use_mpp": False}, set()),
        ({"use_lca": False, "use_mpp": False}, set()),
        ({"crop_groups": ["edge_half"]}, {"shallow", "local", "self"}),
    ],
)
def test_every_ablation_runs_and_shows_what_it_looked_at(changes, looks):
    out = fused(**changes)
    assert set(out["looks"]) == looks
    for where, weights in out["looks"].values():
        assert where.shape == (*weights.shape, 2)
        torch.testing.assert_close(weights.sum((-1, -2)), torch.ones(weights.shape[:3]))
    assert (out["token"] is None) == (changes.get("use_lca") is False)

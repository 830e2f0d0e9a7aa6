"""Our deformable attention against transformers' module, which is the reference."""

import pytest
import torch
from transformers import DeformableDetrConfig
from transformers.models.deformable_detr.modeling_deformable_detr import (
    DeformableDetrMultiscaleDeformableAttention,
)

from feallm.deformable import DeformableAttention
from feallm.projector import pixel_centres


@pytest.mark.parametrize("shapes", [[(4, 4)] * 3, [(4, 4)], [(6, 4), (2, 3)]])
def test_equals_the_reference(shapes):
    config = DeformableDetrConfig(d_model=32, num_feature_levels=len(shapes))
    reference = DeformableDetrMultiscaleDeformableAttention(config, num_heads=4, n_points=2)
    ours = DeformableAttention(width=32, heads=4, points=2, shapes=shapes)
    for parameter in reference.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    ours.load_state_dict(reference.state_dict())  # the same names and shapes
    query = torch.randn(2, 16, 32)
    values = torch.randn(2, sum(h * w for h, w in shapes), 32)
    centres = pixel_centres(4)
    starts = torch.tensor([0, *torch.tensor([h * w for h, w in shapes]).cumsum(0)[:-1].tolist()])
    theirs, their_weights = reference(
        query,
        encoder_hidden_states=values,
        reference_points=centres[None, :, None].expand(2, -1, len(shapes), -1),
        spatial_shapes=torch.tensor(shapes),
        spatial_shapes_list=shapes,
        level_start_index=starts,
    )
    result, where, weights = ours(query, values, centres)
    torch.testing.assert_close(result, theirs, rtol=1e-5, atol=1e-6)  # sums in another order
    torch.testing.assert_close(weights, their_weights, rtol=1e-5, atol=1e-6)
    assert where.shape == (2, 16, 4, len(shapes), 2, 2)


def test_a_point_on_a_pixel_reads_that_pixel():
    attention = DeformableAttention(width=8, heads=1, points=1, shapes=[(4, 4)])
    for layer in (attention.value_proj, attention.output_proj):
        torch.nn.init.eye_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
    torch.nn.init.zeros_(attention.sampling_offsets.weight)
    with torch.no_grad():
        attention.sampling_offsets.bias.copy_(torch.tensor([1.0, 0.0]))  # one pixel to the right
    values = torch.randn(1, 16, 8)
    result, where, _ = attention(torch.randn(1, 16, 8), values, pixel_centres(4))
    grid, seen = values.view(4, 4, 8), result.view(4, 4, 8)
    torch.testing.assert_close(seen[:, :3], grid[:, 1:])
    torch.testing.assert_close(seen[:, 3], torch.zeros(4, 8))  # outside there is nothing
    torch.testing.assert_close(where[0, 0].flatten(), torch.tensor([0.375, 0.125]))


def test_the_starting_star():
    attention = DeformableAttention(width=16, heads=4, points=2, shapes=[(4, 4)], spread=0.25)
    star = attention.sampling_offsets.starting_bias().view(4, 1, 2, 2)
    expected = torch.tensor([[1.0, 0], [0, 1], [-1, 0], [0, -1]])
    torch.testing.assert_close(star[:, 0, 0], 0.25 * expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(star[:, 0, 1], 0.5 * expected, atol=1e-6, rtol=0)


def test_values_that_do_not_fit_raise():
    attention = DeformableAttention(width=8, heads=2, points=1, shapes=[(4, 4)])
    with pytest.raises(ValueError, match="levels"):
        attention(torch.randn(1, 16, 8), torch.randn(1, 15, 8), pixel_centres(4))

"""The Local Clue Aggregator: Eq 1 to 3, and what it shows of itself."""

import pytest
import torch

from feallm.lca import LocalClueAggregator


def lca(**changes) -> LocalClueAggregator:
    options = {"num_crops": 16, "channels": [8, 8, 16], "depths": [1, 2, 1], "hidden_size": 24}
    model = LocalClueAggregator(**(options | changes)).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return model


def test_shapes_and_rows_that_sum_to_one():
    clues, token, attention = lca()(torch.randn(2, 16, 3, 16, 16))
    assert clues.shape == (2, 16, 16)
    assert token.shape == (2, 1, 24)
    torch.testing.assert_close(attention.sum(-1), torch.ones(2, 16))


@pytest.mark.parametrize("scale", [None, 3.0])
def test_equals_the_formulas_written_out(scale):
    model = lca(depths=[1, 1, 1], attention_scale=scale)
    crops = torch.randn(1, 16, 3, 16, 16)
    local = []
    for crop in crops[0]:
        x = crop[None]
        for stage in model.stages:
            x = torch.nn.functional.conv2d(x, stage.reduce.weight, stride=2, padding=1)
            norm = stage.reduce_norm
            x = torch.nn.functional.group_norm(x, 8, norm.weight, norm.bias).relu()
        local.append(x.mean((2, 3))[0])
    local = torch.stack(local)  # R_local (16, 16)
    query, key, value = (local @ m.weight.T for m in (model.query, model.key, model.value))
    scores = query @ key.T / 4  # sqrt(16)
    if scale:
        scores = 3 * torch.nn.functional.cosine_similarity(query[:, None], key[None], dim=-1)
    weights = scores.softmax(-1)
    token = (weights @ value).flatten() @ model.to_token.weight.T + model.to_token.bias
    clues, ours, attention = model(crops)
    torch.testing.assert_close(attention[0], weights, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(clues[0], weights @ value, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(ours[0, 0], token, rtol=1e-4, atol=1e-4)


def test_scaled_cosines_keep_every_clue_in_sight():
    """However long the clues have grown, no weight exceeds that of cosines 1 against -1."""
    cosines, plain = lca(attention_scale=2.0), lca()
    for model in (cosines, plain):
        model.stages[-1].reduce_norm.weight.data *= 1000
    crops = torch.randn(1, 16, 3, 16, 16)
    assert cosines(crops)[2].max() <= 1 / (1 + 15 * torch.exp(torch.tensor(-4.0)))
    assert plain(crops)[2].max() > 0.99


def test_swapping_two_crops_changes_the_token():
    model, crops = lca(), torch.randn(1, 16, 3, 16, 16)
    swapped = crops.clone()
    swapped[:, [0, 5]] = crops[:, [5, 0]]
    assert not torch.allclose(model(crops)[1], model(swapped)[1], atol=1e-3)


def test_a_wrong_number_of_crops_raises():
    with pytest.raises(ValueError, match="15 local crops"):
        lca()(torch.randn(1, 15, 3, 16, 16))

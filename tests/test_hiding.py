"""Hiding the local token: whom it hides, from what, and when not."""

import torch

from feallm.lca import LocalClueAggregator
from train.hiding import hide_local_token

FACES, CROPS = 64, 4


def lca_and_crops():
    torch.manual_seed(0)
    lca = LocalClueAggregator(num_crops=CROPS, channels=[8, 16], depths=[1, 1], hidden_size=24)
    return lca, torch.randn(FACES, CROPS, 3, 8, 8)


def test_the_token_of_about_the_share_is_the_mean_and_all_else_stays():
    lca, crops = lca_and_crops()
    seen, token, attention = lca(crops)
    hide_local_token(lca, 0.25)
    seen_then, token_then, attention_then = lca(crops)
    torch.testing.assert_close(seen_then, seen)
    torch.testing.assert_close(attention_then, attention)
    mean = token.mean(0).expand_as(token)
    hidden = (token_then == mean).all(-1).flatten()
    assert 0.1 < hidden.float().mean() < 0.45
    torch.testing.assert_close(token_then[~hidden], token[~hidden])


def test_nothing_is_learnt_from_hidden_tokens():
    lca, crops = lca_and_crops()
    hide_local_token(lca, 1.0)
    lca(crops)[1].sum().backward()
    assert not lca.to_token.weight.grad.any()


def test_a_model_that_answers_hides_nothing():
    lca, crops = lca_and_crops()
    token = lca.eval()(crops)[1]
    hide_local_token(lca, 1.0)
    torch.testing.assert_close(lca(crops)[1], token)

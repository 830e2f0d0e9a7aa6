"""Hiding tokens: whose, from what, and when not."""

import pytest
import torch
from torch import nn

from feallm.lca import LocalClueAggregator
from train.hiding import hide_features, hide_local_token

FACES, CROPS, PATCHES, WIDTH = 64, 4, 9, 24


def lca_and_crops():
    torch.manual_seed(0)
    lca = LocalClueAggregator(num_crops=CROPS, channels=[8, 16], depths=[1, 1], hidden_size=WIDTH)
    return lca, torch.randn(FACES, CROPS, 3, 8, 8)


def local_token():
    """Return an LCA, how to hide its token, and how to read it of some faces."""
    lca, crops = lca_and_crops()
    return lca, hide_local_token, lambda: lca(crops)[1]


def features():
    """Return a projector, how to hide its tokens, and how to read them of some faces."""
    torch.manual_seed(0)
    projector, seen = nn.Linear(16, WIDTH), torch.randn(FACES, PATCHES, 16)
    return projector, hide_features, lambda: projector(seen)


KINDS = pytest.mark.parametrize("kind", (local_token, features), ids=lambda kind: kind.__name__)


@KINDS
def test_the_tokens_of_about_the_share_are_the_mean_and_the_others_stay(kind):
    module, hide, read = kind()
    tokens = read()
    hide(module, 0.25)
    hidden_then = read()
    mean = tokens.mean(0).expand_as(tokens)
    hidden = (hidden_then == mean).flatten(1).all(1)
    assert 0.1 < hidden.float().mean() < 0.45
    torch.testing.assert_close(hidden_then[~hidden], tokens[~hidden])


@KINDS
def test_nothing_is_learnt_from_hidden_tokens(kind):
    module, hide, read = kind()
    hide(module, 1.0)
    read().sum().backward()
    gradients = [weight.grad for weight in module.parameters() if weight.grad is not None]
    assert gradients and not any(gradient.any() for gradient in gradients)


@KINDS
def test_a_model_that_answers_hides_nothing(kind):
    module, hide, read = kind()
    module.eval()
    tokens = read()
    hide(module, 1.0)
    torch.testing.assert_close(read(), tokens)


def test_the_mpp_sees_the_clues_of_every_face():
    lca, crops = lca_and_crops()
    clues, _token, attention = lca(crops)
    hide_local_token(lca, 1.0)
    clues_then, _token, attention_then = lca(crops)
    torch.testing.assert_close(clues_then, clues)
    torch.testing.assert_close(attention_then, attention)

"""The quick gradient of small convolutions is PyTorch's gradient."""

import copy

import pytest
import torch
from torch.nn import functional as F

from feallm.lca import ClueConv
from train.mini.convolution import QuickConv, quicken, windows


def gradients(conv: torch.nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    x = x.clone().requires_grad_()
    conv.zero_grad()
    (conv(x) ** 2).sum().backward()
    return [x.grad, *(p.grad for p in conv.parameters())]


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("side", [1, 2, 4, 7])
@pytest.mark.parametrize("bias", [False, True])
def test_gradients_are_pytorchs(stride, side, bias):
    torch.manual_seed(0)
    plain = ClueConv(5, 6, 3, stride=stride, padding=1, bias=bias).double()
    quick = copy.deepcopy(plain)
    quicken(quick)
    assert type(quick) is QuickConv
    x = torch.randn(3, 5, side, side, dtype=torch.float64)
    torch.testing.assert_close(quick(x), plain(x))
    for ours, theirs in zip(gradients(quick, x), gradients(plain, x), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_under_autocast_gradients_stay_within_bf16():
    torch.manual_seed(0)
    plain = ClueConv(16, 32, 3, padding=1, bias=False)
    quick = copy.deepcopy(plain)
    quicken(quick)
    x = torch.randn(8, 16, 4, 4).to(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        ours = gradients(quick, x)
    theirs = gradients(plain, x)
    for a, b in zip(ours, theirs, strict=True):
        assert a.dtype == torch.float32
        assert F.cosine_similarity(a.flatten(), b.flatten(), dim=0) > 0.999


def test_a_window_is_the_nine_neighbours_row_by_row():
    x = torch.arange(9.0).view(1, 1, 3, 3)
    rows = windows(x, 1)
    assert rows.shape == (9, 9)
    assert rows[4].tolist() == list(range(9))  # the centre sees all
    assert rows[0].tolist() == [0, 0, 0, 0, 0, 1, 0, 3, 4]  # the corner sees the padding

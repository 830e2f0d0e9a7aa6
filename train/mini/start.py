"""What a language model reads first of a face: tokens in which faces differ, not what they share.

What all faces share is thirty times what tells them apart. Read through a projector that had begun
at random, the MPP's tokens differed between faces by a hundredth of their size: the language model
listened to the local token alone. So projector and local token start standardised.
"""

import torch
from torch import nn

from feallm.modeling import FEALLMModel

EPSILON = 1e-5


@torch.no_grad()
def standardise_token(to_token: nn.Linear, mean: torch.Tensor, variance: torch.Tensor) -> None:
    """Fold mean and variance (D_t,) of the local token into the layer that gives it, in place."""
    std = (variance + EPSILON).sqrt()
    to_token.weight /= std[:, None]
    to_token.bias.copy_((to_token.bias - mean) / std)


@torch.no_grad()
def start_projector(projector: nn.Module, mean: torch.Tensor, variance: torch.Tensor) -> None:
    """Start a projector behind features of this mean and variance (D_v,) over faces, in place."""
    for linear in (projector.linear_1, projector.linear_2):
        nn.init.orthogonal_(linear.weight)
        nn.init.zeros_(linear.bias)
    first = projector.linear_1
    first.weight /= (variance + EPSILON).sqrt()
    first.bias -= first.weight @ mean


@torch.no_grad()
def start_from_faces(
    model: FEALLMModel, pixel_values: torch.Tensor, pixel_values_local: torch.Tensor | None
) -> None:
    """Start the tokens of eyes of which parts were left out by what these faces show, in place."""
    fused = model.eval().fuse(pixel_values, pixel_values_local)
    pooled = fused["features"].mean(1)
    start_projector(model.multi_modal_projector, pooled.mean(0), pooled.var(0))
    if fused["token"] is not None:
        token = fused["token"][:, 0]
        standardise_token(model.lca.to_token, token.mean(0), token.var(0))

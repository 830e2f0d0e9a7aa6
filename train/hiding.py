"""Hide some faces' local token, or their MPP's tokens, while training, so that both are heard.

A language model that starts from nothing listens to what tells most faces apart soonest, and hardly
to the rest: first to the LCA's token alone, then, that hidden now and then, to the MPP's alone.
Dropping one source of several now and then is ModDrop (Neverova et al. 2016, arXiv 1501.00102);
doing it here is ours.
"""

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from feallm.lca import LocalClueAggregator


def hide_local_token(lca: LocalClueAggregator, share: float) -> RemovableHandle:
    """Make an LCA in training give its batch's mean token for a share of the faces.

    Its clues, and so the MPP, keep seeing every face.
    """

    def hide(module, _inputs, outputs):
        clues, token, attention = outputs  # token (B, 1, D_t)
        return (clues, _hidden(token, share), attention) if module.training else outputs

    return lca.register_forward_hook(hide)


def hide_features(projector: nn.Module, share: float) -> RemovableHandle:
    """Make a projector in training give its batch's mean tokens for a share of the faces."""

    def hide(module, _inputs, tokens):  # (B, N, D_t)
        return _hidden(tokens, share) if module.training else tokens

    return projector.register_forward_hook(hide)


def _hidden(tokens: torch.Tensor, share: float) -> torch.Tensor:
    """Return tokens (B, K, D_t) with those of a share of the faces replaced by their mean."""
    whom = torch.rand(len(tokens), 1, 1, device=tokens.device) < share
    return torch.where(whom, tokens.detach().mean(0, keepdim=True), tokens)

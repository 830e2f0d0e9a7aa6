"""Hide the local token of some faces while training, so that the MPP's tokens are heard.

The LCA's token alone tells most faces apart, so a language model that starts from nothing listens
to it and hardly to the patches, which know more. Dropping one source of several now and then is
ModDrop (Neverova et al. 2016, arXiv 1501.00102); doing it here is ours.
"""

import torch
from torch.utils.hooks import RemovableHandle

from feallm.lca import LocalClueAggregator


def hide_local_token(lca: LocalClueAggregator, share: float) -> RemovableHandle:
    """Make an LCA in training give its batch's mean token for a share of the faces.

    Its clues, and so the MPP, keep seeing every face.
    """

    def hide(module, _inputs, outputs):
        if not module.training:
            return outputs
        clues, token, attention = outputs  # token (B, 1, D_t)
        hidden = torch.rand(len(token), 1, 1, device=token.device) < share
        mean = token.detach().mean(0, keepdim=True)
        return clues, torch.where(hidden, mean, token), attention

    return lca.register_forward_hook(hide)

"""A convolutional stem: small convolutions make the vision tower's patches.

Ours, for the small member. A ViT that learns on 35,000 faces from nothing needs what convolutions
know of pictures from the start (Xiao et al., "Early Convolutions Help Transformers See Better",
arXiv 2106.14881). The 7B keeps CLIP's single convolution, and its weights.
"""

import torch
from torch import nn

from feallm.lca import conv_stages


class ConvStem(nn.Module):
    """Pixels to patches, in place of CLIP's patch convolution.

    Args:
        channels: output channels of each stage; each halves the side. The last is D_v, the width
            of the tower.
        depths: convolutions in each stage.
        norm: see `lca.NORMS`.
    """

    def __init__(self, channels: list[int], depths: list[int], norm: str):
        super().__init__()
        self.stages = conv_stages(channels, depths, norm)

    @property
    def weight(self) -> torch.Tensor:
        """CLIP asks its patch convolution's weight which dtype the pixels need."""
        return self.stages[0].reduce.weight

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Return the patches (B, D_v, S / P, S / P) of pixels (B, 3, S, S), P = 2^stages."""
        return self.stages(pixel_values.contiguous(memory_format=torch.channels_last))

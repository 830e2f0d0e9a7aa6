"""A convolutional stem: small convolutions make the vision tower's patches.

Ours, for the small member. A ViT that learns on 35,000 faces from nothing needs what convolutions
know of pictures from the start (Xiao et al., "Early Convolutions Help Transformers See Better",
arXiv 2106.14881): the LCA's kind of stages, or a residual network that has learnt faces before. The
7B keeps CLIP's single convolution, and its weights.
"""

import torch
from torch import nn
from torch.nn import functional as F

from feallm.lca import NORMS, ClueConv, conv_stages


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


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut; where the channels grow, the side is halved.

    The shortcut has no weights: it is averaged over 2x2 and filled up with zeros.
    """

    def __init__(self, in_channels: int, out_channels: int, norm: str):
        super().__init__()
        self.more = out_channels - in_channels
        stride, padding = (2, 0) if self.more else (1, 1)
        bias = norm == "none"
        self.conv1 = ClueConv(in_channels, out_channels, 3, stride, padding, bias=bias)
        self.conv2 = ClueConv(out_channels, out_channels, 3, padding=1, bias=bias)
        self.norm1, self.norm2 = NORMS[norm](out_channels), NORMS[norm](out_channels)

    def convolutions(self) -> list[tuple[ClueConv, nn.Module]]:
        """Return each convolution with the norm that follows it."""
        return [(self.conv1, self.norm1), (self.conv2, self.norm2)]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        wide = F.pad(x, (0, 1, 0, 1)) if self.more else x  # every window then starts at a pair
        y = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(wide)))))
        if self.more:
            x = F.pad(F.avg_pool2d(x, 2), (0, 0, 0, 0, 0, self.more))
        return F.relu(x + y)


class ResidualStem(nn.Module):
    """Pixels to patches by the residual network dlib recognises faces with, less its last block.

    Its first convolution is 5x5 and keeps the side: dlib's 7x7 of stride 2 on a picture enlarged
    twice, written as one (`train.mini.pretrained`). A pool halves the side, then every stage but
    the first. King, "High Quality Face Recognition with Deep Metric Learning", 2017.

    Args:
        channels, depths, norm: as `ConvStem`'s; `depths` counts blocks of two convolutions.
    """

    def __init__(self, channels: list[int], depths: list[int], norm: str):
        super().__init__()
        self.first = ClueConv(3, channels[0], 5, padding=2, bias=norm == "none")
        self.first_norm = NORMS[norm](channels[0])
        blocks, width = [], channels[0]
        for channel, depth in zip(channels, depths, strict=True):
            for _ in range(depth):
                blocks.append(ResidualBlock(width, channel, norm))
                width = channel
        self.blocks = nn.Sequential(*blocks)

    def convolutions(self) -> list[tuple[ClueConv, nn.Module]]:
        """Return the first convolution with the norm that follows it."""
        return [(self.first, self.first_norm)]

    @property
    def weight(self) -> torch.Tensor:
        """CLIP asks its patch convolution's weight which dtype the pixels need."""
        return self.first.weight

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Return the patches (B, D_v, S / P, S / P) of pixels (B, 3, S, S), P = 2^stages."""
        x = pixel_values.contiguous(memory_format=torch.channels_last)
        x = F.relu(self.first_norm(self.first(x)))
        return self.blocks(F.max_pool2d(F.pad(x, (0, 1, 0, 1)), 3, 2))


STEMS = {"stages": ConvStem, "residual": ResidualStem}

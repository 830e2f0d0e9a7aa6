"""Local Clue Aggregator: 16 crops of a face become 16 clues that attend to one another.

FEALLM (arXiv 2505.13419), Eq 1 to 3. Ours: stride, normalisation and activation of the
convolutions, which the paper does not give; learned query, key and value maps of one head, after
its "learn and assign weights"; optional residual convolutions for the small member.

Letters: B faces, C crops, D_c width of a clue, D_t width of the language model.
"""

import torch
from torch import nn
from torch.nn import functional as F
from transformers.modeling_layers import GradientCheckpointingLayer


class ClueConv(nn.Conv2d):
    """A convolution of the LCA; its own class so that its Kaiming start is not mistaken."""


class ClueMap(nn.Linear):
    """A query, key or value map of the LCA; starts as the identity: clues attend by likeness."""


NORMS = {
    "group": lambda channels: nn.GroupNorm(8, channels),
    "batch": nn.BatchNorm2d,
    "none": lambda channels: nn.Identity(),
}
"""Normalisation after each convolution; without any, the convolutions have a bias."""


class ConvStage(nn.Module):
    """Halve the side with one convolution, then refine with `depth - 1` residual ones."""

    def __init__(self, in_channels: int, out_channels: int, depth: int, norm: str):
        super().__init__()
        make_norm, options = NORMS[norm], {"padding": 1, "bias": norm == "none"}
        self.reduce = ClueConv(in_channels, out_channels, 3, stride=2, **options)
        self.reduce_norm = make_norm(out_channels)
        self.refine = nn.ModuleList(
            ClueConv(out_channels, out_channels, 3, **options) for _ in range(depth - 1)
        )
        self.refine_norm = nn.ModuleList(make_norm(out_channels) for _ in range(depth - 1))

    def convolutions(self) -> list[tuple[ClueConv, nn.Module]]:
        """Return each convolution with the norm that follows it."""
        return [
            (self.reduce, self.reduce_norm),
            *zip(self.refine, self.refine_norm, strict=True),
        ]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.reduce_norm(self.reduce(x)))  # (n, out, h / 2, w / 2)
        for conv, norm in zip(self.refine, self.refine_norm, strict=True):
            x = F.relu(x + norm(conv(x)))
        return x


def conv_stages(channels: list[int], depths: list[int], norm: str) -> nn.Sequential:
    """Return the stages that turn RGB into `channels[-1]` features, each halving the side."""
    sizes = zip([3, *channels[:-1]], channels, depths, strict=True)
    return nn.Sequential(*(ConvStage(*size, norm) for size in sizes))


class LocalClueAggregator(GradientCheckpointingLayer):
    """Aggregate the local crops of a face into clues and one token.

    Args:
        num_crops: C.
        channels: output channels of each convolution stage; the last is D_c.
        hidden_size: D_t, the width of the local token.
        depths: convolutions in each stage.
        norm: a key of `NORMS`.
        crop_embedding: add to each clue which crop it comes from (ours). Without it the first
            attention is nearly uniform, and sixteen equal means hide what the single crops saw.
        dropout: dropout on the clues while training.
        attention_scale: None for the paper's scores, Q K^T / sqrt(D_c). A number (ours): cosines
            of queries and keys times it. Wide clues grow long while they learn, until each attends
            to itself alone and the attention tells nothing; cosines cannot grow.
    """

    def __init__(
        self,
        *,
        num_crops: int,
        channels: list[int],
        depths: list[int],
        hidden_size: int,
        crop_embedding: bool = False,
        dropout: float = 0.0,
        norm: str = "group",
        attention_scale: float | None = None,
    ):
        super().__init__()
        width = channels[-1]
        self.num_crops, self.attention_scale = num_crops, attention_scale
        self.stages = conv_stages(channels, depths, norm)
        self.crop_embedding = (
            nn.Parameter(torch.empty(num_crops, width)) if crop_embedding else None
        )
        self.dropout = nn.Dropout(dropout)
        self.query = ClueMap(width, width, bias=False)
        self.key = ClueMap(width, width, bias=False)
        self.value = ClueMap(width, width, bias=False)
        self.to_token = nn.Linear(num_crops * width, hidden_size)

    def forward(self, crops: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the attended clues, the local token and the attention among the clues.

        Args:
            crops: (B, C, 3, h, w), normalised as the vision tower's input.

        Returns:
            F_attn (B, C, D_c), F_local (B, 1, D_t), attention (B, C, C) whose rows sum to 1.

        Raises:
            ValueError: the number of crops is not C.
        """
        if crops.shape[1] != self.num_crops:
            raise ValueError(
                f"{crops.shape[1]} local crops were given; this model reads {self.num_crops}."
            )
        x = crops.flatten(0, 1).contiguous(memory_format=torch.channels_last)  # (B * C, 3, h, w)
        clues = (
            self.stages(x).mean((2, 3)).unflatten(0, crops.shape[:2])
        )  # R_local (B, C, D_c)   Eq 1
        if self.crop_embedding is not None:
            clues = clues + self.crop_embedding
        clues = self.dropout(clues)
        query, key, value = self.query(clues), self.key(clues), self.value(clues)
        scale = key.shape[-1] ** -0.5
        if self.attention_scale is not None:
            query, key = F.normalize(query, dim=-1), F.normalize(key, dim=-1)
            scale = self.attention_scale
        scores = query @ key.transpose(1, 2) * scale
        attention = scores.float().softmax(-1)  # (B, C, C)
        attended = attention.to(value.dtype) @ value  # F_attn (B, C, D_c)   Eq 2
        token = self.to_token(attended.flatten(1)).unsqueeze(1)  # F_local (B, 1, D_t)   Eq 3
        return attended, token, attention

"""Multi-scale deformable attention (Zhu et al. 2020) in pure PyTorch, over `F.grid_sample`.

Each query looks at a few learned points around its own place on every level instead of at all of
them. Parameter names are Deformable DETR's, so that transformers' module can be this one's oracle.
Coordinates and sampling stay in fp32 whatever the autocast: bf16 cannot place a point within a
pixel of a 24 x 24 map.
"""

import math

import torch
from torch import nn
from torch.nn import functional as F

Shape = tuple[int, int]


class SamplingOffsets(nn.Linear):
    """Where to look, relative to the query, in pixels of a level; starts as a star of rays."""

    def __init__(self, width: int, heads: int, levels: int, points: int, spread: list[float]):
        super().__init__(width, heads * levels * points * 2)
        self.heads, self.levels, self.points, self.spread = heads, levels, points, spread

    def starting_bias(self) -> torch.Tensor:
        """Head h looks along angle 2 pi h / H, point p at (p + 1) times its level's spread."""
        angle = torch.arange(self.heads, dtype=torch.float32) * (2 * math.pi / self.heads)
        ray = torch.stack([angle.cos(), angle.sin()], -1)
        ray = ray / ray.abs().max(-1, keepdim=True).values  # (H, 2) on the unit square
        distance = torch.arange(1, self.points + 1, dtype=torch.float32)
        spread = torch.tensor(self.spread)
        star = ray[:, None, None] * distance[:, None] * spread[:, None, None]  # (H, L, P, 2)
        return star.flatten()


class SamplingWeights(nn.Linear):
    """How much each sampled point counts; starts equal."""


class DeformableAttention(nn.Module):
    """Deformable cross- or self-attention of queries over one or several feature maps.

    Args:
        width: D, features of queries, values and result.
        heads: attention heads; must divide `width`.
        points: sampling points of a head on each level.
        shapes: (height, width) of each level; their sizes are fixed, as the tower's grid is.
        spread: factor on the starting offsets of every level (1: Deformable DETR's).
    """

    def __init__(
        self, *, width: int, heads: int, points: int, shapes: list[Shape], spread: float = 1.0
    ):
        super().__init__()
        if width % heads:
            raise ValueError(f"{width} features do not divide by {heads} heads.")
        self.heads, self.points, self.shapes = heads, points, shapes
        levels = len(shapes)
        self.sampling_offsets = SamplingOffsets(width, heads, levels, points, [spread] * levels)
        self.attention_weights = SamplingWeights(width, heads * levels * points)
        self.value_proj = nn.Linear(width, width)
        self.output_proj = nn.Linear(width, width)

    def forward(
        self, query: torch.Tensor, values: torch.Tensor, reference: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Attend.

        Args:
            query: (B, Q, D).
            values: (B, S, D), the levels row-major one after the other; S the sum of their sizes.
            reference: (Q, 2), each query's place as x y in [0, 1], the same for every level.

        Returns:
            The result (B, Q, D); the sampling points (B, Q, H, L, P, 2) as x y in [0, 1] of their
            level's map, possibly outside it (where the value is zero); their weights
            (B, Q, H, L, P), which sum to 1 over L and P.
        """
        batch, queries, width = query.shape
        sizes = [h * w for h, w in self.shapes]
        if values.shape[1] != sum(sizes):
            raise ValueError(f"{values.shape[1]} values for levels of {sizes}.")
        heads, levels, points = self.heads, len(self.shapes), self.points
        per_head = width // heads

        value = self.value_proj(values).view(batch, -1, heads, per_head)
        offsets = (
            self.sampling_offsets(query).float().view(batch, queries, heads, levels, points, 2)
        )
        weights = self.attention_weights(query).float().view(batch, queries, heads, levels * points)
        weights = weights.softmax(-1)
        side = torch.tensor(
            [[w, h] for h, w in self.shapes], device=query.device, dtype=torch.float32
        )
        where = (
            reference.float()[:, None, None, None] + offsets / side[:, None]
        )  # (B, Q, H, L, P, 2)

        sampled = []
        for level, (level_value, (height, width_)) in enumerate(
            zip(value.split(sizes, dim=1), self.shapes, strict=True)
        ):
            # (B, h*w, H, d) -> (B*H, d, h, w)
            field = level_value.permute(0, 2, 3, 1).reshape(batch * heads, per_head, height, width_)
            # (B, Q, H, P, 2) -> (B*H, Q, P, 2)
            grid = (2 * where[:, :, :, level] - 1).transpose(1, 2).flatten(0, 1)
            sampled.append(
                F.grid_sample(field.float(), grid, align_corners=False)
            )  # (B*H, d, Q, P)
        sampled = torch.stack(sampled, dim=-2).flatten(-2)  # (B*H, d, Q, L*P)
        mix = weights.transpose(1, 2).reshape(batch * heads, 1, queries, levels * points)
        out = (sampled * mix).sum(-1).view(batch, width, queries).transpose(1, 2)  # (B, Q, D)
        # other engines' linear maps (vLLM's on a CPU) read rows that lie together
        out = self.output_proj(out.to(query.dtype).contiguous())
        return out, where, weights.unflatten(-1, (levels, points))

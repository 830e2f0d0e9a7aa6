"""Multi-perspective Projector: deep features fused with shallow ones and with the local clues.

FEALLM (arXiv 2505.13419), Eq 4 to 7; MMFuser (arXiv 2410.11829) is its model for the shallow part.
Eq 8, the MLP into the language model, stays LLaVA's `multi_modal_projector`. Ours: the `identity`
residual, the layout of the clues as a small map, and a quarter of the usual starting offsets on
it, where they would put half of the points outside.

Letters: B faces, N patches, C crops, D_c width of a clue, D_v width of the vision tower.
"""

import torch
from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer

from feallm.deformable import DeformableAttention, Shape


def clue_map_shape(num_crops: int) -> Shape:
    """Return the most nearly square (rows, columns) for the clues: 16 -> (4, 4), 8 -> (2, 4)."""
    rows = max(r for r in range(1, int(num_crops**0.5) + 1) if num_crops % r == 0)
    return rows, num_crops // rows


def pixel_centres(side: int) -> torch.Tensor:
    """Return the (side^2, 2) x y centres of a row-major square grid, in [0, 1]."""
    line = (torch.arange(side, dtype=torch.float32) + 0.5) / side
    y, x = torch.meshgrid(line, line, indexing="ij")
    return torch.stack([x.flatten(), y.flatten()], -1)


class MultiPerspectiveProjector(GradientCheckpointingLayer):
    """Fuse the deep features of a face with its shallow features and its local clues.

    Args:
        width: D_v.
        grid_size: side of the tower's grid; N is its square.
        num_levels: number of shallow maps F_s; 0 leaves them out.
        num_crops: C; 0 leaves the clues out.
        clue_width: D_c.
        heads, points: of each deformable attention.
        residual: "paper" or "identity", see `FEALLMConfig.mpp_residual`.
    """

    def __init__(
        self,
        *,
        width: int,
        grid_size: int,
        num_levels: int,
        num_crops: int,
        clue_width: int,
        heads: int,
        points: int,
        residual: str,
    ):
        super().__init__()
        grid = (grid_size, grid_size)
        options = {"width": width, "heads": heads, "points": points}
        self.grid_size, self.residual = grid_size, residual
        self.has_shallow, self.has_local = num_levels > 0, num_crops > 0
        if self.has_shallow:
            self.shallow_query_norm = nn.LayerNorm(width, eps=1e-6)
            self.shallow_value_norm = nn.LayerNorm(width, eps=1e-6)
            self.shallow_attention = DeformableAttention(shapes=[grid] * num_levels, **options)
        if self.has_local:
            self.clue_proj = nn.Linear(clue_width, width)
            self.local_query_norm = nn.LayerNorm(width, eps=1e-6)
            self.local_value_norm = nn.LayerNorm(width, eps=1e-6)
            self.local_attention = DeformableAttention(
                shapes=[clue_map_shape(num_crops)], spread=0.25, **options
            )
            self.scale_local = nn.Parameter(torch.zeros(width))
        self.self_norm = nn.LayerNorm(width, eps=1e-6)
        self.self_attention = DeformableAttention(shapes=[grid], **options)
        self.scale_self = nn.Parameter(torch.zeros(width))
        if residual == "identity":
            self.scale_out = nn.Parameter(torch.zeros(width))

    def forward(
        self, deep: torch.Tensor, shallow: list[torch.Tensor], clues: torch.Tensor | None
    ) -> tuple[torch.Tensor, dict[str, tuple[torch.Tensor, torch.Tensor]]]:
        """Fuse.

        Args:
            deep: F_L (B, N, D_v).
            shallow: F_s, maps of (B, N, D_v), shallowest first.
            clues: F_attn (B, C, D_c), or None.

        Returns:
            F_m (B, N, D_v), and for each attention that ran ("shallow", "local", "self") its
            sampling points and weights (`DeformableAttention.forward`).
        """
        reference = pixel_centres(self.grid_size).to(deep.device)
        looks = {}
        fused = deep
        if self.has_shallow:
            query = self.shallow_query_norm(deep)
            value = self.shallow_value_norm(torch.cat(shallow, dim=1))
            fused, *looks["shallow"] = self.shallow_attention(query, value, reference)  # F_c   Eq 4
        if self.has_local:
            local = self.clue_proj(clues)  # F'_local (B, C, D_v)   Eq 5
            query, value = self.local_query_norm(fused), self.local_value_norm(local)
            seen, *looks["local"] = self.local_attention(query, value, reference)
            fused = fused + self.scale_local * seen  # F_f   Eq 6
        normed = self.self_norm(fused)
        seen, *looks["self"] = self.self_attention(normed, normed, reference)
        fused = fused + self.scale_self * seen  # F_m   Eq 7
        if self.residual == "identity":
            fused = deep + self.scale_out * fused
        return fused, {name: tuple(pair) for name, pair in looks.items()}

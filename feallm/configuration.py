"""The configuration of FEALLM: LLaVA's, plus the Local Clue Aggregator and the projector's fusion.

`FEALLMConfig()` is the paper's 7B. feallm-mini differs from it in numbers only.
"""

import math
from typing import Literal

from transformers import LlamaConfig, LlavaConfig

CROP_GROUPS = ("edge_half", "edge_three_quarters", "corner_half", "corner_three_quarters")
"""The four groups of local crops the paper's Figure 5 ablates."""

NORMS = ("group", "batch", "none")

STEMS = ("stages", "residual")


class FEALLMConfig(LlavaConfig):
    """Sizes and switches of a FEALLM; every field not listed here is `LlavaConfig`'s.

    Args:
        crop_groups: groups of local crops in use, any of `CROP_GROUPS`; four crops each.
        crop_size: side in pixels to which every crop is resized (ours; the paper gives none).
        lca_channels: output channels of the convolution stages; each halves the side. The last is
            the width of a clue. The paper has four stages of 64.
        lca_depths: convolutions in each stage; those after the first are residual (the paper: 1).
        lca_crop_embedding: tell the clues apart by a learned embedding (ours; see `lca`).
        lca_norm: after each convolution of the LCA: "group" (ours: a batch of one or two faces is
            no sample), "batch", or "none", where batch norms were folded into the convolutions.
        lca_attention_scale: None, or the number that turns the clues' scores into scaled cosines
            (ours; see `lca`).
        lca_dropout: dropout on the clues while training.
        vision_stem_channels: output channels of the convolution stages that make the vision tower's
            patches (ours; see `stem`); each halves the side, the last is the tower's width. Empty:
            CLIP's single convolution.
        vision_stem_depths: convolutions in each of these stages, or blocks of two if residual.
        vision_stem: "stages", as the LCA's, or "residual", as dlib's network of faces.
        vision_stem_norm: after each of its convolutions; as `lca_norm`.
        use_lca: off, there is no local token and nothing local in the fusion (ablation).
        use_mpp: off, the projector is LLaVA's: its MLP on the deep features (ablation).
        mpp_shallow: fuse shallow features into the deep ones (Eq 4; ablation).
        mpp_local: fuse the local clues into the deep features (Eq 5, 6; ablation).
        mpp_residual: "paper": F_c replaces F_L as in Eq 4. "identity": F_L + scale_out * fusion,
            scale_out starting at 0, so that a new model answers exactly as LLaVA did (ours).
        mpp_shallow_layers: indices of the vision tower's hidden states F_s (0: the embeddings).
        mpp_num_heads: heads of each deformable attention.
        mpp_num_points: sampling points of a head on each level.
        action_unit_thresholds: probability above which each of the twelve units counts as active.
        expression_sharpness: power of the expressions' probabilities, which makes them as sure as
            they are right (ours; `train.mini.thresholds` fits it and the next).
        expression_bias: added to the logarithms of those powers, so that each of the seven is said
            as often as it is there (vector scaling: Guo et al., arXiv 1706.04599).

    Raises:
        ValueError: a field is out of range or two fields contradict each other.
    """

    model_type = "feallm"

    image_token_index: int = 32000
    crop_groups: list[str] | tuple[str, ...] = CROP_GROUPS
    crop_size: int = 112
    lca_channels: list[int] | tuple[int, ...] = (64, 64, 64, 64)
    lca_depths: list[int] | tuple[int, ...] = (1, 1, 1, 1)
    lca_crop_embedding: bool = False
    lca_norm: str = "group"
    lca_dropout: float = 0.0
    lca_attention_scale: float | None = None
    vision_stem_channels: list[int] | tuple[int, ...] = ()
    vision_stem_depths: list[int] | tuple[int, ...] = ()
    vision_stem: Literal["stages", "residual"] = "stages"
    vision_stem_norm: str = "group"
    use_lca: bool = True
    use_mpp: bool = True
    mpp_shallow: bool = True
    mpp_local: bool = True
    mpp_residual: Literal["paper", "identity"] = "paper"
    mpp_shallow_layers: list[int] | tuple[int, ...] = (3, 8, 13, 18)
    mpp_num_heads: int = 16
    mpp_num_points: int = 4
    action_unit_thresholds: list[float] | tuple[float, ...] = (0.5,) * 12
    expression_sharpness: float = 1.0
    expression_bias: list[float] | tuple[float, ...] = (0.0,) * 7

    def __post_init__(self, **kwargs):
        if (
            self.text_config is None
        ):  # Vicuna-7B as LLaVA-1.5 extends it: 32,000 tokens + <image>, <pad>, padding
            self.text_config = LlamaConfig(
                vocab_size=32064,
                max_position_embeddings=4096,
                rms_norm_eps=1e-5,
                pad_token_id=32001,
            )
        super().__post_init__(**kwargs)
        self.crop_groups = list(self.crop_groups)
        self.lca_channels = list(self.lca_channels)
        self.lca_depths = list(self.lca_depths)
        self.vision_stem_channels = list(self.vision_stem_channels)
        self.vision_stem_depths = list(self.vision_stem_depths)
        self.mpp_shallow_layers = list(self.mpp_shallow_layers)
        self.action_unit_thresholds = list(self.action_unit_thresholds)
        self.expression_bias = list(self.expression_bias)
        self._check()

    def _check(self) -> None:
        thresholds = self.action_unit_thresholds
        if len(thresholds) != 12 or not all(0 < t < 1 for t in thresholds):
            raise ValueError("action_unit_thresholds must be twelve numbers between 0 and 1.")
        if self.expression_sharpness <= 0:
            raise ValueError("expression_sharpness must be above 0.")
        if len(self.expression_bias) != 7 or not all(map(math.isfinite, self.expression_bias)):
            raise ValueError("expression_bias must be seven finite numbers.")
        unknown = set(self.crop_groups) - set(CROP_GROUPS)
        if unknown or len(set(self.crop_groups)) != len(self.crop_groups):
            raise ValueError(
                f"crop_groups are {self.crop_groups}: each of {CROP_GROUPS} at most once."
            )
        if self.use_lca and not self.crop_groups:
            raise ValueError("use_lca needs at least one of the crop_groups.")
        for part in ("lca", "vision_stem"):
            channels, depths, norm = (
                getattr(self, f"{part}_{field}") for field in ("channels", "depths", "norm")
            )
            if norm not in NORMS:
                raise ValueError(f"{part}_norm is {norm!r}: one of {NORMS}.")
            if norm == "group" and any(width % 8 for width in channels):
                raise ValueError(f"{part}_channels {channels} must be multiples of 8 (GroupNorm).")
            if len(depths) != len(channels) or min(depths, default=1) < 1:
                raise ValueError(
                    f"{part}_depths {depths}: one number >= 1 for each of {part}_channels."
                )
        if self.crop_size < 2 ** len(self.lca_channels):
            raise ValueError(
                f"crop_size {self.crop_size} is too small for {len(self.lca_channels)} halvings."
            )
        if self.vision_stem not in STEMS:
            raise ValueError(f"vision_stem is {self.vision_stem!r}: one of {STEMS}.")
        vision = self.vision_config
        if vision.image_size % vision.patch_size:
            raise ValueError(
                f"image_size {vision.image_size} is no multiple of patch {vision.patch_size}."
            )
        stem = self.vision_stem_channels
        if stem and vision.patch_size != 2 ** len(stem):
            raise ValueError(
                f"{len(stem)} stages of vision_stem_channels make patches of {2 ** len(stem)} "
                f"pixels; patch_size is {vision.patch_size}."
            )
        if self.vision_stem == "residual" and sorted(set(stem)) != stem:
            raise ValueError(f"vision_stem_channels {stem} of a residual stem must grow.")
        if stem and stem[-1] != vision.hidden_size:
            raise ValueError(
                f"The last of vision_stem_channels is {stem[-1]}; the tower is "
                f"{vision.hidden_size} wide."
            )
        if vision.hidden_size % self.mpp_num_heads:
            raise ValueError(
                f"{vision.hidden_size} features do not divide by {self.mpp_num_heads} heads."
            )
        if not all(0 <= k <= vision.num_hidden_layers for k in self.mpp_shallow_layers):
            raise ValueError(
                f"mpp_shallow_layers {self.mpp_shallow_layers}: the tower has no such layer."
            )
        if self.use_mpp and not (self.mpp_shallow or (self.use_lca and self.mpp_local)):
            raise ValueError(
                "use_mpp has nothing to fuse: turn on mpp_shallow, or use_lca and mpp_local."
            )

    @property
    def num_crops(self) -> int:
        """C, the number of local crops."""
        return 4 * len(self.crop_groups) if self.use_lca else 0

    @property
    def grid_size(self) -> int:
        """Side of the tower's square grid of patches."""
        return self.vision_config.image_size // self.vision_config.patch_size

    @property
    def num_image_tokens(self) -> int:
        """K, the tokens a face takes in the prompt: its patches and, with the LCA, F_local."""
        return self.grid_size**2 + int(self.use_lca)

"""FEALLM: LLaVA-1.5 with a Local Clue Aggregator and a Multi-perspective Projector.

arXiv 2505.13419. The path of one face (letters: B faces, C crops, N patches, K image tokens):

    pixel_values (B, 3, S, S) -> vision tower -> hidden states: F_s (shallow), F_L (deep)
    pixel_values_local (B, C, 3, s, s) -> LCA -> F_attn (B, C, D_c), F_local (B, 1, D_t)
    MPP(F_L, F_s, F_attn) -> F_m (B, N, D_v) -> multi_modal_projector -> F_v (B, N, D_t)
    language model: F_v, then F_local (K = N + 1 tokens), then the text

Everything else is `LlavaForConditionalGeneration`: a plain LLaVA checkpoint loads into it.
"""

import torch
from torch import nn
from torch.nn import init
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForImageTextToText,
    LlavaForConditionalGeneration,
    LlavaModel,
)
from transformers.conversion_mapping import (
    get_checkpoint_conversion_mapping,
    register_checkpoint_conversion_mapping,
)
from transformers.modeling_outputs import BaseModelOutputWithPooling

from feallm.configuration import FEALLMConfig
from feallm.deformable import SamplingOffsets, SamplingWeights
from feallm.lca import ClueConv, ClueMap, LocalClueAggregator
from feallm.projector import MultiPerspectiveProjector
from feallm.stem import STEMS


def start_weights(module: nn.Module) -> bool:
    """Start the LCA's and the MPP's special layers; tell whether this module was one."""
    if isinstance(module, ClueConv):
        # transformers' normal(0.02) would shrink the pooled clue to a few thousandths
        init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if module.bias is not None:
            init.zeros_(module.bias)
    elif isinstance(module, ClueMap):
        with torch.no_grad():  # init.eye_ cannot start a weight on the meta device
            module.weight.copy_(torch.eye(len(module.weight)))
    elif isinstance(module, LocalClueAggregator):
        if module.crop_embedding is not None:
            # a clue's score for itself is about 3 above the others': half of the attention stays
            init.normal_(
                module.crop_embedding, std=(3 / module.crop_embedding.shape[1] ** 0.5) ** 0.5
            )
    elif isinstance(module, SamplingOffsets):
        init.zeros_(module.weight)
        with torch.no_grad():
            module.bias.copy_(module.starting_bias())
    elif isinstance(module, SamplingWeights):
        init.zeros_(module.weight)
        init.zeros_(module.bias)
    elif isinstance(module, MultiPerspectiveProjector):
        for name in ("scale_local", "scale_self", "scale_out"):
            if hasattr(module, name):
                init.zeros_(getattr(module, name))
    else:
        return False
    return True


class FEALLMModel(LlavaModel):
    """Vision tower, LCA, MPP, projector and language model, without the language head."""

    config: FEALLMConfig
    config_class = FEALLMConfig

    def __init__(self, config: FEALLMConfig):
        super().__init__(config)
        if config.vision_stem_channels:
            self.vision_tower.embeddings.patch_embedding = STEMS[config.vision_stem](
                channels=config.vision_stem_channels,
                depths=config.vision_stem_depths,
                norm=config.vision_stem_norm,
            )
        if config.use_lca:
            self.lca = LocalClueAggregator(
                num_crops=config.num_crops,
                channels=config.lca_channels,
                depths=config.lca_depths,
                hidden_size=config.text_config.hidden_size,
                crop_embedding=config.lca_crop_embedding,
                dropout=config.lca_dropout,
                norm=config.lca_norm,
                attention_scale=config.lca_attention_scale,
            )
        if config.use_mpp:
            self.mpp = MultiPerspectiveProjector(
                width=config.vision_config.hidden_size,
                grid_size=config.grid_size,
                num_levels=len(config.mpp_shallow_layers) if config.mpp_shallow else 0,
                num_crops=config.num_crops if config.mpp_local else 0,
                clue_width=config.lca_channels[-1],
                heads=config.mpp_num_heads,
                points=config.mpp_num_points,
                residual=config.mpp_residual,
            )
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        if not start_weights(module):
            super()._init_weights(module)

    def deep_and_shallow(
        self, pixel_values: torch.Tensor
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Return the vision tower's F_L (B, N, D_v) and F_s, shallowest first, each (B, N, D_v)."""
        hidden = self.vision_tower(pixel_values, output_hidden_states=True).hidden_states
        patches = [h[:, 1:] for h in hidden]  # the class token is dropped: N patches
        shallow = [patches[k] for k in self.config.mpp_shallow_layers]
        return patches[self.config.vision_feature_layer], shallow

    def fuse(
        self, pixel_values: torch.Tensor, pixel_values_local: torch.Tensor | None
    ) -> dict[str, torch.Tensor | dict]:
        """Run the vision tower, the LCA and the MPP, and keep what explains them.

        Args:
            pixel_values: (B, 3, S, S).
            pixel_values_local: (B, C, 3, s, s); not needed when the LCA is off.

        Returns:
            `features` F_m (B, N, D_v), `deep` F_L (B, N, D_v), `clues` F_attn (B, C, D_c),
            `token` F_local (B, 1, D_t), `attention` (B, C, C), and `looks`: the MPP's sampling
            points and weights. What a switched-off part would give is None.

        Raises:
            ValueError: the LCA is on and no local crops are given.
        """
        config = self.config
        deep, shallow = self.deep_and_shallow(pixel_values)
        clues = token = attention = None
        if config.use_lca:
            if pixel_values_local is None:
                raise ValueError("This model reads local crops: give pixel_values_local.")
            clues, token, attention = self.lca(pixel_values_local)
        features, looks = deep, {}
        if config.use_mpp:
            features, looks = self.mpp(deep, shallow, clues)
        return {
            "features": features,
            "deep": deep,
            "clues": clues,
            "token": token,
            "attention": attention,
            "looks": looks,
        }

    def image_tokens(self, fused: dict) -> torch.Tensor:
        """Return the image tokens of `fuse`'s result: F_v, then F_local (B, K, D_t)."""
        tokens = self.multi_modal_projector(fused["features"])  # F_v (B, N, D_t)   Eq 8
        if fused["token"] is not None:
            tokens = torch.cat([tokens, fused["token"].to(tokens.dtype)], dim=1)  # (B, N + 1, D_t)
        return tokens

    def get_image_features(
        self, pixel_values: torch.Tensor, pixel_values_local: torch.Tensor | None = None, **kwargs
    ) -> BaseModelOutputWithPooling:
        """Return the image tokens of each face as `pooler_output`: a list of B tensors (K, D_t)."""
        fused = self.fuse(pixel_values, pixel_values_local)
        tokens = self.image_tokens(fused)
        return BaseModelOutputWithPooling(
            last_hidden_state=fused["features"],
            pooler_output=list(tokens),
            attentions=fused["attention"],
        )

    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        pixel_values: torch.Tensor | None = None,
        pixel_values_local: torch.Tensor | None = None,
        mm_encoder_outputs: dict[str, BaseModelOutputWithPooling] | None = None,
        **kwargs,
    ):
        """`LlavaModel.forward`, with the local crops beside the pixels."""
        encoded = mm_encoder_outputs or {}
        if pixel_values is not None and encoded.get("image") is None:
            encoded = {"image": self.get_image_features(pixel_values, pixel_values_local)}
        return super().forward(input_ids=input_ids, mm_encoder_outputs=encoded, **kwargs)


class FEALLMForConditionalGeneration(LlavaForConditionalGeneration):
    """FEALLM with its language head; `generate` takes `pixel_values` and `pixel_values_local`."""

    config: FEALLMConfig
    config_class = FEALLMConfig

    def __init__(self, config: FEALLMConfig):
        super(LlavaForConditionalGeneration, self).__init__(config)
        self.model = FEALLMModel(config)
        self.lm_head = nn.Linear(
            config.text_config.hidden_size, config.text_config.vocab_size, bias=False
        )
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        if not start_weights(module):
            super()._init_weights(module)

    def get_image_features(
        self, pixel_values: torch.Tensor, pixel_values_local: torch.Tensor | None = None, **kwargs
    ) -> BaseModelOutputWithPooling:
        """See `FEALLMModel.get_image_features`."""
        return self.model.get_image_features(pixel_values, pixel_values_local, **kwargs)

    # generate() reads this signature to learn that the crops are an input
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        pixel_values: torch.Tensor | None = None,
        pixel_values_local: torch.Tensor | None = None,
        mm_encoder_outputs: dict[str, BaseModelOutputWithPooling] | None = None,
        **kwargs,
    ):
        """`LlavaForConditionalGeneration.forward`, with the local crops beside the pixels."""
        return super().forward(
            input_ids=input_ids,
            pixel_values=pixel_values,
            pixel_values_local=pixel_values_local,
            mm_encoder_outputs=mm_encoder_outputs,
            **kwargs,
        )


def register() -> None:
    """Make `AutoConfig` and `AutoModel` know FEALLM, and LLaVA's old weight names load into it."""
    AutoConfig.register("feallm", FEALLMConfig, exist_ok=True)
    AutoModel.register(FEALLMConfig, FEALLMModel, exist_ok=True)
    AutoModelForImageTextToText.register(
        FEALLMConfig, FEALLMForConditionalGeneration, exist_ok=True
    )
    for ours, theirs in (("feallm", "llava"), ("FEALLMModel", "LlavaModel")):
        register_checkpoint_conversion_mapping(
            ours, get_checkpoint_conversion_mapping(theirs), overwrite=True
        )

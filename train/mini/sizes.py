"""The sizes of feallm-mini: the 7B's architecture in numbers that two CPU cores can carry."""

import torch
from transformers import CLIPVisionConfig, LlamaConfig

from feallm.configuration import FEALLMConfig

MEAN = (0.5, 0.5, 0.5)
STD = (0.25, 0.25, 0.25)
"""Normalisation of the mini's pixels; the 7B keeps CLIP's."""

PRETRAINED_STEM = {
    "vision_stem": "residual",
    "vision_stem_channels": (32, 64, 128, 256),
    "vision_stem_depths": (3, 4, 3, 3),
}
"""Fields of `FEALLMConfig` for a tower that starts from dlib's network (`pretrained`)."""


def fields_of(state: dict[str, torch.Tensor]) -> dict:
    """Return the fields of `FEALLMConfig` that trained eyes need: their stem, their MPP's residual.

    Args:
        state: what `train.mini.vision` leaves in vision.pt; empty for none.
    """
    fields = {}
    if "vision_tower.embeddings.patch_embedding.first.weight" in state:
        fields |= PRETRAINED_STEM
    if "mpp.scale_out" in state:
        fields["mpp_residual"] = "identity"
    return fields


def mini_config(vocab_size: int, **changes) -> FEALLMConfig:
    """Return the mini's configuration; `changes` are fields of `FEALLMConfig` (ablations).

    Small convolutions make the tower's patches (`feallm.stem`): with one convolution each, as CLIP
    has, it learns far less from so few faces. Its last hidden state is its deep feature: unlike
    CLIP's, it was not trained for a class token. Special tokens are 0 <unk>, 1 <s>, 2 </s>, 3
    <image>, 4 <pad>.
    """
    fields = {
        "vision_config": CLIPVisionConfig(
            image_size=96,
            patch_size=16,
            hidden_size=256,
            intermediate_size=512,
            num_hidden_layers=4,
            num_attention_heads=8,
            projection_dim=256,
        ),
        "text_config": LlamaConfig(
            vocab_size=vocab_size,
            hidden_size=256,
            intermediate_size=704,
            num_hidden_layers=4,
            num_attention_heads=8,
            num_key_value_heads=8,
            max_position_embeddings=2048,
            rms_norm_eps=1e-5,
            bos_token_id=1,
            eos_token_id=2,
            pad_token_id=4,
            tie_word_embeddings=True,
        ),
        "image_token_index": 3,
        "image_seq_length": 37,
        "vision_feature_layer": -1,
        "tie_word_embeddings": True,
        "vision_stem_channels": (32, 96, 192, 256),
        "vision_stem_depths": (1, 2, 3, 3),
        "vision_stem_norm": "none",  # the vision stage trains batch norms and folds them
        "crop_size": 32,
        "lca_channels": (48, 96, 192, 320),
        "lca_depths": (2, 2, 2, 2),
        "lca_crop_embedding": True,
        "lca_norm": "none",  # as vision_stem_norm
        "lca_dropout": 0.1,
        "lca_attention_scale": 4.0,
        "mpp_shallow_layers": (0, 1, 2, 3),
        "mpp_num_heads": 8,
        "mpp_num_points": 4,
    }
    return FEALLMConfig(**(fields | changes))

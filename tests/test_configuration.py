"""The configuration: the paper's 7B by default, and contradictions stop at once."""

import pytest
from conftest import tiny_config

from feallm import FEALLMConfig


def test_default_is_the_papers_7b():
    config = FEALLMConfig()
    assert config.num_image_tokens == 577
    assert config.grid_size == 24
    assert config.num_crops == 16
    assert config.vision_config.hidden_size == 1024
    assert config.text_config.hidden_size == 4096
    assert config.lca_channels == [64, 64, 64, 64]
    assert config.mpp_shallow_layers == [3, 8, 13, 18]
    assert config.vision_feature_layer == -2


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"crop_groups": ["middle"]}, "crop_groups"),
        ({"crop_groups": []}, "at least one"),
        ({"lca_channels": (12, 16, 16, 16)}, "multiples of 8"),
        ({"crop_size": 8}, "too small"),
        ({"mpp_num_heads": 5}, "do not divide"),
        ({"mpp_shallow_layers": (1, 9)}, "no such layer"),
        ({"mpp_shallow": False, "mpp_local": False}, "nothing to fuse"),
        ({"mpp_shallow": False, "use_lca": False}, "nothing to fuse"),
        ({"lca_depths": (1, 1)}, "lca_depths"),
        ({"action_unit_thresholds": (0.5,)}, "twelve"),
        ({"expression_bias": (0.5,)}, "seven"),
        ({"expression_bias": (0.0,) * 6 + (float("nan"),)}, "finite"),
    ],
)
def test_a_contradiction_is_a_sentence(changes, sentence):
    with pytest.raises(ValueError, match=sentence):
        tiny_config(**changes)


def test_round_trip_through_json(tmp_path):
    config = tiny_config(crop_groups=["edge_half", "corner_half"], mpp_residual="identity")
    config.save_pretrained(tmp_path)
    again = FEALLMConfig.from_pretrained(tmp_path)
    assert again.crop_groups == ["edge_half", "corner_half"]
    assert again.num_crops == 8
    assert again.mpp_residual == "identity"
    assert again.vision_config.patch_size == 8

"""The convolutional stem: patches from small convolutions, in a tower that is otherwise CLIP's."""

import pytest
import torch
from conftest import tiny_config
from torch.nn import functional as F

from feallm import FEALLMConfig, FEALLMForConditionalGeneration
from feallm.stem import ConvStem, ResidualStem

STEM = {"vision_stem_channels": (8, 16, 32), "vision_stem_depths": (1, 2, 1)}


def test_equals_its_convolutions_written_out():
    stem = ConvStem([8, 16], [1, 2], norm="none").eval()
    pixels = torch.randn(2, 3, 16, 16)
    first, second = stem.stages
    x = F.conv2d(pixels, first.reduce.weight, first.reduce.bias, stride=2, padding=1).relu()
    x = F.conv2d(x, second.reduce.weight, second.reduce.bias, stride=2, padding=1).relu()
    refine = second.refine[0]
    x = (x + F.conv2d(x, refine.weight, refine.bias, padding=1)).relu()
    torch.testing.assert_close(stem(pixels), x, atol=1e-5, rtol=1e-4)
    assert x.shape == (2, 16, 4, 4)


def test_a_residual_stem_equals_dlibs_layers_written_out():
    stem = ResidualStem([8, 16], [1, 2], norm="none").eval()
    pixels = torch.randn(2, 3, 16, 16)
    x = F.conv2d(pixels, stem.first.weight, stem.first.bias, padding=2).relu()
    x = F.max_pool2d(x, 3, 2, ceil_mode=True)  # the last window reaches beyond the picture

    def branch(block, x, stride):
        if stride == 2:  # dlib pads none: the last row and column are windows of the picture alone
            x = torch.cat([x, torch.zeros_like(x[:, :, :1])], 2)
            x = torch.cat([x, torch.zeros_like(x[..., :1])], 3)
        y = F.conv2d(x, block.conv1.weight, block.conv1.bias, stride, padding=2 - stride).relu()
        return F.conv2d(y, block.conv2.weight, block.conv2.bias, padding=1)

    first, halving, last = stem.blocks
    x = (x + branch(first, x, 1)).relu()
    shortcut = torch.cat([F.avg_pool2d(x, 2), torch.zeros(2, 8, 4, 4)], 1)
    x = (shortcut + branch(halving, x, 2)).relu()
    x = (x + branch(last, x, 1)).relu()
    torch.testing.assert_close(stem(pixels), x, atol=1e-5, rtol=1e-4)
    assert x.shape == (2, 16, 4, 4)


def test_its_patches_stand_where_clips_would():
    config = tiny_config(**STEM, vision_stem_norm="none")
    model = FEALLMForConditionalGeneration(config).model.eval()
    pixels = torch.zeros(1, 3, 32, 32)
    lit = pixels.clone()
    lit[:, :, :8, 24:] = 1.0  # the patch in the first row, fourth column
    stem = model.vision_tower.embeddings.patch_embedding
    changed = (stem(lit) - stem(pixels)).abs().sum(1)[0]  # (4, 4)
    assert changed.argmax() == 3
    assert changed[3:].sum() == 0  # far from it nothing changes


@pytest.mark.parametrize("kind", ["stages", "residual"])
@pytest.mark.parametrize("norm", ["group", "batch", "none"])
def test_a_model_with_a_stem_is_saved_and_opened(tmp_path, norm, kind):
    config = tiny_config(**STEM, vision_stem_norm=norm, vision_stem=kind)
    model = FEALLMForConditionalGeneration(config).eval()
    model.save_pretrained(tmp_path)
    again, info = FEALLMForConditionalGeneration.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    pixels = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        (deep, shallow), (other, _) = (
            m.model.deep_and_shallow(pixels) for m in (model, again.eval())
        )
    torch.testing.assert_close(deep, other)
    assert deep.shape == shallow[0].shape == (2, 16, 32)


def test_pixels_get_the_stems_dtype():
    model = FEALLMForConditionalGeneration(tiny_config(**STEM)).to(torch.bfloat16).model
    assert model.deep_and_shallow(torch.randn(1, 3, 32, 32))[0].dtype == torch.bfloat16


def test_the_papers_model_has_none():
    assert FEALLMConfig().vision_stem_channels == []


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"vision_stem_channels": (8, 32), "vision_stem_depths": (1, 1)},
            "patches of 4 pixels; patch_size is 8",
        ),
        ({"vision_stem_channels": (8, 16, 24)}, "is 24; the tower is 32 wide"),
        ({"vision_stem_depths": (1, 1)}, "vision_stem_depths"),
        ({"vision_stem_depths": (1, 0, 1)}, "vision_stem_depths"),
        ({"vision_stem": "dense"}, "vision_stem is 'dense'"),
        ({"vision_stem": "residual", "vision_stem_channels": (16, 16, 32)}, "must grow"),
        ({"vision_stem_norm": "layer"}, "vision_stem_norm"),
        ({"vision_stem_channels": (8, 12, 32)}, "multiples of 8"),
    ],
)
def test_a_contradiction_is_a_sentence(changes, sentence):
    with pytest.raises(ValueError, match=sentence):
        tiny_config(**(STEM | changes))

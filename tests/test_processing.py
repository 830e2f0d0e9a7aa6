"""The processor: the same pixels for tower and crops, and a round trip through a folder."""

import torch
from PIL import Image
from transformers import AutoProcessor

from feallm import FEALLMProcessor
from feallm.predictor import MINI


def test_saved_and_loaded_it_is_the_same(tmp_path):
    processor = FEALLMProcessor.from_pretrained(MINI)
    processor.save_pretrained(tmp_path)
    again = AutoProcessor.from_pretrained(tmp_path)
    assert isinstance(again, FEALLMProcessor)
    for name in ("patch_size", "crop_size", "crop_groups", "num_additional_image_tokens"):
        assert getattr(again, name) == getattr(processor, name)
    assert again.num_image_tokens == processor.num_image_tokens


def test_placeholders_match_the_model(predictor):
    config = predictor.model.config
    assert predictor.processor.num_image_tokens == config.num_image_tokens
    inputs = predictor.processor.faces([Image.new("RGB", (50, 50))] * 2)
    size = config.vision_config.image_size
    assert inputs["pixel_values"].shape == (2, 3, size, size)
    crop = config.crop_size
    assert inputs["pixel_values_local"].shape == (2, 16, 3, crop, crop)


def test_the_standard_call_gives_the_same_pixels(predictor):
    processor = predictor.processor
    face = Image.effect_noise((processor.face_size,) * 2, 60).convert("RGB")
    ours = processor.faces([face])
    theirs = processor(images=face, text="USER: <image>\nWhy? ASSISTANT:", return_tensors="pt")
    torch.testing.assert_close(theirs["pixel_values"], ours["pixel_values"], atol=1e-5, rtol=0)
    torch.testing.assert_close(
        theirs["pixel_values_local"], ours["pixel_values_local"], atol=1e-5, rtol=0
    )
    image = processor.image_token_id
    assert int((theirs["input_ids"] == image).sum()) == processor.num_image_tokens
    nested = processor(images=[[face]], text="USER: <image>\nWhy?", return_tensors="pt")
    torch.testing.assert_close(nested["pixel_values"], theirs["pixel_values"])  # as chats give it

"""The processor: the same pixels for tower and crops, and a round trip through a folder."""

from pathlib import Path

import pytest
import torch
from layouts import write_llava
from PIL import Image
from transformers import AutoProcessor

from feallm import FEALLMProcessor
from feallm.conversation import SYSTEM_PROMPT
from feallm.loading import config_of, processor_of
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


def llamas(folder: Path) -> FEALLMProcessor:
    """A processor with a sentencepiece tokenizer of Llama's kind, as LLaVA-1.5's is."""
    llava = write_llava(folder / "llava")
    return processor_of(llava, config_of(llava))


@pytest.mark.parametrize("make", [lambda _: FEALLMProcessor.from_pretrained(MINI), llamas])
@pytest.mark.parametrize("turns", [1, 3])
def test_the_template_for_servers_gives_our_own_ids(make, turns, tmp_path):
    make(tmp_path).save_pretrained(tmp_path / "saved")
    processor = FEALLMProcessor.from_pretrained(tmp_path / "saved")
    said = ["What emotion is this?", "Happiness. AU12, a smile.", "Pourquoi? Ça va?"][:turns]
    roles = ("user", "assistant", "user")
    talk = [{"role": r, "content": text} for r, text in zip(roles, said, strict=False)]
    parts = [{"role": m["role"], "content": [{"type": "text", "text": m["content"]}]} for m in talk]
    face = Image.new("RGB", (processor.face_size,) * 2, "grey")
    parts[0]["content"].insert(0, {"type": "image", "image": face})
    ours = processor.conversation(talk)[0]
    system = [{"role": "system", "content": SYSTEM_PROMPT}]
    for messages in (parts, parts[:1] + talk[1:], system + parts):
        served = processor.apply_chat_template(
            messages, tokenize=True, return_dict=True, return_tensors="pt"
        )
        assert served["input_ids"][0].tolist() == ours
        assert served["pixel_values_local"].shape[:2] == (1, 16)

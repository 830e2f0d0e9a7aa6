"""FEALLMProcessor: an aligned face becomes pixels and local crops, a conversation becomes ids."""

import numpy as np
import torch
from PIL import Image
from transformers import AutoProcessor, BatchFeature, LlavaProcessor
from transformers.image_utils import load_images, make_flat_list_of_images

from feallm.configuration import CROP_GROUPS, FEALLMConfig
from feallm.conversation import CHAT_TEMPLATE, Message, encode
from feallm.crops import cut_crops


class FEALLMProcessor(LlavaProcessor):
    """LLaVA's processor, plus the local crops and our conversation.

    Args:
        image_processor, tokenizer, patch_size, vision_feature_select_strategy, image_token: as in
            `LlavaProcessor`.
        chat_template: for servers; our own path is `conversation`.
        num_additional_image_tokens: image tokens beside the patches; 2 for the tower's class
            token (dropped again) and F_local, 1 when the LCA is off.
        crop_groups, crop_size: as in `FEALLMConfig`.
        greyscale: take the colour out of every face first.
    """

    # transformers saves the arguments it finds in this signature: each must be listed by name
    def __init__(
        self,
        image_processor=None,
        tokenizer=None,
        patch_size=None,
        vision_feature_select_strategy="default",
        chat_template=CHAT_TEMPLATE,
        image_token="<image>",
        num_additional_image_tokens=2,
        crop_groups=CROP_GROUPS,
        crop_size=112,
        greyscale=False,
        **kwargs,
    ):
        self.crop_groups, self.crop_size, self.greyscale = list(crop_groups), crop_size, greyscale
        super().__init__(
            image_processor,
            tokenizer,
            patch_size=patch_size,
            vision_feature_select_strategy=vision_feature_select_strategy,
            chat_template=chat_template,
            image_token=image_token,
            num_additional_image_tokens=num_additional_image_tokens,
            **kwargs,
        )

    @classmethod
    def for_config(
        cls, config: FEALLMConfig, image_processor, tokenizer, greyscale: bool = False
    ) -> "FEALLMProcessor":
        """Return the processor that fits a model's configuration."""
        return cls(
            image_processor,
            tokenizer,
            patch_size=config.vision_config.patch_size,
            vision_feature_select_strategy=config.vision_feature_select_strategy,
            num_additional_image_tokens=1 + int(config.use_lca),
            crop_groups=config.crop_groups if config.use_lca else [],
            crop_size=config.crop_size,
            greyscale=greyscale,
        )

    @property
    def face_size(self) -> int:
        """Side in pixels at which a face should be rendered for this model."""
        return self.image_processor.crop_size["height"]

    @property
    def num_image_tokens(self) -> int:
        """K, the placeholders of one face."""
        return (self.face_size // self.patch_size) ** 2 + self.num_additional_image_tokens - 1

    def faces(self, faces: list[Image.Image]) -> BatchFeature:
        """Turn B aligned square faces into `pixel_values` and `pixel_values_local`.

        A face of another size than `face_size` is resized first, so that the tower and the crops
        see the same pixels.
        """
        size = self.face_size
        faces = [self._shaded(f) for f in faces]
        faces = [
            f if f.size == (size, size) else f.resize((size, size), Image.Resampling.BICUBIC)
            for f in faces
        ]
        array = np.stack([np.asarray(f.convert("RGB"), np.float32) for f in faces]) / 255
        mean, std = (
            np.array(getattr(self.image_processor, n), np.float32)
            for n in ("image_mean", "image_std")
        )
        pixels = (
            torch.from_numpy((array - mean) / std).permute(0, 3, 1, 2).contiguous()
        )  # (B, 3, S, S)
        data = {"pixel_values": pixels}
        if self.crop_groups:
            data["pixel_values_local"] = cut_crops(pixels, self.crop_groups, self.crop_size)
        return BatchFeature(data)

    def _shaded(self, face: Image.Image) -> Image.Image:
        return face.convert("L" if self.greyscale else "RGB").convert("RGB")

    def conversation(self, messages: list[Message]) -> tuple[list[int], list[int]]:
        """Return `conversation.encode` of the messages with this model's placeholders."""
        return encode(messages, self.tokenizer, self.num_image_tokens)

    def __call__(self, images=None, text=None, **kwargs) -> BatchFeature:
        """`LlavaProcessor.__call__` with `pixel_values_local` added; images are aligned faces."""
        if images is not None:
            images = make_flat_list_of_images(load_images(images))  # servers give addresses, nested
            images = [self._shaded(i) for i in images]
        inputs = super().__call__(images=images, text=text, **kwargs)
        if images is not None and self.crop_groups:
            inputs["pixel_values_local"] = cut_crops(
                inputs["pixel_values"], self.crop_groups, self.crop_size
            )
        return inputs


def register() -> None:
    """Make `AutoProcessor` know FEALLM."""
    AutoProcessor.register(FEALLMConfig, FEALLMProcessor, exist_ok=True)

"""Trained eyes: all of a mini but its language model."""

from pathlib import Path

import torch

from feallm.modeling import FEALLMForConditionalGeneration

EYES = "task.pt or vision.pt of train.mini.vision, or a mini's folder"


def trained_eyes(path: Path) -> dict[str, torch.Tensor]:
    """Return the weights that a run of `train.mini.vision` left, or those of a mini's eyes."""
    if not path.is_dir():
        return torch.load(path, weights_only=True)
    mini = FEALLMForConditionalGeneration.from_pretrained(path, dtype=torch.float32)
    weights = mini.model.state_dict()
    return {k: v for k, v in weights.items() if not k.startswith("language_model.")}

"""What a stage is: a YAML file, read into one typed object."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import yaml

from train.mini.instruct import KINDS
from train.parts import Lora


@dataclass(frozen=True, kw_only=True)
class FaceOptions:
    """How conversations are written about packed faces (`--packs`)."""

    rare_power: float = 0.35
    """Faces are drawn with their expression's frequency to the minus this."""
    strength: float = 1.0
    """Of the augmentation (`train.mini.faces.Augment`)."""
    kinds: str = KINDS
    """Kinds of turns (`train.mini.instruct`); an ablation leaves some out."""
    told_share: float = 0.0
    """Share of conversations whose facts are told instead of seen, so that texts keep to them."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One stage. An unknown key in the YAML file fails."""

    learning_rates: dict[str, float]
    """Module path -> its learning rate; the modules of this table are what is trained."""
    lora: Lora | None = None
    """LoRA in the language model, trained beside them."""
    max_steps: int = -1
    """Optimizer steps; -1: by `epochs`."""
    epochs: float = 1
    """Passes over the rows, where `max_steps` is not given."""
    batch_size: int = 64
    """Rows of an optimizer step, over all processes."""
    micro_batch_size: int | None = None
    """Rows a process reads at once; by default its whole share of the step."""
    warmup_steps: float = 50
    """Of linear warm-up before the cosine decay; below 1, a share of all steps."""
    weight_decay: float = 0.0
    """AdamW's, on everything trained."""
    layout: Literal["v1", "plain"] = "v1"
    """Of the text: Vicuna's conversation, or a picture and its caption alone (LLaVA's stage 1)."""
    max_length: int = 2048
    """Tokens after which a row is cut."""
    length_power: float = 0.0
    """An answer counts by its length to the power of 1 minus this: 0 weighs all tokens alike, as
    LLaVA does, 1 all answers, so that one word decides as much as a paragraph."""
    gradient_checkpointing: bool = False
    """Compute activations again in the backward pass instead of keeping them."""
    workers: int = 0
    """Processes that open pictures, for each training process."""
    faces: FaceOptions = FaceOptions()
    """Of packed faces."""
    logging_steps: int = 10
    """Steps between logged figures."""
    save_steps: int = 200
    """Steps between checkpoints."""
    sample_steps: int = 0
    """Steps between samples of what the model answers; 0: none."""
    seed: int = 0
    """Of the order, the augmentation and the texts."""


def read_config(path: Path) -> TrainConfig:
    """Return the stage a YAML file describes.

    Raises:
        TypeError: a key is unknown or missing.
    """
    fields = yaml.safe_load(path.read_text(encoding="utf-8"))
    for name, kind in (("lora", Lora), ("faces", FaceOptions)):
        if name in fields:
            fields[name] = kind(**fields[name])
    return TrainConfig(**fields)


def step_division(config: TrainConfig, processes: int) -> tuple[int, int]:
    """Return how many rows a process reads at once, and how many times in a step.

    Raises:
        ValueError: the step's rows cannot be divided so.
    """
    micro = config.micro_batch_size or max(1, config.batch_size // processes)
    times, rest = divmod(config.batch_size, micro * processes)
    if rest or not times:
        raise ValueError(
            f"batch_size {config.batch_size} is no multiple of {processes} processes reading "
            f"{micro} rows at once."
        )
    return micro, times

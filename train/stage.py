"""What a stage is: a YAML file, read into one typed object."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import yaml

from train.mini.instruct import KINDS
from train.parts import Lora, StageError


@dataclass(frozen=True, kw_only=True)
class FaceOptions:
    """How conversations are written about packed faces (`--packs`)."""

    rare_power: float = 0.35
    """Faces are drawn with their expression's frequency to the minus this."""
    as_met: float = 0.0
    """How far ExpW's faces are drawn as often as people meet their expressions, 0 to 1."""
    strength: float = 1.0
    """Of the augmentation (`train.mini.faces.Augment`)."""
    kinds: str = KINDS
    """Kinds of turns (`train.mini.instruct`); an ablation leaves some out."""
    decision_weight: float = 0.0
    """Of `train.mini.instruct.decision_loss`, beside the loss of the texts."""
    start_share: float = 0.0
    """Share of what the model reads of a face before the stage in the votes of that loss: a stage
    that teaches other things does not forget what it knew."""
    local_hidden: float = 0.0
    """Share of faces whose local token is hidden (`train.hiding`), so that the MPP is heard."""
    told_share: float = 0.0
    """Share of conversations whose facts are told instead of seen, so that texts keep to them."""
    told_turns: int = 3
    """Questions that may follow on what is told, at most."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One stage. An unknown key in the YAML file fails."""

    learning_rates: dict[str, float]
    """Module path -> its learning rate; the modules of this table are what is trained."""
    architecture: dict = field(default_factory=dict)
    """Fields of `FEALLMConfig` other than the paper's, for a model started from LLaVA."""
    lora: Lora | None = None
    """LoRA in the language model, trained beside them."""
    max_steps: int = -1
    """Optimizer steps; -1: by `epochs`."""
    epochs: float = 1
    """Passes over the rows, where `max_steps` is not given."""
    batch_size: int = 64
    """Rows of an optimizer step, over all processes."""
    micro_batch_size: int | None = None
    """Rows a process reads at once, at most; by default its whole share of the step."""
    warmup_steps: float = 50
    """Of linear warm-up before the cosine decay; below 1, a share of all steps."""
    weight_decay: float = 0.0
    """AdamW's, on everything trained."""
    beta2: float = 0.98
    """AdamW's memory of the squared gradients."""
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

    def __post_init__(self):
        if self.layout not in ("v1", "plain"):
            raise StageError(f"layout is {self.layout!r}; it must be v1 or plain.")
        if self.max_steps < 0 and self.epochs <= 0:
            raise StageError("Give max_steps, or epochs above 0.")
        if self.faces.start_share and not self.faces.decision_weight:
            raise StageError("start_share has a part in decision_weight's loss: give both.")


def read_config(path: Path) -> TrainConfig:
    """Return the stage a YAML file describes.

    Raises:
        StageError: it is not there or no YAML, or a key is unknown, missing or of another kind.
    """
    try:
        fields = yaml.safe_load(path.read_text(encoding="utf-8"))
        for table in (fields.get("learning_rates"), fields.get("lora")):
            for name, value in (table or {}).items():
                table[name] = float(value) if isinstance(value, str) else value  # 2e-4 is a text
        for name, kind in (("lora", Lora), ("faces", FaceOptions)):
            if fields.get(name) is not None:
                fields[name] = kind(**fields[name])
        return TrainConfig(**fields)
    except (OSError, yaml.YAMLError, TypeError, AttributeError, ValueError) as problem:
        raise StageError(f"{path}: {problem}") from problem


def step_division(config: TrainConfig, processes: int) -> tuple[int, int]:
    """Return how many rows a process reads at once, and how many times in a step.

    Raises:
        StageError: the step's rows cannot be divided so.
    """
    share = max(1, config.batch_size // processes)
    micro = min(config.micro_batch_size or share, share)
    times, rest = divmod(config.batch_size, micro * processes)
    if rest or not times:
        raise StageError(
            f"batch_size {config.batch_size} is no multiple of {processes} processes reading "
            f"{micro} rows at once."
        )
    return micro, times

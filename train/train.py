"""Train FEALLM's language stages: one loop, and a YAML file for each stage.

Run as:

    python -m train.train train/configs/mini_align.yaml --packs PACKS --model START --out RUN

A stage is data: which modules learn, and how fast. Everything not named stays frozen. Re-run the
same command to resume after a stop.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import torch
import yaml
from torch.nn import functional as F
from torch.utils.data import WeightedRandomSampler
from transformers import Trainer, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

from feallm import FEALLMForConditionalGeneration, FEALLMProcessor
from feallm.conversation import IGNORE_INDEX
from train.mini.convolution import quicken
from train.mini.faces import Augment, Faces
from train.mini.instruct import KINDS, Collate, Conversations


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One stage. An unknown key in the YAML file fails."""

    learning_rates: dict[str, float]
    """Module path -> its learning rate; the modules of this table are what is trained."""
    max_steps: int
    """Optimizer steps."""
    batch_size: int = 64
    """Faces in a step."""
    warmup_steps: int = 50
    """Steps of linear warm-up before the cosine decay."""
    weight_decay: float = 0.0
    """AdamW's, on everything trained."""
    rare_power: float = 0.35
    """Faces are drawn with their expression's frequency to the minus this."""
    strength: float = 1.0
    """Of the augmentation (`train.mini.faces.Augment`)."""
    kinds: str = KINDS
    """Kinds of turns in its conversations (`train.mini.instruct`); an ablation leaves some out."""
    told_share: float = 0.0
    """Share of conversations whose facts are told instead of seen, so that texts keep to them."""
    length_power: float = 0.0
    """An answer counts by its length to the power of 1 minus this: 0 weighs all tokens alike, as
    LLaVA does, 1 all answers, so that one word decides as much as a paragraph."""
    save_steps: int = 200
    """Steps between checkpoints."""
    seed: int = 0
    """Of the data, its augmentation and the texts."""


def read_config(path: Path) -> TrainConfig:
    """Return the stage a YAML file describes."""
    return TrainConfig(**yaml.safe_load(path.read_text()))


def choose_trainable(model: torch.nn.Module, learning_rates: dict[str, float]) -> list[dict]:
    """Freeze all but the named modules and return AdamW's parameter groups.

    Raises:
        ValueError: a path names no module, or nothing would be trained.
    """
    model.requires_grad_(False)
    groups, taken = [], set()
    # the longest path wins, so that "model" can be refined by "model.lca"
    for path in sorted(learning_rates, key=len, reverse=True):
        try:
            module = model.get_submodule(path)
        except AttributeError:
            raise ValueError(f"learning_rates names {path}, which this model has not.") from None
        mine = [p for p in module.parameters() if id(p) not in taken]
        taken |= {id(p) for p in mine}
        for parameter in mine:
            parameter.requires_grad_(True)
        if mine:
            groups.append({"params": mine, "lr": learning_rates[path]})
            print(
                f"trains {path}: {sum(p.numel() for p in mine):,} parameters "
                f"at {learning_rates[path]}"
            )
    if not groups:
        raise ValueError("Nothing would be trained: learning_rates is empty.")
    return groups


def answer_weights(labels: torch.Tensor, length_power: float) -> torch.Tensor:
    """Return each token's weight: its answer's length to the minus `length_power`, 0 outside.

    Args:
        labels: (B, T) ids; every run of others than `IGNORE_INDEX` is one answer.
    """
    inside = labels != IGNORE_INDEX
    starts = inside & ~F.pad(inside[:, :-1], (1, 0))
    answer = starts.flatten().long().cumsum(0)[inside.flatten()]  # its number, for each token
    length = torch.bincount(answer)[answer]
    weights = torch.zeros(labels.shape, device=labels.device)
    weights[inside] = length.float() ** -length_power
    return weights


class StageTrainer(Trainer):
    """`Trainer` with one learning rate per module and rare expressions drawn more often."""

    def __init__(self, *args, groups: list[dict], rare_power: float, length_power: float, **kwargs):
        self.groups, self.rare_power, self.length_power = groups, rare_power, length_power
        super().__init__(*args, **kwargs)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        labels = inputs.pop("labels")
        outputs = model(**inputs)
        weights = answer_weights(labels, self.length_power)[:, 1:]
        said, written = outputs.logits[:, :-1][weights > 0].float(), labels[:, 1:][weights > 0]
        loss = F.cross_entropy(said, written, reduction="none")
        loss = (loss * weights[weights > 0]).sum() / weights.sum()
        return (loss, outputs) if return_outputs else loss

    def create_optimizer(self, *_args, **_kwargs) -> torch.optim.Optimizer:
        self.optimizer = torch.optim.AdamW(
            self.groups, weight_decay=self.args.weight_decay, betas=(0.9, 0.98)
        )
        return self.optimizer

    def _get_train_sampler(self, dataset=None):
        weights = self.train_dataset.faces.sampling_weights(self.rare_power)
        generator = torch.Generator().manual_seed(self.args.seed)
        return WeightedRandomSampler(weights, len(weights), generator=generator)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("config", type=Path)
    parser.add_argument(
        "--packs", type=Path, required=True, help="folder made by train.mini.prepare"
    )
    parser.add_argument("--model", type=Path, required=True, help="folder the stage starts from")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    model = FEALLMForConditionalGeneration.from_pretrained(args.model, dtype=torch.float32)
    processor = FEALLMProcessor.from_pretrained(args.model)
    train(model, processor, read_config(args.config), Faces(args.packs, "train"), args.out)


def train(
    model: FEALLMForConditionalGeneration,
    processor: FEALLMProcessor,
    config: TrainConfig,
    faces: Faces,
    out: Path,
) -> None:
    """Run a stage, or resume it where `out` has a checkpoint, and write `out/final`."""
    torch.manual_seed(config.seed)
    groups = choose_trainable(model, config.learning_rates)
    quicken(model)
    images = processor.image_processor
    augment = Augment(
        size=processor.face_size,
        crop_size=processor.crop_size,
        crop_groups=processor.crop_groups,
        mean=images.image_mean,
        std=images.image_std,
        train=True,
        strength=config.strength,
        greyscale=processor.greyscale,
    )
    trainer = StageTrainer(
        model=model,
        groups=groups,
        rare_power=config.rare_power,
        length_power=config.length_power,
        args=TrainingArguments(
            output_dir=str(out),
            max_steps=config.max_steps,
            per_device_train_batch_size=config.batch_size,
            warmup_steps=config.warmup_steps,
            weight_decay=config.weight_decay,
            lr_scheduler_type="cosine",
            bf16=True,
            use_cpu=not torch.cuda.is_available(),
            save_steps=config.save_steps,
            save_total_limit=2,
            logging_steps=10,
            report_to=["tensorboard"],
            remove_unused_columns=False,
            seed=config.seed,
        ),
        data_collator=Collate(augment, processor.tokenizer.pad_token_id),
        train_dataset=Conversations(
            faces,
            processor.tokenizer,
            processor.num_image_tokens,
            config.seed,
            config.kinds,
            config.told_share,
        ),
    )
    checkpoint = get_last_checkpoint(str(out)) if out.is_dir() else None
    trainer.train(resume_from_checkpoint=checkpoint)
    save(model, processor, out / "final")


def save(model, processor, folder: Path) -> None:
    """Write a folder `Predictor` opens: bf16 weights in shards under 10 MB, and the processor."""
    model.to(torch.bfloat16).save_pretrained(folder, max_shard_size="9MB")
    processor.save_pretrained(folder)
    print(f"saved {folder}")


if __name__ == "__main__":
    main()

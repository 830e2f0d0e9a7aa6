"""First stage of feallm-mini: teach its two eyes, the vision tower and the LCA, to see faces.

Run as:

    python -m train.mini.vision --packs PACKS --out runs/mini-vision

CLIP and LLaVA give the 7B its sight; the mini starts from nothing, so this stage stands in for
them. Heads on the tower, on the local token and on the MPP's features predict the annotators'
votes, the action units, the 52 blendshapes and the face's points; the dense tasks are what lets a
transformer learn from 35,000 faces. The heads are thrown away. Re-run the same command to resume.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import WeightedRandomSampler
from transformers import Trainer, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

from feallm.modeling import FEALLMForConditionalGeneration
from train.mini.faces import POINTS, Augment, Faces
from train.mini.sizes import MEAN, STD, mini_config

NUM_EXPRESSIONS, NUM_AUS, NUM_SHAPES = 7, 12, 52


class Heads(nn.Module):
    """What one pooled feature says of a face: expression, AUs, blendshapes, points."""

    def __init__(self, width: int, norm: bool):
        super().__init__()
        self.split = [NUM_EXPRESSIONS, NUM_AUS, NUM_SHAPES, 2 * len(POINTS)]
        self.norm = nn.LayerNorm(width) if norm else nn.Identity()
        self.linear = nn.Linear(width, sum(self.split))
        # random heads would teach the eyes, in the first steps, to show nothing at all
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, pooled: torch.Tensor) -> list[torch.Tensor]:
        return list(self.linear(self.norm(pooled)).float().split(self.split, dim=-1))


class VisionTask(nn.Module):
    """The model's vision part with heads on each of its three outputs; forward gives the loss."""

    def __init__(self, model: FEALLMForConditionalGeneration):
        super().__init__()
        config = model.config
        self.model = model.model
        self.model.language_model = None  # not needed here, and its optimizer state neither
        width = config.vision_config.hidden_size
        self.heads = nn.ModuleDict(
            {
                "deep": Heads(width, norm=True),
                # faces differ little beside what all tokens share: a norm would freeze the LCA
                "token": Heads(config.text_config.hidden_size, norm=False),
                "features": Heads(width, norm=True),
            }
        )

    def predict(self, pixel_values: torch.Tensor, pixel_values_local: torch.Tensor) -> dict:
        fused = self.model.fuse(pixel_values, pixel_values_local)
        return {name: head(fused[name].mean(1)) for name, head in self.heads.items()}

    def forward(
        self,
        pixel_values,
        pixel_values_local,
        votes,
        aus=None,
        blendshapes=None,
        points=None,
        has_shapes=None,
        has_points=None,
        index=None,
    ) -> dict[str, torch.Tensor]:
        said = self.predict(pixel_values, pixel_values_local)
        total = 0.0
        for expression, au, shapes, places in said.values():
            loss = F.cross_entropy(expression, votes, label_smoothing=0.02)
            if aus is not None:
                per_au = F.binary_cross_entropy_with_logits(au, aus, reduction="none").mean(1)
                per_shape = F.smooth_l1_loss(shapes, blendshapes, beta=0.1, reduction="none").mean(
                    1
                )
                per_point = F.smooth_l1_loss(
                    places.view_as(points), points, beta=0.02, reduction="none"
                ).mean((1, 2))
                loss = loss + (per_au * has_shapes).mean()
                loss = (
                    loss
                    + 10 * (per_shape * has_shapes).mean()
                    + 5 * (per_point * has_points).mean()
                )
            total = total + loss / len(said)
        mean = torch.stack([expression.softmax(-1) for expression, *_ in said.values()]).mean(0)
        return {
            "loss": total,
            "expression": torch.stack(
                [e.argmax(-1) for e, *_ in said.values()] + [mean.argmax(-1)], 1
            ),
            "truth": votes.argmax(-1),
        }


class VisionTrainer(Trainer):
    """`Trainer` that lifts rare expressions a little when it draws faces."""

    def _get_train_sampler(self, dataset=None):
        weights = self.train_dataset.sampling_weights(power=0.35)
        generator = torch.Generator().manual_seed(self.args.seed)
        return WeightedRandomSampler(weights, len(weights), generator=generator)


def metrics(prediction) -> dict[str, float]:
    """Accuracy of each head and of their mean on the validation faces."""
    said, truth = prediction.predictions
    names = ("deep", "token", "features", "mean")
    return {f"accuracy_{n}": float(np.mean(said[:, k] == truth)) for k, n in enumerate(names)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--packs", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--epochs", type=float, default=6)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--max-steps", type=int, default=-1, help="stop early, to try things out")
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    config = mini_config(vocab_size=512)  # the language model is not built in this stage
    task = VisionTask(FEALLMForConditionalGeneration(config))
    augment = {
        split: Augment(
            size=config.vision_config.image_size,
            crop_size=config.crop_size,
            crop_groups=config.crop_groups,
            mean=MEAN,
            std=STD,
            train=split == "train",
            greyscale=True,
        )
        for split in ("train", "valid")
    }

    class Collate:
        """Validation batches are only aligned; the two splits never mix in one batch."""

        def __call__(self, items):
            return augment["train" if task.training else "valid"](items)

    trainer = VisionTrainer(
        model=task,
        args=TrainingArguments(
            output_dir=str(args.out),
            num_train_epochs=args.epochs,
            max_steps=args.max_steps,
            per_device_train_batch_size=args.batch,
            per_device_eval_batch_size=256,
            learning_rate=args.learning_rate,
            weight_decay=0.05,
            adam_beta2=0.98,
            warmup_steps=100,
            lr_scheduler_type="cosine",
            max_grad_norm=1.0,
            bf16=True,
            use_cpu=not torch.cuda.is_available(),
            eval_strategy="steps",
            eval_steps=600,
            save_steps=300,
            save_total_limit=2,
            logging_steps=20,
            report_to=["tensorboard"],
            remove_unused_columns=False,
            label_names=["votes"],
            include_num_input_tokens_seen="no",
            seed=args.seed,
            dataloader_num_workers=0,
        ),
        data_collator=Collate(),
        train_dataset=Faces(args.packs, "train"),
        eval_dataset=Faces(args.packs, "valid", sets=("ferplus",)),
        compute_metrics=metrics,
    )
    checkpoint = get_last_checkpoint(str(args.out)) if args.out.is_dir() else None
    trainer.train(resume_from_checkpoint=checkpoint)
    torch.save(task.model.state_dict(), args.out / "vision.pt")
    print(trainer.evaluate())


if __name__ == "__main__":
    main()

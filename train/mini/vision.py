"""First stage of feallm-mini: teach its eyes, the LCA, the vision tower and the MPP, to see faces.

Run as:

    python -m train.mini.vision --packs PACKS --part PART --start FILE --out RUN

for each part: lca (which has no start), lca-again from its task.pt, a tower from lca-again's
vision.pt, mpp from the vision.pt before or from the folder of a whole mini, whose eyes it takes. Of
the towers, tower and tower-again start from nothing, tower-pretrained from a network that
recognises faces (`--network`, `train.mini.pretrained`). Each run leaves its weights in `vision.pt`,
the LCA's also in `task.pt` with norms and heads. With `--reads` a run leaves in `reads.npz` what
its heads read on the faces it learnt from: `--teachers` gives later runs these readings beside the
annotators' votes.
CLIP and LLaVA give the 7B its sight; the mini has neither, so this stage stands in for them. Heads
on the local token, on the tower or on the MPP's features predict the annotators' votes, the action
units, the 52 blendshapes and the face's points; the dense tasks are what lets a transformer learn
from 35,000 faces. The parts learn one after the other, the others frozen: trained together, the
convolutions of the LCA explain the faces so soon that the tower learns nothing. The heads are
thrown away. Re-run the same command to resume.
"""

import argparse
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torch.utils.data import WeightedRandomSampler
from transformers import TrainingArguments

from feallm.crops import cut_crops
from feallm.device import training_precision, trains_in_bf16
from feallm.modeling import FEALLMForConditionalGeneration, start_weights
from train.checkpoints import AtomicTrainer, last_checkpoint
from train.metrics import accuracy, mean_recall
from train.mini.convolution import quicken
from train.mini.eyes import EYES, trained_eyes
from train.mini.faces import POINTS, Augment, Faces
from train.mini.prepare import SETS
from train.mini.pretrained import convolutions, start_stem
from train.mini.sizes import MEAN, PRETRAINED_STEM, STD, fields_of, mini_config
from train.mini.start import standardise_token, start_projector

NUM_EXPRESSIONS, NUM_AUS, NUM_SHAPES = 7, 12, 52


@dataclass(frozen=True)
class Recipe:
    """How a run of this stage learns."""

    module: str
    """What learns."""
    learning_rate: float
    """At its highest, after the warm-up."""
    epochs: float
    """Passes over the faces."""
    strength: float
    """Of the augmentation (`Augment`)."""
    batch: int = 64
    """Faces of a step."""


RECIPES = {
    "lca": Recipe("lca", 2e-3, 20, 1.0),
    "lca-again": Recipe("lca", 1e-3, 15, 0.5),
    "tower": Recipe("vision_tower", 1.5e-3, 10, 0.6, 128),
    "tower-again": Recipe("vision_tower", 1.5e-3, 20, 0.6, 128),  # from nothing, with teachers
    "tower-pretrained": Recipe("vision_tower", 5e-4, 15, 0.6),  # from dlib's network
    "mpp": Recipe("mpp", 1.5e-3, 1.5, 0.4),
}
"""The runs of this stage, in their order."""


class Heads(nn.Module):
    """What one pooled feature says of a face: expression, AUs, blendshapes, points.

    Faces differ little beside what all of them share. Standardising each feature over the batch
    shows the head the difference alone; a LayerNorm, which keeps the shared part, froze the eyes.
    """

    def __init__(self, width: int):
        super().__init__()
        self.split = [NUM_EXPRESSIONS, NUM_AUS, NUM_SHAPES, 2 * len(POINTS)]
        self.standardise = nn.BatchNorm1d(width, affine=False)
        self.linear = nn.Linear(width, sum(self.split))
        # random heads would teach the eyes, in the first steps, to show nothing at all
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, pooled: torch.Tensor) -> list[torch.Tensor]:
        seen = self.standardise(pooled.float())
        return list(self.linear(seen).float().split(self.split, dim=-1))


class VisionTask(nn.Module):
    """The model's vision part with heads on one of its outputs; forward gives the loss.

    Args:
        model: its language model is dropped.
        module: what learns, "lca", "vision_tower" or "mpp".
    """

    def __init__(self, model: FEALLMForConditionalGeneration, module: str):
        super().__init__()
        self.model, self.module = model.model, module
        self.model.language_model = None  # not needed here, and its optimizer state neither
        self.model.requires_grad_(False).get_submodule(module).requires_grad_(True)
        text, vision = model.config.text_config, model.config.vision_config
        self.heads = Heads((text if module == "lca" else vision).hidden_size)

    @torch.no_grad()
    def fold_norms(self) -> None:
        """Fold the learning part's batch norms into its convolutions: these then carry a bias."""
        learning = self.model.get_submodule(self.module)
        for conv, norm in convolutions(learning):
            conv.weight, conv.bias = fuse_conv_bn_weights(
                conv.weight, None, norm.running_mean, norm.running_var,
                norm.eps, norm.weight, norm.bias,
            )  # fmt: skip
        for part in list(learning.modules()):
            for name, norm in part.named_children():
                if isinstance(norm, nn.BatchNorm2d):
                    setattr(part, name, nn.Identity())

    @torch.no_grad()
    def start_tower(self) -> None:
        """Start the tower's position embeddings as sines and cosines of column and row.

        CLIP's own start, std 0.02, drowns in the patches' 0.4: with little data the tower then sees
        a bag of patches. After five epochs such a tower still named the commonest expression only.
        The convolutions of the stem start as the LCA's do: CLIP's own start had overruled theirs.
        """
        self.model.vision_tower.apply(start_weights)
        positions = self.model.vision_tower.embeddings.position_embedding.weight
        side, width = math.isqrt(len(positions) - 1), positions.shape[1]
        frequency = 100.0 ** -(torch.arange(width // 4) / (width // 4))
        y, x = torch.meshgrid(*[torch.arange(side, dtype=torch.float)] * 2, indexing="ij")
        angles = [place.flatten()[:, None] * frequency for place in (x, y)]
        waves = [wave(a) for a in angles for wave in (torch.sin, torch.cos)]
        # the first position is the class token's
        positions[1:, : 4 * (width // 4)] = torch.cat(waves, dim=1)

    @torch.no_grad()
    def start_from(self, network: Path, pixels: torch.Tensor) -> None:
        """Start the stem as dlib's network (`pretrained.start_stem`); call after `start_tower`.

        The layers behind it start by adding nothing: what the stem knows reaches the heads at once.
        """
        tower = self.model.vision_tower
        start_stem(tower.embeddings.patch_embedding, network, pixels)
        for layer in tower.encoder.layers:
            for last in (layer.self_attn.out_proj, layer.mlp.fc2):
                nn.init.zeros_(last.weight)
                nn.init.zeros_(last.bias)
        tower.embeddings.position_embedding.weight[1:] *= 0.3  # beside patches of mean size 1

    def standardise_token(self) -> None:
        """Fold the head's standardising into the LCA: F_local gets mean 0, std 1."""
        seen = self.heads.standardise
        standardise_token(self.model.lca.to_token, seen.running_mean, seen.running_var)
        seen.reset_running_stats()

    def standardise_features(self) -> None:
        """Fold the head's standardising into the start of the projector behind the MPP."""
        seen = self.heads.standardise
        start_projector(self.model.multi_modal_projector, seen.running_mean, seen.running_var)

    def predict(
        self, pixel_values: torch.Tensor, pixel_values_local: torch.Tensor | None
    ) -> list[torch.Tensor]:
        """Return what the heads say of each face; only what they need is run."""
        if self.module == "lca":
            seen = self.model.lca(pixel_values_local)[1]
        elif self.module == "vision_tower":
            seen = self.model.deep_and_shallow(pixel_values)[0]
        else:
            seen = self.model.fuse(pixel_values, pixel_values_local)["features"]
        return self.heads(seen.mean(1))

    def forward(
        self,
        pixel_values,
        votes,
        pixel_values_local=None,
        aus=None,
        blendshapes=None,
        points=None,
        has_shapes=None,
        has_points=None,
        index=None,
    ) -> dict[str, torch.Tensor]:
        expression, au, shapes, places = self.predict(pixel_values, pixel_values_local)
        loss = F.cross_entropy(expression, votes, label_smoothing=0.02)
        if aus is not None:
            per_au = F.binary_cross_entropy_with_logits(au, aus, reduction="none").mean(1)
            per_shape = F.smooth_l1_loss(shapes, blendshapes, beta=0.1, reduction="none").mean(1)
            per_point = F.smooth_l1_loss(
                places.view_as(points), points, beta=0.02, reduction="none"
            ).mean((1, 2))
            loss = loss + ((per_au + 10 * per_shape) * has_shapes).mean()
            loss = loss + 5 * (per_point * has_points).mean()
        return {"loss": loss, "expression": expression.argmax(-1), "truth": votes.argmax(-1)}


@torch.inference_mode()
def read(task: VisionTask, faces: Faces, augment: Augment, batch: int = 256) -> np.ndarray:
    """Return the expression's probabilities (n, 7) of each face and its mirror image, averaged."""
    task.eval()
    device, readings = next(task.parameters()).device, []
    groups = augment.crop_groups
    for first in range(0, len(faces), batch):
        items = [faces[i] for i in range(first, min(first + batch, len(faces)))]
        inputs = augment(items)
        face = inputs["pixel_values"].to(device)
        views = [
            (view, cut_crops(view, groups, augment.crop_size) if groups else None)
            for view in (face, face.flip(-1))
        ]
        with training_precision(task):
            both = torch.stack([task.predict(*view)[0] for view in views])
        readings.append(both.float().softmax(-1).mean(0).cpu())
    return torch.cat(readings).numpy()


class VisionTrainer(AtomicTrainer):
    """`Trainer` that lifts rare expressions a little when it draws faces."""

    def _get_train_sampler(self, dataset=None):
        weights = self.train_dataset.sampling_weights(power=0.35)
        generator = torch.Generator().manual_seed(self.args.seed)
        # whole batches only: one of a single face has no spread to standardise by
        size = self.args.train_batch_size
        count = max(len(weights) // size, 1) * size
        return WeightedRandomSampler(weights, count, generator=generator)


def kept_aside(packs: Path) -> dict[str, Faces]:
    """Return the validation faces of each set that is there and has some."""
    names = ("ferplus", "expw", "ckplus_validation")
    return {n: Faces(packs, "valid", (n,)) for n in names if (packs / f"{n}.npz").is_file()}


def metrics(prediction) -> dict[str, float]:
    """Accuracy and mean recall of the expression on validation faces."""
    said, truth = prediction.predictions
    return {
        "accuracy": accuracy(truth, said),
        "mean_recall": mean_recall(truth, said, NUM_EXPRESSIONS),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--packs", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--sets", nargs="*", default=SETS, choices=SETS, help="sets to train on")
    parser.add_argument(
        "--colour", action="store_true", help="do not turn faces grey (to compare only)"
    )
    parser.add_argument("--channels", type=int, nargs="+", help="of the LCA (to compare only)")
    parser.add_argument("--depths", type=int, nargs="+", help="of the LCA (to compare only)")
    parser.add_argument("--norm", choices=("batch", "group"), default="batch", help="of the LCA")
    parser.add_argument(
        "--residual", choices=("paper", "identity"), help="of the MPP; default: the paper's"
    )
    parser.add_argument("--part", choices=tuple(RECIPES), required=True)
    parser.add_argument("--start", type=Path, help=EYES)
    parser.add_argument(
        "--teachers", type=Path, nargs="*", default=[], help="reads.npz of runs to learn from too"
    )
    parser.add_argument("--network", type=Path, help="dlib's, for tower-pretrained")
    parser.add_argument("--reads", action="store_true", help="leave what it reads in reads.npz")
    parser.add_argument("--epochs", type=float, help="default: the recipe's")
    parser.add_argument("--batch", type=int, help="default: the recipe's")
    parser.add_argument("--learning-rate", type=float, help="default: the recipe's")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save-steps", type=int, default=300, help="steps between checkpoints")
    parser.add_argument("--max-steps", type=int, default=-1, help="stop early, to try things out")
    args = parser.parse_args()
    recipe = RECIPES[args.part]
    torch.manual_seed(args.seed)
    if args.part != "lca" and not args.start:
        parser.error(f"--part {args.part} needs --start: the LCA learns first.")
    if (args.part == "tower-pretrained") != bool(args.network):
        parser.error("--part tower-pretrained needs --network, and no other part takes it.")
    # batch norms learn faster than group norms, and folded they cost nothing; once folded, no norm
    norms = {
        f"{part}_norm": args.norm if recipe.module == module else "none"
        for part, module in (("lca", "lca"), ("vision_stem", "vision_tower"))
    }
    compared = {
        "lca_channels": args.channels,
        "lca_depths": args.depths,
        "mpp_residual": args.residual,
    }
    compared = {name: value for name, value in compared.items() if value}
    start = trained_eyes(args.start) if args.start else {}
    if recipe.module == "mpp":
        compared = fields_of(start) | compared
    elif args.network:
        compared |= PRETRAINED_STEM
    # the language model is dropped below
    config = mini_config(vocab_size=512, **norms, **compared)
    task = VisionTask(FEALLMForConditionalGeneration(config), recipe.module)
    quicken(task)
    # on a CPU the gradient of transformers' sdpa takes six times longer for 37 patches
    task.model.vision_tower.set_attn_implementation("eager")
    augment = {
        split: Augment(
            size=config.vision_config.image_size,
            crop_size=config.crop_size,
            crop_groups=() if recipe.module == "vision_tower" else config.crop_groups,
            mean=MEAN,
            std=STD,
            train=split == "train",
            strength=recipe.strength,
            greyscale=not args.colour,
        )
        for split in ("train", "valid")
    }
    learnt_from = Faces(args.packs, "train", tuple(args.sets), teachers=args.teachers)
    if args.start:
        if recipe.module != "lca":  # only what comes before it has learnt anything yet
            if recipe.module == "vision_tower":
                task.start_tower()
            before = ("lca.", "vision_tower.") if recipe.module == "mpp" else ("lca.",)
            learnt = {k: v for k, v in start.items() if k.startswith(before)}
            start = task.model.state_dict() | learnt
        (task if recipe.module == "lca" else task.model).load_state_dict(start)
    if args.network:
        some = range(0, len(learnt_from), max(len(learnt_from) // 256, 1))
        pixels = augment["valid"]([learnt_from[i] for i in some])["pixel_values"]
        task.start_from(args.network, pixels)

    class Collate:
        """Validation batches are only aligned; the two splits never mix in one batch."""

        def __call__(self, items):
            return augment["train" if task.training else "valid"](items)

    trainer = VisionTrainer(
        model=task,
        args=TrainingArguments(
            output_dir=str(args.out),
            num_train_epochs=args.epochs or recipe.epochs,
            max_steps=args.max_steps,
            per_device_train_batch_size=args.batch or recipe.batch,
            per_device_eval_batch_size=256,
            learning_rate=args.learning_rate or recipe.learning_rate,
            weight_decay=0.05,
            adam_beta2=0.98,
            warmup_steps=100,
            lr_scheduler_type="cosine",
            max_grad_norm=1.0,
            bf16=trains_in_bf16(task),
            use_cpu=not torch.cuda.is_available(),
            eval_strategy="steps",
            eval_steps=600,
            save_steps=args.save_steps,
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
        train_dataset=learnt_from,
        eval_dataset=kept_aside(args.packs),
        compute_metrics=metrics,
    )
    trainer.train(resume_from_checkpoint=last_checkpoint(args.out))
    print(trainer.evaluate())
    if args.reads:
        readings = read(task, learnt_from, augment["valid"])
        learnt_from.save_readings(args.out / "reads.npz", readings)
    if recipe.module == "lca":
        torch.save(task.state_dict(), args.out / "task.pt")
        task.standardise_token()
    elif recipe.module == "mpp":
        task.standardise_features()
    if "batch" in norms.values():
        task.fold_norms()
    torch.save(task.model.state_dict(), args.out / "vision.pt")


if __name__ == "__main__":
    main()

r"""Train FEALLM's stages: one loop for the 7B and the mini, and a YAML file for each stage.

Run as:

    python -m train.train train/configs/stage1_align.yaml --model llava-hf/llava-1.5-7b-hf \
        --data blip_laion_cc_sbu_558k.json --images images.zip --out runs/stage1
    python -m train.train train/configs/stage2_lora.yaml --model runs/stage1/final \
        --data fea.json --images faces/ --out runs/stage2
    python -m train.train train/configs/mini_align.yaml --packs PACKS --model START --out RUN

Several GPUs or machines: `accelerate launch --config_file FILE -m train.train` and the same
options, with ddp.yaml, fsdp.yaml, zero2.yaml or zero3.yaml of train/configs/accelerate.

A stage is data: which modules learn, and how fast. Everything not named stays frozen. Re-run the
same command to resume after a stop; with other settings, data or base it is refused. What was
trained lies in RUN/final, which `python app.py --model` opens: an adapter of `--model` where the
stage has LoRA (`--merge` adds it to the weights), else a whole model.
"""

import argparse
import copy
import os
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch.nn import functional as F
from torch.utils.data import Dataset
from transformers import TrainingArguments

from feallm import FEALLMConfig, FEALLMForConditionalGeneration, FEALLMProcessor
from feallm.conversation import IGNORE_INDEX
from feallm.device import trains_in_bf16
from feallm.loading import (
    QUANTIZATIONS,
    ModelError,
    adapter_of,
    config_of,
    load_model,
    processor_of,
)
from train.asked import refuse_another, what_is_asked
from train.checkpoints import CheckpointError, Intervals, TrainedPartsTrainer, last_checkpoint
from train.data import DataError
from train.hiding import hide_local_token
from train.mini.convolution import quicken
from train.mini.faces import Faces
from train.mini.instruct import decision_loss, with_readings_of
from train.order import Order, spread
from train.parts import StageError, choose_trainable
from train.plan import Plan, plan
from train.report import Meter, Samples
from train.result import merge, save
from train.sources import instructions, packed_faces
from train.stage import TrainConfig, read_config, step_division


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


class StageTrainer(TrainedPartsTrainer):
    """`Trainer` with one learning rate per group, our order of rows and our weights of answers."""

    def __init__(
        self,
        *args,
        groups: list[dict],
        order: Order,
        length_power: float,
        decision_weight: float = 0.0,
        start_share: float = 0.0,
        **kwargs,
    ):
        self.groups, self.order, self.length_power = groups, order, length_power
        self.decision_weight, self.start_share = decision_weight, start_share
        super().__init__(*args, **kwargs)
        self.start = copy.deepcopy(self.model).requires_grad_(False).eval() if start_share else None
        # tokens are counted over the whole step, so that its parts may be read in any division;
        # where answers have weights of their own each part is a mean, as there is one part
        self.model_accepts_loss_kwargs = length_power == 0
        self.meter = Meter(self.accelerator.num_processes)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        labels, decision = inputs.pop("labels"), inputs.pop("decision", None)
        self.meter.count(int(inputs["attention_mask"].sum()))
        outputs = model(**inputs)
        weights = answer_weights(labels, self.length_power)[:, 1:]
        said, written = outputs.logits[:, :-1][weights > 0].float(), labels[:, 1:][weights > 0]
        loss = (F.cross_entropy(said, written, reduction="none") * weights[weights > 0]).sum()
        if num_items_in_batch is None:
            loss = loss / weights.sum()
        else:  # DDP will divide the gradients by the number of processes
            loss = loss / num_items_in_batch * self.accelerator.num_processes
        if decision and self.decision_weight:  # rows of --data have no votes
            if self.start_share:
                decision = with_readings_of(self.start, self.start_share, inputs, decision)
            loss = loss + self.decision_weight * decision_loss(outputs.logits, **decision)
        return (loss, outputs) if return_outputs else loss

    def log(self, logs: dict[str, float], *args, **kwargs) -> None:
        """Add speed, memory and each group's learning rate to what is logged."""
        if "loss" in logs:
            logs |= self.meter.read()
            for group in self.optimizer.param_groups:
                logs[f"learning_rate/{group['name']}"] = group["lr"]
        super().log(logs, *args, **kwargs)

    def create_optimizer(self, *_args, **_kwargs) -> torch.optim.Optimizer:
        self.optimizer = torch.optim.AdamW(
            self.groups,
            weight_decay=self.args.weight_decay,
            betas=(self.args.adam_beta1, self.args.adam_beta2),
        )
        return self.optimizer

    def _get_train_sampler(self, dataset=None) -> Order:
        return self.order


def count_processes() -> int:
    """Return how many processes train together.

    Raises:
        StageError: several GPUs are visible to a single process, which would share the step out
            among them in its own way.
    """
    if "WORLD_SIZE" not in os.environ and torch.cuda.device_count() > 1:
        raise StageError(
            f"{torch.cuda.device_count()} GPUs are visible: use them with `accelerate launch`, or "
            "choose one with CUDA_VISIBLE_DEVICES=0."
        )
    return int(os.environ.get("WORLD_SIZE", "1"))


def train(
    model: FEALLMForConditionalGeneration,
    processor: FEALLMProcessor,
    config: TrainConfig,
    data: tuple[Dataset, object, Order],
    out: Path,
    files: Sequence[Path] = (),
) -> StageTrainer:
    """Run a stage, or resume it where `out` has a checkpoint; return its trainer.

    Args:
        data: rows, how some become a batch, and their order (`train.sources`).
        files: what the rows are read from, by which a resumed run knows its data again.

    Raises:
        CheckpointError: `out` holds a run that was asked something else, or cannot be written.
    """
    torch.manual_seed(config.seed)
    dataset, collate, order = data
    groups = choose_trainable(model, config.learning_rates, config.lora)
    asked = what_is_asked(config, model, len(dataset), files)
    checkpoint = last_checkpoint(out)
    if checkpoint:
        refuse_another(checkpoint, asked)
    quicken(model)
    if config.faces.local_hidden and model.config.use_lca:
        hide_local_token(model.model.lca, config.faces.local_hidden)
    processes = count_processes()
    micro, times = step_division(config, processes)
    if (config.length_power or config.faces.decision_weight) and times * processes > 1:
        raise StageError(
            "With length_power or decision_weight a step's rows must be read at once, by one "
            "process."
        )
    trainer = StageTrainer(
        model=model,
        groups=groups,
        order=order,
        length_power=config.length_power,
        decision_weight=config.faces.decision_weight,
        start_share=config.faces.start_share,
        args=TrainingArguments(
            output_dir=str(out),
            max_steps=config.max_steps,
            num_train_epochs=config.epochs,
            per_device_train_batch_size=micro,
            gradient_accumulation_steps=times,
            activation_checkpointing=config.gradient_checkpointing,
            activation_checkpointing_kwargs={"use_reentrant": False},
            warmup_steps=config.warmup_steps,
            weight_decay=config.weight_decay,
            adam_beta2=config.beta2,
            lr_scheduler_type="cosine",
            bf16=trains_in_bf16(model),
            use_cpu=not torch.cuda.is_available(),
            save_steps=config.save_steps,
            save_total_limit=2,
            logging_steps=config.logging_steps,
            report_to=["tensorboard"] if find_spec("tensorboard") else [],
            remove_unused_columns=False,
            dataloader_num_workers=config.workers,
            seed=config.seed,
        ),
        data_collator=collate,
        train_dataset=dataset,
        callbacks=[Intervals(), Samples(processor.tokenizer, dataset, config.sample_steps)],
    )
    trainer.asked = asked
    trainer.train(resume_from_checkpoint=checkpoint)
    return trainer


def dry_run(
    config: TrainConfig,
    model_config: FEALLMConfig,
    dataset: Dataset,
    quantization: str | None,
    dtype: torch.dtype,
) -> Plan:
    """Return what the stage would need; some rows are encoded for their length."""
    processes = count_processes()
    lengths = [dataset.token_count(i) for i in spread(len(dataset), 50)]
    return plan(
        model_config,
        config.learning_rates,
        config.lora,
        rows=len(dataset),
        tokens=sum(lengths) / len(lengths),
        batch_size=config.batch_size,
        micro_batch_size=step_division(config, processes)[0],
        steps=config.max_steps,
        epochs=config.epochs,
        gradient_checkpointing=config.gradient_checkpointing,
        quantization=quantization,
        weight_bytes=dtype.itemsize,
        processes=processes,
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("config", type=Path)
    parser.add_argument("--model", required=True, help="folder or hub id the stage starts from")
    parser.add_argument("--out", type=Path, required=True, help="folder of this run")
    parser.add_argument("--packs", type=Path, help="faces packed by train.mini.prepare")
    parser.add_argument(
        "--teachers", type=Path, nargs="*", default=[], help="reads.npz of train.mini.vision"
    )
    parser.add_argument("--data", type=Path, help="rows in LLaVA's layout")
    parser.add_argument("--images", type=Path, help="their pictures: a folder or a zip")
    parser.add_argument("--quantization", choices=QUANTIZATIONS, help="of the frozen weights")
    parser.add_argument("--attention", default="sdpa", help="sdpa, flash_attention_2 or eager")
    parser.add_argument(
        "--dtype", choices=("bfloat16", "float32"), help="of what is frozen; bfloat16 on a GPU"
    )
    parser.add_argument("--dry-run", action="store_true", help="say what it would need, and stop")
    parser.add_argument("--merge", action="store_true", help="add LoRA to the weights at the end")
    args = parser.parse_args()
    if bool(args.packs) == bool(args.data) or bool(args.data) != bool(args.images):
        parser.error("Give either --packs, or --data with --images.")
    if args.teachers and not args.packs:
        parser.error("--teachers have read packed faces: they need --packs.")
    try:
        run(args)
    except (DataError, ModelError, CheckpointError, StageError) as problem:
        sys.exit(str(problem))


def check_architecture(name: str, config: FEALLMConfig, asked: dict) -> None:
    """Refuse a stage that asks for another architecture than a model has.

    Raises:
        StageError: there is no such field, or the model is no LLaVA any more and has it otherwise.
    """
    fields = config.to_dict()
    for key, value in asked.items():
        if key not in FEALLMConfig().to_dict():
            raise StageError(f"architecture: a FEALLM has no {key}.")
        if fields[key] != value:
            raise StageError(
                f"{name} has {key} {fields[key]}, not {value}: "
                "only a start from LLaVA can change it."
            )


def run(args: argparse.Namespace) -> None:
    """Do what the command line asks for."""
    config = read_config(args.config)
    dtype = getattr(torch, args.dtype or ("bfloat16" if torch.cuda.is_available() else "float32"))
    if args.quantization and not config.lora:
        raise StageError("Only a stage with LoRA can be trained over quantized weights.")
    if config.lora and adapter_of(args.model):
        raise StageError(f"{args.model} is an adapter: merge it first (--merge), or take its base.")
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    model_config = config_of(args.model, **config.architecture)
    check_architecture(args.model, model_config, config.architecture)
    processor = processor_of(args.model, model_config)
    if args.packs:
        files = [args.packs, *args.teachers]
        faces = Faces(args.packs, "train", teachers=args.teachers)
        data = packed_faces(faces, processor, config)
    else:
        files = [args.data, args.images]
        data = instructions(args.data, args.images, processor, config, args.out)
    if args.dry_run:
        print(dry_run(config, model_config, data[0], args.quantization, dtype))
        return
    torch.manual_seed(config.seed)  # from LLaVA, the LCA and the MPP start at random
    model = load_model(args.model, dtype, args.quantization, args.attention, **config.architecture)
    trainer = train(model, processor, config, data, args.out, files)
    try:
        save(trainer, processor, config, args.model)
        if args.merge and config.lora and trainer.is_world_process_zero():
            merge(args.out / "final")
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"The result could not be written to {args.out}: {error}. The checkpoints are whole: "
            "make room and run the same command to write it again."
        ) from error


if __name__ == "__main__":
    main()

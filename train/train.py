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
same command to resume after a stop. What was trained lies in RUN/final, which `python app.py
--model` opens: an adapter of `--model` where the stage has LoRA (`--merge` adds it to the weights),
else a whole model.
"""

import argparse
import os
import sys
from pathlib import Path

import torch
from torch.nn import functional as F
from torch.utils.data import Dataset
from transformers import TrainingArguments

from feallm import FEALLMConfig, FEALLMForConditionalGeneration, FEALLMProcessor
from feallm.conversation import IGNORE_INDEX
from feallm.loading import QUANTIZATIONS, ModelError, config_of, load, processor_of
from train.checkpoints import CheckpointError, TrainedPartsTrainer, last_checkpoint
from train.data import DataError, Instructions, Pad, Pictures, read_rows
from train.mini.convolution import quicken
from train.mini.faces import Augment, Faces
from train.mini.instruct import Collate, Conversations
from train.order import Order
from train.parts import choose_trainable, save_adapter
from train.plan import Plan, plan
from train.report import Meter, Samples, write_card
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

    def __init__(self, *args, groups: list[dict], order: Order, length_power: float, **kwargs):
        self.groups, self.order, self.length_power = groups, order, length_power
        super().__init__(*args, **kwargs)
        # tokens are counted over the whole step, so that its parts may be read in any division;
        # where answers have weights of their own each part is a mean, as there is one part
        self.model_accepts_loss_kwargs = length_power == 0
        self.meter = Meter(self.accelerator.num_processes)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        labels = inputs.pop("labels")
        self.meter.count(int(inputs["attention_mask"].sum()))
        outputs = model(**inputs)
        weights = answer_weights(labels, self.length_power)[:, 1:]
        said, written = outputs.logits[:, :-1][weights > 0].float(), labels[:, 1:][weights > 0]
        loss = (F.cross_entropy(said, written, reduction="none") * weights[weights > 0]).sum()
        if num_items_in_batch is None:
            loss = loss / weights.sum()
        else:  # DDP will divide the gradients by the number of processes
            loss = loss / num_items_in_batch * self.accelerator.num_processes
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
            self.groups, weight_decay=self.args.weight_decay, betas=(0.9, 0.98)
        )
        return self.optimizer

    def _get_train_sampler(self, dataset=None) -> Order:
        return self.order


def packed_faces(
    faces: Faces, processor: FEALLMProcessor, config: TrainConfig
) -> tuple[Dataset, Collate, Order]:
    """Return packed faces with conversations, how they become a batch, and their order."""
    options, images = config.faces, processor.image_processor
    augment = Augment(
        size=processor.face_size,
        crop_size=processor.crop_size,
        crop_groups=processor.crop_groups,
        mean=images.image_mean,
        std=images.image_std,
        train=True,
        strength=options.strength,
        greyscale=processor.greyscale,
    )
    dataset = Conversations(
        faces,
        processor.tokenizer,
        processor.num_image_tokens,
        config.seed,
        options.kinds,
        options.told_share,
    )
    order = Order(dataset, config.seed, weights=faces.sampling_weights(options.rare_power))
    return dataset, Collate(augment, processor.tokenizer.pad_token_id, config.seed), order


def instructions(
    data: Path, images: Path, processor: FEALLMProcessor, config: TrainConfig, out: Path
) -> tuple[Dataset, Pad, Order]:
    """Return the rows of a file with their pictures, how they become a batch, and their order.

    Rows whose picture is missing are left out, counted and named in OUT/missing.txt.

    Raises:
        DataError: the file or the pictures cannot be used.
    """
    rows, pictures = read_rows(data), Pictures(images)
    missing = set(pictures.missing([r.image for r in rows]))
    if missing:
        out.mkdir(parents=True, exist_ok=True)
        (out / "missing.txt").write_text("\n".join(sorted(missing)) + "\n", encoding="utf-8")
        rows = [r for r in rows if r.image not in missing]
        print(f"{len(missing)} pictures are missing, listed in {out / 'missing.txt'}")
    if not rows:
        raise DataError(f"None of the pictures named in {data} is in {images}.")
    dataset = Instructions(
        rows,
        pictures,
        processor,
        plain=config.layout == "plain",
        max_length=config.max_length,
        seed=config.seed,
        broken=out / "broken.txt",
    )
    order = Order(dataset, config.seed, lengths=dataset.lengths, batch_size=config.batch_size)
    return dataset, Pad(processor.tokenizer.pad_token_id), order


def train(
    model: FEALLMForConditionalGeneration,
    processor: FEALLMProcessor,
    config: TrainConfig,
    data: tuple[Dataset, object, Order],
    out: Path,
) -> StageTrainer:
    """Run a stage, or resume it where `out` has a checkpoint; return its trainer."""
    torch.manual_seed(config.seed)
    dataset, collate, order = data
    groups = choose_trainable(model, config.learning_rates, config.lora)
    quicken(model)
    micro, times = step_division(config, int(os.environ.get("WORLD_SIZE", "1")))
    trainer = StageTrainer(
        model=model,
        groups=groups,
        order=order,
        length_power=config.length_power,
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
            lr_scheduler_type="cosine",
            bf16=True,
            use_cpu=not torch.cuda.is_available(),
            save_steps=config.save_steps,
            save_total_limit=2,
            logging_steps=config.logging_steps,
            report_to=["tensorboard"],
            remove_unused_columns=False,
            dataloader_num_workers=config.workers,
            seed=config.seed,
        ),
        data_collator=collate,
        train_dataset=dataset,
        callbacks=[Samples(processor.tokenizer, dataset, config.sample_steps)],
    )
    trainer.train(resume_from_checkpoint=last_checkpoint(out))
    return trainer


def dry_run(config: TrainConfig, model_config, dataset: Dataset, quantization: str | None) -> Plan:
    """Return what the stage would need; some rows are read for their length."""
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    every = max(1, len(dataset) // 20)
    lengths = [len(dataset[i]["input_ids"]) for i in range(0, len(dataset), every)]
    return plan(
        model_config,
        config.learning_rates,
        config.lora,
        rows=len(dataset),
        tokens=sum(lengths) / len(lengths),
        batch_size=config.batch_size,
        micro_batch_size=step_division(config, processes)[0],
        steps=config.max_steps,
        gradient_checkpointing=config.gradient_checkpointing,
        quantization=quantization,
        processes=processes,
    )


def save(
    model: FEALLMForConditionalGeneration,
    processor: FEALLMProcessor,
    config: TrainConfig,
    base: str,
    folder: Path,
) -> None:
    """Write a folder `Predictor` opens: an adapter of `base` with LoRA, else bf16 weights."""
    if config.lora:
        save_adapter(model, config.lora, base, folder)
        whole = FEALLMConfig.from_dict(model.config.to_dict() | {"quantization_config": None})
        del whole.quantization_config  # how the base was held while training is nobody's matter
        whole.save_pretrained(folder)
    else:
        # the repository, which ships the mini, takes no file over 10 MB
        small = sum(p.numel() for p in model.parameters()) < 1e8
        model.to(torch.bfloat16).save_pretrained(folder, max_shard_size="9MB" if small else "5GB")
    processor.save_pretrained(folder)
    print(f"saved {folder}")


def merge(base: str, folder: Path, dtype: torch.dtype = torch.bfloat16) -> None:
    """Add an adapter to its base's weights and write the whole model in its place."""
    model, processor = load(folder, dtype)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (folder / name).unlink()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("config", type=Path)
    parser.add_argument("--model", required=True, help="folder or hub id the stage starts from")
    parser.add_argument("--out", type=Path, required=True, help="folder of this run")
    parser.add_argument("--packs", type=Path, help="faces packed by train.mini.prepare")
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
    try:
        config = read_config(args.config)
        usual = "bfloat16" if torch.cuda.is_available() else "float32"
        dtype = getattr(torch, args.dtype or usual)
        if args.quantization and not config.lora:
            raise ValueError("Only a stage with LoRA can be trained over quantized weights.")
        model_config = config_of(args.model)
        processor = processor_of(args.model, model_config)
        if args.packs:
            data = packed_faces(Faces(args.packs, "train"), processor, config)
        else:
            data = instructions(args.data, args.images, processor, config, args.out)
        if args.dry_run:
            print(dry_run(config, model_config, data[0], args.quantization))
            return
        torch.manual_seed(config.seed)  # from LLaVA, the LCA and the MPP start at random
        model, processor = load(args.model, dtype, args.quantization, args.attention)
        trainer = train(model, processor, config, data, args.out)
        if trainer.is_world_process_zero():
            model = trainer.accelerator.unwrap_model(trainer.model)
            save(model, processor, config, args.model, args.out / "final")
            write_card(trainer, config, args.model, args.out)
            if args.merge and config.lora:
                merge(args.model, args.out / "final")
    except (DataError, ModelError, CheckpointError, ValueError, TypeError) as problem:
        sys.exit(str(problem))


if __name__ == "__main__":
    main()

"""What a stage leaves: a folder that `Predictor` opens, whole or not there."""

import os
import shutil
from pathlib import Path

import torch
from transformers import PreTrainedModel, Trainer

from feallm import FEALLMConfig, FEALLMProcessor
from feallm.loading import load
from train.parts import save_adapter
from train.report import write_card
from train.stage import TrainConfig


def save(trainer: Trainer, processor: FEALLMProcessor, config: TrainConfig, base: str) -> None:
    """Write RUN/final, which `Predictor` opens: an adapter of `base` with LoRA, else bf16 weights.

    Every process must call it: the weights may lie divided among them.
    """
    state = trainer.accelerator.get_state_dict(trainer.model_wrapped)
    if not trainer.is_world_process_zero():
        return
    model = trainer.accelerator.unwrap_model(trainer.model)
    final = Path(trainer.args.output_dir) / "final"
    folder = final.with_name("final.writing")
    shutil.rmtree(folder, ignore_errors=True)
    if config.lora:
        if Path(base).is_dir():
            base = str(Path(base).resolve())  # the adapter may be opened from anywhere
        save_adapter(state, config.lora, base, folder)
        whole = FEALLMConfig.from_dict(model.config.to_dict() | {"quantization_config": None})
        del whole.quantization_config  # how the base was held while training is nobody's matter
        whole.save_pretrained(folder)
    else:
        write_bf16(model, state, folder)
    processor.save_pretrained(folder)
    write_card(trainer, config, base, folder)
    shutil.rmtree(final, ignore_errors=True)
    os.replace(folder, final)
    print(f"saved {final}")


def write_bf16(model: PreTrainedModel, state: dict[str, torch.Tensor], folder: Path) -> None:
    """Write a model with these weights in bf16."""
    # the repository, which ships the mini, takes no file over 10 MB
    size = "9MB" if sum(p.numel() for p in state.values()) < 1e8 else "5GB"
    cast: dict[int, torch.Tensor] = {}  # what is tied stays tied, and is written once
    for value in state.values():
        cast.setdefault(value.data_ptr(), value.to(torch.bfloat16))
    state = {name: cast[value.data_ptr()] for name, value in state.items()}
    model.save_pretrained(folder, state_dict=state, max_shard_size=size)
    # it says the model's own type, not that of the weights it wrote
    config = FEALLMConfig.from_pretrained(folder)
    for part in (config, config.text_config, config.vision_config):
        part.dtype = torch.bfloat16
    config.save_pretrained(folder)


def merge(folder: Path) -> None:
    """Add an adapter to its base's weights and write the whole model in its place, in bf16."""
    model, processor = load(folder, torch.bfloat16)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (folder / name).unlink()

"""What a person sees of a training: figures as it runs, samples of answers, a card at its end."""

import resource
import statistics
import sys
import time
from dataclasses import asdict
from pathlib import Path

import torch
import yaml
from accelerate.state import AcceleratorState, DistributedType
from transformers import TrainerCallback

from feallm.conversation import IGNORE_INDEX
from feallm.device import training_precision

SAMPLES, NEW_TOKENS = 2, 80
"""Rows whose questions are answered as a sample, and the length of an answer."""
SHARDED = (DistributedType.FSDP, DistributedType.DEEPSPEED)
"""Engines that divide the weights among the processes."""


def peak_memory(on_gpu: bool) -> float:
    """Return the most memory this process has used, in GiB: of its GPU, or of the machine."""
    if on_gpu:
        return torch.cuda.max_memory_allocated() / 2**30
    unit = 2**30 if sys.platform == "darwin" else 2**20  # bytes there, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


class Meter:
    """Counts tokens and time since it was last read."""

    def __init__(self, processes: int):
        self.processes, self.tokens, self.begun = processes, 0, time.perf_counter()

    def count(self, tokens: int) -> None:
        self.tokens += tokens

    def read(self) -> dict[str, float]:
        """Return tokens per second over all processes, and the peak memory; begin anew."""
        now = time.perf_counter()
        speed = self.tokens * self.processes / max(now - self.begun, 1e-9)
        self.tokens, self.begun = 0, now
        return {
            "tokens_per_second": round(speed, 1),
            "peak_memory_gib": round(peak_memory(torch.cuda.is_available()), 3),
        }


class Samples(TrainerCallback):
    """Writes what the model answers as it learns to OUT/samples.txt, beside the data's answer."""

    def __init__(self, tokenizer, dataset, steps: int):
        self.tokenizer, self.dataset, self.steps = tokenizer, dataset, steps

    def on_step_end(self, args, state, control, model=None, **kwargs):
        if not self.steps or state.global_step % self.steps or not state.is_world_process_zero:
            return
        if AcceleratorState().distributed_type in SHARDED:
            return  # one process alone has no whole model to answer with
        written = [f"--- after {state.global_step} steps"]
        model.eval()
        for i in range(min(SAMPLES, len(self.dataset))):
            item = self.dataset[i]
            if "pixel_values" in item and set(item["labels"]) != {IGNORE_INDEX}:
                said, wanted = answer(model, self.tokenizer, item)
                written += [f"model: {said}", f"data:  {wanted}"]
        model.train()
        text = "\n".join(written)
        print(text)
        try:
            with (Path(args.output_dir) / "samples.txt").open("a", encoding="utf-8") as file:
                file.write(text + "\n")
        except OSError as error:  # a full disk: the checkpoint's matter, not a sample's
            print(f"samples.txt could not be written: {error}")


@torch.no_grad()
def answer(model, tokenizer, item: dict) -> tuple[str, str]:
    """Return what a model answers to the first question of an item, and the data's answer."""
    ids, labels = item["input_ids"], item["labels"]
    first = next(k for k, label in enumerate(labels) if label != IGNORE_INDEX)
    wanted = []
    for label in labels[first:]:
        if label == IGNORE_INDEX:
            break
        wanted.append(label)
    pixels = {n: v[None].to(model.device) for n, v in item.items() if n.startswith("pixel")}
    prompt = torch.tensor([ids[:first]], device=model.device)
    with training_precision(model):
        out = model.generate(
            input_ids=prompt,
            attention_mask=torch.ones_like(prompt),
            **pixels,
            max_new_tokens=NEW_TOKENS,
            do_sample=False,
            pad_token_id=tokenizer.pad_token_id,
        )
    said, wanted = (
        tokenizer.decode(tokens, skip_special_tokens=True).strip()
        for tokens in (out[0, first:], wanted)
    )
    return said, wanted


def count_lines(path: Path) -> int:
    """Return how many different lines a file has; 0 where there is none."""
    return len(set(path.read_text(encoding="utf-8").splitlines())) if path.is_file() else 0


CARD = """---
library_name: transformers
{base}tags: [facial-expression-recognition, action-units, feallm]
---

# FEALLM, trained from {name}

{steps} steps, {epochs:.2f} epochs of {rows:,} rows, with `python -m train.train`.

| | |
|---|---|
| device | {processes} x {device} |
| tokens per second (median) | {speed} |
| peak memory | {memory:.2f} GiB |
| pictures missing, and broken | {missing}, {broken} |
| loss, first and last logged | {losses} |

```yaml
{settings}
```

Not evaluated yet: run `python -m train.evaluate --model` on it and write its figures here.
It describes what a face shows, not what a person feels, and must not be used to judge people.
"""


def write_card(trainer, config, base: str, folder: Path) -> None:
    """Write the model card of a result: what was trained, from what, how, and how it went."""
    out = Path(trainer.args.output_dir)
    history = [entry for entry in trainer.state.log_history if "loss" in entry]
    speeds = [e["tokens_per_second"] for e in history]
    cuda = torch.cuda.is_available()
    # a folder is no name on the hub, which would refuse the card
    card = CARD.format(
        base="" if Path(base).is_dir() else f"base_model: {base}\n",
        name=Path(base).name,
        steps=trainer.state.global_step,
        epochs=trainer.state.epoch,
        rows=len(trainer.train_dataset),
        processes=trainer.accelerator.num_processes,
        device=torch.cuda.get_device_name() if cuda else "CPU",
        speed=statistics.median(speeds) if speeds else "not logged",
        memory=peak_memory(cuda),
        missing=count_lines(out / "missing.txt"),
        broken=count_lines(out / "broken.txt"),
        losses=", ".join(f"{e['loss']:.3f}" for e in history[:: max(1, len(history) - 1)]),
        settings=yaml.safe_dump(asdict(config), sort_keys=False).strip(),
    )
    (folder / "README.md").write_text(card, encoding="utf-8")

"""Stage 2 against fine-tuning plain LLaVA-1.5 with LoRA: tokens per second and peak memory.

Run as:

    python -m benchmarks.training            true 7B sizes, on a GPU
    python -m benchmarks.training --quick    the language model cut to two layers, on a CPU

Both models have random weights, since speed does not depend on their values, and the same rows: a
picture and a conversation. LLaVA is transformers' own with peft's LoRA and its projector trained,
as LLaVA trains it; FEALLM is what `train.train` trains in stage 2. Their steps alternate in one
process, and the ratio of speeds is the median over the turns, which a busy machine disturbs least.
Memory is the peak of a process that holds one of them alone, above what Python and its libraries
take. Frozen weights are in bf16, in fp32 on a CPU that only emulates bf16. A third figure needs no
GPU: the bytes of all tensors alive at once in a step of the true 7B in bf16, counted without
computing any (`benchmarks.counting`). The wanted ratios are at least 0.93 of LLaVA's speed and at
most 1.05 of its memory. The last line is one JSON object.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time

import torch
from peft import LoraConfig, get_peft_model
from torch.nn import functional as F
from transformers import CLIPVisionConfig, LlavaForConditionalGeneration

from benchmarks.counting import Uncomputed
from feallm import FEALLMConfig, FEALLMForConditionalGeneration
from feallm.conversation import IGNORE_INDEX
from feallm.device import best_dtype, training_precision
from train.mini.convolution import quicken
from train.parts import TRAINED_WHOLE, Lora, choose_trainable
from train.report import peak_memory

WORDS, ANSWER = 200, 100
"""Tokens of a row's text, and how many of them are answers."""
KINDS = ("llava", "feallm")
COUNTED = {"layers": 32, "count": 8}
"""The sizes at which memory is counted: all of Vicuna-7B, and the rows stage 2 reads at once."""


def config(layers: int) -> FEALLMConfig:
    """Return the 7B's configuration with this many layers in its language model."""
    tower = CLIPVisionConfig(  # CLIP ViT-L/14-336
        image_size=336,
        patch_size=14,
        hidden_size=1024,
        intermediate_size=4096,
        num_hidden_layers=24,
        num_attention_heads=16,
        projection_dim=768,
    )
    full = FEALLMConfig(vision_config=tower)
    full.text_config.num_hidden_layers = layers
    return full


def name_of_dtype(device: str) -> str:
    """Return the precision both models have here."""
    return str(best_dtype(torch.device(device))).removeprefix("torch.")


def build(
    kind: str, layers: int, device: str, dtype: torch.dtype | None = None
) -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    """Return a model as its fine-tuning wants it, and its optimizer.

    Args:
        dtype: of what is frozen (default: what the device computes in).
    """
    torch.manual_seed(0)
    torch.set_default_dtype(dtype or best_dtype(torch.device(device)))
    lora = Lora(learning_rate=2e-4)
    with torch.device(device):
        if kind == "feallm":
            model = FEALLMForConditionalGeneration(config(layers))
        else:
            model = LlavaForConditionalGeneration(config(layers))
    torch.set_default_dtype(torch.float32)
    if kind == "feallm":
        groups = choose_trainable(model, {f"model.{m}": 2e-5 for m in TRAINED_WHOLE}, lora)
        quicken(model)
    else:
        linear = r"model\.language_model\..*\.(q|k|v|o|gate|up|down)_proj"
        options = LoraConfig(
            r=lora.rank,
            lora_alpha=lora.alpha,
            lora_dropout=lora.dropout,
            target_modules=linear,
            modules_to_save=["multi_modal_projector"],
        )
        model = get_peft_model(model, options)
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
        groups = [{"params": [p for p in model.parameters() if p.requires_grad], "lr": 2e-4}]
    model.activation_checkpointing_enable({"use_reentrant": False})
    model.train()
    return model, torch.optim.AdamW(groups)


def rows(kind: str, shapes: FEALLMConfig, count: int, device: str) -> dict[str, torch.Tensor]:
    """Return a batch for a configuration: random pictures with `WORDS` tokens of text each."""
    generator = torch.Generator().manual_seed(0)
    side, crop, own = shapes.vision_config.image_size, shapes.crop_size, kind == "feallm"
    ids = torch.randint(5, shapes.image_token_id, (count, WORDS), generator=generator)
    placeholders = torch.full((count, shapes.grid_size**2 + own), shapes.image_token_id)
    ids = torch.cat([ids[:, :1], placeholders, ids[:, 1:]], dim=1)
    labels = ids.clone()
    labels[:, :-ANSWER] = IGNORE_INDEX
    batch = {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "labels": labels,
        "pixel_values": torch.randn(count, 3, side, side, generator=generator),
    }
    if own:
        crops = (count, shapes.num_crops, 3, crop, crop)
        batch["pixel_values_local"] = torch.randn(crops, generator=generator)
    return {name: value.to(device) for name, value in batch.items()}


def loss_of(kind: str, model, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Return the loss as each is trained by; ours as `train.train` computes it."""
    inputs = dict(batch)
    with training_precision(model):
        if kind == "llava":
            return model(**inputs).loss
        labels = inputs.pop("labels")[:, 1:]
        learned = labels != IGNORE_INDEX
        logits = model(**inputs).logits[:, :-1][learned]
        return F.cross_entropy(logits.float(), labels[learned])


def step(kind: str, model, optimizer, batch: dict[str, torch.Tensor]) -> float:
    """Take one optimizer step; return its seconds."""
    device = batch["input_ids"].device.type
    begun = time.perf_counter()
    loss_of(kind, model, batch).backward()
    optimizer.step()
    optimizer.zero_grad()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - begun


def train_alone(kind: str, args: argparse.Namespace) -> float:
    """Train one model for two steps; return what that added to this process's peak, in GiB."""
    on_gpu = args.device == "cuda"
    before = peak_memory(on_gpu)
    model, optimizer = build(kind, args.layers, args.device)
    batch = rows(kind, config(args.layers), args.rows, args.device)
    for _ in range(2):
        step(kind, model, optimizer, batch)
    return peak_memory(on_gpu) - before


def count_memory(kind: str, layers: int, count: int) -> float:
    """Return the most that tensors take in a training step of `count` rows in bf16, in GiB.

    Nothing is computed.
    """
    batch = rows(kind, config(layers), count, "cpu")
    with Uncomputed() as memory:
        model, optimizer = build(kind, layers, "cpu", torch.bfloat16)
        for _ in range(2):  # the optimizer's own come with the first
            step(kind, model, optimizer, batch)
    return memory.peak / 2**30


def memory_alone(kind: str, args: argparse.Namespace) -> float:
    """Return what `train_alone` returns in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.training", "--alone", kind]
    command += ["--layers", str(args.layers), "--rows", str(args.rows), "--device", args.device]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return float(done.stdout.strip().splitlines()[-1])


def alternate(args: argparse.Namespace) -> dict[str, list[float]]:
    """Return the seconds of each model's steps; the first of each is not counted."""
    models = {kind: build(kind, args.layers, args.device) for kind in KINDS}
    shapes = config(args.layers)
    batches = {kind: rows(kind, shapes, args.rows, args.device) for kind in KINDS}
    seconds: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for turn in range(args.steps + 1):
        for kind in KINDS:
            took = step(kind, *models[kind], batches[kind])
            if turn:
                seconds[kind].append(took)
    return seconds


def ratios(
    seconds: dict[str, list[float]],
    tokens: dict[str, int],
    memory: dict[str, float],
    counted: dict[str, float],
) -> dict[str, object]:
    """Return tokens per second, memory and FEALLM's share of LLaVA's.

    Args:
        seconds: of each model's steps, in the order they alternated.
        tokens: of a step.
        memory: in GiB, measured.
        counted: in GiB, at the true 7B's sizes.
    """
    speeds = {kind: [tokens[kind] / took for took in seconds[kind]] for kind in KINDS}
    turns = zip(speeds["feallm"], speeds["llava"], strict=True)
    return {
        "tokens_per_second": {k: round(statistics.median(v), 1) for k, v in speeds.items()},
        "peak_memory_gib": {k: round(v, 2) for k, v in memory.items()},
        "speed_ratio": round(statistics.median(ours / theirs for ours, theirs in turns), 3),
        "memory_ratio": round(memory["feallm"] / memory["llava"], 3),
        "counted_7b_gib": {k: round(v, 2) for k, v in counted.items()},
        "counted_7b_ratio": round(counted["feallm"] / counted["llava"], 3),
    }


def table(result: dict) -> str:
    """Return a result as the README's table."""
    heads = ["", "tokens per second", "peak memory", "counted at 7B, bf16, 8 rows"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for kind, name in zip(KINDS, ("LLaVA-1.5 with LoRA", "FEALLM, stage 2"), strict=True):
        speed, memory = result["tokens_per_second"][kind], result["peak_memory_gib"][kind]
        counted = result["counted_7b_gib"][kind]
        lines.append(f"| {name} | {speed:,.1f} | {memory:.2f} GiB | {counted:.2f} GiB |")
    shares = [result[f"{part}_ratio"] for part in ("speed", "memory", "counted_7b")]
    return "\n".join([*lines, f"| FEALLM / LLaVA | {' | '.join(f'{s:.3f}' for s in shares)} |"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="2 layers, 1 row, 7 steps")
    parser.add_argument("--layers", type=int, help="of the language model (7B: 32)")
    parser.add_argument("--rows", type=int, help="in a step")
    parser.add_argument("--steps", type=int, help="measured for each model")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--alone", choices=KINDS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    usual = (2, 1, 7) if args.quick else (32, 8, 10)
    args.layers, args.rows, args.steps = (
        given or default
        for given, default in zip((args.layers, args.rows, args.steps), usual, strict=True)
    )
    if args.alone:
        print(train_alone(args.alone, args))
        return
    counted = {kind: count_memory(kind, **COUNTED) for kind in KINDS}
    memory = {kind: memory_alone(kind, args) for kind in KINDS}
    seconds = alternate(args)
    shapes = config(args.layers)
    tokens = {k: rows(k, shapes, args.rows, "cpu")["input_ids"].numel() for k in KINDS}
    result = {
        "device": torch.cuda.get_device_name() if args.device == "cuda" else "CPU",
        "threads": torch.get_num_threads(),
        "dtype": name_of_dtype(args.device),
        "layers": args.layers,
        "rows": args.rows,
        "steps": args.steps,
        **ratios(seconds, tokens, memory, counted),
    }
    print(table(result))
    print(json.dumps(result))


if __name__ == "__main__":
    main()

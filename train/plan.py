"""What a stage would need, before anything is loaded: sizes, memory, time (`--dry-run`).

The model is built without memory (torch's meta device). Memory is what must be there for certain,
weights, gradients and optimizer, and an estimate of the activations; time is floating-point
operations at a share of a device's peak that well-fed training reaches.
"""

import math
from dataclasses import dataclass

import torch

from feallm import FEALLMConfig, FEALLMForConditionalGeneration
from feallm.memory import BYTES, can_be_quantized
from train.parts import Lora, choose_trainable

PEAK = {
    "H100": 989e12,
    "H200": 989e12,
    "A100": 312e12,
    "L40": 181e12,
    "4090": 165e12,
    "A10": 125e12,
}
"""Dense bf16 operations per second by the maker's data sheet."""
SHARE_OF_PEAK = 0.4
TRAINED_BYTES = 4 + 4 + 8
"""Of a trained weight: fp32, its gradient and AdamW's two moments."""


@dataclass(frozen=True)
class Plan:
    """Sizes in parameters, memory in bytes for each device, time in seconds."""

    frozen: int
    trained: int
    weights: float
    training: float
    activations: float
    steps: int
    seconds: float
    device: str

    def __str__(self) -> str:
        gib = [v / 2**30 for v in (self.weights, self.training, self.activations)]
        return (
            f"frozen {self.frozen / 1e6:,.1f} M parameters, trained {self.trained / 1e6:,.1f} M\n"
            f"memory: weights {gib[0]:.1f} GiB, gradients and optimizer {gib[1]:.1f}, "
            f"activations about {gib[2]:.1f}; together about {sum(gib):.1f} GiB on each device\n"
            f"{self.steps:,} steps, about {spoken(self.seconds)} on {self.device}"
        )


def spoken(seconds: float) -> str:
    """Return a time in the unit that fits it."""
    for unit, size in (("hours", 3600), ("minutes", 60)):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} seconds"


def plan(
    model_config: FEALLMConfig,
    learning_rates: dict[str, float],
    lora: Lora | None,
    *,
    rows: int,
    tokens: float,
    batch_size: int,
    micro_batch_size: int,
    steps: int,
    epochs: float,
    gradient_checkpointing: bool,
    quantization: str | None,
    weight_bytes: int,
    processes: int,
) -> Plan:
    """Return what a stage would need.

    Args:
        rows, tokens: how many rows there are, and tokens of a row on average.
        steps, epochs: optimizer steps, or where they are negative, passes over the rows.
        weight_bytes: of a frozen weight that is not quantized.
        processes: devices, each with a whole copy of the model.
    """
    with torch.device("meta"):
        model = FEALLMForConditionalGeneration(model_config)
    choose_trainable(model, learning_rates, lora)
    counts = {True: 0, False: 0}
    quantized = 0
    for name, parameter in model.named_parameters():
        counts[parameter.requires_grad] += parameter.numel()
        if quantization and can_be_quantized(name, parameter) and not parameter.requires_grad:
            quantized += parameter.numel()
    weights = weight_bytes * (counts[False] - quantized)
    weights += BYTES.get(quantization, 0) * quantized
    text = model_config.text_config
    layer = text.hidden_size * 2 * (14 + 3 * text.intermediate_size / text.hidden_size)
    kept = 2 * text.hidden_size * text.num_hidden_layers + layer
    if not gradient_checkpointing:
        kept = layer * text.num_hidden_layers
    logits = text.vocab_size * 10  # bf16, then fp32 and its gradient where there is an answer
    activations = micro_batch_size * tokens * (kept + logits)
    language = sum(p.numel() for n, p in model.named_parameters() if "language_model.layers" in n)
    passes = 6 if gradient_checkpointing else 4  # forward, backward to the inputs, forward again
    work = tokens * (passes * language + 2 * counts[True])
    steps = steps if steps > 0 else math.ceil(epochs * math.ceil(rows / batch_size))
    name, peak = device_peak()
    seconds = steps * batch_size * work / (SHARE_OF_PEAK * peak * processes)
    return Plan(
        frozen=counts[False],
        trained=counts[True],
        weights=weights,
        training=TRAINED_BYTES * counts[True],
        activations=activations,
        steps=steps,
        seconds=seconds,
        device=f"{processes} x {name}",
    )


def device_peak() -> tuple[str, float]:
    """Return the name and the peak of the GPU that is here; of an A100 where there is none."""
    if torch.cuda.is_available():
        name = torch.cuda.get_device_name()
        for key, peak in PEAK.items():
            if key in name:
                return name, peak
    return "A100", PEAK["A100"]

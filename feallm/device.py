"""Where a model computes, and in what precision."""

import os

import torch

from feallm.loading import ModelError

DTYPES = {
    "auto": None,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "fp32": torch.float32,
}
"""What `--dtype` may be; "auto" is `best_dtype`."""


def best_device() -> torch.device:
    """CUDA where there is any, of several processes each its own; else the CPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))


def device_of(name: str) -> torch.device:
    """Return the device of an option: "auto" is `best_device`, else torch's name of one.

    Raises:
        ModelError: there is none of this name here.
    """
    if name == "auto":
        return best_device()
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if not device or device.type not in ("cpu", "cuda"):
        raise ModelError(f"{name} is no device of ours: say auto, cpu or cuda.")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ModelError(f"There is no {name} here: say cpu, or auto.")
    return device


def best_dtype(device: torch.device) -> torch.dtype:
    """bf16 where the device computes in it, else fp16 on a GPU and fp32 on a CPU.

    CPUs do with AVX512-BF16, which all with AMX have: the mini's analysis takes two thirds of the
    time it takes in fp32, its training half.
    """
    if device.type == "cuda":
        # torch says that older ones support bf16 too: they emulate it
        computes = torch.cuda.get_device_capability(device)[0] >= 8
        return torch.bfloat16 if computes else torch.float16
    return torch.bfloat16 if torch.cpu._is_avx512_bf16_supported() else torch.float32


def trains_in_bf16(model: torch.nn.Module, device: torch.device | None = None) -> bool:
    """Return whether a model trains under bf16 autocast: all do but on CPUs that emulate bf16.

    Those take three hundred times longer in it than in fp32 (AVX2). Weights in bf16, which rest
    beside trained ones in fp32, leave no choice.

    Args:
        device: where it will train (default: `best_device`).
    """
    device = device or best_device()
    if device.type == "cuda" or best_dtype(device) is torch.bfloat16:
        return True
    return any(p.dtype is torch.bfloat16 for p in model.parameters())


def training_precision(model: torch.nn.Module) -> torch.autocast:
    """Return the context in which a model computes where it lies as it does when it trains."""
    device = next(model.parameters()).device
    return torch.autocast(device.type, torch.bfloat16, enabled=trains_in_bf16(model, device))

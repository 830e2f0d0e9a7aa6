"""The memory a model takes to run, told from its configuration before anything is loaded."""

from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

from feallm import FEALLMConfig, FEALLMForConditionalGeneration
from feallm.graphs import length_of
from feallm.loading import ModelError

BYTES = {"int8": 1.0, "nf4": 0.53}
"""Of a quantized weight of the language model; NF4 with its doubly quantised scales."""
VOICES = 8
"""Answers at most that are written at once; more wait."""
SMALL_TALK = 256 * 2**20
"""Bytes of cache that are always there for an analysis, however small the model."""
ANALYSIS_TOKENS = 256
"""Tokens at most, beside the face's, that an analysis reads to decide."""
CONTAINER_LIMIT = Path("/sys/fs/cgroup/memory.max")


@dataclass(frozen=True)
class Need:
    """Bytes: of the weights, and of the key-value cache of the longest talk the model can hold."""

    weights: float
    talk: float

    @property
    def total(self) -> float:
        return self.weights + self.talk


def can_be_quantized(name: str, parameter: torch.Tensor) -> bool:
    """Tell whether bitsandbytes quantizes this parameter: a linear map of the language model."""
    return ".language_model.layers." in name and parameter.dim() == 2


def need(config: FEALLMConfig, dtype: torch.dtype, quantization: str | None) -> Need:
    """Return what a model of these sizes needs; nothing is allocated."""
    with torch.device("meta"):
        model = FEALLMForConditionalGeneration(config)
    weights = 0.0
    for name, parameter in model.named_parameters():
        quantized = quantization and can_be_quantized(name, parameter)
        weights += parameter.numel() * (BYTES[quantization] if quantized else dtype.itemsize)
    return Need(weights, longest_talk(config, dtype))


def longest_talk(config: FEALLMConfig, dtype: torch.dtype) -> int:
    """Return the bytes of the key-value cache of the longest talk the model can hold."""
    return token(config, dtype) * config.text_config.max_position_embeddings


def token(config: FEALLMConfig, dtype: torch.dtype) -> int:
    """Return the bytes of one token's key and value in every layer."""
    text = config.text_config
    width = text.num_key_value_heads * text.head_dim
    return 2 * text.num_hidden_layers * width * dtype.itemsize


def rows(config: FEALLMConfig, dtype: torch.dtype) -> int:
    """Return how many faces may be read at once in the memory of the longest talk."""
    each = token(config, dtype) * (config.num_image_tokens + ANALYSIS_TOKENS)
    return max(1, max(longest_talk(config, dtype), SMALL_TALK) // each)


def free(device: torch.device) -> int:
    """Return the bytes that can still be had on a device; a container's limit counts too."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    available = psutil.virtual_memory().available
    limit = CONTAINER_LIMIT.read_text().strip() if CONTAINER_LIMIT.exists() else "max"
    if limit == "max":
        return available
    return max(0, min(available, int(limit) - psutil.Process().memory_info().rss))


def voices(config: FEALLMConfig, device: torch.device, dtype: torch.dtype, kept: int) -> int:
    """Return how many answers may be written at once beside a loaded model: 1 to `VOICES`.

    Each may need the longest talk's cache twice, while caches are joined or parted; room for an
    analysis and for the talks that wait (`kept`, in bytes) is left aside.
    """
    talk = longest_talk(config, dtype)
    return int(min(VOICES, max(1, (free(device) - kept - talk) // (2 * talk))))


def spares_graphs(
    config: FEALLMConfig, device: torch.device, dtype: torch.dtype, kept: int
) -> bool:
    """Tell whether a loaded model leaves room for its graphs' cache beside what `voices` counts.

    They are a luxury: what `check` says is needed does without.
    """
    beside = kept + 3 * longest_talk(config, dtype)
    return free(device) - beside >= token(config, dtype) * length_of(config)


def check(
    name: str,
    config: FEALLMConfig,
    device: torch.device,
    dtype: torch.dtype,
    quantization: str | None,
) -> str:
    """Return a sentence on the memory a model needs.

    Raises:
        ModelError: there is less; its text says what would help.
    """
    needed, there = need(config, dtype, quantization).total, free(device)
    kind = quantization or str(dtype).removeprefix("torch.")
    sentence = (
        f"{name} needs about {_gib(needed)} of memory on {device} ({kind}); {_gib(there)} are free."
    )
    if needed <= there:
        return sentence
    smaller = {q: need(config, dtype, q).total for q in BYTES if q != quantization}
    fitting = [q for q, size in sorted(smaller.items(), key=lambda i: -i[1]) if size <= there]
    if fitting:
        sentence += f" With --quantization {fitting[0]} it needs {_gib(smaller[fitting[0]])}."
    raise ModelError(sentence)


def _gib(size: float) -> str:
    return f"{size / 2**30:.1f} GiB"

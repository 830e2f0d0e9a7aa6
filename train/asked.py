"""What a run was asked, kept in its checkpoints: nobody goes on with something else unawares.

A checkpoint gives back weights, optimizer, schedule and the position in the data. With another
batch, schedule or base, or other rows, these would go on as a run that nobody asked for.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from torch import nn

from train.checkpoints import ASKED, CheckpointError
from train.stage import TrainConfig

FREE = (
    *("micro_batch_size", "gradient_checkpointing", "workers"),
    *("logging_steps", "save_steps", "sample_steps"),
)
"""Settings that change how a step is computed or watched, not what it learns."""
BEGINNING = 16
"""Elements of each frozen weight that tell one base from another."""


def what_is_asked(
    config: TrainConfig, model: nn.Module, rows: int, files: Sequence[Path] = ()
) -> dict[str, object]:
    """Return what a run must be asked again to go on from its checkpoints, as JSON has it.

    Args:
        model: with what it trains chosen; only the frozen weights are looked at, since a
            checkpoint holds the others.
        rows: how many rows the data gives.
        files: what the rows are read from; their names and sizes count, not where they lie.
    """
    settings = {n: v for n, v in _flat(asdict(config)).items() if n.split(".")[0] not in FREE}
    sources = {"rows": rows, "data": ", ".join(map(_named, files))}
    return settings | sources | {"frozen weights": frozen_digest(model)}


def refuse_another(checkpoint: str, asked: dict[str, object]) -> None:
    """Refuse to go on from a checkpoint of a run that was asked something else.

    Raises:
        CheckpointError: it names what changed; or the checkpoint does not say what was asked.
    """
    try:
        before = json.loads((Path(checkpoint) / ASKED).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(
            f"{checkpoint} does not say what its run was asked ({ASKED} is missing): "
            "choose another --out."
        ) from None
    changed = [
        f"{name} was {before.get(name, 'not set')} and is {asked.get(name, 'not set')}"
        for name in {**before, **asked}
        if before.get(name) != asked.get(name)
    ]
    if changed:
        raise CheckpointError(
            f"{checkpoint} is of a run that was asked something else: {'; '.join(changed)}. "
            "Ask as before to go on, or choose another --out."
        )


def frozen_digest(model: nn.Module) -> str:
    """Return a short digest of how each frozen weight begins.

    It differs for another base, dtype or quantization, and reads kilobytes of a 7B.
    """
    digest = hashlib.sha256()
    for name, weight in model.named_parameters():
        if not weight.requires_grad:
            first = weight.detach().flatten()[:BEGINNING].contiguous().cpu()
            digest.update(name.encode() + first.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:12]


def _flat(table: dict, before: str = "") -> dict[str, object]:
    """Return {"lora.rank": 4, ...} of nested tables."""
    flat = {}
    for name, value in table.items():
        inner = _flat(value, f"{before}{name}.") if isinstance(value, dict) else None
        flat |= {f"{before}{name}": value} if inner is None else inner
    return flat


def _named(path: Path) -> str:
    return f"{path.name} ({path.stat().st_size:,} bytes)" if path.is_file() else path.name

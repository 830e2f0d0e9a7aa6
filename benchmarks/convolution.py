"""Time a training step of the LCA with PyTorch's gradient of the weights and with ours.

Run as:

    python -m benchmarks.convolution [--batch 64] [--steps 8]

The two are timed in turn, so that a busy machine slows both. The last line is one JSON object.
"""

import argparse
import copy
import json
import statistics
import time

import torch

from feallm.device import training_precision
from feallm.lca import LocalClueAggregator
from train.mini.convolution import quicken
from train.mini.sizes import mini_config


def step_seconds(lca: LocalClueAggregator, crops: torch.Tensor) -> float:
    """Return the seconds of one forward and backward pass as the stages train."""
    start = time.perf_counter()
    with training_precision(lca):
        token = lca(crops)[1]
    token.float().sum().backward()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=8)
    args = parser.parse_args()
    config = mini_config(vocab_size=512)
    plain = LocalClueAggregator(
        num_crops=16,
        channels=config.lca_channels,
        depths=config.lca_depths,
        hidden_size=config.text_config.hidden_size,
        crop_embedding=True,
        norm="batch",
    ).to(memory_format=torch.channels_last)
    for weight in plain.parameters():
        torch.nn.init.normal_(weight, std=0.02)
    quick = copy.deepcopy(plain)
    quicken(quick)
    crops = torch.randn(args.batch, 16, 3, config.crop_size, config.crop_size)
    seconds = {"PyTorch's": [], "quick": []}
    for step in range(args.steps + 1):
        for name, lca in zip(seconds, (plain, quick), strict=True):
            taken = step_seconds(lca, crops)
            if step:  # the first of each sets its kernels up
                seconds[name].append(taken)
    medians = {name: statistics.median(s) for name, s in seconds.items()}
    for name, median in medians.items():
        print(f"{name:>10}  {median:.3f} s a step of {args.batch} faces")
    ratio = statistics.median(
        a / b for a, b in zip(seconds["PyTorch's"], seconds["quick"], strict=True)
    )
    print(json.dumps({"seconds": medians, "ratio": round(ratio, 2)}))


if __name__ == "__main__":
    main()

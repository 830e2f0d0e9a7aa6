"""Average minis of which one went on from another: most of what it learnt, less of what it forgot.

Run as:

    python -m train.mini.average runs/met/final runs/asked/final --out runs/mini

What the weights of a stage's end say better is kept by half of its way, what they say worse is kept
less (WiSE-FT, Wortsman et al. 2022, arXiv 2109.01903).
"""

import argparse
from pathlib import Path

import torch
from torch.optim.swa_utils import AveragedModel

from feallm import FEALLMForConditionalGeneration, FEALLMProcessor


def average(folders: list[Path]) -> FEALLMForConditionalGeneration:
    """Return the mean of the models' weights, with the first one's configuration.

    Raises:
        RuntimeError: the models are of different sizes.
    """
    models = [
        FEALLMForConditionalGeneration.from_pretrained(f, dtype=torch.float32) for f in folders
    ]
    mean = AveragedModel(models[0])
    for other in models:
        models[0].load_state_dict(other.state_dict())  # refuses another size, by name
        mean.update_parameters(models[0])
    return mean.module


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("models", type=Path, nargs="+", help="folders of minis of one size")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    average(args.models).save_pretrained(args.out)
    FEALLMProcessor.from_pretrained(args.models[0]).save_pretrained(args.out)
    print(f"the mean of {len(args.models)} minis in {args.out}")


if __name__ == "__main__":
    main()

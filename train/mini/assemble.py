"""Put the mini together: its trained eyes, a fresh language model, its tokenizer and processor.

Run as:

    python -m train.mini.assemble --vision runs/mini-vision/vision.pt --out runs/mini-start
"""

import argparse
from pathlib import Path

import torch
from transformers import CLIPImageProcessor

from feallm import FEALLMForConditionalGeneration, FEALLMProcessor
from train.mini.sizes import MEAN, STD, mini_config
from train.mini.tokenizer import train_tokenizer


def assemble(vision: Path | None, tokenizer, seed: int, **changes):
    """Return the model and its processor; without `vision` its eyes are untrained.

    `changes` are fields of `FEALLMConfig` (ablations): what they switch off is left out, and what
    no longer fits the trained eyes starts anew.
    """
    torch.manual_seed(seed)
    config = mini_config(vocab_size=len(tokenizer), **changes)
    model = FEALLMForConditionalGeneration(config)
    if vision:
        state = torch.load(vision, weights_only=True)
        if changes:
            mine = model.model.state_dict()
            state = {k: v for k, v in state.items() if k in mine and v.shape == mine[k].shape}
        missing, unexpected = model.model.load_state_dict(state, strict=False)
        foreign = [k for k in missing if not k.startswith("language_model.")]
        if not changes and (foreign or unexpected):
            raise ValueError(f"{vision} does not fit: missing {foreign}, unexpected {unexpected}.")
    size = config.vision_config.image_size
    images = CLIPImageProcessor(
        size={"shortest_edge": size},
        crop_size={"height": size, "width": size},
        image_mean=list(MEAN),
        image_std=list(STD),
    )
    # the rare expressions come from the one coloured set: with colour, colour itself reads as them
    return model, FEALLMProcessor.for_config(config, images, tokenizer, greyscale=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--vision", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--vocab-size", type=int, default=2048)
    parser.add_argument("--conversations", type=int, default=20_000, help="texts for the tokenizer")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    tokenizer = train_tokenizer(args.vocab_size, args.conversations, args.seed)
    model, processor = assemble(args.vision, tokenizer, args.seed)
    model.save_pretrained(args.out)
    processor.save_pretrained(args.out)
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters in {args.out}")


if __name__ == "__main__":
    main()

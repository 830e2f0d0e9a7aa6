"""Put the mini together: its trained eyes, a fresh language model, its tokenizer and processor.

Run as:

    python -m train.mini.assemble --vision runs/mpp/vision.pt --out runs/start

With `--speech FOLDER` the language model and its tokenizer are those of an earlier mini, to give a
model that speaks other eyes; it then learns to read them in fewer steps.
"""

import argparse
from pathlib import Path

import torch
from transformers import CLIPImageProcessor

from feallm import FEALLMForConditionalGeneration, FEALLMProcessor
from feallm.configuration import CROP_GROUPS
from feallm.crops import list_crops
from train.mini.eyes import EYES, trained_eyes
from train.mini.sizes import MEAN, STD, fields_of, mini_config
from train.mini.tokenizer import train_tokenizer


def without_switched_off(state: dict[str, torch.Tensor], config) -> dict[str, torch.Tensor]:
    """Return the whole model's trained eyes as far as a model of `config` has them.

    Of the crops that `config` leaves out, the embedding and the share in F_local go.
    """
    local = ("mpp.clue_proj", "mpp.local_", "mpp.scale_local")
    off = (
        *(("lca.", *local) if not config.use_lca else ()),
        *(("mpp.",) if not config.use_mpp else ()),
        *(("mpp.shallow_",) if not config.mpp_shallow else ()),
        *(local if not config.mpp_local else ()),
    )
    state = {k: v for k, v in state.items() if not k.startswith(off)}
    if config.use_lca and tuple(config.crop_groups) != CROP_GROUPS:
        crops, kept = list_crops(CROP_GROUPS), list_crops(config.crop_groups)
        rows = [i for i, crop in enumerate(crops) if crop in kept]
        to_token = state["lca.to_token.weight"]  # (D_t, C * D_c)
        to_token = to_token.unflatten(1, (len(crops), -1))[:, rows].flatten(1)
        embedding = state["lca.crop_embedding"][rows]
        state |= {"lca.to_token.weight": to_token, "lca.crop_embedding": embedding}
    return state


def assemble(vision: Path | None, tokenizer, seed: int, **changes):
    """Return the model and its processor; without `vision` its eyes are untrained.

    `changes` are fields of `FEALLMConfig` that switch parts off or leave crops out (ablations).

    Raises:
        ValueError: the trained eyes are of another size.
    """
    torch.manual_seed(seed)
    state = trained_eyes(vision) if vision else {}
    config = mini_config(vocab_size=len(tokenizer), **(fields_of(state) | changes))
    model = FEALLMForConditionalGeneration(config)
    if vision:
        state = without_switched_off(state, config)
        missing, unexpected = model.model.load_state_dict(state, strict=False)
        foreign = [k for k in missing if not k.startswith("language_model.")]
        if foreign or unexpected:
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


def speak_as(model: FEALLMForConditionalGeneration, earlier: Path) -> None:
    """Give a model the language model of an earlier one, in place."""
    other = FEALLMForConditionalGeneration.from_pretrained(earlier, dtype=torch.float32)
    model.model.language_model.load_state_dict(other.model.language_model.state_dict())
    model.tie_weights()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--vision", type=Path, required=True, help=EYES)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--vocab-size", type=int, default=2048)
    parser.add_argument("--conversations", type=int, default=20_000, help="texts for the tokenizer")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--speech", type=Path, help="an earlier mini, whose language model is kept")
    args = parser.parse_args()
    if args.speech:
        tokenizer = FEALLMProcessor.from_pretrained(args.speech).tokenizer
    else:
        tokenizer = train_tokenizer(args.vocab_size, args.conversations, args.seed)
    model, processor = assemble(args.vision, tokenizer, args.seed)
    if args.speech:
        speak_as(model, args.speech)
    model.save_pretrained(args.out)
    processor.save_pretrained(args.out)
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters in {args.out}")


if __name__ == "__main__":
    main()

"""Where a stage's rows come from: packed faces (the mini) or LLaVA's instruction layout (the 7B).

Both give three things: the rows, how some become a batch, and the order they come in.
"""

from pathlib import Path

from torch.utils.data import Dataset

from feallm import FEALLMProcessor
from train.data import DataError, Instructions, Pad, Pictures, read_rows
from train.mini.faces import Augment, Faces
from train.mini.instruct import Collate, Conversations
from train.order import Order
from train.stage import TrainConfig


def packed_faces(
    faces: Faces, processor: FEALLMProcessor, config: TrainConfig
) -> tuple[Dataset, Collate, Order]:
    """Return packed faces with conversations, how they become a batch, and their order."""
    options = config.faces
    augment = Augment.of(processor, train=True, strength=options.strength)
    dataset = Conversations(
        faces,
        processor.tokenizer,
        processor.num_image_tokens,
        config.seed,
        options.kinds,
        options.told_share,
        options.told_turns,
    )
    order = Order(
        dataset,
        config.seed,
        weights=faces.sampling_weights(options.rare_power, options.as_met),
        lengths=dataset.token_count,
        batch_size=config.batch_size,
    )
    return dataset, Collate(augment, processor.tokenizer, config.seed), order


def instructions(
    data: Path, images: Path, processor: FEALLMProcessor, config: TrainConfig, out: Path
) -> tuple[Dataset, Pad, Order]:
    """Return the rows of a file with their pictures, how they become a batch, and their order.

    Rows whose picture is missing are left out, counted and named in OUT/missing.txt.

    Raises:
        DataError: the file or the pictures cannot be used.
    """
    rows, pictures = read_rows(data), Pictures(images)
    missing = set(pictures.missing([r.image for r in rows]))
    if missing:
        out.mkdir(parents=True, exist_ok=True)
        (out / "missing.txt").write_text("\n".join(sorted(missing)) + "\n", encoding="utf-8")
        rows = [r for r in rows if r.image not in missing]
        print(f"{len(missing)} pictures are missing, listed in {out / 'missing.txt'}")
    if not rows:
        raise DataError(f"None of the pictures named in {data} is in {images}.")
    dataset = Instructions(
        rows,
        pictures,
        processor,
        plain=config.layout == "plain",
        max_length=config.max_length,
        seed=config.seed,
        broken=out / "broken.txt",
    )
    order = Order(dataset, config.seed, lengths=dataset.lengths, batch_size=config.batch_size)
    return dataset, Pad(processor.tokenizer.pad_token_id), order

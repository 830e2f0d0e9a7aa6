"""In which order a stage draws its rows: the same after a stop as without one.

The order of an epoch follows from the seed and the epoch's number alone, and with it whatever a
dataset draws for an item (`draws`). So a run that goes on from a checkpoint sees what it would
have seen, and several processes see one order.
"""

import random
from collections.abc import Callable, Iterator, Sequence

import torch
from torch.utils.data import Dataset, Sampler
from transformers.trainer_pt_utils import get_length_grouped_indices


def draws(seed: int, epoch: int, index: int) -> random.Random:
    """Return the random numbers of one item in one epoch."""
    return random.Random(f"{seed} {epoch} {index}")


def spread(rows: int, count: int) -> range:
    """Return about `count` of so many rows, evenly over all; never fewer where there are enough."""
    return range(0, rows, max(1, rows // count))


FITTED_ON = 1000
"""About so many faces of FER+'s valid split, spread over it, calibrate the shipped mini;
`train.evaluate` counts the others apart."""

POOL = 50
"""Steps whose drawn rows are shared out by their length."""


class Order(Sampler[int]):
    """The rows of each epoch: weighted with replacement, or shuffled; grouped by length.

    Args:
        dataset: knows the epoch's number (`epoch`).
        seed: with the epoch's number it gives the order.
        weights: (n,) how likely each row is drawn; rows are then drawn with replacement.
        lengths: (n,) of the rows: those of one batch are then of similar length, the longest batch
            first, so that memory fails at once or not at all. Beside weights a function of a row,
            asked as rows are drawn: conversations are written anew in every epoch.
        batch_size: rows of an optimizer step over all processes.
    """

    def __init__(
        self,
        dataset: Dataset,
        seed: int,
        weights: Sequence[float] | None = None,
        lengths: Sequence[int] | Callable[[int], int] | None = None,
        batch_size: int = 1,
    ):
        self.dataset, self.seed = dataset, seed
        self.weights, self.lengths, self.batch_size = weights, lengths, batch_size

    def __len__(self) -> int:
        return len(self.dataset)

    def set_epoch(self, epoch: int) -> None:
        """The Trainer calls this before each epoch, or the dataset's, as it can reach them."""
        self.dataset.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        seed = draws(self.seed, self.dataset.epoch, -1).getrandbits(62)
        generator = torch.Generator().manual_seed(seed)
        if self.weights is not None:
            weights = torch.as_tensor(self.weights, dtype=torch.double)
            drawn = torch.multinomial(weights, len(self), replacement=True, generator=generator)
            yield from self._grouped(drawn.tolist(), generator) if self.lengths else drawn.tolist()
        elif self.lengths is not None:
            yield from get_length_grouped_indices(
                self.lengths, self.batch_size, generator=generator
            )
        else:
            yield from torch.randperm(len(self), generator=generator).tolist()

    def _grouped(self, rows: list[int], generator: torch.Generator) -> Iterator[int]:
        """Rearrange rows, a pool of steps at a time, so that those of a step are of like length."""
        size = self.batch_size
        for first in range(0, len(rows), POOL * size):
            pool = rows[first : first + POOL * size]
            steps, short = divmod(len(pool), size)  # the epoch's last step may be a short one
            ordered = sorted(pool[: steps * size], key=self.lengths)
            for k in torch.randperm(steps, generator=generator).tolist():
                yield from ordered[k * size : (k + 1) * size]
            yield from pool[len(pool) - short :]

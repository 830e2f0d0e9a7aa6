"""Several continuations of one text in one row, so that what they share is read once.

A row is a tree of branches. A token attends to its own branch and to the branches that led to it,
and its position counts along that way: each is read as if its way stood alone (a mask over a tree,
as SpecInfer verifies its guesses with, arXiv 2305.09781).
"""

from dataclasses import dataclass, field

import torch

ROOT = -1
"""The parent of a branch that begins the text; the token before a text."""


@dataclass
class Tree:
    """The tokens of a row, branch after branch.

    For each token: `ids`, its position on its way, its `branch`, and `before`, the index of the
    token that it follows (`ROOT` where it begins the text). `parents` has one entry per branch.
    """

    ids: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    branches: list[int] = field(default_factory=list)
    before: list[int] = field(default_factory=list)
    parents: list[int] = field(default_factory=list)
    _ends: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.ids)

    def add(self, ids: list[int], parent: int = ROOT) -> int:
        """Add a branch that goes on where its parent ends; return its number."""
        last = self._ends[parent] if parent != ROOT else ROOT
        first = self.positions[last] + 1 if last != ROOT else 0
        start, number = len(self.ids), len(self.parents)
        self.ids += ids
        self.positions += range(first, first + len(ids))
        self.branches += [number] * len(ids)
        self.before += [last, *range(start, start + len(ids) - 1)] if ids else []
        self.parents.append(parent)
        self._ends.append(len(self.ids) - 1 if ids else last)
        return number

    def mask(self) -> torch.Tensor:
        """Return (T, T) bool: whether a token (row) attends to another (column)."""
        count = len(self.parents)
        ways = torch.eye(count, dtype=torch.bool)
        for number, parent in enumerate(self.parents):  # parents come before their branches
            if parent != ROOT:
                ways[number] |= ways[parent]
        of = torch.tensor(self.branches)
        return ways[of][:, of] & torch.ones(len(of), len(of), dtype=torch.bool).tril()


def stacked(trees: list[Tree], pad_token_id: int) -> dict[str, torch.Tensor]:
    """Return trees as one batch, padded on the right.

    Returns:
        `input_ids`, `position_ids`, `before` (B, T), and `attention_mask` (B, 1, T, T) bool, in
        which padding attends to itself alone.
    """
    longest = max(map(len, trees))

    def rows(values: list[list[int]], filling: int) -> torch.Tensor:
        return torch.tensor([v + [filling] * (longest - len(v)) for v in values])

    mask = torch.eye(longest, dtype=torch.bool).repeat(len(trees), 1, 1, 1)
    for row, tree in enumerate(trees):
        mask[row, 0, : len(tree), : len(tree)] = tree.mask()
    return {
        "input_ids": rows([t.ids for t in trees], pad_token_id),
        "position_ids": rows([t.positions for t in trees], 0),
        "before": rows([t.before for t in trees], 0),
        "attention_mask": mask,
    }

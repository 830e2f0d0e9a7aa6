"""The paper's ablations: what each variant leaves out, at any size of the model."""

import statistics
from dataclasses import dataclass, field

from train.figures import table

PARTS = {"s": "summary", "m": "movement", "r": "reasoning"}


@dataclass(frozen=True)
class Variant:
    """One row: what differs from the whole model, in its configuration and in its data."""

    name: str
    paper: str
    """Where the paper shows the same comparison."""
    config: dict = field(default_factory=dict)
    """Fields of `FEALLMConfig`."""
    kinds: str = "eamsr"
    """Turns it is tuned on (`train.mini.instruct`): e s summary, a m movement, r reasoning.

    e and a are the short questions on expression and units, by which the mini is measured.
    """

    @property
    def parts(self) -> tuple[str, ...]:
        """Parts of the FEA answer it is tuned on."""
        return tuple(part for kind, part in PARTS.items() if kind in self.kinds)

    @property
    def folder(self) -> str:
        """Its name as a folder's."""
        return self.name.replace(" ", "-").replace(":", "")

    def present(self, learning_rates: dict[str, float]) -> dict[str, float]:
        """Return the learning rates of those modules that it has."""
        switches = {"model.lca": "use_lca", "model.mpp": "use_mpp"}
        return {
            path: rate
            for path, rate in learning_rates.items()
            if self.config.get(switches.get(path, ""), True)
        }


VARIANTS = (
    Variant("whole model", "all"),
    Variant("without LCA", "Table 4", {"use_lca": False}),
    Variant("without MPP", "Table 4", {"use_mpp": False}),
    Variant("without LCA and MPP", "Table 4", {"use_lca": False, "use_mpp": False}),
    Variant("summary only", "Table 3", kinds="es"),
    Variant("movement only", "Table 3", kinds="am"),
    Variant("reasoning only", "Table 3", kinds="ear"),
    Variant("summary and movement", "Table 3", kinds="eams"),
    Variant("summary and reasoning", "Table 3", kinds="easr"),
    Variant("movement and reasoning", "Table 3", kinds="eamr"),
    Variant("crops: edges only", "Figure 5", {"crop_groups": ["edge_half", "edge_three_quarters"]}),
    Variant(
        "crops: corners only", "Figure 5", {"crop_groups": ["corner_half", "corner_three_quarters"]}
    ),
    Variant("crops: halves only", "Figure 5", {"crop_groups": ["edge_half", "corner_half"]}),
    Variant(
        "crops: three quarters only",
        "Figure 5",
        {"crop_groups": ["edge_three_quarters", "corner_three_quarters"]},
    ),
    Variant("MPP without shallow features", "Figure 6", {"mpp_shallow": False}),
    Variant("MPP without local features", "Figure 6", {"mpp_local": False}),
)


NAMES = list(dict.fromkeys([v.paper for v in VARIANTS] + [v.name for v in VARIANTS]))
"""What variants are chosen by: the paper's tables and figures, and their own names."""


def chosen(names: list[str] | None) -> list[Variant]:
    """Return the variants of these names or of these tables, all when None."""
    return [v for v in VARIANTS if not names or v.name in names or v.paper in names]


def comparison(figures: list[str], measured: dict[str, list[dict]]) -> str:
    """Return the table of the ablations.

    Args:
        figures: names of the columns.
        measured: for each variant's name the figures of each seed, None for no answer.
    """
    rows = [
        [v.name, v.paper, *(cell([seed[f] for seed in measured[v.name]]) for f in figures)]
        for v in VARIANTS
        if v.name in measured
    ]
    return table(["variant", "paper", *figures], rows)


def cell(values: list[float | None]) -> str:
    """Return "72.1 ± 0.8" (mean and standard deviation over seeds), or "" for no answer."""
    if None in values:
        return ""
    spread = f" ± {100 * statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{100 * statistics.mean(values):.1f}{spread}"

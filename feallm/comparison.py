"""Two readings side by side: what changed in the expression and in the action units."""

from dataclasses import dataclass

from feallm.facs import describe, join
from feallm.predictor import Reading


@dataclass(frozen=True)
class Comparison:
    """A first reading and a second; the units active only in one of them, or in both."""

    first: Reading
    second: Reading

    @property
    def gained(self) -> tuple[int, ...]:
        return tuple(k for k in self.second.aus if k not in self.first.aus)

    @property
    def lost(self) -> tuple[int, ...]:
        return tuple(k for k in self.first.aus if k not in self.second.aus)

    @property
    def kept(self) -> tuple[int, ...]:
        return tuple(k for k in self.first.aus if k in self.second.aus)

    def sentences(self) -> list[str]:
        """Say the differences in words, the expression first."""
        before, after = self.first.expression, self.second.expression
        shares = (
            f"{100 * self.first.expression_probabilities[before]:.0f} %",
            f"{100 * self.second.expression_probabilities[after]:.0f} %",
        )
        if before == after:
            said = [f"Both faces read as {before} ({shares[0]} first, {shares[1]} here)."]
        else:
            said = [f"From {before} ({shares[0]}) to {after} ({shares[1]})."]
        for units, words in (
            (self.gained, "Active only here: {}."),
            (self.lost, "Active only in the first: {}."),
            (self.kept, "Active in both: {}."),
        ):
            if units:
                said.append(words.format(join([describe(k) for k in units])))
        if not (self.gained or self.lost or self.kept):
            said.append("No action unit is active in either face.")
        return said

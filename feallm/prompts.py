"""The questions FEALLM asks itself and the openings its answers take.

The two short ones open every analysis: their answers are nothing but the label and the list, and
the probabilities are read where these are written. The three long ones are the paper's parts of an
FEA answer. Training mixes them with the other templates of `train.fea.questions`.
"""

from feallm.facs import AUS, describe

EXPRESSION_QUESTION = "Name the expression in this face with one word."
ACTION_UNITS_QUESTION = "List the active action units of this face."
SUMMARY_QUESTION = "Please describe the expression in this face."
MOVEMENT_QUESTION = "Please describe the action units in this face."
REASONING_QUESTION = "How do the active action units lead to this expression?"

LIST_OPENING = "Active action units:"
LIST_NONE = "none"


def list_action_units(aus: tuple[int, ...]) -> str:
    """Return the list as every movement answer opens with it: "Active action units: AU6 (...)." """
    return f"{LIST_OPENING} {', '.join(describe(k) for k in sorted(aus)) or LIST_NONE}."


def later_action_units(au: int | None) -> tuple[int, ...]:
    """Return the action units that may follow `au` in the ascending list (None: at its start)."""
    return tuple(k for k in AUS if au is None or k > au)

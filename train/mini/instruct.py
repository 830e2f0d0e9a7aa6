"""The mini's FEA instruction data: packed faces with conversations written anew in every epoch.

The expression of a conversation is drawn from the annotators' votes and its action units from
their labelled probabilities, half of the time; otherwise the most likely ones are taken. So the
model's own probabilities learn how far people agree, which a hard label would hide. The one word
that decides the expression is a hundredth of what is written, so it is taught apart too, by all
votes at once (`decision_loss`).
"""

import random

import numpy as np
import torch
from torch import nn
from torch.utils.data import Dataset

from feallm.conversation import IGNORE_INDEX, Message, encode
from feallm.facs import AUS, EXPRESSIONS, PROTOTYPES
from feallm.prompts import list_action_units
from train.data import pad
from train.fea.questions import SHORT, ask
from train.fea.talk import scope, turn
from train.fea.writer import movement, reasoning, summary
from train.mini.faces import Augment, Faces
from train.order import draws

Facts = tuple[str, tuple[int, ...] | None]
"""An expression and its action units; None where nobody and nothing could label them."""

# e short expression, a short list, s summary, m movement, r reasoning, t talk
PLANS = (  # share, turns; a talk on the page always begins with e and a
    (0.12, "ea"), (0.12, "ae"), (0.10, "ear"), (0.06, "eas"), (0.06, "eam"), (0.12, "eat"),
    (0.08, "eatt"), (0.04, "eart"), (0.04, "easr"), (0.06, "s"), (0.08, "m"), (0.06, "smr"),
    (0.03, "smrt"), (0.03, "t"),
)  # fmt: skip
NOWHERE = -1
"""Where the expression is decided in a conversation that does not ask for it."""
UNLABELLED_PLANS = ((0.5, "e"), (0.5, "et"))
KINDS = "eamsrt"


def exchange(question: str, answer: str) -> list[Message]:
    """Return a question and its answer."""
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def converse(plan: str, facts: Facts, rng: random.Random) -> list[Message]:
    """Write a conversation about one face after a plan."""
    expression, aus = facts
    messages: list[Message] = []
    for step in plan:
        if step == "e":
            question, answer = SHORT["expression"], f"{expression}."
        elif step == "a":
            question, answer = SHORT["action_units"], list_action_units(aus)
        elif step == "s":
            question, answer = ask("summary", rng), summary(expression, aus or (), rng)
        elif step == "m":
            question, answer = ask("movement", rng), movement(aus, rng)
        elif step == "r":
            question, answer = ask("reasoning", rng), reasoning(expression, aus, rng)
        else:
            question, answer = (
                turn(expression, aus, rng) if aus is not None else scope(expression, (), rng)
            )
        messages += exchange(question, answer)
    return messages


def draw_plan(aus_known: bool, rng: random.Random, kinds: str = KINDS) -> str:
    """Draw a plan and keep of it the turns of these kinds.

    Without known action units only the expression is asked for. A kind left out (an ablation)
    is never seen.

    Raises:
        ValueError: of these kinds nothing can be asked about such a face.
    """
    shares, plans = zip(*(PLANS if aus_known else UNLABELLED_PLANS), strict=True)
    kept = ["".join(step for step in plan if step in kinds) for plan in plans]
    shares = [share if plan else 0.0 for share, plan in zip(shares, kept, strict=True)]
    if not any(shares):
        raise ValueError(f"Conversations of kinds {kinds!r} say nothing of such a face.")
    return rng.choices(kept, shares)[0]


def random_conversation(rng: random.Random) -> list[Message]:
    """A conversation about a face that is not there, for the tokenizer's corpus."""
    expression = rng.choice(EXPRESSIONS)
    likely = PROTOTYPES[expression]
    aus = tuple(k for k in AUS if rng.random() < (0.7 if k in likely else 0.15))
    return converse(draw_plan(True, rng), (expression, aus), rng)


def told_facts(rng: random.Random) -> Facts:
    """Any expression, with units of its prototype and others."""
    expression = rng.choice(EXPRESSIONS)
    likely, rate = PROTOTYPES[expression], rng.random() * 0.4
    return expression, tuple(
        k for k in AUS if rng.random() < (rng.random() if k in likely else rate)
    )


def told_conversation(rng: random.Random, kinds: str = KINDS, most_turns: int = 3) -> list[Message]:
    """A conversation in which the face is told, not seen: any expression with any action units.

    Its two short answers are given, whatever the picture shows; only what follows from them is
    learned. So the texts keep to what was decided even where that is unusual.
    """
    facts = told_facts(rng)
    turns = [t for t in "smrttt" if t in kinds] or ["s"]
    plan = "ea" + "".join(rng.choice(turns) for _ in range(rng.randint(1, most_turns)))
    messages = converse(plan, facts, rng)
    return [m | {"given": True} if i in (1, 3) else m for i, m in enumerate(messages)]


def draw_facts(votes: np.ndarray, aus: np.ndarray, known: bool, rng: random.Random) -> Facts:
    """Draw what a conversation states of a face from votes (7,) and unit probabilities (12,)."""
    if rng.random() < 0.5:
        expression = EXPRESSIONS[int(votes.argmax())]
    else:
        expression = rng.choices(EXPRESSIONS, votes.tolist())[0]
    if not known:
        return expression, None
    sampled = rng.random() < 0.5
    active = tuple(
        k for k, p in zip(AUS, aus.tolist(), strict=True) if p > (rng.random() if sampled else 0.5)
    )
    return expression, active


def decision_loss(
    logits: torch.Tensor, decided_at: torch.Tensor, votes: torch.Tensor, words: torch.Tensor
) -> torch.Tensor:
    """Return the cross-entropy of the word that decides the expression against the votes.

    Args:
        logits: (B, T, V).
        decided_at: (B,) position of that word, or `NOWHERE`.
        votes: (B, 7) of sum 1.
        words: (7,) ids of the expressions' words.
    """
    asked = decided_at != NOWHERE
    said = words_at(logits[asked], decided_at[asked])
    return -(votes[asked] * said[:, words]).sum() / asked.sum().clamp(min=1)


def words_at(logits: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """Return the log-probabilities (b, V) of the word at each row's place (b,) in (b, T, V)."""
    return logits[torch.arange(len(places)), places - 1].float().log_softmax(-1)


@torch.no_grad()
def with_readings_of(
    start: nn.Module, share: float, inputs: dict[str, torch.Tensor], decision: dict
) -> dict:
    """Return the decision with a share of what a model reads of the faces in its votes.

    Args:
        start: the model, in the state whose readings are to be kept.
        share: of its reading, normalised over the seven; the rest are the votes.
        inputs: of the batch, as that model takes them.
        decision: `decided_at`, `votes` and `words`, as `decision_loss` takes them.
    """
    asked, votes = decision["decided_at"] != NOWHERE, decision["votes"].clone()
    if asked.any():
        logits = start(**{name: value[asked] for name, value in inputs.items()}).logits
        said = words_at(logits, decision["decided_at"][asked])
        read = said[:, decision["words"]].softmax(-1)
        votes[asked] = (1 - share) * votes[asked] + share * read
    return decision | {"votes": votes}


class Conversations(Dataset):
    """`Faces` with a conversation each.

    An item adds `input_ids` and `labels` lists, and `decided_at`: which of these ids is the short
    answer that names the expression, or `NOWHERE`.

    `told_share` of them is about a face that is told (`told_conversation`), with up to
    `told_turns` questions on it.
    """

    def __init__(
        self,
        faces: Faces,
        tokenizer,
        num_image_tokens: int,
        seed: int,
        kinds: str = KINDS,
        told_share: float = 0.0,
        told_turns: int = 3,
    ):
        self.faces, self.tokenizer, self.num_image_tokens = faces, tokenizer, num_image_tokens
        self.seed, self.kinds = seed, kinds
        self.told_share, self.told_turns = told_share, told_turns
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.faces)

    def set_epoch(self, epoch: int) -> None:
        """See `train.order`: an epoch's draws follow from its number."""
        self.epoch = epoch

    def __getitem__(self, i: int) -> dict:
        item, rng = self.faces[i], draws(self.seed, self.epoch, i)
        if rng.random() < self.told_share:
            return item | self._encoded(told_conversation(rng, self.kinds, self.told_turns))
        while not item["found"] and not set(self.kinds) & set("et"):
            item = self.faces[rng.randrange(len(self.faces))]
        facts = draw_facts(item["votes"], item["aus"], item["found"], rng)
        plan = draw_plan(item["found"], rng, self.kinds)
        return item | self._encoded(converse(plan, facts, rng))

    def token_count(self, i: int) -> int:
        """Return how many tokens the conversation of an item takes."""
        return len(self[i]["input_ids"])

    def _encoded(self, messages: list[Message]) -> dict:
        ids, labels = encode(messages, self.tokenizer, self.num_image_tokens)
        learnt = [label != IGNORE_INDEX for label in labels]
        starts = [i for i in range(1, len(ids)) if learnt[i] and not learnt[i - 1]]
        turns = zip(messages[::2], messages[1::2], strict=True)
        asked = [ask["content"] for ask, answer in turns if not answer.get("given")]
        at = dict(zip(asked, starts, strict=True)).get(SHORT["expression"], NOWHERE)
        return {"input_ids": ids, "labels": labels, "decided_at": at}


class Collate:
    """Augment the faces of a batch and pad its conversations on the right.

    The augmentation follows from the seed and the conversations alone: a run that goes on from a
    checkpoint disturbs its faces as it would have.
    """

    def __init__(self, augment: Augment, tokenizer, seed: int):
        self.augment, self.pad_token_id, self.seed = augment, tokenizer.pad_token_id, seed
        names = [tokenizer(e, add_special_tokens=False)["input_ids"][0] for e in EXPRESSIONS]
        self.words = torch.tensor(names)  # the token that begins each expression's name

    def __call__(self, items: list[dict]) -> dict[str, torch.Tensor]:
        words = sum(sum(item["input_ids"]) for item in items)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(draws(self.seed, words, items[0]["index"]).getrandbits(62))
            faces = self.augment(items)
        pixels = {n: faces[n] for n in ("pixel_values", "pixel_values_local") if n in faces}
        decision = {
            "decided_at": torch.tensor([item["decided_at"] for item in items]),
            "votes": faces["votes"],
            "words": self.words,
        }
        return pixels | pad(items, self.pad_token_id) | {"decision": decision}

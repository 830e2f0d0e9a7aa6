r"""A stage of the mini: its language model learns what is asked, by many questions of a face.

Run as:

    python -m train.mini.listen --packs PACKS --model runs/mini/final --out runs/listen

What an answer is about is decided by its first words, a tenth of its tokens at most, and a
conversation of the stages before holds two questions. Here each face is a tree (`train.mini.tree`):
the face and the two short answers about it, told or the model's own, and behind these a dozen
questions, each with its answer. The first words weigh most, and most answers are cut off after a
few more. Some questions have words lost, so that none carries the meaning alone.

The eyes rest: faces are read once, and kept as their image tokens. Where the short answers are
written the model keeps its own probabilities: it is taught those it had at the start (their
Kullback-Leibler divergence), so that what it reads of a face stays as it was. Run again, it goes on
from its last checkpoint.
"""

import argparse
import copy
import os
import random
import sys
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerBase, TrainingArguments

from feallm import FEALLMForConditionalGeneration, Predictor
from feallm.conversation import IGNORE_INDEX, Message, encode
from feallm.device import trains_in_bf16
from feallm.facs import AUS, EXPRESSIONS
from feallm.generation import embed
from train.checkpoints import TrainedPartsTrainer, last_checkpoint
from train.fea.questions import TEMPLATES, as_asked
from train.fea.talk import is_held_out, scope
from train.mini.faces import Faces
from train.mini.instruct import Facts, converse, exchange, told_facts
from train.mini.tree import ROOT, Tree, stacked
from train.order import Order, draws
from train.result import write_bf16

FIRST_WORDS = (0.4, 0.2, 0.1, 0.05, 0.03, 0.02)
"""Weights of an answer's first tokens."""
REST = 0.2
"""What all its other tokens weigh together."""
WRITTEN_OUT = 0.12
"""Share of answers that are not cut off."""
BEGUN = 12
"""So many tokens of an answer that is cut off are kept at most."""
WRITTEN_OUT_ALONE = 0.4
"""Share of answers that are not cut off where nothing is told before the question."""
FOLLOWED = 0.3
"""Share of questions with another behind them."""
OWN = 0.35
"""Share of faces whose two short answers are the model's own; the others' are told."""
KINDS = {"summary": 15, "movement": 15, "reasoning": 15, "scope": 25, "turn": 30}
"""How often what is asked. Outside the scope lies the most to tell apart."""


def with_words_lost(question: str, share: float, rng: random.Random) -> str:
    """Return a share of the questions with up to two words in five lost, two of some swapped."""
    words = question.split(" ")
    if rng.random() >= share or len(words) < 4:
        return question
    rate = rng.random() * 0.4
    words = [w for w in words if rng.random() > rate] or words
    if len(words) > 3 and rng.random() < 0.2:
        k = rng.randrange(len(words) - 1)
        words[k : k + 2] = words[k + 1], words[k]
    return " ".join(words)


def question_and_answer(
    facts: Facts, lost: float, rng: random.Random, kinds: dict[str, int] = KINDS
) -> list[Message]:
    """Return a question of a drawn kind about a face, and its answer."""
    kind = rng.choices(list(kinds), list(kinds.values()))[0]
    if kind == "scope":
        question, answer = scope(*facts, rng)
        question = as_asked(question, rng)
    else:
        asked, answered = converse(kind[0], facts, rng)  # its plans are of first letters
        question, answer = asked["content"], answered["content"]
    if kind not in TEMPLATES or question != TEMPLATES[kind][0]:  # the page's own stay as they are
        shorter = with_words_lost(question, lost, rng)
        question = question if is_held_out(shorter) else shorter
    return exchange(question, answer)


class Questions(Dataset):
    """A tree of questions about each of n faces, drawn anew in every epoch.

    An item is its `tree`, the `weights` of the tree's tokens (0 outside of answers), which of them
    are `kept` (the model is to expect them as at the start), how many lie before the first question
    (`shared`), and the `face`'s image tokens (K, D_t).

    Args:
        readings: of the n faces, as `read_faces` returns them.
        branches: questions about a face, those not counted that follow others.
        lost: share of the questions that lose words.
        written_out: share of the answers that are not cut off.
        rest: what the tokens after an answer's first ones weigh together.
    """

    def __init__(
        self,
        readings: dict[str, torch.Tensor],
        tokenizer: PreTrainedTokenizerBase,
        seed: int,
        branches: int,
        lost: float,
        written_out: float = WRITTEN_OUT,
        rest: float = REST,
    ):
        self.readings, self.tokenizer, self.seed = readings, tokenizer, seed
        self.branches, self.lost = branches, lost
        self.written_out, self.rest = written_out, rest
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.readings["embeds"])

    def set_epoch(self, epoch: int) -> None:
        """See `train.order`: an epoch's draws follow from its number."""
        self.epoch = epoch

    def __getitem__(self, i: int) -> dict:
        rng = draws(self.seed, self.epoch, i)
        face, active = self.readings["embeds"][i], self.readings["aus"][i].tolist()
        own = (
            EXPRESSIONS[int(self.readings["expression"][i])],
            tuple(k for k, is_active in zip(AUS, active, strict=True) if is_active),
        )
        facts = own if rng.random() < OWN else told_facts(rng)
        row = Row(self.tokenizer, len(face), self.rest)
        told = row.add(row.root, converse("ea", facts, rng), kept=True)
        row.add(row.root, converse("ae", own, rng), kept=True)
        shared = len(row.tree)
        for _ in range(self.branches):
            talk = question_and_answer(facts, self.lost, rng)
            asked = row.add(told, talk, written_out=rng.random() < self.written_out)
            if rng.random() < FOLLOWED and row.is_whole:
                after = question_and_answer(facts, self.lost, rng)
                row.add(asked, after, written_out=rng.random() < self.written_out)
        for kind in rng.sample(list(TEMPLATES), 2):
            talk = question_and_answer(own, 0.0, rng, {kind: 1})
            row.add(row.root, talk, written_out=rng.random() < WRITTEN_OUT_ALONE)
        return {"tree": row.tree, "weights": row.weights, "kept": row.kept} | {
            "shared": shared,
            "face": face,
        }


class Row:
    """A tree of talks about one face, as it grows."""

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, num_image_tokens: int, rest: float = REST
    ):
        self.tokenizer, self.num_image_tokens, self.rest = tokenizer, num_image_tokens, rest
        self.tree, self.weights, self.kept = Tree(), [], []
        ids, _ = self._encoded([{"role": "user", "content": ""}])
        image = tokenizer.convert_tokens_to_ids("<image>")
        beginning = ids[: len(ids) - ids[::-1].index(image)]
        self._said: list[list[Message]] = [[]]  # up to the end of each branch, and its length
        self._lengths = [len(beginning)]
        self.root = self._branch(beginning, ROOT)

    def _encoded(self, talk: list[Message]) -> tuple[list[int], list[int]]:
        return encode(talk, self.tokenizer, self.num_image_tokens)

    @property
    def is_whole(self) -> bool:
        """Whether the last answer was written to its end."""
        return self.tree.ids[-1] == self.tokenizer.eos_token_id

    def add(
        self, parent: int, talk: list[Message], kept: bool = False, written_out: bool = True
    ) -> int:
        """Add questions and answers behind a branch; return the new one's number.

        Args:
            kept: the answers are to be expected as at the start; else the one answer is learnt.
            written_out: it is not cut off.
        """
        self._said.append([*self._said[parent], *talk])
        ids, labels = self._encoded(self._said[-1])
        self._lengths.append(len(ids))
        ids, labels = (part[self._lengths[parent] :] for part in (ids, labels))
        answered = [label != IGNORE_INDEX for label in labels]
        if kept:
            return self._branch(ids, parent, kept=answered)
        length = sum(answered)
        others = max(length - len(FIRST_WORDS), 0)
        weights = [0.0] * (len(ids) - length) + [
            *FIRST_WORDS[:length],
            *[self.rest / max(others, 1)] * others,
        ]
        end = len(ids) if written_out else len(ids) - length + min(length, BEGUN)
        return self._branch(ids[:end], parent, weights[:end])

    def _branch(
        self,
        ids: list[int],
        parent: int,
        weights: list[float] | None = None,
        kept: list[bool] | None = None,
    ) -> int:
        self.weights += weights or [0.0] * len(ids)
        self.kept += kept or [False] * len(ids)
        return self.tree.add(ids, parent)


class Collate:
    """Rows become a batch."""

    def __init__(self, pad_token_id: int):
        self.pad_token_id = pad_token_id

    def __call__(self, rows: list[dict]) -> dict[str, torch.Tensor | int]:
        batch = stacked([row["tree"] for row in rows], self.pad_token_id)
        longest = batch["input_ids"].shape[1]
        for name, kind in (("weights", torch.float), ("kept", torch.bool)):
            filled = [row[name] + [0] * (longest - len(row[name])) for row in rows]
            batch[name] = torch.tensor(filled, dtype=kind)
        shared = max(row["shared"] for row in rows)
        return batch | {"faces": torch.stack([row["face"] for row in rows]), "shared": shared}


class Listener(nn.Module):
    """A mini that learns from trees; what it expected at the start is no part of its state."""

    def __init__(self, model: FEALLMForConditionalGeneration):
        super().__init__()
        self.model = model
        self._start = [copy.deepcopy(model).requires_grad_(False).eval()]
        model.requires_grad_(False)
        model.model.language_model.requires_grad_(True)
        model.lm_head.requires_grad_(True)

    @staticmethod
    def _read(
        model: FEALLMForConditionalGeneration, batch: dict, upto: int | None = None
    ) -> torch.Tensor:
        """Return the hidden states (B, T, D_t) of the first `upto` tokens."""
        ids, mask = batch["input_ids"][:, :upto], batch["attention_mask"][..., :upto, :upto]
        out = model.model.language_model(
            inputs_embeds=embed(model, ids, batch["faces"]),
            attention_mask=mask,
            position_ids=batch["position_ids"][:, :upto],
            use_cache=False,
        )
        return out.last_hidden_state

    def forward(self, **batch) -> dict[str, torch.Tensor]:
        ids, before, weights = batch["input_ids"], batch["before"], batch["weights"]
        hidden = self._read(self.model, batch)

        def expected(model, hidden: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
            rows, places = chosen.nonzero(as_tuple=True)
            return model.lm_head(hidden[rows, before[rows, places]]).float()

        said = expected(self.model, hidden, weights > 0)
        surprise = F.cross_entropy(said, ids[weights > 0], reduction="none")
        answers = (surprise * weights[weights > 0]).sum() / (weights == FIRST_WORDS[0]).sum()
        start, kept = self._start[0], batch["kept"]
        with torch.no_grad():
            was = expected(start, self._read(start, batch, batch["shared"]), kept)
        now = expected(self.model, hidden, kept)
        moved = F.kl_div(
            now.log_softmax(-1), was.log_softmax(-1), log_target=True, reduction="sum"
        ) / len(ids)
        return {"loss": answers + moved, "moved": moved.detach()}


class ListenTrainer(TrainedPartsTrainer):
    """`Trainer` with our order of rows."""

    def _get_train_sampler(self, dataset=None) -> Order:
        return Order(self.train_dataset, self.args.seed)


def read_faces(predictor: Predictor, packs: Path, count: int, seed: int) -> dict[str, torch.Tensor]:
    """Return what a model reads of training faces, drawn as people meet their expressions.

    Returns:
        `embeds` (n, K, D_t), `expression` (n,) as its place among the seven, and `aus` (n, 12).
    """
    faces = Faces(packs, "train")
    chances = torch.from_numpy(faces.sampling_weights(0.35, as_met=1.0))
    generator = torch.Generator().manual_seed(seed)
    rows = torch.multinomial(chances, min(count, len(faces)), generator=generator).tolist()
    read = []
    for number, row in enumerate(rows, 1):
        read.append(predictor.analyse(faces.picture(row), texts=False))
        if number % 100 == 0:
            print(f"{number} of {len(rows)} faces read", file=sys.stderr)
    return {
        "embeds": torch.cat([r.image_embeds for r in read]).clone(),
        "expression": torch.tensor([EXPRESSIONS.index(r.expression) for r in read]),
        "aus": torch.tensor([[k in r.aus for k in AUS] for r in read]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--packs", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--batch", type=int, default=8, help="faces of a step")
    parser.add_argument("--branches", type=int, default=10, help="questions about a face")
    parser.add_argument("--lost", type=float, default=0.2, help="share of them that lose words")
    parser.add_argument(
        "--written-out", type=float, default=WRITTEN_OUT, help="share of the answers not cut off"
    )
    parser.add_argument(
        "--rest", type=float, default=REST, help="weight of what follows first words"
    )
    parser.add_argument("--learning-rate", type=float, default=4e-4)
    parser.add_argument("--faces", type=int, default=2048, help="drawn from the training faces")
    parser.add_argument("--save-steps", type=int, default=50, help="steps between checkpoints")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    predictor = Predictor(args.model, device=torch.device("cpu"), dtype=torch.float32)
    readings = args.out / "readings.pt"
    if not readings.is_file():
        args.out.mkdir(parents=True, exist_ok=True)
        torch.save(read_faces(predictor, args.packs, args.faces, args.seed), args.out / "part")
        os.replace(args.out / "part", readings)
    tokenizer = predictor.tokenizer
    questions = Questions(
        torch.load(readings, weights_only=True),
        tokenizer,
        args.seed,
        args.branches,
        args.lost,
        args.written_out,
        args.rest,
    )
    listener = Listener(predictor.model)
    trainer = ListenTrainer(
        model=listener,
        args=TrainingArguments(
            output_dir=str(args.out),
            max_steps=args.steps,
            per_device_train_batch_size=args.batch,
            learning_rate=args.learning_rate,
            weight_decay=0.01,
            adam_beta2=0.98,
            warmup_steps=30,
            lr_scheduler_type="cosine",
            bf16=trains_in_bf16(listener),
            use_cpu=True,
            save_steps=args.save_steps,
            save_total_limit=2,
            logging_steps=20,
            report_to=["tensorboard"],
            remove_unused_columns=False,
            seed=args.seed,
        ),
        data_collator=Collate(tokenizer.pad_token_id),
        train_dataset=questions,
    )
    trainer.train(resume_from_checkpoint=last_checkpoint(args.out))
    write_bf16(listener.model, listener.model.state_dict(), args.out / "final")
    predictor.processor.save_pretrained(args.out / "final")


if __name__ == "__main__":
    main()

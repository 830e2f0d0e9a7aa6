"""Predictor: the whole path for one face, used by the page, the command line and the evaluation.

An analysis asks the model two short questions and reads its own probabilities where the answers
are written: the action units, and the expression both at once and after the units, for each tells
of the other. All are read from the face and from its mirror image and averaged: neither side of a
face has the last word. The expression's are calibrated: as sure as the model is right, and each
said as often as it is there. Then it writes the paper's three texts in one batch, each continuing
what was decided, so that texts and probabilities agree.
"""

import contextlib
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

from feallm import memory, prompts
from feallm.chorus import Chorus
from feallm.conversation import Message
from feallm.crops import Crop, list_crops
from feallm.device import best_device, best_dtype
from feallm.ending import working
from feallm.facs import AUS, EXPRESSIONS
from feallm.generation import Reader, common_length, complete
from feallm.graphs import Graphs, open_graphs, wanted
from feallm.loading import AS_LLAVA, config_of, is_llava, load
from feallm.talks import Talks

MINI = Path(__file__).parent.parent / "assets" / "feallm-mini"
"""The model that needs no download."""
MAX_NEW_TOKENS = 320
TINY = torch.finfo(torch.float32).tiny
"""Keeps a share of nothing at 0."""
UNTUNED = "not tuned for faces"
"""Said of a plain LLaVA wherever its answers are shown."""


@dataclass(frozen=True, eq=False)  # no reading is another one: talks are kept by it
class Reading:
    """What the model sees in one face.

    `expression_probabilities` sum to 1 over the seven; `action_unit_probabilities` are the
    model's own that each unit is present, not intensities. `attention` (C, C) is the LCA's, rows
    summing to 1; `looks` are the MPP's sampling points and weights. `face` is the aligned picture.
    Everything lies in ordinary memory, so that a reading can outlast a lent GPU.
    """

    expression: str
    expression_probabilities: dict[str, float]
    aus: tuple[int, ...]
    action_unit_probabilities: dict[int, float]
    summary: str
    movements: str
    reasoning: str
    face: Image.Image
    attention: np.ndarray | None
    looks: dict[str, tuple[np.ndarray, np.ndarray]]
    image_embeds: torch.Tensor


class QuestionTooLong(ValueError):
    """A question that alone fills the model; its text is a sentence for the person who asked."""


def excuse(error: RuntimeError) -> str:
    """Return the sentence for a person when the model failed."""
    if isinstance(error, torch.OutOfMemoryError):
        return "The machine ran out of memory. Please try again in a moment."
    return "The model failed on this. Please try again."


def name_of(model: str | Path) -> str:
    """Return what a model is called: its hub id or its folder, told apart where all are "final"."""
    path = Path(model)
    if not path.is_dir():
        return str(model)
    path = path.resolve()
    return f"{path.parent.name}/{path.name}" if path.name == "final" else path.name


def _shares(weights: torch.Tensor) -> torch.Tensor:
    """Scale weights (..., n) to a sum of 1; all zero they stay so."""
    return weights / weights.sum(-1, keepdim=True).clamp(min=TINY)


class Predictor:
    """A loaded FEALLM that analyses faces and talks about them.

    Args:
        model: folder or hub id of a FEALLM, or of a LLaVA-1.5: that one is asked as it is
            (`loading.AS_LLAVA`), and `tuned` is False. `voices` answers at most should be
            streamed at once: the memory left after loading says how many.
        device, dtype: chosen by `best_device` and `best_dtype` when None.
        quantization: of the language model, one of `loading.QUANTIZATIONS`.
        say: told the memory needed before anything is loaded, and what else to know of the model.
        lent: the device is had for a call at a time (ZeroGPU), and nothing can be left there.

    Raises:
        ModelError: nothing there, another kind of model, weights missing, or too little memory.
    """

    def __init__(
        self,
        model: str | Path = MINI,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
        quantization: str | None = None,
        say: Callable[[str], None] | None = None,
        lent: bool = False,
    ):
        self.name = name_of(model)
        self.device = device or best_device()
        self.dtype = dtype or best_dtype(self.device)
        config = config_of(model, **AS_LLAVA)
        self.tuned = not is_llava(model)
        say = say or (lambda sentence: None)
        say(memory.check(self.name, config, self.device, self.dtype, quantization))
        if not self.tuned:
            say(f"{self.name} is {UNTUNED}: it answers as plain LLaVA.")
        self.model, self.processor = load(
            model, self.dtype, quantization, device=self.device, **AS_LLAVA
        )
        if quantization is None:
            self.model.to(self.device)
        self.model.eval()
        self.tokenizer = self.processor.tokenizer
        self._talks = Talks(self.model)
        self._chorus = Chorus(self.model, None if lent else self._graphs(say))
        self.voices = memory.voices(config, self.device, self.dtype, self._talks.kept_bytes)
        self._rows = memory.rows(config, self.dtype)
        # an event that was cancelled leaves its thread at work: the next waits for it
        self._alone = threading.Lock()

    def _graphs(self, say: Callable[[str], None]) -> Graphs | None:
        if not wanted(self.model):
            return None
        if not memory.spares_graphs(
            self.model.config, self.device, self.dtype, self._talks.kept_bytes
        ):
            say("Answers are written without CUDA graphs: too little memory is left for them.")
            return None
        return open_graphs(self.model, say)

    @property
    def face_size(self) -> int:
        """Side in pixels at which `faces.align_face` should draw a face."""
        return self.processor.face_size

    @property
    def crops(self) -> list[Crop]:
        """The local crops in the order of the attention's rows; [] without an LCA."""
        return list_crops(self.processor.crop_groups)

    @property
    def thresholds(self) -> dict[int, float]:
        """Probability above which each action unit counts as active; fixed with the weights."""
        return dict(zip(AUS, self.model.config.action_unit_thresholds, strict=True))

    @torch.inference_mode()
    def analyse(self, face: Image.Image, texts: bool = True) -> Reading:
        """Read one aligned face (`faces.align_face`, or any square picture that is a face).

        Without `texts` the three texts hold only what was decided, as they would open: the label,
        the list of action units, and nothing; that is all an evaluation needs.
        """
        with self._alone, working():
            return self._analyse(face, texts)

    def _analyse(self, face: Image.Image, texts: bool) -> Reading:
        fused, both = self._encode([face, ImageOps.mirror(face)])
        embeds, reader = both[:1], Reader(self.model, both)
        aus, chances = self._decide_action_units(
            reader, lambda k, chance: float(chance.mean()) > self.thresholds[k]
        )
        shares = self._calibrated(self._expression_probabilities(reader, aus).mean(0))
        del reader  # its cache makes room for the texts'
        probabilities = dict(zip(EXPRESSIONS, shares.tolist(), strict=True))
        expression = max(probabilities, key=probabilities.get)
        openings = (f"{expression}.", prompts.list_action_units(aus), "")
        written = self._texts(embeds, expression, aus, openings) if texts else openings
        attention, looks = fused["attention"], fused["looks"] if self.tuned else {}
        return Reading(
            expression=expression,
            expression_probabilities=probabilities,
            aus=aus,
            action_unit_probabilities=dict(zip(AUS, chances.mean(0).tolist(), strict=True)),
            summary=written[0],
            movements=written[1],
            reasoning=written[2],
            face=face,
            attention=None if attention is None else _numpy(attention[0]),
            looks={n: (_numpy(p[0]), _numpy(w[0])) for n, (p, w) in looks.items()},
            image_embeds=embeds.cpu(),
        )

    @torch.inference_mode()
    def chances(
        self, faces: Sequence[Image.Image], active: tuple[int, ...]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the probabilities of several faces, all told the same units.

        They are read in one batch, or in as few as the memory set aside for an analysis holds.

        Returns:
            (B, 7) of the expressions given `active`, and (B, 12) of the units, each given the
            units before it in `active`: for choosing thresholds, and for comparing versions of
            one face.
        """
        at_once = max(1, self._rows // 2)  # a face and its mirror image
        slices = [faces[k : k + at_once] for k in range(0, len(faces), at_once)]
        parts = [self._chances(part, active) for part in slices]
        expressions, units = (np.concatenate(p) for p in zip(*parts, strict=True))
        return expressions, units

    def _chances(
        self, faces: Sequence[Image.Image], active: tuple[int, ...]
    ) -> tuple[np.ndarray, np.ndarray]:
        with self._alone, working():
            _, embeds = self._encode([*faces, *map(ImageOps.mirror, faces)])
            reader = Reader(self.model, embeds)
            units = self._decide_action_units(reader, lambda k, _: k in active)[1]
            shares = self._expression_probabilities(reader, active)
            halves = (2, len(faces), -1)  # the faces, then their mirror images
            shares = self._calibrated(shares.view(halves).mean(0))
            return _numpy(shares), _numpy(units.view(halves).mean(0))

    @torch.inference_mode()
    def answer(
        self,
        faces: Sequence[Image.Image],
        questions: Sequence[str],
        max_new_tokens: int = MAX_NEW_TOKENS,
    ) -> list[str]:
        """Answer one question about each of several faces in one batch, greedily.

        Nothing is decided before: it is how the paper asks its benchmark's questions. A person's
        questions are better answered by `stream`, which knows the analysis.
        """
        asked = [[{"role": "user", "content": q}] for q in questions]
        ids = [self.processor.conversation(talk)[0] for talk in asked]
        with working():
            _, embeds = self._encode(faces)
            return list(map(self._text, self._complete(ids, embeds, max_new_tokens)))

    def fitting(self, reading: Reading, messages: list[Message]) -> list[Message]:
        """Return the newest turns of a talk that the model has room for.

        Raises:
            QuestionTooLong: the last question alone is too long for the model.
            ValueError: there is no question.
        """
        return self._fit(reading, messages)[0]

    def _fit(self, reading: Reading, messages: list[Message]) -> tuple[list[Message], list[int]]:
        """The turns of `fitting`, and their ids after what the model is told of the face."""
        if not messages or messages[-1]["role"] != "user":
            raise ValueError("The last message must be a question.")
        room = self.model.config.text_config.max_position_embeddings - MAX_NEW_TOKENS
        known, talk = self._known(reading.expression, reading.aus), list(messages)
        while True:
            ids, _ = self.processor.conversation(known + talk)
            if len(ids) <= room:
                return talk, ids
            if len(talk) < 3:
                raise QuestionTooLong("This question is too long for the model.")
            talk = talk[2:]

    def stream(
        self,
        reading: Reading,
        messages: list[Message],
        temperature: float = 0.0,
        seed: int | None = None,
    ) -> Iterator[str]:
        """Yield pieces of the answer to a talk about a face; its last message is the question.

        The model first reads its own short answers about the face, so that the talk and the
        analysis agree. Of a follow-up question it reads only what it has not read yet (`Talks`).
        Answers streamed at once are written together (`Chorus`).

        Raises:
            QuestionTooLong, ValueError: as `fitting`.
        """
        _, ids = self._fit(reading, messages)
        generator = None if seed is None else torch.Generator(self.device).manual_seed(seed)
        written: list[int] = []
        shown = ""
        reader = self._talks.take(reading)
        with working(), torch.inference_mode():
            reader.turn_to(ids)
        tokens = self._chorus.stream(
            reader,
            self.tokenizer.eos_token_id,
            MAX_NEW_TOKENS,
            temperature,
            generator,
            leaving=partial(self._talks.keep, reading, reader),
        )
        with contextlib.closing(tokens):
            for token in tokens:
                written.append(token)
                text = self.tokenizer.decode(written, skip_special_tokens=True)
                if not text.endswith("\ufffd"):  # a letter of several bytes is still incomplete
                    yield text[len(shown) :]
                    shown = text

    def _encode(self, faces: Sequence[Image.Image]) -> tuple[dict, torch.Tensor]:
        """`FEALLMModel.fuse` of B faces, and their image tokens (B, K, D_t)."""
        inputs = self.processor.faces(faces).to(self.device, self.dtype)
        fused = self.model.model.fuse(inputs["pixel_values"], inputs.get("pixel_values_local"))
        return fused, self.model.model.image_tokens(fused)

    def _known(self, expression: str, aus: tuple[int, ...]) -> list[Message]:
        """The two short questions with their answers, as every talk begins."""
        return [
            {"role": "user", "content": prompts.EXPRESSION_QUESTION},
            {"role": "assistant", "content": f"{expression}."},
            *self._known_units(aus),
        ]

    def _known_units(self, aus: tuple[int, ...]) -> list[Message]:
        return [
            {"role": "user", "content": prompts.ACTION_UNITS_QUESTION},
            {"role": "assistant", "content": prompts.list_action_units(aus)},
        ]

    def _words(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def _ask(self, reader: Reader, question: str, before: Sequence[Message] = ()) -> None:
        ids, _ = self.processor.conversation([*before, {"role": "user", "content": question}])
        reader.turn_to(ids)

    def _expression_probabilities(self, reader: Reader, aus: tuple[int, ...]) -> torch.Tensor:
        """(B, 7): geometric mean of the chances when asked at once and after the units."""
        options = [self._words(f"{e}.") for e in EXPRESSIONS]
        self._ask(reader, prompts.EXPRESSION_QUESTION, self._known_units(aus))
        after = reader.masses(options)
        self._ask(reader, prompts.EXPRESSION_QUESTION)
        return _shares((reader.masses(options) * after).sqrt())

    def _calibrated(self, shares: torch.Tensor) -> torch.Tensor:
        """Expressions' probabilities (..., 7), sharpened and weighed as the configuration says."""
        config = self.model.config
        bias = shares.new_tensor(config.expression_bias)
        return _shares(shares**config.expression_sharpness * bias.exp())

    def _decide_action_units(
        self, reader: Reader, decide: Callable[[int, torch.Tensor], bool]
    ) -> tuple[tuple[int, ...], torch.Tensor]:
        """Walk the ascending list; return what was decided and the chances (B, 12).

        A unit's chance is the mass on naming it next, of that on naming it or a later one or none.
        `decide` is given the unit and its chances (B,): one list for all faces.
        """
        self._ask(reader, prompts.ACTION_UNITS_QUESTION)
        active: tuple[int, ...] = ()
        chances: dict[int, torch.Tensor] = {}
        read = 0
        while later := prompts.later_action_units(active[-1] if active else None):
            texts = [prompts.list_action_units((*active, k))[:-1] for k in later]
            options = [self._words(t) for t in [*texts, prompts.list_action_units(active)]]
            common = common_length([o[:-1] for o in options])  # each has a token left to weigh
            reader.read(options[0][read:common])
            read = common
            masses = reader.masses([o[common:] for o in options])
            for i, k in enumerate(later):
                chances[k] = masses[:, i] / masses[:, i:].sum(-1).clamp(min=TINY)
                if decide(k, chances[k]):
                    active = (*active, k)
                    break
            else:
                break
        return active, torch.stack([chances[k] for k in AUS], -1)

    def _texts(
        self, embeds: torch.Tensor, expression: str, aus: tuple[int, ...], openings: tuple[str, ...]
    ) -> list[str]:
        def opened(question: str, opening: str) -> list[Message]:
            return [
                {"role": "user", "content": question},
                {"role": "assistant", "content": opening, "open": True},
            ]

        known = self._known(expression, aus)
        talks = [
            [*known, *opened(prompts.SUMMARY_QUESTION, openings[0])],
            opened(prompts.MOVEMENT_QUESTION, openings[1]),
            [*known, {"role": "user", "content": prompts.REASONING_QUESTION}],
        ]
        ids = [self.processor.conversation(t)[0] for t in talks]
        answers = self._complete(ids, embeds, MAX_NEW_TOKENS)
        return [
            self._text(self._words(opening) + answer if opening else answer)
            for opening, answer in zip(openings, answers, strict=True)
        ]

    def _complete(
        self, ids: list[list[int]], embeds: torch.Tensor, max_new_tokens: int
    ) -> list[list[int]]:
        return complete(
            self.model,
            ids,
            embeds,
            pad_token_id=self.tokenizer.pad_token_id,
            eos_token_id=self.tokenizer.eos_token_id,
            max_new_tokens=max_new_tokens,
        )

    def _text(self, ids: list[int]) -> str:
        """Return ids as one line of text."""
        return re.sub(r"\s+", " ", self.tokenizer.decode(ids, skip_special_tokens=True)).strip()


def _numpy(tensor: torch.Tensor) -> np.ndarray:
    return tensor.float().cpu().numpy()

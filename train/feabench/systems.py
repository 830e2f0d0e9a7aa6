"""What can be asked the benchmark's questions: a FEALLM, any vision-language model, an endpoint.

Each is given aligned faces and one question about each, and returns what it writes, greedily. All
see the same faces and read the same words; nothing is known to them from before.
"""

import hashlib
import io
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from feallm import Predictor
from feallm.device import best_device, best_dtype
from feallm.loading import ModelError, cannot_load, quantization_config
from feallm.predictor import name_of
from train.fea.endpoint import Endpoint, Refused, picture_message

MAX_NEW_TOKENS = 256
REFUSED = "(The endpoint refused to answer.)"
"""Kept as the answer where a talk alone is refused."""
FACE_SIZE = 336
"""Side in pixels of the faces that systems without a size of their own are given."""


@dataclass(frozen=True)
class Question:
    """What is asked about a face: its kind, "expression" or "units", and its words."""

    kind: str
    text: str


class System(Protocol):
    """One that answers questions about faces; `made_of` tells it from others of its name."""

    name: str
    face_size: int
    made_of: dict[str, str | None]

    def answer(self, faces: list[Image.Image], questions: list[Question]) -> list[str]:
        """Return the answers to one question about each of several aligned faces."""
        ...


def made_of(model: str, quantization: str | None, config) -> dict[str, str | None]:
    """Return what tells a model from others of its name.

    That is how it is held, and its bytes in a folder (a 7B's take some seconds to read), or its
    commit on the hub.
    """
    if not Path(model).is_dir():
        weights = getattr(config, "_commit_hash", None)
    else:
        digest = hashlib.sha256()
        files = (p for p in Path(model).iterdir() if p.suffix in (".safetensors", ".bin", ".json"))
        for path in sorted(files):
            digest.update(path.name.encode())
            with path.open("rb") as file:
                while piece := file.read(1 << 24):
                    digest.update(piece)
        weights = digest.hexdigest()[:16]
    return {"weights": weights, "quantization": quantization}


class Feallm:
    """A FEALLM that writes its answers freely, as the paper's does."""

    def __init__(self, model: str, quantization: str | None = None):
        self.predictor = Predictor(model, quantization=quantization)
        self.made_of = made_of(model, quantization, self.predictor.model.config)
        self.name, self.face_size = self.predictor.name, self.predictor.face_size

    def answer(self, faces: list[Image.Image], questions: list[Question]) -> list[str]:
        return self.predictor.answer(faces, [q.text for q in questions], MAX_NEW_TOKENS)


class Deciding(Feallm):
    """A FEALLM as the page uses it: what it writes opens with what its probabilities decided.

    Whatever the question's words, a question on the expression is answered by the label and one on
    the action units by the list, as `Predictor.analyse` decides them.
    """

    def __init__(self, model: str, quantization: str | None = None):
        super().__init__(model, quantization)
        self.name = f"{self.name} (as the page reads)"

    def answer(self, faces: list[Image.Image], questions: list[Question]) -> list[str]:
        readings = [self.predictor.analyse(face, texts=False) for face in faces]
        return [
            r.summary if q.kind == "expression" else r.movements
            for r, q in zip(readings, questions, strict=True)
        ]


class Chat:
    """Any image-text-to-text model of transformers, through its own chat template.

    Args:
        trust_remote_code: run the code a model brings along, as transformers asks for.

    Raises:
        ModelError: there is no such model, or it has no chat template.
    """

    def __init__(
        self, model: str, quantization: str | None = None, trust_remote_code: bool = False
    ):
        self.name = name_of(model)
        self.face_size, self.device = FACE_SIZE, best_device()
        dtype, code = best_dtype(self.device), {"trust_remote_code": trust_remote_code}
        try:
            self.processor = AutoProcessor.from_pretrained(model, **code)
            self.model = AutoModelForImageTextToText.from_pretrained(
                model,
                dtype=dtype,
                quantization_config=quantization_config(quantization, dtype),
                device_map={"": self.device} if quantization else None,
                **code,
            )
        except (OSError, ValueError) as error:
            raise cannot_load(model, error) from error
        if not getattr(self.processor, "chat_template", None):
            raise ModelError(f"{model} has no chat template, so it cannot be asked in its own way.")
        if quantization is None:
            self.model.to(self.device)
        self.model.eval()
        self.made_of = made_of(model, quantization, self.model.config)
        self.processor.tokenizer.padding_side = "left"  # so that all answers begin at one place

    @torch.inference_mode()
    def answer(self, faces: list[Image.Image], questions: list[Question]) -> list[str]:
        talks = [
            [{"role": "user", "content": [_image(face), {"type": "text", "text": question.text}]}]
            for face, question in zip(faces, questions, strict=True)
        ]
        inputs = self.processor.apply_chat_template(
            talks,
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            processor_kwargs={"padding": True},
        ).to(self.model.device, self.model.dtype)
        ids = self.model.generate(**inputs, do_sample=False, max_new_tokens=MAX_NEW_TOKENS)
        written = ids[:, inputs["input_ids"].shape[1] :]
        return [t.strip() for t in self.processor.batch_decode(written, skip_special_tokens=True)]


def _image(face: Image.Image) -> dict:
    return {"type": "image", "image": face}


class Remote:
    """A model behind an endpoint of OpenAI's protocol; a batch is asked all at once.

    Raises:
        EndpointError: while answering, when it refuses or fails again and again.
    """

    def __init__(self, url: str, model: str, key: str | None, per_minute: float = 0.0):
        self.name, self.face_size, self.made_of = model, FACE_SIZE, {"endpoint": url}
        self.endpoint = Endpoint(url, model, key, per_minute)

    def answer(self, faces: list[Image.Image], questions: list[Question]) -> list[str]:
        with ThreadPoolExecutor(len(faces)) as pool:
            return list(pool.map(self._ask, faces, questions))

    def _ask(self, face: Image.Image, question: Question) -> str:
        buffer = io.BytesIO()
        face.save(buffer, "PNG")
        talk = [picture_message(buffer.getvalue(), "png", question.text)]
        try:
            return self.endpoint.ask(talk, 0, MAX_NEW_TOKENS, temperature=0.0).text.strip()
        except Refused:
            return REFUSED

"""What happens on the page: check, call `feallm`, hand its views to the parts.

Every handler returns or yields a dict {part: value}; parts it does not name stay as they are. The
truth lives in the `Visit`; what a client sends as the chat's value is never read.
"""

import contextlib
import random
import tempfile
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import gradio as gr
from gradio.utils import get_upload_folder
from matplotlib.cbook import get_sample_data

from feallm import Predictor, views
from feallm.export import archive
from feallm.faces import align_face, caveat, detect_faces
from feallm.occlusion import occlude
from feallm.photos import BadPhoto, open_photo
from feallm.predictor import excuse
from page.visit import Visit

MAX_QUESTION = 1000
NO_FACE = (
    "No face was found. Use a photo that shows the whole face, well lit and not too small; "
    "sunglasses and strong profiles hide what the detector looks for."
)


def uploaded(payload: dict | None) -> Path:
    """Return the file behind an image payload; only Gradio's own upload folder is trusted.

    Raises:
        BadPhoto: the payload names anything else (a server path, a URL, a data URI).
    """
    path = payload.get("path") if isinstance(payload, dict) else None
    folder = Path(get_upload_folder()).resolve()
    if not isinstance(path, str) or folder not in Path(path).resolve().parents:
        raise BadPhoto("This photo did not arrive. Please choose it again.")
    return Path(path)


def question_problem(question: str | None) -> str | None:
    """Return what is wrong with a question, or None."""
    text = (question or "").strip()
    if not text:
        return "Type a question, or choose one above."
    if len(text) > MAX_QUESTION:
        return f"The question has {len(text)} characters; the limit is {MAX_QUESTION}."
    return None


class Handlers:
    """The page's events around one predictor; `parts` are the components they speak to."""

    def __init__(self, predictor: Predictor, parts: SimpleNamespace):
        self.predictor, self.parts = predictor, parts

    def greet(self) -> dict:
        return {"model": self.predictor.name, "device": str(self.predictor.device).upper()}

    # --- the photo

    def start(self, source: dict | str | None, visit: Visit | None) -> Iterator[dict]:
        """A photo was given: find its faces and read the largest."""
        p = self.parts
        if not source:
            yield {p.status: gr.skip()}
            return
        yield {p.status: "Finding faces …"}
        begun = time.perf_counter()
        try:
            photo, note = open_photo(source if isinstance(source, str) else uploaded(source))
            faces = detect_faces(photo)
            if not faces:
                raise BadPhoto(NO_FACE)
        except BadPhoto as problem:
            gr.Warning(str(problem), title="This photo cannot be used", duration=10)
            yield {p.upload: gr.update(value=None), p.status: f"**{problem}**"}
            return
        if note:
            gr.Info(note)
        found = f"found in {time.perf_counter() - begun:.1f} s"
        fresh = Visit(photo, faces, reference=visit.reference if visit else None)
        opened = {
            p.upload: gr.update(visible=False),
            p.example: gr.update(visible=False),
            p.tools: gr.update(visible=True),
        }
        for seen in self.read(fresh, found):
            yield opened | seen

    def start_example(self, visit: Visit | None) -> Iterator[dict]:
        yield from self.start(str(get_sample_data("grace_hopper.jpg", asfileobj=False)), visit)

    def choose(self, visit: Visit | None, event: gr.EventData) -> Iterator[dict]:
        """Another face of the photo was chosen."""
        index = event.index
        if not visit or not isinstance(index, int) or not 0 <= index < len(visit.faces):
            yield {self.parts.status: gr.skip()}
            return
        visit.chosen = index
        yield from self.read(visit)

    def read(self, visit: Visit, found: str = "") -> Iterator[dict]:
        """Analyse the chosen face unless that was done, and show it."""
        count = f"{len(visit.faces)} face{'s' if len(visit.faces) > 1 else ''}"
        done = [count, found] if found else [count]
        if not visit.reading:
            yield self.show(visit) | {
                self.parts.status: " · ".join([*done, f"reading face {visit.chosen + 1} …"])
            }
            begun = time.perf_counter()
            face = align_face(visit.photo, visit.faces[visit.chosen], self.predictor.face_size)
            try:
                visit.readings[visit.chosen] = self.predictor.analyse(face)
            except RuntimeError as error:
                yield self.show(visit) | {self.parts.status: f"**{self.failed(error)}**"}
                return
            done.append(f"read in {time.perf_counter() - begun:.1f} s")
        yield self.show(visit) | {self.parts.status: " · ".join(done)}

    def show(self, visit: Visit) -> dict:
        """Every part that shows the chosen face."""
        p, reading = self.parts, visit.reading
        shown = {
            p.state: visit,
            p.stage: views.stage(visit.photo, visit.faces, visit.chosen),
            p.chat: visit.shown(),
            **dict(zip(p.suggestions, visit.suggestions(), strict=True)),
            p.download: gr.update(value=None, interactive=False),
        }
        if not reading:
            return shown | {part: None for part in p.evidence}
        note = caveat(visit.faces[visit.chosen], visit.photo)
        looked_at = reading.attention is not None
        crops, compared = self.predictor.crops, visit.comparison
        return shown | {
            p.verdict: views.verdict(reading, note),
            p.units: views.action_units(reading, self.predictor.thresholds),
            p.clues: views.clues(reading, crops, visit.covered.get(visit.chosen))
            if looked_at
            else None,
            p.matrix: views.matrix(reading, crops) if looked_at else None,
            p.looks: views.looks(reading),
            p.comparison: views.comparison(compared) if compared else None,
            p.download: self.package(visit),
        }

    def cover(self, visit: Visit | None) -> dict:
        """Read the chosen face with each crop covered, once."""
        if not visit or not visit.reading or visit.reading.attention is None:
            return {self.parts.clues: gr.skip()}
        if visit.chosen not in visit.covered:
            try:
                visit.covered[visit.chosen] = occlude(self.predictor, visit.reading)
            except RuntimeError as error:
                gr.Warning(self.failed(error))
                return {self.parts.clues: gr.skip()}
        shown = views.clues(visit.reading, self.predictor.crops, visit.covered[visit.chosen])
        return {self.parts.state: visit, self.parts.clues: shown}

    def reset(self, visit: Visit | None) -> dict:
        """Make room for another photo; what it is compared with stays."""
        p = self.parts
        kept = Visit(reference=visit.reference) if visit and visit.reference else None
        return {
            p.state: kept,
            p.upload: gr.update(value=None, visible=True),
            p.example: gr.update(visible=True),
            p.tools: gr.update(visible=False),
            p.stage: None,
            p.status: "Choose the second photo." if kept else "",
            p.chat: [],
            p.download: gr.update(value=None, interactive=False),
            **{part: None for part in p.evidence},
        }

    def compare(self, visit: Visit | None) -> dict:
        """Keep the chosen face to compare the next photo with."""
        if visit and visit.reading:
            visit.reference = visit.reading
        return self.reset(visit)

    def stop_comparing(self, visit: Visit | None) -> dict:
        if visit:
            visit.reference = None
        return {self.parts.state: visit, self.parts.comparison: None}

    # --- the talk

    def ask(self, question: str | None, visit: Visit | None) -> dict:
        """Take a question into the talk; refuse what cannot be answered, keeping the draft."""
        p = self.parts
        if not visit or not visit.reading:
            raise gr.Error(
                "Add a photo first, then ask about it.", title="No photo yet", print_exception=False
            )
        if problem := question_problem(question):
            raise gr.Error(problem, title="Not asked", print_exception=False)
        visit.talk.append({"role": "user", "content": question.strip()})
        box = gr.update(value="", submit_btn=False, stop_btn=True)
        return {p.question: box, p.chat: visit.shown(), p.state: visit}

    def answer(self, visit: Visit, temperature: float = 0.0) -> Iterator[dict]:
        """Stream the answer; what was written when a visitor stops or leaves stays in the talk."""
        p, written = self.parts, {"role": "assistant", "content": ""}
        asked = list(visit.talk)
        visit.talk.append(written)
        try:
            if len(self.predictor.fitting(visit.reading, asked)) < len(asked):
                gr.Info("The talk has grown long: its oldest questions are no longer considered.")
            pieces = self.predictor.stream(
                visit.reading, asked, temperature, random.getrandbits(31)
            )
            # closed at once when the visitor stops or leaves, so that the model is free
            with contextlib.closing(pieces):
                for piece in pieces:
                    written["content"] += piece
                    yield {p.chat: visit.shown(), p.state: visit}
        except ValueError as problem:
            written["content"] = str(problem)
        except RuntimeError as error:
            written["content"] += f" ({self.failed(error)})"
        finally:
            written["content"] = written["content"].strip() or "(stopped)"
        yield {p.chat: visit.shown(), p.state: visit}

    def failed(self, error: RuntimeError) -> str:
        """Write an error to the server's log and return what the visitor is told."""
        traceback.print_exception(error)
        return excuse(error)

    def settle(self, visit: Visit | None) -> dict:
        """After an answer, whole or stopped: the question box, the next questions, the export."""
        p = self.parts
        box = {p.question: gr.update(submit_btn=True, stop_btn=False)}
        if not visit or not visit.reading:
            return box
        next_questions = dict(zip(p.suggestions, visit.suggestions(), strict=True))
        return box | next_questions | {p.download: self.package(visit)}

    def retry(self, visit: Visit | None) -> Iterator[dict]:
        """Answer the last question again, with a little chance in it."""
        if not visit or len(visit.talk) < 2:
            yield {self.parts.chat: gr.skip()}
            return
        visit.talk.pop()
        yield from self.answer(visit, temperature=0.7)

    def undo(self, visit: Visit | None) -> dict:
        """Take the last question and its answer back into the box."""
        p = self.parts
        if not visit or len(visit.talk) < 2:
            return {p.chat: gr.skip()}
        question = visit.talk[-2]["content"]
        del visit.talk[-2:]
        return {p.chat: visit.shown(), p.question: question, p.state: visit}

    def clear(self, visit: Visit | None) -> dict:
        p = self.parts
        if not visit:
            return {p.chat: []}
        visit.talks.pop(visit.chosen, None)
        return {p.chat: visit.shown(), p.state: visit}

    def package(self, visit: Visit) -> dict:
        """Write the session's archive where Gradio deletes it with the uploads."""
        data = archive(visit.photo, visit.entries(), self.predictor.name, self.predictor.thresholds)
        folder = Path(tempfile.mkdtemp(dir=get_upload_folder()))
        (folder / "feallm-session.zip").write_bytes(data)
        return gr.update(value=str(folder / "feallm-session.zip"), interactive=True)

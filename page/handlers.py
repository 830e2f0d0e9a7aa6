"""What happens on the page: check, call `feallm`, hand its views to the parts.

Every handler returns or yields a dict {part: value}; parts it does not name stay as they are. The
truth lives in the `Visit`, which handlers change in place; what a client sends as the chat's value
is never read. A visitor's events overlap: a face is chosen while an answer is written, a photo
changed while a question waits. So a question names its face, and a visit that was `left` is
never shown again.

A part that was given a dict is not left out by a later yield of the same event: the browser is sent
differences, which it applies to the dict in place, and what it has not drawn yet is lost.
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
from feallm.faces import NO_FACE, detect_faces
from feallm.occlusion import occlude
from feallm.photos import BadPhoto, open_photo
from feallm.predictor import QuestionTooLong, excuse
from page.theme import ASSETS
from page.visit import Question, Visit

MAX_QUESTION = 1000
LOOK_SECONDS = 0.1
"""Between two looks at an answer that another event writes."""
NO_PHOTO = "Add a photo first, then ask about it. Photos are deleted within the hour."
FAILURES = (RuntimeError, gr.Error)
"""What the model raises here, and what a lent GPU's queue makes of it."""


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


def sentence_for(error: Exception) -> str:
    """Write a failure to the server's log and return what the visitor is told."""
    traceback.print_exception(error)
    return error.message if isinstance(error, gr.Error) else excuse(error)


def note(english: str, n: object = "") -> dict:
    """Return a part of the status line in English, with what its translation needs."""
    return {"key": english, "n": str(n), "text": english.replace("{n}", str(n))}


def status(*notes: dict) -> dict:
    return {"notes": notes}


def failed(sentence: str) -> dict:
    return {"problem": sentence}


def since(begun: float) -> str:
    return f"{time.perf_counter() - begun:.1f}"


def put_back(talk: list[dict], answer: dict, turn: list[dict]) -> None:
    """Let a turn take the place of a question and this answer to it, wherever they are by now."""
    at = next((i for i, message in enumerate(talk) if message is answer), None)
    if at is not None:
        talk[at - 1 : at + 1] = turn


def refusal(sentence: str) -> gr.Error:
    return gr.Error(sentence, print_exception=False)


class Handlers:
    """The page's events around one predictor; `parts` are the components they speak to."""

    def __init__(self, predictor: Predictor, parts: SimpleNamespace):
        self.predictor, self.parts = predictor, parts

    def greet(self) -> dict:
        predictor = self.predictor
        device = predictor.device.type.upper()
        return {
            "model": predictor.name,
            "device": device,
            "untuned": not predictor.tuned,
            "cropless": not predictor.crops,
        }

    # --- the photo

    def start(self, payload: dict | None, visit: Visit | None) -> Iterator[dict]:
        """A photo was uploaded."""
        if not payload:
            yield {self.parts.status: gr.skip()}
            return
        try:
            path = uploaded(payload)
        except BadPhoto as problem:
            yield self.refuse(problem)
            return
        yield from self.open(path, visit)

    def start_collins(self, visit: Visit | None) -> Iterator[dict]:
        """NASA's portrait of Eileen Collins, in the public domain."""
        yield from self.open(ASSETS / "examples" / "eileen_collins.jpg", visit)

    def start_hopper(self, visit: Visit | None) -> Iterator[dict]:
        """The portrait of Grace Hopper that matplotlib brings, in the public domain."""
        yield from self.open(get_sample_data("grace_hopper.jpg", asfileobj=False), visit)

    def open(self, path: Path, visit: Visit | None) -> Iterator[dict]:
        """Find the faces of a photo and show it; `read` follows."""
        p = self.parts
        yield {p.status: status(note("Finding faces …"))}
        begun = time.perf_counter()
        try:
            photo, remark = open_photo(path)
            faces = detect_faces(photo)
            if not faces:
                raise BadPhoto(NO_FACE)
        except BadPhoto as problem:
            yield self.refuse(problem)
            return
        if remark:
            gr.Info(remark)
        reference = visit.reference if visit else None
        fresh = Visit.of(photo, faces, self.predictor.face_size, reference)
        fresh.before = visit.before if visit else None
        fresh.found_in = since(begun)
        yield self.present(fresh)

    def present(self, visit: Visit) -> dict:
        """The page with a photo on it."""
        p = self.parts
        opened = {
            p.state: visit,
            p.upload: gr.update(visible=False),
            p.examples: gr.update(visible=False),
            p.tools: gr.update(visible=True),
            p.back: gr.update(visible=visit.before is not None),
        }
        return opened | self.show(visit) | {p.status: status(*self.faces_found(visit))}

    def refuse(self, problem: BadPhoto) -> dict:
        """Say what is wrong with a photo and make room for another."""
        gr.Warning(str(problem), duration=10)
        return {self.parts.upload: gr.update(value=None), self.parts.status: failed(str(problem))}

    def choose(self, visit: Visit | None, event: gr.EventData) -> dict:
        """Another face of the photo was chosen: show what is known of it."""
        index = event.index
        if not visit:
            raise refusal(NO_PHOTO)
        if not isinstance(index, int) or not 0 <= index < len(visit.faces):
            return {self.parts.status: gr.skip()}
        visit.chosen = index
        return self.show(visit)

    def faces_found(self, visit: Visit) -> list[dict]:
        """The status line's words on how many faces there are and how long finding them took."""
        count = len(visit.faces)
        faces = note("{n} faces", count) if count > 1 else note("1 face")
        return [faces, note("found in {n} s", visit.found_in)]

    def read(self, visit: Visit | None) -> Iterator[dict]:
        """Analyse the chosen face, which is shown already, unless that was done."""
        if not visit or visit.left or not visit.faces:
            yield {self.parts.status: gr.skip()}
            return
        line, found, facts = self.parts.status, self.faces_found(visit), {}
        done = found
        # again where another face was chosen meanwhile, whose own event the page has left out
        while (chosen := visit.chosen) not in visit.readings and not visit.left:
            reading = note("reading face {n} …", chosen + 1)
            yield {line: status(*done, reading)}
            begun = time.perf_counter()
            try:
                visit.readings[chosen] = self.predictor.analyse(visit.portraits[chosen])
            except FAILURES as error:
                visit.unread.add(chosen)
                yield {line: failed(sentence_for(error))}
                return
            visit.unread.discard(chosen)
            done = [*found, note("read in {n} s", since(begun))]
            facts = self.facts(visit)
        if not visit.left:
            yield facts | {line: status(*done)}

    def show(self, visit: Visit) -> dict:
        """The photo with the chosen face, and every part that speaks of that face."""
        stage = views.stage(visit.photo, visit.faces, visit.chosen)
        return {self.parts.stage: stage} | self.facts(visit)

    def facts(self, visit: Visit) -> dict:
        """Every part that speaks of the chosen face; the photo does not change by a reading."""
        p, reading = self.parts, visit.reading
        shown = {
            p.chat: visit.shown(),
            **dict(zip(p.suggestions, visit.suggestions(), strict=True)),
        }
        if not reading:
            return shown | {part: None for part in p.evidence}
        has_crops = reading.attention is not None
        crops, compared = self.predictor.crops, visit.comparison
        covered = visit.covered.get(visit.chosen)
        return shown | {
            p.verdict: views.verdict(reading, visit.caveats[visit.chosen]),
            p.units: views.action_units(reading, self.predictor.thresholds),
            p.clues: views.clues(reading, crops, covered) if has_crops else None,
            p.matrix: views.matrix(reading, crops) if has_crops else None,
            p.looks: views.looks(reading),
            p.comparison: views.comparison(compared) if compared else None,
        }

    def cover(self, visit: Visit | None) -> Iterator[dict]:
        """Read the chosen face with each crop covered, once."""
        p, skip = self.parts, {self.parts.clues: gr.skip()}
        if not visit:
            raise refusal(NO_PHOTO)
        if visit.left or not visit.reading or visit.reading.attention is None:
            yield skip
            return
        chosen, reading, done = visit.chosen, visit.reading, {}
        if chosen not in visit.covered:
            yield {p.status: status(note("covering each crop of face {n} …", chosen + 1))}
            begun = time.perf_counter()
            try:
                visit.covered[chosen] = occlude(self.predictor, reading)
            except FAILURES as error:
                yield {p.status: failed(sentence_for(error))} | skip
                return
            done = {p.status: status(note("covered in {n} s", since(begun)))}
        shown = visit.chosen == chosen and not visit.left
        covered = visit.covered[chosen]
        clues = {p.clues: views.clues(reading, self.predictor.crops, covered)} if shown else skip
        yield done | clues

    def reset(self, visit: Visit | None) -> dict:
        """Make room for another photo; what it is compared with stays."""
        p, reference = self.parts, visit.reference if visit else None
        before = visit.before if visit else None
        if visit:
            visit.left, visit.asked = True, None
        return {
            p.state: Visit(reference=reference, before=before) if reference or before else None,
            p.upload: gr.update(value=None, visible=True),
            p.examples: gr.update(visible=True),
            p.tools: gr.update(visible=False),
            p.back: gr.update(visible=before is not None),
            p.download: gr.update(value=None),
            p.stage: None,
            p.status: status(note("Choose the second photo.")) if reference else None,
            p.chat: [],
            p.question: gr.update(submit_btn=True, stop_btn=False),
            **{part: None for part in p.evidence},
        }

    def clean(self, visit: Visit | None) -> list[dict]:
        """The chat as it is: a piece of an answer may have been on its way when the photo went."""
        return visit.shown() if visit else []

    def renew(self, visit: Visit | None) -> dict:
        """After a refusal: a page whose session was forgotten makes room for a photo."""
        return {self.parts.status: gr.skip()} if visit else self.reset(None)

    def compare(self, visit: Visit | None) -> dict:
        """Keep the chosen face to compare the next photo with, and this photo to come back to."""
        if not visit:
            raise refusal(NO_PHOTO)
        if not visit.reading:
            gr.Info(self.not_read(visit))
            return {self.parts.status: gr.skip()}
        visit.drop()
        visit.left, visit.before = True, None
        return self.reset(Visit(reference=visit.reading, before=visit))

    def back(self, visit: Visit | None) -> dict:
        """Return to the photo that was to be compared, with its readings and talks."""
        p, first = self.parts, visit.before if visit else None
        if not first:
            return {p.status: gr.skip()}
        first.stopped += visit.asked is not None  # its event ends under this photo
        visit.left, first.left = True, False
        return self.present(first) | {p.question: gr.update(submit_btn=True, stop_btn=False)}

    def not_read(self, visit: Visit) -> str:
        """Why there is no reading of the chosen face."""
        if visit.chosen in visit.unread:
            return "This face could not be read. Choose it again for another try."
        return "This face is still being read. Try again in a moment."

    def stop_comparing(self, visit: Visit | None) -> dict:
        if visit:
            visit.reference = None
        return {self.parts.comparison: None}

    def package(self, visit: Visit | None) -> dict:
        """Write the session's archive where it is swept away with the uploads."""
        if not visit:
            raise refusal(NO_PHOTO)
        if not visit.readings:
            raise refusal(self.not_read(visit))
        predictor = self.predictor
        data = archive(
            visit.photo, visit.entries(), predictor.name, predictor.thresholds, visit.comparison
        )
        folder = Path(tempfile.mkdtemp(dir=get_upload_folder()))
        (folder / "feallm-session.zip").write_bytes(data)
        return {self.parts.download: gr.update(value=str(folder / "feallm-session.zip"))}

    # --- the talk

    def ask(self, text: str | None, visit: Visit | None) -> dict:
        """Take a question; refuse what cannot be answered, keeping the draft."""
        if not visit or not visit.faces:
            raise refusal(NO_PHOTO)
        if not visit.reading:
            raise refusal(self.not_read(visit))
        if visit.asked:
            raise refusal("One question at a time: the last one is not answered yet.")
        if problem := question_problem(text):
            raise refusal(problem)
        visit.asked = Question(visit.chosen, text.strip())
        return self.busy(visit)

    def retry(self, visit: Visit | None) -> dict:
        """Ask the last question again, with a little chance in the answer."""
        if not visit or visit.asked or len(visit.talk) < 2:
            raise refusal("There is no finished answer to try again.")
        before = visit.talk[-2:]
        visit.asked = Question(visit.chosen, before[0]["content"], temperature=0.7, before=before)
        del visit.talk[-2:]
        return self.busy(visit, clear_draft=False)

    def busy(self, visit: Visit, clear_draft: bool = True) -> dict:
        """The page while a question waits or is answered."""
        p, draft = self.parts, {"value": ""} if clear_draft else {}
        return {
            p.question: gr.update(submit_btn=False, stop_btn=True, **draft),
            p.chat: visit.shown(),
            p.status: status(note("Waiting for the model …")),
        }

    def answer(self, visit: Visit | None) -> Iterator[dict]:
        """Stream the answer; what was written when a visitor stops or leaves stays in the talk."""
        p, question = self.parts, visit.asked if visit else None
        if not question:
            yield {p.chat: visit.shown() if visit else gr.skip()}
            return
        if not question.claim():
            # an event cancelled before it waited in line answers in this one's place
            while visit.asked is question and not visit.left:
                yield {p.chat: visit.shown()}
                time.sleep(LOOK_SECONDS)
            yield {p.chat: visit.shown()}
            return
        reading, talk = visit.readings[question.face], visit.talks.setdefault(question.face, [])
        asked = [*visit.told(question.face), {"role": "user", "content": question.text}]
        written = {"role": "assistant", "content": ""}
        talk += [asked[-1], written]
        begun = time.perf_counter()
        try:
            if len(self.predictor.fitting(reading, asked)) < len(asked):
                gr.Info("The talk has grown long: its oldest questions are no longer considered.")
            pieces = self.predictor.stream(
                reading, asked, question.temperature, random.getrandbits(31)
            )
            # closed at once when the visitor stops or leaves, so that the model is free
            with contextlib.closing(pieces):
                for piece in pieces:
                    if visit.left or visit.asked is not question:  # stopped
                        return
                    written["content"] += piece
                    yield {p.chat: visit.shown(), p.status: status(note("Writing …"))}
        except QuestionTooLong as problem:
            written |= {"content": str(problem), "failed": True}
        except (*FAILURES, ValueError) as error:
            sentence = sentence_for(error)
            written |= {"content": f"{written['content']} ({sentence})", "failed": True}
            if question.before:
                gr.Warning(sentence)
        finally:
            if not written["content"].strip():
                written |= {"content": "(stopped)", "failed": True}
            written["content"] = written["content"].strip()
            unfinished = written.get("failed") or visit.asked is not question
            if unfinished and question.before:
                put_back(talk, written, question.before)
            if visit.asked is question:  # after a stop there may be a newer one
                visit.asked, visit.stopped = None, 0
        words = note("{n} words", len(written["content"].split()))
        took = status(words, note("written in {n} s", since(begun)))
        yield {p.chat: visit.shown(), p.status: took}

    def settle(self, visit: Visit | None) -> dict:
        """After an answer, whole, refused or stopped: the question box and the next questions."""
        p = self.parts
        box = {p.question: gr.update(submit_btn=True, stop_btn=False)}
        if not visit or not visit.faces:
            return box
        next_questions = dict(zip(p.suggestions, visit.suggestions(), strict=True))
        return box | next_questions

    def drop(self, visit: Visit | None) -> dict:
        """Take a question back; what was written of an answer already begun stays."""
        if visit and visit.drop():
            return self.settle(visit) | {self.parts.chat: visit.shown()}
        return self.settle(visit)

    def call_off(self, visit: Visit | None) -> dict:
        """`drop`, where the browser ends the answer's event too and `fail` will be told of it."""
        if visit and visit.asked:
            visit.stopped += 1
        return self.drop(visit)

    def fail(self, visit: Visit | None) -> dict:
        """An answer's event ended early: by a stop, which has dropped its question, or not."""
        if visit and visit.stopped:
            visit.stopped -= 1
            # a last piece may have come after the stop; there may be a newer question, too
            line = {} if visit.asked else {self.parts.status: status(note("Stopped."))}
            return {self.parts.chat: visit.shown()} | line
        return self.drop(visit)

    def stop(self, visit: Visit | None) -> dict:
        return self.call_off(visit) | {self.parts.status: status(note("Stopped."))}

    def undo(self, visit: Visit | None) -> dict:
        """Take the last question and its answer back into the box."""
        p = self.parts
        if not visit or visit.asked or len(visit.talk) < 2:
            return {p.chat: gr.skip()}
        question = visit.talk[-2]["content"]
        del visit.talk[-2:]
        return {p.chat: visit.shown(), p.question: question}

    def clear(self, visit: Visit | None) -> dict:
        """Forget the talk about the chosen face."""
        p = self.parts
        if not visit:
            return {p.chat: []}
        line = status(note("Stopped.")) if visit.asked else None
        self.call_off(visit)
        visit.talks.pop(visit.chosen, None)
        return self.settle(visit) | {p.chat: visit.shown(), p.status: line}

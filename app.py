"""The page: a photo in, faces boxed, a talk about one of them, and what the answers rest on.

Run as:

    python app.py                      feallm-mini, on this machine, at http://127.0.0.1:7860
    python app.py --model DIR --port 8000

Handlers are thin: check, call `feallm`, hand its views to the templates in assets/page.
"""

import argparse
import os
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # before gradio is imported: no look-ups at all
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

import gradio as gr
from gradio.utils import get_upload_folder
from matplotlib.cbook import get_sample_data
from PIL import Image

from feallm import Predictor, views
from feallm.faces import Face, align_face, caveat, detect_faces
from feallm.photos import BadPhoto, open_photo
from feallm.predictor import MINI, ModelError, Reading

PAGE = Path(__file__).parent / "assets" / "page"
MAX_QUESTION = 1000
KEEP_SECONDS = 3600
"""Uploads and visitors' states are deleted after this long."""
SUGGESTIONS = (
    "What emotion is this, and why?",
    "Which action units are active?",
    "Is the smile genuine?",
)
PRIVACY = (
    "Photos stay on this server, are deleted within the hour and are never used for training. "
    "Answers describe visible expression, not what a person feels, and can be wrong."
)
CSP = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; "
    "connect-src 'self' blob: data:; media-src 'self' blob:; "
    "worker-src 'self' blob:; object-src 'none'"
)
MODEL = {
    "concurrency_id": "model",
    "concurrency_limit": 1,
}  # one model: all its listeners share a queue
QUIET = {"api_visibility": "private", "show_progress": "hidden"}


@dataclass
class Visit:
    """One visitor's photo and talks; the chat on the page is only a picture of `talks`."""

    photo: Image.Image
    faces: list[Face]
    chosen: int = 0
    readings: dict[int, Reading] = field(default_factory=dict)
    talks: dict[int, list[dict]] = field(default_factory=dict)

    @property
    def talk(self) -> list[dict]:
        return self.talks.setdefault(self.chosen, [])

    def shown(self) -> list[dict]:
        """The chosen face's talk as the chat shows it, the model's first description on top."""
        reading = self.readings.get(self.chosen)
        opening = (
            [{"role": "assistant", "content": f"{reading.summary} {reading.movements}"}]
            if reading
            else []
        )
        return [
            {"role": m["role"], "content": views.chat_text(m["content"])}
            for m in opening + self.talk
        ]


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


def template(name: str, **options) -> gr.HTML:
    """Return an HTML part from assets/page/NAME.html, with NAME.js where there is one."""
    script = PAGE / f"{name}.js"
    return gr.HTML(
        None,
        html_template=(PAGE / f"{name}.html").read_text(),
        js_on_load=script.read_text() if script.exists() else None,
        elem_id={"action_units": "units"}.get(name, name),
        **options,
    )


def build_demo(predictor: Predictor) -> gr.Blocks:
    """Return the page around a loaded predictor (or a stand-in with its methods)."""
    crops = predictor.crops

    def panels(visit: Visit | None) -> list:
        reading = visit and visit.readings.get(visit.chosen)
        if not reading:
            return [None] * 4
        note = caveat(visit.faces[visit.chosen], visit.photo)
        verdict = views.verdict(reading, note)
        units = views.action_units(reading, predictor.thresholds)
        if reading.attention is None:
            return [None, verdict, units, None]
        return [views.clues(reading, crops), verdict, units, views.matrix(reading, crops)]

    def read(visit: Visit) -> Iterator[list]:
        """Analyse the chosen face unless that was done, and show it."""
        shown_stage = views.stage(visit.photo, visit.faces, visit.chosen)
        count = f"{len(visit.faces)} face{'s' if len(visit.faces) > 1 else ''}"
        spent = ""
        if visit.chosen not in visit.readings:
            yield [
                visit,
                shown_stage,
                f"{count} · reading face {visit.chosen + 1} …",
                visit.shown(),
                *panels(visit),
            ]
            start = time.perf_counter()
            face = align_face(visit.photo, visit.faces[visit.chosen], predictor.face_size)
            visit.readings[visit.chosen] = predictor.analyse(face)
            spent = f" · read in {time.perf_counter() - start:.1f} s"
        yield [visit, shown_stage, f"{count}{spent}", visit.shown(), *panels(visit)]

    def start(source: dict | str | None) -> Iterator[list]:
        """A photo was given: find its faces and read the largest."""
        hidden, shown = gr.update(visible=False), gr.update(visible=True)
        if not source:
            yield [gr.skip()] * 11
            return
        try:
            photo, note = open_photo(source if isinstance(source, str) else uploaded(source))
            faces = detect_faces(photo)
            if not faces:
                raise BadPhoto(
                    "No face was found. Use a photo that shows the whole face, well lit."
                )
        except BadPhoto as problem:
            gr.Warning(str(problem), title="This photo cannot be used", duration=10)
            yield [
                gr.update(value=None),
                *[gr.skip()] * 2,
                None,
                gr.skip(),
                f"**{problem}**",
                *[gr.skip()] * 5,
            ]
            return
        if note:
            gr.Info(note)
        for state, stage, status, chat, *rest in read(Visit(photo, faces)):
            yield [hidden, shown, hidden, state, stage, status, chat, *rest]

    def choose(visit: Visit | None, event: gr.EventData) -> Iterator[list]:
        if not visit or not isinstance(event.index, int) or not 0 <= event.index < len(visit.faces):
            yield [gr.skip()] * 8
            return
        visit.chosen = event.index
        yield from read(visit)

    def reset() -> list:
        shown, hidden = gr.update(visible=True), gr.update(visible=False)
        return [gr.update(value=None, visible=True), hidden, shown, None, None, "", [], *[None] * 4]

    def ask(question: str | None, visit: Visit | None) -> tuple:
        """Take a question into the talk; refuse what cannot be answered, keeping the draft."""
        question = (question or "").strip()
        if not visit or visit.chosen not in visit.readings:
            raise gr.Error(
                "Add a photo first, then ask about it.", title="No photo yet", print_exception=False
            )
        if not question:
            raise gr.Error(
                "Type a question, or choose one above.",
                title="Empty question",
                print_exception=False,
            )
        if len(question) > MAX_QUESTION:
            text = f"The question has {len(question)} characters; the limit is {MAX_QUESTION}."
            raise gr.Error(text, title="Too long", print_exception=False)
        visit.talk.append({"role": "user", "content": question})
        return gr.update(value="", submit_btn=False, stop_btn=True), visit.shown(), visit

    def answer(visit: Visit, temperature: float = 0.0) -> Iterator[tuple]:
        """Stream the answer; what was written when a visitor stops or leaves stays in the talk."""
        talk, written = visit.talk, {"role": "assistant", "content": ""}
        pieces = predictor.stream(
            visit.readings[visit.chosen], list(talk), temperature, random.getrandbits(31)
        )
        talk.append(written)
        try:
            for piece in pieces:
                written["content"] += piece
                yield visit.shown(), visit
        except ValueError as problem:
            written["content"] = str(problem)
            yield visit.shown(), visit
        finally:
            written["content"] = written["content"].strip() or "(stopped)"

    def retry(visit: Visit | None) -> Iterator[tuple]:
        """Answer the last question again, with a little chance in it."""
        if not visit or len(visit.talk) < 2:
            yield gr.skip(), gr.skip()
            return
        visit.talk.pop()
        yield from answer(visit, temperature=0.7)

    def undo(visit: Visit | None) -> tuple:
        if not visit or len(visit.talk) < 2:
            return gr.skip(), gr.skip(), visit
        question = visit.talk[-2]["content"]
        del visit.talk[-2:]
        return visit.shown(), question, visit

    def clear(visit: Visit | None) -> Visit | None:
        if visit:
            visit.talks.pop(visit.chosen, None)
        return visit

    def idle() -> dict:
        return gr.update(submit_btn=True, stop_btn=False)

    with gr.Blocks(
        title="FEALLM: facial emotion, explained", fill_width=True, delete_cache=(600, KEEP_SECONDS)
    ) as demo:
        state = gr.State(None, time_to_live=KEEP_SECONDS)
        header = template("header")
        demo.load(
            lambda: {"model": predictor.name, "device": str(predictor.device).upper()},
            None,
            header,
            **QUIET,
        )
        with gr.Row(elem_id="columns", equal_height=False):
            with gr.Column(elem_id="photo", min_width=0):
                upload = gr.Image(
                    type="filepath",
                    sources=["upload", "webcam", "clipboard"],
                    show_label=False,
                    label="Photo",
                    height=290,
                    buttons=[],
                    elem_id="upload",
                    placeholder="# Drop a photo here\nor click to choose one",
                )
                stage = template("stage")
                with gr.Row(elem_id="photobar"):
                    status = gr.Markdown("", elem_id="status")
                    change = gr.Button("Change photo", size="sm", elem_id="change", visible=False)
                example = gr.Button("Try an example: Grace Hopper", size="sm", elem_id="example")
                clues = template("clues")
            with gr.Column(elem_id="talk", min_width=0):
                chat = gr.Chatbot(
                    elem_id="chat",
                    show_label=False,
                    label="Talk about the chosen face",
                    height="100%",
                    layout="bubble",
                    buttons=["copy"],
                    allow_tags=False,
                    latex_delimiters=[],
                    placeholder=(PAGE / "welcome.html").read_text(),
                )
                with gr.Row(elem_id="suggestions"):
                    suggestions = [gr.Button(s, size="sm") for s in SUGGESTIONS]
                question = gr.Textbox(
                    show_label=False,
                    label="Your question",
                    placeholder="Ask about this face …",
                    submit_btn=True,
                    max_lines=5,
                    container=False,
                    elem_id="question",
                )
                gr.Markdown(PRIVACY, elem_id="privacy")
            with gr.Column(elem_id="evidence", min_width=0):
                verdict, units, matrix = (
                    template("verdict"),
                    template("action_units"),
                    template("matrix"),
                )

        seen = [state, stage, status, chat, clues, verdict, units, matrix]
        opened = [upload, change, example, *seen]
        upload.change(start, upload, opened, preprocess=False, **MODEL, **QUIET)
        sample = str(get_sample_data("grace_hopper.jpg", asfileobj=False))

        def start_example() -> Iterator[list]:
            yield from start(sample)

        example.click(start_example, None, opened, **MODEL, **QUIET)
        stage.select(choose, state, seen, **MODEL, **QUIET)
        change.click(reset, None, opened, **QUIET)
        running = []
        for trigger, source in [(question.submit, question), *[(b.click, b) for b in suggestions]]:
            taken = trigger(ask, [source, state], [question, chat, state], **QUIET)
            said = taken.success(answer, state, [chat, state], **MODEL, **QUIET)
            said.then(idle, None, question, queue=False, **QUIET)
            running.append(said)
        running.append(chat.retry(retry, state, [chat, state], **MODEL, **QUIET))
        chat.undo(undo, state, [chat, question, state], **QUIET)
        chat.clear(clear, state, state, **QUIET)
        question.stop(idle, None, question, cancels=running, queue=False, **QUIET)
    return demo.queue(max_size=24)


def theme() -> gr.themes.Base:
    """The page's colours and type; fonts are Gradio's own files, none is fetched."""
    orange = (
        "#fff4ef",
        "#ffe4d8",
        "#ffc7b0",
        "#ffa17d",
        "#fb7a4e",
        "#ef5a2b",
        "#d8451a",
        "#b33514",
        "#8f2d15",
        "#742915",
        "#3f1208",
    )
    return gr.themes.Base(
        primary_hue=gr.themes.Color(*orange),
        neutral_hue="stone",
        radius_size="lg",
        font=[
            gr.themes.LocalFont("IBM Plex Sans", weights=(400, 700)),
            "ui-sans-serif",
            "sans-serif",
        ],
        font_mono=[
            gr.themes.LocalFont("IBM Plex Mono", weights=(400, 700)),
            "ui-monospace",
            "monospace",
        ],
    ).set(
        body_background_fill="#f7f4f0",
        body_background_fill_dark="#141312",
        block_background_fill="#ffffff",
        block_background_fill_dark="#1d1b1a",
        block_border_color="#e7e1da",
        block_border_color_dark="#302d2a",
        input_background_fill="#ffffff",
        input_background_fill_dark="#1d1b1a",
        body_text_color="#2a2622",
        body_text_color_dark="#ece7e1",
        body_text_color_subdued="#6f675f",
        body_text_color_subdued_dark="#a39a90",
    )


def launch_options() -> dict:
    """What every launch of the page needs, the tests' too."""
    return {
        "theme": theme(),
        "css": (PAGE / "page.css").read_text(),
        "head": f'<meta http-equiv="Content-Security-Policy" content="{CSP}">',
        "footer_links": [],
        "run_history": False,
        "enable_monitoring": False,
        "show_error": False,
        "ssr_mode": False,
        "max_file_size": "15mb",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--model", default=str(MINI), help="folder or hub id of a FEALLM (default: feallm-mini)"
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=7860)
    args = parser.parse_args()
    try:
        predictor = Predictor(args.model)
    except ModelError as problem:
        raise SystemExit(str(problem)) from None
    build_demo(predictor).launch(server_name=args.host, server_port=args.port, **launch_options())


if __name__ == "__main__":
    main()

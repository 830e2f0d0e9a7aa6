"""The page's parts and which event calls which handler."""

from types import SimpleNamespace

import gradio as gr

from feallm import Predictor
from feallm.suggestions import suggest
from feallm.views import chat_text
from page.api import Api
from page.handlers import Handlers
from page.theme import ASSETS
from page.words import t

SWEEP_SECONDS, KEEP_SECONDS = 600, 3000
"""Every SWEEP, uploads and states older than KEEP are deleted: within the hour, as promised."""
PRIVACY = (
    "Photos stay on this server, are deleted within the hour and are never used for training. "
    "Answers describe visible expression, not what a person feels, and can be wrong."
)
MODEL = {"concurrency_id": "model", "concurrency_limit": 1}
"""One model: all its listeners share a queue."""
QUIET = {"api_visibility": "private", "show_progress": "hidden"}


def template(name: str, **options) -> gr.HTML:
    """Return an HTML part from assets/page/NAME.html, with NAME.js where there is one."""
    script = ASSETS / f"{name}.js"
    return gr.HTML(
        None,
        html_template=(ASSETS / f"{name}.html").read_text(),
        js_on_load=script.read_text() if script.exists() else None,
        elem_id={"action_units": "units"}.get(name, name),
        **options,
    )


def build_demo(predictor: Predictor) -> gr.Blocks:
    """Return the page around a loaded predictor (or a stand-in with its methods)."""
    with gr.Blocks(
        title="FEALLM: facial emotion, explained",
        fill_width=True,
        delete_cache=(SWEEP_SECONDS, KEEP_SECONDS),
    ) as demo:
        parts = place_parts()
        connect(demo, parts, Handlers(predictor, parts))
        Api(predictor).place(MODEL)
    # explicit: on ZeroGPU the default would be 1
    return demo.queue(max_size=24)


def build_apology(problem: str) -> gr.Blocks:
    """Return a page that says why there is no model."""
    with gr.Blocks(title="FEALLM", fill_width=True) as demo:
        header = template("header")
        demo.load(lambda: {"model": "no model", "device": "–"}, None, header, **QUIET)
        gr.Markdown(t("The model could not be loaded, so photos cannot be read now."))
        gr.Markdown(chat_text(problem))
    return demo


def place_parts() -> SimpleNamespace:
    """Lay the parts out; their names are what the handlers call them."""
    p = SimpleNamespace()
    p.state = gr.State(None, time_to_live=KEEP_SECONDS)
    p.header = template("header")
    with gr.Row(elem_id="columns", equal_height=False):
        with gr.Column(elem_id="photo", min_width=0):
            p.upload = gr.Image(
                type="filepath",
                sources=["upload", "webcam", "clipboard"],
                show_label=False,
                label=t("Photo"),
                height=290,
                buttons=[],
                elem_id="upload",
                placeholder=t("# Drop a photo here\nor click to choose one"),
            )
            p.stage = template("stage")
            p.status = gr.Markdown("", elem_id="status")
            with gr.Row(elem_id="tools", visible=False) as p.tools:
                p.change = gr.Button(t("Change photo"), size="sm", min_width=0)
                p.compare = gr.Button(t("Compare"), size="sm", min_width=0)
                p.download = gr.DownloadButton(
                    t("Export"), size="sm", min_width=0, interactive=False
                )
            p.example = gr.Button(t("Try an example: Grace Hopper"), size="sm", elem_id="example")
            p.clues = template("clues")
        with gr.Column(elem_id="talk", min_width=0):
            p.chat = gr.Chatbot(
                elem_id="chat",
                show_label=False,
                label=t("Talk about the chosen face"),
                height="100%",
                layout="bubble",
                buttons=["copy"],
                allow_tags=False,
                latex_delimiters=[],
                placeholder=(ASSETS / "welcome.html").read_text(),
            )
            with gr.Row(elem_id="suggestions"):
                p.suggestions = [gr.Button(s, size="sm") for s in suggest(None, [])]
            p.question = gr.Textbox(
                show_label=False,
                label=t("Your question"),
                placeholder=t("Ask about this face …"),
                submit_btn=True,
                max_lines=5,
                container=False,
                elem_id="question",
            )
            gr.Markdown(t(PRIVACY), elem_id="privacy")
        with gr.Column(elem_id="evidence", min_width=0):
            p.comparison = template("comparison")
            p.verdict = template("verdict")
            p.units = template("action_units")
            p.matrix = template("matrix")
            p.looks = template("looks")
    p.evidence = [p.comparison, p.verdict, p.units, p.clues, p.matrix, p.looks]
    return p


def connect(demo: gr.Blocks, p: SimpleNamespace, on: Handlers) -> None:
    """Wire every event; those that need the model wait in its queue."""
    seen = [p.state, p.stage, p.status, p.chat, p.download, *p.suggestions, *p.evidence]
    opened = [p.upload, p.example, p.tools, *seen]
    demo.load(on.greet, None, p.header, **QUIET)
    reading = MODEL | QUIET | {"show_progress": "minimal", "show_progress_on": p.status}
    p.upload.change(on.start, [p.upload, p.state], opened, preprocess=False, **reading)
    p.example.click(on.start_example, p.state, opened, **reading)
    p.stage.select(on.choose, p.state, seen, **reading)
    p.clues.select(on.cover, p.state, [p.state, p.clues], **MODEL, **QUIET)
    p.change.click(on.reset, p.state, opened, **QUIET)
    p.compare.click(on.compare, p.state, opened, **QUIET)
    p.comparison.select(on.stop_comparing, p.state, [p.state, p.comparison], **QUIET)

    settled = [p.question, p.download, *p.suggestions]
    running = []
    asking = [(p.question.submit, p.question), *[(b.click, b) for b in p.suggestions]]
    for trigger, source in asking:
        taken = trigger(on.ask, [source, p.state], [p.question, p.chat, p.state], **QUIET)
        running.append(taken.success(on.answer, p.state, [p.chat, p.state], **MODEL, **QUIET))
    running.append(p.chat.retry(on.retry, p.state, [p.chat, p.state], **MODEL, **QUIET))
    for answered in running:
        answered.then(on.settle, p.state, settled, **QUIET)
    p.chat.undo(on.undo, p.state, [p.chat, p.question, p.state], **QUIET)
    p.chat.clear(on.clear, p.state, [p.chat, p.state], **QUIET)
    p.question.stop(on.settle, p.state, settled, cancels=running, **QUIET)

"""The page's parts and which event calls which handler."""

from types import SimpleNamespace

import gradio as gr
from gradio.utils import get_upload_folder

from feallm import Predictor
from feallm.suggestions import suggest
from page.api import Api
from page.handlers import Handlers
from page.keeping import end_answers, keep_clean, refuse_downloads
from page.theme import ASSETS
from page.uploads import own_folder
from page.words import t

SWEEP_SECONDS, KEEP_SECONDS = 600, 3000
"""Every SWEEP, uploads and sessions older than KEEP are deleted: within the hour, as promised."""
PRIVACY = (
    "Photos stay on this server, are deleted within the hour and are never used for training. "
    "Answers describe visible expression, not what a person feels, and can be wrong."
)
SCRIPTS = {"looks": ["details"], "units": ["details"], "matrix": ["details", "matrix"]}
"""Templates with a script of others; the other templates' scripts bear their own names."""
MODEL = {"concurrency_id": "model", "concurrency_limit": 1}
"""One model: all its listeners share a queue, but answers, which are written together."""
QUIET = {"api_visibility": "private", "show_progress": "hidden"}


def template(name: str) -> gr.HTML:
    """Return an HTML part from assets/page/NAME.html, with its script where it has one."""
    scripts = [ASSETS / f"{script}.js" for script in SCRIPTS.get(name, [name])]
    return gr.HTML(
        None,
        html_template=(ASSETS / f"{name}.html").read_text("utf-8"),
        js_on_load="".join(s.read_text("utf-8") for s in scripts if s.exists()) or None,
        elem_id=name,
    )


def build_demo(predictor: Predictor, queue: int = 128, keep: float = KEEP_SECONDS) -> gr.Blocks:
    """Return the page around a loaded predictor (or a stand-in with its methods).

    Args:
        queue: events that may wait.
        keep: seconds after which uploads and sessions are deleted at the next sweep.

    Raises:
        RuntimeError: GRADIO_TEMP_DIR is no folder of the page's own, or somebody else's
            (`page.uploads`).
    """
    with gr.Blocks(title="FEALLM: facial emotion, explained", fill_width=True) as demo:
        parts = place_parts()
        connect(demo, parts, Handlers(predictor, parts))
        Api(predictor).place(MODEL)
    keep_clean(demo, own_folder(get_upload_folder()), SWEEP_SECONDS, keep)
    refuse_downloads()
    # explicit: on ZeroGPU the default would be 1; every event waits here, not only the model's
    return demo.queue(max_size=queue, api_open=False)


def build_apology() -> gr.Blocks:
    """Return a page that says there is no model; the server's log says why."""
    with gr.Blocks(title="FEALLM", fill_width=True) as demo:
        header = template("header")
        demo.load(lambda: {"model": "no model", "device": "–"}, None, header, **QUIET)
        gr.Markdown(t("The model could not be loaded, so photos cannot be read now."))
    return demo


def place_parts() -> SimpleNamespace:
    """Lay the parts out; their names are what the handlers call them."""
    p = SimpleNamespace()
    p.state = gr.State(None)
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
            p.status = template("status")
            with gr.Row(elem_id="tools", visible=False) as p.tools:
                p.change = gr.Button(t("Change photo"), size="sm", min_width=0)
                p.compare = gr.Button(t("Compare"), size="sm", min_width=0)
                p.export = gr.Button(t("Export"), size="sm", min_width=0)
                p.download = gr.DownloadButton("", elem_id="download", visible="hidden")
            with gr.Row(elem_id="examples") as p.examples:
                p.collins = gr.Button(t("Try an example: Eileen Collins"), size="sm", min_width=0)
                p.hopper = gr.Button(t("or Grace Hopper"), size="sm", min_width=0)
            p.back = gr.Button(
                t("Back to the first photo"), size="sm", elem_id="back", visible=False
            )
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
                placeholder=(ASSETS / "welcome.html").read_text("utf-8"),
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
            p.units = template("units")
            p.matrix = template("matrix")
            p.looks = template("looks")
    p.evidence = [p.comparison, p.verdict, p.units, p.clues, p.matrix, p.looks]
    return p


def connect(demo: gr.Blocks, p: SimpleNamespace, on: Handlers) -> None:
    """Wire every event; those that need the model wait in its queue."""

    def gone(request: gr.Request) -> None:
        end_answers(demo, request.session_hash)

    seen = [p.stage, p.status, p.chat, *p.suggestions, *p.evidence]
    opened = [p.state, p.upload, p.examples, p.tools, p.back, p.download, p.question, *seen]
    settled = [p.question, p.chat, p.status, *p.suggestions]
    shown = QUIET | {"show_progress": "minimal", "show_progress_on": p.status}
    waiting = MODEL | shown
    talking = {"concurrency_id": "talk", "concurrency_limit": on.predictor.voices} | shown
    demo.load(on.greet, None, p.header, **QUIET)
    # beside Gradio's own end of a closed tab's events, which now and then does not come
    demo.unload(gone)

    started = p.upload.change(on.start, [p.upload, p.state], opened, preprocess=False, **waiting)
    portraits = {p.collins: on.start_collins, p.hopper: on.start_hopper}
    examples = [b.click(start, p.state, opened, **waiting) for b, start in portraits.items()]
    chosen = p.stage.select(on.choose, p.state, seen, **QUIET)
    read = [e.success(on.read, p.state, seen, **waiting) for e in (started, *examples, chosen)]
    covered = p.clues.select(on.cover, p.state, [p.clues, p.status], **waiting)
    p.comparison.select(on.stop_comparing, p.state, p.comparison, **QUIET)
    packed = p.export.click(on.package, p.state, p.download, **QUIET)
    packed.success(None, None, None, js="() => document.querySelector('#download').click()")

    asking = [(p.question.submit, p.question), *[(b.click, b) for b in p.suggestions]]
    taken = [event(on.ask, [source, p.state], settled, **QUIET) for event, source in asking]
    taken.append(p.chat.retry(on.retry, p.state, settled, **QUIET))
    # "multiple": the browser would leave out a question while a stopped one's event is ending
    answered = [
        t.success(on.answer, p.state, [p.chat, p.status], trigger_mode="multiple", **talking)
        for t in taken
    ]
    for event in answered:
        event.success(on.settle, p.state, settled, **QUIET)
        event.failure(on.fail, p.state, settled, **QUIET)
    p.question.stop(on.stop, p.state, settled, cancels=answered, **QUIET)
    p.chat.undo(on.undo, p.state, [p.chat, p.question], **QUIET)
    p.chat.clear(on.clear, p.state, settled, cancels=answered, **QUIET)

    busy = [started, *examples, *read, covered, *answered]
    changed = p.change.click(on.reset, p.state, opened, cancels=busy, **QUIET)
    changed.then(on.clean, p.state, p.chat, **QUIET)
    comparing = p.compare.click(on.compare, p.state, opened, **QUIET)
    comparing.then(on.clean, p.state, p.chat, **QUIET)
    for event in (chosen, covered, packed, comparing, *taken):
        event.failure(on.renew, p.state, opened, **QUIET)
    returned = p.back.click(on.back, p.state, opened, cancels=busy, **QUIET)
    returned.success(on.read, p.state, seen, **waiting)

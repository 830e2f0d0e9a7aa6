"""FEALLM in the browser: a photo in, faces boxed, a talk about one of them, and the evidence.

Run as:

    python app.py                      feallm-mini, on this machine, at http://127.0.0.1:7860
    python app.py --model DIR --port 8000

The options may also be set in the environment, as hosts do: FEALLM_MODEL, FEALLM_DEVICE,
FEALLM_QUANTIZATION, FEALLM_DTYPE, FEALLM_HOST, FEALLM_PORT, FEALLM_QUEUE, FEALLM_KEEP_MINUTES. On a
ZeroGPU Space the model's calls run on the lent GPU.
"""

import argparse
import os
import socket

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # before gradio is imported: no look-ups at all
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

from page.uploads import temporary_folder

os.environ["GRADIO_TEMP_DIR"] = temporary_folder()  # before, too: it keeps some of its paths

try:
    import spaces  # on ZeroGPU this must come before anything touches CUDA
except ImportError:
    spaces = None

from feallm import Predictor
from feallm.__main__ import tell
from feallm.device import DTYPES, device_of
from feallm.loading import QUANTIZATIONS
from feallm.predictor import MINI
from page.layout import KEEP_SECONDS, build_apology, build_demo
from page.theme import launch_options

ON_SPACES = "SPACE_ID" in os.environ


def lend_gpu(predictor: Predictor | None) -> None:
    """Let a ZeroGPU Space lend its GPU to each call of the model; elsewhere nothing changes.

    The seconds asked for are those of a 7B: who asks for less waits less. Without a predictor a
    function that does nothing is lent to, since a Space that lends to none is not started.
    """
    if not spaces:
        return
    if predictor is None:
        spaces.GPU(lambda: None)
        return
    predictor.analyse = spaces.GPU(predictor.analyse, duration=lambda face, texts=True: 20)
    predictor.chances = spaces.GPU(predictor.chances, duration=lambda faces, aus: 5 + len(faces))
    predictor.stream = spaces.GPU(predictor.stream, duration=lambda reading, messages, *_: 40)
    predictor.voices = 1  # each call has a process of its own: nothing is written together


def port_problem(host: str, port: int) -> str | None:
    """Return why the page cannot listen there, or None."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family) as trial:
            if os.name == "posix":  # as servers do: a port just left is free
                trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind((host, port))
    except (OSError, OverflowError) as problem:
        return f"{host}:{port} cannot be listened on ({problem}). Choose another --port."
    return None


def env(name: str, default: str | None = None) -> str | None:
    """Return a variable of the environment; an empty one counts as none."""
    return os.environ.get(name) or default


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument(
        "--model",
        default=env("FEALLM_MODEL", str(MINI)),
        help="folder or hub id of a FEALLM, or LLaVA-1.5",
    )
    parser.add_argument(
        "--device", default=env("FEALLM_DEVICE", "auto"), help="auto, cpu, cuda, cuda:1"
    )
    parser.add_argument(
        "--quantization",
        default=env("FEALLM_QUANTIZATION"),
        choices=QUANTIZATIONS,
        help="of a large model's language part",
    )
    parser.add_argument(
        "--dtype", default=env("FEALLM_DTYPE", "auto"), choices=DTYPES, help="of the weights"
    )
    parser.add_argument(
        "--host",
        default=env("FEALLM_HOST", "0.0.0.0" if ON_SPACES else "127.0.0.1"),
        help="address to listen on",
    )
    parser.add_argument("--port", type=int, default=env("FEALLM_PORT", "7860"))
    parser.add_argument(
        "--queue", type=int, default=env("FEALLM_QUEUE", "128"), help="events that may wait"
    )
    parser.add_argument(
        "--keep-minutes",
        type=float,
        default=env("FEALLM_KEEP_MINUTES", str(KEEP_SECONDS // 60)),
        help="how long uploads and sessions live before they are deleted",
    )
    args = parser.parse_args()
    # argparse does not check what comes from the environment
    if args.quantization not in (None, *QUANTIZATIONS):
        parser.error(f"FEALLM_QUANTIZATION is {args.quantization!r}: nf4, int8 or nothing.")
    if args.dtype not in DTYPES:
        parser.error(f"FEALLM_DTYPE is {args.dtype!r}: one of {', '.join(DTYPES)}.")
    if args.queue < 1:
        parser.error("--queue: at least one event must be allowed to wait.")
    if not 0 < 60 * args.keep_minutes <= KEEP_SECONDS:
        parser.error(f"The page promises an hour: keep at most {KEEP_SECONDS // 60} minutes.")
    if problem := port_problem(args.host, args.port):
        parser.error(problem)  # now, not when a large model was loaded
    try:
        device = device_of(args.device)
        predictor = Predictor(
            args.model, device, DTYPES[args.dtype], args.quantization, tell, lent=bool(spaces)
        )
        lend_gpu(predictor)
        demo = build_demo(predictor, queue=args.queue, keep=60 * args.keep_minutes)
    except RuntimeError as problem:  # a ModelError, or what the device has to say
        tell(problem)
        lend_gpu(None)
        # a host's visitors never see its log: the page must say it
        demo = build_apology()
    demo.launch(server_name=args.host, server_port=args.port, **launch_options())


if __name__ == "__main__":
    main()

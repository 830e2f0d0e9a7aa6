"""FEALLM in the browser: a photo in, faces boxed, a talk about one of them, and the evidence.

Run as:

    python app.py                      feallm-mini, on this machine, at http://127.0.0.1:7860
    python app.py --model DIR --port 8000

The options may also be set in the environment, as hosts do: FEALLM_MODEL, FEALLM_DEVICE,
FEALLM_HOST, FEALLM_PORT. On a ZeroGPU Space the model's calls run on the lent GPU.
"""

import argparse
import os
import sys
import tempfile

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # before gradio is imported: no look-ups at all
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
# a folder of our own: what lies in it is deleted by its age
os.environ.setdefault("GRADIO_TEMP_DIR", os.path.join(tempfile.gettempdir(), "feallm-uploads"))

try:
    import spaces  # on ZeroGPU this must come before anything touches CUDA
except ImportError:
    spaces = None

import torch

from feallm import Predictor
from feallm.predictor import MINI
from page.layout import build_apology, build_demo
from page.theme import launch_options

ON_SPACES = "SPACE_ID" in os.environ


def lend_gpu(predictor: Predictor) -> None:
    """Let a ZeroGPU Space lend its GPU to each call of the model; elsewhere nothing changes."""
    if spaces:
        predictor.analyse = spaces.GPU(predictor.analyse, duration=15)
        predictor.chances = spaces.GPU(predictor.chances, duration=15)
        predictor.stream = spaces.GPU(predictor.stream, duration=45)


def main() -> None:
    env = os.environ.get
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument(
        "--model", default=env("FEALLM_MODEL", str(MINI)), help="folder or hub id of a FEALLM"
    )
    parser.add_argument(
        "--device", default=env("FEALLM_DEVICE"), help="cpu, cuda, cuda:1; by default what is there"
    )
    parser.add_argument(
        "--host",
        default=env("FEALLM_HOST", "0.0.0.0" if ON_SPACES else "127.0.0.1"),
        help="address to listen on",
    )
    parser.add_argument("--port", type=int, default=int(env("FEALLM_PORT", "7860")))
    args = parser.parse_args()
    try:
        predictor = Predictor(args.model, torch.device(args.device) if args.device else None)
        lend_gpu(predictor)
        demo = build_demo(predictor)
    except RuntimeError as problem:  # a ModelError, or no such device
        print(problem, file=sys.stderr)
        # a host's visitors never see its log: the page must say it
        demo = build_apology()
    demo.launch(server_name=args.host, server_port=args.port, **launch_options())


if __name__ == "__main__":
    main()

r"""Measure a model on labelled faces it never saw, from what it writes.

Run as:

    python -m train.evaluate --data DATA
    python -m train.evaluate --benchmark rafdb --data RAFDB --model runs/stage2/final
    python -m train.evaluate --benchmark rafdb --data RAFDB --model llava-hf/llava-1.5-7b-hf
    python -m train.evaluate --benchmark rafdb --data RAFDB --model gpt-4o \
        --endpoint https://api.openai.com/v1

With `--benchmark` the paper's protocol: a question drawn by seed from the templates of the emotion
summary is asked about every face with an expression and one of the facial movements about every
face with coded action units; the label and the units are read from the answer. Asked is a FEALLM,
any image-text-to-text model of transformers, or an endpoint of OpenAI's protocol (the key in
OPENAI_API_KEY). How each set must lie under DATA says `train.feabench.sets`. Every answer is kept
in OUT (default results/BENCHMARK/MODEL) and a stopped run goes on; several GPUs through
`accelerate launch -m train.evaluate`. `python -m train.feabench.table results/` makes the paper's
tables of all that was measured.

Without it DATA holds ferplus.zip, ckplus_validation.zip and expw.zip, and a FEALLM is measured as
the page uses it (`train.mini.measure`): also its calibration and whether its texts keep to what it
decided. The last line is one JSON object either way.
"""

import argparse
import json
import os
import sys
from pathlib import Path

from feallm import Predictor
from feallm.loading import QUANTIZATIONS, ModelError, is_feallm
from feallm.predictor import MINI
from train.fea.endpoint import EndpointError
from train.feabench.run import AnotherRun, ask_all
from train.feabench.sets import SETS, load_set
from train.feabench.systems import Chat, Deciding, Feallm, Remote, System
from train.feabench.table import describe_scores
from train.layouts import LayoutError
from train.mini.measure import SETS as MEASURED
from train.mini.measure import measure


def open_system(args: argparse.Namespace) -> System:
    """Return what is to be asked.

    Raises:
        ModelError: it cannot be loaded.
    """
    if args.endpoint:
        key = os.environ.get("OPENAI_API_KEY")
        return Remote(args.endpoint, args.model, key, args.per_minute)
    if is_feallm(args.model):
        return (Deciding if args.as_page else Feallm)(args.model, args.quantization)
    return Chat(args.model, args.quantization, args.trust_remote_code)


def run_benchmark(args: argparse.Namespace) -> None:
    """Ask one system about one set and print its figures."""
    face_set = load_set(args.benchmark, args.data)
    system = open_system(args)
    out = args.out or Path("results") / args.benchmark / system.name.replace("/", "--")
    scores = ask_all(
        system,
        face_set,
        out,
        benchmark=args.benchmark,
        seed=args.seed,
        choices=args.choices,
        batch_size=args.batch_size,
        limit=args.limit,
    )
    if scores:
        print("\n".join(describe_scores(scores)))
        print(json.dumps(scores))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--data", type=Path, required=True, help="folder of the set, or of the zips"
    )
    parser.add_argument(
        "--model", default=str(MINI), help="folder, hub id, or name at the endpoint"
    )
    parser.add_argument("--limit", type=int, help="measure only about this many faces of each set")
    group = parser.add_argument_group("with --benchmark")
    group.add_argument("--benchmark", choices=list(SETS))
    group.add_argument("--out", type=Path, help="folder of the answers and scores")
    group.add_argument("--endpoint", help="address up to /v1 of an endpoint")
    group.add_argument("--per-minute", type=float, default=0, help="requests at most; 0: no limit")
    group.add_argument("--quantization", choices=QUANTIZATIONS)
    group.add_argument(
        "--trust-remote-code", action="store_true", help="run the code a model of the hub brings"
    )
    group.add_argument("--batch-size", type=int, default=8, help="faces asked about at once")
    group.add_argument("--seed", type=int, default=0, help="of the questions")
    group.add_argument("--choices", action="store_true", help="name the labels in every question")
    group.add_argument(
        "--as-page", action="store_true", help="let a FEALLM decide by its probabilities first"
    )
    group = parser.add_argument_group("without")
    group.add_argument("--sets", nargs="*", default=list(MEASURED), choices=list(MEASURED))
    group.add_argument("--texts", type=int, default=500, help="faces of a set to write texts for")
    group.add_argument("--asked", type=int, default=20, help="faces for the held-out paraphrases")
    args = parser.parse_args()
    try:
        if args.benchmark:
            run_benchmark(args)
        else:
            measure(Predictor(args.model), args)
    except (LayoutError, ModelError, AnotherRun, EndpointError) as problem:
        sys.exit(str(problem))


if __name__ == "__main__":
    main()

r"""The paper's ablations at full size: both stages and FEABench for every variant, in one table.

Run as:

    python -m train.ablations --model llava-hf/llava-1.5-7b-hf --fea fea/ --out runs/ablations \
        --captions blip_laion_cc_sbu_558k.json --pictures images.zip [--only "Table 4"] \
        [--launch "accelerate launch --config_file train/configs/accelerate/ddp.yaml"]

FEA is OUT of `train.fea`, with Aff-Wild2's `cropped_aligned` in it. A variant (`train.variants`)
differs from the whole model in its architecture, then both its stages are trained anew, or in the
kinds of instructions it is tuned on, then it shares the whole model's first stage. What was done is
kept in OUT, where the stages' configs lie beside their runs: run again to go on. The mini's own,
which needs no GPU, is `train.mini.ablations`. The last line is one JSON object.
"""

import argparse
import json
import shlex
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import yaml

from train.fea import compose
from train.stage import TrainConfig, read_config
from train.variants import NAMES, Variant, chosen, comparison

CONFIGS = Path(__file__).parent / "configs"
SCORES = {"expression accuracy": ("expression", "accuracy"), "AU mean F1": ("units", "mean_f1")}


def call(launcher: list[str], module: str, *options: object) -> None:
    """Run one of our commands; what it cannot do ends this one too."""
    done = subprocess.run([*launcher, "-m", module, *map(str, options)])
    if done.returncode:
        raise SystemExit(f"{module} ended with {done.returncode}: run the same command to go on.")


def train_stage(config: TrainConfig, out: Path, launcher: list[str], *options: object) -> Path:
    """Train a stage unless it is done; return its result."""
    final = out / "final"
    if not (final / "README.md").is_file():  # the card, which is written last
        out.mkdir(parents=True, exist_ok=True)
        path = out / "stage.yaml"
        path.write_text(yaml.safe_dump(asdict(config), sort_keys=False), encoding="utf-8")
        call(launcher, "train.train", path, "--out", out, *options)
    return final


def run(
    variant: Variant, seed: int, args: argparse.Namespace, launcher: list[str]
) -> dict[str, float]:
    """Train and measure one variant with one seed, as far as it is not done."""
    folder = args.out / variant.folder / str(seed)
    first, second = (
        replace(
            config,
            learning_rates=variant.present(config.learning_rates),
            architecture=variant.config if number == 0 else {},
            seed=seed,
        )
        for number, config in enumerate(map(read_config, args.stages))
    )
    # the same architecture and seed give the same first stage
    shared = folder if variant.config else args.out / "whole-model" / str(seed)
    options = ("--data", args.captions, "--images", args.pictures)
    aligned = train_stage(first, shared / "stage1", launcher, "--model", args.model, *options)
    rows = folder / "fea.json"
    rows.parent.mkdir(parents=True, exist_ok=True)
    compose.write_rows(compose.rows(compose.described(args.fea), "train", 0, variant.parts), rows)
    options = ("--data", rows, "--images", args.fea / "cropped_aligned")
    tuned = train_stage(second, folder / "stage2", launcher, "--model", aligned, *options)
    out = folder / "feabench"
    options = ("--benchmark", "feabench", "--data", args.fea, "--out", out)
    call(launcher, "train.evaluate", "--model", tuned, *options)
    scores = json.loads((out / "scores.json").read_text(encoding="utf-8"))
    return {name: scores[kind][figure] for name, (kind, figure) in SCORES.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", required=True, help="LLaVA-1.5: a folder or hub id")
    parser.add_argument("--captions", type=Path, required=True, help="stage 1's rows")
    parser.add_argument("--pictures", type=Path, required=True, help="their folder or zip")
    parser.add_argument("--fea", type=Path, required=True, help="of train.fea")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--only", nargs="*", choices=NAMES)
    parser.add_argument(
        "--stages",
        type=Path,
        nargs=2,
        default=[CONFIGS / "stage1_align.yaml", CONFIGS / "stage2_lora.yaml"],
    )
    parser.add_argument("--launch", default=shlex.quote(sys.executable), help="what runs a module")
    args = parser.parse_args()
    variants, launcher = chosen(args.only), shlex.split(args.launch)
    table = {v.name: [] for v in variants}
    for seed in range(args.seeds):
        for variant in variants:
            table[variant.name].append(run(variant, seed, args, launcher))
    print(comparison(list(SCORES), table))
    print(json.dumps({"seeds": args.seeds, "scores": table}))


if __name__ == "__main__":
    main()

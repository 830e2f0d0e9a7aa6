"""The paper's ablations at the mini's size: Tables 3 and 4, Figures 5 and 6, with seeds and spread.

Run as:

    python -m train.mini.ablations --packs PACKS --vision assets/feallm-mini --out RUNS

Every variant starts from the same eyes, as the paper's start from one CLIP, and from a language
model that knows nothing; what the variant lacks is left out, its tokens are standardised
(`train.mini.start`), and the rest is tuned for the same number of steps on the same faces, the
local token hidden now and then (`train.hiding`) where there is one. Measured are what it writes
about FER+'s valid split and CK+: accuracy and mean recall of the expression, mean F1 of the action
units, with thresholds fixed on FER+ valid faces against the labeller. Finished runs are kept in
OUT: run again to go on, or only to print the table. The last line is one JSON object.
"""

import argparse
import json
from pathlib import Path

import numpy as np

from feallm import Predictor
from feallm.facs import AUS, EXPRESSIONS, parse_analysis
from train.metrics import accuracy, f1, mean_recall
from train.mini.assemble import assemble
from train.mini.eyes import EYES
from train.mini.faces import Augment, Faces
from train.mini.start import start_from_faces
from train.mini.thresholds import choose, labelled
from train.mini.tokenizer import train_tokenizer
from train.order import spread
from train.result import save
from train.sources import packed_faces
from train.stage import FaceOptions, TrainConfig
from train.train import train
from train.variants import NAMES, Variant, chosen, comparison

VOCABULARY, CONVERSATIONS = 2048, 5_000
STARTING_FACES = 512
"""By which the tokens of a variant are standardised."""
LOCAL_HIDDEN = 0.3
"""As `mini_tell.yaml` has it."""

SCORES = ("FER+ accuracy", "FER+ mean recall", "CK+ mean recall", "CK+ mean F1 of the AUs")


def stage(variant: Variant, steps: int, seed: int) -> TrainConfig:
    """Return the one stage every variant is tuned by."""
    rates = {
        "model.language_model": 1e-3,
        "model.multi_modal_projector": 1e-3,
        "model.lca": 4e-4,
        "model.mpp": 4e-4,
    }
    return TrainConfig(
        learning_rates=variant.present(rates),
        max_steps=steps,
        batch_size=32,
        warmup_steps=40,
        weight_decay=0.01,
        length_power=0.5,
        faces=FaceOptions(kinds=variant.kinds, local_hidden=LOCAL_HIDDEN),
        seed=seed,
    )


def read(predictor: Predictor, faces: Faces, count: int) -> dict[str, np.ndarray]:
    """Return what the model writes of about `count` faces, and the truth."""
    rows = spread(len(faces), count)
    said, units = [], []
    for i in rows:
        reading = predictor.analyse(faces.picture(i), texts=False)
        said.append(EXPRESSIONS.index(parse_analysis(reading.summary).expression))
        active = parse_analysis(reading.movements).aus
        units.append([k in active for k in AUS])
    return {"said": np.array(said), "truth": faces.majority()[list(rows)], "units": np.array(units)}


def measure(model: Path, packs: Path, variant: Variant, count: int) -> dict[str, float | None]:
    """Return the scores of one trained variant; None where it never learned to answer."""
    predictor = Predictor(model)
    ferplus = Faces(packs, "valid", sets=("ferplus",))
    ckplus = Faces(packs, "valid", sets=("ckplus_validation",))
    knows_units, knows_expressions = "a" in variant.kinds, "e" in variant.kinds
    if knows_units:
        predictor.model.config.action_unit_thresholds = choose(
            labelled(predictor, ferplus, max(1, count // 3))
        )
    wild, posed = read(predictor, ferplus, count), read(predictor, ckplus, len(ckplus))
    coded = ckplus.coded_units()
    scores = (
        accuracy(wild["truth"], wild["said"]),
        mean_recall(wild["truth"], wild["said"], len(EXPRESSIONS)),
        mean_recall(posed["truth"], posed["said"], len(EXPRESSIONS)),
        float(np.mean([f1(coded[:, k], posed["units"][:, k]) for k in range(len(AUS))])),
    )
    known = (knows_expressions,) * 3 + (knows_units,)
    return {n: s if k else None for n, s, k in zip(SCORES, scores, known, strict=True)}


def run(variant: Variant, seed: int, args: argparse.Namespace) -> dict[str, float | None]:
    """Train and measure one variant with one seed, or read what an earlier run measured."""
    folder = args.out / variant.folder / str(seed)
    kept = folder / "scores.json"
    asked = {"steps": args.steps, "faces": args.faces, "vision": str(args.vision)}
    if kept.is_file() and json.loads(kept.read_text())["asked"] != asked:
        raise SystemExit(f"{kept} was measured with other options: choose another --out.")
    if not kept.is_file():
        tokenizer = train_tokenizer(VOCABULARY, CONVERSATIONS, seed=0)
        model, processor = assemble(args.vision, tokenizer, seed, **variant.config)
        config = stage(variant, args.steps, seed)
        learnt_from = Faces(args.packs, "train")
        some = [learnt_from[i] for i in spread(len(learnt_from), STARTING_FACES)]
        seen = Augment.of(processor, train=False)(some)
        start_from_faces(model.model, seen["pixel_values"], seen.get("pixel_values_local"))
        faces = packed_faces(learnt_from, processor, config)
        save(train(model, processor, config, faces, folder), processor, config, variant.name)
        scores = measure(folder / "final", args.packs, variant, args.faces)
        kept.write_text(json.dumps({"asked": asked, "scores": scores}))
    return json.loads(kept.read_text())["scores"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--packs", type=Path, required=True)
    parser.add_argument("--vision", type=Path, required=True, help=EYES)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--faces", type=int, default=700, help="FER+ valid faces to read")
    parser.add_argument("--only", nargs="*", choices=NAMES, help="default: all")
    args = parser.parse_args()
    variants = chosen(args.only)
    table = {v.name: [] for v in variants}
    for seed in range(args.seeds):  # all variants of one seed first: a table is there early
        for variant in variants:
            table[variant.name].append(run(variant, seed, args))
    print(comparison(list(SCORES), table))
    print(json.dumps({"steps": args.steps, "seeds": args.seeds, "scores": table}))


if __name__ == "__main__":
    main()

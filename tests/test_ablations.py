"""The 7B's ablations end to end on a tiny LLaVA; the mini's are tested with its training."""

import importlib
import json
import sys
from pathlib import Path

import pytest
import yaml
from layouts import write_instructions, write_llava
from PIL import Image

from feallm.loading import config_of
from train import ablations
from train.parts import StageError
from train.stage import read_config
from train.train import check_architecture
from train.variants import PARTS, VARIANTS, chosen

SMOKE = Path(__file__).parent.parent / "train" / "configs" / "smoke.yaml"


def write_fea(root: Path) -> None:
    """Write four described frames, two of them to test with, and their pictures."""
    described = []
    for k in range(4):
        image = f"v{k}/00001.jpg"
        entry = {"image": image, "video": f"v{k}", "number": 1, "aus": [12]}
        entry |= {"split": "train" if k < 2 else "test", "expression": "Happiness"}
        described.append(entry | {"summary": "Happiness. A smile.", "movement": "AU12 pulls."})
        described[-1] |= {"reasoning": "AU12: a smile.", "by": "writer"}
        (root / "cropped_aligned" / f"v{k}").mkdir(parents=True)
        Image.new("RGB", (80, 80), "grey").save(root / "cropped_aligned" / image)
    for name in ("frames", "described"):
        lines = [json.dumps(e) + "\n" for e in described]
        (root / f"{name}.jsonl").write_text("".join(lines))


@pytest.fixture
def command(tmp_path, monkeypatch):
    """Return a function that runs the ablations in this process, and what was called."""
    called = []

    def call(launcher, module, *options):
        called.append((module, [str(o) for o in options]))
        with monkeypatch.context() as patch:
            patch.setattr(sys, "argv", [module, *map(str, options)])
            importlib.import_module(module).main()

    def run(*options):
        called.clear()
        with monkeypatch.context() as patch:
            patch.setattr(sys, "argv", ["train.ablations", *map(str, options)])
            ablations.main()
        return called

    monkeypatch.setattr(ablations, "call", call)
    return run


def test_variants_are_trained_and_measured(tmp_path, command, capsys):
    llava = write_llava(tmp_path / "llava")
    rows, images = write_instructions(tmp_path / "rows")
    write_fea(tmp_path / "fea")
    smoke = yaml.safe_load(SMOKE.read_text()) | {"max_steps": 1, "sample_steps": 0}
    stages = [tmp_path / "one.yaml", tmp_path / "two.yaml"]
    stages[0].write_text(yaml.safe_dump({k: v for k, v in smoke.items() if k != "lora"}))
    stages[1].write_text(yaml.safe_dump(smoke))
    options = [
        "--model",
        llava,
        "--captions",
        rows,
        "--pictures",
        images,
        "--out",
        tmp_path / "out",
    ]
    options += ["--fea", tmp_path / "fea", "--stages", *stages]
    options += ["--only", "without LCA and MPP", "movement only"]
    called = command(*options)
    assert [module for module, _ in called] == ["train.train", "train.train", "train.evaluate"] * 2
    plain = tmp_path / "out" / "without-LCA-and-MPP" / "0"
    config = config_of(plain / "stage1" / "final")
    assert not config.use_lca and not config.use_mpp
    assert set(read_config(plain / "stage1" / "stage.yaml").learning_rates) == {
        "model.multi_modal_projector"
    }
    movement = tmp_path / "out" / "movement-only" / "0"
    assert config_of(tmp_path / "out" / "whole-model" / "0" / "stage1" / "final").use_lca
    talks = [r["conversations"] for r in json.loads((movement / "fea.json").read_text())]
    assert [t[1]["value"] for t in talks] == ["AU12 pulls."] * 2 and len(talks[0]) == 2
    printed = capsys.readouterr().out.strip().splitlines()
    assert "| without LCA and MPP | Table 4 |" in printed[-3]
    assert set(json.loads(printed[-1])["scores"]) == {"without LCA and MPP", "movement only"}
    # what is done is not done again
    assert [module for module, _ in command(*options)] == ["train.evaluate"] * 2


def test_an_architecture_nobody_has_is_refused(tmp_path):
    config = config_of(write_llava(tmp_path / "llava"), use_lca=False)
    check_architecture("llava", config, {"use_lca": False})
    with pytest.raises(StageError, match="a FEALLM has no use_local"):
        check_architecture("llava", config, {"use_local": False})
    with pytest.raises(StageError, match="has use_lca False, not True"):
        check_architecture("stage1/final", config, {"use_lca": True})


def test_variants_are_chosen_by_the_papers_tables():
    assert [v.name for v in chosen(["Table 4"])] == [
        "without LCA",
        "without MPP",
        "without LCA and MPP",
    ]
    assert {v.parts for v in chosen(["Table 3", "whole model"])} == {
        *((p,) for p in PARTS.values()),
        ("summary", "movement"),
        ("summary", "reasoning"),
        ("movement", "reasoning"),
        ("summary", "movement", "reasoning"),
    }
    assert len(chosen(None)) == len(VARIANTS)

"""Runs of a stage on tiny checkpoints: its command, its steps, its losses."""

import json
import sys
from pathlib import Path

from train.checkpoints import last_checkpoint
from train.train import main

ROOT = Path(__file__).parent.parent
CONFIGS = ROOT / "train" / "configs"
SMOKE = CONFIGS / "smoke.yaml"
SMALL = {"crop_size": 32}
"""As large as the tiny models' faces; most of a step would be the LCA's convolutions."""


def command(config: Path, model: Path, rows: tuple[Path, Path], out: Path, *more: str) -> list[str]:
    """Return the options of `train.train`; `rows` are the data's file and its pictures' folder."""
    options = [config, "--model", model, "--data", rows[0], "--images", rows[1], "--out", out]
    return [*map(str, options), *more]


def run(monkeypatch, *arguments) -> None:
    """Run a stage in this process; `arguments` are those of `command`."""
    monkeypatch.setattr(sys, "argv", ["train.train", *command(*arguments)])
    main()


def losses(out: Path) -> dict[int, float]:
    """Return the logged loss of each step, from the newest checkpoint."""
    state = json.loads((Path(last_checkpoint(out)) / "trainer_state.json").read_text())
    return {e["step"]: e["loss"] for e in state["log_history"] if "loss" in e}


def smoke_stage(path: Path, **fields) -> Path:
    """Write the smoke stage, of small crops, with other fields."""
    text = SMOKE.read_text()
    for name, value in ({"architecture": SMALL} | fields).items():
        lines = [line for line in text.splitlines() if not line.startswith(f"{name}:")]
        text = "\n".join([*lines, f"{name}: {value}"]) + "\n"
    path.write_text(text)
    return path

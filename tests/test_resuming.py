"""A run that was stopped goes on as if it had not been, or says why it cannot."""

import json
import random
import resource
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from browsing import wait_until
from layouts import write_instructions
from safetensors.torch import load_file, save_file
from staging import ROOT, SMALL, SMOKE, command, losses, run, smoke_stage

from feallm.loading import load
from train.checkpoints import ASKED, TRAINED, WRITING, CheckpointError, last_checkpoint
from train.sources import instructions
from train.stage import read_config
from train.train import train


def kill_at_random(arguments: list[str], out: Path, times: int, apart: float) -> None:
    """Start a run `times` times and kill it: in a step, in a checkpoint, wherever it is.

    `apart` is about the time in seconds between two checkpoints.
    """
    rng = random.Random(0)
    for _ in range(times):
        at = last_checkpoint(out)
        running = subprocess.Popen(
            arguments, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        # every life saves once, so that the run comes to its end
        assert wait_until(lambda at=at: last_checkpoint(out) != at, 900)  # of a loaded machine
        time.sleep(rng.random() * apart)
        running.kill()
        running.wait()


@pytest.mark.parametrize("times", [1, pytest.param(20, marks=pytest.mark.slow)])
def test_a_killed_run_gives_the_losses_of_an_undisturbed_one(
    monkeypatch, tmp_path, llava, rows, times
):
    steps = 12 + 6 * times
    stage = smoke_stage(
        tmp_path / "stage.yaml", max_steps=steps, save_steps=2, sample_steps=0, logging_steps=1
    )
    run(monkeypatch, stage, llava, rows, tmp_path / "whole")
    saved = sorted(p.stat().st_mtime for p in (tmp_path / "whole").glob("checkpoint-*"))
    out = tmp_path / "killed"
    killed = [sys.executable, "-m", "train.train", *command(stage, llava, rows, out)]
    kill_at_random(killed, out, times, apart=saved[-1] - saved[-2])
    assert not (out / "final").exists()  # the kills came before the end
    run(monkeypatch, stage, llava, rows, out)
    whole, again = losses(tmp_path / "whole"), losses(out)
    assert set(whole) == set(again) == set(range(1, steps + 1))
    assert again == pytest.approx(whole, abs=1e-4)


def test_half_a_checkpoint_is_never_loaded(tmp_path, llava, rows):
    config = replace(read_config(SMOKE), sample_steps=0)
    model, processor = load(llava, torch.float32, **SMALL)
    data = instructions(*rows, processor, config, tmp_path)
    train(model, processor, config, data, tmp_path / "run")
    half = tmp_path / "run" / WRITING / "checkpoint-99"
    half.mkdir(parents=True)
    (half / TRAINED).write_bytes(b"half")
    assert last_checkpoint(tmp_path / "run").endswith("checkpoint-6")
    shutil.rmtree(tmp_path / "run" / "checkpoint-6")
    train(load(llava, torch.float32, **SMALL)[0], processor, config, data, tmp_path / "run")
    assert last_checkpoint(tmp_path / "run").endswith("checkpoint-6")
    assert not half.exists()


def test_a_full_disk_is_a_sentence_and_the_last_checkpoint_stays(tmp_path, llava, rows):
    config = replace(read_config(SMOKE), sample_steps=0)
    model, processor = load(llava, torch.float32, **SMALL)
    data = instructions(*rows, processor, config, tmp_path)
    train(model, processor, config, data, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoint-6")
    kept = load_file(tmp_path / "run" / "checkpoint-3" / TRAINED)
    fresh, _ = load(llava, torch.float32, **SMALL)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))  # no file may grow further
    try:
        with pytest.raises(CheckpointError, match="step 6 could not be written.*checkpoint-3"):
            train(fresh, processor, config, data, tmp_path / "run")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert last_checkpoint(tmp_path / "run").endswith("checkpoint-3")
    assert not (tmp_path / "run" / WRITING).exists()
    again = load_file(tmp_path / "run" / "checkpoint-3" / TRAINED)
    assert all(torch.equal(kept[n], again[n]) for n in kept)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory, llava, rows) -> tuple[Path, tuple]:
    """A run of the smoke stage that was stopped after its third step, and its data."""
    folder = tmp_path_factory.mktemp("stopped")
    config = replace(read_config(SMOKE), sample_steps=0)
    model, processor = load(llava, torch.float32, **SMALL)
    data = instructions(*rows, processor, config, folder)
    train(model, processor, config, data, folder / "run", rows)
    shutil.rmtree(folder / "run" / "checkpoint-6")
    return folder / "run", data


def go_on(stopped, model, processor, out: Path, files=(), data=None, **changes):
    """Resume a copy of the stopped run with other settings or data."""
    shutil.copytree(stopped[0], out)
    config = replace(read_config(SMOKE), **({"sample_steps": 0} | changes))
    return train(model, processor, config, data or stopped[1], out, files)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"batch_size": 2}, "batch_size was 4 and is 2"),
        ({"max_steps": 9}, "max_steps was 6 and is 9"),
        ({"layout": "plain"}, "layout was v1 and is plain"),
        ({"seed": 1}, "seed was 0 and is 1"),
        ({"lora": None}, "lora.rank was 4 and is not set"),
        (
            {"learning_rates": {"model.lca": 1e-4, "model.mpp": 1e-3}},
            "learning_rates.model.lca was 0.001 and is 0.0001; "
            "learning_rates.model.multi_modal_projector was 0.001 and is not set",
        ),
    ],
)
def test_going_on_with_other_settings_is_refused(tmp_path, llava, rows, stopped, changes, sentence):
    model, processor = load(llava, torch.float32, **SMALL)
    with pytest.raises(CheckpointError, match="asked something else") as refusal:
        go_on(stopped, model, processor, tmp_path / "run", rows, **changes)
    assert sentence in str(refusal.value)
    assert not (tmp_path / "run" / "checkpoint-6").exists()


def test_going_on_with_other_data_is_refused(tmp_path, llava, rows, stopped):
    model, processor = load(llava, torch.float32, **SMALL)
    longer, images = write_instructions(tmp_path, 25)
    longer = longer.rename(tmp_path / "longer.json")
    data = instructions(longer, images, processor, read_config(SMOKE), tmp_path)
    with pytest.raises(CheckpointError, match="rows was 24 and is 25; data was rows.json.*longer"):
        go_on(stopped, model, processor, tmp_path / "run", (longer, images), data)
    edited = json.loads(rows[0].read_text())
    edited[0]["conversations"][1]["value"] = "Neutral."
    (tmp_path / "rows.json").write_text(json.dumps(edited, indent=1))
    files = (tmp_path / "rows.json", rows[1])
    data = instructions(*files, processor, read_config(SMOKE), tmp_path)
    model, _ = load(llava, torch.float32, **SMALL)
    with pytest.raises(CheckpointError, match=r"else: data was rows.json \([\d,]+ bytes\), images"):
        go_on(stopped, model, processor, tmp_path / "edited", files, data)


def test_going_on_over_another_base_is_refused(tmp_path, llava, rows, stopped):
    """The checkpoint holds no frozen weight: it would go on over whatever `--model` is."""
    model, processor = load(llava, torch.float32, **SMALL)
    with torch.no_grad():
        model.model.language_model.layers[1].mlp.up_proj.weight[0, 0] += 1e-3
    with pytest.raises(CheckpointError, match="else: frozen weights was"):
        go_on(stopped, model, processor, tmp_path / "run", rows)


def test_what_only_changes_how_a_step_is_computed_may_change(tmp_path, llava, rows, stopped):
    changes = {"micro_batch_size": 2, "gradient_checkpointing": True, "workers": 1}
    changes |= {"logging_steps": 1, "save_steps": 2, "sample_steps": 6}
    model, processor = load(llava, torch.float32, **SMALL)
    elsewhere = tmp_path / rows[0].name, tmp_path / rows[1].name
    shutil.copy(rows[0], elsewhere[0])
    elsewhere[1].mkdir()
    trainer = go_on(stopped, model, processor, tmp_path / "run", elsewhere, **changes)
    assert trainer.state.global_step == 6
    assert [e["step"] for e in trainer.state.log_history if "loss" in e] == [4, 5, 6]


def test_a_checkpoint_that_does_not_fit_is_refused(tmp_path, llava, rows, stopped):
    model, processor = load(llava, torch.float32, **SMALL)
    (stopped[0] / "checkpoint-3" / ASKED).rename(tmp_path / ASKED)
    try:
        with pytest.raises(CheckpointError, match="does not say what its run was asked"):
            go_on(stopped, model, processor, tmp_path / "run", rows)
    finally:
        (tmp_path / ASKED).rename(stopped[0] / "checkpoint-3" / ASKED)
    trained = load_file(stopped[0] / "checkpoint-3" / TRAINED)
    trained.pop("model.mpp.scale_self")
    shutil.copytree(stopped[0], tmp_path / "less")
    save_file(trained, tmp_path / "less" / "checkpoint-3" / TRAINED)
    config = replace(read_config(SMOKE), sample_steps=0)
    with pytest.raises(CheckpointError, match="1 names differ, model.mpp.scale_self first"):
        fresh = load(llava, torch.float32, **SMALL)[0]
        train(fresh, processor, config, stopped[1], tmp_path / "less", rows)

"""The 7B's stages on tiny checkpoints in the published layouts, from LLaVA to the open page."""

import json
import os
import random
import resource
import shutil
import subprocess
import sys
import time
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils import DeepSpeedPlugin, FullyShardedDataParallelPlugin
from accelerate.utils.launch import prepare_multi_gpu_env
from bitsandbytes.functional import has_avx512bf16
from browsing import serve, wait_until
from gradio_client import Client, handle_file
from layouts import write_instructions, write_llava
from safetensors.torch import load_file, save_file

from benchmarks.soak import free_port
from feallm import FEALLMConfig, FEALLMForConditionalGeneration, Predictor
from feallm.loading import ModelError, load
from train.checkpoints import ASKED, TRAINED, WRITING, CheckpointError, last_checkpoint
from train.parts import Lora, StageError, choose_trainable
from train.plan import Plan, plan
from train.report import answer
from train.result import save
from train.sources import instructions
from train.stage import read_config, step_division
from train.train import main, train

ROOT = Path(__file__).parent.parent
CONFIGS = ROOT / "train" / "configs"
SMOKE = CONFIGS / "smoke.yaml"
WHOLE = ("model.lca", "model.mpp", "model.multi_modal_projector")


@pytest.fixture(scope="module")
def llava(tmp_path_factory) -> Path:
    return write_llava(tmp_path_factory.mktemp("start") / "tiny-llava")


@pytest.fixture(scope="module")
def rows(tmp_path_factory) -> tuple[Path, Path]:
    return write_instructions(tmp_path_factory.mktemp("rows"))


def command(config: Path, model: Path, rows: tuple[Path, Path], out: Path, *more: str) -> list[str]:
    options = [config, "--model", model, "--data", rows[0], "--images", rows[1], "--out", out]
    return [*map(str, options), *more]


def run(monkeypatch, *arguments) -> None:
    monkeypatch.setattr(sys, "argv", ["train.train", *command(*arguments)])
    main()


def losses(out: Path) -> dict[int, float]:
    """Return the logged loss of each step, from the newest checkpoint."""
    state = json.loads((Path(last_checkpoint(out)) / "trainer_state.json").read_text())
    return {e["step"]: e["loss"] for e in state["log_history"] if "loss" in e}


def test_both_stages_run_and_the_page_opens_the_result(
    monkeypatch, tmp_path, llava, rows, portrait, capsys
):
    """From a LLaVA folder: stage 1, stage 2 on its result, the adapter merged and not."""
    first = tmp_path / "stage1.yaml"
    stage1 = (CONFIGS / "stage1_align.yaml").read_text()
    for old, new in (("epochs: 1", "max_steps: 2"), ("workers: 4", "workers: 1")):
        assert old in stage1
        stage1 = stage1.replace(old, new)
    stage1 = stage1.replace("batch_size: 64", "batch_size: 4").replace("_size: 16", "_size: 2")
    first.write_text(stage1)
    assert read_config(first).layout == "plain" and read_config(SMOKE).layout == "v1"
    run(monkeypatch, first, llava, rows, tmp_path / "one")
    aligned, _ = load(tmp_path / "one" / "final", torch.float32)
    torch.manual_seed(0)  # as the run did: the LCA and the MPP start at random
    started, _ = load(llava, torch.float32)
    moved = {
        ".".join(name.split(".")[:2])
        for name, value in aligned.state_dict().items()
        if not torch.equal(value, started.state_dict()[name].bfloat16().float())
    }
    assert moved == {"model.lca", "model.mpp", "model.multi_modal_projector"}
    run(monkeypatch, SMOKE, tmp_path / "one" / "final", rows, tmp_path / "two")
    out = capsys.readouterr().out
    assert "trains LoRA" in out and "model: " in out and "data:  " in out
    assert (tmp_path / "two" / "samples.txt").read_text().count("--- after") == 2
    card = (tmp_path / "two" / "final" / "README.md").read_text()
    assert "6 steps" in card and "rank: 4" in card
    adapted = Predictor(tmp_path / "two" / "final", dtype=torch.float32)
    reading = adapted.analyse(portrait.resize((32, 32)), texts=False)
    run(monkeypatch, SMOKE, tmp_path / "one" / "final", rows, tmp_path / "three", "--merge")
    files = {f.name for f in (tmp_path / "three" / "final").iterdir()}
    assert "model.safetensors" in files and "adapter_config.json" not in files
    merged = Predictor(tmp_path / "three" / "final", dtype=torch.float32)
    again = merged.analyse(portrait.resize((32, 32)), texts=False)
    for name, share in reading.expression_probabilities.items():
        assert again.expression_probabilities[name] == pytest.approx(share, abs=0.01)  # bf16
    portrait.save(tmp_path / "portrait.png")
    demo, url = serve(adapted)
    try:
        (face,) = Client(url, verbose=False).predict(
            handle_file(tmp_path / "portrait.png"), "Why?", api_name="/analyze"
        )
    finally:
        demo.close()
    assert sum(face["expression_probabilities"].values()) == pytest.approx(1, abs=1e-3)
    assert face["answer"] and face["summary"]


def test_llava_with_lora_is_trained_the_same_way_without_our_parts(
    monkeypatch, tmp_path, llava, rows, capsys
):
    ours, theirs = (read_config(CONFIGS / f"{n}.yaml") for n in ("stage2_lora", "llava_lora"))
    off = ("model.lca", "model.mpp")
    rates = {k: v for k, v in ours.learning_rates.items() if k not in off}
    switched = {"use_lca": False, "use_mpp": False}
    assert theirs == replace(ours, learning_rates=rates, architecture=switched)
    stage = tmp_path / "stage.yaml"
    text = (CONFIGS / "llava_lora.yaml").read_text()
    for old, new in (
        ("epochs: 1", "max_steps: 2"),
        ("batch_size: 16", "batch_size: 2"),
        ("micro_batch_size: 8", "micro_batch_size: 1"),
        ("workers: 4", "workers: 0"),
        ("rank: 128", "rank: 4"),
    ):
        assert old in text
        text = text.replace(old, new, 1)
    stage.write_text(text)
    run(monkeypatch, stage, llava, rows, tmp_path / "run")
    assert "trains LoRA" in capsys.readouterr().out
    tuned = Predictor(tmp_path / "run" / "final", dtype=torch.float32)
    assert tuned.tuned and tuned.crops == []
    names = [name for name, _ in tuned.model.named_parameters()]
    assert not any(part in name for name in names for part in (".lca.", ".mpp."))


def test_an_adapter_gives_what_was_trained(tmp_path, llava, rows):
    config = read_config(SMOKE)
    model, processor = load(llava, torch.float32)
    data = instructions(*rows, processor, config, tmp_path)
    short = replace(config, max_steps=1, sample_steps=0)
    trainer = train(model, processor, short, data, tmp_path / "run")
    model = trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)
    save(trainer, processor, config, str(llava))
    folder = tmp_path / "run" / "final"
    again, _ = load(folder, torch.float32)
    item = data[2].dataset[0]
    inputs = {n: v[None] for n, v in item.items() if n.startswith("pixel")}
    inputs["input_ids"] = torch.tensor([item["input_ids"]])
    with torch.inference_mode():
        theirs = model.eval()(**inputs).logits
        torch.testing.assert_close(again.eval()(**inputs).logits, theirs, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(load(llava, torch.float32)[0].eval()(**inputs).logits, theirs)
    written = json.loads((folder / "adapter_config.json").read_text())
    assert written["base_model_name_or_path"] == str(llava)
    names = load_file(folder / "adapter_model.safetensors")
    assert not [n for n in names if "vision_tower" in n or "embed_tokens" in n or "lm_head" in n]


def test_at_7b_what_is_trained_are_the_papers_parts():
    """4.3 M of the LCA, 28.5 M of the MPP with its MLP, 319.8 M of LoRA; all else is frozen."""
    for name in ("stage1_align", "stage2_lora"):
        config = read_config(CONFIGS / f"{name}.yaml")
        with torch.device("meta"):
            model = FEALLMForConditionalGeneration(FEALLMConfig())
        groups = choose_trainable(model, config.learning_rates, config.lora)
        counts = {g["name"]: sum(p.numel() for p in g["params"]) / 1e6 for g in groups}
        assert counts["model.lca"] == pytest.approx(4.32, abs=0.01)
        mpp = counts["model.mpp"] + counts["model.multi_modal_projector"]
        assert mpp == pytest.approx(28.5, abs=0.05)
        assert set(counts) - set(WHOLE) == ({"LoRA"} if config.lora else set())
        if config.lora:
            assert counts["LoRA"] == pytest.approx(319.8, abs=0.05)
            assert {g["lr"] for g in groups} == {2e-5, 2e-4}
        frozen = [p for p in model.parameters() if not p.requires_grad]
        assert sum(p.numel() for p in frozen) / 1e6 == pytest.approx(
            303.5 + 6607.6 + 131.3, abs=0.2
        )  # head
        assert all(p.dtype == torch.float32 for g in groups for p in g["params"])


def test_a_dry_run_tells_the_needs_of_the_7b():
    config = read_config(CONFIGS / "stage2_lora.yaml")
    shared = {"rows": 14_892, "tokens": 800, "batch_size": 16, "epochs": 1, "weight_bytes": 2}
    shared |= {"gradient_checkpointing": True}

    def planned(**changes) -> Plan:
        return plan(FEALLMConfig(), config.learning_rates, config.lora, **shared, **changes)

    needs = planned(micro_batch_size=8, steps=-1, quantization=None, processes=1)
    assert needs.steps == 931  # 14,892 / 16, the last of them smaller
    assert needs.weights / 2**30 == pytest.approx(13.1, abs=0.1)  # 7.04 G parameters in bf16
    assert needs.training / 2**30 == pytest.approx(5.3, abs=0.1)  # 352.7 M at 16 bytes
    assert 0.1 < needs.seconds / 3600 < 10
    small = planned(micro_batch_size=1, steps=10, quantization="nf4", processes=2)
    assert small.steps == 10
    assert small.weights < needs.weights / 3 and small.activations < needs.activations / 7
    assert "on each device" in str(small)


def test_a_dry_run_loads_nothing(monkeypatch, tmp_path, llava, rows, capsys):
    monkeypatch.setattr("train.train.load_model", None)
    run(monkeypatch, SMOKE, llava, rows, tmp_path / "out", "--dry-run")
    assert "6 steps, about" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("batch", "micro", "processes", "division"),
    [
        *[(64, None, 1, (64, 1)), (64, 16, 2, (16, 2)), (16, 8, 2, (8, 1)), (4, None, 2, (2, 1))],
        *[(64, 16, 8, (8, 1)), (16, 8, 4, (4, 1))],  # never more than a process's share
    ],
)
def test_a_step_is_divided_among_processes(batch, micro, processes, division):
    config = replace(read_config(SMOKE), batch_size=batch, micro_batch_size=micro)
    assert step_division(config, processes) == division


def test_a_step_that_cannot_be_divided_is_refused():
    with pytest.raises(ValueError, match="no multiple"):
        step_division(replace(read_config(SMOKE), batch_size=10), 4)


def test_parts_of_a_step_give_the_whole_steps_losses(tmp_path, llava, rows):
    """Four rows at once, or one by one: tokens are counted over the step."""
    seen = {}
    for micro in (4, 1):
        config = replace(
            read_config(SMOKE),
            micro_batch_size=micro,
            max_steps=3,
            logging_steps=1,
            sample_steps=0,
            lora=Lora(learning_rate=1e-3, rank=4, alpha=8, dropout=0.0),
        )
        torch.manual_seed(0)  # the LCA and the MPP start at random
        model, processor = load(llava, torch.float32)
        data = instructions(*rows, processor, config, tmp_path)
        trainer = train(model, processor, config, data, tmp_path / str(micro))
        seen[micro] = [e["loss"] for e in trainer.state.log_history if "loss" in e]
        state = model.state_dict()["model.lca.to_token.weight"]
        seen[f"{micro} weights"] = state
    assert seen[1] == pytest.approx(seen[4], abs=2e-3)  # bf16 autocast
    torch.testing.assert_close(seen["1 weights"], seen["4 weights"], atol=5e-3, rtol=0)


def logging_every_step(path: Path, **fields) -> Path:
    """Write the smoke stage with other fields, and have the Trainer log every step."""
    text = SMOKE.read_text()
    for name, value in fields.items():
        lines = [line for line in text.splitlines() if not line.startswith(f"{name}:")]
        text = "\n".join([*lines, f"{name}: {value}"]) + "\n"
    path.write_text(text)
    return path


def launch(processes: int, stage: Path, llava: Path, rows: tuple[Path, Path], out: Path) -> None:
    """Run a stage with several CPU processes."""
    how = ["-m", "torch.distributed.run", "--nproc-per-node", str(processes)]
    how += ["--master-port", str(free_port()), "-m", "train.train"]
    done = subprocess.run(
        [sys.executable, *how, *command(stage, llava, rows, out)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]


def test_two_processes_give_the_losses_of_one(tmp_path, llava, rows):
    """The same global batch, by DDP over gloo; dropout, which each process draws, is off.

    A run of two that goes on within its second epoch (24 rows, four a step) sees that epoch's rows.
    """
    stage = logging_every_step(
        tmp_path / "stage.yaml", max_steps=10, save_steps=8, sample_steps=0, logging_steps=1
    )
    stage.write_text(stage.read_text().replace("alpha: 8", "alpha: 8\n  dropout: 0.0"))
    for processes in (1, 2):
        launch(processes, stage, llava, rows, tmp_path / str(processes))
    one, two = losses(tmp_path / "1"), losses(tmp_path / "2")
    assert one.keys() == two.keys() == set(range(1, 11))
    assert two == pytest.approx(one, abs=5e-3)  # bf16 sums in another order
    shutil.rmtree(tmp_path / "2" / "checkpoint-10")
    launch(2, stage, llava, rows, tmp_path / "2")
    assert losses(tmp_path / "2") == pytest.approx(two, abs=1e-4)


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


@pytest.mark.parametrize("times", [2, pytest.param(20, marks=pytest.mark.slow)])
def test_a_killed_run_gives_the_losses_of_an_undisturbed_one(tmp_path, llava, rows, times):
    steps = 12 + 6 * times
    stage = logging_every_step(
        tmp_path / "stage.yaml", max_steps=steps, save_steps=2, sample_steps=0, logging_steps=1
    )

    def arguments(out: Path) -> list[str]:
        return [sys.executable, "-m", "train.train", *command(stage, llava, rows, out)]

    for out, kills in ((tmp_path / "whole", 0), (tmp_path / "killed", times)):
        if kills:
            saved = sorted(p.stat().st_mtime for p in (tmp_path / "whole").glob("checkpoint-*"))
            kill_at_random(arguments(out), out, kills, apart=saved[-1] - saved[-2])
            assert not (out / "final").exists()  # the kills came before the end
        done = subprocess.run(arguments(out), cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]
    whole, again = losses(tmp_path / "whole"), losses(tmp_path / "killed")
    assert set(whole) == set(again) == set(range(1, steps + 1))
    assert again == pytest.approx(whole, abs=1e-4)


def test_half_a_checkpoint_is_never_loaded(tmp_path, llava, rows):
    config = replace(read_config(SMOKE), sample_steps=0)
    model, processor = load(llava, torch.float32)
    data = instructions(*rows, processor, config, tmp_path)
    train(model, processor, config, data, tmp_path / "run")
    half = tmp_path / "run" / WRITING / "checkpoint-99"
    half.mkdir(parents=True)
    (half / TRAINED).write_bytes(b"half")
    assert last_checkpoint(tmp_path / "run").endswith("checkpoint-6")
    shutil.rmtree(tmp_path / "run" / "checkpoint-6")
    train(load(llava, torch.float32)[0], processor, config, data, tmp_path / "run")
    assert last_checkpoint(tmp_path / "run").endswith("checkpoint-6")
    assert not half.exists()


def test_a_full_disk_is_a_sentence_and_the_last_checkpoint_stays(tmp_path, llava, rows):
    config = replace(read_config(SMOKE), sample_steps=0)
    model, processor = load(llava, torch.float32)
    data = instructions(*rows, processor, config, tmp_path)
    train(model, processor, config, data, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoint-6")
    kept = load_file(tmp_path / "run" / "checkpoint-3" / TRAINED)
    fresh, limits = load(llava, torch.float32)[0], resource.getrlimit(resource.RLIMIT_FSIZE)
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
    model, processor = load(llava, torch.float32)
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
    model, processor = load(llava, torch.float32)
    with pytest.raises(CheckpointError, match="asked something else") as refusal:
        go_on(stopped, model, processor, tmp_path / "run", rows, **changes)
    assert sentence in str(refusal.value)
    assert not (tmp_path / "run" / "checkpoint-6").exists()


def test_going_on_with_other_data_is_refused(tmp_path, llava, rows, stopped):
    model, processor = load(llava, torch.float32)
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
    with pytest.raises(CheckpointError, match=r"else: data was rows.json \([\d,]+ bytes\), images"):
        go_on(stopped, load(llava, torch.float32)[0], processor, tmp_path / "edited", files, data)


def test_going_on_over_another_base_is_refused(tmp_path, llava, rows, stopped):
    """The checkpoint holds no frozen weight: it would go on over whatever `--model` is."""
    model, processor = load(llava, torch.float32)
    with torch.no_grad():
        model.model.language_model.layers[1].mlp.up_proj.weight[0, 0] += 1e-3
    with pytest.raises(CheckpointError, match="else: frozen weights was"):
        go_on(stopped, model, processor, tmp_path / "run", rows)


def test_what_only_changes_how_a_step_is_computed_may_change(tmp_path, llava, rows, stopped):
    changes = {"micro_batch_size": 2, "gradient_checkpointing": True, "workers": 1}
    changes |= {"logging_steps": 1, "save_steps": 2, "sample_steps": 6}
    model, processor = load(llava, torch.float32)
    elsewhere = tmp_path / rows[0].name, tmp_path / rows[1].name
    shutil.copy(rows[0], elsewhere[0])
    elsewhere[1].mkdir()
    trainer = go_on(stopped, model, processor, tmp_path / "run", elsewhere, **changes)
    assert trainer.state.global_step == 6
    assert [e["step"] for e in trainer.state.log_history if "loss" in e] == [4, 5, 6]


def test_a_checkpoint_that_does_not_fit_is_refused(tmp_path, llava, rows, stopped):
    model, processor = load(llava, torch.float32)
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
        fresh = load(llava, torch.float32)[0]
        train(fresh, processor, config, stopped[1], tmp_path / "less", rows)


def test_missing_pictures_are_counted_and_named(tmp_path, llava, rows, capsys):
    config = read_config(SMOKE)
    _, processor = load(llava, torch.float32)
    listed = json.loads(rows[0].read_text())
    listed[3]["image"] = "nowhere/3.jpg"
    (tmp_path / "rows.json").write_text(json.dumps(listed))
    dataset, _, _ = instructions(tmp_path / "rows.json", rows[1], processor, config, tmp_path / "o")
    assert len(dataset) == len(listed) - 1
    assert (tmp_path / "o" / "missing.txt").read_text() == "nowhere/3.jpg\n"
    assert "1 pictures are missing" in capsys.readouterr().out


def test_a_start_with_holes_is_refused(tmp_path, llava):
    shutil.copytree(llava, tmp_path / "holes")
    state = load_file(tmp_path / "holes" / "model.safetensors")
    state = {n: v for n, v in state.items() if "layers.1." not in n}
    save_file(state, tmp_path / "holes" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match="incomplete.*layers.1"):
        load(tmp_path / "holes", torch.float32)


@pytest.mark.parametrize("name", ["ddp", "fsdp", "zero2", "zero3"])
def test_accelerate_knows_every_field_of_its_files(name):
    """Of the nested ones too, which it would take in silence: each is an option of its command."""
    config = load_config_from_file(str(CONFIGS / "accelerate" / f"{name}.yaml"))
    assert config.mixed_precision == "bf16" and config.num_processes == 2
    options = vars(launch_command_parser().parse_args(["train.train"]))
    nested = config.fsdp_config | config.deepspeed_config
    assert set(nested) <= set(options)
    assert bool(nested) == (name != "ddp")
    if name.startswith("zero"):
        assert set(nested) <= {f.name for f in fields(DeepSpeedPlugin)}


def test_fsdp_divides_the_language_models_layers(monkeypatch):
    """What accelerate makes of fsdp.yaml, read as its launcher hands it on."""
    command = ["--config_file", str(CONFIGS / "accelerate" / "fsdp.yaml"), "train.train"]
    args, *_ = _validate_launch_command(launch_command_parser().parse_args(command))
    for name, value in prepare_multi_gpu_env(args).items():
        monkeypatch.setenv(name, value)
    plugin = FullyShardedDataParallelPlugin()
    assert plugin.fsdp_version == 2 and plugin.reshard_after_forward is True
    assert plugin.transformer_cls_names_to_wrap == ["LlamaDecoderLayer"]
    assert plugin.state_dict_type.name == "FULL_STATE_DICT"
    assert plugin.cpu_ram_efficient_loading is False


@pytest.mark.slow
@pytest.mark.parametrize(
    ("engine", "shards"),
    [("fsdp", "pytorch_model_fsdp.bin"), ("zero2", "global_step6"), ("zero3", "global_step6")],
)
def test_a_divided_model_gives_the_losses_of_one_process(tmp_path, llava, rows, engine, shards):
    """Two processes, also when they go on after a stop; the result opens."""
    if engine != "fsdp":
        pytest.importorskip("deepspeed")
    stage = logging_every_step(tmp_path / "stage.yaml", sample_steps=0, logging_steps=1)
    stage.write_text(stage.read_text().replace("alpha: 8", "alpha: 8\n  dropout: 0.0"))
    launch(1, stage, llava, rows, tmp_path / "one")
    how = [sys.executable, "-m", "accelerate.commands.launch", "--config_file"]
    how += [str(CONFIGS / "accelerate" / f"{engine}.yaml"), "--main_process_port", str(free_port())]
    how += ["tests/divided_on_cpus.py", *command(stage, llava, rows, tmp_path / "two")]
    for _ in range(2):
        environment = os.environ | {"OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu"}
        environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
        done = subprocess.run(how, cwd=ROOT, capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr[-3000:]
        assert (tmp_path / "two" / "checkpoint-6" / shards).exists()
        assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), abs=5e-3)
        shutil.rmtree(tmp_path / "two" / "checkpoint-6")
    one, two = (
        load_file(tmp_path / n / "final" / "adapter_model.safetensors") for n in ("one", "two")
    )
    assert one.keys() == two.keys()
    assert all((one[n] - two[n]).abs().max() < 5e-3 for n in one)


@pytest.mark.parametrize(
    ("quantization", "layer"), [("nf4", "Linear4bit"), ("int8", "Linear8bitLt")]
)
def test_only_the_language_models_layers_are_quantized(
    tmp_path, llava, portrait, quantization, layer
):
    model, processor = load(llava, torch.bfloat16, quantization)
    quantized = {n for n, m in model.named_modules() if type(m).__name__ == layer}
    assert len(quantized) == 2 * 7  # layers, and linear maps in each
    assert all(n.startswith("model.language_model.layers.") for n in quantized)
    whole, _ = load(llava, torch.bfloat16)
    whole.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    predictor = Predictor(tmp_path, dtype=torch.bfloat16, quantization=quantization)
    reading = predictor.analyse(portrait.resize((32, 32)), texts=False)
    assert sum(reading.expression_probabilities.values()) == pytest.approx(1, abs=1e-3)


def gradients_over_nf4(llava, rows, folder: Path, prepare) -> dict[str, float]:
    """Return the norm of each lora_B's gradient after an answer; `prepare` comes before it."""
    config = read_config(SMOKE)
    model, processor = load(llava, torch.bfloat16, "nf4")
    dataset, collate, _ = instructions(*rows, processor, config, folder)
    prepare(model, config)
    model.eval()
    answer(model, processor.tokenizer, dataset[0])
    model.train()
    batch = collate([dataset[0], dataset[1]])
    with torch.autocast("cpu", torch.bfloat16):
        model(**batch).loss.backward()
    return {
        n: p.grad.norm().item() if p.grad is not None else 0.0
        for n, p in model.named_parameters()
        if "lora_B" in n
    }


def test_an_answer_between_steps_leaves_nf4_its_gradients(tmp_path, llava, rows):
    """As a sample is written: on CPUs with AVX512-BF16 layers would learn nothing after it."""

    def stage(model, config) -> None:
        choose_trainable(model, config.learning_rates, config.lora)

    gradients = gradients_over_nf4(llava, rows, tmp_path, stage)
    assert len(gradients) == 2 * 7 and min(gradients.values()) > 0


@pytest.mark.skipif(not has_avx512bf16(), reason="only there bitsandbytes lays weights out anew")
def test_a_model_that_has_answered_over_nf4_is_not_trained(llava, portrait):
    model, processor = load(llava, torch.bfloat16, "nf4")
    layer = model.model.language_model.layers[0].mlp.up_proj.eval()
    with torch.no_grad():
        layer(torch.zeros(1, layer.in_features, dtype=torch.bfloat16))
    with pytest.raises(StageError, match="load the model again"):
        choose_trainable(model, read_config(SMOKE).learning_rates)


def test_lora_learns_over_nf4(monkeypatch, tmp_path, llava, rows):
    """QLoRA: what is trained moves, the quantized weights do not, and the result opens."""
    stage = logging_every_step(tmp_path / "stage.yaml", sample_steps=0)
    more = ("--quantization", "nf4", "--dtype", "bfloat16")
    run(monkeypatch, stage, llava, rows, tmp_path / "out", *more)
    kept = load_file(tmp_path / "out" / "checkpoint-6" / TRAINED)
    moved = [n for n, value in kept.items() if "lora_B" in n and value.abs().max() > 0]
    assert len(moved) == 2 * 7  # they start at zero
    assert not [n for n in kept if "base_layer" in n]
    load(tmp_path / "out" / "final", torch.float32)

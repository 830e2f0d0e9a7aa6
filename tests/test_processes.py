"""A step divided among processes, and a model among their memories."""

import os
import shutil
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path

import pytest
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils import DeepSpeedPlugin, FullyShardedDataParallelPlugin
from accelerate.utils.launch import prepare_multi_gpu_env
from safetensors.torch import load_file
from staging import CONFIGS, ROOT, SMOKE, command, losses, run, smoke_stage

from benchmarks.soak import free_port
from train.stage import read_config, step_division


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


def test_two_processes_give_the_losses_of_one(monkeypatch, tmp_path, llava, rows):
    """The same global batch, by DDP over gloo; dropout, which each process draws, is off."""
    stage = smoke_stage(tmp_path / "stage.yaml", max_steps=8, sample_steps=0, logging_steps=1)
    stage.write_text(stage.read_text().replace("alpha: 8", "alpha: 8\n  dropout: 0.0"))
    run(monkeypatch, stage, llava, rows, tmp_path / "1")
    launch(2, stage, llava, rows, tmp_path / "2")
    one, two = losses(tmp_path / "1"), losses(tmp_path / "2")
    assert one.keys() == two.keys() == set(range(1, 9))
    assert two == pytest.approx(one, abs=5e-3)  # bf16 sums in another order


@pytest.mark.slow
def test_two_processes_go_on_within_their_second_epoch(tmp_path, llava, rows):
    """24 rows, four a step: they see the rows of that epoch."""
    stage = smoke_stage(
        tmp_path / "stage.yaml", max_steps=10, save_steps=8, sample_steps=0, logging_steps=1
    )
    launch(2, stage, llava, rows, tmp_path / "run")
    whole = losses(tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoint-10")
    launch(2, stage, llava, rows, tmp_path / "run")
    assert losses(tmp_path / "run") == pytest.approx(whole, abs=1e-4)


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
    stage = smoke_stage(tmp_path / "stage.yaml", sample_steps=0, logging_steps=1)
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

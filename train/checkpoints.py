"""Checkpoints that are whole or not there: written beside, then moved into place.

transformers writes a checkpoint file by file where it will be looked for. Killed in between, a run
would go on from half of one. Here it is written to `OUT/writing` and renamed, which a file system
does at once. `OUT/checkpoint-N` is therefore always complete: weights, optimizer, schedule, random
numbers, the position in the data and what the run was asked (`train.asked`).
"""

import json
import os
import shutil
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import Trainer, TrainerCallback
from transformers.trainer_utils import get_last_checkpoint, rotate_checkpoints

WRITING = "writing"
TRAINED = "trained.safetensors"
ASKED = "asked.json"
TORCH_WRITER = "PytorchStreamWriter"
"""In the message of torch's RuntimeError when a file cannot be written."""


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be written or read; its text is a sentence for a person."""


def last_checkpoint(out: Path) -> str | None:
    """Return the newest whole checkpoint of a run, None where there is none."""
    return get_last_checkpoint(str(out)) if out.is_dir() else None


class AtomicTrainer(Trainer):
    """`Trainer` whose checkpoints are whole or not there."""

    asked: dict[str, object] | None = None
    """What the run was asked, for the checkpoints to say."""
    _writing = False

    def _get_output_dir(self, trial) -> str:
        run = super()._get_output_dir(trial)
        return os.path.join(run, WRITING) if self._writing else run

    def _save_checkpoint(self, model, trial) -> None:
        out = Path(super()._get_output_dir(trial))
        beside = out / WRITING / f"checkpoint-{self.state.global_step}"
        if self.args.should_save:
            shutil.rmtree(out / WRITING, ignore_errors=True)  # of a run that was killed
        self.accelerator.wait_for_everyone()
        self._writing = True
        try:
            super()._save_checkpoint(model, trial)
            self.accelerator.wait_for_everyone()  # each process has written its random numbers
            if self.args.should_save:
                if self.asked is not None:
                    text = json.dumps(self.asked, indent=1) + "\n"
                    (beside / ASKED).write_text(text, encoding="utf-8")
                for file in beside.rglob("*"):
                    if file.is_file():
                        _to_disk(file)
                os.replace(beside, out / beside.name)
                _to_disk(out)
        except (OSError, RuntimeError, SafetensorError) as error:
            if isinstance(error, RuntimeError) and TORCH_WRITER not in str(error):
                raise  # nothing of the disk's
            shutil.rmtree(out / WRITING, ignore_errors=True)
            raise CheckpointError(
                f"The checkpoint of step {self.state.global_step} could not be written to {out}: "
                f"{str(error).splitlines()[0]}. The last whole one is "
                f"{last_checkpoint(out) or 'none'}; make room and run the same command to go on."
            ) from error
        finally:
            self._writing = False
        if self.args.should_save:
            rotate_checkpoints(
                output_dir=str(out), save_total_limit=self.args.save_total_limit, use_mtime=True
            )
        self.accelerator.wait_for_everyone()


class Intervals(TrainerCallback):
    """Log and save as often as is asked now: transformers would do it as the checkpoint says."""

    def on_train_begin(self, args, state, control, **kwargs) -> None:
        state.compute_steps(args, state.max_steps)


class TrainedPartsTrainer(AtomicTrainer):
    """Checkpoints hold what is trained and not the frozen rest, which is where it was.

    Under FSDP and DeepSpeed the engine's own shards hold the weights.
    """

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        if not self.args.should_save:
            return
        model = self.accelerator.unwrap_model(self.model)
        names = [n for n, p in model.named_parameters() if p.requires_grad]
        state = model.state_dict() if state_dict is None else state_dict
        os.makedirs(output_dir, exist_ok=True)
        trained = {n: state[n].detach().contiguous().cpu() for n in names}
        save_file(trained, os.path.join(output_dir, TRAINED))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model=None) -> None:
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
            return
        model = self.accelerator.unwrap_model(model or self.model)
        kept = load_file(os.path.join(resume_from_checkpoint, TRAINED))
        wanted = {n: p for n, p in model.named_parameters() if p.requires_grad}
        if kept.keys() != wanted.keys():
            strange = sorted(kept.keys() ^ wanted.keys())
            raise CheckpointError(
                f"{resume_from_checkpoint} is of another stage: it does not hold what is trained "
                f"here ({len(strange)} names differ, {strange[0]} first)."
            )
        for name, parameter in wanted.items():
            parameter.data.copy_(kept[name])


def _to_disk(path: Path) -> None:
    """Have the system write a file, or a folder's list, to the disk now."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

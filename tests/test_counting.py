"""Memory is counted as tensors come and go, and the same whether they are computed or not."""

import pytest
import torch
from conftest import tiny_config

from benchmarks import training
from benchmarks.counting import Counted, Uncomputed

MIB = 2**20


def test_the_peak_is_of_tensors_alive_at_once():
    with Counted() as memory:
        a = torch.zeros(MIB)  # 4 MiB
        b = a + 1
        view = b[1:]
        del a, b
        c = view * 2
        del view
    assert memory.alive == c.nbytes
    assert 8 * MIB <= memory.peak <= 8 * MIB + 64
    del c
    assert memory.alive == 0


def test_what_is_not_computed_takes_no_memory_of_the_machine():
    """A matrix of 1 TiB, its product and a shape that hangs on whole numbers."""
    with Uncomputed() as memory:
        tall = torch.ones(2**20, 2**10)
        kept = torch.arange(10) > 6
        made = (tall @ torch.ones(2**10, 4)).T[:, :10].mul_(2)[:, kept]
    assert made.shape == (4, 3)
    assert memory.peak >= tall.nbytes


@pytest.mark.parametrize("kind", training.KINDS)
def test_a_step_counts_the_same_uncomputed(monkeypatch, kind):
    monkeypatch.setattr(training, "config", lambda layers: tiny_config(image_token_index=60))
    batch = training.rows(kind, training.config(2), 2, "cpu")
    peaks = {}
    for way in (Counted, Uncomputed):
        with way() as memory:
            model, optimizer = training.build(kind, 2, "cpu", torch.float32)
            for _ in range(2):
                training.step(kind, model, optimizer, batch)
        peaks[way] = memory.peak
        del model, optimizer
    assert peaks[Uncomputed] == pytest.approx(peaks[Counted], rel=0.01)


def test_eyes_are_read_again_instead_of_kept():
    """Deep in the language model, LCA and MPP take no more than what they hand on."""
    peaks = {}
    for checkpointing in (True, False):
        with Uncomputed() as memory:
            model, _ = training.build("feallm", 2, "cpu", torch.bfloat16)
            if not checkpointing:
                for part in (model.model.lca, model.model.mpp):
                    part.gradient_checkpointing = False
            batch = training.rows("feallm", training.config(2), 8, "cpu")
            before = memory.alive
            loss = training.loss_of("feallm", model, batch)
            peaks[checkpointing] = memory.alive - before
            del loss
        del model
    assert peaks[True] < 0.5 * peaks[False]

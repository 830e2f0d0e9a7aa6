"""Which device and which precision are chosen, without having them."""

import pytest
import torch

from feallm.device import best_device, best_dtype, training_precision, trains_in_bf16


def test_of_several_processes_each_has_its_gpu(monkeypatch):
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert best_device() == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert best_device() == torch.device("cuda", 0)  # torch.cuda.set_device wants a number
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert best_device() == torch.device("cuda", 3)


@pytest.mark.parametrize(("capability", "dtype"), [((7, 5), "float16"), ((8, 0), "bfloat16")])
def test_a_gpu_that_only_emulates_bf16_computes_in_fp16(monkeypatch, capability, dtype):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert best_dtype(torch.device("cuda", 1)) == getattr(torch, dtype)


@pytest.mark.parametrize(("computes", "dtype"), [(True, "bfloat16"), (False, "float32")])
def test_a_cpu_that_only_emulates_bf16_computes_in_fp32(monkeypatch, computes, dtype):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: computes)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert best_dtype(torch.device("cpu")) == getattr(torch, dtype)
    model = torch.nn.Linear(2, 2)
    assert trains_in_bf16(model) == computes
    with training_precision(model):
        assert torch.is_autocast_enabled("cpu") == computes
    assert trains_in_bf16(model.bfloat16())  # beside such weights fp32 would not fit

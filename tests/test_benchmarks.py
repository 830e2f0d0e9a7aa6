"""The benchmarks run, their steps are parts of the whole, their tables say what was measured."""

import json
import subprocess
import sys
from pathlib import Path

import bitsandbytes.nn.modules as linears
import pytest
import torch
from conftest import tiny_config, tiny_inputs, tiny_model
from PIL import Image

from benchmarks import inference, training
from feallm.chorus import Chorus
from feallm.graphs import Graphs

ROOT = Path(__file__).parent.parent


def run(*command: str) -> dict:
    """Run a benchmark and return the object of its last line."""
    done = subprocess.run(
        [sys.executable, "-m", *command], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.strip().splitlines()[-1])


@pytest.mark.slow
def test_the_mini_benchmark_ends_in_one_json_line():
    result = run("benchmarks.mini", "--faces", "2", "--threads", "1")
    assert result["faces"] == 2 and result["input"] == "grace_hopper.jpg"
    assert all(0 < seconds for seconds in result["detection_by_side_s"].values())
    assert all(seconds > 0 for seconds in result["steps_s"].values())
    assert result["visitors"] == 2 and result["answers_at_once_s"] > 0
    assert 0 < result["first_words_s"] <= result["chat_answer_s"]
    # of two faces the median is the mean: the steps cannot take longer than the whole
    assert sum(result["steps_s"].values()) <= result["analysis_s"] + 1e-3
    assert sum(result["steps_s"].values()) > 0.8 * result["analysis_s"]


@pytest.mark.slow
def test_the_page_benchmark_ends_in_one_json_line():
    result = run("benchmarks.page", "--visits", "1")
    assert all(
        0 < median <= worst for k, v in result.items() if k != "started_s" for median, worst in [v]
    )
    assert result["weight_kb"][1] <= 400


def test_the_inference_table_leaves_empty_what_was_not_measured(tmp_path):
    growth = {1: 0.5, 2: 0.75, 4: 1.0}
    result = {
        "device": "a CPU",
        "layers": 2,
        "prefill_s": {"llava": 2.0, "feallm": 2.1},
        "prefill_ratio": 1.05,
        "tokens_per_second": {"llava": 4.0, "feallm": 5.0},
        "decoding_ratio": 1.25,
        "first_question_s": 1.0,
        "follow_up_s": 0.2,
        "follow_up_ratio": 0.2,
        "nf4_peak_gb": None,
        "nf4": "measured",
        "streams": growth,
        "turns": growth,
        "faces": growth,
    }
    lines = inference.table(result).splitlines()
    assert lines[2] == "| prefill | 2 s | 2.1 s | 1.05 | <= 1.05 |"
    assert lines[3].startswith("| decoding | 4 tokens/s | 5 tokens/s | 1.25 |")
    assert lines[4] == "| first question, follow-up |  | 1 s, 0.2 s | 0.2 | <= 0.35 |"
    assert lines[5] == "| NF4's memory, measured |  |  |  | <= 6.5 |"
    assert "Seconds by turns (first token): 1: 0.5, 2: 0.75, 4: 1" in lines
    inference.plot(result, tmp_path / "growth.png")
    assert Image.open(tmp_path / "growth.png").size[0] > 1000


def test_a_ratio_is_that_of_the_rounds():
    """Rounds differ in length: the medians may be those of different rounds."""
    assert inference.ratio([2.0, 3.0, 8.0], [1.0, 2.0, 2.0]) == 2.0


@torch.inference_mode()
def test_an_answer_is_timed_in_the_pages_way_too():
    model = tiny_model()
    inputs = tiny_inputs(model.config)
    ids = inputs.pop("input_ids")[0].tolist()
    chorus = Chorus(model, Graphs(model, capture=lambda passes, device: passes))
    for way in (None, chorus):
        first, later = inference.feallm_answers(model, ids, inputs, 5, way)
        assert first > 0 and later > 0


@pytest.mark.slow
def test_the_inference_benchmark_ends_in_one_json_line():
    options = ("--layers", "1", "--tokens", "2", "--repeats", "1", "--threads", "1")
    result = run("benchmarks.inference", *options)
    assert result["layers"] == 1 and 4 < result["nf4_peak_gb"] < 6.5
    assert 0 < result["follow_up_s"] < result["first_question_s"]
    assert set(result["faces"]) == {"1", "2", "4", "8", "12"}


def test_nf4s_memory_is_counted_from_what_is_loaded():
    """Four bits and a scale for the language model's matrices; all else, and the talk, in bf16."""
    gb = {n: inference.count_nf4_peak(n) for n in (1, 2)}
    layer = 4 * 4096**2 + 3 * 4096 * 11008
    talk = 2 * 2 * 4096 * (577 + 1 + 60 + 1)
    assert gb[2] - gb[1] == pytest.approx((layer * 0.5 + layer / 64 * 1.02 + talk) / 1e9, rel=0.1)


def test_nf4s_memory_is_counted_alike_where_a_cpu_would_pack_it_anew(monkeypatch):
    here = inference.count_nf4_peak(1)
    there = not linears.has_avx512bf16()
    monkeypatch.setattr(linears, "has_avx512bf16", lambda: there)
    assert inference.count_nf4_peak(1) == here


def test_layers_of_one_weight_keep_their_places_in_the_cache():
    model = tiny_model()
    layers = model.model.language_model.layers
    inference.share_weights(layers)
    assert len({id(p) for p in layers.parameters()}) == len(list(layers[0].parameters()))
    reader = inference.Reader(model, torch.zeros(1, 0, 1))
    reader.read([5, 6, 7])
    assert [layer.keys.shape[2] for layer in reader.cache.layers] == [3] * len(layers)


def test_the_training_benchmarks_table_says_what_was_measured():
    """The ratio is that of the turns: one turn on a busy machine does not decide it."""
    seconds = {"llava": [1.0, 10.0, 1.0], "feallm": [2.0, 12.5, 1.25]}
    measured, counted = {"llava": 4.0, "feallm": 4.1}, {"llava": 20.0, "feallm": 20.5}
    result = training.ratios(seconds, {"llava": 100, "feallm": 100}, measured, counted)
    assert result == {
        "tokens_per_second": {"llava": 100.0, "feallm": 50.0},
        "peak_memory_gib": {"llava": 4.0, "feallm": 4.1},
        "speed_ratio": 0.8,
        "memory_ratio": 1.025,
        "counted_7b_gib": counted,
        "counted_7b_ratio": 1.025,
    }
    assert training.table(result).splitlines()[2:] == [
        "| LLaVA-1.5 with LoRA | 100.0 | 4.00 GiB | 20.00 GiB |",
        "| FEALLM, stage 2 | 50.0 | 4.10 GiB | 20.50 GiB |",
        "| FEALLM / LLaVA | 0.800 | 1.025 | 1.025 |",
    ]


@pytest.mark.parametrize("kind", training.KINDS)
def test_the_training_benchmark_trains_what_it_says(monkeypatch, kind):
    """LoRA and what stands between tower and language model; nothing of the tower."""
    shapes = tiny_config(image_token_index=60)
    monkeypatch.setattr(training, "config", lambda layers: shapes)
    model, optimizer = training.build(kind, 2, "cpu")
    batch = training.rows(kind, shapes, 2, "cpu")
    assert (batch["input_ids"] == 60).sum() == 2 * (16 + (kind == "feallm"))
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    for _ in range(2):  # lora_A and what is scaled by 0 move at the second step
        training.step(kind, model, optimizer, batch)
    moved = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    parts = {"lora": ".lora_", "projector": "multi_modal_projector", "lca": "lca.", "mpp": "mpp."}
    names = {part for part, text in parts.items() if any(text in n for n in moved)}
    assert names == (set(parts) if kind == "feallm" else {"lora", "projector"})
    assert all(any(text in n for text in parts.values()) for n in moved)


def test_the_training_benchmark_ends_in_one_json_line(monkeypatch, capsys):
    """All of it at small widths, but for the processes of the true ones that measure memory."""
    monkeypatch.setattr(training, "config", lambda layers: tiny_config(image_token_index=60))
    monkeypatch.setattr(training, "memory_alone", lambda kind, args: 1.0)
    monkeypatch.setattr(sys, "argv", ["training", "--quick", "--steps", "1", "--device", "cpu"])
    training.main()
    result = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    assert result["layers"] == 2 and result["speed_ratio"] > 0
    assert 1 < result["counted_7b_ratio"] < 20

"""The 7B's stages on tiny checkpoints in the published layouts, from LLaVA to the open page."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from bitsandbytes.functional import has_avx512bf16
from browsing import serve
from gradio_client import Client, handle_file
from safetensors.torch import load_file, save_file
from staging import CONFIGS, SMALL, SMOKE, run, smoke_stage

from feallm import FEALLMConfig, FEALLMForConditionalGeneration, Predictor
from feallm.loading import ModelError, load
from train.checkpoints import TRAINED
from train.parts import Lora, StageError, choose_trainable
from train.plan import Plan, plan
from train.report import answer
from train.result import save
from train.sources import instructions
from train.stage import read_config
from train.train import train

WHOLE = ("model.lca", "model.mpp", "model.multi_modal_projector")


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
    first.write_text(f"{stage1}architecture: {SMALL}\n")
    assert read_config(first).layout == "plain" and read_config(SMOKE).layout == "v1"
    run(monkeypatch, first, llava, rows, tmp_path / "one")
    aligned, _ = load(tmp_path / "one" / "final", torch.float32)
    torch.manual_seed(0)  # as the run did: the LCA and the MPP start at random
    started, _ = load(llava, torch.float32, **SMALL)
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
        model, processor = load(llava, torch.float32, **SMALL)
        data = instructions(*rows, processor, config, tmp_path)
        trainer = train(model, processor, config, data, tmp_path / str(micro))
        seen[micro] = [e["loss"] for e in trainer.state.log_history if "loss" in e]
        state = model.state_dict()["model.lca.to_token.weight"]
        seen[f"{micro} weights"] = state
    assert seen[1] == pytest.approx(seen[4], abs=2e-3)  # bf16 autocast
    torch.testing.assert_close(seen["1 weights"], seen["4 weights"], atol=5e-3, rtol=0)


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
    stage = smoke_stage(tmp_path / "stage.yaml", sample_steps=0)
    more = ("--quantization", "nf4", "--dtype", "bfloat16")
    run(monkeypatch, stage, llava, rows, tmp_path / "out", *more)
    kept = load_file(tmp_path / "out" / "checkpoint-6" / TRAINED)
    moved = [n for n, value in kept.items() if "lora_B" in n and value.abs().max() > 0]
    assert len(moved) == 2 * 7  # they start at zero
    assert not [n for n in kept if "base_layer" in n]
    load(tmp_path / "out" / "final", torch.float32)

"""Every form of a model opens or is refused with a list; a plain LLaVA stays exactly that."""

import json
import shutil
from collections import namedtuple
from types import SimpleNamespace

import pytest
import torch
from conftest import tiny_config
from layouts import write_llava
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import LlavaForConditionalGeneration

from feallm import FEALLMConfig, Predictor, memory
from feallm.__main__ import main
from feallm.device import device_of
from feallm.generation import Reader, stream
from feallm.loading import ModelError, load, load_model

ASKED = [{"role": "user", "content": "Which emotion is this?"}]


@pytest.fixture(scope="module")
def llava(tmp_path_factory):
    """A tiny LLaVA, lively enough that its greedy text varies."""
    folder = write_llava(tmp_path_factory.mktemp("plain") / "tiny-llava")
    torch.manual_seed(1)
    state = load_file(folder / "model.safetensors")
    state = {n: torch.randn(v.shape) * 0.2 if v.dim() > 1 else v for n, v in state.items()}
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.fixture(scope="module")
def plain(llava):
    return Predictor(llava, device_of("cpu"), torch.float32)


def test_a_plain_llava_is_exactly_llava(llava, plain, portrait):
    face = portrait.resize((32, 32))
    theirs = LlavaForConditionalGeneration.from_pretrained(llava, dtype=torch.float32).eval()
    pixels = plain.processor.faces([face])["pixel_values"]
    ids = torch.tensor([plain.processor.conversation(ASKED)[0]])
    inputs = {"input_ids": ids, "pixel_values": pixels}
    with torch.inference_mode():
        expected = theirs(**inputs).logits
        torch.testing.assert_close(plain.model(**inputs).logits, expected, rtol=0, atol=0)
        reading = plain.analyse(face, texts=False)
    assert plain.model.config.mpp_residual == "identity"
    assert reading.attention is None and reading.looks == {}  # nothing of it was trained
    # and its talk is what transformers' generate writes
    known = plain._known(reading.expression, reading.aus)
    ids = torch.tensor([plain.processor.conversation(known + ASKED)[0]])
    written = theirs.generate(
        input_ids=ids, pixel_values=pixels, do_sample=False, max_new_tokens=24, eos_token_id=2
    )[0, ids.shape[1] :]
    reader = Reader(plain.model, reading.image_embeds)
    with torch.inference_mode():
        reader.turn_to(ids[0].tolist())
        ours = list(stream(reader, 2, 24))
    assert len(set(ours)) > 5 and ours == written.tolist()


def test_a_plain_llava_is_said_not_to_be_tuned(llava, portrait, tmp_path, capsys):
    portrait.save(tmp_path / "face.png")
    assert main([str(tmp_path / "face.png"), "--face-crop", "--model", str(llava)]) == 0
    out, err = capsys.readouterr()
    assert "not tuned for faces" in json.loads(out)["note"]
    assert "not tuned for faces" in err


def test_feallm_mini_is_tuned(predictor):
    assert predictor.tuned


def test_a_start_from_llava_for_training_has_all_parts(llava):
    model, processor = load(llava, torch.float32)
    assert model.config.use_lca and model.config.mpp_residual == "paper"
    assert processor.num_image_tokens == 17


def with_other_weights(folder, to, change):
    shutil.copytree(folder, to)
    file = next(to.glob("*.safetensors"))
    save_file(change(load_file(file)), file, metadata={"format": "pt"})
    return to


def test_weights_of_another_shape_are_listed(llava, tmp_path):
    name = "language_model.model.layers.1.mlp.up_proj.weight"

    def shorter(state):
        (key,) = [k for k in state if k.endswith("layers.1.mlp.up_proj.weight")]
        return state | {key: state[key][:-8].clone()}

    odd = with_other_weights(llava, tmp_path / "odd", shorter)
    with pytest.raises(ModelError, match=f"1 of another shape: .*{name.split('.model.')[1]}"):
        load(odd, torch.float32)


@pytest.fixture(scope="module")
def adapter(llava, tmp_path_factory):
    """LoRA, LCA and MPP of a FEALLM over the tiny LLaVA."""
    folder = tmp_path_factory.mktemp("adapter") / "tuned"
    model, processor = load(llava, torch.float32)
    linear = r"model\.language_model\..*\.(q|v)_proj"
    saved = ["lca", "mpp", "multi_modal_projector"]
    config = LoraConfig(r=2, target_modules=linear, modules_to_save=saved)
    config.base_model_name_or_path = str(llava)
    get_peft_model(model, config).save_pretrained(folder)
    model.config.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def test_an_adapter_opens_and_is_tuned(adapter):
    assert Predictor(adapter, device_of("cpu"), torch.float32).tuned


@pytest.mark.parametrize("part", ["lca", "mpp", "lora_B"])
def test_an_adapter_with_holes_is_refused(adapter, tmp_path, part):
    def holed(state):
        return {n: v for n, v in state.items() if part not in n}

    folder = with_other_weights(adapter, tmp_path / "holed", holed)
    with pytest.raises(ModelError, match=f"incomplete.*missing: .*{part}"):
        load_model(folder, torch.float32)


def test_an_adapter_of_another_shape_is_refused(adapter, tmp_path):
    def narrower(state):
        return {n: v[:1].clone() if "lora_A" in n else v for n, v in state.items()}

    folder = with_other_weights(adapter, tmp_path / "odd", narrower)
    with pytest.raises(ModelError, match=r"4 of another shape: .*\(1, 64\) for \(2, 64\)"):
        load_model(folder, torch.float32)


def test_what_the_7b_needs_is_known_without_loading_it():
    config = FEALLMConfig()
    whole = memory.need(config, torch.bfloat16, None)
    assert whole.weights == 2 * 7_075_307_840
    assert whole.talk == 2 * 32 * 4096 * 4096 * 2  # keys and values, layers, width, tokens, bf16
    small = memory.need(config, torch.bfloat16, "nf4")
    assert small.weights / 2**30 == pytest.approx(4.31, abs=0.01)
    # all linear maps of the language model's layers
    linear = 32 * (4 * 4096**2 + 3 * 4096 * 11008)
    assert small.weights == pytest.approx(whole.weights - (2 - 0.53) * linear)


def test_the_tiny_models_need_is_what_it_holds(llava, plain):
    parameters = sum(p.nbytes for p in plain.model.parameters())
    assert memory.need(plain.model.config, torch.float32, None).weights == parameters


def test_too_little_memory_is_a_sentence(llava, plain, monkeypatch, portrait, tmp_path, capsys):
    small = memory.need(plain.model.config, torch.float32, "nf4").total
    monkeypatch.setattr("feallm.loading.FEALLMForConditionalGeneration.from_pretrained", None)
    monkeypatch.setattr(memory, "free", lambda device: small)
    with pytest.raises(ModelError, match="needs about .* With --quantization nf4"):
        Predictor(llava, device_of("cpu"), torch.float32)
    monkeypatch.setattr(memory, "free", lambda device: 0)
    portrait.save(tmp_path / "face.png")
    status = main([str(tmp_path / "face.png"), "--model", str(llava), "--device", "cpu"])
    out, err = capsys.readouterr()
    assert status == 2 and out == ""
    assert "needs about" in err and "0.0 GiB are free" in err and "--quantization" not in err


def test_a_containers_limit_counts(monkeypatch, tmp_path):
    machine = namedtuple("Memory", "available")(8 * 2**30)
    monkeypatch.setattr(memory.psutil, "virtual_memory", lambda: machine)
    monkeypatch.setattr(memory, "CONTAINER_LIMIT", tmp_path / "memory.max")
    used = SimpleNamespace(memory_info=lambda: SimpleNamespace(rss=2**28))
    monkeypatch.setattr(memory.psutil, "Process", lambda: used)
    assert memory.free(device_of("cpu")) == 8 * 2**30  # no container
    limits = (("max\n", 8 * 2**30), (f"{2**30}\n", 3 * 2**28), (f"{2**40}\n", 8 * 2**30))
    for limit, there in (*limits, (f"{2**27}\n", 0)):
        (tmp_path / "memory.max").write_text(limit)
        assert memory.free(device_of("cpu")) == there


def test_memory_is_said_before_anything_is_loaded(llava, monkeypatch):
    said = []

    def fail(*_, **__):
        raise ModelError("loading began")

    monkeypatch.setattr("feallm.predictor.load", fail)
    with pytest.raises(ModelError, match="loading began"):
        Predictor(llava, device_of("cpu"), torch.float32, say=said.append)
    assert "needs about" in said[0] and "(float32)" in said[0] and "not tuned" in said[1]


@pytest.mark.parametrize("name", ["toaster", "cuda:99"])
def test_a_device_that_is_not_there_is_a_sentence(name):
    with pytest.raises(ModelError, match=f"{name}.*cpu"):
        device_of(name)


def test_answers_at_once_are_as_many_as_the_memory_holds(monkeypatch):
    config, cpu = tiny_config(), device_of("cpu")
    talk = memory.need(config, torch.float32, None).talk
    for free, count in ((100 * talk, memory.VOICES), (9.5 * talk, 4), (2 * talk, 1), (0, 1)):
        monkeypatch.setattr(memory, "free", lambda _, free=free: free + 10)
        assert memory.voices(config, cpu, torch.float32, kept=10) == count

"""Tiny models and made-up pictures: the tests need no weights, no network and no data set."""

import os
import tempfile
from pathlib import Path

os.environ["GRADIO_TEMP_DIR"] = os.path.join(tempfile.mkdtemp(), "feallm-uploads")
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# the models are tiny: a second thread gives nothing, and takes a core from browser and subprocesses
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
import torch
from layouts import write_instructions, write_llava
from matplotlib.cbook import get_sample_data
from PIL import Image
from playwright.sync_api import expect, sync_playwright
from transformers import CLIPVisionConfig, LlamaConfig

from feallm import FEALLMConfig, FEALLMForConditionalGeneration, prompts
from feallm.facs import AUS, EXPRESSIONS
from feallm.generation import Reader, stream
from feallm.predictor import Reading

CHROMIUM = "/usr/bin/chromium"
FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]
expect.set_options(timeout=20_000)  # of a loaded machine


@pytest.fixture(scope="session")
def browser():
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture(autouse=True)
def _tabs_are_closed(request):
    """Also after a failure: a page left open keeps a core busy."""
    yield
    if "browser" in request.fixturenames:
        for context in request.getfixturevalue("browser").contexts:
            context.close()


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def tiny_config(**changes) -> FEALLMConfig:
    """Two-layer language model, four-layer tower with a 4 x 4 grid, 16 crops of 16 pixels."""
    fields = {
        "vision_config": CLIPVisionConfig(
            image_size=32,
            patch_size=8,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=4,
            num_attention_heads=4,
            projection_dim=32,
        ),
        "text_config": LlamaConfig(
            vocab_size=64,
            hidden_size=48,
            intermediate_size=96,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=512,
            bos_token_id=1,
            eos_token_id=2,
            pad_token_id=4,
        ),
        "image_token_index": 3,
        "crop_size": 16,
        "lca_channels": (16, 16, 16, 16),
        "mpp_shallow_layers": (1, 2),
        "mpp_num_heads": 4,
        "mpp_num_points": 2,
    }
    return FEALLMConfig(**(fields | changes))


def tiny_model(**changes) -> FEALLMForConditionalGeneration:
    return FEALLMForConditionalGeneration(tiny_config(**changes)).eval()


def tiny_inputs(config: FEALLMConfig, batch: int = 1) -> dict[str, torch.Tensor]:
    """Random faces, and ids with the right number of placeholders."""
    k = config.num_image_tokens
    ids = torch.tensor([[1, 10, *[3] * k, 11, 12, 13]]).repeat(batch, 1)
    size = config.vision_config.image_size
    inputs = {"input_ids": ids, "pixel_values": torch.randn(batch, 3, size, size)}
    if config.use_lca:
        shape = (batch, config.num_crops, 3, config.crop_size, config.crop_size)
        inputs["pixel_values_local"] = torch.randn(shape)
    return inputs


def reader_of(model, prompt: list[int]) -> Reader:
    """A reader that has read ids and no face."""
    reader = Reader(model, torch.zeros(1, 0, 1))
    with torch.inference_mode():
        reader.read(prompt)
    return reader


@torch.inference_mode()
def alone(model, prompt: list[int], length: int) -> list[int]:
    """What a model writes after ids, plainly and by itself."""
    return list(stream(reader_of(model, prompt), -1, length))


@pytest.fixture(scope="session")
def portrait() -> Image.Image:
    """Matplotlib's public-domain portrait of Grace Hopper: one face."""
    return Image.open(get_sample_data("grace_hopper.jpg", asfileobj=False)).convert("RGB")


@pytest.fixture(scope="session")
def predictor():
    """feallm-mini as shipped."""
    from feallm import Predictor

    return Predictor()


@pytest.fixture(scope="module")
def exact():
    """feallm-mini in fp32, where two ways to the same number can be compared."""
    from feallm import Predictor

    return Predictor(device=torch.device("cpu"), dtype=torch.float32)


@pytest.fixture
def gradient() -> Image.Image:
    """A picture whose red is its x and green its y, in pixels: geometry can be read off."""
    y, x = np.mgrid[0:200, 0:240]
    return Image.fromarray(np.stack([x, y, np.zeros_like(x)], -1).astype(np.uint8))


def made_reading(
    expression: str = "Happiness",
    aus: tuple[int, ...] = (6, 12),
    share: float = 0.7,
    face: Image.Image | None = None,
    **changes,
) -> Reading:
    """A reading as a model would give it, for what only shows or compares readings."""
    rest = (1 - share) / 6
    fields = dict(
        expression=expression,
        expression_probabilities={e: share if e == expression else rest for e in EXPRESSIONS},
        aus=aus,
        action_unit_probabilities={k: 0.9 if k in aus else 0.1 for k in AUS},
        summary=f"{expression}. A made-up face.",
        movements=prompts.list_action_units(aus),
        reasoning=f"They point to {expression}.",
        face=face or Image.new("RGB", (96, 96), "grey"),
        attention=np.full((16, 16), 1 / 16),
        looks={"self": (np.full((1, 1, 1, 4, 2), 0.5), np.full((1, 1, 1, 4), 0.25))},
        image_embeds=torch.zeros(1),
    )
    return Reading(**(fields | changes))


@pytest.fixture(scope="module")
def llava(tmp_path_factory) -> Path:
    """A tiny LLaVA-1.5 in its published layout."""
    return write_llava(tmp_path_factory.mktemp("start") / "tiny-llava")


@pytest.fixture(scope="module")
def rows(tmp_path_factory) -> tuple[Path, Path]:
    """LLaVA's instruction data: the list and its pictures' folder."""
    return write_instructions(tmp_path_factory.mktemp("rows"))

"""Endpoints against a real server of OpenAI's protocol: `transformers serve` on a tiny LLaVA."""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import torch
from layouts import CHAT_TEMPLATE, write_llava
from PIL import Image

from benchmarks.soak import free_port
from feallm import Predictor
from feallm.faces import align_face, detect_faces
from feallm.predictor import MINI
from train.fea import describe
from train.feabench import systems
from train.feabench.systems import Chat, Question, Remote


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    folder = write_llava(tmp_path_factory.mktemp("served") / "llava-tiny")
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE)
    return folder


@contextlib.contextmanager
def serving(*command: object) -> Iterator[str]:
    """Run a server and give its address up to /v1."""
    port = free_port()
    process = subprocess.Popen([*map(str, command), "--port", str(port)])
    url = f"http://localhost:{port}"
    try:
        for _ in range(240):
            assert process.poll() is None, "the server ended"
            try:
                httpx.get(f"{url}/health").raise_for_status()
                break
            except httpx.TransportError:
                time.sleep(0.5)
        yield f"{url}/v1"
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture(scope="module")
def server(model):
    transformers = Path(sys.executable).parent / "transformers"
    with serving(transformers, "serve", model, "--device", "cpu") as url:
        yield url


@pytest.fixture(autouse=True)
def short_exact_answers(monkeypatch):
    """Untrained, the model would never end, and hardly prefers one word to another."""
    monkeypatch.setattr(systems, "best_dtype", lambda device: torch.float32)
    monkeypatch.setattr(systems, "MAX_NEW_TOKENS", 40)
    monkeypatch.setattr(describe, "MAX_TOKENS", 40)


def test_a_served_model_answers_as_it_does_here(server, model):
    faces = [Image.new("RGB", (40, 40), colour) for colour in ("red", "navy")]
    asked = [Question("units", "AUs?"), Question("expression", "What is the emotion?")]
    there = Remote(server, str(model), key=None).answer(faces, asked)
    here = [Chat(str(model)).answer([f], [q])[0] for f, q in zip(faces, asked, strict=True)]
    assert here == there and here[0] != here[1]


def test_answers_that_are_no_json_are_dropped_and_counted(server, model, tmp_path, monkeypatch):
    frame = {"image": "v/00001.jpg", "video": "v", "number": 1, "split": "train"}
    frame |= {"expression": "Happiness", "aus": [6, 12]}
    (tmp_path / "frames.jsonl").write_text(json.dumps(frame) + "\n")
    (tmp_path / "v").mkdir()
    Image.new("RGB", (40, 40), "grey").save(tmp_path / "v/00001.jpg")
    command = ["describe", "--frames", tmp_path / "frames.jsonl", "--out", tmp_path / "fea"]
    command += ["--images", tmp_path, "--endpoint", server, "--model", model]
    monkeypatch.setattr("sys.argv", list(map(str, command)))
    describe.main()
    asked = [json.loads(line) for line in (tmp_path / "fea/asked.jsonl").open()]
    assert len(asked) == describe.TRIES
    assert all(a["complaints"] == ["The answer is not JSON."] for a in asked)
    assert all(a["prompt_tokens"] > 0 < a["completion_tokens"] for a in asked)
    assert json.loads((tmp_path / "fea/dropped.jsonl").read_text())["image"] == "v/00001.jpg"


VLLM = os.environ.get("VLLM_PYTHON", "")
SERVERS = {
    "transformers": [sys.executable, "-m", "feallm.serve", MINI, "--device", "cpu"],
    "vllm": [VLLM, "-m", "feallm.serve_vllm", MINI, "--enforce-eager", "--max-model-len", "1024"],
}


@pytest.mark.parametrize(
    "engine",
    [
        "transformers",
        pytest.param("vllm", marks=pytest.mark.skipif(not VLLM, reason="VLLM_PYTHON is not set")),
    ],
)
def test_a_feallm_is_served_and_answers_as_it_does_here(portrait, engine):
    ours = Predictor(device=torch.device("cpu"), dtype=torch.float32)
    face = align_face(portrait, detect_faces(portrait)[0], ours.face_size)
    asked = [Question("expression", "Is the smile genuine?"), Question("units", "Which AUs?")]
    with serving(*SERVERS[engine], "--dtype", "float32") as url:
        there = Remote(url, str(MINI), key=None).answer([face, face], asked)
    assert there == [ours.answer([face], [q.text], systems.MAX_NEW_TOKENS)[0] for q in asked]
    assert there[0] != there[1]

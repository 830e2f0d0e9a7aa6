"""`app.py` on the hosts: options in the environment, a lent GPU, a model that is not there."""

import pickle
import socket
from types import SimpleNamespace

import gradio as gr
import pytest
import torch

import app
from feallm import Predictor
from feallm.loading import ModelError
from feallm.predictor import MINI
from page import api
from page.handlers import MAX_QUESTION

PORT_PROBLEM = app.port_problem
"""What `launched` takes away, so that the tests need no port to be free."""


class Lender:
    """Lends as ZeroGPU does: arguments and results are pickled on their way to a worker."""

    def __init__(self):
        self.lent = []

    def GPU(self, function, duration=60):
        def call(*args, **kwargs):
            args, kwargs = pickle.loads(pickle.dumps((args, kwargs)))
            assert 0 < duration(*args, **kwargs) <= 60
            result = function(*args, **kwargs)
            if hasattr(result, "__next__"):
                return (pickle.loads(pickle.dumps(piece)) for piece in result)
            return pickle.loads(pickle.dumps(result))

        self.lent.append(function)
        return call


@pytest.fixture
def lender(monkeypatch):
    lender = Lender()
    monkeypatch.setattr(app, "spaces", lender)
    return lender


@pytest.fixture
def launched(monkeypatch):
    """The pages that would have been launched, and how."""
    pages = []
    monkeypatch.setattr(
        "gradio.Blocks.launch", lambda demo, **options: pages.append((demo, options))
    )
    monkeypatch.setattr("sys.argv", ["app.py"])
    monkeypatch.setattr(app, "port_problem", lambda host, port: None)
    return pages


def test_every_call_of_the_model_survives_the_way_to_a_lent_gpu(lender, portrait):
    from feallm.occlusion import occlude

    predictor = Predictor()
    app.lend_gpu(predictor)
    assert len(lender.lent) == 3
    reading = predictor.analyse(portrait.resize((96, 96)))
    assert set(reading.action_unit_probabilities) == set(predictor.thresholds)
    talk = [{"role": "user", "content": "What emotion is this, and why?"}]
    assert "".join(predictor.stream(reading, talk, 0.0)).strip()
    assert len(occlude(predictor, reading).expressions) == 16


def test_a_question_too_long_is_named_though_a_worker_would_hide_it(
    monkeypatch, tmp_path, portrait
):
    def in_a_worker(*_):
        raise gr.Error("GPU worker error: QuestionTooLong")

    predictor = Predictor()
    monkeypatch.setattr(predictor, "stream", in_a_worker)
    monkeypatch.setattr(api, "uploaded", lambda photo: photo)
    portrait.save(tmp_path / "portrait.png")
    question = "\u0bb9" * (MAX_QUESTION - 1)  # a letter of many tokens
    said = api.Api(predictor).analyze(tmp_path / "portrait.png", question)
    assert said == [{"error": "This question is too long for the model."}]


def test_a_space_starts_even_when_the_model_cannot_be_loaded(monkeypatch, lender, launched, capsys):
    def fail(*_, **__):
        raise ModelError("no such model")

    monkeypatch.setattr(app, "Predictor", fail)
    app.main()
    assert len(lender.lent) == 1 and len(launched) == 1
    assert "no such model" in capsys.readouterr().err


@pytest.fixture
def loaded(monkeypatch) -> dict:
    """What a model would have been loaded with."""
    seen = {}

    def load(model, device, dtype, quantization, say, lent):
        seen.update(model=model, device=device, dtype=dtype, quantization=quantization, lent=lent)
        return SimpleNamespace(name="seen", device=device, tuned=True, voices=1)

    monkeypatch.setattr(app, "Predictor", load)
    return seen


def test_options_come_from_the_environment(monkeypatch, launched, loaded):
    values = {"MODEL": "there", "DEVICE": "cpu", "HOST": "0.0.0.0", "PORT": "8123", "QUEUE": "7"}
    values |= {"QUANTIZATION": "nf4", "DTYPE": "fp16"}
    for name, value in values.items():
        monkeypatch.setenv(f"FEALLM_{name}", value)
    app.main()
    assert loaded["model"] == "there" and loaded["device"].type == "cpu"
    assert loaded["quantization"] == "nf4" and loaded["dtype"] == torch.float16
    demo, options = launched[0]
    assert options["server_name"] == "0.0.0.0" and options["server_port"] == 8123
    assert demo._queue.max_size == 7


def test_on_a_lent_gpu_the_model_is_told_that_nothing_stays(monkeypatch, lender, launched, loaded):
    monkeypatch.setattr(app, "lend_gpu", lambda predictor: None)
    app.main()
    assert loaded["lent"]


def test_a_taken_port_is_said_before_the_model_is_loaded(monkeypatch, launched, loaded, capsys):
    monkeypatch.setattr(app, "port_problem", PORT_PROBLEM)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        monkeypatch.setattr("sys.argv", ["app.py", "--port", str(port)])
        with pytest.raises(SystemExit):
            app.main()
        assert f"127.0.0.1:{port} cannot be listened on" in capsys.readouterr().err
    assert PORT_PROBLEM("127.0.0.1", port) is None
    assert "cannot be listened on" in PORT_PROBLEM("127.0.0.1", 70_000)
    assert launched == [] and loaded == {}


@pytest.mark.parametrize("events", ["0", "-1"])
def test_a_queue_that_lets_nobody_wait_is_refused(monkeypatch, launched, capsys, events):
    monkeypatch.setenv("FEALLM_QUEUE", events)
    with pytest.raises(SystemExit):
        app.main()
    assert launched == [] and "--queue" in capsys.readouterr().err


@pytest.mark.parametrize("minutes", ["0", "-3", "60"])
def test_photos_cannot_be_kept_longer_than_promised(monkeypatch, launched, minutes, capsys):
    monkeypatch.setenv("FEALLM_KEEP_MINUTES", minutes)
    with pytest.raises(SystemExit):
        app.main()
    assert launched == [] and "promises an hour" in capsys.readouterr().err


def test_empty_variables_of_the_environment_are_none(monkeypatch, launched, loaded):
    for name in (
        "MODEL",
        "DEVICE",
        "HOST",
        "PORT",
        "QUEUE",
        "QUANTIZATION",
        "DTYPE",
        "KEEP_MINUTES",
    ):
        monkeypatch.setenv(f"FEALLM_{name}", "")
    app.main()
    loaded.pop("device")  # whichever is there
    assert loaded == {"model": str(MINI), "dtype": None, "quantization": None, "lent": False}
    assert launched[0][1]["server_port"] == 7860


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("QUANTIZATION", "int4", "FEALLM_QUANTIZATION is 'int4'"),
        ("DTYPE", "bfloat", "FEALLM_DTYPE is 'bfloat'"),
        ("PORT", "http", "invalid int value"),
    ],
)
def test_wrong_variables_of_the_environment_are_named(
    monkeypatch, launched, name, value, sentence, capsys
):
    monkeypatch.setenv(f"FEALLM_{name}", value)
    with pytest.raises(SystemExit):
        app.main()
    assert launched == [] and sentence in capsys.readouterr().err

"""An answer by graphs is the answer without, whatever comes between; graphs that fail are not used.

A CPU has no graphs. The passes that would be captured are called instead, over the same cache; or
traced, and the same operations on the same tensors are run again and again, as a graph does.
"""

import re
import threading
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from browsing import wait_until
from conftest import alone, reader_of, tiny_config, tiny_model
from torch.fx.experimental.proxy_tensor import make_fx

import feallm.graphs
from feallm import Predictor, memory
from feallm.chorus import Chorus
from feallm.faces import align_face, detect_faces
from feallm.generation import Reader
from feallm.graphs import Graphs, open_graphs, wanted

PROMPT, OTHER = [1, 5, 6, 7], [1, 8, 8, 8, 8, 9]


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)  # this comes before the seed of each test
    model = tiny_model()
    for parameter in model.parameters():  # lively enough that greedy text varies
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.2)
    return model


@pytest.fixture
def lengths(monkeypatch):
    """Graphs of 16, 32, ... slots: an answer needs several."""
    monkeypatch.setattr(feallm.graphs, "STEP", 16)


class Passes:
    """Stands in for `captured` and counts the passes of each length; one may wait for something."""

    def __init__(self, waiting: int = 0, until: Callable[[], bool] | None = None):
        self.counts: list[int] = []
        self.waiting, self.until = waiting, until

    def __call__(self, passes, device):
        def counted(number: int) -> None:
            self.counts[number] += 1
            if sum(self.counts) == self.waiting:
                assert wait_until(self.until, 30)
            passes[number]()

        self.counts = [0] * len(passes)
        return [partial(counted, n) for n in range(len(passes))]


def same_reader(reader: Reader, other: Reader) -> None:
    """They stand at the same place and read on alike."""
    assert reader.ids == other.ids and reader.nbytes == other.nbytes
    torch.testing.assert_close(reader.logits, other.logits, atol=1e-4, rtol=1e-3)
    with torch.inference_mode():
        for each in (reader, other):
            each.read([5, 6])
    torch.testing.assert_close(reader.logits, other.logits, atol=1e-4, rtol=1e-3)


def test_an_answer_is_the_plain_one_and_its_reader_reads_on(model, lengths):
    passes = Passes()
    chorus = Chorus(model, Graphs(model, passes))
    readers = [reader_of(model, p) for p in (PROMPT, OTHER)]
    for reader, prompt in zip(readers, (PROMPT, OTHER), strict=True):
        expected = alone(model, prompt, 60)
        assert len(set(expected)) > 10
        assert list(chorus.stream(reader, -1, 60)) == expected
    # each slot that the prompt left is filled once
    assert passes.counts[:6] == [12 + 10, 16 + 16, 16 + 16, 16 + 16, 2, 0]
    for reader, prompt in zip(readers, (PROMPT, OTHER), strict=True):  # nothing of it is shared
        same_reader(reader, reader_of(model, prompt + alone(model, prompt, 60)))


def test_an_answer_may_fill_the_cache_to_its_last_slot_and_one_more_is_plain(model):
    passes = Passes()
    chorus = Chorus(model, Graphs(model, passes))
    room = model.config.text_config.max_position_embeddings - len(PROMPT)
    expected = alone(model, PROMPT, room)
    assert list(chorus.stream(reader_of(model, PROMPT), -1, room)) == expected
    assert passes.counts == [room]
    longer = chorus.stream(reader_of(model, PROMPT), -1, room + 1)
    assert [next(longer) for _ in range(9)] == expected[:9]
    longer.close()
    assert passes.counts == [room]


def traced(passes, device):
    """Nothing but tensors' operations is left: Python runs once, and no value comes to the host."""
    return [make_fx(once)() for once in passes]


@torch.inference_mode()
def test_the_same_operations_again_write_an_answer(model, monkeypatch):
    monkeypatch.setattr(feallm.graphs, "STEP", 256)
    said: list[str] = []
    graphs = open_graphs(model, said.append, traced)
    assert said == [] and graphs.lengths == [256, 512]
    answer = Chorus(model, graphs).stream(reader_of(model, PROMPT), -1, 300)
    assert list(answer) == alone(model, PROMPT, 300)


def test_stopped_in_the_middle_its_reader_is_whole(model, lengths):
    closed, left = threading.Event(), threading.Event()
    chorus = Chorus(model, Graphs(model, Passes(25, closed.is_set)))
    reader = reader_of(model, PROMPT)
    answer = chorus.stream(reader, -1, 400, leaving=left.set)
    begun = [next(answer) for _ in range(20)]
    answer.close()
    closed.set()
    assert left.wait(30)
    assert len(reader.ids) <= len(PROMPT) + 25  # however far ahead it was
    assert reader.ids[: len(PROMPT) + 20] == PROMPT + begun
    same_reader(reader, reader_of(model, reader.ids))


def test_another_one_joins_and_leaves_in_the_middle(model, lengths):
    readers = [reader_of(model, p) for p in (PROMPT, OTHER)]
    passes = Passes(10, lambda: len(chorus._voices) == 2 or len(readers[1].ids) > len(OTHER))
    chorus = Chorus(model, Graphs(model, passes))
    first = chorus.stream(readers[0], -1, 100)
    begun = [next(first) for _ in range(5)]
    second = list(chorus.stream(readers[1], -1, 40))
    assert second == alone(model, OTHER, 40)
    assert begun + list(first) == alone(model, PROMPT, 100)
    assert sum(passes.counts) == 100 - 40  # these were read together


def test_a_failure_in_the_middle_is_forgotten(model):
    steps = iter(range(100))

    def failing(passes, device):
        def once() -> None:
            if next(steps) == 5:
                raise RuntimeError("no longer")
            passes[0]()

        return [once]

    chorus, handed = Chorus(model, Graphs(model, failing)), []
    reader = reader_of(model, PROMPT)
    with pytest.raises(RuntimeError, match="no longer"):
        list(chorus.stream(reader, -1, 60, leaving=lambda: handed.append(reader)))
    assert handed == []
    assert list(chorus.stream(reader_of(model, OTHER), -1, 9)) == alone(model, OTHER, 9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_graph_is_checked(model, lengths, dtype):
    passes, said = Passes(), []
    graphs = open_graphs(tiny_model().to(dtype), said.append, passes)
    assert graphs.lengths == list(range(16, 513, 16)) and said == []
    assert passes.counts == [len(feallm.graphs.CHECKED)] * 32


def broken(passes, device):
    raise RuntimeError("operation not permitted\nwhen stream is capturing")


def twice(passes, device):
    """A token takes two places."""
    return [lambda once=once: (once(), once()) for once in passes]


def never(passes, device):
    """The last graph does nothing."""
    return [*passes[:-1], lambda: None]


@pytest.mark.parametrize(
    ("capture", "reason"),
    [(broken, "not permitted$"), (twice, "scores are off by"), (never, "off by .* at 512 slots$")],
)
def test_graphs_that_fail_are_said_and_not_used(model, lengths, capture, reason):
    said: list[str] = []
    assert open_graphs(model, said.append, capture) is None
    assert len(said) == 1 and said[0].startswith("Answers are written without CUDA graphs")
    assert re.search(reason, said[0])


def test_a_window_of_attention_is_not_for_graphs(model, monkeypatch):
    said: list[str] = []
    monkeypatch.setattr(model.config.text_config, "sliding_window", 8, raising=False)
    monkeypatch.setattr(
        model.config.text_config, "layer_types", ["sliding_attention"] * 2, raising=False
    )
    assert open_graphs(model, said.append, Passes()) is None
    assert "window" in said[0]


def test_graphs_are_opened_where_memory_is_left(monkeypatch):
    config, cpu = tiny_config(), torch.device("cpu")
    talk = memory.longest_talk(config, torch.float32)
    for free, spares in ((4 * talk + 10, True), (4 * talk + 9, False)):
        monkeypatch.setattr(memory, "free", lambda _, free=free: free)
        assert memory.spares_graphs(config, cpu, torch.float32, kept=10) is spares
    long = tiny_config()
    long.text_config.max_position_embeddings = 131_072
    assert feallm.graphs.length_of(long) == feallm.graphs.LONGEST


# the shipped mini


def predictor_of(monkeypatch, **options) -> tuple[Predictor, Passes]:
    """The mini in fp32 that takes this machine for one with graphs, and its passes."""
    passes = Passes()
    monkeypatch.setattr("feallm.predictor.wanted", lambda model: True)
    monkeypatch.setattr("feallm.predictor.open_graphs", partial(open_graphs, capture=passes))
    return Predictor(device=torch.device("cpu"), dtype=torch.float32, **options), passes


@pytest.fixture(scope="module")
def reading(exact, portrait):
    face = align_face(portrait, detect_faces(portrait)[0], exact.face_size)
    return exact.analyse(face, texts=False)


def user(text: str) -> dict:
    return {"role": "user", "content": text}


def test_the_minis_talk_is_the_plain_one(monkeypatch, exact, reading):
    quick, passes = predictor_of(monkeypatch)
    talk: list[dict] = []
    for question in ("Why?", "What is AU12?", "Which action units are active?"):
        talk.append(user(question))
        before = sum(passes.counts)
        text, expected = ("".join(p.stream(reading, talk)) for p in (quick, exact))
        assert text == expected
        assert sum(passes.counts) - before >= 3
        talk.append({"role": "assistant", "content": text.strip()})
    stopped = quick.stream(reading, [*talk, user("Is the smile genuine?")])
    next(stopped)
    stopped.close()
    talk.append(user("How sure are you?"))
    assert "".join(quick.stream(reading, talk)) == "".join(exact.stream(reading, talk))
    one, two = (
        "".join(p.stream(reading, [user("Describe this face.")], 0.7, seed=3))
        for p in (quick, exact)
    )
    assert one == two


def test_on_a_lent_device_and_with_little_memory_there_are_none(monkeypatch):
    said: list[str] = []
    lent, _ = predictor_of(monkeypatch, lent=True, say=said.append)
    assert lent._chorus.graphs is None and not any("graphs" in s for s in said)
    monkeypatch.setattr(memory, "spares_graphs", lambda *_: False)
    narrow, _ = predictor_of(monkeypatch, say=said.append)
    assert narrow._chorus.graphs is None and "too little memory" in said[-1]


def test_a_cpu_and_quantized_weights_have_none(exact):
    assert exact._chorus.graphs is None
    cuda = torch.device("cuda")
    assert wanted(SimpleNamespace(device=cuda))
    assert not wanted(SimpleNamespace(device=cuda, hf_quantizer=object()))
    assert Predictor(device=torch.device("cpu"), quantization="nf4").model.hf_quantizer


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_captured_graphs_write_what_plain_reading_writes(reading):
    """Also from a thread other than the one they were captured in, as `Chorus` does."""
    said: list[str] = []
    device = torch.device("cuda", 0)
    quick = Predictor(device=device, dtype=torch.float32, say=said.append)
    assert quick._chorus.graphs and not any("graphs" in s for s in said)
    slow = Predictor(device=device, dtype=torch.float32, lent=True)
    talk: list[dict] = []
    for question in ("Why?", "What is AU12?", "Which action units are active?"):
        talk.append(user(question))
        text, expected = ("".join(p.stream(reading, talk)) for p in (quick, slow))
        assert text == expected
        talk.append({"role": "assistant", "content": text.strip()})
    for dtype in (torch.float16, torch.bfloat16):
        Predictor(device=device, dtype=dtype, say=said.append)
    assert not any("graphs" in s for s in said)

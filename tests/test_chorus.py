"""Answers written together are those written alone, whoever joins, leaves or fails meanwhile."""

import threading
import time

import pytest
import torch
from conftest import tiny_model

from feallm.chorus import Chorus, Together
from feallm.generation import Reader, stream

PROMPTS = ([1, 5, 6, 7], [1, 9], [1, 8, 8, 8, 8, 8, 8, 11], [1, 4, 4])


@pytest.fixture(scope="module")
def model():
    return tiny_model()


def reader_of(model, prompt: list[int]) -> Reader:
    reader = Reader(model, torch.zeros(1, 0, 1))
    with torch.inference_mode():
        reader.read(prompt)
    return reader


@torch.inference_mode()
def alone(model, prompt: list[int], length: int) -> list[int]:
    return list(stream(reader_of(model, prompt), -1, length))


def test_what_is_read_together_is_what_is_read_alone(model):
    readers, others = ([reader_of(model, p) for p in PROMPTS] for _ in range(2))
    with torch.inference_mode():
        together = Together(model, readers)
        for tokens in ([5, 6, 7, 8], [9, 9, 4, 4]):
            together.read(tokens)
            for reader, other, token in zip(readers, others, tokens, strict=True):
                other.read([token])
                torch.testing.assert_close(reader.logits, other.logits, atol=1e-5, rtol=1e-4)
                assert reader.ids == other.ids
        together.part()
        for reader, other in zip(readers, others, strict=True):
            for ours, theirs in zip(reader.cache.layers, other.cache.layers, strict=True):
                assert ours.keys.shape == theirs.keys.shape
            reader.read([5, 5])
            other.read([5, 5])
            torch.testing.assert_close(reader.logits, other.logits, atol=1e-5, rtol=1e-4)


def test_visitors_at_once_get_what_each_would_alone(model):
    chorus, written = Chorus(model), {}

    def ask(number: int) -> None:
        reader = reader_of(model, PROMPTS[number % 4])
        time.sleep(0.01 * number)
        written[number] = list(chorus.stream(reader, -1, 20 + number)), reader.ids

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for number in range(8):
        prompt = PROMPTS[number % 4]
        tokens, ids = written[number]
        assert tokens == alone(model, prompt, 20 + number)
        assert ids == prompt + tokens


def test_they_are_written_in_one_pass(model):
    chorus, sizes = Chorus(model), set()
    hook = model.model.language_model.register_forward_pre_hook(
        lambda _, __, given: sizes.add(len(given["inputs_embeds"])), with_kwargs=True
    )
    readers = [reader_of(model, p) for p in PROMPTS]
    streams = [chorus.stream(reader, -1, 2000) for reader in readers]
    threads = [threading.Thread(target=next, args=(s,)) for s in streams]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    deadline = time.monotonic() + 30
    while 4 not in sizes and time.monotonic() < deadline:
        time.sleep(0.01)
    for s in streams:
        s.close()
    hook.remove()
    assert 4 in sizes


def test_who_stops_leaves_the_others_alone_and_keeps_a_whole_reader(model):
    chorus = Chorus(model)
    first, second = (reader_of(model, p) for p in PROMPTS[:2])
    going, stopped = chorus.stream(first, -1, 60), chorus.stream(second, -1, 10_000)
    begun = [next(going), next(stopped), next(stopped)]
    stopped.close()
    assert second.cache.get_seq_length() == len(second.ids)
    assert second.ids[: 2 + 2] == [1, 9, *begun[1:]]
    assert [begun[0], *going] == alone(model, PROMPTS[0], 60)
    count = len(second.ids)
    time.sleep(0.05)
    assert len(second.ids) == count  # nobody reads with it any more


def test_the_end_of_an_answer_is_its_end_token(model):
    tokens = alone(model, PROMPTS[2], 12)
    end = tokens[5]
    expected = tokens[: tokens.index(end)]
    assert list(Chorus(model).stream(reader_of(model, PROMPTS[2]), end, 12)) == expected


def test_a_failure_reaches_all_and_the_next_answer_is_written(model, monkeypatch):
    chorus = Chorus(model)
    streams = [chorus.stream(reader_of(model, p), -1, 10_000) for p in PROMPTS[:2]]
    for s in streams:
        next(s)
    head = model.lm_head.forward
    monkeypatch.setattr(model.lm_head, "forward", lambda _: 1 / 0)
    for s in streams:
        with pytest.raises(ZeroDivisionError):
            list(s)
    monkeypatch.setattr(model.lm_head, "forward", head)
    assert list(chorus.stream(reader_of(model, PROMPTS[0]), -1, 9)) == alone(model, PROMPTS[0], 9)


def test_with_a_seed_an_answer_is_repeated_in_company_too(model):
    chorus = Chorus(model)

    def drawn() -> list[int]:
        generator = torch.Generator().manual_seed(3)
        return list(chorus.stream(reader_of(model, PROMPTS[3]), -1, 15, 1.0, generator))

    first = drawn()
    company = chorus.stream(reader_of(model, PROMPTS[0]), -1, 10_000)
    next(company)
    assert drawn() == first
    company.close()

"""Answers written together are those written alone, whoever joins, leaves or fails meanwhile."""

import gc
import threading
import weakref

import pytest
import torch
from browsing import wait_until
from conftest import alone, reader_of, tiny_model

from feallm.chorus import Chorus, Together

PROMPTS = ([1, 5, 6, 7], [1, 9], [1, 8, 8, 8, 8, 8, 8, 11], [1, 4, 4])


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@pytest.fixture
def sizes(model):
    """How many answers each pass of the language model has read for."""
    seen: set[int] = set()
    hook = model.model.language_model.register_forward_pre_hook(
        lambda _, __, given: seen.add(len(given["inputs_embeds"])), with_kwargs=True
    )
    yield seen
    hook.remove()


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
    started = [threading.Event() for _ in range(9)]
    started[0].set()

    def ask(number: int) -> None:
        reader = reader_of(model, PROMPTS[number % 4])
        started[number].wait(30)
        tokens = chorus.stream(reader, -1, 60 + number)
        begun = next(tokens)
        started[number + 1].set()  # the next one joins while this one is written
        written[number] = [begun, *tokens], reader.ids

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for number in range(8):
        prompt = PROMPTS[number % 4]
        tokens, ids = written[number]
        assert tokens == alone(model, prompt, 60 + number)
        assert ids == prompt + tokens


def test_they_are_written_in_one_pass(model, sizes):
    chorus = Chorus(model)
    readers = [reader_of(model, p) for p in PROMPTS]
    streams = [chorus.stream(reader, -1, 2000) for reader in readers]
    threads = [threading.Thread(target=next, args=(s,)) for s in streams]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert wait_until(lambda: 4 in sizes, 30)
    for s in streams:
        s.close()


def test_who_stops_leaves_the_others_alone_and_a_whole_reader(model, sizes):
    chorus, left = Chorus(model), threading.Event()
    first, second = (reader_of(model, p) for p in PROMPTS[:2])
    stopped = chorus.stream(second, -1, 10_000, leaving=left.set)
    begun = [next(stopped), next(stopped)]
    going = chorus.stream(first, -1, 300)
    start = next(going)
    assert wait_until(lambda: 2 in sizes, 30)
    stopped.close()
    assert left.wait(30)
    assert second.cache.get_seq_length() == len(second.ids)
    assert second.ids[: 2 + 2] == [1, 9, *begun]
    assert [start, *going] == alone(model, PROMPTS[0], 300)
    other = reader_of(model, second.ids)
    with torch.inference_mode():
        second.read([5])
        other.read([5])
    torch.testing.assert_close(second.logits, other.logits, atol=1e-4, rtol=1e-3)


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


def test_after_a_failure_nobody_gets_a_broken_reader(model, monkeypatch):
    """Even where a visitor stops in the very step that fails."""
    chorus, handed = Chorus(model), []
    readers = [reader_of(model, p) for p in PROMPTS[:2]]
    streams = [chorus.stream(r, -1, 10_000, leaving=lambda r=r: handed.append(r)) for r in readers]
    failing, stopped = threading.Event(), threading.Event()

    def part(_):
        failing.set()
        stopped.wait(30)
        raise torch.OutOfMemoryError

    monkeypatch.setattr(Together, "part", part)
    for s in streams:
        next(s)
    assert wait_until(lambda: readers[0].cache is None, 30)  # they read together
    streams[0].close()
    assert failing.wait(30)
    stopped.set()
    with pytest.raises(torch.OutOfMemoryError):
        list(streams[1])
    assert handed == []


def test_a_failed_answer_is_not_held_in_memory(model, monkeypatch):
    chorus, reader = Chorus(model), reader_of(model, PROMPTS[0])
    gone = weakref.ref(reader)
    monkeypatch.setattr(reader, "read", lambda _: 1 / 0)
    tokens = chorus.stream(reader, -1, 9)
    gc.disable()
    try:
        with pytest.raises(ZeroDivisionError):
            list(tokens)
        del reader, tokens
        monkeypatch.undo()
        assert wait_until(lambda: gone() is None, 5)
    finally:
        gc.enable()


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

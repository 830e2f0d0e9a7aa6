"""A follow-up question reads its own words only, and is answered as if all had been read anew."""

import gc
import pickle
from dataclasses import replace

import pytest
import torch
from conftest import made_reading

from feallm.faces import align_face, detect_faces
from feallm.talks import Talks

QUESTIONS = ("Why?", "What is AU12?", "How sure are you?", "Which action units are active?")


@pytest.fixture(scope="module")
def readings(exact, portrait):
    face = align_face(portrait, detect_faces(portrait)[0], exact.face_size)
    upside_down = face.point(lambda v: 255 - v).rotate(180)
    one, other = (exact.analyse(f, texts=False) for f in (face, upside_down))
    # what is talked about differs, whatever the weights make of such a picture
    return [one, replace(other, expression="Surprise", aus=(1, 2, 25, 26))]


@pytest.fixture
def lengths(exact):
    """How many ids each pass through the language model has read."""
    seen: list[int] = []
    hook = exact.model.model.language_model.register_forward_pre_hook(
        lambda _, __, given: seen.append(given["inputs_embeds"].shape[1]), with_kwargs=True
    )
    yield seen
    hook.remove()


def user(text: str) -> dict:
    return {"role": "user", "content": text}


def answered(predictor, reading, talk: list[dict], pieces: int | None = None) -> str:
    """Return the answer, of at most so many pieces, after comparing it with one read anew."""
    copy = replace(reading)  # of a copy nothing is kept
    texts = []
    for about in (reading, copy):
        stream, text = predictor.stream(about, talk), ""
        for count, piece in enumerate(stream, 1):
            text += piece
            if count == pieces:
                stream.close()
        texts.append(text)
    assert texts[0] == texts[1]
    return texts[0].strip()


def test_turns_stops_undo_and_retry_answer_as_if_read_anew(exact, readings):
    talks: list[list[dict]] = [[], []]
    for turn, question in enumerate(QUESTIONS):
        for reading, talk in zip(readings, talks, strict=True):  # two faces in turn
            talk.append(user(question))
            stopped = 3 if turn == 1 else None
            text = answered(exact, reading, talk, stopped)
            talk.append({"role": "assistant", "content": text})
    assert talks[0] != talks[1]
    reading, talk = readings[0], talks[0]
    del talk[-2:]  # undo
    answered(exact, reading, [*talk, user("What is AU4?")])
    answered(exact, reading, [*talk, user("What is AU4?")])  # the very same again
    answered(exact, reading, talk[:-1])  # the last answered question again
    answered(exact, reading, [user("Hello?")])  # the talk was cleared


def test_a_long_talk_that_loses_its_beginning_stays_right(exact, readings):
    talk = []
    for k in range(8):
        talk.append(user(f"{k} " + "Why is that? " * 60))
        talk.append({"role": "assistant", "content": answered(exact, readings[0], talk, 2)})
    assert len(exact.fitting(readings[0], [*talk, user("Now?")])) < len(talk) - 1


def test_only_new_words_are_read(exact, readings, lengths):
    reading = replace(readings[0])
    talk = [user("What is AU12?")]
    text = "".join(exact.stream(reading, talk)).strip()
    whole, *words = lengths
    assert whole > exact.processor.num_image_tokens and set(words) == {1}
    lengths.clear()
    talk += [{"role": "assistant", "content": text}, user("Is the smile genuine?")]
    "".join(exact.stream(reading, talk))
    asked = exact._words("USER: Is the smile genuine? ASSISTANT:")
    assert lengths[0] == 1 + len(asked)  # the answer's </s>, and the question


def test_an_analysis_reads_its_faces_once_and_once_more_for_the_texts(exact, readings, lengths):
    exact.analyse(readings[0].face)
    assert sum(length > exact.processor.num_image_tokens for length in lengths) == 2


def test_a_failure_in_the_middle_is_forgotten(exact, readings, monkeypatch):
    reading, talk = replace(readings[0]), [user("What is AU12?")]
    first = "".join(exact.stream(reading, talk))
    head = exact.model.lm_head.forward
    calls = []

    def fail_later(states):
        calls.append(1)
        if len(calls) == 4:
            raise RuntimeError("out of memory")
        return head(states)

    monkeypatch.setattr(exact.model.lm_head, "forward", fail_later)
    with pytest.raises(RuntimeError):
        "".join(exact.stream(reading, talk))
    monkeypatch.undo()
    assert reading not in exact._talks._readers
    assert "".join(exact.stream(reading, talk)) == first


def test_two_at_once_do_not_share_a_cache(exact, readings):
    reading = replace(readings[0])
    talks = [[user("What is AU12?")], [user("How sure are you?")]]
    alone = ["".join(exact.stream(replace(reading), t)) for t in talks]
    streams = [exact.stream(reading, t) for t in talks]
    texts = ["", ""]
    for _ in range(400):
        for i, stream in enumerate(streams):
            texts[i] += next(stream, "")
    assert texts == alone


def test_a_lent_gpus_worker_keeps_nothing(exact, readings):
    copy = pickle.loads(pickle.dumps(readings[0]))
    before = len(exact._talks._readers)
    "".join(exact.stream(copy, [user("What is AU12?")]))
    del copy
    gc.collect()
    assert len(exact._talks._readers) == before


def test_the_oldest_talks_are_forgotten_when_all_take_too_much(exact, readings):
    ids = exact.processor.conversation([user("Why?")])[0]
    size = 0
    talks = Talks(exact.model)
    abouts = [replace(made_reading(), image_embeds=readings[0].image_embeds) for _ in range(3)]
    for about in abouts:
        reader = talks.take(about)
        with torch.inference_mode():
            reader.turn_to(ids)
        talks.keep(about, reader)
        size = reader.nbytes
        talks.kept_bytes = 2 * size
    assert size > 0 and list(talks._readers) == abouts[1:]
    talks.kept_bytes = 0
    talks.keep(abouts[1], talks.take(abouts[1]))
    assert list(talks._readers) == [abouts[1]]  # the newest stays

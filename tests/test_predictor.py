"""feallm-mini as shipped: its probabilities are exact, its texts agree with them, it talks."""

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch
from PIL import ImageOps

from feallm import Predictor, prompts
from feallm.conversation import encode
from feallm.faces import align_face, detect_faces
from feallm.facs import AUS, EXPRESSIONS, parse_analysis
from feallm.generation import embed
from feallm.loading import ModelError


@pytest.fixture(scope="module")
def reading(exact, portrait):
    return exact.analyse(align_face(portrait, detect_faces(portrait)[0], exact.face_size))


@pytest.fixture(scope="module")
def sides(exact, reading):
    """The face and its mirror image, over which every probability is averaged."""
    with torch.inference_mode():
        _, mirrored = exact._encode([ImageOps.mirror(reading.face)])
    return reading, replace(reading, image_embeds=mirrored)


@torch.inference_mode()
def log_chance(predictor, reading, question: str, answer: str, before=()) -> float:
    """Log-probability of an answer's ids after a question, without any cache."""
    tokenizer = predictor.tokenizer
    asked = [*before, {"role": "user", "content": question}]
    ids, _ = encode(asked, tokenizer, predictor.processor.num_image_tokens)
    words = tokenizer(answer, add_special_tokens=False)["input_ids"]
    embeds = embed(predictor.model, torch.tensor([ids + words]), reading.image_embeds)
    logits = predictor.model(inputs_embeds=embeds).logits[0].log_softmax(-1)
    return float(sum(logits[len(ids) - 1 + i, w] for i, w in enumerate(words)))


def test_the_portrait_shows_nothing_it_has_not(reading):
    """A face at rest whose mouth hangs a little with age: sad would be wrong, afraid absurd."""
    assert reading.expression in ("Happiness", "Neutral", "Sadness")
    assert 0 < reading.action_unit_probabilities[12] < 1


def test_expression_probabilities_are_the_language_models(exact, reading, sides):
    question = prompts.EXPRESSION_QUESTION
    units = [
        {"role": "user", "content": prompts.ACTION_UNITS_QUESTION},
        {"role": "assistant", "content": prompts.list_action_units(reading.aus)},
    ]
    expected = torch.zeros(7)
    for side in sides:
        # each label is one token of the mini's tokenizer
        alone, after = (
            torch.tensor([log_chance(exact, side, question, e, before) for e in EXPRESSIONS])
            for before in ([], units)
        )
        expected += ((alone + after) / 2).softmax(-1) / 2
    config = exact.model.config
    expected = expected**config.expression_sharpness * torch.tensor(config.expression_bias).exp()
    expected /= expected.sum()
    for expression, share in zip(EXPRESSIONS, expected.tolist(), strict=True):
        assert reading.expression_probabilities[expression] == pytest.approx(share, abs=1e-4)
    assert sum(reading.expression_probabilities.values()) == pytest.approx(1)


def test_a_bias_weighs_the_expressions(exact, reading, monkeypatch):
    config = exact.model.config
    added = torch.tensor([0.5, 0, 0, 0, -1.0, 0, 0]).double()
    bias = (torch.tensor(config.expression_bias).double() + added).tolist()
    monkeypatch.setattr(config, "expression_bias", bias)
    weighed = exact.analyse(reading.face, texts=False).expression_probabilities
    before = torch.tensor(list(reading.expression_probabilities.values())).double()
    expected = (before.log() + added).softmax(-1).tolist()
    assert list(weighed.values()) == pytest.approx(expected, abs=1e-4)


def test_unit_probabilities_factorise_the_list(exact, reading, sides):
    """The product of the decisions is the chance of the list among all ascending lists."""
    question = prompts.ACTION_UNITS_QUESTION
    active: tuple[int, ...] = ()
    for k in AUS:
        # mass on "k next" against the mass on every later continuation, each scored by itself
        later = prompts.later_action_units(active[-1] if active else None)
        texts = {j: prompts.list_action_units((*active, j))[:-1] for j in later if j >= k}
        texts["end"] = prompts.list_action_units(active)
        # up to the unit's number the mini's tokens are shared; what follows is certain by then
        shown = {j: t[: t.rindex(" (")] if j != "end" else t for j, t in texts.items()}
        expected = 0.0
        for side in sides:
            chances = {
                j: torch.tensor(log_chance(exact, side, question, t)).exp()
                for j, t in shown.items()
            }
            expected += float(chances[k] / sum(chances.values())) / 2
        assert reading.action_unit_probabilities[k] == pytest.approx(expected, abs=2e-3)
        if k in reading.aus:
            active = (*active, k)
    assert active == reading.aus


def test_texts_agree_with_the_decisions(reading):
    assert parse_analysis(reading.summary).expression == reading.expression
    assert parse_analysis(reading.movements).aus == reading.aus
    for k in reading.aus:
        assert f"AU{k} (" in reading.movements
    assert set(parse_analysis(reading.reasoning).aus) <= set(reading.aus)
    for text in (reading.summary, reading.movements, reading.reasoning):
        assert text.strip() == text and text.endswith(".")


def test_attention_rows_sum_to_one(reading):
    assert reading.attention.shape == (16, 16)
    assert reading.attention.sum(-1) == pytest.approx([1] * 16, abs=1e-4)
    assert set(reading.looks) == {"shallow", "local", "self"}


def test_talk_streams_and_is_repeatable(exact, reading):
    question = [{"role": "user", "content": "Is the smile genuine?"}]
    pieces = list(exact.stream(reading, question))
    assert len(pieces) > 3
    assert "".join(pieces) == "".join(exact.stream(reading, question))
    again = [*question, {"role": "assistant", "content": "".join(pieces)}]
    more = "".join(exact.stream(reading, [*again, {"role": "user", "content": "What is AU4?"}]))
    assert "brow" in more


def test_a_chance_seed_repeats(exact, reading):
    question = [{"role": "user", "content": "Please describe the expression in this face."}]
    one, two = ("".join(exact.stream(reading, question, 1.0, seed=7)) for _ in range(2))
    assert one == two


def test_long_talks_drop_their_oldest_turns(exact, reading):
    old = [
        {"role": "user", "content": "Why? " * 100},
        {"role": "assistant", "content": "Because. " * 100},
    ] * 8
    text = "".join(exact.stream(reading, [*old, {"role": "user", "content": "What is AU12?"}]))
    assert text


def test_a_question_alone_too_long_raises(exact, reading):
    with pytest.raises(ValueError, match="too long"):
        list(exact.stream(reading, [{"role": "user", "content": "x" * 4000}]))


def test_no_question_raises(exact, reading):
    with pytest.raises(ValueError, match="question"):
        list(exact.stream(reading, []))


def test_models_that_cannot_be_loaded_are_sentences(tmp_path, predictor):
    with pytest.raises(ModelError, match="cannot be loaded"):
        Predictor(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(ModelError):
        Predictor(tmp_path)
    # weights with a hole in them
    state = {k: v.clone() for k, v in predictor.model.state_dict().items() if "lca" not in k}
    predictor.processor.save_pretrained(tmp_path)
    predictor.model.save_pretrained(tmp_path, state_dict=state)
    with pytest.raises(ModelError, match="incomplete.*lca"):
        Predictor(tmp_path)


def test_one_analysis_at_a_time(predictor, reading):
    """An event that was cancelled leaves its thread at work."""
    order, encode = [], predictor._encode

    def slowly(faces):
        order.append("begin")
        time.sleep(0.2)
        result = encode(faces)
        order.append("end")
        return result

    predictor._encode = slowly
    try:
        with ThreadPoolExecutor(2) as pool:
            jobs = [
                pool.submit(predictor.analyse, reading.face, texts=False),
                pool.submit(predictor.chances, [reading.face], reading.aus),
            ]
            for job in jobs:
                job.result()
    finally:
        del predictor._encode
    assert order == ["begin", "end"] * 2

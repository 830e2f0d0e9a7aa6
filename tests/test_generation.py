"""Our cached writing against the plain way, token by token."""

import pytest
import torch
from conftest import tiny_inputs, tiny_model

from feallm.generation import Reader, complete, embed, stream


def setup_model():
    model = tiny_model()
    for parameter in model.parameters():  # lively enough that greedy text varies
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.2)
    inputs = tiny_inputs(model.config)
    with torch.inference_mode():
        tokens = model.get_image_features(inputs["pixel_values"], inputs["pixel_values_local"])
        return model, inputs, torch.stack(tokens.pooler_output)


def read(model, ids: list[int], embeds: torch.Tensor) -> Reader:
    reader = Reader(model, embeds)
    reader.turn_to(ids)
    return reader


def uncached(model, inputs, steps: int) -> list[int]:
    ids, written = inputs["input_ids"], []
    for _ in range(steps):
        logits = model(**(inputs | {"input_ids": ids})).logits[0, -1]
        token = int(logits.argmax())
        if token == 2:
            break
        written.append(token)
        ids = torch.cat([ids, torch.tensor([[token]])], dim=1)
    return written


@torch.inference_mode()
def test_streaming_equals_uncached():
    model, inputs, embeds = setup_model()
    reader = read(model, inputs["input_ids"][0].tolist(), embeds)
    assert list(stream(reader, 2, 12)) == uncached(model, inputs, 12)


@torch.inference_mode()
def test_a_batch_of_different_lengths_equals_one_by_one():
    model, inputs, embeds = setup_model()
    first = inputs["input_ids"][0].tolist()
    prompts = [first, [*first, 20, 21, 22], [*first, 30]]
    options = {"pad_token_id": 4, "eos_token_id": 2, "max_new_tokens": 10}
    together = complete(model, prompts, embeds, **options)
    alone = [complete(model, [p], embeds, **options)[0] for p in prompts]
    assert together == alone
    assert together[0] == uncached(model, inputs, 10)


@torch.inference_mode()
def test_masses_are_products_of_the_models_probabilities():
    model, inputs, embeds = setup_model()
    ids = inputs["input_ids"][0].tolist()
    reader = read(model, ids, embeds)
    before = reader.logits.clone()
    options = [[5], [7, 8, 9], [7, 8, 10], [7, 11]]
    masses = reader.masses(options)[0].tolist()

    def chance(prefix: list[int], token: int) -> float:
        logits = model(**(inputs | {"input_ids": torch.tensor([ids + prefix])})).logits[0, -1]
        return float(logits.softmax(-1)[token])

    seven = chance([], 7)
    assert masses[0] == pytest.approx(chance([], 5), rel=1e-4)
    assert masses[1] == pytest.approx(seven * chance([7], 8) * chance([7, 8], 9), rel=1e-4)
    assert masses[2] == pytest.approx(seven * chance([7], 8) * chance([7, 8], 10), rel=1e-4)
    assert masses[3] == pytest.approx(seven * chance([7], 11), rel=1e-4)
    # and the reader is where it was
    assert reader.ids == ids
    torch.testing.assert_close(reader.logits, before)
    assert list(stream(reader, 2, 6)) == uncached(model, inputs, 6)


@torch.inference_mode()
def test_stopping_writes_no_more():
    model, inputs, embeds = setup_model()
    reader = read(model, inputs["input_ids"][0].tolist(), embeds)
    tokens = stream(reader, eos_token_id=-1, max_new_tokens=50)
    next(tokens)
    length = len(reader.ids)
    tokens.close()
    assert len(reader.ids) == length


def test_placeholders_that_do_not_match_raise():
    model, inputs, embeds = setup_model()
    with pytest.raises(ValueError, match="placeholders"):
        embed(model, inputs["input_ids"][:, 1:4], embeds)

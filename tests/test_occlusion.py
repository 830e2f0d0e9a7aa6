"""Covering a crop: the picture, and the probabilities against readings of their own."""

import numpy as np
import pytest
import torch
from PIL import Image

from feallm import Predictor
from feallm.faces import align_face, detect_faces
from feallm.facs import AUS, EXPRESSIONS
from feallm.occlusion import cover, occlude


def test_covering_paints_the_box_and_nothing_else():
    face = Image.effect_noise((96, 96), 60).convert("RGB")
    covered = np.asarray(cover(face, (0.0, 0.5, 1.0, 1.0)))
    before = np.asarray(face)
    assert (covered[:48] == before[:48]).all()
    assert len(np.unique(covered[48:].reshape(-1, 3), axis=0)) == 1
    assert abs(covered[60, 60, 0] - before[..., 0].mean()) <= 1


def test_every_row_is_a_reading_of_the_covered_face(portrait):
    predictor = Predictor(device=torch.device("cpu"), dtype=torch.float32)
    reading = predictor.analyse(
        align_face(portrait, detect_faces(portrait)[0], predictor.face_size), texts=False
    )
    seen = occlude(predictor, reading)
    assert seen.expressions.shape == (16, 7) and seen.units.shape == (16, 12)
    whole = [reading.expression_probabilities[e] for e in EXPRESSIONS]
    np.testing.assert_allclose(seen.whole_expressions, whole, atol=1e-4)
    np.testing.assert_allclose(
        seen.whole_units, [reading.action_unit_probabilities[k] for k in AUS], atol=1e-4
    )
    for i in (1, 14):
        alone, units = predictor.chances([cover(reading.face, predictor.crops[i].box)], reading.aus)
        np.testing.assert_allclose(seen.expressions[i], alone[0], atol=1e-4)
        np.testing.assert_allclose(seen.units[i], units[0], atol=1e-4)
        assert np.abs(seen.expressions[i] - seen.whole_expressions).max() > 1e-3
    happy = EXPRESSIONS.index("Happiness")
    np.testing.assert_allclose(
        seen.loss("Happiness"), seen.whole_expressions[happy] - seen.expressions[:, happy]
    )
    np.testing.assert_allclose(seen.unit_loss(12), seen.whole_units[6] - seen.units[:, 6])
    # where the memory holds five rows, two faces with their mirror images are read at once
    batches = []
    encode = predictor._encode
    predictor._encode = lambda faces: batches.append(len(faces)) or encode(faces)
    predictor._rows = 5
    sliced = occlude(predictor, reading)
    assert batches == [4] * 8 + [2]
    np.testing.assert_allclose(sliced.expressions, seen.expressions, atol=1e-4)
    np.testing.assert_allclose(sliced.units, seen.units, atol=1e-4)


def test_a_model_without_crops_says_so():
    class Bare:
        crops = []

    with pytest.raises(ValueError, match="nothing to cover"):
        occlude(Bare(), None)

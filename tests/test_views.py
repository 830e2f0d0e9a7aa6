"""What the page's templates are given."""

import base64
import io
import json
from dataclasses import replace

import numpy as np
import pytest
from conftest import made_reading
from PIL import Image

from feallm import views
from feallm.comparison import Comparison
from feallm.faces import align_face, detect_faces
from feallm.facs import AUS, EXPRESSIONS
from feallm.occlusion import Occlusion, occlude


@pytest.fixture(scope="module")
def read(predictor, portrait):
    faces = detect_faces(portrait)
    return faces, predictor.analyse(align_face(portrait, faces[0], predictor.face_size))


def test_all_views_are_json(predictor, portrait, read):
    faces, reading = read
    shown = [
        views.stage(portrait, faces, 0),
        views.clues(reading, predictor.crops),
        views.verdict(reading, ""),
        views.action_units(reading, predictor.thresholds),
        views.matrix(reading, predictor.crops),
        views.clues(reading, predictor.crops, occlude(predictor, reading)),
        views.looks(reading),
        views.comparison(Comparison(reading, reading)),
    ]
    assert json.loads(json.dumps(shown)) == shown


def test_the_ring_holds_every_crop_in_its_place(predictor, read):
    ring = views.clues(read[1], predictor.crops)
    assert [len(r["cells"]) for r in ring["rings"]] == [9, 9]
    top = ring["rings"][0]["cells"][1]
    assert top["name"] == "top ½" and (top["left"], top["top"], top["width"], top["height"]) == (
        0,
        0,
        100,
        50,
    )
    cells = [c for r in ring["rings"] for c in r["cells"] if "percent" in c]
    assert sum(c["percent"] for c in cells) == pytest.approx(100, abs=1)
    assert max(c["strength"] for c in cells) == 1


def test_what_a_crop_pays_to_itself_does_not_count():
    attention = np.array([[0.7, 0.2, 0.1], [0.3, 0.6, 0.1], [0.1, 0.0, 0.9]])
    np.testing.assert_allclose(views.received(attention), np.array([0.4, 0.2, 0.2]) / 0.8)
    assert views.received(np.eye(3)).tolist() == [0, 0, 0]


def test_the_effect_of_covering_is_signed_and_in_words():
    reading = made_reading(share=0.7)
    whole = np.array(list(reading.expression_probabilities.values()))
    units = np.array(list(reading.action_unit_probabilities.values()))
    after = whole.copy()
    after[[EXPRESSIONS.index("Happiness"), EXPRESSIONS.index("Neutral")]] = 0.2, 0.55
    less = units.copy()
    less[AUS.index(12)] = 0.25
    covered = Occlusion(np.stack([after, whole]), np.stack([less, units]), whole, units)
    shown = views.effect(reading, covered, 0)
    assert shown["effect"] == "−50" and shown["harm"] == 0.5
    assert shown["detail"] == "Happiness 70 → 20 %, AU12 90 → 25 %, Neutral 5 → 55 %"
    unchanged = views.effect(reading, covered, 1)
    assert (unchanged["effect"], unchanged["detail"]) == ("0", "Happiness 70 → 70 %")


def test_sampling_points_are_drawn_where_they_lie():
    reading = made_reading(face=Image.new("RGB", (96, 96), "white"))
    points = np.full((4, 2, 1, 1, 2), 0.25)
    weights = np.ones((4, 2, 1, 1))
    shown = views.looks(replace(reading, looks={"self": (points, weights)}))
    assert [p["label"] for p in shown["pictures"]] == ["fused features"]
    data = base64.b64decode(shown["pictures"][0]["picture"].split(",")[1])
    picture = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)
    orange = (picture[..., 0] - picture[..., 2]) > 60
    assert orange[64, 64] and orange.sum() < 60
    assert views.looks(replace(reading, looks={})) is None


def test_a_comparison_shows_both_and_the_change():
    first, second = made_reading("Neutral", (), 0.4), made_reading("Happiness", (6, 12), 0.7)
    shown = views.comparison(Comparison(first, second))
    top = shown["expressions"][0]
    assert (top["name"], top["first"], top["second"], top["change"]) == ("Happiness", 10, 70, "+60")
    assert [u["change"] for u in shown["units"] if u["large"]] == ["+80", "+80"]


def test_units_are_all_there_once(predictor, read):
    shown = views.action_units(read[1], predictor.thresholds)
    listed = [r["au"] for r in shown["active"] + shown["inactive"]]
    assert sorted(listed) == [1, 2, 4, 6, 7, 10, 12, 15, 23, 24, 25, 26]
    assert [r["au"] for r in shown["active"]] == sorted(
        read[1].aus, key=lambda k: -read[1].action_unit_probabilities[k]
    )


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("AU12 is active", "`AU12` is active"),
        ("<img src=x onerror=alert(1)>", "&lt;img src=x onerror=alert(1)&gt;"),
        ("![x](http://evil/x.png)", "!\u2060[x]\u2060(http:\u2060//evil/x.png)"),
        ("plain", "plain"),
    ],
)
def test_chat_text_shows_words_only(text, shown):
    assert views.chat_text(text) == shown


def test_a_picture_becomes_a_small_data_uri():
    uri = views.data_uri(Image.new("RGB", (2000, 1000)), 100)
    assert uri.startswith("data:image/webp;base64,") and len(uri) < 2000

"""What the page's templates are given."""

import json

import pytest
from PIL import Image

from feallm import views
from feallm.faces import align_face, detect_faces


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

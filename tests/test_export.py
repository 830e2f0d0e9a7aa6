"""A session kept: three readable files and the pictures, all of the same facts."""

import csv
import io
import json
import zipfile

from conftest import made_reading
from PIL import Image

from feallm.export import Entry, archive
from feallm.facs import AUS

TALK = [
    {"role": "user", "content": "Is it real?"},
    {"role": "assistant", "content": "Two lines:\nyes."},
]


def test_the_archive_holds_what_was_seen_and_said():
    entries = [Entry(1, made_reading(), TALK), Entry(3, made_reading("Neutral", ()))]
    thresholds = dict.fromkeys(AUS, 0.25)
    data = archive(Image.new("RGB", (200, 100)), entries, "feallm-mini", thresholds)
    with zipfile.ZipFile(io.BytesIO(data)) as kept:
        files = {name: kept.read(name) for name in kept.namelist()}
    assert sorted(files) == [
        *("action_units.csv", "face-1.png", "face-3.png"),
        *("photo.jpg", "session.json", "session.md"),
    ]
    session = json.loads(files["session.json"])
    assert session["model"] == "feallm-mini"
    assert [f["face"] for f in session["faces"]] == [1, 3]
    assert session["faces"][0]["talk"] == TALK and session["faces"][0]["action_units"] == [6, 12]
    rows = list(csv.DictReader(io.StringIO(files["action_units.csv"].decode())))
    assert len(rows) == 24 and all(float(r["threshold"]) == 0.25 for r in rows)
    assert [r["action_unit"] for r in rows if r["active"] == "1"] == ["AU6", "AU12"]
    text = files["session.md"].decode()
    assert "## Face 1: Happiness (70 %)" in text and "> Two lines:\n> yes." in text
    for picture in ("photo.jpg", "face-1.png", "face-3.png"):
        assert f"({picture})" in text
        Image.open(io.BytesIO(files[picture])).verify()

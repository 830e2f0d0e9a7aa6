"""python -m feallm: one object per face, an error for what cannot be used, and the run goes on."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from feallm import Predictor
from feallm.__main__ import main
from feallm.facs import EXPRESSIONS

KEYS = {
    "photo", "face", "box", "detection", "expression", "expression_probabilities", "action_units",
    "action_unit_probabilities", "summary", "movements", "reasoning", "model",
}  # fmt: skip


@pytest.fixture
def folder(tmp_path, portrait):
    portrait.save(tmp_path / "hopper.png")
    (tmp_path / "notes.jpg").write_text("not a picture")
    (tmp_path / "readme.txt").write_text("ignored")
    return tmp_path


def run(capsys, *arguments) -> tuple[int, list[dict], str]:
    status = main([str(a) for a in arguments])
    out, err = capsys.readouterr()
    return status, [json.loads(line) for line in out.splitlines()], err


def test_a_folder_gives_a_line_for_each_face_and_each_problem(capsys, folder):
    status, lines, err = run(capsys, folder, "--csv", folder / "faces.csv")
    assert status == 0
    face, problem = sorted(lines, key=lambda x: "error" in x)
    assert set(face) == KEYS
    assert face["face"] == 0 and len(face["box"]) == 4 and face["detection"] > 0.9
    assert list(face["expression_probabilities"]) == list(EXPRESSIONS)
    assert face["expression"] == max(
        face["expression_probabilities"], key=face["expression_probabilities"].get
    )
    assert face["action_units"] == sorted(face["action_units"])
    assert list(face["action_unit_probabilities"])[:3] == ["AU1", "AU2", "AU4"]
    assert face["model"] == "feallm-mini"
    assert set(problem) == {"photo", "error"} and "not a picture" in problem["error"]
    assert "[2/2]" in err
    rows = list(csv.DictReader((folder / "faces.csv").open(encoding="utf-8")))
    assert len(rows) == 2
    assert {r["expression"] for r in rows} == {face["expression"], ""}


def test_a_face_crop_needs_no_detection_and_a_question_is_answered(capsys, folder, portrait):
    crop = folder / "crop.png"
    portrait.crop((150, 60, 380, 330)).save(crop)
    status, (face,), _ = run(capsys, crop, "--face-crop", "--ask", "What is AU12?")
    assert status == 0
    assert face["detection"] is None and face["box"] == [0, 0, 230, 270]
    assert face["question"] == "What is AU12?" and len(face["answer"]) > 10


def test_boxes_are_in_the_files_pixels(capsys, monkeypatch, folder, portrait):
    _, (whole,), _ = run(capsys, folder / "hopper.png")
    monkeypatch.setattr("feallm.photos.MAX_SIDE", 400)
    _, (reduced,), _ = run(capsys, folder / "hopper.png")
    assert reduced["box"] == pytest.approx(whole["box"], abs=12)  # in a photo of 512 x 600
    _, (crop,), _ = run(capsys, folder / "hopper.png", "--face-crop")
    assert crop["box"] == [0, 0, *portrait.size]


def test_what_fails_on_a_photo_is_said_and_the_run_goes_on(capsys, monkeypatch, folder):
    table = folder / "faces.csv"
    _, lines, _ = run(capsys, folder, "--csv", table, "--ask", "why " * 3000)
    assert len(lines) == 2 and all("error" in line for line in lines)
    assert len(list(csv.DictReader(table.open(encoding="utf-8")))) == 2
    monkeypatch.setattr(Predictor, "analyse", broken)
    _, lines, err = run(capsys, folder / "hopper.png", folder / "notes.jpg")
    assert [len(line) for line in lines] == [2, 2] and "secret detail" in err
    assert lines[0]["error"] == "The model failed on this. Please try again."


def broken(*_):
    raise RuntimeError("secret detail")


def test_a_table_that_cannot_be_written_is_said_before_any_photo_is_read(capsys, folder):
    with pytest.raises(SystemExit):
        main([str(folder / "hopper.png"), "--csv", str(folder / "nowhere" / "faces.csv")])
    out, err = capsys.readouterr()
    assert out == "" and "cannot be written" in err and "[1/1]" not in err


def test_a_name_that_is_no_text_is_written_all_the_same(folder, portrait):
    name = os.fsdecode(b"caf\xe9.png")
    (folder / name).write_bytes((folder / "hopper.png").read_bytes())
    done = subprocess.run(
        [sys.executable, "-m", "feallm", folder / name, "--csv", folder / "faces.csv"],
        cwd=Path(__file__).parent.parent,
        env=os.environ | {"PYTHONIOENCODING": "ascii:strict"},
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout)["photo"] == str(folder / name)
    assert "caf\\udce9.png" in (folder / "faces.csv").read_text(encoding="utf-8")


@pytest.mark.parametrize("device", ["xpu", "meta", "nothing"])
def test_a_device_that_is_not_ours_is_a_sentence(capsys, folder, device):
    status, lines, err = run(capsys, folder / "hopper.png", "--device", device)
    assert status == 2 and lines == [] and "say auto, cpu or cuda" in err


def test_nothing_usable_is_status_one(capsys, folder):
    status, (problem,), _ = run(capsys, folder / "notes.jpg")
    assert status == 1 and "error" in problem


def test_a_missing_model_is_a_sentence(capsys, folder):
    status, lines, err = run(capsys, folder / "hopper.png", "--model", folder)
    assert status == 2 and lines == [] and "cannot be loaded" in err


@pytest.mark.parametrize("arguments", [["--ask", " ", "x.png"], []])
def test_wrong_arguments_explain_themselves(capsys, arguments):
    with pytest.raises(SystemExit):
        main(arguments)
    assert "usage:" in capsys.readouterr().err


def test_help_reads_well(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    text = capsys.readouterr().out
    assert "JSON" in text and "--face-crop" in text and "AU12 (lip corner puller)" in text

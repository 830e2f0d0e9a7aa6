"""python -m feallm: one object per face, an error for what cannot be used, and the run goes on."""

import csv
import json

import pytest

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

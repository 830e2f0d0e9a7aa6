"""The benchmark: sets in their owners' layouts, the protocol, what an answer says, the tables."""

import io
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from layouts import CHAT_TEMPLATE, write_llava
from PIL import Image
from sklearn.metrics import accuracy_score, f1_score, recall_score

from benchmarks.soak import free_port
from feallm.facs import AUS, EXPRESSIONS
from feallm.loading import ModelError
from feallm.predictor import MINI, name_of
from train import evaluate
from train.feabench import sets, table
from train.feabench.run import AnotherRun, answers, ask_all, questions
from train.feabench.scores import read_answer, score
from train.feabench.sets import BP4D_UNITS, DISFA_UNITS, FaceSet, Item, load_set
from train.feabench.systems import REFUSED, Chat, Deciding, Feallm, Question, made_of
from train.layouts import LayoutError


def write(path: Path, text: str | bytes = b"") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def write_face(path: Path) -> Path:
    buffer = io.BytesIO()
    Image.new("RGB", (60, 60), "grey").save(buffer, "JPEG")
    return write(path, buffer.getvalue())


def write_feabench(root: Path) -> None:
    frames = [("v/00001.jpg", "train", [1]), ("w/00002.jpg", "test", [6, 12])]
    lines = []
    for image, split, aus in frames:
        frame = {"image": image, "split": split, "expression": "Happiness", "aus": aus}
        lines.append(json.dumps(frame | {"video": image[0], "number": 1}))
        write_face(root / "cropped_aligned" / image)
    write(root / "frames.jsonl", "\n".join(lines) + "\n")


def write_rafdb(root: Path, faces: int = 2) -> None:
    lines = ["train_00001.jpg 5\n"]
    for k, label in enumerate((1, 7, 4, 4, 6)[:faces], 1):
        lines.append(f"test_{k:04d}.jpg {label}\n")
        write_face(root / f"basic/Image/aligned/test_{k:04d}_aligned.jpg")
    write(root / "basic/EmoLabel/list_patition_label.txt", "".join(lines))


def write_affectnet(root: Path, head: bool = True) -> None:
    lines = [",".join(sets.AFFECTNET_COLUMNS)] if head else []
    for name, label in (("1/a.jpg", 6), ("1/b.jpg", 7), ("2/c.jpg", 0)):
        lines.append(f"{name},10,20,30,40,1.5;2.5,{label},0.1,0.2")
        write_face(root / "Manually_Annotated_Images" / name)
    write(root / "validation.csv", "\n".join(lines) + "\n")


def write_affectnet_folders(root: Path) -> None:
    for name, label in (("12", "5"), ("7", "7"), ("8", "1")):
        write_face(root / f"val_set/images/{name}.jpg")
        (root / "val_set/annotations").mkdir(exist_ok=True)
        np.save(root / f"val_set/annotations/{name}_exp.npy", np.array(label))


def write_bp4d(root: Path, frames: int = 101) -> None:
    head = ",".join(["0", *map(str, range(1, 30))])
    rows = []
    for frame in range(1, frames + 1):
        values = ["9"] * 29
        for k in BP4D_UNITS:
            values[k - 1] = "9" if k == 24 else str(int(k == 12 and frame == 51))
        rows.append(f"{frame},{','.join(values)}")
        write_face(root / f"2D+3D/F001/T1/{frame:04d}.jpg")
    write(root / "AUCoding/AU_OCC/F001_T1.csv", "\n".join([head, *rows]) + "\n")


def write_disfa(root: Path, frames: int = 51) -> None:
    for k in (*DISFA_UNITS, 5):
        lines = [f"{f},{(1 if f == 1 else 2) if k == 12 else 0}" for f in range(1, frames + 1)]
        write(root / f"ActionUnit_Labels/SN001/SN001_au{k}.txt", "\n".join(lines) + "\n")
    for frame in range(1, frames + 1):
        write_face(root / f"Images/SN001/{frame}.png")


def test_feabench_is_what_was_kept_to_test_with(tmp_path):
    write_feabench(tmp_path)
    (item,) = load_set("feabench", tmp_path).items
    assert (item.name, item.expression) == ("w/00002.jpg", "Happiness")
    assert item.aus == {k: k in (6, 12) for k in AUS}


def test_rafdb(tmp_path):
    write_rafdb(tmp_path)
    face_set = load_set("rafdb", tmp_path)
    assert [(i.name, i.expression, i.aus) for i in face_set.items] == [
        ("test_0001_aligned.jpg", "Surprise", None),
        ("test_0002_aligned.jpg", "Neutral", None),
    ]
    assert face_set.face(face_set.items[0], 48).size == (48, 48)


@pytest.mark.parametrize("head", [True, False])
def test_affectnet_with_its_lists(tmp_path, head):
    write_affectnet(tmp_path, head)
    face_set = load_set("affectnet", tmp_path)
    assert [(i.name, i.expression) for i in face_set.items] == [
        ("1/a.jpg", "Anger"),
        ("2/c.jpg", "Neutral"),
    ]
    assert face_set.items[0].box == (10, 20, 40, 60) and face_set.whole_photos


def test_affectnet_in_folders(tmp_path):
    write_affectnet_folders(tmp_path)
    items = load_set("affectnet", tmp_path).items
    assert [(i.name, i.expression) for i in items] == [
        ("12.jpg", "Disgust"),
        ("8.jpg", "Happiness"),
    ]


def test_bp4d_every_fiftieth_frame_and_only_coded_units(tmp_path):
    write_bp4d(tmp_path)
    items = load_set("bp4d", tmp_path).items
    assert [i.name for i in items] == [f"F001/T1/{f:04d}.jpg" for f in (1, 51, 101)]
    coded = [k for k in BP4D_UNITS if k != 24]
    assert items[0].aus == dict.fromkeys(coded, False)
    assert items[1].aus == {k: k == 12 for k in coded}
    assert items[0].expression is None


def test_disfa_counts_a_unit_from_intensity_two(tmp_path):
    write_disfa(tmp_path)
    items = load_set("disfa", tmp_path).items
    assert [i.name for i in items] == ["SN001/1.png", "SN001/51.png"]
    assert items[0].aus == dict.fromkeys(DISFA_UNITS, False)
    assert items[1].aus == {k: k == 12 for k in DISFA_UNITS}


def test_the_face_is_found_in_a_whole_photo(portrait):
    face_set = set_of(portrait)
    whole = np.asarray(face_set.face(face_set.items[0], 96).convert("L"), float)
    elsewhere = Item("photo", box=(0, 0, 40, 40))  # no face there: its box is read instead
    assert np.abs(whole - np.asarray(face_set.face(elsewhere, 96).convert("L"), float)).mean() > 10


def png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def spoil(path: str, old: bytes, new: bytes):
    def change(root: Path) -> None:
        data = (root / path).read_bytes()
        assert old in data
        (root / path).write_bytes(data.replace(old, new, 1))

    return change


def remove(path: str):
    return lambda root: (root / path).unlink()


RAF_LIST = "basic/EmoLabel/list_patition_label.txt"
BP4D_TABLE = "AUCoding/AU_OCC/F001_T1.csv"
DISFA_UNIT = "ActionUnit_Labels/SN001/SN001_au6.txt"
WRONG = {
    "feabench no list": (write_feabench, remove("frames.jsonl"), "frames.jsonl is not there"),
    "feabench bad line": (
        write_feabench,
        spoil("frames.jsonl", b"aus", b"units"),
        r"frames.jsonl, line 1 is no frame",
    ),
    "feabench no picture": (
        write_feabench,
        remove("cropped_aligned/w/00002.jpg"),
        r"frames.jsonl, line 2: .*w/00002.jpg is not there",
    ),
    "rafdb class": (
        write_rafdb,
        spoil(RAF_LIST, b" 1", b" 8"),
        "label.txt, line 2: .*class 1 to 7",
    ),
    "rafdb not text": (
        write_rafdb,
        spoil(RAF_LIST, b" 7", b" \xff"),
        "label.txt, line 3 is not UTF",
    ),
    "rafdb no picture": (
        write_rafdb,
        remove("basic/Image/aligned/test_0002_aligned.jpg"),
        "label.txt, line 3: .*test_0002_aligned.jpg is not there",
    ),
    "affectnet nothing": (write_affectnet, remove("validation.csv"), "neither val_set/ nor"),
    "affectnet columns": (
        write_affectnet,
        spoil("validation.csv", b",6,0.1", b",0.1"),
        "validation.csv, line 2 has not the columns",
    ),
    "affectnet class": (
        write_affectnet,
        spoil("validation.csv", b",6,", b",11,"),
        "validation.csv, line 2: there is no class 11",
    ),
    "affectnet empty label": (
        write_affectnet_folders,
        lambda root: write(root / "val_set/annotations/8_exp.npy"),
        "8_exp.npy holds no class",
    ),
    "affectnet no picture": (
        write_affectnet_folders,
        remove("val_set/images/8.jpg"),
        "8_exp.npy: .*8.jpg is not there",
    ),
    "bp4d header": (
        write_bp4d,
        spoil(BP4D_TABLE, b",24,", b",x,"),
        "F001_T1.csv, line 1: the header names no unit 24",
    ),
    "bp4d value": (
        write_bp4d,
        spoil(BP4D_TABLE, b"\n2,0", b"\n2,5"),
        "F001_T1.csv, line 3: a frame",
    ),
    "bp4d empty": (write_bp4d, lambda r: write(r / BP4D_TABLE), "F001_T1.csv, line 1: the header"),
    "bp4d no picture": (
        write_bp4d,
        remove("2D+3D/F001/T1/0051.jpg"),
        "F001_T1.csv, line 52: .*F001/T1 has no frame 51",
    ),
    "disfa no unit": (write_disfa, remove(DISFA_UNIT), "SN001_au6.txt is not there"),
    "disfa intensity": (
        write_disfa,
        spoil(DISFA_UNIT, b"\n3,0", b"\n3,6"),
        "SN001_au6.txt, line 3: '3,6' is no frame,intensity",
    ),
    "disfa no picture": (write_disfa, remove("Images/SN001/51.png"), "has no frame 51"),
}


@pytest.mark.parametrize("name", WRONG)
def test_another_layout_is_refused_with_its_place(name, tmp_path):
    layout, change, sentence = WRONG[name]
    layout(tmp_path)
    change(tmp_path)
    with pytest.raises(LayoutError, match=sentence):
        load_set(name.split()[0], tmp_path)


@pytest.mark.parametrize("name", sets.SETS)
def test_an_empty_folder_is_refused(name, tmp_path):
    with pytest.raises(LayoutError, match=str(tmp_path)):
        load_set(name, tmp_path)


def test_a_name_nothing_could_write_down_is_refused(tmp_path):
    write_affectnet_folders(tmp_path)
    folder = bytes(tmp_path / "val_set/annotations")
    with open(folder + b"/\xff_exp.npy", "wb"):
        pass
    with pytest.raises(LayoutError, match=r"udcff_exp.npy.*not UTF-8"):
        load_set("affectnet", tmp_path)


@pytest.mark.parametrize(
    ("kind", "text", "said", "state"),
    [
        ("expression", "Happiness. A wide smile.", "Happiness", "answered"),
        ("expression", "The person looks sad.", "Sadness", "answered"),
        ("expression", "Either happy or surprised.", None, "unreadable"),
        ("expression", "I'm sorry, I can't describe people.", None, "refused"),
        ("expression", "I can't be sure, but the person seems happy.", "Happiness", "answered"),
        ("units", "Active action units: AU6 (cheek raiser).", [6], "answered"),
        ("units", "Active action units: none.", [], "answered"),
        ("units", "No active action units are visible.", [], "answered"),
        ("units", "AU17 is active.", [], "answered"),
        ("units", "Action units 6, 12 and 25 are active.", [6, 12, 25], "answered"),
        ("units", "AU12: Yes\nAU4: No", [12], "answered"),
        ("units", REFUSED, [], "refused"),
        ("expression", REFUSED, None, "refused"),
        ("units", "A man in a suit.", [], "unreadable"),
        ("units", "As an AI, I cannot identify muscles.", [], "refused"),
    ],
)
def test_what_an_answer_says(kind, text, said, state):
    assert read_answer(kind, text) == {"said": said, "state": state}


def test_scores_are_scikit_learns():
    rng = np.random.default_rng(0)
    truth, said = rng.integers(0, 7, 300), rng.integers(0, 8, 300)
    entries = [
        {
            "kind": "expression",
            "truth": EXPRESSIONS[t],
            "said": EXPRESSIONS[s] if s < 7 else None,
            "state": "answered" if s < 7 else "refused",
        }
        for t, s in zip(truth, said, strict=True)
    ]
    active, claimed = rng.random((2, 300, 12)) < 0.3
    coded = rng.random((300, 12)) < 0.8
    for row in range(300):
        units = {str(k): bool(active[row, i]) for i, k in enumerate(AUS) if coded[row, i]}
        told = [k for i, k in enumerate(AUS) if claimed[row, i]]
        entries.append({"kind": "units", "truth": units, "said": told, "state": "answered"})
    scores = score(entries)
    assert scores["expression"]["accuracy"] == pytest.approx(accuracy_score(truth, said))
    recall = recall_score(truth, said, average=None, labels=range(7))
    assert scores["expression"]["mean_recall"] == pytest.approx(recall.mean())
    assert scores["expression"]["refused"] == (said == 7).sum()
    each = [f1_score(active[coded[:, i], i], claimed[coded[:, i], i]) for i in range(12)]
    assert list(scores["units"]["f1"].values()) == pytest.approx(each)
    assert scores["units"]["mean_f1"] == pytest.approx(np.mean(each))


class Parrot:
    """Says the same about every face, and fails after some answers."""

    face_size = 48

    def __init__(self, name: str = "parrot", patience: int = 1_000, weights: str = "a"):
        self.name, self.patience, self.asked = name, patience, []
        self.made_of = {"weights": weights}

    def answer(self, faces, questions):
        if len(self.asked) >= self.patience:
            raise KeyboardInterrupt
        assert all(face.size == (48, 48) for face in faces)
        self.asked += [q.text for q in questions]
        said = {"expression": "Happiness. A smile.", "units": "Active action units: AU12."}
        return [said[q.kind] for q in questions]


def face_set(count: int = 10) -> FaceSet:
    grey = png(Image.new("RGB", (50, 50), "grey"))
    units = {k: k == 12 for k in AUS}
    items = [Item(f"{k}.png", EXPRESSIONS[k % 2 * 4], units) for k in range(count)]
    return FaceSet(items, lambda name: grey)


def test_a_stopped_run_goes_on_and_asks_nothing_twice(tmp_path):
    options = {"benchmark": "made", "batch_size": 4}
    first = Parrot(patience=8)
    with pytest.raises(KeyboardInterrupt):
        ask_all(first, face_set(), tmp_path, **options)
    second = Parrot()
    scores = ask_all(second, face_set(), tmp_path, **options)
    undisturbed = Parrot()
    ask_all(undisturbed, face_set(), tmp_path / "whole", **options)
    assert first.asked + second.asked == undisturbed.asked
    assert answers(tmp_path) == answers(tmp_path / "whole")
    assert scores["expression"]["accuracy"] == 0.5 and scores["units"]["f1"]["AU12"] == 1
    assert json.loads((tmp_path / "scores.json").read_text()) == scores
    line = answers(tmp_path)[0]
    assert line["image"] == "0.png" and line["answer"] == "Happiness. A smile."
    assert (line["truth"], line["said"], line["state"]) == ("Neutral", "Happiness", "answered")


def test_questions_follow_from_the_seed_alone():
    asked = questions(face_set(30), 0, False)
    assert asked == questions(face_set(30), 0, False) != questions(face_set(30), 1, False)
    assert len({q.text for _, q in asked}) > 20
    (_, question), *_ = questions(face_set(), 0, True)
    assert question.text.endswith("Sadness, Surprise.")


@pytest.mark.parametrize(
    ("system", "options", "what"),
    [
        (Parrot("cockatoo"), {}, "system 'parrot', not 'cockatoo'"),
        (Parrot(), {"seed": 1}, "seed 0, not 1"),
        (Parrot(), {"limit": 5}, "questions 20, not 10"),
        (Parrot(weights="b"), {}, "weights 'a', not 'b'"),
    ],
)
def test_answers_to_something_else_are_not_mixed(system, options, what, tmp_path):
    ask_all(Parrot(), face_set(), tmp_path, benchmark="made")
    with pytest.raises(AnotherRun, match=what):
        ask_all(system, face_set(), tmp_path, benchmark="made", **options)


@pytest.fixture(scope="module")
def mini() -> Feallm:
    return Feallm(str(MINI))


def test_the_mini_answers_a_batch_as_it_answers_one(mini, portrait):
    face = set_of(portrait).face(Item("photo"), mini.face_size)
    faces = [face, Image.new("RGB", (96, 96), "grey"), face.rotate(20)]
    asked = [
        Question("expression", "Please describe the expression in this face."),
        Question("units", "What action units do you see?"),
        Question("units", "Which muscles move?"),
    ]
    batch = mini.answer(faces, asked)
    assert batch == [mini.answer([f], [q])[0] for f, q in zip(faces, asked, strict=True)]
    assert read_answer("expression", batch[0])["state"] == "answered"
    assert read_answer("units", batch[1])["state"] == "answered"


def test_as_the_page_reads(mini, portrait):
    deciding = Deciding(str(MINI))
    face = set_of(portrait).face(Item("photo"), deciding.face_size)
    asked = [Question("expression", "Mood?"), Question("units", "AUs?")]
    said = deciding.answer([face, face], asked)
    reading = deciding.predictor.analyse(face, texts=False)
    assert said == [reading.summary, reading.movements]
    assert deciding.name != mini.name


def set_of(photo: Image.Image) -> FaceSet:
    return FaceSet([Item("photo")], lambda name: png(photo), whole_photos=True)


@pytest.fixture(scope="module")
def llava(tmp_path_factory) -> Path:
    return write_llava(tmp_path_factory.mktemp("llava") / "llava-tiny")


def test_any_model_of_transformers_is_asked_through_its_own_template(llava):
    with pytest.raises(ModelError, match="has no chat template"):
        Chat(str(llava))
    (llava / "chat_template.jinja").write_text(CHAT_TEMPLATE)
    chat = Chat(str(llava))
    faces = [Image.new("RGB", (40, 40), c) for c in ("grey", "red")]
    asked = [Question("units", "AUs?"), Question("expression", "What is the emotion of this face?")]
    said = chat.answer(faces, asked)
    assert len(said) == 2 and all(isinstance(text, str) for text in said)
    assert chat.name == "llava-tiny"


def test_what_is_no_model_gets_a_sentence(tmp_path):
    with pytest.raises(ModelError, match="cannot be loaded"):
        Chat(str(tmp_path))


def test_the_command_measures_and_the_tables_fill_themselves(tmp_path, monkeypatch, capsys):
    write_rafdb(tmp_path / "raf")
    out = tmp_path / "results" / "mini"
    command = ["evaluate", "--benchmark", "rafdb", "--data", tmp_path / "raf", "--out", out]
    monkeypatch.setattr("sys.argv", list(map(str, command)))
    evaluate.main()
    printed = capsys.readouterr().out.strip().splitlines()
    scores = json.loads(printed[-1])
    assert scores["expression"]["faces"] == 2 and "RAF" not in printed[0]
    monkeypatch.setattr("sys.argv", ["table", str(tmp_path / "results")])
    table.main()
    page = (tmp_path / "results" / "tables.md").read_text()
    accuracy = f"{100 * scores['expression']['accuracy']:.2f}"
    assert f"| feallm-mini | {accuracy} |  |  |  |" in page
    assert "| FEALLM-7B (published) | 69.95 | 41.91 | 45.98 | 42.61 |" in page
    assert (tmp_path / "results" / "tables.png").stat().st_size > 5_000
    assert "Zero-shot,feallm-mini,RAF-DB accuracy" in (tmp_path / "results/tables.csv").read_text()


def test_other_faces_of_the_same_number_are_not_mixed(tmp_path):
    ask_all(Parrot(), face_set(), tmp_path, benchmark="made")
    others = face_set()
    others.items[3] = replace(others.items[3], name="another.png")
    with pytest.raises(AnotherRun, match="faces"):
        ask_all(Parrot(), others, tmp_path, benchmark="made")


def test_what_a_model_is_made_of(tmp_path):
    for name, byte in (("a", b"1"), ("b", b"2")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(byte * 3_000_000)
    (tmp_path / "c").mkdir()
    changed = bytearray(b"1" * 3_000_000)
    changed[1_600_000] = 0
    (tmp_path / "c" / "model.safetensors").write_bytes(changed)
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "model.safetensors").write_bytes(b"1" * 3_000_000)
    (tmp_path / "d" / "config.json").write_text('{"action_unit_thresholds": []}')
    found = [made_of(str(tmp_path / name), None, None)["weights"] for name in "abcd"]
    assert len(set(found)) == 4
    on_the_hub = SimpleNamespace(_commit_hash="abc")
    assert made_of("org/name", "nf4", on_the_hub) == {"weights": "abc", "quantization": "nf4"}
    (tmp_path / "run" / "final").mkdir(parents=True)
    assert name_of(tmp_path / "run" / "final") == "run/final" and name_of(tmp_path / "a") == "a"


def test_a_broken_picture_is_named(tmp_path):
    write_rafdb(tmp_path)
    broken = tmp_path / "basic/Image/aligned/test_0002_aligned.jpg"
    broken.write_bytes(broken.read_bytes()[:200])
    faces = load_set("rafdb", tmp_path)
    with pytest.raises(LayoutError, match="test_0002_aligned.jpg cannot be opened"):
        faces.face(faces.items[1], 48)


def test_two_processes_share_the_faces_and_find_what_one_finds(tmp_path, monkeypatch):
    write_rafdb(tmp_path / "raf", faces=5)
    one, two = tmp_path / "one", tmp_path / "two"
    what = ["--benchmark", "rafdb", "--data", tmp_path / "raf", "--batch-size", 1, "--out"]
    monkeypatch.setattr("sys.argv", [*map(str, ["evaluate", *what, one])])
    evaluate.main()
    # what `accelerate launch` calls where there are GPUs
    how = ["-m", "torch.distributed.run", "--nproc-per-node", 2, "--master-port", free_port()]
    command = [sys.executable, *how, "-m", "train.evaluate", *what, two]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(list(two.glob("answers-*.jsonl"))) == 2
    assert answers(one) == answers(two) and len(answers(one)) == 5
    assert (one / "scores.json").read_text() == (two / "scores.json").read_text()


def test_a_wrong_folder_ends_with_its_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "sys.argv", ["evaluate", "--benchmark", "bp4d", "--data", str(tmp_path / "none")]
    )
    with pytest.raises(SystemExit, match="is it BP4D's layout"):
        evaluate.main()

"""Training: what the data says, what the texts say, and every stage run for real, briefly."""

import importlib
import json
import random
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from dlib_network import make_network
from PIL import Image
from sklearn import metrics as reference
from transformers.loss.loss_utils import ForCausalLMLoss

from feallm import FEALLMForConditionalGeneration
from feallm.alignment import invert
from feallm.configuration import CROP_GROUPS
from feallm.conversation import encode
from feallm.crops import list_crops
from feallm.faces import draw
from feallm.facs import AUS, EXPRESSIONS, parse_analysis, supporting
from feallm.lca import LocalClueAggregator
from feallm.predictor import Reading
from train import agreement, figures, metrics
from train.fea import questions, talk, writer
from train.feabench.sets import Item
from train.metrics import f1
from train.mini import ablations, measure, prepare, twins
from train.mini.assemble import assemble, speak_as
from train.mini.eyes import trained_eyes
from train.mini.faces import Augment, Faces
from train.mini.instruct import (
    KINDS,
    NOWHERE,
    Conversations,
    converse,
    decision_loss,
    draw_facts,
    draw_plan,
    random_conversation,
    told_conversation,
    with_readings_of,
)
from train.mini.prepare import CANVAS, Source, agreed_label, read_rows
from train.mini.sizes import PRETRAINED_STEM, mini_config
from train.mini.start import start_from_faces
from train.mini.thresholds import calibration, choose, on_other_faces, on_strangers
from train.mini.tokenizer import train_tokenizer
from train.mini.vision import RECIPES, VisionTask
from train.parts import StageError, choose_trainable
from train.report import Meter
from train.stage import TrainConfig, read_config
from train.train import StageTrainer, answer_weights
from train.variants import VARIANTS, cell

ROOT = Path(__file__).parent.parent


def facts(seed: int) -> tuple[str, tuple[int, ...], random.Random]:
    rng = random.Random(seed)
    return rng.choice(EXPRESSIONS), tuple(k for k in AUS if rng.random() < 0.3), rng


@pytest.fixture(scope="module")
def start():
    """An untrained mini and its tokenizer."""
    tokenizer = train_tokenizer(400, 50, seed=0)
    return assemble(None, tokenizer, 0)[0], tokenizer


@pytest.mark.parametrize("seed", range(200))
def test_the_writers_texts_say_what_they_were_given(seed):
    expression, aus, rng = facts(seed)
    assert parse_analysis(writer.summary(expression, aus, rng)).expression == expression
    movement = parse_analysis(writer.movement(aus, rng))
    assert movement.aus == aus and movement.unknown_aus == ()
    reasoning = parse_analysis(writer.reasoning(expression, aus, rng))
    assert reasoning.expression == expression
    assert set(reasoning.aus) <= set(aus)
    assert set(supporting(expression, aus)) <= set(reasoning.aus)


def reading_of(expression, aus, rng, **changes) -> Reading:
    texts = {
        "summary": writer.summary(expression, aus, rng),
        "movements": writer.movement(aus, rng),
        "reasoning": writer.reasoning(expression, aus, rng),
    }
    nothing = dict.fromkeys(
        ("expression_probabilities", "action_unit_probabilities", "face", "attention", "looks")
    )
    return Reading(
        expression=expression, aus=aus, image_embeds=None, **nothing, **(texts | changes)
    )


@pytest.mark.parametrize("seed", range(200))
def test_the_writers_texts_agree_with_their_facts_and_are_of_their_kind(seed):
    assert agreement.disagreements(reading_of(*facts(seed))) == []


def test_disagreements_are_named():
    rng = random.Random(0)
    texts = {"summary": "Anger. The person shows an angry look with raised cheeks."}
    assert agreement.disagreements(reading_of("Happiness", (12,), rng, **texts)) == [
        "the summary names another expression",
        "the summary names a sign of an inactive unit",
    ]
    texts = {"movements": writer.movement((4, 12), rng), "reasoning": writer.movement((4,), rng)}
    assert agreement.disagreements(reading_of("Happiness", (12,), rng, **texts)) == [
        "the movements name other units",
        "the reasoning is about another expression",
        "the reasoning names an inactive unit",
        "a text has another form",
    ]


def test_talk_is_none_of_the_three_kinds():
    topics = [topic for topic in talk.TOPICS if topic is not talk.named]  # it may be the reasoning
    for seed in range(400):
        pattern, answer = topics[seed % len(topics)](*facts(seed))
        assert agreement.kind_of(answer) is None, pattern


def test_the_short_answers_are_no_part_of_an_analysis():
    assert agreement.kind_of("Happiness.") is None
    assert agreement.kind_of("Active action units: AU6 (cheek raiser).") is None
    assert agreement.kind_of("Active action units: none.") is None


@pytest.mark.parametrize("topic", talk.TOPICS, ids=lambda t: t.__name__)
def test_every_topic_answers_in_sentences(topic):
    for seed in range(60):
        pattern, answer = topic(*facts(seed))
        question = questions.expand(pattern, random.Random(seed))
        assert not set(question) & set("[]|{}")
        assert question.strip() == question and question[-1] in "?.!"
        assert answer[0].isupper() and answer[-1] in ".!" and "  " not in answer


def test_talk_about_a_smile_follows_the_units():
    rng = random.Random(0)
    assert "reaches the eyes" in talk.genuine_smile("Happiness", (6, 12), rng)[1]
    assert "stays at the mouth" in talk.genuine_smile("Happiness", (12,), rng)[1]
    assert "no smile" in talk.genuine_smile("Anger", (4,), rng)[1]


def test_why_of_another_expression_than_the_face_shows_is_set_right():
    rng = random.Random(0)
    said = {talk.named("Happiness", (6, 12), rng) for _ in range(400)}
    right = {answer for question, answer in said if "rather than" not in answer}
    assert all("AU6" in answer and "AU12" in answer for answer in right)
    others = [(question, answer) for question, answer in said if "rather than" in answer]
    assert all(answer.startswith("The face reads as Happiness rather than") for _, answer in others)
    assert any("AU15 (lip corner depressor) are missing." in answer for _, answer in others)
    assert any(answer.endswith("AU12 (lip corner puller) are active.") for _, answer in others)
    assert not any("happiness" in question.lower() for question, _ in others)
    assert len(right) > 3 and len(others) > 100


def test_question_templates_are_many_and_the_held_out_are_not_among_them():
    for kind, templates in questions.TEMPLATES.items():
        assert len(templates) > 10
        asked = {questions.ask(kind, random.Random(seed)) for seed in range(3000)}
        assert len(asked) > 300 and not any(set(q) & set("[]|{}") for q in asked)
        plain = {questions.bare(q) for q in asked}
        for held_out in (questions.HELD_OUT, questions.STRANGERS):
            assert not plain & {questions.bare(q) for q in held_out[kind]}
    assert [len(q) for q in questions.HELD_OUT.values()] == [10, 10, 10]
    assert [len(q) for q in questions.STRANGERS.values()] == [141, 145, 120]


@pytest.mark.parametrize(
    "file", sorted(questions.WORDINGS.rglob("*.txt")), ids=lambda f: f"{f.parent.stem}-{f.stem}"
)
def test_wordings_open_into_plain_sentences(file):
    name = str(file.relative_to(questions.WORDINGS).with_suffix(""))
    rng, patterns = random.Random(0), questions.wordings(name)
    assert len(set(patterns)) == len(patterns) >= 6
    for pattern in patterns:
        for slot, word in (("{thing}", "mood"), ("{noun}", "anger"), ("{look}", "angry")):
            pattern = pattern.replace(slot, word)
        made = questions.filled(pattern, rng)
        assert made.isascii() and made.strip() == made and not set(made) & set("[]|{}"), pattern


def test_only_the_thing_tells_what_a_composed_question_asks_for():
    rng, kinds, numbers = random.Random(0), list(questions.TEMPLATES), questions.NUMBERS
    patterns = {
        k: [t for n in numbers for t in questions.wordings(f"things/{k}_{n}")] for k in kinds
    }
    things = {
        k: {questions.bare(questions.expand(t, rng)) for t in p for _ in range(20)}
        for k, p in patterns.items()
    }
    assert all(not things[a] & things[b] for a in kinds for b in kinds if a != b)
    frames = [f for n in numbers for f in questions.wordings(f"frames/{n}")]
    assert all(f.count("{thing}") == 1 for f in frames)
    assert all(len({questions.composed(k, rng) for _ in range(300)}) > 200 for k in kinds)


def test_words_around_a_question_leave_it_whole():
    rng = random.Random(0)
    question = "Which mood is this?"
    messages = {questions.in_a_message(question, rng) for _ in range(300)}
    assert len(messages) > 30 and all(question[1:] in m for m in messages)
    assert any(m.startswith(question) for m in messages)
    assert not any("AU 12?" not in questions.in_a_message("AU 12?", rng) for _ in range(200))


def test_questions_outside_the_scope_are_held_out_and_their_answers_known():
    rng = random.Random(0)
    asked = dict(talk.scope("Happiness", (6, 12), rng) for _ in range(6000))
    held_out = {questions.bare(q) for q in (*talk.HELD_OUT, *talk.STRANGERS)}
    assert not {questions.bare(q) for q in asked} & held_out
    declined = {answer for answer in asked.values() if talk.is_declined(answer)}
    assert len(declined) == 6 < len(set(asked.values()))
    assert not any(w in d for d in declined for w in ("welcome", "Hello", "visible movement of"))
    assert not talk.is_declined("Happiness. A wide smile.") and not talk.is_declined("")


def test_conversations_alternate_and_start_with_the_person():
    rng = random.Random(3)
    for _ in range(50):
        roles = [m["role"] for m in random_conversation(rng)]
        assert roles == ["user", "assistant"] * (len(roles) // 2)


def test_facts_without_known_units_ask_nothing_about_them():
    rng = random.Random(0)
    for _ in range(50):
        expression, aus = draw_facts(np.eye(7)[4], np.ones(12), False, rng)
        assert (expression, aus) == ("Happiness", None)
        assert all("AU" not in m["content"] for m in converse("e", (expression, aus), rng))


def test_drawn_facts_follow_votes_and_probabilities():
    rng = random.Random(0)
    votes, units = np.array([0.5, 0, 0, 0, 0.5, 0, 0]), np.array([0.9] + [0.0] * 11)
    drawn = [draw_facts(votes, units, True, rng) for _ in range(2000)]
    neutral = np.mean([e == "Neutral" for e, _ in drawn])
    assert neutral == pytest.approx(0.75, abs=0.04)  # half the time the first of the two is taken
    assert np.mean([a == (1,) for _, a in drawn]) == pytest.approx(0.95, abs=0.03)


def test_metrics_equal_scikit_learns():
    rng = np.random.default_rng(0)
    truth, said = rng.integers(0, 7, 500), rng.integers(0, 7, 500)
    assert metrics.accuracy(truth, said) == reference.accuracy_score(truth, said)
    assert metrics.mean_recall(truth, said, 7) == pytest.approx(
        reference.recall_score(truth, said, average="macro")
    )
    np.testing.assert_array_equal(
        metrics.confusion(truth, said, 7)[:, :7], reference.confusion_matrix(truth, said)
    )
    a, b = truth > 3, said > 3
    assert metrics.f1(a, b) == pytest.approx(reference.f1_score(a, b))


def test_an_unreadable_answer_is_wrong_and_counted():
    truth, said = np.array([0, 1, 1]), np.array([0, -1, 1])
    assert metrics.accuracy(truth, said) == pytest.approx(2 / 3)
    assert metrics.confusion(truth, said, 2).tolist() == [[1, 0, 0], [0, 1, 1]]


def test_calibration_error_by_hand():
    correct = np.array([True, False, True, True])
    confidence = np.array([0.55, 0.55, 0.95, 0.95])
    assert metrics.calibration_error(correct, confidence, bins=10) == pytest.approx(0.05)


def made_packs(folder: Path, count: int = 48) -> Path:
    """Packs of random canvases in the layout `train.mini.prepare` writes."""
    rng = np.random.default_rng(0)
    votes = np.eye(7, dtype=np.float32)[np.arange(count) % 7] * 10
    np.savez(
        folder / "ferplus.npz",
        canvas=rng.integers(0, 255, (count, CANVAS, CANVAS, 1), dtype=np.uint8),
        grey=np.ones(count, bool),
        points=rng.uniform(30, 110, (count, 478, 2)).astype(np.float32),
        blendshapes=rng.random((count, 52), dtype=np.float32),
        used=np.tile(np.array([[1, 0, 24], [0, 1, 24]], np.float32), (count, 1, 1)),
        frame=np.tile(np.array([[1, 0, 24], [0, 1, 24]], np.float32), (count, 1, 1)),
        found=np.arange(count) % 10 != 0,
        votes=votes,
        split=np.array(["valid" if i % 4 == 0 else "train" for i in range(count)]),
        group=np.array([""] * count),
        picture=np.array([f"{i}.png" for i in range(count)]),
    )
    np.savez(folder / "aus.npz", ferplus=rng.random((count, 12)).astype(np.float32))
    return folder


def test_validation_faces_are_drawn_as_the_detector_in_use_aligns_them(tmp_path):
    packs = made_packs(tmp_path)
    pack = dict(np.load(packs / "ferplus.npz"))
    pack["used"] = np.tile(np.array([[1, 0, 10], [0, 1, 30]], np.float32), (48, 1, 1))
    pack["frame"] = np.tile(np.array([[1.5, 0, 0], [0, 1.5, 0]], np.float32), (48, 1, 1))
    np.savez(packs / "ferplus.npz", **pack)
    faces = Faces(packs, "train")
    expected = faces[0]["canvas"][30:126, 10:106, 0]
    options = {"size": 96, "crop_size": 32, "crop_groups": ["edge_half"]}
    augment = Augment(**options, mean=(0.0,) * 3, std=(1.0,) * 3, train=False)
    drawn = augment([faces[0]])["pixel_values"][0, 0] * 255
    np.testing.assert_allclose(drawn.numpy(), expected, atol=0.1)
    np.testing.assert_array_equal(np.asarray(faces.picture(0))[:, :, 0], expected)


def test_a_packed_face_can_be_drawn_as_its_crop_would_be(monkeypatch):
    line = np.linspace(0, 255, 300)
    photo = Image.fromarray(
        np.stack(
            [np.tile(line, (300, 1)), np.tile(line, (300, 1)).T, np.zeros((300, 300))], -1
        ).astype(np.uint8)
    )
    box, turned = (60.0, 80.0, 180.0, 200.0), np.array([[0.7, 0.1, 5], [-0.1, 0.7, 12]])
    monkeypatch.setattr(prepare, "landmarks", lambda *_: None)
    monkeypatch.setattr(prepare, "place_crop", lambda picture, size: turned)
    packed = prepare.pack_face(photo, box, "no task")
    again = draw(Image.fromarray(packed["canvas"]), invert(packed["used"].astype(float)), 96)
    expected = draw(photo.crop((60, 80, 180, 200)), turned, 96)
    inside = np.s_[20:70, 20:70]
    np.testing.assert_allclose(np.asarray(again)[inside], np.asarray(expected)[inside], atol=3)
    assert not packed["found"]


def test_packs_of_an_older_layout_are_refused(tmp_path):
    packs = made_packs(tmp_path)
    pack = dict(np.load(packs / "ferplus.npz"))
    del pack["used"]
    np.savez(packs / "ferplus.npz", **pack)
    with pytest.raises(ValueError, match="prepare again"):
        Faces(packs, "train")


def test_augmentation_keeps_places_and_labels_together(tmp_path):
    faces = Faces(made_packs(tmp_path), "train")
    assert len(faces) == 36
    options = {
        "size": 96,
        "crop_size": 32,
        "crop_groups": ["edge_half"],
        "mean": (0.0,) * 3,
        "std": (1.0,) * 3,
    }
    plain = Augment(**options, train=False)([faces[0], faces[1]])
    canvas = torch.from_numpy(faces[0]["canvas"]).permute(2, 0, 1).float() / 255
    torch.testing.assert_close(
        plain["pixel_values"][0, :1], canvas[:, 24:120, 24:120], atol=1e-4, rtol=0
    )
    expected = (torch.from_numpy(faces[0]["points"]) - 24) / 48 - 1
    torch.testing.assert_close(plain["points"][0], expected, atol=1e-4, rtol=0)
    assert plain["has_shapes"].tolist() == [faces[0]["found"], faces[1]["found"]]
    moved = Augment(**options, train=True)([faces[i] for i in range(8)])
    assert moved["pixel_values"].shape == (8, 3, 96, 96)
    assert 0 <= moved["pixel_values"].min() and moved["pixel_values"].max() <= 1
    torch.testing.assert_close(moved["votes"][3], torch.from_numpy(faces[3]["votes"]))


def test_without_strength_a_face_is_mirrored_at_most(tmp_path):
    faces = Faces(made_packs(tmp_path), "train")
    options = dict(
        size=96, crop_size=32, crop_groups=["edge_half"], mean=(0.0,) * 3, std=(1.0,) * 3
    )
    options |= dict(used=0.0, unaligned=0.0)
    items = [faces[i] for i in range(12)]
    plain = Augment(**options, train=False)(items)["pixel_values"]
    still = Augment(**options, train=True, strength=0.0)(items)["pixel_values"]
    kept = (still - plain).abs().amax((1, 2, 3)) < 2e-3
    turned = (still - plain.flip(-1)).abs().amax((1, 2, 3)) < 2e-3
    assert (kept | turned).all() and kept.any() and turned.any()


def test_thresholds_have_the_highest_mean_f1_of_the_samples():
    chances = np.tile(np.linspace(0, 1, 21)[:, None], (1, 12))
    high, low = chances > 0.72, chances > 0.32
    assert 0.7 <= choose((chances, high))[0] <= 0.75
    assert 0.3 <= choose((chances, low))[5] <= 0.35
    grid = np.linspace(0.05, 0.9, 86)
    both = [np.mean([f1(t[:, 0], chances[:, 0] > cut) for t in (high, low)]) for cut in grid]
    assert choose((chances, high), (chances, low))[0] == round(float(grid[np.argmax(both)]), 3)


def drawn_from(chances: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw a class (n,) from each row of probabilities (n, 7)."""
    return (chances.cumsum(1) > rng.random((len(chances), 1))).argmax(1)


def test_the_calibration_makes_probabilities_as_sure_and_as_frequent_as_they_are_right():
    rng = np.random.default_rng(0)
    bias = np.array([0.8, 0.0, -0.5, 0.2, 0.0, -0.7, 0.2])
    read = rng.dirichlet(np.full(7, 0.5), 20_000)
    right, weighed = read**2, read**1.5 * np.exp(bias)
    for true, power, wanted in ((read, 1, 0 * bias), (right, 2, 0 * bias), (weighed, 1.5, bias)):
        truth = drawn_from(true / true.sum(1, keepdims=True), rng)
        sharpness, found = calibration(read, truth)
        assert sharpness == pytest.approx(power, abs=0.1)
        np.testing.assert_allclose(found - np.mean(found), wanted, atol=0.15)


def test_what_the_calibration_is_worth_is_told_of_faces_it_was_not_fitted_on():
    """In each fold the others lack its class: fitted on itself, a fifth would be right."""
    told = on_other_faces(np.full((500, 7), 1 / 7), np.arange(500) % 5, folds=5)
    assert told["calibrated"]["accuracy"] == 0
    assert told["before"]["accuracy"] == 0.2


def test_strangers_are_decided_with_thresholds_of_others():
    """Ten people; in each pair one's units are active from 0.3, the other's from 0.6."""
    rng = np.random.default_rng(0)
    chances = rng.random((100, 12))
    people = np.arange(100) % 10
    active = chances > np.where(people % 2, 0.3, 0.6)[:, None]

    class Model:
        config = SimpleNamespace(action_unit_thresholds=["shipped"])

    class Stub:
        model, used = Model(), []

        def analyse(self, picture, texts):
            thresholds = self.model.config.action_unit_thresholds
            self.used.append((picture, tuple(thresholds)))
            passed = zip(AUS, chances[picture], thresholds, strict=True)
            return SimpleNamespace(aus=tuple(k for k, p, t in passed if p > t))

    class People:
        def people(self):
            return people

        def picture(self, i):
            return i

    stub, nothing = Stub(), (np.zeros((1, 12)), np.zeros((1, 12), bool))
    scores = on_strangers(stub, People(), nothing, (chances, active))
    assert stub.model.config.action_unit_thresholds == ["shipped"]
    assert sorted(i for i, _ in stub.used) == list(range(100))
    by_person = {p: {t for i, t in stub.used if people[i] == p} for p in range(10)}
    assert all(len(t) == 1 for t in by_person.values())
    person, used = 3, dict((people[i], t) for i, t in stub.used)
    fold = [p for p in range(10) if used[p] == used[person]]
    others = ~np.isin(people, fold)
    assert list(used[person]) == choose(nothing, (chances[others], active[others]))
    assert scores.keys() == {f"AU{k}" for k in AUS} and all(0.5 < v < 1 for v in scores.values())


def test_rare_expressions_are_drawn_more_often(tmp_path):
    faces = Faces(made_packs(tmp_path), "train")
    weights = faces.sampling_weights(1.0)
    per_class = [weights[faces.majority() == e].sum() for e in range(7)]
    np.testing.assert_allclose(per_class, per_class[0])
    np.testing.assert_allclose(faces.sampling_weights(0.0), 1)


def test_photos_of_the_web_are_drawn_as_often_as_their_expressions_are_met(tmp_path):
    packs = made_packs(tmp_path)
    (packs / "expw.npz").write_bytes((packs / "ferplus.npz").read_bytes())
    units = np.load(packs / "aus.npz")["ferplus"]
    np.savez(packs / "aus.npz", ferplus=units, expw=units)
    faces = Faces(packs, "train", ("ferplus", "expw"))
    web = np.array([name == "expw" for name, _ in faces.index])
    alike, met = (faces.sampling_weights(0.0, as_met) for as_met in (0.0, 1.0))
    np.testing.assert_array_equal(met[~web], alike[~web])
    assert met[web].sum() == pytest.approx(alike[web].sum())
    calm, afraid = (met[web & (faces.majority() == e)].sum() for e in (0, 3))
    assert calm / afraid == pytest.approx(34_883 / 1_088)


def test_a_missing_set_says_where_to_get_it(tmp_path):
    with pytest.raises(FileNotFoundError, match="neither .* Get it from"):
        Source(tmp_path, "expw")


def test_fer_votes_and_ck_units_are_read():
    fer = {
        e: "0" for e in ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear")
    }
    fer |= {"file": "a.png", "split": "train", "contempt": "0", "unknown": "1", "not_face": "0"}
    (row,) = read_rows("ferplus", [fer | {"happiness": "9"}])
    assert row.votes == (0, 0, 0, 0, 9, 0, 0)
    assert read_rows("ferplus", [fer | {"fear": "1", "not_face": "5"}]) == []
    ck = {f"AU{k}": "0" for k in (*AUS, 27)} | {"file": "b.png", "subject": "S1"}
    (row,) = read_rows(
        "ckplus_validation", [ck | {"AU27": "1", "AU1": "1", "expression": "contempt"}]
    )
    assert row.aus == (1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1)
    assert sum(row.votes) == 0 and row.split == "valid"


@pytest.mark.parametrize(
    ("votes", "label"),
    [
        ({"happiness": 9, "unknown": 1}, "happiness"),
        ({"neutral": 5, "sadness": 4, "fear": 1}, "neutral"),  # five of nine: one alone is nobody
        ({"neutral": 5, "sadness": 5}, None),
        ({"neutral": 4, "sadness": 3, "fear": 3}, None),
        ({"contempt": 8, "neutral": 2}, "contempt"),
        ({"unknown": 8, "neutral": 2}, None),
        ({"not_face": 10}, None),
        ({"neutral": 1, "sadness": 1}, None),
    ],
)
def test_ferplus_faces_are_agreed_on_by_more_than_half(votes, label):
    names = (*EXPRESSIONS, "contempt", "unknown", "not_face")
    row = {name.lower(): str(votes.get(name.lower(), 0)) for name in names}
    assert agreed_label(row) == label
    (read,) = read_rows("ferplus", [row | {"file": "a.png", "split": "valid"}])
    assert read.agreed == label


def test_a_kind_of_turn_can_be_left_out():
    rng = random.Random(0)
    for kinds in ("es", "am", "eams", KINDS):
        drawn = {draw_plan(True, rng, kinds) for _ in range(300)}
        assert "" not in drawn and set("".join(drawn)) == set(kinds)
    assert {draw_plan(False, rng, "es") for _ in range(50)} == {"e"}
    with pytest.raises(ValueError, match="say nothing"):
        draw_plan(False, rng, "am")


def test_told_facts_are_read_and_only_what_follows_is_learned(start):
    tokenizer = start[1]
    for seed in range(60):
        messages = told_conversation(random.Random(seed))
        assert [m.get("given", False) for m in messages[:4]] == [False, True, False, True]
        ids, labels = encode(messages, tokenizer, 3)
        learned = tokenizer.decode([x for x in labels if x != -100], skip_special_tokens=True)
        answers = " ".join(m["content"] for m in messages[5::2])
        assert learned.split() == answers.split() or "\ufffd" in learned
        assert tokenizer.decode(ids).count("</s>") == len(messages) // 2


def test_the_deciding_word_is_taught_by_the_votes(tmp_path, start):
    _, tokenizer = start
    rows = Conversations(Faces(made_packs(tmp_path), "train"), tokenizer, 6, 0, told_share=0.3)
    items = [rows[i] for i in range(len(rows))]
    names = [tokenizer(e, add_special_tokens=False)["input_ids"][0] for e in EXPRESSIONS]
    decided = [i for i in items if i["decided_at"] != NOWHERE]
    assert 0 < len(decided) < len(items)
    for item in decided:
        at = item["decided_at"]
        assert item["input_ids"][at] == item["labels"][at] in names
    logits = torch.randn(3, 9, len(tokenizer))
    at, votes = torch.tensor([4, NOWHERE, 7]), torch.eye(7)[[2, 0, 5]]
    expected = torch.nn.functional.cross_entropy(
        logits[[0, 2], [3, 6]], torch.tensor([names[2], names[5]])
    )
    words = torch.tensor(names)
    torch.testing.assert_close(decision_loss(logits, at, votes, words), expected)
    nowhere = decision_loss(logits, torch.full((3,), NOWHERE), votes, words)
    assert nowhere == 0


def test_what_the_start_read_stands_beside_the_votes():
    words, votes = torch.tensor([2, 3, 5, 7, 11, 13, 17]), torch.eye(7)[[0, 1, 2]]
    decision = {"decided_at": torch.tensor([3, NOWHERE, 2]), "votes": votes, "words": words}
    logits = torch.full((3, 5, 20), -9.0)
    logits[0, 2, 17], logits[2, 1, 3], logits[:, :, 0] = 9, 9, 9  # 0 is no expression's word
    rows = []

    def start(numbers):
        rows.extend(numbers.tolist())
        return SimpleNamespace(logits=logits[numbers])

    mixed = with_readings_of(start, 0.25, {"numbers": torch.arange(3)}, decision)
    assert rows == [0, 2]  # the row that decides nothing is not read
    expected = votes * torch.tensor([[0.75], [1], [0.75]])
    expected[0, 6] = expected[2, 1] = 0.25
    torch.testing.assert_close(mixed["votes"], expected)
    torch.testing.assert_close(votes, torch.eye(7)[[0, 1, 2]])
    decision["decided_at"] = torch.full((3,), NOWHERE)
    assert with_readings_of(start, 0.25, {}, decision)["votes"].equal(votes)


def test_teachers_readings_stand_beside_the_votes(tmp_path):
    packs = made_packs(tmp_path)
    faces = Faces(packs, "train")
    readings = np.tile(np.eye(7, dtype=np.float32)[3], (len(faces), 1))
    faces.save_readings(tmp_path / "a.npz", readings)
    faces.save_readings(tmp_path / "b.npz", np.roll(readings, 1, axis=1))
    taught = Faces(packs, "train", teachers=(tmp_path / "a.npz", tmp_path / "b.npz"))
    mean = (np.eye(7)[3] + np.eye(7)[4]) / 2
    for i in (0, 5):
        expected = (faces[i]["votes"] + mean) / 2
        np.testing.assert_allclose(taught[i]["votes"], expected, rtol=1e-6)
    kept = Faces(packs, "valid", teachers=(tmp_path / "a.npz",))
    np.testing.assert_array_equal(kept[0]["votes"], Faces(packs, "valid")[0]["votes"])


def test_a_disturbed_question_keeps_its_ends_and_all_but_one_word():
    rng = random.Random(0)
    question = "What expression does the person in this photo show?"
    seen = {questions.disturbed(question, rng) for _ in range(400)}
    assert question in seen and len(seen) > 20
    for other in seen:
        kept = set(other.split()) & set(question.split())
        assert other.startswith("What ") and other.endswith(" show?") and len(kept) >= 8


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda v: v.name)
def test_every_variant_starts_from_the_whole_models_eyes(variant, tmp_path, start):
    model, tokenizer = start
    torch.save(
        {k: v for k, v in model.model.state_dict().items() if not k.startswith("language_model.")},
        tmp_path / "vision.pt",
    )
    made, processor = assemble(tmp_path / "vision.pt", tokenizer, 1, **variant.config)
    assert made.config.use_lca == variant.config.get("use_lca", True)
    assert processor.crop_groups == made.config.crop_groups or not made.config.use_lca
    whole = model.model.state_dict()
    for name, weight in made.model.state_dict().items():
        if not name.startswith("language_model.") and weight.shape == whole[name].shape:
            assert torch.equal(weight, whole[name]), name
    if 0 < made.config.num_crops < 16:
        crops, fewer = list_crops(CROP_GROUPS), list_crops(made.config.crop_groups)
        for row, crop in enumerate(fewer):
            at = crops.index(crop)
            assert torch.equal(made.model.lca.crop_embedding[row], whole["lca.crop_embedding"][at])
            width = made.config.lca_channels[-1]
            old = whole["lca.to_token.weight"][:, width * at : width * (at + 1)]
            new = made.model.lca.to_token.weight[:, width * row : width * (row + 1)]
            assert torch.equal(new, old)
    config = ablations.stage(variant, 1, 0)
    assert choose_trainable(made, config.learning_rates)
    augment, size = Augment.of(processor, train=True), processor.face_size
    tokens = made.model.get_image_features(**augment.inputs(torch.rand(2, 1, size, size)))
    assert all(len(face) == processor.num_image_tokens for face in tokens.pooler_output)

    seen = augment.inputs(torch.rand(40, 1, size, size))
    faces = seen["pixel_values"], seen.get("pixel_values_local")
    start_from_faces(made.model, *faces)
    fused = made.model.fuse(*faces)
    starts = [made.model.multi_modal_projector.linear_1(fused["features"].mean(1))]
    if made.config.use_lca:
        starts.append(fused["token"][:, 0])
        torch.testing.assert_close(starts[1].var(0), torch.ones(256), atol=0.1, rtol=0)
    for features in starts:
        torch.testing.assert_close(features.mean(0), torch.zeros(256), atol=0.1, rtol=0)


def test_a_minis_folder_gives_its_eyes(tmp_path, start):
    model, tokenizer = start
    model.save_pretrained(tmp_path / "mini")
    eyes = trained_eyes(tmp_path / "mini")
    torch.save(eyes, tmp_path / "vision.pt")
    whole = model.model.state_dict()
    assert eyes.keys() == {name for name in whole if not name.startswith("language_model.")}
    for path in (tmp_path / "mini", tmp_path / "vision.pt"):
        made = assemble(path, tokenizer, 1)[0].model.state_dict()
        assert all(torch.equal(made[name], whole[name]) for name in eyes)


def test_eyes_of_another_size_are_refused(tmp_path, start):
    model, tokenizer = start
    state = {k: v for k, v in model.model.state_dict().items() if "language_model" not in k}
    state["lca.stranger"] = torch.zeros(1)
    torch.save(state, tmp_path / "vision.pt")
    with pytest.raises(ValueError, match="stranger"):
        assemble(tmp_path / "vision.pt", tokenizer, 1, mpp_shallow=False)


def test_a_table_cell_has_mean_and_spread():
    assert cell([0.5, 0.7]) == "60.0 ± 14.1"
    assert cell([0.5]) == "50.0" and cell([None, None]) == ""


def test_twins_of_validation_faces_are_found():
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 255, (6, 9, 9, 1), dtype=np.uint8)
    canvas = coarse.repeat(16, 1).repeat(16, 2)
    brighter = (canvas[:1] * 0.7 + 40 + rng.normal(0, 5, canvas[:1].shape)).astype(np.uint8)
    small = twins.thumbnails(np.concatenate([canvas, brighter]))
    likeness = twins.likeness(small[1:], small[:1])
    assert likeness[-1] > twins.LIKENESS and likeness[:-1].max() < twins.LIKENESS


def test_weights_count_answers_by_their_length():
    labels = torch.tensor([[-100, 5, 6, 7, 8, -100, 9, -100], [4, -100, -100, 3, 3, 3, 3, 3]])
    assert answer_weights(labels, 0.0).tolist() == (labels != -100).float().tolist()
    weights = answer_weights(labels, 1.0)
    assert weights[0].tolist() == [0, 0.25, 0.25, 0.25, 0.25, 0, 1, 0]
    # an answer that ends one row and one that starts the next are two
    assert weights[1].tolist() == pytest.approx([1, 0, 0, 0.2, 0.2, 0.2, 0.2, 0.2])
    touching = torch.tensor([[-100, 1, 1], [1, -100, -100]])
    assert answer_weights(touching, 1.0).tolist() == [[0, 0.5, 0.5], [1, 0, 0]]


def test_plain_weights_give_the_models_own_loss():
    logits = torch.randn(2, 9, 11)
    labels = torch.randint(0, 11, (2, 9))
    labels[:, :3] = -100
    inputs = {"labels": labels, "attention_mask": torch.ones_like(labels)}
    trainer = StageTrainer.__new__(StageTrainer)
    trainer.length_power = trainer.decision_weight = 0.0
    trainer.meter = Meter(processes=1)
    loss = trainer.compute_loss(lambda **_: SimpleNamespace(logits=logits), inputs)
    torch.testing.assert_close(loss, ForCausalLMLoss(logits, labels, vocab_size=11))


def test_an_unknown_key_of_a_stage_fails(tmp_path):
    (tmp_path / "stage.yaml").write_text("max_steps: 1\nlearning_rates: {}\nlerning_rate: 1")
    with pytest.raises(StageError, match="lerning_rate"):
        read_config(tmp_path / "stage.yaml")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "stage.yaml"),
        ("learning_rates: {a: x}", "could not convert"),
        ("learning_rates: {a: 1}\nlayout: Plain", "must be v1 or plain"),
        ("learning_rates: {a: 1}\nepochs: 0", "epochs above 0"),
        ("learning_rates: [", "stage.yaml"),
        ("learning_rates: {a: 1}\nlora: {rank: 4}", "learning_rate"),
        ("learning_rates: {a: 1}\nfaces: {start_share: 0.5}", "give both"),
    ],
)
def test_a_wrong_stage_is_a_sentence(tmp_path, text, sentence):
    (tmp_path / "stage.yaml").write_text(text)
    with pytest.raises(StageError, match=sentence):
        read_config(tmp_path / "stage.yaml")


def test_rates_may_be_written_as_people_do(tmp_path):
    text = "learning_rates: {model.lca: 1e-3}\nlora: {learning_rate: 2e-4}"
    (tmp_path / "stage.yaml").write_text(text)
    config = read_config(tmp_path / "stage.yaml")
    assert config.learning_rates == {"model.lca": 0.001} and config.lora.learning_rate == 0.0002


@pytest.mark.parametrize(
    "path", sorted((ROOT / "train" / "configs").glob("*.yaml")), ids=lambda p: p.stem
)
def test_every_stage_file_is_readable(path):
    assert isinstance(read_config(path), TrainConfig)


def test_all_stages_run_and_the_result_opens(tmp_path, portrait, monkeypatch):
    """Vision, assembly, alignment and instruction on random faces, as the README has them."""
    packs = made_packs(tmp_path)
    stage = tmp_path / "stage.yaml"
    stage.write_text(
        "max_steps: 2\nbatch_size: 4\nwarmup_steps: 1\n"
        "learning_rates: {model.language_model: 1.0e-3, model.lca: 1.0e-4}\n"
        "faces: {decision_weight: 0.5, start_share: 0.5}\n"
    )

    def run(module: str, *options) -> None:
        monkeypatch.setattr(sys, "argv", [module, *map(str, options)])
        importlib.import_module(module).main()

    start, final, options = tmp_path / "start", tmp_path / "stage", []
    network = tmp_path / "network.dat"
    sizes = (PRETRAINED_STEM[f"vision_stem_{name}"] for name in ("channels", "depths"))
    make_network(network, *sizes)
    for part in RECIPES:
        vision = tmp_path / part
        options += ["--part", part, "--out", vision, "--max-steps", "2", "--batch", "4", "--reads"]
        if part == "tower-pretrained":
            options += ["--network", network]
        if part == "mpp":
            options += ["--residual", "identity"]
        run("train.mini.vision", "--packs", packs, *options)
        options = ["--start", vision / ("task.pt" if part == "lca" else "vision.pt")]
        options += ["--teachers", *tmp_path.glob("*/reads.npz")]
    readings = {file.parent.name for file in tmp_path.glob("*/reads.npz")}
    assert readings == set(RECIPES)
    with np.load(tmp_path / "tower" / "reads.npz") as file:
        read, aside = file["ferplus"], np.arange(48) % 4 == 0
    np.testing.assert_allclose(read[~aside].sum(1), 1, rtol=1e-3)
    assert np.isnan(read[aside]).all()
    run(
        "train.mini.assemble",
        "--vision",
        vision / "vision.pt",
        "--out",
        start,
        "--conversations",
        "200",
    )
    run("train.train", stage, "--packs", packs, "--model", start, "--out", final)

    from feallm import Predictor

    before, after = Predictor(start), Predictor(final / "final")
    reading = after.analyse(portrait.resize((96, 96)), texts=False)
    assert reading.expression in EXPRESSIONS
    old, new = (p.model.state_dict() for p in (before, after))
    changed = [k for k in old if not torch.equal(old[k].bfloat16(), new[k].bfloat16())]
    moved = {k.split(".")[1] for k in changed if k != "lm_head.weight"}  # tied to the embedding
    assert moved == {"language_model", "lca"}
    assert new.keys() == old.keys()
    shape = after.model.config
    assert (shape.vision_stem, shape.mpp_residual) == ("residual", "identity")

    part, again = ["--part", "mpp", "--residual", "identity"], tmp_path / "again"
    options = [*part, "--start", final / "final", "--out", again, "--max-steps", "1", "--batch", 4]
    run("train.mini.vision", "--packs", packs, *options)
    eyes = torch.load(again / "vision.pt", weights_only=True)
    assert not any(k.startswith("language_model.") for k in eyes)
    for name in (k for k in eyes if k.startswith(("lca.", "vision_tower."))):
        torch.testing.assert_close(eyes[name], new[f"model.{name}"].to(eyes[name].dtype))


def test_folded_norms_and_a_standardised_token_change_nothing_but_the_scale():
    torch.manual_seed(0)
    narrow = {"lca_channels": (16, 32, 32, 64)}
    config = mini_config(vocab_size=300, lca_norm="batch", lca_dropout=0.0, **narrow)
    task = VisionTask(FEALLMForConditionalGeneration(config), "lca")
    crops = torch.randn(40, 16, 3, 32, 32)
    for part in task.modules():
        if isinstance(part, torch.nn.modules.batchnorm._BatchNorm):
            part.momentum = 0.5
    with torch.no_grad():
        for _ in range(24):  # the running averages settle
            task.predict(None, crops)
    task.eval()
    before = task.model.lca(crops)[1][:, 0]
    task.fold_norms()
    torch.testing.assert_close(task.model.lca(crops)[1][:, 0], before, atol=1e-3, rtol=1e-3)
    bare = mini_config(vocab_size=300, **narrow)
    LocalClueAggregator(
        num_crops=16, channels=bare.lca_channels, depths=bare.lca_depths, hidden_size=256,
        crop_embedding=True, norm="none",
    ).load_state_dict(task.model.lca.state_dict())  # fmt: skip
    task.standardise_token()
    after = task.model.lca(crops)[1][:, 0]
    torch.testing.assert_close(after.mean(0), torch.zeros(256), atol=0.1, rtol=0)
    torch.testing.assert_close(after.std(0), torch.ones(256), atol=0.1, rtol=0)


def test_the_projector_starts_by_what_tells_faces_apart():
    torch.manual_seed(0)
    config = mini_config(vocab_size=300, lca_dropout=0.0)
    task = VisionTask(FEALLMForConditionalGeneration(config), "mpp")
    faces = torch.randn(30, 3, 96, 96), torch.randn(30, 16, 3, 32, 32)
    task.heads.standardise.momentum = 1.0
    with torch.no_grad():
        task.predict(*faces)
        task.standardise_features()
        pooled = task.model.fuse(*faces)["features"].mean(1)
        seen = task.heads.standardise.eval()(pooled)
        turned = task.model.multi_modal_projector.linear_1(pooled)
    # turned, not stretched: every two faces lie as the head sees them
    torch.testing.assert_close(turned @ turned.T, seen @ seen.T, atol=1e-2, rtol=1e-3)


def test_the_tower_starts_by_telling_its_patches_apart():
    torch.manual_seed(0)
    config = mini_config(vocab_size=300)
    task = VisionTask(FEALLMForConditionalGeneration(config), "vision_tower")
    positions = task.model.vision_tower.embeddings.position_embedding.weight
    class_token = positions[0].clone()
    task.start_tower()
    assert torch.equal(positions[0], class_token)
    place = positions[1:].unflatten(0, (6, 6))  # rows, columns
    near, far = ((place[0, 0] - place[at]).norm() for at in ((0, 1), (0, 5)))
    assert far > near > 1
    torch.testing.assert_close(place[2, :, :128], place[5, :, :128])  # columns: the first half
    torch.testing.assert_close(place[:, 2, 128:], place[:, 5, 128:])
    conv = task.model.vision_tower.embeddings.patch_embedding.stages[1].reduce
    assert conv.weight.std().item() == pytest.approx((2 / (9 * conv.out_channels)) ** 0.5, rel=0.05)


def test_a_stems_norms_are_folded_too():
    torch.manual_seed(0)
    config = mini_config(vocab_size=300, vision_stem_norm="batch")
    task = VisionTask(FEALLMForConditionalGeneration(config), "vision_tower")
    task.start_tower()
    pixels = torch.randn(8, 3, 96, 96)
    for _ in range(3):  # the running averages leave their start
        task.predict(pixels, None)
    task.eval()
    before = task.model.deep_and_shallow(pixels)[0]
    task.fold_norms()
    torch.testing.assert_close(task.model.deep_and_shallow(pixels)[0], before, atol=1e-3, rtol=1e-3)
    config = mini_config(vocab_size=300)
    bare = FEALLMForConditionalGeneration(config).model.vision_tower
    bare.load_state_dict(task.model.vision_tower.state_dict())


def test_an_earlier_minis_speech_is_kept(start, tmp_path):
    model, tokenizer = start
    model.save_pretrained(tmp_path)
    other = assemble(None, tokenizer, seed=1)[0]
    ours, theirs = (m.model.language_model.state_dict() for m in (other, model))
    assert not torch.equal(
        ours["layers.0.mlp.up_proj.weight"], theirs["layers.0.mlp.up_proj.weight"]
    )
    eyes = other.model.lca.to_token.weight.clone()
    speak_as(other, tmp_path)
    assert all(torch.equal(weight, theirs[name]) for name, weight in ours.items())
    assert torch.equal(other.lm_head.weight, model.lm_head.weight)
    assert torch.equal(other.model.lca.to_token.weight, eyes)


def test_faces_that_calibrated_the_model_are_counted_apart(monkeypatch):
    """Every third face was fitted on and is read right, all others wrong."""

    class Numbers:
        items = [Item(str(i), expression="Happiness") for i in range(30)]

        def face(self, item, size):
            return int(item.name)

    class Stub:
        face_size = 96

        def analyse(self, number, texts):
            said = "Anger" if number % 3 else "Happiness"
            return SimpleNamespace(
                expression=said, expression_probabilities={said: 0.9}, summary=f"{said}."
            )

    monkeypatch.setattr(measure, "zipped", lambda name: lambda data: Numbers())
    monkeypatch.setattr(measure, "FITTED_ON", 10)
    figures_of = measure.evaluate_set(Stub(), Path(), "ferplus")
    assert figures_of["accuracy"] == pytest.approx(1 / 3)
    assert figures_of["not_fitted_on"] == {"faces": 20, "accuracy": 0.0, "mean_recall": 0.0}
    assert "not_fitted_on" not in measure.evaluate_set(Stub(), Path(), "ferplus", limit=15)
    assert figures.not_fitted_on(figures_of).startswith("On the 20 FER+ valid faces")


def test_figures_go_between_the_marks_and_nowhere_else():
    page = "before\n<!-- figures -->\nold\n<!-- /figures -->\nafter\n"
    page = figures.inserted(figures.inserted(page, "| new |"), "| newer |")
    assert page == "before\n<!-- figures -->\n| newer |\n<!-- /figures -->\nafter\n"
    with pytest.raises(ValueError, match="has no"):
        figures.inserted("no marks", "x")
    for path in (figures.README, figures.CARD):
        assert figures.inserted(path.read_text("utf-8"), "x").count("<!--") >= 2
    assert figures.table(["a", "b"], [["1", "2"]]) == "| a | b |\n| --- | --- |\n| 1 | 2 |"


@pytest.mark.slow
def test_a_killed_stage_goes_on_where_its_last_checkpoint_was(tmp_path):
    packs, out = made_packs(tmp_path), tmp_path / "lca"
    command = [sys.executable, "-m", "train.mini.vision", "--packs", packs, "--out", out]
    command += ["--part", "lca", "--max-steps", "40", "--save-steps", "5", "--batch", "8"]
    command = list(map(str, command))
    running = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT
    )
    deadline = time.monotonic() + 300
    while not (out / "checkpoint-10" / "trainer_state.json").is_file():
        assert running.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    running.kill()
    running.wait()
    assert not (out / "vision.pt").exists()
    last = max(out.glob("checkpoint-*"), key=lambda c: int(c.name.split("-")[1]))
    kept = json.loads((last / "trainer_state.json").read_text())
    assert kept["global_step"] < 40
    kept["log_history"].append({"step": kept["global_step"], "left_behind": 1})
    (last / "trainer_state.json").write_text(json.dumps(kept))
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    state = json.loads((out / "checkpoint-40" / "trainer_state.json").read_text())
    assert state["global_step"] == 40 and (out / "vision.pt").is_file()
    assert any("left_behind" in entry for entry in state["log_history"])  # it went on from there

"""Trees of questions: each branch is read as if it stood alone, and what is kept stays."""

import random
import sys

import pytest
import torch
from test_train import made_packs

from feallm import FEALLMConfig, Predictor
from feallm.conversation import encode
from feallm.facs import AUS, EXPRESSIONS
from feallm.generation import embed
from feallm.predictor import MINI
from train.fea.questions import HELD_OUT, TEMPLATES
from train.mini import listen
from train.mini.listen import Collate, Listener, Questions, Row, with_words_lost
from train.mini.tree import ROOT, Tree, stacked


@pytest.fixture
def questions(exact) -> Questions:
    """Of two faces that nobody has, one read as calm, one as a smile."""
    shape = 2, exact.processor.num_image_tokens, exact.model.config.text_config.hidden_size
    readings = {
        "embeds": torch.randn(shape),
        "expression": torch.tensor([0, EXPRESSIONS.index("Happiness")]),
        "aus": torch.tensor([[False] * 12, [k in (6, 12) for k in AUS]]),
    }
    return Questions(readings, exact.tokenizer, seed=0, branches=3, lost=0.5)


def test_a_tree_by_hand():
    tree = Tree()
    root = tree.add([5, 6])
    left = tree.add([7], root)
    tree.add([8, 9], root)
    tree.add([4], left)
    assert tree.ids == [5, 6, 7, 8, 9, 4]
    assert tree.positions == [0, 1, 2, 2, 3, 3]
    assert tree.before == [ROOT, 0, 1, 1, 3, 2]
    assert [row.nonzero().flatten().tolist() for row in tree.mask()] == [
        [0],
        [0, 1],
        [0, 1, 2],
        [0, 1, 3],
        [0, 1, 3, 4],
        [0, 1, 2, 5],
    ]
    short = Tree()
    short.add([3])
    batch = stacked([tree, short], pad_token_id=1)
    assert batch["input_ids"].tolist() == [tree.ids, [3, 1, 1, 1, 1, 1]]
    assert batch["attention_mask"][1, 0].equal(torch.eye(6, dtype=torch.bool))


def test_a_branch_is_read_as_the_conversation_it_is(exact):
    """The reference is the plain conversation, read by itself."""
    first = [
        {"role": "user", "content": "Why?"},
        {"role": "assistant", "content": "AU12 is active."},
    ]
    second = [
        {"role": "user", "content": "Is it a smile?"},
        {"role": "assistant", "content": "Yes, the face reads as Happiness."},
    ]
    images = exact.processor.num_image_tokens
    row = Row(exact.tokenizer, images)
    told = row.add(row.root, first, kept=True)
    row.add(row.root, second)
    row.add(told, first)
    row.add(told, second)
    face = torch.randn(1, images, exact.model.config.text_config.hidden_size)
    batch = stacked([row.tree], exact.tokenizer.pad_token_id) | {"faces": face}
    with torch.inference_mode():
        hidden = Listener._read(exact.model, batch)[0]
        for branch, talk in ((1, first), (2, second), (3, first + first), (4, first + second)):
            ids, _ = encode(talk, exact.tokenizer, images)
            plain = exact.model.model.language_model(
                inputs_embeds=embed(exact.model, torch.tensor([ids]), face)
            ).last_hidden_state[0]
            own = [i for i, of in enumerate(row.tree.branches) if of == branch]
            assert [row.tree.ids[i] for i in own] == ids[-len(own) :]
            torch.testing.assert_close(hidden[own], plain[-len(own) :], atol=1e-4, rtol=1e-4)


def test_an_answer_weighs_one_and_most_of_it_its_first_words(exact):
    row = Row(exact.tokenizer, 4)
    talk = [
        {"role": "user", "content": "Why?"},
        {"role": "assistant", "content": "AU12 (lip corner puller) pulls the lip corners up."},
    ]
    row.add(row.root, talk)
    assert sum(row.weights) == pytest.approx(1) and row.is_whole
    answer = [w for w in row.weights if w]
    assert answer[:6] == list(listen.FIRST_WORDS) and len(set(answer[6:])) == 1
    row.add(row.root, talk, written_out=False)
    assert not row.is_whole and len([w for w in row.weights if w]) == len(answer) + listen.BEGUN
    row.add(row.root, talk, kept=True)
    assert sum(row.kept) == len(answer) and not any(row.weights[-len(answer) :])


def test_rows_are_drawn_anew_in_every_epoch_and_the_same_again(questions):
    first, again = questions[1], questions[1]
    assert first["tree"] == again["tree"] and first["weights"] == again["weights"]
    questions.set_epoch(1)
    assert questions[1]["tree"] != first["tree"]
    text = questions.tokenizer.decode(first["tree"].ids[: first["shared"]])
    assert "Happiness." in text and "AU12 (lip corner puller)" in text
    assert not any(first["weights"][: first["shared"]]) and not any(
        first["kept"][first["shared"] :]
    )


def test_words_are_lost_from_long_questions_only():
    rng = random.Random(0)
    question = "What do the muscles around the mouth do in this face?"
    drawn = {with_words_lost(question, 1.0, rng) for _ in range(200)}
    assert len(drawn) > 100 and all(set(d.split()) <= set(question.split()) for d in drawn)
    assert {with_words_lost("What is it?", 1.0, rng) for _ in range(50)} == {"What is it?"}
    assert with_words_lost(question, 0.0, rng) == question


def test_what_is_left_of_a_question_is_never_a_held_out_one(monkeypatch):
    held_out = HELD_OUT["summary"][0]
    monkeypatch.setattr(listen, "with_words_lost", lambda *_: held_out)
    asked = listen.question_and_answer(("Happiness", (6, 12)), 1.0, random.Random(0))
    assert asked[0]["content"] != held_out


def test_the_pages_own_questions_lose_nothing():
    rng = random.Random(0)
    facts = "Happiness", (6, 12)
    for kind, patterns in TEMPLATES.items():
        asked = [
            listen.question_and_answer(facts, 1.0, rng, {kind: 1})[0]["content"] for _ in range(60)
        ]
        assert asked.count(patterns[0]) > 3  # a fifth of the questions


def test_the_mini_learns_its_answers_and_keeps_what_it_expected(questions):
    """By overfitting two rows."""
    listener = Listener(Predictor(MINI, device=torch.device("cpu"), dtype=torch.float32).model)
    batch = Collate(questions.tokenizer.pad_token_id)([questions[0], questions[1]])
    before = {k: v.clone() for k, v in listener.state_dict().items()}
    assert float(listener(**batch)["moved"]) == pytest.approx(0, abs=1e-4)
    optimizer = torch.optim.AdamW([p for p in listener.parameters() if p.requires_grad], lr=1e-3)
    losses = []
    for _ in range(12):
        out = listener(**batch)
        losses.append(float(out["loss"]))
        out["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()
    assert losses[-1] < losses[0] / 2
    changed = {k for k, v in listener.state_dict().items() if not v.equal(before[k])}
    assert changed and all("language_model" in k or "lm_head" in k for k in changed)


def test_the_stage_goes_on_from_its_checkpoint_and_what_it_leaves_opens(
    monkeypatch, tmp_path, portrait
):
    packs = tmp_path / "packs"
    packs.mkdir()
    made_packs(packs, 12)

    def run(out, steps: int) -> None:
        options = f"--steps {steps} --batch 2 --branches 1 --faces 4 --save-steps 1".split()
        line = ["listen", "--packs", packs, "--model", MINI, "--out", tmp_path / out, *options]
        monkeypatch.setattr(sys, "argv", list(map(str, line)))
        listen.main()

    run("whole", 2)
    run("stopped", 2)
    (tmp_path / "stopped" / "checkpoint-2").rename(tmp_path / "stopped" / "never")
    monkeypatch.setattr(listen, "read_faces", lambda *_: pytest.fail("the faces were read before"))
    run("stopped", 2)
    results = [Predictor(tmp_path / out / "final") for out in ("whole", "stopped")]
    first, second = (r.model.state_dict() for r in results)
    for name, weight in first.items():
        assert weight.equal(second[name]), name
    assert results[0].analyse(portrait.resize((96, 96))).summary
    written = FEALLMConfig.from_pretrained(tmp_path / "whole" / "final")
    parts = (written, written.text_config, written.vision_config)
    assert {part.dtype for part in parts} == {torch.bfloat16}

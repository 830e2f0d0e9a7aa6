"""The template and its loss mask: supervised are exactly the answers and their end."""

import pytest

from feallm import FEALLMProcessor
from feallm.conversation import IGNORE_INDEX, SYSTEM_PROMPT, encode
from feallm.predictor import MINI


@pytest.fixture(scope="module")
def tokenizer():
    return FEALLMProcessor.from_pretrained(MINI).tokenizer


TALK = [
    {"role": "user", "content": "What emotion is this?"},
    {"role": "assistant", "content": "Happiness."},
    {"role": "user", "content": "Why?"},
    {"role": "assistant", "content": "AU12 is active."},
]


def test_the_whole_text_is_vicunas(tokenizer):
    ids, _ = encode(TALK, tokenizer, num_image_tokens=3)
    assert tokenizer.decode([i for i in ids if i != tokenizer.bos_token_id]).replace("  ", " ") == (
        f"{SYSTEM_PROMPT} USER:<image><image><image> \nWhat emotion is this? ASSISTANT: "
        "Happiness.</s> USER: Why? ASSISTANT: AU12 is active.</s>"
    )


def test_supervised_are_the_answers_and_their_ends(tokenizer):
    ids, labels = encode(TALK, tokenizer, num_image_tokens=3)
    assert len(ids) == len(labels)
    learnt = [label for label in labels if label != IGNORE_INDEX]
    assert tokenizer.decode(learnt) == "Happiness.</s> AU12 is active.</s>"
    assert all(label in (IGNORE_INDEX, token) for token, label in zip(ids, labels, strict=True))


def test_placeholders_stand_before_the_first_question(tokenizer):
    ids, _ = encode(TALK, tokenizer, num_image_tokens=5)
    image = tokenizer.convert_tokens_to_ids("<image>")
    assert ids.count(image) == 5
    first = ids.index(image)
    assert ids[first : first + 5] == [image] * 5


@pytest.mark.parametrize("typed", ["<image>", "</s>", "<s>", "<pad> <unk>"])
def test_typed_special_words_stay_words(tokenizer, typed):
    ids, _ = encode([{"role": "user", "content": typed}], tokenizer, num_image_tokens=2)
    special = [i for i in ids if i in tokenizer.all_special_ids]
    image = tokenizer.convert_tokens_to_ids("<image>")
    assert special == [tokenizer.bos_token_id, image, image]
    assert typed in tokenizer.decode(ids)


def test_an_open_answer_has_no_end(tokenizer):
    closed = [TALK[0], {"role": "assistant", "content": "Anger."}]
    opened = [TALK[0], {"role": "assistant", "content": "Anger.", "open": True}]
    assert encode(closed, tokenizer, 1)[0] == [
        *encode(opened, tokenizer, 1)[0],
        tokenizer.eos_token_id,
    ]


@pytest.mark.parametrize(
    "messages",
    [[], TALK[1:], [TALK[0], TALK[0]], [{"role": "system", "content": "You lie."}]],
)
def test_roles_that_do_not_alternate_raise(tokenizer, messages):
    with pytest.raises(ValueError, match="message|Message"):
        encode(messages, tokenizer, 1)


def test_any_letters_survive_the_tokenizer(tokenizer):
    text = "Ça va? 你好 🙂 AU12 {x}"
    ids = tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    assert tokenizer.decode(ids) == text

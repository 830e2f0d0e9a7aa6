"""LLaVA's instruction layout: what is read, what is refused with its line, what is learned."""

import json
import zipfile
from pathlib import Path

import pytest
import torch
from layouts import row, write_instructions, write_llava

from feallm.conversation import IGNORE_INDEX, SYSTEM_PROMPT, encode, encode_caption
from feallm.loading import config_of, processor_of
from train.data import DataError, Instructions, Pad, Pictures, middle_square, read_rows
from train.order import Order

GOOD = row(1, "What is it?", "A face.", "Why?", "It smiles.")


@pytest.fixture(scope="module")
def processor(tmp_path_factory):
    folder = write_llava(tmp_path_factory.mktemp("start") / "llava")
    return processor_of(folder, config_of(folder))


def dataset(rows, images, processor, broken, **changes) -> Instructions:
    options = {"plain": False, "max_length": 512, "seed": 0} | changes
    return Instructions(read_rows(rows), Pictures(images), processor, broken=broken, **options)


def write_zip(images: Path, archive: Path, compression: int = zipfile.ZIP_STORED) -> int:
    """Write a folder's pictures into a zip; return where its first entry begins."""
    with zipfile.ZipFile(archive, "w", compression) as zipped:
        for file in sorted(images.rglob("*.jpg")):
            zipped.write(file, file.relative_to(images))
        return zipped.infolist()[0].header_offset


def test_a_list_and_json_lines_are_read_alike(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps([GOOD, row(2, "And?", "Ähm.")], indent=2))
    lines = [json.dumps(GOOD), json.dumps(row(2, "And?", "Ähm."), ensure_ascii=False)]
    (tmp_path / "a.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    rows = read_rows(tmp_path / "a.json")
    assert rows == read_rows(tmp_path / "a.jsonl")
    assert rows[0].image == "00000/1.jpg"
    assert [m["content"] for m in rows[0].messages] == [
        "What is it?",
        "A face.",
        "Why?",
        "It smiles.",
    ]
    assert [m["role"] for m in rows[0].messages] == ["user", "assistant"] * 2


def spoiled(**changes) -> dict:
    return GOOD | changes


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ("text", "a row must be an object"),
        ({"conversations": GOOD["conversations"]}, 'needs an "image"'),
        (spoiled(image=7), 'needs an "image"'),
        (spoiled(image="../1.jpg"), "must lie in the folder"),
        (spoiled(image="/etc/1.jpg"), "must lie in the folder"),
        (spoiled(conversations=[]), "a list of questions"),
        (spoiled(conversations=GOOD["conversations"][:1]), "each with its answer"),
        (spoiled(conversations=GOOD["conversations"][::-1]), 'turn 1 must be "from": "human"'),
        (
            spoiled(conversations=[{"from": "human"}, GOOD["conversations"][1]]),
            "turn 1 has no text",
        ),
        (row(1, "<image> twice", "Yes."), "must stand once"),
        (row(1, "What?", "<image>"), "must stand once"),
        (row(1, "What?", "  "), "turn 2 is an empty answer"),
    ],
)
def test_a_wrong_row_stops_with_its_line(tmp_path, wrong, sentence):
    path = tmp_path / "rows.json"
    path.write_text("[\n" + ",\n".join(json.dumps(v) for v in (GOOD, GOOD, wrong)) + "\n]")
    with pytest.raises(DataError, match="rows.json, line 4") as error:
        read_rows(path)
    assert sentence in str(error.value)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[\n{},\n{]", "line 3"),
        (json.dumps([GOOD])[:-1], "after the row of line 1 the list does not go on"),
        ("", "holds no rows"),
        ("[]", "holds no rows"),
        ("[{}][{}]", "goes on after its list"),
        ("[{}\n{}]", "after the row of line 1"),
        (json.dumps(GOOD) + "\n{oops", "line 2"),
    ],
)
def test_a_broken_file_is_named(tmp_path, text, sentence):
    (tmp_path / "rows.json").write_text(text.replace("{}", json.dumps(GOOD)))
    with pytest.raises(DataError, match=sentence):
        read_rows(tmp_path / "rows.json")


def test_files_that_are_not_there_or_not_text_are_named(tmp_path):
    with pytest.raises(DataError, match="is not there"):
        read_rows(tmp_path / "none.json")
    (tmp_path / "latin.json").write_bytes(b'["\xe4"]')
    with pytest.raises(DataError, match="not UTF-8"):
        read_rows(tmp_path / "latin.json")
    with pytest.raises(DataError, match="is not there"):
        Pictures(tmp_path / "none")
    with pytest.raises(DataError, match="neither a folder nor a zip"):
        Pictures(tmp_path / "latin.json")


def test_a_folder_and_a_zip_give_the_same_items(tmp_path, processor):
    rows, images = write_instructions(tmp_path, 4)
    write_zip(images, tmp_path / "images.zip")
    broken = tmp_path / "broken.txt"
    folder, zipped = (
        dataset(rows, p, processor, broken) for p in (images, tmp_path / "images.zip")
    )
    assert Pictures(tmp_path / "images.zip").missing(["00000/1.jpg", "00000/9.jpg"]) == [
        "00000/9.jpg"
    ]
    for a, b in zip(folder, zipped, strict=True):
        assert a["input_ids"] == b["input_ids"]
        assert torch.equal(a["pixel_values"], b["pixel_values"])
    assert folder[0]["pixel_values"].shape == (3, 32, 32)
    assert folder[0]["pixel_values_local"].shape == (16, 3, 112, 112)
    assert not broken.exists()


def test_broken_pictures_are_named_and_replaced(tmp_path, processor):
    rows, images = write_instructions(tmp_path, 6)
    (images / "00000/2.jpg").write_bytes(b"no picture")
    data = dataset(rows, images, processor, tmp_path / "broken.txt")
    item = data[2]
    assert (tmp_path / "broken.txt").read_text() == "00000/2.jpg\n"
    assert item["input_ids"] in [data[i]["input_ids"] for i in (0, 1, 3, 4, 5)]
    for file in images.rglob("*.jpg"):
        file.write_bytes(b"")
    with pytest.raises(DataError, match="cannot be opened"):
        data[0]


def test_a_zip_can_be_read_by_several_workers(tmp_path, processor):
    """Workers are copies of a process that has the zip open: each must open its own."""
    rows, images = write_instructions(tmp_path, 40)
    archive, broken = tmp_path / "images.zip", tmp_path / "broken.txt"
    write_zip(images, archive)
    data = dataset(rows, archive, processor, broken)
    assert data.pictures.missing([r.image for r in data.rows]) == []  # opens it
    loader = torch.utils.data.DataLoader(data, batch_size=None, num_workers=3)
    alone = [item["pixel_values"] for item in dataset(rows, images, processor, broken)]
    for _ in range(3):
        for item, expected in zip(loader, alone, strict=True):
            assert torch.equal(item["pixel_values"], expected)
    assert not broken.exists()


def test_a_damaged_zip_entry_is_a_broken_picture(tmp_path, processor):
    rows, images = write_instructions(tmp_path, 3)
    archive = tmp_path / "images.zip"
    start = write_zip(images, archive, zipfile.ZIP_DEFLATED)
    content = bytearray(archive.read_bytes())
    content[start + 80 : start + 400] = b"\xff" * 320
    archive.write_bytes(content)
    data = dataset(rows, archive, processor, tmp_path / "broken.txt")
    assert data[0]["input_ids"] in [data[i]["input_ids"] for i in (1, 2)]
    assert (tmp_path / "broken.txt").read_text() == "00000/0.jpg\n"


def test_captions_are_learned_with_their_new_line(processor):
    """LLaVA's rule for stage 1: <s> and the picture are masked, the caption and "\\n" are not."""
    tokenizer = processor.tokenizer
    ids, labels = encode_caption("a joyful face", tokenizer, 3)
    image = tokenizer.convert_tokens_to_ids("<image>")
    caption = tokenizer("a joyful face\n", add_special_tokens=False)["input_ids"]
    assert ids == [1, image, image, image, *caption]
    assert labels == [IGNORE_INDEX] * 4 + caption
    assert tokenizer.decode(caption) == "a joyful face\n"


def test_the_mask_follows_llavas_rule(processor):
    """Of each round all up to "ASSISTANT:" is masked, the answer and its </s> are learned.

    Every piece is tokenised by itself, as LLaVA does around its picture.
    """
    tokenizer = processor.tokenizer
    talk = [("What is it?", "A face. It smiles."), ("Why?", "AU12 pulls the lip corners.")]
    messages = [
        {"role": role, "content": text}
        for turn in talk
        for role, text in zip(("user", "assistant"), turn, strict=True)
    ]
    ids, labels = encode(messages, tokenizer, 1)
    pieces = [
        f"{SYSTEM_PROMPT} USER: ",
        "<image>",
        "\nWhat is it? ASSISTANT:",
        "A face. It smiles.",
    ]
    pieces += ["</s>", "USER: Why? ASSISTANT:", "AU12 pulls the lip corners.", "</s>"]
    expected_ids, expected_labels = [tokenizer.bos_token_id], [IGNORE_INDEX]
    for piece in pieces:
        tokens = tokenizer(piece, add_special_tokens=False)["input_ids"]
        learned = piece in (talk[0][1], talk[1][1], "</s>")
        expected_ids += tokens
        expected_labels += tokens if learned else [IGNORE_INDEX] * len(tokens)
    assert ids == expected_ids and labels == expected_labels
    # Llama's own: ":", the space before the picture, the picture, a space and the new line
    at = ids.index(tokenizer.convert_tokens_to_ids("<image>"))
    around = tokenizer.convert_ids_to_tokens(ids[at - 2 : at + 3])
    assert around == [":", "▁", "<image>", "▁", "<0x0A>"]


def test_long_rows_are_cut_and_batches_padded(tmp_path, processor):
    rows, images = write_instructions(tmp_path, 5)
    data = dataset(rows, images, processor, tmp_path / "b.txt", max_length=40)
    assert {len(item["input_ids"]) for item in data} == {40}
    data = dataset(rows, images, processor, tmp_path / "b.txt", plain=True)
    items = [data[0], data[4]]
    batch = Pad(processor.tokenizer.pad_token_id)(items)
    short, long = (len(i["input_ids"]) for i in items)
    assert short < long == batch["input_ids"].shape[1]
    assert batch["attention_mask"].sum(1).tolist() == [short, long]
    assert (batch["labels"][0, short:] == IGNORE_INDEX).all()
    assert (batch["input_ids"][0, short:] == processor.tokenizer.pad_token_id).all()


def test_the_middle_of_a_picture_is_a_square():
    from PIL import Image

    wide = Image.new("RGB", (9, 4))
    wide.putpixel((2, 0), (255, 0, 0))
    square = middle_square(wide)
    assert square.size == (4, 4) and square.getpixel((0, 0)) == (255, 0, 0)


def test_an_order_follows_from_seed_and_epoch_alone():
    class Rows(list):
        epoch = 0

    rows = Rows(range(40))
    lengths = [k % 7 for k in rows]
    weights = {"weights": [1.0] * 39 + [0.0]}
    drawn_and_grouped = weights | {"lengths": lengths.__getitem__, "batch_size": 4}
    for options in ({}, {"lengths": lengths, "batch_size": 4}, weights, drawn_and_grouped):
        order = Order(rows, 3, **options)
        first = list(order)
        order.set_epoch(1)
        assert rows.epoch == 1 and list(order) != first
        rows.epoch = 0
        again = Order(rows, 3, **options)
        assert list(again) == first
        again.set_epoch(1)
        assert list(again) == list(order) != first
        rows.epoch = 0
        assert list(Order(rows, 4, **options)) != first
        if "weights" in options:
            assert 39 not in first and len(first) == 40
        else:
            assert sorted(first) == list(range(40))

    def spread(order: Order) -> int:
        drawn = [lengths[i] for i in order]
        return sum(max(drawn[k : k + 4]) - min(drawn[k : k + 4]) for k in range(0, 40, 4))

    assert spread(Order(rows, 3, lengths=lengths, batch_size=4)) < 0.7 * spread(Order(rows, 3))
    drawn, grouped = Order(rows, 3, **weights), Order(rows, 3, **drawn_and_grouped)
    assert sorted(grouped) == sorted(drawn) and spread(grouped) < 0.7 * spread(drawn)

"""LLaVA's instruction layout as a dataset: rows of a JSON file, pictures of a folder or a zip.

    [{"id": "1", "image": "00000/1.jpg", "conversations": [
        {"from": "human", "value": "<image>\\nPlease describe the expression in this face."},
        {"from": "gpt", "value": "Happiness. ..."}]}, ...]

So are LLaVA-LCS-558K (`blip_laion_cc_sbu_558k.json` with its folders or `images.zip`) and our FEA
instruction data; one JSON object a line does too. Pictures are opened when they are needed; as many
rows as LLaVA-LCS-558K has, 558,128, take 7 s to read, and 0.5 GiB. What is wrong with a row stops
the reading with its line; pictures that are missing are counted and named before the training,
those that cannot be opened after it.
"""

import json
import os
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch.utils.data import Dataset

from feallm import FEALLMProcessor
from feallm.conversation import IGNORE_INDEX, Message, encode, encode_caption
from feallm.photos import BadPhoto, open_photo
from train.order import draws

ROLES = {"human": "user", "gpt": "assistant"}
PLACEHOLDER = "<image>"
CHARACTERS_PER_TOKEN = 4
"""About, in English: good enough to put rows of similar length together."""


class DataError(ValueError):
    """Data that cannot be used; its text names the file and the line."""


@dataclass(frozen=True)
class Row:
    """One picture and its conversation, which begins with a question and ends with an answer."""

    image: str
    messages: tuple[Message, ...]

    @property
    def length(self) -> int:
        """About how many tokens its words take."""
        return sum(len(m["content"]) for m in self.messages) // CHARACTERS_PER_TOKEN


def objects(path: Path) -> Iterator[tuple[int, object]]:
    """Yield the line and the value of each element of a JSON list, or of each line of JSON Lines.

    Raises:
        DataError: the file is neither.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise DataError(f"{path} is not there.") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8: {error}.") from None
    decoder, line, counted = json.JSONDecoder(), 1, 0
    at = _after_space(text, 0)
    is_list = text[at : at + 1] == "["
    at = _after_space(text, at + 1) if is_list else at
    while at < len(text) and not (is_list and text[at] == "]"):
        line, counted = line + text.count("\n", counted, at), at
        try:
            value, at = decoder.raw_decode(text, at)
        except json.JSONDecodeError as error:
            raise DataError(f"{path}, line {error.lineno}: {error.msg}.") from None
        yield line, value
        at = _after_space(text, at)
        if is_list and text[at : at + 1] == ",":
            at = _after_space(text, at + 1)
        elif is_list and text[at : at + 1] != "]":
            raise DataError(f"{path}: after the row of line {line} the list does not go on.")
    if is_list and _after_space(text, at + 1) < len(text):
        raise DataError(f"{path} goes on after its list.")


def _after_space(text: str, at: int) -> int:
    while at < len(text) and text[at] in " \t\r\n":
        at += 1
    return at


def read_rows(path: Path) -> list[Row]:
    """Return the rows of a file in LLaVA's layout.

    Raises:
        DataError: a row is not what the layout wants, with its line.
    """
    rows = []
    for line, value in objects(path):
        try:
            rows.append(read_row(value))
        except DataError as problem:
            raise DataError(f"{path}, line {line}: {problem}") from None
    if not rows:
        raise DataError(f"{path} holds no rows.")
    return rows


def read_row(value: object) -> Row:
    """Return one row.

    Raises:
        DataError: a field is missing or wrong.
    """
    if not isinstance(value, dict):
        raise DataError("a row must be an object.")
    image, turns = value.get("image"), value.get("conversations")
    if not isinstance(image, str) or not image:
        raise DataError('a row needs an "image", the name of a file.')
    if Path(image).is_absolute() or ".." in Path(image).parts:
        raise DataError(f'"image" is {image!r}: it must lie in the folder of pictures.')
    if not isinstance(turns, list) or not turns or len(turns) % 2:
        raise DataError('"conversations" must be a list of questions, each with its answer.')
    messages = []
    for k, turn in enumerate(turns):
        expected = ("human", "gpt")[k % 2]
        if not isinstance(turn, dict) or turn.get("from") != expected:
            raise DataError(f'turn {k + 1} must be "from": "{expected}".')
        text = turn.get("value")
        if not isinstance(text, str):
            raise DataError(f'turn {k + 1} has no text as its "value".')
        if text.count(PLACEHOLDER) != (k == 0):
            raise DataError(f"turn {k + 1}: {PLACEHOLDER} must stand once, in the first question.")
        content = text.replace(PLACEHOLDER, "").strip()
        if expected == "gpt" and not content:
            raise DataError(f"turn {k + 1} is an empty answer.")
        messages.append({"role": ROLES[expected], "content": content})
    return Row(image, tuple(messages))


class Pictures:
    """The pictures of a folder or of a zip, opened one by one; each process opens its own zip.

    Raises:
        DataError: neither is there.
    """

    def __init__(self, root: Path):
        if not root.exists():
            raise DataError(f"{root} is not there: give a folder of pictures or a zip.")
        self.root, self._zip, self._opened_by = root, None, 0
        if not root.is_dir() and not zipfile.is_zipfile(root):
            raise DataError(f"{root} is neither a folder nor a zip.")

    def __getstate__(self) -> dict:
        return self.__dict__ | {"_zip": None}

    def missing(self, names: list[str]) -> list[str]:
        """Return those of the names that are not there."""
        if not self.root.is_dir():
            there = set(self._archive().namelist())
            return [n for n in names if n not in there]
        folders: dict[
            Path, set[str]
        ] = {}  # each is listed once: a look at every file takes minutes
        for folder in {(self.root / n).parent for n in names}:
            folders[folder] = {e.name for e in os.scandir(folder)} if folder.is_dir() else set()
        paths = [(n, self.root / n) for n in names]
        return [n for n, path in paths if path.name not in folders[path.parent]]

    def open(self, name: str) -> Image.Image:
        """Return a picture as upright RGB.

        Raises:
            BadPhoto: it cannot be opened.
        """
        if self.root.is_dir():
            return open_photo(self.root / name)[0]
        try:
            return open_photo(self._archive().read(name))[0]
        except (zipfile.BadZipFile, zlib.error, KeyError, RuntimeError, EOFError):
            raise BadPhoto("This picture is damaged in its zip.") from None

    def _archive(self) -> zipfile.ZipFile:
        # a worker is a copy of its parent: with the parent's open file it would share the position
        if self._zip is None or self._opened_by != os.getpid():
            self._zip, self._opened_by = zipfile.ZipFile(self.root), os.getpid()
        return self._zip


def middle_square(picture: Image.Image) -> Image.Image:
    """Return the middle of a picture, as CLIP's processor cuts it; a face stays whole."""
    side = min(picture.size)
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    return picture.crop((left, top, left + side, top + side))


class Instructions(Dataset):
    """Rows with their pictures, as the model reads them.

    An item is a dict: `pixel_values` (3, S, S), `pixel_values_local` (C, 3, s, s), `input_ids` and
    `labels` (lists). A row longer than `max_length` tokens is cut there, as LLaVA does. A picture
    that cannot be opened is written down in `broken`, and another row of the epoch takes its place.

    Args:
        plain: stage 1: the first answer alone follows the picture, no question (LLaVA's "plain").
        broken: file to which names of broken pictures are added.
    """

    def __init__(
        self,
        rows: list[Row],
        pictures: Pictures,
        processor: FEALLMProcessor,
        *,
        plain: bool,
        max_length: int,
        seed: int,
        broken: Path,
    ):
        self.rows, self.pictures, self.processor = rows, pictures, processor
        self.plain, self.max_length, self.seed, self.broken = plain, max_length, seed, broken
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.rows)

    def set_epoch(self, epoch: int) -> None:
        """See `train.order`: an epoch's draws follow from its number."""
        self.epoch = epoch

    @property
    def lengths(self) -> list[int]:
        """About how many tokens each row takes, its picture included."""
        return [self.processor.num_image_tokens + row.length for row in self.rows]

    def __getitem__(self, i: int) -> dict:
        chance = draws(self.seed, self.epoch, i)
        for _ in range(100):
            row = self.rows[i]
            try:
                picture = self.pictures.open(row.image)
                break
            except BadPhoto:
                self.broken.parent.mkdir(parents=True, exist_ok=True)
                with self.broken.open("a", encoding="utf-8") as names:
                    names.write(f"{row.image}\n")
                i = chance.randrange(len(self.rows))
        else:
            raise DataError(
                f"A hundred pictures cannot be opened; their names are in {self.broken}."
            )
        ids, labels = self.encode(row)
        pixels = self.processor.faces([middle_square(picture)])
        return {
            **{name: values[0] for name, values in pixels.items()},
            "input_ids": ids[: self.max_length],
            "labels": labels[: self.max_length],
        }

    def token_count(self, i: int) -> int:
        """Return how many tokens a row takes, without its picture being opened."""
        return min(self.max_length, len(self.encode(self.rows[i])[0]))

    def encode(self, row: Row) -> tuple[list[int], list[int]]:
        tokenizer, count = self.processor.tokenizer, self.processor.num_image_tokens
        if self.plain:
            return encode_caption(row.messages[1]["content"], tokenizer, count)
        return encode(list(row.messages), tokenizer, count)


class Pad:
    """Put items into one batch, conversations padded on the right."""

    def __init__(self, pad_token_id: int):
        self.pad_token_id = pad_token_id

    def __call__(self, items: list[dict]) -> dict[str, torch.Tensor]:
        pixels = {n: torch.stack([i[n] for i in items]) for n in items[0] if n.startswith("pixel")}
        return pixels | pad(items, self.pad_token_id)


def pad(items: list[dict], pad_token_id: int) -> dict[str, torch.Tensor]:
    """Return `input_ids`, `attention_mask` and `labels` (B, T) of items with lists."""
    length = max(len(i["input_ids"]) for i in items)

    def filled(key: str, value: int) -> torch.Tensor:
        return torch.tensor([i[key] + [value] * (length - len(i[key])) for i in items])

    mask = torch.tensor(
        [[1] * len(i["input_ids"]) + [0] * (length - len(i["input_ids"])) for i in items]
    )
    return {
        "input_ids": filled("input_ids", pad_token_id),
        "attention_mask": mask,
        "labels": filled("labels", IGNORE_INDEX),
    }

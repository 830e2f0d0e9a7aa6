"""Files of published data: read as their owners lay them out, or refused with their place."""

from pathlib import Path


class LayoutError(ValueError):
    """Data that is not laid out as published; its text names the file and the line."""


def read_lines(path: Path) -> list[str]:
    """Return a text file's lines.

    Raises:
        LayoutError: it is not there, or no text.
    """
    try:
        data = path.read_bytes()
    except OSError:
        raise LayoutError(f"{path} is not there.") from None
    try:
        return data.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise LayoutError(f"{path}, line {line} is not UTF-8.") from None


def readable(path: Path) -> Path:
    """Return a path found in a folder.

    Raises:
        LayoutError: its name is not UTF-8, so that nothing written down could name it.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise LayoutError(f"{path.parent} holds {path.name!a}: this name is not UTF-8.") from None
    return path

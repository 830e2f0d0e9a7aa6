"""What was done of a long work, on the disk after every step, so that a stop loses none of it."""

import json
import os
import threading
from pathlib import Path


def read_lines(path: Path) -> list[dict]:
    """Return the entries of a file; [] where there is none. A last line without end is left out."""
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]]


class Journal:
    """Lists of entries, each a file OUT/NAME.jsonl that grows by a line at a time.

    A line that a kill cut off is left out when a run goes on. May be used by several threads.
    """

    def __init__(self, out: Path, names: tuple[str, ...]):
        out.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        self.kept = {name: read_lines(out / f"{name}.jsonl") for name in names}
        self._files = {}
        for name in names:
            path = out / f"{name}.jsonl"
            if path.is_file():
                os.truncate(path, path.read_bytes().rfind(b"\n") + 1)
            self._files[name] = path.open("a", encoding="utf-8")

    def add(self, name: str, entry: dict) -> None:
        with self._lock:
            self.kept[name].append(entry)
            self._files[name].write(json.dumps(entry, ensure_ascii=False) + "\n")
            self._files[name].flush()
            os.fsync(self._files[name].fileno())

    def images(self, name: str) -> list[str]:
        return [entry["image"] for entry in self.kept[name]]

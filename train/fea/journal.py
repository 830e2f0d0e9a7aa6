"""What was done of a long work, on the disk after every step, so that a stop loses none of it."""

import json
import os
import threading
from pathlib import Path


class Journal:
    """Lists of entries, each a file OUT/NAME.jsonl that grows by a line at a time.

    A line that a kill cut off is left out when a run goes on. May be used by several threads.
    """

    def __init__(self, out: Path, names: tuple[str, ...]):
        out.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        self.kept = {name: self._read(out / f"{name}.jsonl") for name in names}
        self._files = {n: (out / f"{n}.jsonl").open("a", encoding="utf-8") for n in names}

    def _read(self, path: Path) -> list[dict]:
        if not path.is_file():
            return []
        lines = path.read_text(encoding="utf-8").split("\n")
        if lines[-1]:  # the last line has no end: it was being written
            path.write_text("\n".join([*lines[:-1], ""]), encoding="utf-8")
        return [json.loads(line) for line in lines[:-1]]

    def add(self, name: str, entry: dict) -> None:
        with self._lock:
            self.kept[name].append(entry)
            self._files[name].write(json.dumps(entry, ensure_ascii=False) + "\n")
            self._files[name].flush()
            os.fsync(self._files[name].fileno())

    def images(self, name: str) -> list[str]:
        return [entry["image"] for entry in self.kept[name]]

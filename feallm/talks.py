"""The newest talks' key-value caches, so that a follow-up question reads only its own words.

A cache belongs to a `Reading` and goes with it; a copy of a reading, as a lent GPU's worker is
given, has none, and is read anew. Between two answers a cache may be cut back to what the next
question shares with it: a talk that was stopped, undone, asked again or shortened stays correct.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from feallm.generation import Model, Reader

if TYPE_CHECKING:  # who imports this module
    from feallm.predictor import Reading

KEPT_BYTES = 2**30
"""Of the talks that wait for a question; the newest is kept whatever its size. At 7B in bf16 one of
1,000 tokens takes half of it."""


class Talks:
    """The readers of a model's newest talks, by the reading they are about.

    Args:
        kept_bytes: the oldest are forgotten when all together take more.
    """

    def __init__(self, model: Model, kept_bytes: int = KEPT_BYTES):
        self.model, self.kept_bytes = model, kept_bytes
        self._readers: WeakKeyDictionary[Reading, Reader] = WeakKeyDictionary()  # oldest first
        self._lock = threading.Lock()

    @contextmanager
    def reader(self, reading: "Reading") -> Iterator[Reader]:
        """Lend the reader of a talk; whoever asks for it meanwhile is given a new one.

        It is kept when the answer ends and when it is stopped, which happens between two tokens;
        not after an error, which may have left half a token in it.
        """
        with self._lock:
            reader = self._readers.pop(reading, None)
        reader = reader or Reader(self.model, reading.image_embeds)
        try:
            yield reader
        except GeneratorExit:
            self._keep(reading, reader)
            raise
        self._keep(reading, reader)

    def _keep(self, reading: "Reading", reader: Reader) -> None:
        with self._lock:
            self._readers[reading] = reader
            kept = list(self._readers.items())
            while len(kept) > 1 and sum(r.nbytes for _, r in kept) > self.kept_bytes:
                del self._readers[kept.pop(0)[0]]

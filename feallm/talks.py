"""The newest talks' key-value caches, so that a follow-up question reads only its own words.

A cache belongs to a `Reading` and goes with it; a copy of a reading, as a lent GPU's worker is
given, has none, and is read anew. Between two answers a cache may be cut back to what the next
question shares with it: a talk that was stopped, undone, asked again or shortened stays correct.
"""

import threading
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

    def take(self, reading: "Reading") -> Reader:
        """Return the reader of a talk; whoever asks until it is kept again is given a new one."""
        with self._lock:
            reader = self._readers.pop(reading, None)
        return reader or Reader(self.model, reading.image_embeds)

    def keep(self, reading: "Reading", reader: Reader) -> None:
        """Keep a reader between two tokens; after an error, with half a token in it, do not."""
        with self._lock:
            self._readers[reading] = reader
            kept = list(self._readers.items())
            while len(kept) > 1 and sum(r.nbytes for _, r in kept) > self.kept_bytes:
                del self._readers[kept.pop(0)[0]]

"""Several visitors' answers written together: one pass of the model gives each its next token.

A token costs reading all weights once, for one answer or for eight. Whoever asks joins at the next
token and leaves at any; an answer alone is written as `generation.stream` writes it, on a GPU by
`graphs`. The answers are the same in every way (`tests/test_chorus.py`, `tests/test_graphs.py`, in
fp32; in bf16 a tie may round the other way).
"""

import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch.nn import functional as F
from transformers import DynamicCache

from feallm.ending import working
from feallm.generation import Model, Reader, copied, next_scores, pick
from feallm.graphs import Alone, Graphs


@dataclass(eq=False)
class Voice:
    """One answer while it is written: `tokens` are its ids, then None or what went wrong."""

    reader: Reader
    eos_token_id: int
    max_new_tokens: int
    temperature: float
    generator: torch.Generator | None
    leaving: Callable[[], None]
    tokens: queue.SimpleQueue = field(default_factory=queue.SimpleQueue)
    stopped: bool = False
    left: bool = False
    written: int = 0

    @property
    def longest(self) -> int:
        """The ids that its reader may have read when the answer ends; one is chosen, not read."""
        return len(self.reader.ids) + 1 + self.max_new_tokens - self.written

    def next_token(self) -> int | None:
        """Choose the next id; None where the answer ends."""
        if self.stopped or self.written == self.max_new_tokens:
            return None
        token = pick(self.reader.logits[0], self.temperature, self.generator)
        self.written += 1
        return None if token == self.eos_token_id else token

    def leave(self, error: Exception | None = None) -> None:
        """End the answer; its reader is handed back unless it may hold half a token."""
        if not self.left:
            self.left = True
            if error is None:
                self.leaving()
            self.tokens.put(error)


class Together:
    """Readers of one face each whose key-value caches are one, padded on the left."""

    def __init__(self, model: Model, readers: list[Reader]):
        self.model, self.readers = model, readers
        lengths = [len(r.ids) for r in readers]
        self.pads = [max(lengths) - n for n in lengths]
        self.cache = DynamicCache(config=model.config.text_config)
        for number, layers in enumerate(zip(*(r.cache.layers for r in readers), strict=True)):
            keys, values = (
                torch.cat(
                    [
                        F.pad(getattr(layer, part), (0, 0, pad, 0))
                        for layer, pad in zip(layers, self.pads, strict=True)
                    ]
                )
                for part in ("keys", "values")
            )
            self.cache.update(keys, values, number)
        for reader in readers:
            reader.cache = None  # until they part: once is enough in memory
        ones = torch.ones(len(readers), max(lengths), dtype=torch.long, device=model.device)
        self.mask = (ones.cumsum(1) > torch.tensor(self.pads, device=model.device)[:, None]).long()

    def read(self, tokens: list[int]) -> None:
        """Read one more id with each reader."""
        ids = torch.tensor(tokens, device=self.model.device)[:, None]
        self.mask = F.pad(self.mask, (0, 1), value=1)
        logits = next_scores(
            self.model,
            self.cache,
            self.model.get_input_embeddings()(ids),
            attention_mask=self.mask,
            position_ids=self.mask.sum(1, keepdim=True) - 1,
        )
        for row, (reader, token) in enumerate(zip(self.readers, tokens, strict=True)):
            reader.ids.append(token)
            reader.logits = logits[row : row + 1]

    def part(self) -> None:
        """Give every reader its own cache back."""
        for row, (reader, pad) in enumerate(zip(self.readers, self.pads, strict=True)):
            reader.cache = copied(self.cache, self.model, row, slice(pad, None))


class Chorus:
    """Writes the answers of one model; `stream` may be called from any thread.

    Args:
        graphs: read for an answer alone that is not too long for them.
    """

    def __init__(self, model: Model, graphs: Graphs | None = None):
        self.model, self.graphs = model, graphs
        self._voices: list[Voice] = []
        self._lock = threading.Lock()

    def stream(
        self,
        reader: Reader,
        eos_token_id: int,
        max_new_tokens: int,
        temperature: float = 0.0,
        generator: torch.Generator | None = None,
        leaving: Callable[[], None] = lambda: None,
    ) -> Iterator[int]:
        """Yield the ids of one face's answer as they are written, which may be ahead of this.

        Closed, it returns at once and writing ends at the next token. `leaving` is called when
        nobody reads with the reader any more, before the last id's end is told; after an error,
        which is raised here, it is not.
        """
        voice = Voice(reader, eos_token_id, max_new_tokens, temperature, generator, leaving)
        self._join(voice)
        try:
            while isinstance(token := voice.tokens.get(), int):
                yield token
            if token:
                raise token
        finally:
            voice.stopped = True
            token = None  # an error holds this frame, which would hold the error and all caches

    def _join(self, voice: Voice) -> None:
        with self._lock:
            self._voices.append(voice)
            if len(self._voices) == 1:
                try:
                    threading.Thread(target=self._write, daemon=True).start()
                except RuntimeError:  # no more threads: the next one who asks shall try again
                    self._voices.clear()
                    raise

    def _singing(self) -> list[Voice]:
        with self._lock:
            self._voices = [v for v in self._voices if not v.left]
            return list(self._voices)

    @working()
    @torch.inference_mode()
    def _write(self) -> None:
        """Write until there is nobody left to write for."""
        together = None
        while voices := self._singing():
            try:
                together = self._step(voices, together)
            except Exception as error:  # of whatever kind: it is raised where the answer is read
                together = None
                for voice in voices:
                    voice.leave(error)

    def _gather(self, voices: list[Voice]) -> Together | Alone | None:
        """Join the voices' readers; None where a single one is to read by itself."""
        if len(voices) > 1:
            return Together(self.model, [v.reader for v in voices])
        if self.graphs and voices[0].longest <= self.graphs.length:
            return Alone(self.graphs, voices[0].reader)
        return None

    def _step(
        self, voices: list[Voice], together: Together | Alone | None
    ) -> Together | Alone | None:
        """Write one token of each voice; return the readers as they were gathered, if they were."""
        tokens = {v: v.next_token() for v in voices}
        going = {v: token for v, token in tokens.items() if token is not None}
        readers = [v.reader for v in going]
        if together and together.readers != readers:
            together.part()
            together = None
        for voice in voices:
            if voice not in going:
                voice.leave()
        for voice, token in going.items():
            voice.tokens.put(token)
        if going and not together:
            together = self._gather(list(going))
        if together:
            together.read(list(going.values()))
        elif readers:
            readers[0].read(list(going.values()))
        return together

"""One answer written by CUDA graphs: a token costs what the GPU does, not the asking for it.

Plain reading launches every kernel of every pass anew, for which the host takes longer than the
GPU takes to run it. A graph launches them all at once, but always on the same memory: an answer's
keys and values are copied into a cache of fixed length when it begins, and out of it when it ends
or another one joins. Attention looks at every slot, the empty ones masked. So that a short talk
does not pay for the longest, there is a graph for each of several lengths, all over the beginning
of one cache; an answer that fills one goes on with the next.
"""

import copy
from collections.abc import Callable
from functools import partial

import torch
from transformers import Cache, DynamicCache, StaticCache

from feallm.configuration import FEALLMConfig
from feallm.generation import Model, Reader, copied, next_scores

STEP, LONGEST = 512, 4096
"""Tokens by which the graphs' lengths grow, and of the longest. At 7B in bf16 a step of keys and
values is 256 MiB, a fiftieth of what is read for a token."""
CHECKED = [5, 6, 7, 8, 9, 10, 11, 12]
"""Ids that every graph reads as plain reading does, or none is used."""

Pass = Callable[[], object]
"""Reads one token: its ids, keys, values and scores lie always in the same memory."""


def captured(passes: list[Pass], device: torch.device) -> list[Pass]:
    """Return passes as CUDA graphs, which any thread may replay."""
    graphs = []
    with torch.cuda.device(device):
        stream, pool = torch.cuda.Stream(), torch.cuda.graph_pool_handle()
        for once in passes:
            torch.cuda.synchronize()
            with torch.cuda.stream(stream):
                once()  # cuBLAS and others set themselves up, which cannot be captured
            graph = torch.cuda.CUDAGraph()
            # all share a pool, for none leaves anything in it that is read later; thread_local:
            # somebody else's thread may allocate meanwhile
            with torch.cuda.graph(graph, pool, stream, capture_error_mode="thread_local"):
                once()
            graphs.append(graph)
    return [graph.replay for graph in graphs]


def beginning(cache: StaticCache, slots: int) -> Cache:
    """Return the first slots of a static cache as a cache of their own in the same memory."""
    layers = [copy.copy(layer) for layer in cache.layers]
    for layer in layers:
        layer.max_cache_len = slots
        layer.keys, layer.values = layer.keys[:, :, :slots], layer.values[:, :, :slots]
    return Cache(layers=layers)


def wanted(model: Model) -> bool:
    """Tell whether graphs help: on CUDA, and bitsandbytes' kernels were not tried in them."""
    return model.device.type == "cuda" and getattr(model, "hf_quantizer", None) is None


def length_of(config: FEALLMConfig) -> int:
    """Return how many tokens the cache of a model's graphs holds."""
    return min(LONGEST, config.text_config.max_position_embeddings)


class Graphs:
    """A model's graphs and their cache, for one answer at a time.

    Args:
        capture: makes graphs of passes; on a CPU, which has none, they may stay as they are.

    Raises:
        ValueError: the attention has a window, which would slide out of the cache's beginning.
    """

    def __init__(self, model: Model, capture: Callable[..., list[Pass]] = captured):
        text, device = model.config.text_config, model.device
        self.model, self.length = model, length_of(model.config)
        self.cache = StaticCache(config=text, max_cache_len=self.length)
        if any(self.cache.is_sliding):
            raise ValueError("the attention has a window")
        self.cache.early_initialization(
            1, text.num_key_value_heads, text.head_dim, model.dtype, device
        )
        self.lengths = [*range(STEP, self.length, STEP), self.length]
        self._token = torch.zeros(1, 1, dtype=torch.long, device=device)
        self._scores = torch.zeros(1, text.vocab_size, dtype=torch.float32, device=device)
        caches = [beginning(self.cache, slots) for slots in self.lengths]
        self._passes = capture([partial(self._pass, cache) for cache in caches], device)

    def _pass(self, cache: Cache) -> None:
        # the cache counts its tokens in a tensor, of which positions and mask are computed
        embeds = self.model.get_input_embeddings()(self._token)
        self._scores.copy_(next_scores(self.model, cache, embeds))

    def load(self, cache: DynamicCache) -> None:
        """Begin with a copy of a reader's keys and values."""
        self.cache.reset()
        for number, layer in enumerate(cache.layers):
            self.cache.update(layer.keys, layer.values, number)

    def read(self, token: int, slots: int) -> torch.Tensor:
        """Read one more id by the shortest graph of at least so many slots.

        Returns:
            (1, V): the fp32 scores of the token after it.
        """
        self._token.fill_(token)
        self._passes[(slots - 1) // STEP]()
        return self._scores.clone()

    def check(self) -> None:
        """Compare every graph with plain reading.

        Raises:
            RuntimeError: they differ by more than rounding explains: a score by the root of the
                precision's epsilon, as a share of the scores' range (9 % in bf16, 0.03 in fp32).
        """
        reader = Reader(self.model, torch.zeros(1, 0, 1))
        reader.read(CHECKED)
        begun, plain = reader.logits, []
        for token in CHECKED:
            reader.read([token])
            plain.append(reader.logits)
        reader.back_to(len(CHECKED), begun)
        tolerance = torch.finfo(self.model.dtype).eps ** 0.5
        for slots in self.lengths:
            self.load(reader.cache)
            for token, scores in zip(CHECKED, plain, strict=True):
                off = (self.read(token, slots) - scores).abs().max() / (scores.max() - scores.min())
                if not off <= tolerance:  # so that NaN fails too
                    raise RuntimeError(f"scores are off by {off:.1%} at {slots} slots")


class Alone:
    """One reader that reads by graphs; the counterpart of `chorus.Together`."""

    def __init__(self, graphs: Graphs, reader: Reader):
        self.graphs, self.readers = graphs, [reader]
        graphs.load(reader.cache)
        reader.cache = None  # until it parts: once is enough in memory

    def read(self, tokens: list[int]) -> None:
        """Read one more id."""
        [reader], [token] = self.readers, tokens
        reader.logits = self.graphs.read(token, len(reader.ids) + 1)
        reader.ids.append(token)

    def part(self) -> None:
        """Give the reader its own cache back."""
        [reader] = self.readers
        reader.cache = copied(self.graphs.cache, self.graphs.model, 0, slice(len(reader.ids)))


@torch.inference_mode()
def open_graphs(
    model: Model, say: Callable[[str], None], capture: Callable[..., list[Pass]] = captured
) -> Graphs | None:
    """Return a model's graphs, checked; where they fail None, and `say` is told why."""
    try:
        graphs = Graphs(model, capture)
        graphs.check()
    except Exception as error:  # of whatever kind: plain reading is always there
        reason, _, _ = str(error).partition("\n")
        say(f"Answers are written without CUDA graphs, which would be faster: {reason}")
        return None
    return graphs

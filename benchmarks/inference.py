"""FEALLM's answers against plain LLaVA-1.5 in transformers' generate, and how they grow.

Run as:

    python -m benchmarks.inference            true 7B sizes: a GPU, or 16 GiB of free memory
    python -m benchmarks.inference --quick    the language model cut to two layers, one thread
    python -m benchmarks.inference --one-layer --growth    true depth in less memory and time
    python -m benchmarks.inference --plot growth.png

Both models share the same random weights, since speed does not depend on their values, and
alternate in one process; every figure is a median after one round that is not counted. LLaVA is
transformers' own with generate() as it comes. A prefill goes from the pixels to the first token's
scores, with 577 image tokens (LLaVA: 576) and a question, a token longer in every round: a ratio,
the median of the rounds' own, shall not hang on how well one length suits the processor. On a GPU
FEALLM's answer is written as the page writes it, by a chorus with CUDA graphs. The first question
and its follow-ups are timed without the vision tower: a face is encoded once, before it is talked
about. On one thread of a CPU the seconds are the processor's, so that other work on the machine
does not count. The weights are in bf16, in fp32 on a CPU that only emulates bf16. With
`--one-layer` all layers of the language model have the same weights: one of them fits in no cache
(0.8 GB in fp32), so each is read from memory anew, as its own would be. NF4's peak is measured on a
GPU; else the bytes of all tensors alive at once are counted at 32 layers, from loading to a second
token, without computing any (`benchmarks.counting`). What cannot be measured here is left empty.
The last line is one JSON object.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path

import matplotlib
import torch
from torch import nn
from transformers import LlavaForConditionalGeneration
from transformers.generation.streamers import BaseStreamer
from transformers.initialization import no_init_weights

from benchmarks.counting import Uncomputed
from benchmarks.training import config, name_of_dtype
from feallm import FEALLMForConditionalGeneration
from feallm.chorus import Chorus
from feallm.device import best_dtype
from feallm.generation import Reader, stream
from feallm.graphs import open_graphs
from feallm.loading import load_model
from train.parts import keep_gradients

QUESTION, FOLLOW_UP, ANSWER = 60, 20, 60
"""Tokens of text: before the first answer, of a later question, of an answer."""
STREAMS, TURNS, FACES = (1, 2, 4, 8), (1, 5, 10, 20, 30), (1, 2, 4, 8, 12)
TARGETS = {
    "prefill_ratio": "<= 1.05",
    "decoding_ratio": ">= 1.0 on a CPU, >= 2.5 on a GPU",
    "follow_up_ratio": "<= 0.35",
    "nf4_peak_gb": "<= 6.5",
}
GROWTH = {"streams": "a token of each", "turns": "first token", "faces": "encoded and asked"}


def now(device: torch.device) -> float:
    """Return the time in seconds, of the wall or of one thread's processor; see the module."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    elif torch.get_num_threads() == 1:
        return time.process_time()
    return time.perf_counter()


class Stamps(BaseStreamer):
    """Notes when each token came; generate() also hands over the prompt, which is none."""

    def __init__(self, device: torch.device):
        self.device = device
        self.times: list[float] = []

    def put(self, value: torch.Tensor) -> None:
        self.times.append(now(self.device))

    def end(self) -> None:
        del self.times[0]  # the prompt


def share_weights(layers: nn.ModuleList) -> None:
    """Give all layers the weights of the first, in place; each keeps its own place in the cache."""
    for layer in layers[1:]:
        for name, parameter in layers[0].named_parameters():
            module, _, leaf = name.rpartition(".")
            setattr(layer.get_submodule(module), leaf, parameter)


def build(
    layers: int, device: str, one_layer: bool = False
) -> tuple[FEALLMForConditionalGeneration, LlavaForConditionalGeneration]:
    """Return a FEALLM and a LLaVA around the same modules; see the module on `one_layer`."""
    torch.set_default_dtype(best_dtype(torch.device(device)))
    with torch.device(device), no_init_weights():
        feallm = FEALLMForConditionalGeneration(config(layers)).eval()
    torch.set_default_dtype(torch.float32)
    if one_layer:
        share_weights(feallm.model.language_model.layers)
    noise = 0.02 * torch.randn(2**20, generator=torch.Generator().manual_seed(0))
    for parameter in feallm.parameters():  # the same noise again and again is as fast as any
        repeated = noise.repeat(-(-parameter.numel() // len(noise)))
        parameter.data.copy_(repeated[: parameter.numel()].view_as(parameter))
    with torch.device("meta"):
        llava = LlavaForConditionalGeneration(config(layers)).eval()
    for part in ("vision_tower", "multi_modal_projector", "language_model"):
        setattr(llava.model, part, getattr(feallm.model, part))
    llava.lm_head = feallm.lm_head
    return feallm, llava


def pictures(count: int, device: torch.device) -> dict[str, torch.Tensor]:
    """Return random faces and their crops."""
    generator = torch.Generator().manual_seed(0)
    shapes = {"pixel_values": (3, 336, 336), "pixel_values_local": (16, 3, 112, 112)}
    return {
        name: torch.randn(count, *shape, generator=generator).to(device, best_dtype(device))
        for name, shape in shapes.items()
    }


def words(count: int) -> list[int]:
    return torch.randint(5, 30_000, (count,)).tolist()


def prompt(image_tokens: int, question: int = QUESTION) -> list[int]:
    """Return the ids of a first question: the image's placeholders and the words."""
    return [1, *[32_000] * image_tokens, *words(question)]


def encode(model: FEALLMForConditionalGeneration, faces: dict) -> torch.Tensor:
    return model.model.image_tokens(model.model.fuse(**faces))


def llava_answers(model, ids: list[int], faces: dict, tokens: int) -> tuple[float, float]:
    """Return the seconds to the first token, and of each later one."""
    stamps, begun = Stamps(model.device), now(model.device)
    input_ids = torch.tensor([ids], device=model.device)
    model.generate(
        input_ids=input_ids,
        attention_mask=torch.ones_like(input_ids),
        pixel_values=faces["pixel_values"],
        do_sample=False,
        min_new_tokens=tokens,
        max_new_tokens=tokens,
        streamer=stamps,
    )
    return paces(begun, stamps.times)


def feallm_answers(
    model, ids: list[int], faces: dict, tokens: int, chorus: Chorus | None = None
) -> tuple[float, float]:
    """Return the seconds to the first token, and of each later one; a chorus is the page's way."""
    begun = now(model.device)
    reader = Reader(model, encode(model, faces))
    reader.turn_to(ids)
    if chorus:
        # it writes ahead: to wait for the device would be to wait for the token after this one
        times = [time.perf_counter() for _ in chorus.stream(reader, -1, tokens)]
    else:
        times = [now(model.device) for _ in stream(reader, -1, tokens)]
    return paces(begun, times)


def paces(begun: float, times: list[float]) -> tuple[float, float]:
    return times[0] - begun, (times[-1] - times[0]) / (len(times) - 1)


def seconds(device: torch.device, action: Callable[[], object]) -> float:
    """Return how long an action takes."""
    begun = now(device)
    action()
    return now(device) - begun


def talk(model, embeds: torch.Tensor, turns: int) -> list[float]:
    """Return the seconds to the first token of each question of a talk."""
    reader, ids, took = Reader(model, embeds), prompt(embeds.shape[1]), []
    for _ in range(turns):
        took.append(seconds(model.device, partial(reader.turn_to, ids)))
        answer = words(ANSWER)
        reader.read(answer)
        ids = [*ids, *answer, *words(FOLLOW_UP)]
    return took


def step(model, embeds: torch.Tensor, streams: int, tokens: int) -> float:
    """Return the seconds of one more token in each of several answers at once."""
    reader = Reader(model, embeds)
    reader.turn_to(prompt(embeds.shape[1]))
    reader.cache.batch_repeat_interleave(streams)
    reader.image_embeds = embeds.expand(streams, -1, -1)

    def write() -> None:
        for _ in range(tokens):
            reader.read([5])

    return seconds(model.device, write) / tokens


def several(model, count: int) -> float:
    """Return the seconds until several faces are encoded and asked, one by one as the page does."""
    face = pictures(1, model.device)

    def ask() -> None:
        for _ in range(count):
            Reader(model, encode(model, face)).turn_to(prompt(577))

    return seconds(model.device, ask)


def nf4_peak(model: FEALLMForConditionalGeneration, tokens: int) -> float:
    """Return the peak GPU memory in GB of the model in NF4 while it answers; frees the model."""
    device = model.device
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        model.to("meta")
        torch.cuda.empty_cache()
        small = load_model(folder, torch.bfloat16, "nf4").eval()
    torch.cuda.reset_peak_memory_stats()
    feallm_answers(small, prompt(577), pictures(1, device), tokens)
    return torch.cuda.max_memory_allocated() / 1e9


@torch.inference_mode()
def count_nf4_peak(layers: int) -> float:
    """Return the most in GB that tensors take while a model in NF4 answers; nothing is computed.

    It is loaded as any other, from a checkpoint of the true shapes that is a hole on the disk, and
    read as on a GPU.
    """
    with torch.device("meta"):
        model = FEALLMForConditionalGeneration(config(layers))
    faces = {n: f.bfloat16() for n, f in pictures(1, torch.device("cpu")).items()}
    with tempfile.TemporaryDirectory() as folder:
        write_hole(model, Path(folder))
        with Uncomputed() as memory:
            small = load_model(folder, torch.bfloat16, "nf4").eval()
            keep_gradients(small)  # else some CPUs lay weights out anew, which a GPU never does
            memory.peak = memory.alive  # a matrix is loaded at a time
            reader = Reader(small, encode(small, faces))
            reader.turn_to(prompt(577))
            reader.read([5])
    return memory.peak / 1e9


def write_hole(model: FEALLMForConditionalGeneration, folder: Path) -> None:
    """Write a checkpoint of a model's shapes in bf16; its weights are all zero and take no room."""
    entries, end = {}, 0
    for name, tensor in model.state_dict().items():
        begin, end = end, end + 2 * tensor.numel()
        shape = list(tensor.shape)
        entries[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [begin, end]}
    header = json.dumps(entries).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(file.tell() + end)
    model.config.save_pretrained(folder)


def measure(
    layers: int,
    tokens: int,
    repeats: int,
    device: str,
    one_layer: bool = False,
    growth: Collection[str] = tuple(GROWTH),
) -> dict:
    """Return every figure, of `GROWTH` those named; see the module."""
    feallm, llava = build(layers, device, one_layer)
    face = pictures(1, feallm.device)
    chorus = Chorus(feallm, open_graphs(feallm, print)) if device == "cuda" else None
    kinds = {
        "llava": lambda n: llava_answers(llava, prompt(576, n), face, tokens),
        "feallm": lambda n: feallm_answers(feallm, prompt(577, n), face, tokens, chorus),
    }
    first: dict[str, list[float]] = {kind: [] for kind in kinds}
    later: dict[str, list[float]] = {kind: [] for kind in kinds}
    for turn in range(repeats + 1):
        # either is first in half of the rounds: what one leaves in caches and memory meets both
        for kind in sorted(kinds, reverse=bool(turn % 2)):
            took = kinds[kind](QUESTION + turn)
            if turn:  # the first is not counted
                first[kind].append(took[0])
                later[kind].append(took[1])
    with_graphs, chorus = bool(chorus and chorus.graphs), None  # NF4 does without their memory
    embeds = encode(feallm, face)
    talks = [talk(feallm, embeds, max(TURNS) if "turns" in growth else 2) for _ in range(repeats)]
    by_turn = [statistics.median(t) for t in zip(*talks, strict=True)]
    by_streams = {
        n: statistics.median(step(feallm, embeds, n, tokens) for _ in range(repeats))
        for n in STREAMS
        if "streams" in growth
    }
    by_faces = {n: several(feallm, n) for n in FACES if "faces" in growth}
    prefill = {kind: statistics.median(v) for kind, v in first.items()}
    speed = {kind: 1 / statistics.median(v) for kind, v in later.items()}
    read = [feallm.lm_head, *feallm.model.language_model.layers]
    weights = sum(p.nbytes for part in read for p in part.parameters())
    return {
        "device": torch.cuda.get_device_name() if device == "cuda" else processor(),
        "threads": torch.get_num_threads(),
        "dtype": name_of_dtype(device),
        "seconds": "of the processor"
        if device == "cpu" and torch.get_num_threads() == 1
        else "of the wall",
        "graphs": with_graphs,
        "layers": layers,
        "one_layers_weights": one_layer,
        "prefill_s": prefill,
        "prefill_ratio": ratio(first["feallm"], first["llava"]),
        "tokens_per_second": speed,
        "decoding_ratio": ratio(later["llava"], later["feallm"]),
        "weights_read_gb_per_s": weights * speed["feallm"] / 1e9,
        "first_question_s": by_turn[0],
        "follow_up_s": by_turn[1],
        "follow_up_ratio": by_turn[1] / by_turn[0],
        "nf4_peak_gb": nf4_peak(feallm, tokens) if device == "cuda" else count_nf4_peak(32),
        "nf4": "measured" if device == "cuda" else "counted at 32 layers",
        "streams": by_streams,
        "turns": {n: by_turn[n - 1] for n in TURNS if "turns" in growth},
        "faces": by_faces,
    }


def ratio(above: list[float], below: list[float]) -> float:
    """Return the median of the rounds' ratios."""
    return statistics.median(a / b for a, b in zip(above, below, strict=True))


def processor() -> str:
    """Return the CPU's name."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((x.split(": ")[1] for x in lines if x.startswith("model name")), "CPU")


def table(result: dict) -> str:
    """Return the figures as Markdown; what was not measured is empty."""

    def figure(value: float | None, unit: str = "") -> str:
        return "" if value is None else f"{value:.3g}{unit}"

    prefill, speed = result["prefill_s"], result["tokens_per_second"]
    rows = [
        ("prefill", prefill["llava"], prefill["feallm"], " s", "prefill_ratio"),
        ("decoding", speed["llava"], speed["feallm"], " tokens/s", "decoding_ratio"),
        (
            "first question, follow-up",
            *(result["first_question_s"], result["follow_up_s"]),
            *(" s", "follow_up_ratio"),
        ),
        (f"NF4's memory, {result['nf4']}", None, result["nf4_peak_gb"], " GB", "nf4_peak_gb"),
    ]
    lines = ["| | LLaVA | FEALLM | ratio | wanted |", "|---|---|---|---|---|"]
    for name, theirs, ours, unit, key in rows:
        beside = figure(result[key]) if key.endswith("ratio") else ""
        cells = [name, figure(theirs, unit), figure(ours, unit), beside, TARGETS[key]]
        if key == "follow_up_ratio":  # both are FEALLM's
            cells[1:3] = ["", f"{cells[1]}, {cells[2]}"]
        lines.append(f"| {' | '.join(cells)} |")
    for key, what in GROWTH.items():
        grown = ", ".join(f"{n}: {figure(s)}" for n, s in result[key].items())
        lines.append(f"\nSeconds by {key} ({what}): {grown or 'not measured'}")
    return "\n".join(lines)


def plot(result: dict, path: Path) -> None:
    """Draw how the seconds grow."""
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 3, figsize=(10, 3), layout="constrained")
    for axis, (key, what) in zip(axes, GROWTH.items(), strict=True):
        axis.plot(list(result[key]), list(result[key].values()), "o-", color="#c9430f")
        axis.set(xlabel=key, title=what, ylim=(0, None))
    axes[0].set_ylabel("seconds")
    figure.suptitle(f"{result['device']}, {result['layers']} of 32 layers", fontsize=9)
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--quick", action="store_true", help="2 layers, 8 tokens, 3 repeats, 1 thread"
    )
    parser.add_argument("--layers", type=int, help="of the language model (7B: 32)")
    parser.add_argument("--tokens", type=int, help="of an answer")
    parser.add_argument("--repeats", type=int, help="that are counted")
    parser.add_argument("--threads", type=int, help="CPU cores to use")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument(
        "--one-layer", action="store_true", help="all layers have the first one's weights"
    )
    parser.add_argument(
        "--growth",
        nargs="*",
        default=list(GROWTH),
        choices=list(GROWTH),
        help="what to time; without a name the ratios alone",
    )
    parser.add_argument("--plot", type=Path, metavar="PNG", help="draw how it grows")
    args = parser.parse_args()
    if args.plot and set(args.growth) != set(GROWTH):
        parser.error("--plot draws all that --growth can name.")
    if args.threads or args.quick:
        torch.set_num_threads(args.threads or 1)
    usual = (2, 8, 3) if args.quick else (32, 64, 7)
    layers, tokens, repeats = (
        given or default
        for given, default in zip((args.layers, args.tokens, args.repeats), usual, strict=True)
    )
    with torch.inference_mode():
        result = measure(layers, tokens, repeats, args.device, args.one_layer, args.growth)
    where = f"{result['device']}, {result['threads']} threads, seconds {result['seconds']}"
    weights = ", all with one layer's weights" if args.one_layer else ""
    print(f"{where}, {layers} of 32 layers{weights}, {result['dtype']}\n")
    print(table(result))
    if args.plot:
        plot(result, args.plot)
    print(json.dumps(result))


if __name__ == "__main__":
    main()

"""Many visitors at once, each uploading, asking and stopping at random, on a server of its own.

Run as:

    python -m benchmarks.soak [--visitors 30] [--minutes 10] [--photos FOLDER]

Starts `app.py` on the loopback, lets the visitors loose and watches: no error, nobody is shown
another's talk, and the server's memory stays flat after a warm-up. Each visitor speaks to the page
through the same events as its browser does. Exits with 1 when a promise was broken. The last line
is one JSON object.
"""

import argparse
import json
import os
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil
from gradio_client import Client, handle_file
from matplotlib.cbook import get_sample_data
from PIL import Image

ROOT = Path(__file__).parent.parent
QUESTIONS = (
    "What emotion is this, and why?",
    "Which action units are active?",
    "Is the smile genuine?",
    "What is AU12?",
    "How sure are you?",
)
FAILURES = ("(stopped)", "failed on this", "out of memory", "must be")
"""In an answer nobody stopped, these are the page's excuses."""
WARM_UP = 0.3
"""Share of the run after which memory must stay flat."""


def free_port() -> int:
    """Return a port nobody listens on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def connect(url: str) -> tuple[Client, dict[str, int]]:
    """Return a client that may call the page's own events, and their numbers by name."""
    client = Client(url, verbose=False)
    for endpoint in client.endpoints.values():
        endpoint.is_valid = True  # the client would leave the private ones alone
    return client, {d["api_name"]: d["id"] for d in client.config["dependencies"]}


def reading_of(parts: tuple) -> tuple | None:
    """Return what the page shows of a face: its expression and every unit's percentage."""
    shown = [p for p in parts if isinstance(p, dict)]
    verdict = next((p for p in shown if "expression" in p and "chain" in p), None)
    units = next((p for p in shown if "glossary" in p), None)
    if not verdict or not units:
        return None
    return verdict["expression"], *((u["au"], u["percent"]) for u in units["glossary"])


def give_photo(client: Client, on: dict[str, int], photo: Path) -> tuple | None:
    """Give a photo and return what the page shows of its largest face at the end."""
    client.submit(handle_file(photo), fn_index=on["start"]).result(timeout=600)
    job = client.submit(fn_index=on["read"])
    job.result(timeout=600)
    return reading_of(job.outputs()[-1])


class Visitor(threading.Thread):
    """Uploads, asks and stops at random until the time is over.

    `expected` is the reading of each photo when nobody else was there.
    """

    def __init__(self, number: int, url: str, expected: dict[Path, tuple], until: float):
        super().__init__(daemon=True)
        self.number, self.url, self.expected, self.until = number, url, expected, until
        self.rng = random.Random(number)
        self.done = {"photos": 0, "answers": 0, "stopped": 0}
        self.seconds: list[float] = []
        self.problems: list[str] = []

    def run(self) -> None:
        try:
            while time.monotonic() < self.until:
                self.visit()
        except Exception as error:  # whatever it is, the soak has failed and says so
            self.problems.append(f"visitor {self.number}: {type(error).__name__}: {error}")

    def visit(self) -> None:
        """One tab: a photo, some questions with the visitor's own mark, some of them stopped."""
        client, on = connect(self.url)
        photo = self.rng.choice(list(self.expected))
        begun = time.monotonic()
        seen = give_photo(client, on, photo)
        self.seconds.append(time.monotonic() - begun)
        if seen != self.expected[photo]:
            self.problems.append(f"visitor {self.number} sent {photo.name} and was shown {seen}")
            return
        self.done["photos"] += 1
        for _ in range(self.rng.randint(1, 3)):
            if time.monotonic() > self.until:
                break
            question = f"{self.rng.choice(QUESTIONS)} (visitor {self.number})"
            client.predict(question, fn_index=on["ask"])
            job = client.submit(fn_index=on["answer"])
            if self.rng.random() < 0.3:
                time.sleep(self.rng.random() * 0.3)
                job.cancel()
                client.predict(fn_index=on["stop"])
                self.done["stopped"] += 1
            else:
                self.check(job.result(timeout=300)[0])
                self.done["answers"] += 1
        client.close()

    def check(self, chat: list[dict]) -> None:
        """The talk shown must be this visitor's alone, and end in an answer."""
        text = json.dumps(chat)
        marks = {m.split(")")[0] for m in text.split("(visitor ")[1:]}
        last = chat[-1]["content"][0]["text"]
        if marks != {str(self.number)}:
            self.problems.append(f"visitor {self.number} was shown the talk of {marks}")
        if chat[-1]["role"] != "assistant" or any(f in last for f in FAILURES):
            self.problems.append(f"visitor {self.number} was answered {last!r}")


def serve(port: int) -> subprocess.Popen:
    """Start the page and wait until it answers."""
    env = os.environ | {"FEALLM_PORT": str(port), "GRADIO_TEMP_DIR": tempfile.mkdtemp()}
    server = subprocess.Popen([sys.executable, "app.py"], cwd=ROOT, env=env)
    for _ in range(240):
        with socket.socket() as sock:
            if sock.connect_ex(("127.0.0.1", port)) == 0:
                return server
        time.sleep(0.5)
    raise SystemExit("The page did not start.")


def example_photos(folder: Path) -> list[Path]:
    """Write three versions of the portrait that comes with matplotlib."""
    with get_sample_data("grace_hopper.jpg") as file:
        portrait = Image.open(file).convert("RGB")
    paths = []
    for i, shade in enumerate((1.0, 0.7, 0.4)):
        paths.append(folder / f"{i}.jpg")
        portrait.point(lambda v, s=shade: int(v * s)).save(paths[-1])
    return paths


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--visitors", type=int, default=30)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--photos", type=Path, help="folder of photos with faces")
    args = parser.parse_args()
    made = Path(tempfile.mkdtemp())
    photos = sorted(args.photos.glob("*.jpg")) if args.photos else example_photos(made)
    port = free_port()
    server = serve(port)
    url = f"http://127.0.0.1:{port}"
    try:
        expected = {}
        for photo in photos:
            client, on = connect(url)
            expected[photo] = give_photo(client, on, photo)
        if None in expected.values():
            raise SystemExit("Every photo needs a face.")
        begun, process = time.monotonic(), psutil.Process(server.pid)
        until = begun + 60 * args.minutes
        visitors = [Visitor(i, url, expected, until) for i in range(args.visitors)]
        for visitor in visitors:
            visitor.start()
        memory = []
        while any(v.is_alive() for v in visitors) and time.monotonic() < until + 300:
            if server.poll() is not None:
                raise SystemExit("The page died.")
            memory.append((time.monotonic() - begun, process.memory_info().rss / 2**20))
            time.sleep(1)
    finally:
        server.terminate()
    warm = [m for t, m in memory if t > WARM_UP * 60 * args.minutes]
    third = max(1, len(warm) // 3)
    first, last = statistics.median(warm[:third]), statistics.median(warm[-third:])
    tenths = [memory[i * (len(memory) - 1) // 10][1] for i in range(11)]
    problems = [p for v in visitors for p in v.problems]
    problems += [f"visitor {v.number} never came to an end" for v in visitors if v.is_alive()]
    if last > 1.1 * first:
        problems.append(f"memory grew from {first:.0f} to {last:.0f} MiB after the warm-up")
    done = {k: sum(v.done[k] for v in visitors) for k in visitors[0].done}
    waits = [s for v in visitors for s in v.seconds]
    print(f"{args.visitors} visitors, {args.minutes:g} minutes: {done}")
    print(f"photo to reading: median {statistics.median(waits):.1f} s, worst {max(waits):.1f} s")
    print(f"memory after the warm-up: {first:.0f} -> {last:.0f} MiB")
    print("memory by tenths of the run:", " ".join(f"{m:.0f}" for m in tenths))
    for problem in problems:
        print(problem)
    figures = {"median_wait_s": statistics.median(waits), "worst_wait_s": max(waits)}
    print(json.dumps(done | figures | {"memory_mib": [first, last], "problems": problems}))
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()

"""Time the page as a visitor meets it: until it is usable, its weight, a photo, a closed tab.

Run as:

    python -m benchmarks.page [--visits 5]

Starts `app.py` on the loopback and visits it with Chromium, each time with an empty cache. The page
counts as usable when a photo can be given and the server has answered the page's first event. Then
the portrait that comes with matplotlib is read and a question asked. That a closed tab frees the
model is timed on a page of this process, whose model would never stop writing. Figures are medians
and the worst; the last line is one JSON object.
"""

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Iterator

from matplotlib.cbook import get_sample_data
from playwright.sync_api import Browser, Page, sync_playwright

from benchmarks.soak import free_port, serve
from feallm import Predictor
from page.layout import build_demo
from page.theme import launch_options
from page.uploads import temporary_folder

CHROMIUM = "/usr/bin/chromium"
SEVERAL = "() => document.querySelectorAll('#chat .message').length > 2"
"""The model's first description, the question and some of its answer are shown."""


def visit(browser: Browser, url: str) -> tuple[dict[str, float], float]:
    """Return what one visit with an empty cache took and weighed, and when it was usable."""
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    page, weights = context.new_page(), []
    watch = context.new_cdp_session(page)
    watch.on("Network.loadingFinished", lambda event: weights.append(event["encodedDataLength"]))
    watch.send("Network.enable")
    page.goto(url, wait_until="commit")
    page.wait_for_selector("#upload input[type=file]", state="attached")
    page.wait_for_function("document.querySelector('.badge')?.textContent.trim().length > 3")
    usable = page.evaluate(
        "performance.now() - performance.getEntriesByType('navigation')[0].responseStart"
    )
    usable_at = time.perf_counter()
    page.wait_for_timeout(1500)  # a stream stays open: the network is never idle
    weight, requests = sum(weights) / 1000, len(weights)
    begun = time.perf_counter()
    give_photo(page)
    read = time.perf_counter() - begun
    begun = time.perf_counter()
    ask(page, "Is the smile genuine?")
    answered = time.perf_counter() - begun
    context.close()
    return {
        "usable_s": usable / 1000,
        "weight_kb": weight,
        "requests": requests,
        "photo_s": read,
        "first_words_s": answered,
    }, usable_at


def give_photo(page: Page) -> None:
    """Give a photo and wait until its face is read and shown."""
    portrait = get_sample_data("grace_hopper.jpg", asfileobj=False)
    page.locator("#upload input[type=file]").set_input_files(portrait)
    page.wait_for_selector(".verdict strong")


def ask(page: Page, question: str) -> None:
    """Ask and wait for the answer's first words."""
    page.locator("#question textarea").fill(question)
    page.locator("#question textarea").press("Enter")
    page.wait_for_function(SEVERAL)


class Endless(Predictor):
    """Writes until it is stopped, and notes when that was."""

    stopped = 0.0

    def stream(self, *_args, **_kwargs) -> Iterator[str]:
        try:
            while True:
                time.sleep(0.05)
                yield "more "
        finally:
            self.stopped = time.perf_counter()


def closed_tabs(browser: Browser, count: int) -> list[float]:
    """Return the seconds from closing a tab to the model's being free."""
    os.environ["GRADIO_TEMP_DIR"] = temporary_folder()
    predictor, seconds = Endless(), []
    demo = build_demo(predictor)
    _, url, _ = demo.launch(
        server_name="127.0.0.1", prevent_thread_lock=True, quiet=True, **launch_options()
    )
    for _ in range(count):
        context = browser.new_context()
        page = context.new_page()
        page.goto(url)
        give_photo(page)
        ask(page, "Tell me everything.")
        predictor.stopped = 0.0
        closed = time.perf_counter()
        context.close()
        while not predictor.stopped and time.perf_counter() < closed + 60:
            time.sleep(0.01)
        seconds.append((predictor.stopped or float("inf")) - closed)
    demo.close()
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--visits", type=int, default=5)
    args = parser.parse_args()
    begun = time.perf_counter()
    port = free_port()
    server = serve(port)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        try:
            url = f"http://127.0.0.1:{port}"
            started = visit(browser, url)[1] - begun
            visits = [visit(browser, url)[0] for _ in range(args.visits)]
        finally:
            server.terminate()
        freed = closed_tabs(browser, args.visits)
        browser.close()
    figures = {name: [v[name] for v in visits] for name in visits[0]} | {"freed_s": freed}
    result = {n: [round(statistics.median(v), 3), round(max(v), 3)] for n, v in figures.items()}
    print(f"from `python app.py` to a usable page  {started:6.1f} s")
    for name, text in (
        ("usable_s", "first byte to usable, s"),
        ("weight_kb", "transferred before a photo, KB"),
        ("requests", "requests before a photo"),
        ("photo_s", "photo to reading shown, s"),
        ("first_words_s", "question to first words shown, s"),
        ("freed_s", "tab closed to model free, s"),
    ):
        median, worst = result[name]
        print(f"{text:<38} {median:7.2f}   worst {worst:.2f}")
    print(json.dumps({"started_s": round(started, 2), **result}))
    sys.stdout.flush()
    os._exit(0)  # gradio's threads would keep the process


if __name__ == "__main__":
    main()

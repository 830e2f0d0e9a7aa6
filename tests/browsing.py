"""A stand-in for the model, the page around it, and what a visitor's browser does."""

import io
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from conftest import made_reading
from PIL import Image
from playwright.sync_api import Page, expect

from feallm.configuration import CROP_GROUPS
from feallm.crops import list_crops
from feallm.facs import AUS
from page.layout import build_demo
from page.theme import launch_options


class StandIn:
    """Answers at once, and says which face it was asked about."""

    name, device, face_size, tuned = "stand-in", torch.device("cpu"), 96, True
    thresholds = dict.fromkeys(AUS, 0.5)
    voices = 1
    crops = list_crops(list(CROP_GROUPS))

    def __init__(self):
        self.analysed, self.covered, self.stopped, self.temperatures = 0, 0, 0, []
        self.broken = False

    def analyse(self, face: Image.Image):
        self.analysed += 1
        if self.broken:
            raise RuntimeError("secret detail of the server")
        reading = made_reading(face=face)
        return replace(reading, summary=f"Happiness. Shade {np.asarray(face).mean():.0f}.")

    def chances(self, faces, active):
        """Covered faces are unsure; the whole one, which comes first, is as it was read."""
        self.covered += 1
        reading = made_reading()
        expressions = np.full((len(faces), 7), 1 / 7)
        expressions[0] = list(reading.expression_probabilities.values())
        units = np.full((len(faces), 12), 0.3)
        units[0] = list(reading.action_unit_probabilities.values())
        return expressions, units

    def fitting(self, reading, messages):
        return messages[-5:]

    def stream(self, reading, messages, temperature=0.0, seed=None):
        self.temperatures.append(temperature)
        try:
            question = messages[-1]["content"]
            slow = "slowly" in question
            if "fail" in question:
                raise RuntimeError("secret detail of the server")
            for word in f"You asked: {question} AU12 says {reading.summary}".split(" "):
                time.sleep(0.02)
                yield word + " "
            for _ in range(400 if slow else 0):
                time.sleep(0.05)
                yield "more "
        finally:
            self.stopped += 1


def serve(predictor, **options):
    demo = build_demo(predictor, **options)
    _, url, _ = demo.launch(
        server_name="127.0.0.1", prevent_thread_lock=True, quiet=True, **launch_options()
    )
    return demo, url


def png(picture: Image.Image) -> dict:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return {"name": "photo.png", "mimeType": "image/png", "buffer": buffer.getvalue()}


def upload(page: Page, file: dict) -> None:
    page.locator("#upload input[type=file]").set_input_files(file)


def upload_and_read(page: Page, picture: Image.Image) -> None:
    """Upload a photo and wait until its largest face was read."""
    upload(page, png(picture))
    expect(page.locator(".verdict strong")).to_be_visible()


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    """Return whether a condition came true in time."""
    until = time.monotonic() + seconds
    while not condition() and time.monotonic() < until:
        time.sleep(0.02)
    return condition()


def ask(page: Page, question: str) -> None:
    page.locator("#question textarea").fill(question)
    page.locator("#question textarea").press("Enter")

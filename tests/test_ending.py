"""Python may end while threads compute: none of them aborts the process."""

import subprocess
import sys
import threading
from pathlib import Path

from conftest import reader_of, tiny_model

from feallm import ending

ROOT = Path(__file__).parent.parent

AT_WORK = """
import threading
from PIL import Image
from feallm import Predictor
from feallm.faces import detect_faces

photo = Image.effect_noise((600, 600), 50).convert("RGB")
face = photo.resize((96, 96))
predictor = Predictor()
reading = predictor.analyse(face)
question = [{"role": "user", "content": "What does this face show?"}]

def again(work):
    while True:
        work()

for work in (
    lambda: detect_faces(photo),
    lambda: predictor.analyse(face),
    lambda: list(predictor.stream(reading, question)),
):
    work()
    threading.Thread(target=again, args=[work], daemon=True).start()
"""


def test_python_may_end_in_the_middle_of_detections_analyses_and_answers():
    done = subprocess.run(
        [sys.executable, "-c", AT_WORK], cwd=ROOT, capture_output=True, timeout=240
    )
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    assert b"Traceback" not in done.stderr, done.stderr.decode()[-2000:]


def test_no_step_begins_while_python_ends(monkeypatch):
    reader, done = reader_of(tiny_model(), [1, 5, 6]), []

    def read() -> None:
        with ending.working():
            reader.read([7])
        done.append("a step")

    def told() -> None:
        monkeypatch.setattr(ending, "_ending", True)
        reader.read([7])
        done.append("another")

    for work in (told, read):
        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        thread.join(1)
        assert thread.is_alive() and not done and not ending._at_work

"""Python may end while threads compute: none of them aborts the process."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from conftest import reader_of, tiny_model

from feallm import ending

ANSWER = """
from conftest import reader_of, tiny_model
from feallm.chorus import Chorus

model = tiny_model()
tokens = Chorus(model).stream(reader_of(model, [1, 5, 6]), -1, 4000)
next(tokens)
"""
AT_WORK = """
import threading
from PIL import Image
from feallm import Predictor
from feallm.faces import detect_faces

photo = Image.effect_noise((600, 600), 50).convert("RGB")
face = photo.resize((96, 96))
predictor = Predictor()

def again():
    while True:
        {work}

threading.Thread(target=again, daemon=True).start()
{work}
print("begun")
"""
WORK = {
    "an answer": ANSWER,
    "an analysis": AT_WORK.format(work="predictor.analyse(face)"),
    "a detection": AT_WORK.format(work="detect_faces(photo)"),
}


@pytest.mark.parametrize("work", WORK)
def test_python_may_end_in_the_middle(work):
    paths = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[1])])
    done = subprocess.run(
        [sys.executable, "-c", WORK[work]],
        env=os.environ | {"PYTHONPATH": paths},
        capture_output=True,
        timeout=240,
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

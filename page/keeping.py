"""What a visitor leaves behind, and for how long: uploads on the disk, sessions in memory.

Gradio deletes only files it remembers, and keeps every part's last value of a session that ended;
a photo would outlive both a kill and its hour. So files go by their age alone, whichever process
wrote them, and a session goes as a whole.
"""

import threading
import time
import traceback
from functools import partial
from pathlib import Path

import gradio as gr
from gradio import processing_utils

from page.visit import Visit


def sweep_files(folder: Path, age: float) -> None:
    """Delete what was last changed over `age` seconds ago: files, and folders that are empty.

    A young empty folder stays: somebody may be about to write into it.
    """
    for path in sorted(folder.rglob("*"), reverse=True):  # a folder comes after what it holds
        try:
            if time.time() - path.lstat().st_mtime <= age:
                continue
            if path.is_dir():
                path.rmdir()
            else:
                path.unlink()
        except OSError:
            continue  # not empty, or somebody else was faster


def visits_of(session) -> list[Visit]:
    """Return the visits in Gradio's state of a session, if there is one."""
    values = list(session.state_data.values()) if session else []
    return [value for value in values if isinstance(value, Visit)]


def sweep_sessions(demo: gr.Blocks, age: float) -> None:
    """Forget the sessions whose photo came, or whose last event was, over `age` seconds ago."""
    holder = getattr(demo, "state_holder", None)  # there is none before the launch
    if holder is None:
        return
    now = time.time()
    for name, used in list(holder.time_last_used.items()):
        session = holder.session_data.get(name)
        came = [visit.oldest for visit in visits_of(session)]
        if now - min([used.timestamp(), *came]) > age:
            holder.session_data.pop(name, None)
            holder.time_last_used.pop(name, None)


def end_answers(demo: gr.Blocks, session: str | None) -> None:
    """Let an answer end that is written for a visitor who is gone; what was written stays."""
    holder = getattr(demo, "state_holder", None)
    for visit in visits_of(holder.session_data.get(session) if holder else None):
        visit.drop()


def keep_clean(demo: gr.Blocks, folder: Path, every: float, age: float) -> None:
    """Sweep now and every `every` seconds, in the background, as long as the process lives."""

    def sweep() -> None:
        while True:
            for work in (partial(sweep_files, folder), partial(sweep_sessions, demo)):
                try:
                    work(age)
                except Exception:  # a folder that vanished, say: the next round must come
                    traceback.print_exc()
            time.sleep(every)

    threading.Thread(target=sweep, name="sweeper", daemon=True).start()


def refuse_downloads() -> None:
    """Never fetch a photo for a visitor who sends its address instead of the photo.

    Gradio would, before any handler of ours sees the payload.
    """

    def refuse(url: str, cache_dir: str) -> str:
        raise gr.Error("Send the photo itself, not its address.", print_exception=False)

    async def refuse_later(url: str, cache_dir: str) -> str:
        return refuse(url, cache_dir)

    processing_utils.async_ssrf_protected_download = refuse_later
    processing_utils.ssrf_protected_download = processing_utils.save_url_to_cache = refuse

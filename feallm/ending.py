"""Python may end while a thread computes, as when the page is stopped in the middle of an analysis.

A daemon thread, as a web server's are, that comes back from torch to a Python that has ended aborts
the process (until Python 3.14). So whoever computes says so, and the end waits until it has come to
its next step, where it stops for good: nothing of it is undone, which would compute again.
"""

import atexit
import contextlib
import threading
from collections.abc import Iterator

PATIENCE = 60
"""Seconds that the end waits for steps that were begun."""

_changed = threading.Condition()
_at_work: list[int] = []  # a thread's number for each time that it has begun
_ending = False


def check() -> None:
    """Stop this thread for good if Python is ending; the main thread, which ends it, goes on."""
    if _ending and threading.current_thread() is not threading.main_thread():
        with _changed:
            number = threading.get_ident()
            _at_work[:] = [n for n in _at_work if n != number]
            _changed.notify_all()
        threading.Event().wait()


@contextlib.contextmanager
def working() -> Iterator[None]:
    """Hold up Python's end while something is computed."""
    with _changed:
        _at_work.append(threading.get_ident())
    check()
    try:
        yield
    finally:
        check()
        with _changed:
            _at_work.remove(threading.get_ident())
            _changed.notify_all()


@atexit.register
def _end() -> None:
    global _ending
    with _changed:
        _ending = True
        _changed.wait_for(lambda: not _at_work, PATIENCE)

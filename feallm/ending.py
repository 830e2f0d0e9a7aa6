"""Python may end while a thread computes, as when the page is stopped in the middle of an analysis.

A daemon thread, as a web server's are, that comes back from torch to a Python that has ended aborts
the process (until Python 3.14). So whoever computes says so, and is waited for; what takes many
steps asks before each whether to go on.
"""

import atexit
import contextlib
import threading
from collections.abc import Iterator

PATIENCE = 60
"""Seconds that the end waits for a step that was begun."""

_changed = threading.Condition()
_at_work = 0
_ending = False


def check() -> None:
    """End this thread if Python is ending.

    Raises:
        SystemExit: which no `except Exception` holds up, and which ends a thread without a word.
    """
    if _ending:
        raise SystemExit("Python ends.")


@contextlib.contextmanager
def working() -> Iterator[None]:
    """Hold up Python's end while something is computed; see `check` for what it raises."""
    global _at_work
    with _changed:
        check()
        _at_work += 1
    try:
        yield
    finally:
        with _changed:
            _at_work -= 1
            _changed.notify_all()


@atexit.register
def _end() -> None:
    global _ending
    with _changed:
        _ending = True
        _changed.wait_for(lambda: not _at_work, PATIENCE)

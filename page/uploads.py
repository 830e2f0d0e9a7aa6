"""The one folder uploads lie in; to be set before Gradio is imported, which keeps some paths."""

import os
import tempfile
from pathlib import Path

FOLDER = "feallm-uploads"
"""Name of the one folder in which files are deleted by their age: all in it are ours."""


def temporary_folder() -> str:
    """Return what GRADIO_TEMP_DIR should be: a folder of ours where it says, or the system."""
    parent = Path(os.environ.get("GRADIO_TEMP_DIR") or tempfile.gettempdir())
    return str(parent if parent.name == FOLDER else parent / FOLDER)


def own_folder(folder: str) -> Path:
    """Return the folder of the uploads.

    Raises:
        RuntimeError: others may keep their files in it.
    """
    if Path(folder).name != FOLDER:
        raise RuntimeError(
            f"Uploads would lie in {folder}: let GRADIO_TEMP_DIR be uploads.temporary_folder()."
        )
    return Path(folder)

"""The one folder uploads lie in; to be set before Gradio is imported, which keeps some paths."""

import os
import tempfile
from pathlib import Path

FOLDER = "feallm-uploads"
"""How the one folder is called in which files are deleted by their age: all in it are ours."""


def temporary_folder() -> str:
    """Return what GRADIO_TEMP_DIR should be: a folder of ours where it says, or the system.

    The system's is for all who use the machine, so there it bears its user's number.
    """
    named = os.environ.get("GRADIO_TEMP_DIR")
    if named and Path(named).name.startswith(FOLDER):
        return named
    user = "" if named or not hasattr(os, "getuid") else f"-{os.getuid()}"
    return str(Path(named or tempfile.gettempdir()) / f"{FOLDER}{user}")


def own_folder(name: str) -> Path:
    """Return the folder of the uploads, which nobody else may read; it is made if need be.

    Raises:
        RuntimeError: others may keep their files in it, or it is somebody else's.
    """
    folder = Path(name)
    if not folder.name.startswith(FOLDER):
        raise RuntimeError(
            f"Uploads would lie in {folder}: let GRADIO_TEMP_DIR be uploads.temporary_folder()."
        )
    folder.mkdir(parents=True, exist_ok=True)
    if hasattr(os, "getuid") and folder.lstat().st_uid != os.getuid():
        raise RuntimeError(f"{folder} is somebody else's: name a folder in GRADIO_TEMP_DIR.")
    folder.chmod(0o700)  # Gradio may have made it for all to read
    return folder

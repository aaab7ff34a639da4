"""Writing a file so that it is whole, or not there at all, whatever happens meanwhile."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

ROOT = Path(__file__).parents[1]  #: of `common` and `backends`; child processes start there


def write_whole(path: Path, data: bytes) -> None:
    """Write beside the file's place, sync, rename; OSError, and the old file, where that fails.

    A kill may leave `.NAME.part`, which nobody reads and the next try writes anew.
    """
    temporary = path.with_name(f".{path.name}.part")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except OSError:
        with contextlib.suppress(OSError):  # the folder itself may be the trouble
            temporary.unlink(missing_ok=True)
        raise


def _sync_folder(folder: Path) -> None:
    """Have the new name survive a power failure too, where the system can open a folder."""
    if hasattr(os, "O_DIRECTORY"):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

"""Atomic file writes: after a crash a file has its old or its new content, never a part of it."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

ROOT = Path(__file__).parents[
    1
]  #: the folder of `common` and `backends`; child processes start there


def write_whole(path: Path, data: bytes) -> None:
    """Write a temporary file in the same folder, sync it, and rename it to `path`.

    On OSError the old file is unchanged. A killed process may leave `.NAME.part`. Nothing reads
    that file, and the next write replaces it.
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
        with contextlib.suppress(OSError):  # the folder itself may be the cause
            temporary.unlink(missing_ok=True)
        raise


def _sync_folder(folder: Path) -> None:
    """Make the new name survive a power failure, on systems that can open a folder."""
    if hasattr(os, "O_DIRECTORY"):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

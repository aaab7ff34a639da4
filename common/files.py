"""Files written atomically and read with care: after a crash a file is old or new, never a part.

Folders and files may come from a stranger. A write never follows a link, and a read refuses what
is not an ordinary file of a sane size.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
import sys
import time
from collections.abc import Iterator
from pathlib import Path

#: the folder of `common` and `backends`; child processes start there
ROOT = Path(__file__).parents[1]

BINARY = getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0)  # Windows has no such flag
RENAME_SECONDS = 2.0  #: Windows refuses to replace a file while another process reads it


def install_command(extra: str, pins: str = "") -> str:
    """The command that installs an extra of this project, from any folder.

    `pins` names the constraints file, without its ending.
    """
    here = ROOT if (ROOT / "pyproject.toml").exists() and Path.cwd() != ROOT else Path()
    project = f"{here}[{extra}]" if here != Path() else f".[{extra}]"
    constraints = f"-c {here / 'constraints' / pins}.txt " if pins else ""
    return f"pip install {constraints}-e '{project if extra else here}'"


def python_path() -> str:
    """The PYTHONPATH with which a child process finds `common` and `backends`."""
    return os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])


def write_whole(path: Path, data: bytes) -> None:
    """Write a new temporary file in the same folder, sync it, and rename it to `path`.

    The temporary file has a random name and must not exist yet, so nobody else's file is written.
    If `path` is a link, the link is replaced and not the file behind it.

    On OSError the old file is unchanged. A killed process may leave `.NAME.RANDOM.part`. Nothing
    reads that file; `leftovers` finds it.
    """
    temporary = path.with_name(f".{path.name[:40]}.{secrets.token_hex(8)}.part")
    try:
        with open(_create(temporary), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        _replace(temporary, path)
        _sync_folder(path.parent)
    except OSError:
        with contextlib.suppress(OSError):  # the folder itself may be the cause
            temporary.unlink(missing_ok=True)
        raise


def leftovers(path: Path) -> Iterator[Path]:
    """Yield the temporary files of `path` that killed processes left.

    Only who knows that nobody writes `path` at this moment may remove them.
    """
    with contextlib.suppress(OSError):
        for each in list(path.parent.iterdir()):
            if each.name.startswith(f".{path.name[:40]}.") and each.name.endswith(".part"):
                yield each


def read_ordinary(path: Path, most: int) -> bytes:
    """Return the bytes of a file of at most `most` bytes.

    Raises OSError, with a sentence as its `strerror`, for a larger file and for anything that is
    not an ordinary file: opening a pipe would block, and a device may have no end.
    """
    if not stat.S_ISREG(path.stat().st_mode):  # first: opening some devices has an effect
        raise _refused(path)
    handle = os.open(path, os.O_RDONLY | BINARY | getattr(os, "O_NONBLOCK", 0))
    with open(handle, "rb") as file:
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode):  # it may have been exchanged
            raise _refused(path)
        if found.st_size > most:
            raise OSError(errno.EFBIG, f"it is larger than {most} bytes", str(path))
        return file.read(found.st_size)


def leads_out(path: Path, folder: Path) -> bool:
    """Return whether links take a path in a folder to a place outside of it."""
    return not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))


def _refused(path: Path) -> OSError:
    return OSError(errno.EINVAL, "it is not an ordinary file", str(path))


def _create(path: Path) -> int:
    """Open a file that must not exist, not even as a link."""
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | NO_FOLLOW | BINARY, 0o666)


def _replace(source: Path, destination: Path) -> None:
    """Rename a file; on Windows, wait for those who read the old one."""
    end = time.monotonic() + RENAME_SECONDS
    while True:
        try:
            return os.replace(source, destination)
        except PermissionError:
            if sys.platform != "win32" or time.monotonic() > end:
                raise
            time.sleep(0.01)


def _sync_folder(folder: Path) -> None:
    """Make the new name survive a power failure, on systems that can open a folder."""
    if hasattr(os, "O_DIRECTORY"):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

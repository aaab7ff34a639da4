"""The lock of a run's folder: one process at a time may train in it.

The lock is advisory, and on the file `.lock`. The system releases it when the process ends, however
it ends. The file names the holder only for the message.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import stat
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import click

from common.errors import RunError, printable
from common.files import BINARY, NO_FOLLOW, read_ordinary

NAME = ".lock"
LARGEST = 4096  #: bytes of the file
BYTE = 2**30  #: Windows locks this byte; others may then read those before it

if sys.platform == "win32":
    import msvcrt

    def _try_lock(handle: int) -> bool:
        """Lock an open file without waiting; whether it worked."""
        os.lseek(handle, BYTE, os.SEEK_SET)
        try:
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

else:
    import fcntl

    def _try_lock(handle: int) -> bool:
        """Lock an open file without waiting; whether it worked."""
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


@contextlib.contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold the lock of an existing folder.

    Raises RunError that names the holder if another process has it, and OSError if the file cannot
    be made. On a file system without locks, a warning is printed and nothing is held.
    """
    path = folder / NAME
    handle = _acquire(folder)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            if sys.platform == "win32":  # it cannot remove an open file
                os.close(handle)
                path.unlink()
            else:
                path.unlink()  # still locked: who waits for this file sees that it is gone
                os.close(handle)


def _acquire(folder: Path) -> int:
    path = folder / NAME
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | NO_FOLLOW | BINARY, 0o666)
        try:
            _require_own(handle, path)
            try:
                locked = _try_lock(handle)
            except OSError as error:
                reason = error.strerror or str(error)
                click.echo(
                    f"warning: {printable(folder)} cannot be locked ({reason}): start no second "
                    "run in it.",
                    err=True,
                )
                return handle
            if not locked:
                raise RunError(
                    f"{folder} is in use: {_holder(path)} trains in it; wait until that run has "
                    "ended, or choose another folder with `--out`."
                )
            if _is(handle, path):  # else the one before removed the file when it ended
                with contextlib.suppress(OSError):  # the disk is full: they are for a message only
                    _write_holder(handle)
                return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


def _write_holder(handle: int) -> None:
    since = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
    facts = {"pid": os.getpid(), "host": socket.gethostname(), "since": since}
    os.truncate(handle, 0)
    os.lseek(handle, 0, os.SEEK_SET)
    os.write(handle, json.dumps(facts).encode())


def _require_own(handle: int, path: Path) -> None:
    """OSError unless the file is an ordinary one with no second name: it will be overwritten."""
    found = os.fstat(handle)
    if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
        raise OSError(errno.EINVAL, f"{NAME} is not an ordinary file", str(path))


def _is(handle: int, path: Path) -> bool:
    """Return whether the path still names the open file."""
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


def _holder(path: Path) -> str:
    """Return who holds the lock, in words."""
    try:
        found = json.loads(read_ordinary(path, LARGEST))
        pid, host, since = found["pid"], found["host"], found["since"]
        if type(pid) is int and isinstance(host, str) and isinstance(since, str):
            return f"process {pid} on {host}, since {since},"
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        pass  # it has the lock and has not written the file yet
    return "another process"

"""The limits of the processes that read files of unknown origin.

Whatever such a file holds, reading or refusing it takes at most 1 GB of memory and 10 seconds of
processor time. The system ends what needs more. A file of weights of more than 128 MB may take
eight times its size. Windows has no such limits, and macOS does not limit the address space.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time

MEMORY = 2**30  #: bytes of address space
FACTOR = 8  #: bytes of address space for each byte of a large file of weights
SECONDS = 10  #: of processor time for one file
WAIT = 120  #: seconds until a reading process is given up: the processor may be busy
TOO_LARGE = f"needs more than {MEMORY // 2**30} GB of memory"
TOO_LONG = f"takes more than {SECONDS} seconds"


def environment() -> dict[str, str]:
    """The environment of a reading process: threads would take address space; it says UTF-8."""
    threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    return {**os.environ, **threads, "PYTHONIOENCODING": "utf-8"}


def limit_memory(size: int = 0) -> None:
    """Limit the memory of this process, and forbid writing files; `size` is that of its input."""
    _limit("RLIMIT_AS", max(MEMORY, FACTOR * size))
    _limit("RLIMIT_FSIZE", 0)
    _limit("RLIMIT_CORE", 0)


def limit_seconds() -> None:
    """Give this process SECONDS of processor time from now on; it may be called again."""
    _limit("RLIMIT_CPU", int(time.process_time()) + 1 + SECONDS, again=True)


def _limit(what: str, most: int, again: bool = False) -> None:
    """Set a limit, which can only be raised later if it may be set `again`."""
    try:
        import resource
    except ImportError:  # Windows
        return
    kind = getattr(resource, what)
    _, hard = resource.getrlimit(kind)
    if hard != resource.RLIM_INFINITY:
        most = min(most, hard)
    with contextlib.suppress(OSError, ValueError):  # macOS does not limit the address space
        resource.setrlimit(kind, (most, hard if again else most))


def ended_by_time(status: int) -> bool:
    """Whether this is the exit status of a process that used up its processor time."""
    return hasattr(signal, "SIGXCPU") and status == -signal.SIGXCPU

"""A process that is one of several workers: they meet, hold a watchdog, and leave together.

A worker is the very command `googlenet train` in a process that a launcher started: it finds its
part in the environment (`join` of its backend). Under `launch.start` there is one more variable,
GOOGLENET_WORKERS, which names a folder: there it puts its output and how it ended.
"""

from __future__ import annotations

import ctypes
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import numpy as np

from backends import load
from common.distributed.watchdog import (
    CLEAN_EXIT,
    DEATH_GRACE,
    FOLDER,
    PeerWatchdog,
    end_with,
    note,
)
from common.errors import GoogLeNetError, Stopped, WorkersError, one_line
from common.rendezvous import local_rank

if TYPE_CHECKING:
    from common.contract import Backend


JOIN = "GOOGLENET_JOIN_SECONDS"  # how long a worker waits for the others to join
DEBOUNCE = 5.0  # seconds in which a second signal is the launcher's copy of the first

LEAVING = threading.Event()
PEER_LOST = "A worker, a server or the scheduler is gone."  # all that MXNet's processes know


@contextmanager
def joined(backend: Backend, device: str, folder: Path) -> Iterator[tuple[int, int]]:
    """This worker's number and how many there are, from when all have come until all are done.

    WorkersError where they do not come together. A worker among others that fails ends here, with
    its sentence: what a framework does at the exit of a process could wait for them for ever.
    """
    seconds = float(os.environ.get(JOIN, 20))
    late = WorkersError(
        f"Not all workers joined within {seconds:g} s: see that every one is started and reaches "
        f"the others, or set {JOIN} to wait longer."
    )
    timer = threading.Timer(seconds, end_with, (late,))
    timer.daemon = True
    timer.start()
    try:
        rank, count = backend.init_process_group(device)
        line = PeerWatchdog(backend, folder, rank, count)  # no worker goes on before all have come
    except GoogLeNetError as error:
        end_with(error)
    except Exception as error:
        end_with(WorkersError(f"The workers cannot join: {one_line(error)[:200]}."))
    finally:
        timer.cancel()
    note(worker=rank, folder=str(folder))
    with delayed_terminate(count):
        try:
            yield rank, count
        except Stopped as error:
            # a copy: the frames of the other hold tensors, which must go before their framework
            line.stopped = Stopped(str(error), error.exit_code - 128)
            shut_down(backend, line)
            raise
        except Exception as error:
            if count > 1:
                fail(error)
            raise
        shut_down(backend, line)


def shut_down(backend: Backend, line: PeerWatchdog) -> None:
    """Leave when all do: worker 0 has saved before a launcher sees any of them end."""
    try:
        backend.all_reduce_sum(np.zeros(1))
    except Exception as error:
        fail(error)
    line.tell(CLEAN_EXIT)
    LEAVING.set()
    backend.destroy_process_group()


def fail(error: Exception) -> NoReturn:
    """End with this error, if the watchdog does not say that another worker is gone."""
    if not isinstance(error, GoogLeNetError):
        time.sleep(DEATH_GRACE)  # the framework may see it first
    end_with(error)


@contextmanager
def delayed_terminate(count: int) -> Iterator[None]:
    """Let the watchdog speak before an exception that C++ does not catch ends the process.

    Paddle's gloo and PyTorch's NCCL raise one when another worker is gone.
    """
    set_terminate = None
    with suppress(OSError, AttributeError):  # another C++ library
        if count > 1:
            set_terminate = ctypes.CDLL("libstdc++.so.6")._ZSt13set_terminatePFvvE
    if set_terminate is None:
        yield
        return
    set_terminate.restype = kind = ctypes.CFUNCTYPE(None)

    def wait() -> None:
        time.sleep(DEATH_GRACE)
        before()

    handler = kind(wait)
    before = set_terminate(handler)
    try:
        yield
    finally:
        set_terminate(before)


@contextmanager
def worker() -> Iterator[None]:
    """Inside a process of `start`: output into its folder, and an end when it ends."""
    if FOLDER not in os.environ:
        serve()
        yield
        return
    folder = Path(os.environ[FOLDER])
    for stream, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(folder / f"{os.getpid()}.{name}", os.O_WRONLY | os.O_CREAT), stream)
    threading.Thread(target=follow, args=(folder / "lock",), daemon=True).start()
    note(worker=local_rank(), role=os.environ.get("DMLC_ROLE", "worker"))
    try:
        serve()
        yield
    except GoogLeNetError as error:
        note(status=error.exit_code, sentence=str(error))
        raise
    except Exception:
        note(status=1)
        raise
    except BaseException:  # a signal, before the loop heard it
        note(status=128)
        raise
    note(status=0)


def serve() -> None:
    """Be MXNet's scheduler or server if the environment says so, until the workers are done."""
    role = os.environ.get("DMLC_ROLE")
    if role is None:
        return
    names = ("DMLC_NUM_WORKER", "DMLC_NUM_SERVER")
    peers = sum(int(os.environ.get(name, 0)) for name in names)
    whole = peers + 2 if role == "scheduler" else 1  # with itself it is connected too: two ends
    threading.Thread(target=accompany, args=(whole,), daemon=True).start()
    if role != "worker":
        load("mxnet")  # does not return
        raise SystemExit


def accompany(whole: int) -> None:
    """End after MXNet's other processes, which do not tell each other of a death.

    So many connections with the scheduler this process has while all live.
    """
    seen = float("inf")
    while time.monotonic() - seen < DEATH_GRACE:
        time.sleep(1)
        with suppress(OSError):
            if connections(int(os.environ["DMLC_PS_ROOT_PORT"])) >= whole:
                seen = time.monotonic()
    if not LEAVING.is_set():
        end_with(WorkersError(PEER_LOST))


def connections(port: int) -> int:
    """How many connections of this process have that port at an end, as Linux tells."""
    own = set()
    for path in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # the one that lists them
            own.add(os.readlink(path))
    rows = [row.split() for row in Path("/proc/self/net/tcp").read_text().splitlines()[1:]]
    ends = f":{port:04X}"
    return sum(
        row[3] == "01" and ends in (row[1][-5:], row[2][-5:]) and f"socket:[{row[9]}]" in own
        for row in rows
    )


def follow(lock: Path) -> None:
    """End when the process that holds the lock does, however that was."""
    import fcntl  # here: Windows has none, and every backend imports this module

    with lock.open() as file:
        fcntl.flock(file, fcntl.LOCK_SH)
    end_with(WorkersError("The process that started this worker is gone."))

"""A worker process: it joins the others, runs a peer watchdog, and shuts down with the others.

A worker runs the command `googlenet train` in a process that a launcher started. The environment
holds its rank (`init_process_group` of its backend). `launcher.start` also sets GOOGLENET_WORKERS.
This names a folder, where the worker writes its output and its exit status.
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


JOIN = "GOOGLENET_JOIN_SECONDS"  # environment variable: seconds to wait for the others to join
DEBOUNCE = 5.0  # seconds in which a second signal is a launcher's copy of the first

LEAVING = threading.Event()  # set when all workers are done
PEER_LOST = "A worker, a server or the scheduler is gone."  # MXNet does not know which one


@contextmanager
def joined(backend: Backend, device: str, folder: Path) -> Iterator[tuple[int, int]]:
    """Join the other workers; yield this worker's rank and the number of workers.

    WorkersError if not all workers join in time. If a worker fails, its process ends here with the
    error, because a framework's exit handlers could wait for the other workers for ever.
    """
    seconds = float(os.environ.get(JOIN, 20))
    late = WorkersError(
        f"Not all workers joined within {seconds:g} s: check that each one is started and can "
        f"reach the others, or set {JOIN} to wait longer."
    )
    timer = threading.Timer(seconds, end_with, (late,))
    timer.daemon = True
    timer.start()
    try:
        rank, count = backend.init_process_group(device)
        watchdog = PeerWatchdog(backend, folder, rank, count)  # blocks until all have joined
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
            # a copy: the original's frames hold tensors, which must be freed before the framework
            watchdog.stopped = Stopped(str(error), error.exit_code - 128)
            shut_down(backend, watchdog)
            raise
        except Exception as error:
            if count > 1:
                fail(error)
            raise
        shut_down(backend, watchdog)


def shut_down(backend: Backend, watchdog: PeerWatchdog) -> None:
    """Shut down when all workers are done, so that worker 0 has saved before any of them ends."""
    try:
        backend.all_reduce_sum(np.zeros(1))
    except Exception as error:
        fail(error)
    watchdog.tell(CLEAN_EXIT)
    LEAVING.set()
    backend.destroy_process_group()


def fail(error: Exception) -> NoReturn:
    """End the process with this error, unless the watchdog reports a dead worker first."""
    if not isinstance(error, GoogLeNetError):
        time.sleep(DEATH_GRACE)  # the framework may notice a dead worker before the watchdog
    end_with(error)


@contextmanager
def delayed_terminate(count: int) -> Iterator[None]:
    """Delay `std::terminate`, so that the watchdog can report before C++ ends the process.

    Paddle's gloo and PyTorch's NCCL raise an uncaught C++ exception when another worker dies.
    """
    set_terminate = None
    with suppress(OSError, AttributeError):  # a C++ library other than libstdc++
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
    """In a process of `launcher.start`: write the output into its folder, and end when it ends."""
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
    except BaseException:  # a signal before the training loop polls for signals
        note(status=128)
        raise
    note(status=0)


def serve() -> None:
    """If the environment sets the role, run MXNet's scheduler or server until the workers end."""
    role = os.environ.get("DMLC_ROLE")
    if role is None:
        return
    names = ("DMLC_NUM_WORKER", "DMLC_NUM_SERVER")
    peers = sum(int(os.environ.get(name, 0)) for name in names)
    expected = peers + 2 if role == "scheduler" else 1  # plus both ends of one to itself
    threading.Thread(target=accompany, args=(expected,), daemon=True).start()
    if role != "worker":
        load("mxnet")  # does not return
        raise SystemExit


def accompany(expected: int) -> None:
    """End this process after another MXNet process dies. MXNet does not report that itself.

    `expected` is the number of connections with the scheduler while all processes are alive.
    """
    complete = float("inf")  # the last time that all connections existed
    while time.monotonic() - complete < DEATH_GRACE:
        time.sleep(1)
        with suppress(OSError):
            if connections(int(os.environ["DMLC_PS_ROOT_PORT"])) >= expected:
                complete = time.monotonic()
    if not LEAVING.is_set():
        end_with(WorkersError(PEER_LOST))


def connections(port: int) -> int:
    """Return how many connections of this process use the port at either end; Linux only."""
    own = set()
    for path in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # the descriptor that lists the folder
            own.add(os.readlink(path))
    rows = [row.split() for row in Path("/proc/self/net/tcp").read_text().splitlines()[1:]]
    ends = f":{port:04X}"
    return sum(
        row[3] == "01" and ends in (row[1][-5:], row[2][-5:]) and f"socket:[{row[9]}]" in own
        for row in rows
    )


def follow(lock: Path) -> None:
    """End when the process that holds the lock ends, for any reason."""
    import fcntl  # imported here: Windows lacks it

    with lock.open() as file:
        fcntl.flock(file, fcntl.LOCK_SH)
    end_with(WorkersError("The process that started this worker is gone."))

"""A worker process: it joins the others, runs a peer watchdog, and shuts down with the others.

A worker runs the command `googlenet train` in a process that a launcher started. The environment
holds its rank (`init_process_group` of its backend). `launcher.start` also sets GOOGLENET_WORKERS.
This names a folder, where the worker writes its output and its exit status.
"""

from __future__ import annotations

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


def join_seconds() -> float:
    """Return the seconds to wait for the other workers; WorkersError if JOIN is no number."""
    given = os.environ.get(JOIN) or "20"
    with suppress(ValueError):
        if 0 < float(given) <= threading.TIMEOUT_MAX:
            return float(given)
    raise WorkersError(f"{JOIN} is {given!r}: give a number of seconds above 0, such as 60.")


@contextmanager
def joined(backend: Backend, device: str, folder: Path) -> Iterator[tuple[int, int]]:
    """Join the other workers; yield this worker's rank and the number of workers.

    WorkersError if not all workers join in time. If a worker fails, its process ends here with the
    error, because a framework's exit handlers could wait for the other workers for ever.
    """
    seconds = join_seconds()
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
    except KeyError as error:
        end_with(
            WorkersError(
                f"The workers cannot join: {error.args[0]} is not set for this worker. Set it as "
                "docs/parallel.md shows, or use `--workers`."
            )
        )
    except Exception as error:
        end_with(WorkersError(f"The workers cannot join: {one_line(error)[:200]}."))
    finally:
        timer.cancel()
    note(worker=rank, folder=str(folder))
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
    backend.destroy_process_group()


def fail(error: Exception) -> NoReturn:
    """End the process with this error, unless the watchdog reports a dead worker first."""
    if not isinstance(error, GoogLeNetError):
        time.sleep(DEATH_GRACE)  # the framework may notice a dead worker before the watchdog
    end_with(error)


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
    if os.environ.get("DMLC_ROLE", "worker") != "worker":
        load("mxnet")  # does not return
        raise SystemExit


def follow(lock: Path) -> None:
    """End when the process that holds the lock ends, for any reason."""
    import fcntl  # imported here: Windows lacks it

    with lock.open() as file:
        fcntl.flock(file, fcntl.LOCK_SH)
    end_with(WorkersError("The process that started this worker is gone."))

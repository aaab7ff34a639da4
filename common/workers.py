"""A process that is one of several workers: they meet, hold a lifeline, and leave together.

A worker is the very command `googlenet train` in a process that a launcher started: it finds its
part in the environment (`join` of its backend). Under `launch.start` there is one more variable,
GOOGLENET_WORKERS, which names a folder: there it puts its output and how it ended.
"""

from __future__ import annotations

import ctypes
import json
import os
import secrets
import socket
import struct
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click
import numpy as np

from backends import load
from common.errors import GoogLeNetError, Stopped, WorkersError, one_line
from common.files import write_whole

if TYPE_CHECKING:
    from common.contract import Backend
    from common.training import Plan

FOLDER = "GOOGLENET_WORKERS"
JOIN = "GOOGLENET_JOIN_SECONDS"  # how long a worker waits for the others to join
DEAF = 5.0  # seconds in which a second signal is the launcher's copy of the first
VERDICT = 5.0  # seconds in which a worker learns that another is gone, if that is its fault
#: a machine that is lost closes nothing: it is known within a minute by answering no more
LOST_MACHINE = {"TCP_KEEPIDLE": 20, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 4}
NOBODY = 2**32 - 1  # said in the place of the number of the worker that is gone
ENDING = threading.Lock()
LEAVING = threading.Event()
LEFT = "A worker, a server or the scheduler is gone."  # all that MXNet's processes know


def need_port(port: int | str, way_out: str) -> None:
    """WorkersError unless this process could listen at that port."""
    with socket.socket() as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind(("", int(port)))
        except OSError as error:
            raise WorkersError(
                f"Port {port} of this machine is taken ({error.strerror}): free it, or choose "
                f"another with {way_out}, the same for all workers."
            ) from error


def meet(addresses: Sequence[str], rank: int, way_out: str) -> None:
    """Wait until every worker has come to its address, HOST:PORT; then all of these are free."""
    _, _, port = addresses[rank].rpartition(":")
    need_port(port, way_out)
    others = [each for each in addresses if each != addresses[rank]]
    with socket.create_server(("", int(port)), backlog=len(addresses)) as server:
        ours = [called(*address.rpartition(":")[::2]) for address in others]
        theirs = [server.accept()[0] for _ in others]  # each comes once
    for line in ours:
        line.close()  # which says that this port is free
    for line in theirs:
        with line, suppress(ConnectionError):
            line.recv(1)


def called(host: str, port: str) -> socket.socket:
    """A connection with that address, once somebody listens there."""
    while True:
        try:
            return socket.create_connection((host, int(port)), 1)
        except OSError:
            time.sleep(0.1)


def started() -> bool:
    """Whether a launcher seems to have started this process, as one of several."""
    names = ("WORLD_SIZE", "TF_CONFIG", "PADDLE_TRAINERS_NUM", "DMLC_ROLE")
    return any(name in os.environ for name in names)


def local_rank() -> int:
    """This worker's number on its machine, which picks its GPU; 0 where nobody tells."""
    names = ("LOCAL_RANK", "PADDLE_LOCAL_RANK", "SLURM_LOCALID")  # torchrun's, Paddle's, Slurm's
    return next((int(os.environ[name]) for name in names if name in os.environ), 0)


def own_device(device: str, requested: str, found: Sequence[str]) -> str:
    """The chosen device, or where any GPU will do, the one of this worker's number."""
    gpus = [each for each in found if each != "cpu"]
    if device == "cpu" or requested not in ("auto", "gpu"):
        return device
    return gpus[local_rank() % len(gpus)]


@contextmanager
def joined(plan: Plan, device: str) -> Iterator[tuple[int, int]]:
    """This worker's number and how many there are, from when all have come until all are done.

    WorkersError where they do not come together. A worker among others that fails ends here, with
    its sentence: what a framework does at the exit of a process could wait for them for ever.
    """
    backend, seconds = plan.backend, float(os.environ.get(JOIN, 20))
    late = WorkersError(
        f"Not all workers joined within {seconds:g} s: see that every one is started and reaches "
        f"the others, or set {JOIN} to wait longer."
    )
    timer = threading.Timer(seconds, end_with, (late,))
    timer.daemon = True
    timer.start()
    try:
        rank, count = backend.join(device)
        line = Lifeline(plan, rank, count)  # no worker goes on before all have come
    except GoogLeNetError as error:
        end_with(error)
    except Exception as error:
        end_with(WorkersError(f"The workers cannot join: {one_line(error)[:200]}."))
    finally:
        timer.cancel()
    note(worker=rank, folder=str(plan.run.folder))
    with slow_abort(count):
        try:
            yield rank, count
        except Stopped as error:
            # a copy: the frames of the other hold tensors, which must go before their framework
            line.stopped = Stopped(str(error), error.exit_code - 128)
            part(backend, line)
            raise
        except Exception as error:
            if count > 1:
                fail(error)
            raise
        part(backend, line)


def part(backend: Backend, line: Lifeline) -> None:
    """Leave when all do: worker 0 has saved before a launcher sees any of them end."""
    try:
        backend.total(np.zeros(1))
    except Exception as error:
        fail(error)
    line.tell(NOBODY)
    LEAVING.set()
    backend.leave()


def fail(error: Exception) -> NoReturn:
    """End with this error, if the lifeline does not say that another worker is gone."""
    if not isinstance(error, GoogLeNetError):
        time.sleep(VERDICT)  # the framework may see it first
    end_with(error)


class Lifeline:
    """A connection of every worker with worker 0, which its system closes when a process is gone.

    Then every other worker ends, with a sentence that says which. A thread waits for that: it runs
    also while the main thread waits in the framework for what will never come.
    """

    def __init__(self, plan: Plan, rank: int, count: int) -> None:
        """Waits for all workers; WorkersError if worker 0 is not reached."""
        self.plan, self.rank, self.count = plan, rank, count
        self.stopped: Stopped | None = None  # then it does not matter who is gone
        self.lines: dict[int, socket.socket] = {}
        if rank or count == 1:
            *route, port, token = plan.backend.total(np.zeros(6)).astype(int).tolist()
            if rank:
                self.reach(".".join(map(str, route)), port, struct.pack("!II", rank, token))
        else:
            both = socket.has_dualstack_ipv6()
            family = socket.AF_INET6 if both else socket.AF_INET
            with socket.create_server(("", 0), family=family, dualstack_ipv6=both) as server:
                token = secrets.randbelow(2**24)  # exact also where float32 is summed
                route = socket.inet_aton(own_address())
                told = [*route, server.getsockname()[1], token]
                plan.backend.total(np.array(told, np.float64))
                while len(self.lines) < count - 1:
                    self.admit(server.accept()[0], token)
        for other, line in self.lines.items():
            line.settimeout(None)
            line.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for name, value in LOST_MACHINE.items():
                if hasattr(socket, name):  # not all systems have all
                    line.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
            threading.Thread(target=self.watch, args=(other, line), daemon=True).start()

    def reach(self, route: str, port: int, hello: bytes) -> None:
        """Connect with worker 0: by its own address, or by the host that the environment names."""
        for host in (route, meeting_place()):
            with suppress(OSError):
                line = socket.create_connection((host, port), VERDICT)
                line.sendall(hello)
                if line.recv(len(hello)) == hello:
                    self.lines[0] = line
                    return
        raise WorkersError(
            f"Worker {self.rank} does not reach worker 0 at {route}:{port}: let the machines of "
            "the workers connect with each other at any port."
        )

    def admit(self, line: socket.socket, token: int) -> None:
        """Take up a worker that says its number and the token; whatever else came is let go."""
        with suppress(OSError, struct.error):
            line.settimeout(VERDICT)
            hello = line.recv(8)
            other, said = struct.unpack("!II", hello)
            if said == token:
                line.sendall(hello)
                self.lines[other] = line
                return
        line.close()

    def tell(self, gone: int) -> None:
        """Say to all others which worker is gone, or that NOBODY is and this one leaves."""
        for line in self.lines.values():
            with suppress(OSError):
                line.sendall(struct.pack("!I", gone))

    def watch(self, other: int, line: socket.socket) -> None:
        """Wait for the other's last word; without one it is gone, and this process ends."""
        word = b""
        with suppress(OSError):
            word = line.recv(4)
        gone = struct.unpack("!I", word)[0] if word else other
        if gone == NOBODY:
            return
        self.tell(gone)
        time.sleep(1)  # what this worker has to say of itself comes first
        way_on = f"go on with `--resume {self.plan.run.folder}`"
        sentence = f"Worker {gone} of {self.count} is gone: {way_on}."
        end_with(self.stopped or WorkersError(sentence))


def meeting_place() -> str:
    """The host that the environment names for all workers to meet at."""
    config = json.loads(os.environ.get("TF_CONFIG", "{}"))
    addresses = config.get("cluster", {}).get("worker", [])
    addresses += os.environ.get("PADDLE_TRAINER_ENDPOINTS", "").split(",")
    hosts = [address.rpartition(":")[0] for address in addresses]
    hosts += [os.environ.get(name, "") for name in ("DMLC_PS_ROOT_URI", "MASTER_ADDR")]
    return next(filter(None, hosts), "127.0.0.1")


def own_address() -> str:
    """This machine's IPv4 address as it is seen from there."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as unused, suppress(OSError):
        unused.connect((meeting_place(), 9))  # nothing is sent
        return str(unused.getsockname()[0])
    return "0.0.0.0"


@contextmanager
def slow_abort(count: int) -> Iterator[None]:
    """Let the lifeline speak before an exception that C++ does not catch ends the process.

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
        time.sleep(VERDICT)
        before()

    handler = kind(wait)
    before = set_terminate(handler)
    try:
        yield
    finally:
        set_terminate(before)


def end_with(error: Exception) -> NoReturn:
    """Say what happened and end the process at once; the first that comes here does."""
    ENDING.acquire()
    status = 1
    if isinstance(error, GoogLeNetError):
        status = error.exit_code
        click.echo(f"googlenet: {error}", err=True)
        note(status=status, sentence=str(error))
    else:
        traceback.print_exception(error)
        note(status=status)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def note(**facts: Any) -> None:
    """Tell the process that started this worker, if it was `start`."""
    if FOLDER in os.environ:
        path = Path(os.environ[FOLDER]) / f"{os.getpid()}.json"
        with suppress(OSError):  # it is gone, and its folder
            before = json.loads(path.read_text()) if path.exists() else {}
            write_whole(path, json.dumps({**before, **facts}).encode())


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
    while time.monotonic() - seen < VERDICT:
        time.sleep(1)
        with suppress(OSError):
            if connections(int(os.environ["DMLC_PS_ROOT_PORT"])) >= whole:
                seen = time.monotonic()
    if not LEAVING.is_set():
        end_with(WorkersError(LEFT))


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

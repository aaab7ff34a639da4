"""Several workers: started on this machine by their framework's own launcher, or by anybody's.

A worker is the very command `googlenet train` in a process that a launcher started: it finds its
part in the environment (`join` of its backend). `start` is what `--workers N` does: the launcher,
and one more variable, GOOGLENET_WORKERS, which names a folder. There each worker puts its output
and how it ended, so that one process speaks for all of them.
"""

from __future__ import annotations

import ctypes
import json
import os
import secrets
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click
import numpy as np

from backends import load, require
from common.errors import GoogLeNetError, Stopped, WorkersError, one_line
from common.files import write_whole

if TYPE_CHECKING:
    from common.contract import Backend
    from common.training import Plan

FOLDER = "GOOGLENET_WORKERS"
JOIN = "GOOGLENET_JOIN_SECONDS"  # how long a worker waits for the others to join
DEAF = 5.0  # seconds in which a second signal is the launcher's copy of the first
PATIENCE = 8.0  # seconds that the others have to end by themselves, once one has failed
VERDICT = 5.0  # seconds in which a worker learns that another is gone, if that is its fault
#: a machine that is lost closes nothing: it is known within a minute by answering no more
LOST_MACHINE = {"TCP_KEEPIDLE": 20, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 4}
NOBODY = 2**32 - 1  # said in the place of the number of the worker that is gone
ROOT = Path(__file__).parent.parent
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


def start(name: str, count: int, words: Sequence[str], stop: Callable[[], int]) -> None:
    """Run `googlenet train` with these words in so many workers.

    Shows what worker 0 prints, hands a signal on, and when one worker fails ends all of them, with
    that worker's error.
    """
    import fcntl  # as above

    with tempfile.TemporaryDirectory(prefix="googlenet-") as path:
        folder = Path(path)
        (folder / "lock").touch()
        with (folder / "lock").open() as lock, (folder / "launcher").open("w") as log:
            fcntl.flock(lock, fcntl.LOCK_EX)
            command = [sys.executable, "-m", "common.cli", "train", *words]
            children = [
                subprocess.Popen(
                    each,
                    env=environment(count) | more | {FOLDER: path},
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,  # Ctrl-C is heard here alone, and handed on once
                )
                for each, more in LAUNCHERS[name](count, command, folder)
            ]
            try:
                dead = attend(children, folder, stop)
            finally:
                kill_all(children, folder)
            if not notes(folder):
                require(name)  # without it there is no launcher either
            judge(folder, count, dead, stop())


def environment(count: int) -> dict[str, str]:
    """What every worker on this machine gets: its share of the cores, unless the user said so."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    threads = str(max(1, (cores or 1) // count))
    names = ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**dict.fromkeys(names, threads), **os.environ, "PYTHONPATH": os.pathsep.join(paths)}


Started = list[tuple[list[str], dict[str, str]]]  #: commands, and what their environment has more


def torchrun(count: int, command: list[str], folder: Path) -> Started:
    """PyTorch's own launcher, which finds a port by itself."""
    run = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
    return [([*run, str(count), *command[1:]], {})]


def tf_config(count: int, command: list[str], folder: Path) -> Started:
    """TensorFlow has no launcher: a process each, which learns from TF_CONFIG who it is."""
    addresses = [f"127.0.0.1:{port}" for port in free_ports(count)]
    return [
        (
            command,
            {
                "TF_CONFIG": json.dumps(
                    {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
                ),
                "LOCAL_RANK": str(index),
            },
        )
        for index in range(count)
    ]


def dmlc(count: int, command: list[str], folder: Path) -> Started:
    """MXNet's wheel has no launching command: a scheduler, a server, which sums, the workers."""
    common = {
        "DMLC_PS_ROOT_URI": "127.0.0.1",
        "DMLC_PS_ROOT_PORT": str(free_ports(1)[0]),
        "DMLC_NODE_HOST": "127.0.0.1",
        "DMLC_NUM_SERVER": "1",
        "DMLC_NUM_WORKER": str(count),
    }
    roles = [("scheduler", 0), ("server", 0), *(("worker", index) for index in range(count))]
    return [
        (command, {**common, "DMLC_ROLE": role, "LOCAL_RANK": str(index)}) for role, index in roles
    ]


def paddle_launch(count: int, command: list[str], folder: Path) -> Started:
    """Paddle's own launcher, which takes a script, or any other command."""
    run = [sys.executable, "-m", "paddle.distributed.launch", "--nproc_per_node", str(count)]
    return [([*run, "--log_dir", str(folder / "logs"), *command], {})]


#: how each framework's workers are started on one machine
LAUNCHERS = {"torch": torchrun, "tf": tf_config, "mxnet": dmlc, "paddle": paddle_launch}


def free_ports(count: int) -> list[int]:
    """So many ports of this machine that nobody listens at."""
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def attend(children: list[subprocess.Popen], folder: Path, stop: Callable[[], int]) -> list[int]:
    """Until all have ended: show what is printed, hand a signal on, lose patience.

    Gives the processes that ended without a word, the first of them if they did not at once.
    """
    shown: dict[Path, int] = {}
    handed, deadline, first = False, float("inf"), list[int]()
    while None in [child.poll() for child in children] and time.monotonic() < deadline:
        time.sleep(0.1)
        show(folder, shown)
        found = notes(folder)
        if (signum := stop()) and not handed:
            handed = True
            for pid in found or [child.pid for child in children]:
                with suppress(ProcessLookupError):
                    os.kill(pid, signum)
        failed = any(child.returncode for child in children) or silent(folder)
        if deadline == float("inf") and (failed or any(n.get("status") for n in found.values())):
            deadline, first = time.monotonic() + PATIENCE, silent(folder)
    show(folder, shown)
    return first or silent(folder)


def silent(folder: Path) -> list[int]:
    """The processes that ended without a word."""
    gone = [pid for pid in notes(folder) if not alive(pid)]
    told = notes(folder)  # read again: one may have told it just before it ended
    return [pid for pid in gone if "status" not in told[pid]]


def show(folder: Path, shown: dict[Path, int]) -> None:
    """What the workers have printed since the last time."""
    for path in folder.glob("*.out"):
        with path.open("rb") as file:
            file.seek(shown.get(path, 0))
            new = file.read()
            shown[path] = file.tell()
        if new:
            click.echo(new.decode(errors="replace"), nl=False)


def notes(folder: Path) -> dict[int, dict[str, Any]]:
    """What each process has told, by its number."""
    return {int(path.stem): json.loads(path.read_text()) for path in folder.glob("[0-9]*.json")}


def alive(pid: int) -> bool:
    """Whether there is such a process, which has not ended while its launcher looks away."""
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except ProcessLookupError:
        return False
    except OSError:  # no Linux
        return True


def kill_all(children: list[subprocess.Popen], folder: Path) -> None:
    """Leave nothing running; what has ended by itself is not touched."""
    for pid in [pid for pid, each in notes(folder).items() if "status" not in each]:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    for child in children:
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def judge(folder: Path, count: int, dead: list[int], signum: int) -> None:
    """Raise what went wrong, if anything did: the one sentence that tells most."""
    found = [(pid, each) for pid, each in notes(folder).items() if each["role"] == "worker"]
    found.sort(key=lambda item: item[1]["worker"])
    if len(found) == count and all(each.get("status") == 0 for _, each in found):
        return
    told = [each for _, each in found if "sentence" in each]
    of_its_own = [each for each in told if each["status"] != WorkersError.exit_code]
    crashed = [pid for pid, each in found if each.get("status") == 1]
    gone = [each for pid, each in found if pid in dead]
    absent = [each for _, each in found if "folder" not in each and "status" not in each]
    way_on = [f": go on with `--resume {each['folder']}`" for _, each in found if "folder" in each]
    if of_its_own:
        sentence, status = of_its_own[0]["sentence"], of_its_own[0]["status"]
    elif signum:
        sentence, status = "stopped before the first step.", 128 + signum
    elif crashed:
        sentence, status = f"A worker failed: {last_words(folder / f'{crashed[0]}.err')}", 1
    elif gone:
        which = f"Worker {gone[0]['worker']} of {count} was killed"
        sentence, status = "".join([which, *way_on[:1], "."]), WorkersError.exit_code
    elif absent:
        which = f"Worker {absent[0]['worker']} of {count} never joined"
        sentence, status = f"{which}: the others waited in vain.", WorkersError.exit_code
    elif told:
        sentence, status = told[0]["sentence"], told[0]["status"]
    else:
        words = last_words(folder / "launcher")
        sentence, status = f"The launcher failed: {words}", WorkersError.exit_code
    error = WorkersError(sentence)
    error.exit_code = status
    raise error


def last_words(path: Path) -> str:
    """The last line that a process wrote."""
    lines = path.read_text(errors="replace").split("\n") if path.exists() else []
    return next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing.")

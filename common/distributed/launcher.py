"""Start several workers on this machine with their framework's own launcher: `--workers N`.

`start` gives the workers a folder. Each worker writes its output and its exit status there
(`common/distributed/workers.py`), so that one process can report for all of them.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from backends import require
from common.distributed.private_network import private_network
from common.distributed.watchdog import FOLDER
from common.errors import WorkersError
from common.files import python_path
from common.processor import usable_cores

EXPOSED = (
    "this system allows no private network for the workers, so other machines may reach the ports "
    "that the framework opens: train only in a network that you trust."
)
REMARKS = (b"warning: ", b"note: ")  # how the lines on stderr begin that the user should see
PATIENCE = 8.0  # seconds that the other workers have to exit after one has failed


def start(name: str, count: int, arguments: Sequence[str], stop: Callable[[], int]) -> None:
    """Run `googlenet train` with these arguments in `count` workers of the backend `name`.

    Prints the output of worker 0 and forwards a signal. If one worker fails, stops all workers and
    raises that worker's error.
    """
    import fcntl  # imported here: Windows lacks it, and `googlenet train` imports this module

    with tempfile.TemporaryDirectory(prefix="googlenet-") as path:
        folder = Path(path)
        (folder / "lock").touch()
        with (
            (folder / "lock").open() as lock,
            (folder / "launcher").open("w") as log,
            private_network() as enter,
        ):
            fcntl.flock(lock, fcntl.LOCK_EX)
            if enter is None:
                click.echo(f"warning: {EXPOSED}", err=True)
            command = [sys.executable, "-m", "common.cli", "train", *arguments]
            children = [
                subprocess.Popen(
                    [*(enter or []), *each],
                    env=environment(count) | more | {FOLDER: path},
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,  # only this process gets Ctrl-C, and forwards it once
                )
                for each, more in LAUNCHERS[name](count, command, folder)
            ]
            try:
                dead = wait_for_all(children, folder, stop)
            finally:
                kill_all(children, folder)
            if not notes(folder):
                require(name)  # without the framework there is no launcher
            raise_if_failed(folder, count, dead, stop())


def environment(count: int) -> dict[str, str]:
    """Return the environment of each worker: its share of the cores, unless the user has set it."""
    threads = str(max(1, usable_cores() // count))
    names = ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")
    own = {name: os.environ.get(name) or threads for name in names}
    return {**os.environ, **own, "PYTHONPATH": python_path()}


Shown = dict[Path | bytes, int]
Started = list[tuple[list[str], dict[str, str]]]  #: commands, and what to add to their environment


def torchrun(count: int, command: list[str], folder: Path) -> Started:
    """Return the command of PyTorch's launcher, which finds a port by itself."""
    run = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
    return [([*run, str(count), *command[1:]], {})]


def tf_config(count: int, command: list[str], folder: Path) -> Started:
    """Return one command per worker. TensorFlow has no launcher; TF_CONFIG gives the rank."""
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
    """Return the commands of a scheduler, a server and the workers.

    MXNet's wheel has no launcher. The server sums the gradients.
    """
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
    """Return the command of Paddle's launcher, which starts any command."""
    run = [sys.executable, "-m", "paddle.distributed.launch", "--nproc_per_node", str(count)]
    return [([*run, "--log_dir", str(folder / "logs"), *command], {})]


#: backend -> the function that returns the commands of its workers on one machine
LAUNCHERS = {"torch": torchrun, "tf": tf_config, "mxnet": dmlc, "paddle": paddle_launch}


def free_ports(count: int) -> list[int]:
    """Return `count` free ports of this machine."""
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def wait_for_all(
    children: list[subprocess.Popen], folder: Path, stop: Callable[[], int]
) -> list[int]:
    """Wait for all processes: print their output, forward a signal, stop at a deadline.

    The deadline is `PATIENCE` seconds after the first failure. Returns the processes that exited
    without reporting, as they were at the first failure if there were any.
    """
    shown: Shown = {}
    forwarded, deadline, first = False, float("inf"), list[int]()
    while None in [child.poll() for child in children] and time.monotonic() < deadline:
        time.sleep(0.1)
        show(folder, shown)
        found = notes(folder)
        if (signum := stop()) and not forwarded:
            forwarded = True
            for pid in found or [child.pid for child in children]:
                with suppress(ProcessLookupError):
                    os.kill(pid, signum)
        failed = any(child.returncode for child in children) or unreported(folder)
        if deadline == float("inf") and (failed or any(n.get("status") for n in found.values())):
            deadline, first = time.monotonic() + PATIENCE, unreported(folder)
    show(folder, shown)
    return first or unreported(folder)


def unreported(folder: Path) -> list[int]:
    """Return the processes that exited without reporting."""
    ended = [pid for pid in notes(folder) if not alive(pid)]
    reported = notes(folder)  # read again: a process may have reported just before it ended
    return [pid for pid in ended if "status" not in reported[pid]]


def show(folder: Path, shown: Shown) -> None:
    """Print the new output of the workers, and the first one's warnings and notes.

    `shown` holds the bytes already printed, per file, and the warnings and notes.
    """
    for path in folder.glob("*.out"):
        if new := unread(path, shown):
            click.echo(new.decode(errors="replace"), nl=False)
    first = [pid for pid, each in notes(folder).items() if each.get("worker") == 0]
    for path in filter(Path.exists, (folder / f"{pid}.err" for pid in first)):
        for line in unread(path, shown, b"\n").splitlines():  # frameworks write there too
            if line.startswith(REMARKS) and line not in shown:
                shown[line] = 1  # MXNet numbers its workers anew when they join: said once
                click.echo(line.decode(errors="replace"), err=True)


def unread(path: Path, shown: Shown, end: bytes = b"") -> bytes:
    """Return the bytes of a file that were not printed yet, up to the last `end`."""
    with path.open("rb") as file:
        file.seek(shown.get(path, 0))
        new = file.read()
    new = new[: new.rfind(end) + len(end)]
    shown[path] = shown.get(path, 0) + len(new)
    return new


def notes(folder: Path) -> dict[int, dict[str, Any]]:
    """Return the report of each process, by process id."""
    return {int(path.stem): json.loads(path.read_text()) for path in folder.glob("[0-9]*.json")}


def alive(pid: int) -> bool:
    """Return whether the process runs. A zombie does not."""
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except ProcessLookupError:
        return False
    except OSError:  # not Linux
        return True


def kill_all(children: list[subprocess.Popen], folder: Path) -> None:
    """Kill every process that still runs."""
    for pid in [pid for pid, each in notes(folder).items() if "status" not in each]:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    for child in children:
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def raise_if_failed(folder: Path, count: int, dead: list[int], signum: int) -> None:
    """Raise WorkersError with the most useful sentence, if a worker failed.

    `dead` are the processes that exited without reporting. `signum` is a received signal or 0.
    """
    found = [(pid, each) for pid, each in notes(folder).items() if each["role"] == "worker"]
    found.sort(key=lambda item: item[1]["worker"])
    if len(found) == count and all(each.get("status") == 0 for _, each in found):
        return
    reported = [each for _, each in found if "sentence" in each]
    own_errors = [each for each in reported if each["status"] != WorkersError.exit_code]
    crashed = [pid for pid, each in found if each.get("status") == 1]
    # Paddle's gloo aborts a worker whose peer is gone; the killed one wrote nothing
    killed = [each for pid, each in found if pid in dead and not aborted(folder / f"{pid}.err")]
    absent = [each for _, each in found if "folder" not in each and "status" not in each]
    way_on = [f": go on with `--resume {each['folder']}`" for _, each in found if "folder" in each]
    if own_errors:
        sentence, status = own_errors[0]["sentence"], own_errors[0]["status"]
    elif signum:
        sentence, status = "stopped before the first step.", 128 + signum
    elif crashed:
        sentence, status = f"A worker failed: {last_line(folder / f'{crashed[0]}.err')}", 1
    elif killed:
        which = f"Worker {killed[0]['worker']} of {count} was killed"
        sentence, status = "".join([which, *way_on[:1], "."]), WorkersError.exit_code
    elif absent:
        which = f"Worker {absent[0]['worker']} of {count} never joined"
        sentence, status = f"{which}: the others waited in vain.", WorkersError.exit_code
    elif reported:
        sentence, status = reported[0]["sentence"], reported[0]["status"]
    else:
        reason = last_line(folder / "launcher")
        sentence, status = f"The launcher failed: {reason}", WorkersError.exit_code
    error = WorkersError(sentence)
    error.exit_code = status
    raise error


def aborted(path: Path) -> bool:
    """Return whether a process wrote that C++ ended it, for an exception that nobody caught."""
    return path.exists() and "terminate called" in path.read_text(errors="replace")


def last_line(path: Path) -> str:
    """Return the last line in the output file of a process."""
    lines = path.read_text(errors="replace").split("\n") if path.exists() else []
    return next((line.strip() for line in reversed(lines) if line.strip()), "it printed nothing.")

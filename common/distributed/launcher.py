"""Several workers on this machine, started by their framework's own launcher: `--workers N`.

`start` gives them a folder, in which each worker puts its output and how it ended
(`common/workers.py`), so that one process speaks for all of them.
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
from common.distributed.watchdog import FOLDER
from common.errors import WorkersError
from common.files import ROOT

PATIENCE = 8.0  # seconds that the others have to end by themselves, once one has failed


def start(name: str, count: int, words: Sequence[str], stop: Callable[[], int]) -> None:
    """Run `googlenet train` with these words in so many workers.

    Shows what worker 0 prints, hands a signal on, and when one worker fails ends all of them, with
    that worker's error.
    """
    import fcntl  # here: Windows has none, and `googlenet train` imports this module

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
    reported = notes(folder)  # read again: one may have told it just before it ended
    return [pid for pid in gone if "status" not in reported[pid]]


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
    reported = [each for _, each in found if "sentence" in each]
    of_its_own = [each for each in reported if each["status"] != WorkersError.exit_code]
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
    elif reported:
        sentence, status = reported[0]["sentence"], reported[0]["status"]
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

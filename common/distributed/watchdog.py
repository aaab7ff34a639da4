"""A connection between every worker and worker 0, which says that a worker is gone."""

from __future__ import annotations

import json
import os
import secrets
import socket
import struct
import sys
import threading
import time
import traceback
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click
import numpy as np

from common.errors import GoogLeNetError, Stopped, WorkersError
from common.files import write_whole
from common.rendezvous import meeting_place, own_address

if TYPE_CHECKING:
    from common.contract import Backend


FOLDER = "GOOGLENET_WORKERS"

DEATH_GRACE = 5.0  # seconds in which a worker learns that another is gone, if that is its fault
#: a machine that is lost closes nothing: it is known within a minute by answering no more
LOST_MACHINE = {"TCP_KEEPIDLE": 20, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 4}
CLEAN_EXIT = 2**32 - 1  # said in the place of the number of the worker that is gone
ENDING = threading.Lock()


class PeerWatchdog:
    """A connection of every worker with worker 0, which its system closes when a process is gone.

    Then every other worker ends, with a sentence that says which. A thread waits for that: it runs
    also while the main thread waits in the framework for what will never come.
    """

    def __init__(self, backend: Backend, folder: Path, rank: int, count: int) -> None:
        """Waits for all workers; WorkersError if worker 0 is not reached."""
        self.folder, self.rank, self.count = folder, rank, count
        self.stopped: Stopped | None = None  # then it does not matter who is gone
        self.lines: dict[int, socket.socket] = {}
        if rank or count == 1:
            *route, port, token = backend.all_reduce_sum(np.zeros(6)).astype(int).tolist()
            if rank:
                self.reach(".".join(map(str, route)), port, struct.pack("!II", rank, token))
        else:
            both = socket.has_dualstack_ipv6()
            family = socket.AF_INET6 if both else socket.AF_INET
            with socket.create_server(("", 0), family=family, dualstack_ipv6=both) as server:
                token = secrets.randbelow(2**24)  # exact also where float32 is summed
                route = socket.inet_aton(own_address())
                message = [*route, server.getsockname()[1], token]
                backend.all_reduce_sum(np.array(message, np.float64))
                while len(self.lines) < count - 1:
                    self.accept_worker(server.accept()[0], token)
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
                line = socket.create_connection((host, port), DEATH_GRACE)
                line.sendall(hello)
                if line.recv(len(hello)) == hello:
                    self.lines[0] = line
                    return
        raise WorkersError(
            f"Worker {self.rank} does not reach worker 0 at {route}:{port}: let the machines of "
            "the workers connect with each other at any port."
        )

    def accept_worker(self, line: socket.socket, token: int) -> None:
        """Take up a worker that says its number and the token; whatever else came is let go."""
        with suppress(OSError, struct.error):
            line.settimeout(DEATH_GRACE)
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
        if gone == CLEAN_EXIT:
            return
        self.tell(gone)
        time.sleep(1)  # what this worker has to say of itself comes first
        way_on = f"go on with `--resume {self.folder}`"
        sentence = f"Worker {gone} of {self.count} is gone: {way_on}."
        end_with(self.stopped or WorkersError(sentence))


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

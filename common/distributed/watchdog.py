"""The peer watchdog: connections to worker 0 that detect a worker that has died."""

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

from common.errors import GoogLeNetError, Stopped, WorkersError, printable
from common.files import write_whole
from common.rendezvous import is_loopback, meeting_place, own_address

if TYPE_CHECKING:
    from common.contract import Backend


FOLDER = "GOOGLENET_WORKERS"  # environment variable: the folder that the launcher reads

DEATH_GRACE = 5.0  # seconds for the watchdog to report a dead peer before this worker's own error
#: a lost machine closes no connection; keepalive detects it within a minute
LOST_MACHINE = {"TCP_KEEPIDLE": 20, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 4}
CLEAN_EXIT = 2**32 - 1  # sent instead of a dead worker's rank: this worker leaves normally
ENDING = threading.Lock()  # held by the thread that ends the process


class PeerWatchdog:
    """A connection between each worker and worker 0. The system closes it when a process dies.

    Then every other worker exits with a sentence that names the dead one. A thread waits on each
    connection. It also runs while the main thread is blocked inside the framework.
    """

    def __init__(self, backend: Backend, folder: Path, rank: int, count: int) -> None:
        """Connect all workers; WorkersError if worker 0 cannot be reached.

        `folder` is the run's, for the advice in the error. Worker 0 sends its address, port and a
        random token to the others through the framework's own sum.
        """
        self.folder, self.rank, self.count = folder, rank, count
        # set after a signal; it then replaces the error for a dead worker
        self.stopped: Stopped | None = None
        self.lines: dict[int, socket.socket] = {}  # rank -> connection
        if rank or count == 1:
            *route, port, token = backend.all_reduce_sum(np.zeros(6)).astype(int).tolist()
            if rank:
                self.connect(".".join(map(str, route)), port, struct.pack("!II", rank, token))
        else:
            own = own_address()
            both = socket.has_dualstack_ipv6() and not is_loopback(own)
            family = socket.AF_INET6 if both else socket.AF_INET
            host = own if is_loopback(own) else ""
            with socket.create_server((host, 0), family=family, dualstack_ipv6=both) as server:
                token = secrets.randbelow(2**24)  # exact in float32, too
                route = socket.inet_aton(own)
                message = [*route, server.getsockname()[1], token]
                backend.all_reduce_sum(np.array(message, np.float64))
                while len(self.lines) < count - 1:
                    self.accept_worker(server.accept()[0], token)
        for other, connection in self.lines.items():
            connection.settimeout(None)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for name, value in LOST_MACHINE.items():
                if hasattr(socket, name):  # not every system has all three
                    connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
            threading.Thread(target=self.watch, args=(other, connection), daemon=True).start()

    def connect(self, route: str, port: int, hello: bytes) -> None:
        """Connect to worker 0 at its own address, or at the host that the environment names."""
        for host in (route, meeting_place()):
            with suppress(OSError):
                connection = socket.create_connection((host, port), DEATH_GRACE)
                connection.sendall(hello)
                if connection.recv(len(hello)) == hello:
                    self.lines[0] = connection
                    return
        raise WorkersError(
            f"Worker {self.rank} cannot connect to worker 0 at {route}:{port}: allow connections "
            "between the workers' machines on every port."
        )

    def accept_worker(self, connection: socket.socket, token: int) -> None:
        """Keep the connection of a worker that sends its rank and the token; close any other."""
        with suppress(OSError, struct.error):
            connection.settimeout(DEATH_GRACE)
            hello = connection.recv(8)
            other, received = struct.unpack("!II", hello)
            if received == token:
                connection.sendall(hello)
                self.lines[other] = connection
                return
        connection.close()

    def tell(self, dead: int) -> None:
        """Send the rank of a dead worker to all peers, or `CLEAN_EXIT` when this one leaves."""
        for connection in self.lines.values():
            with suppress(OSError):
                connection.sendall(struct.pack("!I", dead))

    def watch(self, other: int, connection: socket.socket) -> None:
        """Wait for a peer's last message. If it reports or is a dead worker, end this process."""
        message = b""
        with suppress(OSError):
            message = connection.recv(4)
        dead = struct.unpack("!I", message)[0] if message else other
        if dead == CLEAN_EXIT:
            return
        self.tell(dead)
        time.sleep(1)  # an error of this worker's own is reported first
        way_on = f"go on with `--resume {self.folder}`"
        sentence = f"Worker {dead} of {self.count} is gone: {way_on}."
        end_with(self.stopped or WorkersError(sentence))


def end_with(error: Exception) -> NoReturn:
    """Report an error and end the process at once. A second thread that calls this blocks."""
    ENDING.acquire()
    status = 1
    if isinstance(error, GoogLeNetError):
        status = error.exit_code
        click.echo(f"googlenet: {printable(error)}", err=True)
        note(status=status, sentence=str(error))
    else:
        traceback.print_exception(error)
        note(status=status)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def note(**facts: Any) -> None:
    """Report facts to the launcher, if `launcher.start` started this worker."""
    if FOLDER in os.environ:
        path = Path(os.environ[FOLDER]) / f"{os.getpid()}.json"
        with suppress(OSError):  # the launcher and its folder no longer exist
            previous = json.loads(path.read_text()) if path.exists() else {}
            write_whole(path, json.dumps({**previous, **facts}).encode())

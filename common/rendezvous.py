"""How worker processes find each other before their framework is used: ports, addresses, ranks."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Sequence
from contextlib import suppress

from common.errors import WorkersError


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

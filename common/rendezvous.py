"""How worker processes find each other before their framework starts: ports, addresses, ranks."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Sequence
from contextlib import suppress

from common.errors import WorkersError


def need_port(port: int | str, way_out: str) -> None:
    """Raise WorkersError if this process cannot listen at the port.

    `way_out` is the part of the message that names the option for another port.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", int(port)))
        except OSError as error:
            raise WorkersError(
                f"Port {port} of this machine is taken ({error.strerror}): free it, or choose "
                f"another with {way_out}, the same for all workers."
            ) from error


def meet(addresses: Sequence[str], rank: int, way_out: str) -> None:
    """Wait until every worker listens at its address, HOST:PORT. Afterwards all ports are free.

    Raises WorkersError if there is no such worker or its port is taken; `way_out` is for
    `need_port`.
    """
    if not 0 <= rank < len(addresses):
        raise WorkersError(
            f"This worker's number is {rank}, and there are {len(addresses)} addresses: correct "
            f"{way_out}. The numbers begin with 0."
        )
    own, _, port = addresses[rank].rpartition(":")
    need_port(port, way_out)
    others = [each for each in addresses if each != addresses[rank]]
    host = own if is_loopback(own) else ""
    with socket.create_server((host, int(port))) as server:
        outgoing = [connect(*address.rpartition(":")[::2]) for address in others]
        incoming = [server.accept()[0] for _ in others]  # each other worker connects once
    for connection in outgoing:
        connection.close()  # tells the other worker that this port is free
    for connection in incoming:
        with connection, suppress(ConnectionError):
            connection.recv(1)


def is_loopback(host: str) -> bool:
    """Return whether an address or name is this machine's alone."""
    return host == "localhost" or host.startswith("127.")


def connect(host: str, port: str) -> socket.socket:
    """Connect to an address. Retry until a process listens there."""
    while True:
        try:
            return socket.create_connection((host, int(port)), 1)
        except OSError:
            time.sleep(0.1)


def started() -> bool:
    """Return whether the environment shows that a launcher started this process as a worker."""
    names = ("WORLD_SIZE", "TF_CONFIG", "PADDLE_TRAINERS_NUM", "DMLC_ROLE")
    return any(name in os.environ for name in names)


def local_rank() -> int:
    """Return this worker's number on its machine, which selects its GPU; 0 if it is not set."""
    names = ("LOCAL_RANK", "PADDLE_LOCAL_RANK", "SLURM_LOCALID")  # torchrun, Paddle, Slurm
    return next((int(os.environ[name]) for name in names if name in os.environ), 0)


def meeting_place() -> str:
    """Return the host that the environment names as the meeting point of all workers."""
    config = json.loads(os.environ.get("TF_CONFIG", "{}"))
    addresses = config.get("cluster", {}).get("worker", [])
    addresses += os.environ.get("PADDLE_TRAINER_ENDPOINTS", "").split(",")
    hosts = [address.rpartition(":")[0] for address in addresses]
    hosts += [os.environ.get(name, "") for name in ("DMLC_PS_ROOT_URI", "MASTER_ADDR")]
    return next(filter(None, hosts), "127.0.0.1")


def own_address() -> str:
    """Return this machine's IPv4 address on the route to `meeting_place()`; else 0.0.0.0."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe, suppress(OSError):
        probe.connect((meeting_place(), 9))  # UDP: nothing is sent
        return str(probe.getsockname()[0])
    return "0.0.0.0"

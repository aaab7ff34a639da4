"""A private network for the workers of one machine: nothing outside reaches what they listen on.

TensorFlow's gRPC server, and the stores through which PyTorch's and Paddle's workers meet, listen
on all interfaces and trust whoever connects. Linux can give processes a network namespace, in which
there is only loopback. `unshare` and `nsenter` of util-linux make and enter one.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

#: sets the loopback interface up, reports it, and ends when the launcher ends
HOLD = """
import fcntl, socket, struct, sys
SIOCSIFFLAGS, IFF_UP = 0x8914, 0x1
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
    fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", IFF_UP))
print("up", flush=True)
sys.stdin.read()
"""


@contextmanager
def private_network() -> Iterator[list[str] | None]:
    """Yield the words that start a command in a network of its own; None where it is not allowed.

    Root enters the network alone. Another user also needs a user namespace, which some systems and
    most containers forbid. Files keep their owner.
    """
    user = [] if hasattr(os, "geteuid") and os.geteuid() == 0 else ["--user"]
    mapped = ["--map-root-user"] if user else []
    command = ["unshare", *user, *mapped, "--net", sys.executable, "-S", "-c", HOLD]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    try:
        holder = subprocess.Popen(command, **pipes, start_new_session=True)  # type: ignore[call-overload]
    except OSError:  # not Linux
        yield None
        return
    with holder:  # at its end the process reads the end of its input, and ends
        if holder.stdout.readline() == b"up\n":
            kept = ["--preserve-credentials"] if user else []
            yield ["nsenter", *user, *kept, "--net", "--target", str(holder.pid)]
        else:
            yield None

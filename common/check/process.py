"""The user's network: in its own process, or live in this one, behind the same five methods.

`trace`, `shapes`, `read` and `write` are those of `Network` in each backend's `trace.py`. A request
that the user's code answers with an exception raises UserError.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from contextlib import suppress
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import numpy as np

from backends import FRAMEWORKS
from common.check import server
from common.errors import BackendError, GoogLeNetError, one_line
from common.files import ROOT


class UserError(GoogLeNetError):
    """The user's network cannot be loaded or run."""


class Network(Protocol):
    """A user's network whose runs are recorded. Arrays are canonical: NCHW, OIHW, (out, in)."""

    dtype: str
    layout: str
    notes: list[str]

    def trace(self, x: np.ndarray) -> dict[str, Any]:
        """Run on x (N, C, H, W): `events`, every tensor made; `outputs`, what is returned."""

    def shapes(self) -> list[tuple[int, ...]]:
        """The shapes of the weights that the runs used, by number."""

    def read(self) -> list[np.ndarray]:
        """Those weights, by number."""

    def write(self, arrays: dict[int, np.ndarray]) -> None:
        """Copy arrays into weights, by number."""

    def close(self) -> None:
        """Leave the network as it was."""


def tracer_path(backend: str) -> Path:
    """The file that records a network of that framework."""
    return ROOT / "backends" / backend / "trace.py"


class Process:
    """A user's network in a process of its own, with the user's Python.

    `dtype` is that of the runs; if None, float64 where the network can. `step` is the name of a
    function that must be in the file too. `option` is the one that names the Python.
    """

    def __init__(
        self,
        target: str,
        backend: str,
        python: str | None = None,
        dtype: str | None = None,
        step: str | None = None,
        option: str = "--python",
    ) -> None:
        path, _, name = target.rpartition(":")
        if not path or not name.isidentifier():
            raise UserError(f"{target!r} names no network: write FILE.py:NAME, such as net.py:net.")
        if not Path(path).is_file():
            raise UserError(f"There is no file {path}.")
        if not path.endswith(".py"):
            raise UserError(f"{path} is not a Python file: its name does not end in .py.")
        self.backend, self.file, self.dtype, self.layout = backend, Path(path).name, "", ""
        self.name, self.option = name, option
        self.notes: list[str] = []
        inlet, ours = os.pipe()
        theirs, outlet = os.pipe()
        environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
        environment.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
        command = [python or sys.executable, str(Path(server.__file__).resolve())]
        command += [str(tracer_path(backend)), target, str(inlet), str(outlet)]
        try:
            self.child = subprocess.Popen(
                command, pass_fds=(inlet, outlet), env=environment, stdin=subprocess.DEVNULL
            )
        except OSError as error:
            raise UserError(
                f"{python} cannot be run ({error.strerror}): name another Python with `{option}`."
            ) from error
        finally:
            os.close(inlet)
            os.close(outlet)
        self.to, self.back = os.fdopen(ours, "wb"), os.fdopen(theirs, "rb")
        try:
            self.version = self.ask("load", dtype=dtype, step=step)["version"]
        except BaseException:
            self.close()
            raise

    def ask(self, call: str, **given: Any) -> Any:
        """Send a request and return its answer."""
        try:
            server.send(self.to, {"call": call, "with": given})
            reply = server.receive(self.back)
        except BrokenPipeError:
            reply = None
        if reply is None:
            status = self.child.wait()
            raise UserError(f"{self.file} ended its process with status {status}.")
        if "error" in reply:
            raise self.failed(reply["error"])
        return reply["answer"]

    def failed(self, error: dict[str, str]) -> GoogLeNetError:
        """The exception for an error in the other process."""
        reason = one_line(Exception(re.sub(r"\x1b\[[0-9;]*m", "", error["message"])))
        said = f"{error['type']}: {reason}"
        if error["stage"] == "framework":
            package = FRAMEWORKS[self.backend]
            return BackendError(
                f"{package} cannot be imported in the network's Python ({said}): install it there, "
                f"or name another Python with `{self.option}`."
            )
        if error["type"] == server.MissingError.__name__:
            return UserError(
                f"{self.file} has no {error['message']}: give a name that the file has."
            )
        if error["type"] == server.NoNetworkError.__name__:
            return UserError(
                f"{self.file}:{self.name} is {error['message']}, and no network: name the network "
                f"itself, its class or a function without arguments that makes it."
            )
        if error["stage"] == "savable":
            return UserError(
                f"{self.file}:{self.name} has no weights that a file can hold: {reason}."
            )
        if error["stage"] == "put":
            return UserError(f"{self.file} cannot take the weights of the file: {reason}.")
        where = error["where"] or self.file
        if error["stage"] in ("start", "train"):
            return UserError(
                f"The training step in {self.file} cannot be run: {where} raises {said}. "
                f"A function of the network returns it, and it takes images and labels: "
                f"`def make_step(net)`, in it `def step(images, labels)`, at its end `return step`."
            )
        doing = "loaded" if error["stage"] == "load" else "run"
        return UserError(f"{self.file} cannot be {doing}: {where} raises {said}")

    def open(self, x: np.ndarray) -> Process:
        """Make the network and run it once on x (N, C, H, W)."""
        found = self.ask("open", x=x)
        self.dtype, self.layout, self.notes = found["dtype"], found["layout"], found["notes"]
        return self

    def trace(self, x: np.ndarray) -> dict[str, Any]:
        """Run the network on x and record it."""
        found: dict[str, Any] = self.ask("trace", x=x)
        return found

    def shapes(self) -> list[tuple[int, ...]]:
        """The shapes of the weights, by number."""
        return [tuple(shape) for shape in self.ask("shapes")]

    def read(self) -> list[np.ndarray]:
        """The weights, by number."""
        found: list[np.ndarray] = self.ask("read")
        return found

    def write(self, arrays: dict[int, np.ndarray]) -> None:
        """Copy arrays into weights, by number."""
        self.ask("write", arrays={str(key): array for key, array in arrays.items()})

    def require_weights(self) -> None:
        """UserError unless the network is one whose weights a file can hold."""
        self.ask("savable")

    def save(self, path: str) -> None:
        """Write the network's weights to a file, with the framework's own function."""
        self.ask("save", path=path)

    def put(self, **given: Any) -> None:
        """Take over `arrays` by the names in a file; in TensorFlow, the file at `path`."""
        self.ask("put", **given)

    def start(self, make_step: str) -> bool:
        """Make the training step by that function of the file; whether it takes a rate too."""
        return bool(self.ask("start", name=make_step))

    def train(self, x: np.ndarray, labels: np.ndarray, *rate: float) -> None:
        """One training step on x (N, C, H, W) and labels (N,)."""
        self.ask("train", x=x, labels=labels, rate=list(rate))

    def close(self) -> None:
        """End the process."""
        for stream in (self.to, self.back):
            with suppress(OSError):
                stream.close()
        try:
            self.child.wait(5)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()

    def __enter__(self) -> Process:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        self.close()


class Live:
    """A user's network in this process."""

    def __init__(self, thing: Any, backend: str, x: np.ndarray, folder: str) -> None:
        self.network = tracer(backend).Network(thing, x, folder)
        self.dtype, self.layout = self.network.dtype, self.network.layout
        self.notes: list[str] = list(self.network.notes)

    def trace(self, x: np.ndarray) -> dict[str, Any]:
        """Run the network on x and record it."""
        found: dict[str, Any] = self.network.trace(x)
        return found

    def shapes(self) -> list[tuple[int, ...]]:
        """The shapes of the weights, by number."""
        return [tuple(shape) for shape in self.network.shapes()]

    def read(self) -> list[np.ndarray]:
        """The weights, by number."""
        found: list[np.ndarray] = self.network.read()
        return found

    def write(self, arrays: dict[int, np.ndarray]) -> None:
        """Copy arrays into weights, by number."""
        self.network.write(arrays)

    def close(self) -> None:
        """Leave the network as it was."""
        self.network.close()


@cache
def tracer(backend: str) -> Any:
    """A backend's `trace.py`, loaded by its path, as the other process does."""
    return server.load(str(tracer_path(backend)), f"_googlenet_tracer_{backend}")


def backend_of(thing: Any) -> str:
    """The backend of a live network, by the framework that its class comes from."""
    kind = thing if isinstance(thing, type) else type(thing)
    packages = {base.__module__.partition(".")[0] for base in kind.__mro__}
    names = {
        "torch": "torch",
        "keras": "tf",
        "tensorflow": "tf",
        "mxnet": "mxnet",
        "paddle": "paddle",
    }
    for package, name in names.items():
        if package in packages:
            return name
    raise UserError(
        f"{kind.__name__} is not a network of {', '.join(FRAMEWORKS.values())}; name its backend."
    )

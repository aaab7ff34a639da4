"""The four backends by name. `load` imports one of them and no other framework."""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import ModuleType
from typing import TYPE_CHECKING, cast

from common.errors import BackendError, one_line
from common.files import install_command

if TYPE_CHECKING:  # the command line needs only the names and should not import NumPy
    from common.contract import Backend

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # from malloc.h

#: name (of the folder, extra, tox environment and constraints file): package to import
FRAMEWORKS = {"torch": "torch", "tf": "tensorflow", "mxnet": "mxnet", "paddle": "paddle"}


def load(name: str) -> Backend:
    """Import one backend; BackendError with the install command if its framework is missing.

    TF32 is switched off, so float32 on a GPU is really float32: with TF32, NVIDIA's libraries round
    the factors of a product to ten bits. `NVIDIA_TF32_OVERRIDE=1` lets the framework choose.
    """
    os.environ.setdefault("NVIDIA_TF32_OVERRIDE", "0")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    keep_memory()
    with without_notices():
        return cast("Backend", load_module(name, f"backends.{name}"))


@contextmanager
def without_notices() -> Iterator[None]:
    """Drop what C++ code writes to stderr meanwhile, unless an exception leaves.

    TensorFlow writes notices in red words about GPUs that a machine does not have, and no log level
    stops them. `TF_CPP_MIN_LOG_LEVEL=0` in the environment shows them.
    """
    if os.environ["TF_CPP_MIN_LOG_LEVEL"] in ("0", "1"):
        yield
        return
    try:
        sys.stderr.flush()
        kept, at_end = os.dup(2), b""
    except (OSError, AttributeError):  # the process has no stderr
        yield
        return
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield
        except BaseException:
            file.seek(0)
            at_end = file.read()
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            if at_end:
                os.write(2, at_end)


def keep_memory() -> None:
    """Make Linux's malloc keep large freed blocks, because the next step needs the same sizes."""
    with suppress(AttributeError, OSError, TypeError):  # only glibc has `mallopt`
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def load_module(name: str, path: str) -> ModuleType:
    """Import a module that needs the backend's framework; BackendError as in `load`."""
    require(name)
    try:
        return importlib.import_module(path)
    except (ImportError, OSError) as error:  # OSError: a shared library is missing
        raise BackendError(
            f"{FRAMEWORKS[name]} is installed but cannot be imported: {one_line(error)}."
        ) from error


def require(name: str) -> None:
    """BackendError, with the install command, unless the backend's framework is installed."""
    if name not in FRAMEWORKS:
        raise BackendError(f"There is no backend {name!r}; choose one of {', '.join(FRAMEWORKS)}.")
    found = {each for each in FRAMEWORKS if importlib.util.find_spec(FRAMEWORKS[each])}
    if name not in found:
        pins = "cross" if found else name  # its own file would change packages of the others
        raise BackendError(
            f"{FRAMEWORKS[name]} is not installed; install it with `{install_command(name, pins)}`."
        )

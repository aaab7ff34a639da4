"""The four backends by name, and the one function that imports one of them and nothing else."""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import os
from contextlib import suppress
from types import ModuleType
from typing import TYPE_CHECKING, cast

from common.errors import BackendError, one_line

if TYPE_CHECKING:  # the command line asks for the names alone, and should not wait for NumPy
    from common.contract import Backend

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of malloc.h

#: name of the folder, the extra, the tox environment, the constraints file = package to import
FRAMEWORKS = {"torch": "torch", "tf": "tensorflow", "mxnet": "mxnet", "paddle": "paddle"}


def load(name: str) -> Backend:
    """Import one backend; BackendError with the install line where its framework is missing.

    On a GPU float32 is float32: NVIDIA's libraries would round the factors of a product to ten bits
    (TF32) where a framework lets them. `NVIDIA_TF32_OVERRIDE=1` leaves that to the framework.
    """
    os.environ.setdefault("NVIDIA_TF32_OVERRIDE", "0")
    keep_memory()
    return cast("Backend", load_module(name, f"backends.{name}"))


def keep_memory() -> None:
    """Let Linux's malloc keep large blocks that are freed: the next step wants the same again."""
    with suppress(AttributeError, OSError, TypeError):  # glibc alone has `mallopt`
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def load_module(name: str, path: str) -> ModuleType:
    """Import a module that needs the framework of that backend; BackendError as above."""
    require(name)
    try:
        return importlib.import_module(path)
    except (ImportError, OSError) as error:  # OSError: a shared library is missing
        raise BackendError(
            f"{FRAMEWORKS[name]} is installed but cannot be imported: {one_line(error)}."
        ) from error


def require(name: str) -> None:
    """BackendError, with the install line, unless that backend's framework is installed."""
    if name not in FRAMEWORKS:
        raise BackendError(f"There is no backend {name!r}; choose one of {', '.join(FRAMEWORKS)}.")
    found = {each for each in FRAMEWORKS if importlib.util.find_spec(FRAMEWORKS[each])}
    if name not in found:
        pins = "port" if found else name  # its own would change what the others stand on
        raise BackendError(
            f"{FRAMEWORKS[name]} is not installed; install it with "
            f"`pip install -c constraints/{pins}.txt -e '.[{name}]'`."
        )

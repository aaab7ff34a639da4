"""Code that is wrong on purpose: the injected bugs of `common.parity.mutations`.

There is one module for each backend. It has one function for each bug, with the bug's name. The
function returns a context manager that injects the bug in the way a port would have it.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any


def inject(backend: str, bug: str) -> AbstractContextManager[Any]:
    """A context in which the backend has the bug."""
    module = importlib.import_module(f"backends.mutations.{backend}")
    function: Callable[[], AbstractContextManager[Any]] = getattr(module, bug.replace("-", "_"))
    return function()

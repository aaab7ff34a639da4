"""Wrong code on purpose: the injected bugs of `common.parity.mutations`.

One module for each backend, in that framework's own words: one function for each bug, of the bug's
name, which returns a context manager.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any


def inject(backend: str, bug: str) -> AbstractContextManager[Any]:
    """Inject the bug in the backend for as long as the context lasts."""
    module = importlib.import_module(f"backends.mutations.{backend}")
    function: Callable[[], AbstractContextManager[Any]] = getattr(module, bug.replace("-", "_"))
    return function()

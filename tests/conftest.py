"""`pytest` runs the unit tests; `pytest --backend NAME` the conformance suite for that backend."""

import pytest

from backends import FRAMEWORKS, load
from common.errors import BackendError


def pytest_addoption(parser):
    parser.addoption("--backend", choices=list(FRAMEWORKS), help="run the conformance suite for it")
    parser.addoption("--require-gpu", action="store_true", help="fail where there is no GPU")


def pytest_configure(config):
    if name := config.getoption("--backend"):
        try:
            config.backend = load(name)
        except BackendError as error:
            raise pytest.UsageError(str(error)) from error


def pytest_report_header(config):
    import numpy

    versions = f"numpy {numpy.__version__}"
    if name := config.getoption("--backend"):
        found = ", ".join(config.backend.devices())
        return f"backend: {name} {config.backend.VERSION}, {versions}, devices: {found}"
    return versions


def pytest_ignore_collect(collection_path, config):
    """Unit tests without --backend, the conformance suite with it."""
    suite = "unit" if config.getoption("--backend") else "conformance"
    return True if collection_path.name == suite else None

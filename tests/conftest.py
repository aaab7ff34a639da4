"""`pytest` runs the unit tests; `pytest --backend NAME` the conformance suite for that backend;
`pytest tests/port` what needs all four frameworks; `pytest tests/page` what needs a browser.
"""

from pathlib import Path

import pytest

from backends import FRAMEWORKS, load, simulated
from common.errors import BackendError, DeviceError

ALONE = [Path(__file__).resolve().parent / name for name in ("port", "page")]


def pytest_addoption(parser):
    parser.addoption("--backend", choices=list(FRAMEWORKS), help="run the conformance suite for it")
    parser.addoption("--require-gpu", action="store_true", help="fail where there is no GPU")


def pytest_configure(config):
    if name := config.getoption("--backend"):
        try:
            config.simulated = simulated.start(name)  # before the framework is used
            config.backend = load(name)
        except (BackendError, DeviceError) as error:
            raise pytest.UsageError(str(error)) from error


def pytest_report_header(config):
    import numpy

    versions = f"numpy {numpy.__version__}"
    if name := config.getoption("--backend"):
        found = ", ".join(config.backend.devices())
        return f"backend: {name} {config.backend.VERSION}, {versions}, devices: {found}"
    return versions


def pytest_ignore_collect(collection_path, config):
    """Unit tests without --backend, conformance tests with it; the rest where it was asked for."""
    if collection_path in ALONE:
        asked = [Path(argument.partition("::")[0]).resolve() for argument in config.args]
        return None if any(path.is_relative_to(collection_path) for path in asked) else True
    suite = "unit" if config.getoption("--backend") else "conformance"
    return True if collection_path.name == suite else None

"""`pytest` runs the unit tests; `pytest --backend NAME` the conformance suite of that backend, what
its framework's own tools do with its classes, and the pitfalls of porting that show in it; `pytest
tests/cross_framework` what needs all four frameworks; `pytest tests/upstream --backend torch` what
needs torchvision; `pytest tests/packages --backend NAME` what needs other packages; `pytest
tests/page` and `pytest tests/docs` what needs a browser.
"""

from pathlib import Path

import pytest

from backends import FRAMEWORKS, load, simulated
from common.errors import BackendError, DeviceError

FOLDERS = ("cross_framework", "upstream", "packages", "page", "docs")
NAMED = [Path(__file__).resolve().parent / name for name in FOLDERS]


def pytest_addoption(parser):
    parser.addoption("--backend", choices=list(FRAMEWORKS), help="run the conformance suite for it")
    parser.addoption("--require-gpu", action="store_true", help="fail where there is no GPU")
    parser.addoption(
        "--write-results",
        action="store_true",
        help="write what tests/pitfalls measured to docs/results/pitfalls-NAME.json",
    )


def pytest_configure(config):
    if name := config.getoption("--backend"):
        try:
            try:
                config.simulated = simulated.start(name)  # before the framework is used
            except DeviceError as error:
                config.simulated = error  # tests that want it show this
            config.backend = load(name)
        except BackendError as error:
            raise pytest.UsageError(str(error)) from error


@pytest.fixture
def gpu(pytestconfig):
    """The first GPU; without one the test is skipped, or fails where one is required."""
    found = [device for device in pytestconfig.backend.devices() if device.startswith("gpu:")]
    if not found:
        finish = pytest.fail if pytestconfig.getoption("--require-gpu") else pytest.skip
        finish("there is no GPU that this framework sees")
    return found[0]


@pytest.fixture
def simulated_device(pytestconfig):
    """The simulated device; the test is skipped where the framework takes none beside its GPU."""
    if isinstance(pytestconfig.simulated, DeviceError):
        finish = pytest.skip if len(pytestconfig.backend.devices()) > 1 else pytest.fail
        finish(str(pytestconfig.simulated))
    return pytestconfig.simulated


@pytest.fixture(params=["simulated_device", pytest.param("gpu", marks=pytest.mark.gpu)])
def second(request):
    """The simulated device, then a GPU."""
    return request.getfixturevalue(request.param)


def pytest_report_header(config):
    import numpy

    versions = f"numpy {numpy.__version__}"
    if name := config.getoption("--backend"):
        found = ", ".join(config.backend.devices())
        return f"backend: {name} {config.backend.VERSION}, {versions}, devices: {found}"
    return versions


def pytest_ignore_collect(collection_path, config):
    """Unit tests without --backend, suites of one with it; the others where they are named."""
    if collection_path in NAMED:
        asked = [Path(argument.partition("::")[0]).resolve() for argument in config.args]
        return None if any(path.is_relative_to(collection_path) for path in asked) else True
    others = ("unit",) if config.getoption("--backend") else ("conformance", "native", "pitfalls")
    return True if collection_path.name in others else None

"""The backend under test, its simulated device, and the GPU if there is one."""

from functools import lru_cache

import pytest
from narrow import NARROW  # in tests/data

from common.spec import SPECS


@pytest.fixture(autouse=True)
def narrow(monkeypatch):
    """Recipes find the tests' network without a norm by name."""
    monkeypatch.setitem(SPECS, NARROW.name, NARROW)


@pytest.fixture
def name(pytestconfig):
    return pytestconfig.getoption("--backend")


@pytest.fixture
def backend(pytestconfig):
    return pytestconfig.backend


@pytest.fixture
def second(pytestconfig):
    """The simulated device."""
    return pytestconfig.simulated


@pytest.fixture
def gpu(pytestconfig):
    """The first GPU; without one the test is skipped, or fails where one is required."""
    found = [device for device in pytestconfig.backend.devices() if device.startswith("gpu:")]
    if not found:
        finish = pytest.fail if pytestconfig.getoption("--require-gpu") else pytest.skip
        finish("there is no GPU that this framework sees")
    return found[0]


@pytest.fixture(scope="session")
def built(pytestconfig):
    """`build` for the CPU, each network once: the tests that use it write the weights they need."""
    return lru_cache(lambda spec, dtype="float32": pytestconfig.backend.build(spec, dtype, "cpu"))

"""The backend under test, and its networks."""

from functools import lru_cache

import pytest
from small_specs import NARROW  # in tests/support

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


@pytest.fixture(scope="session")
def built(pytestconfig):
    """`build` for the CPU, each network once: the tests that use it write the weights they need."""
    return lru_cache(lambda spec, dtype="float32": pytestconfig.backend.build(spec, dtype, "cpu"))

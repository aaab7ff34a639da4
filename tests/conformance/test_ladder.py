"""The backend computes the arbiter's function: every rung, for every spec and size of `verify`."""

import pytest

from common.spec import SPECS
from common.verify import DEFAULTS, FORWARD, climb, sentence


@pytest.mark.parametrize("dtype", FORWARD)
@pytest.mark.parametrize(("spec", "size"), DEFAULTS)
def test_every_rung_holds(backend, name, spec, size, dtype):
    report = climb(backend, name, SPECS[spec], size, dtype, "cpu")
    assert report.failed is None, sentence(report)
    if dtype == "float64":
        assert [rung.name for rung in report.rungs][-1] == "device"


@pytest.mark.gpu
@pytest.mark.parametrize("spec", SPECS)
def test_every_rung_holds_on_the_gpu(backend, name, gpu, spec):
    report = climb(backend, name, SPECS[spec], 96, "float64", gpu)
    assert report.failed is None, sentence(report)

"""Random small networks at odd sizes: the backend is the reference's function there too."""

import numpy as np
from hypothesis import HealthCheck, given, settings
from random_specs import specs  # in tests/support

from common.parity.checks import ParityChecks
from common.parity.fixtures import draw_fixture


@settings(
    max_examples=20,
    deadline=None,
    derandomize=True,  # the same networks in every run and for every backend
    suppress_health_check=list(HealthCheck),
)
@given(spec=specs())
def test_a_random_network_is_the_same_function(pytestconfig, spec):
    spec = spec.at(dropout=0.0)  # what training drops is random
    fixture = draw_fixture(spec)
    checks = ParityChecks(pytestconfig.backend, fixture, "float64", "cpu")
    for check in (checks.parameters(), checks.shapes(), checks.forward()):
        assert check.passed, (check, spec)
    if spec.norm is None:  # tiny batches make a norm's gradients ill-conditioned
        for check in (checks.loss(), checks.gradients()):
            assert check.passed, (check, spec)
    assert np.isfinite(checks.backend.forward(checks.model, fixture.inputs, False)["head"]).all()

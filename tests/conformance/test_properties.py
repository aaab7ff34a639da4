"""Random small networks at odd sizes: the backend is the reference's function there too."""

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.errors import SpecError
from common.parity.checks import ParityChecks
from common.parity.fixtures import draw_fixture
from common.spec import Conv, GlobalAvgPool, Inception, Linear, MaxPool, Norm, Spec
from common.spec.arithmetic import layers

sides = st.integers(1, 3)
kernels = st.one_of(sides, st.tuples(sides, sides))


@st.composite
def convs(draw, stride=kernels):
    padding = st.one_of(st.integers(0, 2), st.tuples(st.integers(0, 2), st.integers(0, 2)))
    width = draw(st.integers(1, 5))
    return Conv(width, draw(kernels), draw(stride), draw(padding), draw(st.booleans()))


@st.composite
def pools(draw):
    kernel = draw(st.tuples(sides, sides))
    padding = tuple(draw(st.integers(0, side // 2)) for side in kernel)
    return MaxPool(kernel, draw(kernels), padding)


@st.composite
def inceptions(draw):
    """Branches that keep the image's size, as they must all end in the same one."""

    def branch(*kernels):
        return tuple(Conv(draw(st.integers(1, 4)), k, padding=k // 2) for k in kernels)

    pool = MaxPool(3, stride=1, padding=1)
    return Inception(branch(1), branch(1, 3), branch(1, 5), (pool, *branch(1)))


@st.composite
def specs(draw):
    def rows():
        return tuple(
            draw(st.lists(st.one_of(convs(), pools(), inceptions()), min_size=1, max_size=2))
        )

    norm = draw(st.one_of(st.none(), st.builds(Norm, st.floats(1e-5, 1e-2), st.floats(0.5, 0.99))))
    shape = (draw(st.integers(1, 3)), draw(st.integers(5, 23)), draw(st.integers(5, 23)))
    stages = [rows() for _ in range(5)]
    stages[4] += (GlobalAvgPool(),)
    return Spec("random", shape, *stages, head=Linear(draw(st.integers(2, 5))), norm=norm)


def accepted(spec):
    try:
        layers(spec)
    except SpecError:
        return False
    return True


@settings(
    max_examples=10,
    deadline=None,
    derandomize=True,  # the same networks in every run and for every backend
    suppress_health_check=list(HealthCheck),
)
@given(spec=specs().filter(accepted))
def test_a_random_network_is_the_same_function(pytestconfig, spec):
    fixture = draw_fixture(spec)
    checks = ParityChecks(pytestconfig.backend, fixture, "float64", "cpu")
    for check in (checks.parameters(), checks.shapes(), checks.forward()):
        assert check.passed, (check, spec)
    if spec.norm is None:  # tiny batches make a norm's gradients ill-conditioned
        for check in (checks.loss(), checks.gradients()):
            assert check.passed, (check, spec)
    assert np.isfinite(checks.backend.forward(checks.model, fixture.inputs, False)["head"]).all()

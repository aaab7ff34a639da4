"""`googlenet check` names every injected bug that shows in a network, and passes what is right."""

import pytest

from backends.mutations import inject
from common.check import check_live
from common.parity.mutations import INJECTED_BUGS

#: the injected bugs that change the network's function; the others are in weights, losses or steps
SHOWN = (
    "ceil-pool",
    "same-padding",
    "zero-padded-pool",
    "missing-relu",
    "swapped-branches",
    "flatten-order",
    "norm-eps",
)


def make(backend, spec):
    """The backend's own network; Paddle's `build` would replace layers to make them faster."""
    if backend.__name__.endswith("paddle"):
        return backend.GoogLeNet(spec)
    return backend.build(spec, "float64", "cpu")


@pytest.mark.parametrize("bug", [INJECTED_BUGS[bug] for bug in SHOWN], ids=SHOWN)
def test_every_injected_bug_is_named(backend, name, bug):
    spec = bug.spec.at(size=bug.size, dropout=0.0)
    with inject(name, bug.name):
        report = check_live(make(backend, spec), name, spec, bug.size)
    assert report.outcome == "differs", report.text()
    assert [finding.name for finding in report.findings] == [bug.name], report.text()
    assert report.residual < 1e-8

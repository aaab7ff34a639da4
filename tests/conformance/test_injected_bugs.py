"""The parity checks catch every injected bug of the backend, by the check that should."""

import pytest

from common.parity.mutations import INJECTED_BUGS, SMALL
from common.parity.suite import DEFAULTS, run_checks, verify_injected

#: what the bugs are injected in, where test_parity.py does not run it already
CONTROLS = {bug.spec.name: bug for bug in INJECTED_BUGS.values() if bug.spec.name not in DEFAULTS}


@pytest.mark.parametrize("bug", CONTROLS.values(), ids=list(CONTROLS))
def test_without_the_bug_every_check_holds(backend, name, bug):
    (report,) = run_checks(backend, name, bug.spec, [bug.size], "float64", "cpu")
    assert report.failed is None, report.sentence()


def test_without_a_bug_every_check_holds_on_the_simulated_device(backend, name, simulated_device):
    (report,) = run_checks(backend, name, SMALL, [33], "float64", simulated_device)
    assert report.failed is None, report.sentence()


@pytest.mark.parametrize("bug", INJECTED_BUGS.values(), ids=lambda bug: bug.name)
def test_the_bug_is_caught(name, bug):
    report = verify_injected(name, bug)
    assert report.failed is not None, f"{bug.name} escaped: {bug.what}"
    assert report.failed.name in bug.caught_by, report.sentence()
    if not bug.simulated:  # there a framework may refuse; elsewhere it means a badly injected bug
        assert "Error" not in report.failed.where, report.sentence()
    if report.failed.error is not None:
        assert report.failed.error > 1e3 * report.failed.tolerance

"""The ladder catches every bug that can be planted in the backend, by the rung that should."""

import pytest

from common.plants import BUGS
from common.verify import climb, sentence, verify_planted

#: a rung below the bug's own raised nothing, so what is caught is the bug and not the planting
RAISES = {"wrong-device"}  # the framework itself refuses to mix devices

CONTROLS = {(bug.spec.name, bug.size): bug for bug in BUGS.values()}


@pytest.mark.parametrize("bug", CONTROLS.values(), ids=lambda bug: f"{bug.spec.name}-{bug.size}")
def test_without_the_bug_every_rung_holds(backend, name, bug):
    report = climb(backend, name, bug.spec, bug.size, "float64", "cpu")
    assert report.failed is None, sentence(report)


@pytest.mark.parametrize("bug", BUGS.values(), ids=lambda bug: bug.name)
def test_the_bug_is_caught(name, bug):
    report = verify_planted(name, bug, "cpu")
    assert report.failed is not None, f"{bug.name} escaped: {bug.what}"
    assert report.failed.name in bug.rungs, sentence(report)
    if bug.name not in RAISES:
        assert "Error" not in report.failed.where, sentence(report)
    if report.failed.error is not None:
        assert report.failed.error > 1e3 * report.failed.tolerance

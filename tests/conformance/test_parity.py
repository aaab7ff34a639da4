"""The backend computes the reference's function: every check, for every spec and size of `verify`."""

import importlib
import importlib.util

import pytest
from small_specs import thin

from common.parity.checks import FORWARD
from common.parity.report import sentence
from common.parity.suite import DEFAULTS, run_checks
from common.spec import SPECS

#: Other packages' networks are checked with thin layers: test_originals.py has them whole.
CASES = {name: thin(SPECS[name]) if SPECS[name].auxiliary else SPECS[name] for name in DEFAULTS}


@pytest.mark.parametrize("dtype", FORWARD)
@pytest.mark.parametrize("spec", DEFAULTS)
def test_every_check_holds(backend, name, spec, dtype):
    reports = list(run_checks(backend, name, CASES[spec], DEFAULTS[spec], dtype, "cpu"))
    assert [report.size for report in reports] == list(DEFAULTS[spec])
    for report in reports:
        assert report.failed is None, sentence(report)
        if dtype == "float64":
            assert [check.name for check in report.checks][-1] == "device"


@pytest.mark.parametrize("spec", [spec for spec, case in CASES.items() if not case.norm])
def test_every_check_holds_with_merged_convolutions(backend, name, spec, monkeypatch):
    """Which mixed precision runs, where a backend has them."""
    if not importlib.util.find_spec(f"backends.{name}.merged"):
        return
    merged, build, blocks = importlib.import_module(f"backends.{name}.merged"), backend.build, []
    forward = merged.forward

    def noted(block, firsts, x):
        blocks.append(block)
        return forward(block, firsts, x)

    def built(*arguments):
        model = build(*arguments)
        merged.merge(model)
        return model

    monkeypatch.setattr(merged, "forward", noted)
    monkeypatch.setattr(backend, "build", built)
    (report,) = run_checks(backend, name, CASES[spec], DEFAULTS[spec][:1], "float64", "cpu")
    assert report.failed is None, sentence(report)
    assert blocks


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", FORWARD)
@pytest.mark.parametrize("spec", DEFAULTS)
def test_every_check_holds_on_the_gpu(backend, name, gpu, spec, dtype):
    (report,) = run_checks(backend, name, CASES[spec], DEFAULTS[spec][:1], dtype, gpu)
    assert report.failed is None, sentence(report)

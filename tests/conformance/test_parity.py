"""The backend computes the reference's function: every check, spec and size of `verify`."""

import importlib

import numpy as np
import pytest
from small_specs import thin

from common.parity.checks import FORWARD, ParityChecks
from common.parity.fixtures import draw_fixture, fixture_of
from common.parity.suite import DEFAULTS, run_checks
from common.spec import BN_INCEPTION, INCEPTION_RESNET_V2, MINI, SPECS

#: Other packages' networks are checked with thin layers: test_upstream.py has them whole.
CASES = {
    name: thin(SPECS[name]) if SPECS[name].head.width == 1000 else SPECS[name] for name in DEFAULTS
}
#: More of them that have the same rows as these, and are in no default of `verify`.
TWINS = {BN_INCEPTION.name: 96, INCEPTION_RESNET_V2.name: 107}


@pytest.mark.parametrize("dtype", FORWARD)
@pytest.mark.parametrize("spec", DEFAULTS)
def test_every_check_holds(backend, name, spec, dtype):
    reports = list(run_checks(backend, name, CASES[spec], DEFAULTS[spec], dtype, "cpu"))
    assert [report.size for report in reports] == list(DEFAULTS[spec])
    for report in reports:
        assert report.failed is None, report.sentence()
    if dtype == "float64":
        assert reports[0].checks[-1].name == "device"
        assert {report.checks[-1].name for report in reports[1:]} <= {"gradients", "zero gradients"}


@pytest.mark.parametrize("spec", TWINS)
def test_every_gradient_holds_for_a_narrow_twin(backend, spec):
    """Up to the gradients: the optimizer steps are those of the other networks."""
    fixture, found = fixture_of(thin(SPECS[spec]), TWINS[spec]), []
    for check in ParityChecks(backend, fixture, "float64", "cpu").run_checks():
        assert check.passed, f"{check.name}: {check.where}, {check.error}"
        found.append(check.name)
        if check.name == "gradients":
            return
    raise AssertionError(f"only {found}")


@pytest.mark.parametrize("spec", [spec for spec, case in CASES.items() if not case.norm])
def test_every_check_holds_with_fused_convolutions(backend, name, spec, monkeypatch):
    """Mixed precision runs them on a CPU; here they run in float64."""
    if name != "torch":
        pytest.skip("PyTorch alone fuses the 1x1 convolutions of a block")
    fused, build = importlib.import_module("backends.torch.fused"), backend.build

    def built(*arguments):
        model = build(*arguments)
        fused.fuse_1x1(model)
        assert any(isinstance(each, fused.FusedInception) for each in model.modules())
        return model

    monkeypatch.setattr(backend, "build", built)
    (report,) = run_checks(backend, name, thin(SPECS[spec]), DEFAULTS[spec][:1], "float64", "cpu")
    assert report.failed is None, report.sentence()


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", FORWARD)
@pytest.mark.parametrize("spec", DEFAULTS)
def test_every_check_holds_on_the_gpu(backend, name, gpu, spec, dtype):
    (report,) = run_checks(backend, name, CASES[spec], DEFAULTS[spec][:1], dtype, gpu)
    assert report.failed is None, report.sentence()


def test_gradients_of_two_calls_do_not_add_up(backend):
    fixture = draw_fixture(MINI)
    model = backend.build(MINI, "float64", "cpu")
    backend.write_weights(model, fixture.weights)
    first, second = (backend.gradients(model, fixture.inputs, fixture.labels)[1] for _ in "ab")
    for name, gradient in first.items():
        np.testing.assert_allclose(second[name], gradient, rtol=1e-9, atol=1e-12, err_msg=name)

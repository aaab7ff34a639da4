"""What tests/data/originals holds is what the packages still answer (torchvision, Paddle)."""

import numpy as np
import pytest
from originals import ORIGINALS, make, read

from common.verify import tensor_error

PACKAGES = {"torch": "torchvision", "paddle": "paddle"}


@pytest.fixture
def package(pytestconfig):
    return PACKAGES[pytestconfig.getoption("--backend")]


def test_the_package_still_answers_so(package):
    specs = [spec for spec, (owner, *_) in ORIGINALS.items() if owner == package]
    assert specs
    for spec in specs:
        fresh, written = make(spec), read(spec)
        modes = {mode for mode in written if mode in ("evaluation", "training")}
        assert fresh.keys() == written.keys()
        assert fresh["tensors"] == written["tensors"]
        assert "evaluation" in modes
        for mode in modes:
            assert fresh[mode].keys() == written[mode].keys()
            for head, logits in written[mode].items():
                got, want = np.array(fresh[mode][head]), np.array(logits)
                assert tensor_error(got, want) <= 1e-12, (spec, mode, head)

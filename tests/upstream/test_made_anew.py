"""The packages still give the recorded values of tests/data/upstream (torchvision, Paddle)."""

import numpy as np
import pytest
from upstream_states import ORIGINALS, draw_state, make, read

from common.convert.conversion import convert
from common.formats.identify import identify
from common.formats.readers import base
from common.parity.report import tensor_error
from common.weights import load

PACKAGES = {"torch": "torchvision", "paddle": "paddle"}


@pytest.fixture
def package(pytestconfig):
    return PACKAGES[pytestconfig.getoption("--backend")]


def saved(package, spec, folder):
    """The drawn state in a file that the package's own framework wrote."""
    state = draw_state(read(spec)["tensors"], linear_in_first=package == "paddle")
    if package == "torchvision":
        import torch

        counts = {"conv1.bn.num_batches_tracked": torch.tensor(7)}  # as in every such file
        tensors = {name: torch.from_numpy(array) for name, array in state.items()}
        torch.save(tensors | counts, folder / "state.pt")
        return folder / "state.pt"
    import paddle

    tensors = {name: paddle.to_tensor(array) for name, array in state.items()}
    paddle.save(tensors, str(folder / "state.pdparams"))
    return folder / "state.pdparams"


def test_its_files_convert_to_the_spec(package, tmp_path):
    for spec, (owner, *_) in ORIGINALS.items():
        if owner != package:
            continue
        path = saved(package, spec, tmp_path)
        asked = spec if "imagenet" in spec else None  # the input transform is no weight
        found = convert(path, tmp_path / f"{spec}.safetensors", asked)
        assert (found.spec, found.channels, found.classes) == (spec, 3, 10)
        state = draw_state(read(spec)["tensors"], linear_in_first=package == "paddle")
        form = {"torchvision": "torch", "paddle": "paddle"}[package]
        known = identify(base.File(form, state, "float64"), asked, "it")
        for name, array in load(tmp_path / f"{spec}.safetensors", known.spec).items():
            np.testing.assert_array_equal(array, known.weights[name])


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

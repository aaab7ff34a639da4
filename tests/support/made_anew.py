"""What tests/upstream and tests/packages ask of the packages: the recorded values, and files."""

import numpy as np
from upstream_states import ORIGINALS, identified, make, read, state_of

from common.convert.conversion import convert
from common.parity.report import tensor_error
from common.weights import load


def cases_of(*packages):
    """The cases of these packages."""
    return [case for case, original in ORIGINALS.items() if original.package in packages]


def saved(case, folder):
    """The drawn state in a file that the package's own framework wrote."""
    state, form = state_of(case), ORIGINALS[case].form
    if form == "torch":
        import torch

        counts = {"conv1.bn.num_batches_tracked": torch.tensor(7)}  # as in every such file
        tensors = {name: torch.from_numpy(array) for name, array in state.items()}
        torch.save(tensors | counts, folder / "state.pt")
        return folder / "state.pt"
    if form == "mxnet":
        import mxnet as mx

        arrays = {name: mx.np.array(array, dtype="float64") for name, array in state.items()}
        mx.npx.save(str(folder / "state.params"), arrays)
        return folder / "state.params"
    if form == "tf":
        import h5py

        with h5py.File(folder / "state.h5", "w") as file:
            for name, array in state.items():
                file[name] = array
        return folder / "state.h5"
    import paddle

    tensors = {name: paddle.to_tensor(array) for name, array in state.items()}
    paddle.save(tensors, str(folder / "state.pdparams"))
    return folder / "state.pdparams"


def check_files(case, folder):
    """A file of the package converts to the spec, with the weights that `identify` gives."""
    original = ORIGINALS[case]
    found = convert(saved(case, folder), folder / f"{case}.safetensors", original.asked)
    assert (found.spec, found.channels, found.classes) == (original.spec, 3, 10)
    known = identified(case)
    for name, array in load(folder / f"{case}.safetensors", known.spec).items():
        np.testing.assert_array_equal(array, known.weights[name])


def check_answers(case):
    """The package's own network still gives the recorded logits."""
    fresh, written = make(case), read(case)
    modes = {mode for mode in written if mode in ("evaluation", "training")}
    assert fresh.keys() == written.keys()
    assert fresh["tensors"] == written["tensors"]
    assert "evaluation" in modes
    for mode in modes:
        assert fresh[mode].keys() == written[mode].keys()
        for head, logits in written[mode].items():
            got, want = np.array(fresh[mode][head]), np.array(logits)
            assert tensor_error(got, want) <= 1e-12, (case, mode, head)

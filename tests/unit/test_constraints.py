"""The hashed requirements are the constraints, with the hash of every file of each package."""

import re
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "constraints"
#: PyTorch's wheel is another file for each kind of machine, so these two have no hashes
UNHASHED = {"torch", "cross"}


def pins(text):
    return set(re.findall(r"^([\w.-]+==[^\s;\\]+)", text, re.M))


def test_every_environment_has_hashes_but_those_with_pytorch():
    plain = {path.stem for path in FOLDER.glob("*.txt")}
    assert {path.stem for path in (FOLDER / "hashed").glob("*.txt")} == plain - UNHASHED


@pytest.mark.parametrize("path", sorted((FOLDER / "hashed").glob("*.txt")), ids=lambda p: p.stem)
def test_each_pin_has_hashes_and_is_the_constraints_own(path):
    text = path.read_text()
    assert pins(text) == pins((FOLDER / path.name).read_text())
    for block in re.split(r"^(?=[\w])", text, flags=re.M)[1:]:
        assert re.findall(r"--hash=sha256:[0-9a-f]{64}\b", block), block


def test_the_old_hdf5_is_only_where_tensorflow_forces_it():
    """h5py 3.14 bundles an HDF5 with published heap overflows."""
    old = {path.stem for path in FOLDER.glob("*.txt") if "h5py==3.14" in path.read_text()}
    assert old == {"tf", "cross"}

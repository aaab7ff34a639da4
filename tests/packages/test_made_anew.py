"""The packages whose values CI only reads still give them: `tox -e packages-torch`, and so on.

timm and pretrainedmodels in PyTorch's environment, Gluon's model zoo and GluonCV in MXNet's, Keras
Applications in TensorFlow's. `python tests/support/upstream_states.py CASE` writes a file anew.
"""

import pytest
from made_anew import cases_of, check_answers, check_files

PACKAGES = {
    "torch": ("timm", "pretrainedmodels"),
    "mxnet": ("gluon", "gluoncv"),
    "tf": ("keras", "keras-h5"),
}


@pytest.fixture
def cases(pytestconfig):
    return cases_of(*PACKAGES[pytestconfig.getoption("--backend")])


def test_their_files_convert_to_the_spec(cases, tmp_path):
    assert cases
    for case in cases:
        (tmp_path / case).mkdir()
        check_files(case, tmp_path / case)


def test_the_packages_still_answer_so(cases):
    assert cases
    for case in cases:
        check_answers(case)

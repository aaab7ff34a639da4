"""torchvision and Paddle still give the recorded values of tests/data/upstream."""

import pytest
from made_anew import cases_of, check_answers, check_files

PACKAGES = {"torch": "torchvision", "paddle": "paddle"}


@pytest.fixture
def cases(pytestconfig):
    return cases_of(PACKAGES[pytestconfig.getoption("--backend")])


def test_its_files_convert_to_the_spec(cases, tmp_path):
    assert cases
    for case in cases:
        (tmp_path / case).mkdir()
        check_files(case, tmp_path / case)


def test_the_package_still_answers_so(cases):
    assert cases
    for case in cases:
        check_answers(case)

"""The notebooks are what docs/notebooks.py makes; tests/cross_framework runs them."""

import importlib.util
import json
import tomllib

import pytest

from backends import FRAMEWORKS
from common.files import ROOT


@pytest.fixture(scope="module")
def generator():
    spec = importlib.util.spec_from_file_location("notebooks", ROOT / "docs" / "notebooks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_notebooks_are_up_to_date(generator):
    made = generator.every()
    assert set(made) == {*(f"{name}.ipynb" for name in FRAMEWORKS), "compare.ipynb"}
    assert {path.name for path in (ROOT / "notebooks").glob("*.ipynb")} == set(made)
    for name, text in made.items():
        found = (ROOT / "notebooks" / name).read_text()
        assert found == text, "run python docs/notebooks.py"


def test_a_notebook_shows_the_code_of_its_framework_and_installs_first(generator):
    address = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]["Repository"]
    for name in FRAMEWORKS:
        cells = json.loads(generator.of_framework(name))["cells"]
        first = next(cell for cell in cells if cell["cell_type"] == "code")
        assert address in "".join(first["source"])
        text = "".join("".join(cell["source"]) for cell in cells)
        source = (ROOT / "backends" / name / "googlenet.py").read_text()
        line = next(line for line in source.splitlines() if "self.branch5x5 = " in line)
        assert line.strip() in text
    assert "does not run in Colab" in generator.of_framework("mxnet")

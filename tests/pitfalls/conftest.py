"""The pitfalls of porting: a test runs the real framework and shows two numbers, how far it is from
the reference without our fix and with it.

A pitfall is named as its test is, and has a section of that name in docs/porting. Its test fails
when the framework no longer deviates (the guide would be stale) and when the fix no longer helps.
"""

import json
import os
import pickle
import re
import subprocess
import sys
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from backends import FRAMEWORKS
from backends.numpy import Trainer

ROOT = Path(__file__).parents[2]
measured = {}  # of this session, by the name of the pitfall


def pytest_ignore_collect(collection_path, config):
    """The pitfalls of the other frameworks."""
    others = {f"test_{name}.py" for name in FRAMEWORKS if name != config.getoption("--backend")}
    return True if collection_path.name in others else None


def pytest_configure(config):
    """Each of several processes would measure a part."""
    if config.getoption("--write-results") and config.getoption("numprocesses", None):
        raise pytest.UsageError("--write-results needs one process: leave out -n.")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Note whether the test itself passed."""
    report = yield
    if call.when == "call":
        item.passed = report.passed
    return report


def pytest_sessionfinish(session, exitstatus):
    """Write the numbers, if they were asked for and every pitfall was shown."""
    if not session.config.getoption("--write-results") or exitstatus:
        return
    name = session.config.getoption("--backend")
    files = [Path(__file__).with_name(f"test_{each}.py").read_text() for each in ("every", name)]
    tests = re.findall(r"^def test_(\w+)", "".join(files), re.MULTILINE)
    if missing := {test.replace("_", "-") for test in tests} - {*measured}:
        pytest.exit(f"--write-results writes nothing without {', '.join(missing)}", 1)
    found = {"backend": name, "version": session.config.backend.VERSION, "traps": measured}
    path = ROOT / "docs" / "results" / f"pitfalls-{name}.json"
    path.write_text(json.dumps(found, indent=2) + "\n")


@pytest.fixture
def backend(pytestconfig):
    return pytestconfig.backend


@pytest.fixture
def name(pytestconfig):
    return pytestconfig.getoption("--backend")


@pytest.fixture(scope="session")
def built(pytestconfig):
    """`build` for the CPU, each network once: the tests that use it write the weights they need."""
    return lru_cache(lambda spec, dtype: pytestconfig.backend.build(spec, dtype, "cpu"))


@pytest.fixture
def shows(request):
    """What every test of a pitfall calls, once, with its two numbers.

    `without` the fix the framework must be off by at least `least`, `fixed` by at most `most`. A
    framework that refuses or does harm, and does not compute, counts 1 for that and 0 for none.
    """
    pitfall = request.function.__name__.removeprefix("test_").replace("_", "-")

    def hold(without, fixed, least, most=1e-12):
        assert pitfall not in measured, "shown twice"
        without, fixed = float(without), float(fixed)
        assert without >= least, f"it deviates by {without} only: docs/porting is stale"
        assert fixed <= most, f"the fix leaves {fixed}"
        measured[pitfall] = {"without": float(f"{without:.2g}"), "with": float(f"{fixed:.2g}")}

    yield hold
    assert pitfall in measured or not request.node.passed, "showed nothing"


@pytest.fixture
def textbook():
    """The reference's weight after a gradient at each rate, by the recipe's formulas."""

    def final(recipe, weight, gradients, rates):
        model = SimpleNamespace(weights={"weight": np.array(weight, float)}, dtype=np.dtype(float))
        trainer = Trainer(model, recipe)
        for gradient, rate in zip(gradients, rates, strict=True):
            trainer.set_step(rate, 0)
            trainer.apply({"weight": gradient})
        return model.weights["weight"]

    return final


@pytest.fixture
def python():
    """Run code in a new process from the repository's root; what is left when it is over."""

    def run(code, *arguments):
        command = [sys.executable, "-c", code, *map(str, arguments)]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)

    return run


@pytest.fixture
def hostile(tmp_path):
    """A pickle that makes a folder when it is read, and whether it did so."""

    class Hostile:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "harm"),)

    path = tmp_path / "weights"
    path.write_bytes(pickle.dumps(Hostile()))
    return path, (tmp_path / "harm").exists

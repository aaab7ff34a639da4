"""All four frameworks lie in one environment; each is loaded in a process of its own."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from backends import FRAMEWORKS
from common.spec import MINI
from common.weights import shapes

ROOT = Path(__file__).parents[2]

BUILD = """
import json, sys
from backends import FRAMEWORKS, load
from common.spec import MINI

backend = load(sys.argv[1])
weights = backend.read_weights(backend.build(MINI, "float32", "cpu"))
shapes = {name: array.shape for name, array in weights.items()}
print(json.dumps([shapes, [name for name in FRAMEWORKS if FRAMEWORKS[name] in sys.modules]]))
"""


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_a_backend_builds_the_small_network_and_loads_no_other_framework(name):
    command = [sys.executable, "-c", BUILD, name]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found, loaded = json.loads(done.stdout.splitlines()[-1])
    assert {weight: tuple(shape) for weight, shape in found.items()} == shapes(MINI)
    assert loaded == [name]


def test_tensorflow_before_paddle_ends_the_process():
    """Which is why every backend has a process of its own; the other way round they live."""
    ends = [
        subprocess.run([sys.executable, "-c", f"import {order}"], capture_output=True).returncode
        for order in ("tensorflow, paddle", "paddle, tensorflow")
    ]
    assert ends[0] < 0, "docs/porting/runtime.md is stale: it no longer dies"
    assert ends[1] == 0

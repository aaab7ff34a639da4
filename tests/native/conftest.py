"""The classes of each backend can do what experts of its framework expect, with its own tools."""

import subprocess
import sys
from pathlib import Path

import pytest

from backends import FRAMEWORKS

ROOT = Path(__file__).parents[2]


def pytest_ignore_collect(collection_path, config):
    """The tests of the other frameworks."""
    others = [f"test_{name}" for name in FRAMEWORKS if name != config.getoption("--backend")]
    return True if collection_path.name.startswith(tuple(others)) else None


@pytest.fixture
def fresh():
    """Run Python code in a new process from the repository's root; what it printed."""

    def run(code, *arguments):
        command = [sys.executable, "-W", "ignore", "-c", code, *map(str, arguments)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    return run

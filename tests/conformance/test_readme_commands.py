"""The commands of the README work, typed in order in a fresh copy of the clone.

All but the installation and tox, whose environments `tests/unit/test_readme.py` compares.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import newcomer  # in tests/support
import pytest

ROOT = Path(__file__).parents[2]
LEAST = 0.8  #: test accuracy that the README promises after the first command


def answers():
    """The blocks that show what a command prints."""
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", (ROOT / "README.md").read_text(), re.M | re.S)
    return [text for language, text in blocks if not language]


@pytest.fixture
def clone(tmp_path):
    """A copy of the program and its documents, without tests, results and what runs have left."""
    ignored = shutil.ignore_patterns(".*", "__pycache__", "tests", "results", "runs", "venv")
    return shutil.copytree(ROOT, tmp_path / "clone", ignore=ignored)


def test_the_commands_of_the_readme_work_in_order(name, clone):
    if name != "tf":
        pytest.skip("the README's commands use TensorFlow")
    printed = {}
    for command in newcomer.commands():
        tool, *words = command.split()
        if tool != "googlenet":  # pip
            continue
        done = subprocess.run(
            [sys.executable, "-m", "common.cli", *words],
            cwd=clone,
            env={**os.environ, "PYTHONPATH": str(clone)},
            capture_output=True,
            text=True,
        )
        expected = newcomer.expected(command)
        assert done.returncode == expected, (command, done.stdout, done.stderr)
        assert "Traceback" not in done.stderr
        assert words[0] != "check" or not re.search(r"cuda|absl|oneDNN", done.stderr), done.stderr
        printed[words[0], "--inject" in words] = done.stdout
    first = printed["train", False].splitlines()
    assert not re.search(r"cuda|absl|oneDNN", first[0])
    accuracy = float(re.search(r"test acc ([\d.]+)$", printed["train", False], re.M)[1])
    assert accuracy > LEAST
    assert "Sneaker" in printed["predict", False]
    assert (clone / "runs" / "quick-tf" / "curve.png").stat().st_size > 10_000
    found, injected = printed["check", False], printed["verify", True]
    assert "same-padding" in found
    assert "4 more" in found
    assert "FAILED" in injected
    compared, shown, failed = answers()
    assert printed["summary", False].endswith(compared)
    for line in shown.splitlines():  # residuals and numbers of layers differ from run to run
        words = re.match(r"[^\d(]*", line)[0].strip()
        assert words in found, line
    assert failed.split(" FAILED ")[1].split(", error")[0] in injected

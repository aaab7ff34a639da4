"""Plays a newcomer: a clean clone, a new virtual environment, and the README's commands in order.

`python tests/support/newcomer.py` clones what is committed into a temporary folder and prints the
seconds of each command; the last writes the page. It ends with status 1 at the first command that
fails. `--tox` also types the second set-up command, which runs all the tests.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
#: the four frameworks side by side, which the README describes in a sentence
PAGE = ["python -m pip install -c constraints/cross.txt -e .[page]", "googlenet page --out site"]
DIFFERS = 3  #: the status of a command that finds the mistake that it was given
SHOWN = 30  #: lines of the output of a command that fails


def commands(tox: bool = False) -> list[str]:
    """The commands in the README's blocks of shell, in order; those of the tests only with tox."""
    blocks = re.findall(r"^```sh\n(.*?)^```", (ROOT / "README.md").read_text(), re.M | re.S)
    lines = [[step.strip() for step in line.split("&&")] for line in "".join(blocks).splitlines()]
    tests = [line for line in lines if any(step.startswith("tox ") for step in line)]
    assert len(tests) == 1, "the README has one command that runs all the tests"
    return [step for line in lines if tox or line not in tests for step in line]


def expected(command: str) -> int:
    """The status of a command of the README: two of them show a mistake that is found."""
    words = command.split()
    return DIFFERS if words[:2] == ["googlenet", "check"] or "--inject" in words else 0


def play(steps: Sequence[str], folder: Path, environment: Mapping[str, str]) -> int:
    """Run the commands in a folder and print the seconds of each; 1 at the first that fails."""
    begin = time.monotonic()
    for step in steps:
        print(f"$ {step}", flush=True)
        start = time.monotonic()
        done = subprocess.run(
            shlex.split(step),
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        seconds = time.monotonic() - start
        if done.returncode != expected(step):
            print(*done.stdout.splitlines()[-SHOWN:], sep="\n")
            print(f"failed with status {done.returncode} after {seconds:.1f} s", flush=True)
            return 1
        print(f"  {seconds:.1f} s", flush=True)
    print(f"total {time.monotonic() - begin:.1f} s")
    return 0


def main() -> int:
    """Read the options and play in a temporary folder."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--tox", action="store_true", help="also run all the tests (an hour)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        clone, venv = Path(temporary) / "clone", Path(temporary) / "venv"
        environment = {**os.environ, "VIRTUAL_ENV": str(venv)}
        environment["PATH"] = os.pathsep.join((str(venv / "bin"), os.environ["PATH"]))
        environment.pop("PYTHONPATH", None)  # a newcomer has none
        clone.mkdir()
        setup = [
            shlex.join(("git", "clone", "--quiet", str(ROOT), ".")),
            shlex.join((sys.executable, "-m", "venv", str(venv))),
        ]
        return play([*setup, *commands(options.tox), *PAGE], clone, environment)


if __name__ == "__main__":
    sys.exit(main())

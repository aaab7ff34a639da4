"""The newcomer types the README's commands, and stops at the first that fails."""

import os
import shlex
import sys

import newcomer  # in tests/support
import pytest


def test_the_commands_are_the_readmes_and_tox_is_typed_only_on_request():
    typed = newcomer.commands()
    assert typed[0].startswith("python -m pip install -c constraints/tf.txt")
    words = {command.split()[1] for command in typed[1:]}
    assert words == {"verify", "train", "predict", "summary", "check", "convert"}
    more = [step for step in newcomer.commands(tox=True) if step not in typed]
    assert [step.split()[0] for step in more] == ["python", "tox"]
    found = [step for step in typed if newcomer.expected(step)]
    assert [step.split()[1] for step in found] == ["check", "verify"]


@pytest.mark.parametrize(("status", "answer"), [(0, 0), (2, 1)])
def test_the_first_command_that_fails_ends_the_play(status, answer, tmp_path, capsys):
    code = f"print(6 * 7); open('here', 'w'); raise SystemExit({status})"
    last = "open('next', 'w')"
    steps = [shlex.join((sys.executable, "-c", each)) for each in (code, last)]
    assert newcomer.play(steps, tmp_path, os.environ) == answer
    assert (tmp_path / "here").exists()
    assert (tmp_path / "next").exists() == (answer == 0)
    said = capsys.readouterr().out.splitlines()
    assert said[-1].startswith("failed with status 2" if answer else "total")
    assert ("42" in said) == (answer == 1)  # what a command printed is shown if it fails

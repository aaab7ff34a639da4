"""Tables and progress: styled in a terminal, plain when they are piped."""

import os
import pty
import re
import subprocess
import sys

import pytest

from common import terminal
from common.files import ROOT

ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\r")


def in_terminal(program, columns=60, until=""):
    """The output of a Python program whose stdout and stderr are a terminal.

    Its stdin ends as soon as these words have been read from the terminal.
    """
    master, slave = pty.openpty()
    environment = {**os.environ, "COLUMNS": str(columns), "TERM": "xterm-256color"}
    ends = {"stdin": subprocess.PIPE, "stdout": slave, "stderr": slave}
    with subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, env=environment, **ends
    ) as process:
        os.close(slave)
        found = b""
        while True:
            if until.encode() in found:
                process.stdin.close()
            try:
                part = os.read(master, 4096)
            except OSError:  # Linux: the other side is closed
                break
            if not part:
                break
            found += part
        os.close(master)
    assert process.returncode == 0, found
    return found.decode()


def test_a_piped_table_is_plain_and_one_line_a_row(capsys):
    text = terminal.table(
        [("a" * 300, 1, None), ("[b]b[/b] :smile:", "2,000", "x")], ("n", "m", "")
    )
    heads, rule, first, second = text.splitlines()
    assert heads.split() == ["n", "m"]
    assert set(rule) == {"-"}
    assert first.split() == ["a" * 300, "1"]
    assert second.startswith("[b]b[/b] :smile: ")
    assert first.index("1") - len("2,00") == second.index("2,000")  # numbers end together
    assert not ESCAPE.search(text)
    assert all(line == line.rstrip() for line in text.splitlines())


def test_a_table_without_heads_has_its_rows_alone():
    assert terminal.table([("name", "d2l"), ("a", 7)], ()) == "name  d2l\na     7"


def test_a_table_in_a_terminal_fits_its_width_and_has_a_bold_head():
    program = "from common.terminal import *; print(table([('word ' * 30, 1)], ('text', 'n')))"
    found = in_terminal(program)
    assert "\x1b[1m" in found
    plain = ESCAPE.sub("", found).splitlines()
    assert max(map(len, plain)) <= 60
    assert " ".join(plain).count("word") == 30


PROGRESS = """
import time
from common.terminal import doing, progress, say, tracked
with progress("starting", quiet=False):
    time.sleep(0.3)
    doing("the second thing")
    say("a line")
    time.sleep(0.3)
    for _ in tracked([1, 2, 3], "inner", "things"):
        time.sleep(0.1)
print("end")
"""


def test_progress_is_drawn_in_a_terminal_and_leaves_only_the_lines():
    found = in_terminal(PROGRESS)
    for what in ("starting", "the second thing", "inner", "3/3 things"):
        assert what in found
    lines = [line.rstrip("\r") for line in found.split("\n")]
    assert any(ESCAPE.sub("", line) == "a line" for line in lines)
    assert ESCAPE.sub("", lines[-2]).endswith("end")


def test_piped_progress_prints_nothing_but_the_lines():
    done = subprocess.run(
        [sys.executable, "-c", PROGRESS], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == ("a line\nend\n", "")


@pytest.mark.parametrize(
    ("command", "starts", "said"),
    [
        ("verify", False, "torch"),
        ("bugs", False, "starting torch"),
        ("bugs", True, "missing-bias"),
        ("bench", False, "torch"),
        ("convert x.pt y.npz", False, "converting x.pt"),
    ],
)
def test_a_long_command_shows_what_it_does_before_it_is_done(command, starts, said):
    """The framework is replaced by one that waits until these words are on the screen."""
    program = f"""
import select, sys
from unittest import mock
from common.cli import main
def wait(*args, **more):
    shown, _, _ = select.select([sys.stdin], [], [], 60)
    raise SystemExit(0 if shown else 1)
words = {command!r}.split()
words += ["--backend", "torch"] * (words[0] != "convert")
with (
    mock.patch("common.parity.suite.verify", wait),
    mock.patch("common.parity.suite.second_device", (lambda name: None) if {starts} else wait),
    mock.patch("common.parity.suite.verify_injected", wait),
    mock.patch("common.bench.benchmark.Plan.checked"),
    mock.patch("common.bench.benchmark.bench", wait),
    mock.patch("common.convert.conversion.convert", wait),
):
    main(words)
"""
    in_terminal(program, 100, until=said)


def test_a_terminal_without_some_characters_shows_them_as_escapes():
    """Names in a file may be in any language, and a traceback would say nothing of them."""
    program = "import click\nfrom common.cli.app import Commands\nmain = Commands()\n"
    program += "main.command('say')(lambda: click.echo('模型'))\nmain(['say'])"
    for code, said in (("latin-1", rb"\u6a21\u578b"), ("utf-8", "模型".encode())):
        done = subprocess.run(
            [sys.executable, "-c", program],
            cwd=ROOT,
            capture_output=True,
            env={**os.environ, "PYTHONIOENCODING": code},
        )
        assert done.stdout.strip() == said, done.stderr

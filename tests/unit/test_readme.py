"""The README is what docs/generate.py makes of it, and its commands are those that are tested."""

import importlib.util
import json
import re
import shlex
from pathlib import Path

import pytest

from backends import FRAMEWORKS
from common.cli import main
from common.plants import BUGS

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


@pytest.fixture(scope="module")
def generator():
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_generated_parts_are_up_to_date(generator):
    for language, name in enumerate(generator.READMES):
        text = (ROOT / name).read_text()
        assert generator.generate(text, language) == text, "run python docs/generate.py"


@pytest.mark.parametrize("backend", FRAMEWORKS)
def test_the_results_hold_every_bug_and_each_was_caught_by_a_rung_that_should(generator, backend):
    rows = generator.results("bugs", backend)
    assert [row["bug"] for row in rows] == list(BUGS)
    assert all(row["rung"] in BUGS[row["bug"]].rungs for row in rows)


@pytest.mark.parametrize("backend", FRAMEWORKS)
def test_every_rung_of_the_results_holds(generator, backend):
    reports = generator.results("verify", backend)
    assert len(reports) == 20
    assert all(rung["passed"] for report in reports for rung in report["rungs"])


def test_the_results_are_plain_json():
    def refuse(constant):
        raise ValueError(constant)

    paths = list((ROOT / "docs" / "results").glob("*.json"))
    assert len(paths) == 3 * len(FRAMEWORKS)
    for path in paths:
        json.loads(path.read_text(), parse_constant=refuse)


def test_the_judge_runs_the_command_that_the_readme_gives():
    (command,) = re.findall(r"^python -m pip install -c constraints/tox.txt .*$", README, re.M)
    assert command in (ROOT / ".ci" / "run").read_text()


def test_every_command_of_the_readme_is_one():
    lines = re.findall(r"^(?:python .* && )?googlenet (.*)$", README, re.M)
    assert len(lines) > 5
    for line in lines:
        command, *words = shlex.split(line, comments=True)
        main.commands[command].make_context(command, words)  # a usage error for what is none


def test_every_link_of_the_guides_leads_somewhere():
    for guide in ("README.md", "README.zh-CN.md", "CONTRIBUTING.md"):
        for target in re.findall(r"\]\(([^)#]+)\)", (ROOT / guide).read_text()):
            if not target.startswith("http"):
                assert (ROOT / target).exists(), target

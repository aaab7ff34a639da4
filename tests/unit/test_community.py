"""The files for people who contribute and cite: they parse, and they say what the project does."""

import configparser
import re
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
TEMPLATES = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))


def parsed(path):
    return yaml.safe_load((ROOT / path).read_text())


def environments():
    """The environments of tox, in its order."""
    tox = configparser.ConfigParser(interpolation=None)
    tox.read(ROOT / "tox.ini")
    return [name.strip() for name in tox["tox"]["env_list"].split(",")]


def test_the_citation_names_this_version_and_licence():
    found = parsed("CITATION.cff")
    assert found["cff-version"] == "1.2.0"
    assert found["version"] == PROJECT["version"]
    assert found["license"] == PROJECT["license"]
    assert {"message", "title", "authors", "type"} <= set(found)
    assert all("name" in author or "family-names" in author for author in found["authors"])
    for work in found["references"]:
        assert {"type", "title", "authors"} <= set(work)


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_every_issue_template_is_a_form(path):
    found = parsed(path)
    if path.stem == "config":
        assert found == {"blank_issues_enabled": True}
        return
    assert {"name", "description", "body"} <= set(found)
    ids = [field["id"] for field in found["body"]]
    assert len(set(ids)) == len(ids)
    for field in found["body"]:
        assert field["type"] in ("textarea", "input", "dropdown", "checkboxes")
        assert field["attributes"]["label"]


def test_there_are_templates_for_issues_and_pull_requests():
    assert {path.stem for path in TEMPLATES} == {"bug", "parity", "idea", "config"}
    text = (ROOT / ".github" / "PULL_REQUEST_TEMPLATE.md").read_text()
    for name in re.findall(r"tox -e (\w+)", text):
        assert f"[testenv:{name}]" in (ROOT / "tox.ini").read_text()
    assert (ROOT / "CHANGELOG.md").exists()


def test_random_mistakes_are_drawn_each_night():
    found = parsed(".github/workflows/check-random.yml")
    triggers = found.get("on", found.get(True))  # YAML 1.1 reads `on` as true
    assert re.fullmatch(r"\d+ \d+ \* \* \*", triggers["schedule"][0]["cron"])
    assert found["jobs"]["check-random"]["steps"][-1]["run"] == "tox -e check-random"
    assert "[testenv:check-random]" in (ROOT / "tox.ini").read_text()


def test_the_workflow_runs_every_environment_of_tox_in_a_job_of_its_own():
    found = parsed(".github/workflows/tests.yml")
    job = found["jobs"]["tox"]
    assert job["strategy"]["matrix"]["env"] == environments()
    assert job["strategy"]["fail-fast"] is False
    runs = [step["run"] for step in job["steps"] if "run" in step]
    assert runs[-1] == "tox -e ${{ matrix.env }}"
    assert (ROOT / re.search(r"-r (\S+)", runs[0])[1]).exists()
    least = PROJECT["requires-python"].removeprefix(">=")
    assert job["strategy"]["matrix"]["python"] == [least]
    assert found["permissions"] == {"contents": "read"}
    for step in job["steps"]:
        assert "uses" in step or "run" in step


def test_pre_commit_has_the_ruff_of_the_environment_lint():
    (repo,) = parsed(".pre-commit-config.yaml")["repos"]
    (pin,) = re.findall(r"^ruff==(.+)$", (ROOT / "constraints" / "lint.txt").read_text(), re.M)
    assert repo["rev"] == f"v{pin}"
    assert [hook["id"] for hook in repo["hooks"]] == ["ruff-check", "ruff-format"]


def test_the_badges_say_what_the_project_says():
    python, licence = (
        (ROOT / "docs" / f"badge-{name}.svg").read_text() for name in ("python", "licence")
    )
    versions = re.findall(r"3\.\d+", python)
    assert f">={versions[0]}" == PROJECT["requires-python"]
    tried = (ROOT / "constraints" / "unit.txt").read_text()
    assert all(version in tried for version in versions)
    assert PROJECT["license"] in licence
    for text in (python, licence):
        assert not re.search(r"href|url\(|@import", text), "a badge needs no network"


def test_the_code_of_conduct_says_whom_to_write_to():
    text = (ROOT / "CODE_OF_CONDUCT.md").read_text()
    assert "write to a maintainer" in text

"""Fixtures: the page in a real Chromium, and copies of the repository that a test may damage."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import provide
import pytest
from playwright.sync_api import sync_playwright

from backends import FRAMEWORKS
from common.page import site as pages

ROOT = Path(__file__).parents[2]


def browser_path():
    """The path of the browser; without one the test fails with advice, it is never skipped."""
    found = provide.browser()
    if not found:
        pytest.fail(
            "There is no Chromium: run `python tests/support/provide.py browser`, or set CHROMIUM "
            "to its path.",
            pytrace=False,
        )
    return found


@pytest.fixture(scope="session")
def browser():
    path = browser_path()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    """A folder with the page, built from this checkout."""
    folder = tmp_path_factory.mktemp("site")
    pages.write(folder)
    return folder


@pytest.fixture
def visit(browser, site):
    """Open a page from disk; an error, a message or a request outside the site fails the test."""
    contexts, wrong = [], []

    def visit(name="index.html", hash="", folder=site, **options):
        options = {"viewport": {"width": 1440, "height": 900}, "reduced_motion": "reduce"} | options
        context = browser.new_context(**options)
        context.set_default_timeout(200_000)  # milliseconds: the machine may be busy
        contexts.append(context)
        page = context.new_page()
        url = (folder / name).as_uri()

        def on_request(request):
            if not request.url.startswith((folder.as_uri(), "data:")):
                wrong.append(f"request: {request.url}")

        page.on("request", on_request)
        page.on("console", lambda message: wrong.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: wrong.append(f"error: {error}"))
        page.goto(url + hash)
        return page

    yield visit
    for context in contexts:
        context.close()
    assert not wrong


@pytest.fixture
def checkout(tmp_path):
    """A copy of the files that the page is made from, to damage."""
    ignored = shutil.ignore_patterns("__pycache__", "*.png", "*.svg")
    shutil.copytree(ROOT / "backends", tmp_path / "backends", ignore=ignored)
    shutil.copytree(ROOT / "docs", tmp_path / "docs", ignore=ignored)

    def change(path, old, new):
        text = (tmp_path / path).read_text()
        assert old in text, old
        (tmp_path / path).write_text(text.replace(old, new))

    return SimpleNamespace(root=tmp_path, change=change)


PITFALLS = {"version": "1", "traps": {"same-padding": {"without": 0.59, "with": 2e-16}}}
GUIDE = '<a id="same-padding"></a>\n\n## `same` pads off centre\n'


@pytest.fixture
def measured(checkout):
    """A checkout with results of the pitfalls, and a guide that names them."""
    for name in FRAMEWORKS:
        path = checkout.root / "docs" / "results" / f"pitfalls-{name}.json"
        path.write_text(json.dumps(PITFALLS | {"backend": name}))
    (checkout.root / "docs" / "porting" / "layout.md").write_text(GUIDE)
    return checkout

"""The site of the documents: its links hold, it loads nothing, and its search knows Chinese."""

import re
import subprocess
import sys
import urllib.parse
from html.parser import HTMLParser
from pathlib import Path

import provide
import pytest
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).parents[2]


class Page(HTMLParser):
    """The links, the ids and the loaded files of a page."""

    # ruff: noqa: D102 - the parser's own methods

    def __init__(self, text):
        super().__init__()
        self.links, self.ids, self.loaded = [], set(), []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.ids |= {found[name] for name in ("id", "name") if found.get(name)}
        if tag == "a" and found.get("href"):
            self.links.append(found["href"])
        elif tag == "link" and found.get("rel") not in ("canonical", "alternate", "next", "prev"):
            self.loaded.append(found.get("href"))
        elif tag in ("script", "img", "iframe") and found.get("src"):
            self.loaded.append(found["src"])


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "-d", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return folder


@pytest.fixture(scope="session")
def parsed(site):
    return {path: Page(path.read_text()) for path in sorted(site.rglob("*.html"))}


def test_both_languages_and_the_page_are_there(site):
    folders = (ROOT / "docs", ROOT / "docs" / "porting")
    found = [path for folder in folders for path in folder.glob("*.md") if path.suffixes == [".md"]]
    names = [path.relative_to(ROOT / "docs").with_suffix("") for path in found]
    assert len(names) > 25
    for name in names:
        assert (site / f"{name}.html").exists()
        assert (site / "zh" / f"{name}.html").exists()
    assert (site / "page" / "index.html").exists()
    assert (site / "page" / "index.zh-CN.html").exists()


def test_the_chinese_home_leads_to_the_page_and_english_pages_say_so(site, parsed):
    assert "../page/index.zh-CN.html" in parsed[site / "zh" / "index.html"].links
    assert "page/index.html" in parsed[site / "index.html"].links
    assert "本页目前只有英文版" in (site / "zh" / "api.html").read_text()
    chinese = [path.relative_to(ROOT / "docs") for path in (ROOT / "docs").rglob("*.zh.md")]
    assert len(chinese) > 20
    for path in chinese:
        text = (site / "zh" / str(path).replace(".zh.md", ".html")).read_text()
        assert "本页目前只有英文版" not in text
        assert ">English</a></p>" not in text
        spaced = "[一-鿿，。]\n[一-鿿]|[，。；：、]\n(<code|<a )"  # a browser shows a line's end so
        assert not re.search(spaced, text), path


def test_every_link_leads_to_a_file_and_an_anchor_of_the_site(site, parsed):
    count = 0
    for path, page in parsed.items():
        if path.name == "404.html":
            continue
        for link in page.links:
            target = urllib.parse.urlsplit(link)
            if target.scheme or link.startswith("//"):
                continue
            file = path
            if target.path:
                file = (path.parent / urllib.parse.unquote(target.path)).resolve()
                file = file / "index.html" if file.is_dir() else file
            assert file.exists(), (path.relative_to(site), link)
            anchor = urllib.parse.unquote(target.fragment)
            if anchor and file in parsed and not anchor.startswith("__"):
                assert anchor in parsed[file].ids, (path.relative_to(site), link)
            count += 1
    assert count > 1000


def test_the_site_loads_nothing_from_the_network(site, parsed):
    for path, page in parsed.items():
        for target in page.loaded:
            assert not re.match(r"(https?:)?//", target or ""), (path.relative_to(site), target)
    for path in site.rglob("*.css"):
        assert not re.search(r"url\(['\"]?(https?:)?//|@import", path.read_text()), path


def test_the_api_has_the_classes_with_their_docstrings(site):
    text = re.sub("<[^>]+>", " ", (site / "api.html").read_text())
    for name in ("backends.torch.googlenet.GoogLeNet", "backends.paddle.googlenet.GoogLeNet"):
        assert name in text
    for word in ("assert_same", "Recipe", "summary", "Trainer"):
        assert word in text
    assert "What to train and how" in text


@pytest.fixture(scope="module")
def browser():
    """Chromium."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=provide.browser())
        yield browser
        browser.close()


@pytest.mark.parametrize(
    ("page", "asked", "said"),
    [
        ("zh/index.html", "准确率", "准确率"),
        ("zh/index.html", "注入错误", "错误"),
        ("index.html", "momentum", "omentum"),
    ],
)
def test_search_works_without_a_network(site, browser, page, asked, said):
    wrong = []
    opened = browser.new_page()
    opened.set_default_timeout(200_000)  # milliseconds: the machine may be busy
    opened.on("request", lambda r: wrong.append(r.url) if r.url.startswith("http") else None)
    opened.goto(f"{(site / page).as_uri()}?q={urllib.parse.quote(asked)}")
    first = opened.locator(".md-search-result__item").first
    first.wait_for()
    assert said in opened.locator(".md-search-result__list").inner_text()
    assert not wrong

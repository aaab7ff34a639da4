"""The content of the page: code found by name, aligned lines, results, two languages, one file.

Long because most tests share the parser of the page and the damaged checkouts.
"""

import json
import re
import shutil
import socket
import struct
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from functools import lru_cache
from html.parser import HTMLParser
from http.client import RemoteDisconnected
from pathlib import Path
from threading import Thread
from types import SimpleNamespace

import pytest
from markupsafe import escape

from backends import FRAMEWORKS
from common.check.mistakes import MISTAKES
from common.errors import PageError
from common.page import align, content, results, topics, words
from common.page import site as pages
from common.page.guide import DOCUMENTS, guide_titles
from common.page.mistakes import WRONG as LINES
from common.page.mistakes import sentence
from common.parity.mutations import INJECTED_BUGS
from common.parity.report import CHECKS_KEY

ROOT = Path(__file__).parents[2]
LANGUAGES = words.LANGUAGES
VOID = {"meta", "link", "br", "wbr", "input", "line", "circle", "polyline"}


class Tree(HTMLParser):
    """Every element with its attributes, its depth and its text."""

    # ruff: noqa: D102 - the parser's own methods

    def __init__(self, html):
        super().__init__()
        self.found, self.open = [], []
        self.feed(html)
        self.close()
        assert not self.open, "an element is not closed"

    def handle_starttag(self, tag, attrs):
        element = {"tag": tag, "text": "", "depth": len(self.open), **dict(attrs)}
        self.found.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop()["tag"] == tag

    def handle_startendtag(self, tag, attrs):
        self.found.append({"tag": tag, "text": "", "depth": len(self.open), **dict(attrs)})

    def handle_data(self, data):
        for element in self.open:
            element["text"] += data


@pytest.fixture(scope="module", params=LANGUAGES)
def language(request):
    return request.param


@pytest.fixture(scope="module")
def html():
    return {language: pages.render(language) for language in LANGUAGES}


@pytest.fixture(scope="module")
def page():
    return content.Page("en", ROOT)


def section(html, name):
    """The text of a section."""
    (found,) = [e for e in Tree(html).found if e["tag"] == "section" and e.get("id") == name]
    return " ".join(found["text"].split())


def notes(html):
    return [" ".join(e["text"].split()) for e in Tree(html).found if e.get("class") == "note"]


def test_every_topic_has_four_columns_of_real_code(page):
    shown = [topic.id for topic in page.topics]
    assert shown == [topic.id for topic in topics.TOPICS]
    for topic in page.topics:
        assert [column.backend for column in topic.columns] == list(FRAMEWORKS)
        for column in topic.columns:
            real = [line.strip() for line in (ROOT / column.path).read_text().splitlines()]
            lines = [html.striptags() if html else "" for html in column.html if html is not None]
            assert any(line for line in lines)
            for line in column.code.splitlines():
                assert line.strip() in real


def test_the_lines_of_a_column_are_all_there_and_in_order(page):
    for topic in page.topics:
        for column in topic.columns:
            assert len(column.html) == len(column.absent) == len(topic.columns[0].html)
            text = [re.sub("<[^>]+>", "", html).strip() for html in column.html if html is not None]
            plain = column.code.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
            plain = plain.replace('"', "&#34;").replace("'", "&#39;")
            assert text == [line.strip() for line in plain.splitlines()]


@pytest.mark.parametrize(
    ("topic", "line"),
    [
        ("conv", "class Conv("),
        ("conv", "self.relu = "),
        ("optimizer", "def set_rate("),
        ("step", "def train_step("),
        ("inception", "self.branch1x1 = "),
        ("inception", "self.branch_pool = "),
        ("stages", "self.stage3 = "),
        ("head", "self.head = "),
        ("weights", "def read_weights("),
        ("evaluation", "for images, labels in batches"),
        ("device", "def devices()"),
    ],
)
def test_matching_lines_stand_side_by_side(page, topic, line):
    (found,) = [each for each in page.topics if each.id == topic]
    rows = set()
    for column in found.columns:
        plain = [re.sub("<[^>]+>", "", html or "") for html in column.html]
        (row,) = [row for row, text in enumerate(plain) if line in text]
        rows.add(row)
    assert len(rows) == 1


def test_only_what_differs_between_matching_lines_is_marked():
    code = {"a": ("a", ["y = nn.Conv2d(x)", "z = 1"]), "b": ("b", ["y = nn.Conv2D(x)"])}
    first, second = align.align(code)
    assert first.html[0] == 'y = nn.<span class="n1">Conv2d</span>(x)'
    assert second.html[0] == 'y = nn.<span class="n0">Conv2D</span>(x)'
    assert first.absent == ["", "x1"]
    assert second.html[1] is None


def test_lines_that_do_not_match_share_a_row_and_are_marked_as_such():
    code = {"a": ("a", ["return self.relu(x)", "y"]), "b": ("b", ["import torch", "y"])}
    first, second = align.align(code)
    assert [column.html.count(None) for column in (first, second)] == [0, 0]
    assert first.absent == ["x1", ""]
    assert second.absent == ["x0", ""]
    assert not any("n1" in line for line in first.html)


def test_lines_that_define_the_same_name_match_and_those_of_other_names_do_not():
    code = {
        "a": ("a", ["self.conv = nn.Conv2d(a, b)", "self.relu = nn.ReLU()"]),
        "b": ("b", ["self.pad = nn.ReLU()", "self.conv = Other", "self.relu = nn.ReLU()"]),
    }
    first, second = align.align(code)
    assert first.html[0] is None
    assert "pad" in second.html[0]
    assert "conv" in first.html[1]
    assert "conv" in second.html[1]
    assert "relu" in first.html[2]


def test_code_that_only_some_frameworks_have_leaves_no_column_waiting(page):
    (leaves,) = [topic for topic in page.topics if topic.id == "leaves"]
    code = max(len(column.code.splitlines()) for column in leaves.columns)
    assert leaves.rows < 1.2 * code


def test_few_lines_stand_beside_a_gap(page):
    """47 % of all places were gaps when each unmatched line had a row of its own."""
    gaps = sum(column.html.count(None) for topic in page.topics for column in topic.columns)
    places = sum(len(column.html) for topic in page.topics for column in topic.columns)
    assert gaps / places < 0.4


def test_code_cannot_become_html():
    (column,) = align.align({"a": ("a", ["x = '<script>' < y"])})
    assert "<script" not in column.html[0]


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("paddle/googlenet.py", "class Inception(", "class Block("),
        ("tf/train.py", "def evaluate(", "def test("),
        ("mxnet/weights.py", "def to_native(", "def native("),
        ("torch/googlenet.py", "self.head = ", "self.classifier = "),
        ("torch/googlenet.py", "case rows.MaxPool()", "case rows.Pool()"),
        ("paddle/googlenet.py", "self.branch5x5 = ", "self.branch = "),
        ("mxnet/train.py", "network.hybridize", "network.compile"),
        ("tf/optimizers.py", "class Adam(", "class Eve("),
        ("torch/layers.py", "class BatchNorm(", "class Norm("),
        ("paddle/device.py", "def devices(", "def all_devices("),
    ],
)
def test_a_missing_name_is_refused_and_named(checkout, file, old, new):
    checkout.change(f"backends/{file}", old, new)
    with pytest.raises(PageError, match=f"{file.split('/')[0]}.*common/page"):
        pages.render("en", checkout.root)


def test_a_topic_that_not_all_frameworks_have_is_refused(checkout):
    path = checkout.root / "backends" / "mxnet" / "weights.py"
    path.write_text(path.read_text().replace("def save(", "def keep("))
    with pytest.raises(PageError, match="mxnet"):
        pages.render("en", checkout.root)


def test_every_call_has_a_name_or_a_reason(page):
    for call, (what, cells) in zip(topics.CALLS, page.calls(), strict=True):
        assert what
        assert len(cells) == len(FRAMEWORKS)
        for backend, cell in zip(FRAMEWORKS, cells, strict=True):
            if not cell.name:
                assert cell.reason
                assert getattr(call, backend) is None
                continue
            file, line = cell.place.split(":")
            text = (ROOT / "backends" / backend / file).read_text().splitlines()[int(line) - 1]
            assert cell.name.rpartition(".")[2] in text
            assert cell.href == f"source/backends-{backend}-{file}.html#L{line}"
            assert cell.manual.startswith("https://")


# ---- results


def test_a_pitfall_shows_its_title_and_its_figures_where_it_belongs(measured, few):
    pitfall = {"only-here": {"without": 3.0, "with": 0.0}}
    path = measured.root / "docs" / "results" / "pitfalls-mxnet.json"
    path.write_text(json.dumps({"version": "1", "backend": "mxnet", "traps": pitfall}))
    page = content.Page("en", measured.root)
    conv = page.topics[0]
    (same,) = conv.pitfalls
    assert list(same.figures) == ["torch", "tf", "paddle"]
    (only,) = page.pitfalls_elsewhere()
    assert list(only.figures) == ["mxnet"]
    text = section(pages.render("en", measured.root), "idioms")
    assert "same pads off centre PyTorch without the fix 0.59 → with it 2e-16" in text
    assert "only-here MXNet Gluon without the fix 3 → with it 0" in text


@pytest.fixture
def few(monkeypatch):
    """One topic, one call, one spec: these tests of results do not need more."""
    monkeypatch.setattr(content, "TOPICS", topics.TOPICS[:1])
    monkeypatch.setattr(content, "CALLS", topics.CALLS[:1])
    monkeypatch.setattr(content, "SPECS", {"d2l": content.D2L})


WRONG = {
    "missing": None,
    "damaged": b'[{"backend": ',
    "no JSON number": b"[NaN]",
    "no text": b"\xff\xfe",
    "other": b'{"format": 2}',
    "empty": b"[]",
    "a word": b'"older"',
}
PLACES = [
    ("verify-tf.json", "proof"),
    ("verify-tf.json", "picture"),
    ("same-padding-mxnet.json", "picture"),
    ("bugs-paddle.json", "picture"),
    ("pitfalls-torch.json", "idioms"),
    ("bench-cpu.json", "proof"),
    ("runs/mini-torch/config.json", "proof"),
    ("runs/mini-tf/history.jsonl", "proof"),
]


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_results_file_leaves_a_note_in_its_place(measured, few, wrong):
    damage = WRONG[wrong]
    for path in (measured.root / "docs" / "results").glob("bench-*.json"):
        path.unlink()
    for file, _ in PLACES:
        path = measured.root / "docs" / "results" / file
        path.unlink(missing_ok=True)
        if damage is not None:
            path.write_bytes(damage)
    html = pages.render("en", measured.root)
    shown_notes = notes(html)
    whole = {name: section(html, name) for name in ("picture", "proof", "idioms")}
    for file, place in PLACES:
        shown = "bench-*.json" if damage is None and file == "bench-cpu.json" else file
        (note,) = {note for note in shown_notes if shown in note}
        kind = {"missing": "not there", "other": "another version", "empty": "another version"}
        kind |= {"a word": "another version"}
        if not file.endswith("jsonl"):
            assert kind.get(wrong, "damaged") in note
        assert note in whole[place]
    assert len([e for e in Tree(html).found if e.get("class") == "column"]) == 4
    for backend in ("torch", "mxnet", "paddle"):  # intact results are shown
        assert results.TITLES[backend] in whole["proof"]


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("verify-tf.json", lambda found: found[0].pop("version")),
        ("verify-tf.json", lambda found: found[0].update(novelty=1)),
        ("verify-tf.json", lambda found: found[0].update(backend="torch")),
        ("verify-tf.json", lambda found: found[0].update(spec="a spec of tomorrow")),
        ("verify-tf.json", lambda found: found[0][CHECKS_KEY][2].update(error="small")),
        ("same-padding-tf.json", lambda found: found[0][CHECKS_KEY][2].pop("stages")),
        ("same-padding-tf.json", lambda found: found[0][CHECKS_KEY][2]["stages"].pop("stage3")),
        ("same-padding-tf.json", lambda found: found.append(found[0])),
        ("bugs-tf.json", lambda found: found[0].update(bug="a bug of tomorrow")),
        ("bugs-tf.json", lambda found: found[3].pop("where")),
        ("pitfalls-tf.json", lambda found: found["traps"]["same-padding"].pop("with")),
        ("runs/mini-tf/config.json", lambda found: found.pop("classes")),
        ("runs/mini-tf/config.json", lambda found: found["recipe"].update(name="of tomorrow")),
    ],
)
def test_a_results_file_of_another_version_leaves_a_note(measured, few, file, change, language):
    path = measured.root / "docs" / "results" / file
    found = json.loads(path.read_text())
    change(found)
    path.write_text(json.dumps(found))
    (note,) = {note for note in notes(pages.render(language, measured.root)) if file in note}
    assert ("another version" in note) if language == "en" else ("另一个版本" in note)


def test_bugs_that_an_older_file_lacks_are_shown_as_such(checkout, few):
    path = checkout.root / "docs" / "results" / "bugs-tf.json"
    found = json.loads(path.read_text())
    path.write_text(json.dumps(found[:-2]))
    html = pages.render("en", checkout.root)
    assert [n for n in notes(html) if "bugs-tf.json" in n and "lacks" in n]
    assert content.Page("en", checkout.root).bugs().rows[-1][2]["tf"] is None


def test_without_any_results_the_page_has_code_and_notes(checkout, few, language):
    shutil.rmtree(checkout.root / "docs")
    html = pages.render(language, checkout.root)
    assert len(notes(html)) > 10
    assert "class Conv" in section(html, "idioms")


def test_a_failed_check_and_an_escaped_bug_are_shown_as_such(checkout, few):
    verify = checkout.root / "docs" / "results" / "verify-tf.json"
    found = json.loads(verify.read_text())
    found[0][CHECKS_KEY][2] |= {"passed": False, "error": 0.5}
    verify.write_text(json.dumps(found))
    bugs = checkout.root / "docs" / "results" / "bugs-tf.json"
    rows = json.loads(bugs.read_text())
    bugs.write_text(json.dumps([{"bug": rows[0]["bug"], "what": ""}, *rows[1:]]))
    html = pages.render("en", checkout.root)
    assert "failed 0.5" in section(html, "proof")
    assert section(html, "picture").count("escaped") == 1


def test_a_failed_check_without_a_number_has_no_number_and_no_dot(checkout, few):
    path = checkout.root / "docs" / "results" / "verify-tf.json"
    whole = [each for each in json.loads(path.read_text()) if each["spec"] == "d2l"][:2]
    for report, at in ((0, 1), (0, 2), (1, 1)):  # the last: only at the second size
        found = json.loads(json.dumps(whole))
        found[report][CHECKS_KEY][at] |= {"passed": False, "error": None}
        path.write_text(json.dumps(found))
        name = found[report][CHECKS_KEY][at]["name"]
        html = pages.render("en", checkout.root)
        table = html.partition("<code>d2l</code> float64")[2]
        row = table.partition(f'<th scope="row">{name}</th>')[2].partition("</tr>")[0]
        assert re.findall('<td class="number bad">(.*?)</td>', row) == ["failed "]
        assert row.count('"dot tf"') == 0
        assert row.count('"dot torch"') == (name == "forward")


def test_a_speed_table_stands_beside_its_machine(checkout, few):
    rows = [{"backend": "tf", "examples/s": 392}, {"backend": "torch", "examples/s": 335}]
    path = checkout.root / "docs" / "results" / "bench-cpu.json"
    path.write_text(json.dumps({"machine": "two cores", "rows": rows}))
    text = section(pages.render("en", checkout.root), "proof")
    assert "frameworkexamples/s TensorFlow392PyTorch335" in text
    assert "Measured on two cores." in text


def test_a_speed_table_has_words_for_heads_in_the_language_of_the_page(page):
    ((_, english, rows), *_), ((_, chinese, _), *_) = (
        made.speeds().tables for made in (page, content.Page("zh-CN", ROOT))
    )
    assert english[0] == "framework"
    assert english[-2:] == ["examples/s (median)", "times the published loop"]
    assert chinese[-2:] == ["样本/秒（中位数）", "相对已发表循环的倍数"]
    assert not [head for head in english if "_" in head]
    assert all(re.search("[一-鿿]", head) for head in chinese)
    assert {row[0] for row in rows} <= {*results.TITLES.values()}
    assert {len(row) for row in rows} == {len(english)}


def test_the_benchmarks_of_one_machine_are_one_table(checkout, few):
    folder = checkout.root / "docs" / "results"
    for path in folder.glob("bench-*.json"):
        path.unlink()
    for name, machine in (("a", "two cores"), ("b", "eight cores"), ("c", "two cores")):
        found = {"machine": machine, "rows": [{"backend": name, "examples/s": 1}]}
        (folder / f"bench-{name}.json").write_text(json.dumps(found))
    html = section(pages.render("en", checkout.root), "proof")
    assert (html.count("Measured on two cores."), html.count("Measured on eight cores.")) == (1, 1)
    whole = pages.render("en", checkout.root)
    regions = [e["aria-label"] for e in Tree(whole).found if e.get("role") == "region"]
    assert {"Speed: two cores", "Speed: eight cores"} <= {*regions}
    assert len(set(regions)) == len(regions), "a screen reader could not tell them apart"
    found = {"machine": "two cores", "rows": [{"backend": "d", "speed": 1}]}
    (folder / "bench-d.json").write_text(json.dumps(found))
    (note,) = [each for each in notes(pages.render("en", checkout.root)) if "bench-d" in each]
    assert "another version" in note


@pytest.mark.parametrize("accuracies", [[0.5, 0.7], [0.7], [0.1, 0.1]])
def test_a_chart_holds_every_point_of_a_run_also_where_nothing_changes(page, accuracies):
    epochs = [
        SimpleNamespace(backend="tf", number=number, losses=[2.0 * each], test_accuracy=each)
        for number, each in enumerate(accuracies, 1)
    ]
    chart = page.curves(("a", "mini", 33), [SimpleNamespace(epochs=epochs)])
    assert (chart.backends, list(chart.epochs)) == (["tf"], list(range(len(epochs) + 1)))
    for (word, line, x, y, marks), scale in zip(chart.panels, (2.0, 1.0), strict=True):
        assert y.low < scale * min(accuracies) <= scale * max(accuracies) < y.high, word
        assert marks == [each for each in marks if y.low <= each <= y.high] != []
        pairs = re.search('points="(.*)"', line)[1].split()
        points = [tuple(map(float, pair.split(","))) for pair in pairs]
        wanted = [(x(number), y(scale * each)) for number, each in enumerate(accuracies, 1)]
        assert [at for _, at in points] == [at for _, at in wanted]
        assert word == "loss" or points == wanted
        assert all(12 < at < 220 for _, at in points)


def test_every_run_is_drawn(page):
    found, _ = results.runs(ROOT)
    lines = [line for chart in page.training().charts for _, line, *_ in chart.panels]
    assert sum(line.count("<polyline") for line in lines) == 2 * len(found) > 20


def test_the_numbers_of_the_picture_are_those_of_the_files(page):
    picture = page.picture()
    for name in FRAMEWORKS:
        found = json.loads((ROOT / "docs" / "results" / f"same-padding-{name}.json").read_text())
        assert picture.injected[name] == found[0][CHECKS_KEY][-1]["stages"]
        assert min(picture.injected[name].values()) > 1e-2
        assert max(picture.clean[name].values()) < 1e-13


# ---- one file that needs nothing else


site = lru_cache(pages.site)


@pytest.fixture(scope="module")
def whole_site():
    """Every file of the site, by its path."""
    return {name: data.decode() for name, data in site(pages.ROOT).items()}


def test_a_page_is_one_small_file_that_loads_nothing(html):
    for text in html.values():
        assert len(text.encode()) < 1_100_000
        for element in Tree(text).found:
            for name in ("src", "srcset", "action", "data", "poster"):
                assert not element.get(name), element
            if element["tag"] == "link":
                assert element["href"].startswith("data:,")
        assert not re.search(r"url\(|@import|\bimport\(|fetch\(|XMLHttpRequest|//cdn", text)
        assert str(ROOT) not in text


def test_every_link_leads_to_a_place_in_the_site_or_to_a_manual(whole_site):
    found = {name: Tree(text).found for name, text in whole_site.items()}
    ids = {name: {e["id"] for e in elements if "id" in e} for name, elements in found.items()}
    for name, elements in found.items():
        for element in elements:
            target = element.get("href") or ""
            if element["tag"] != "a" or not target:
                continue
            if target.startswith("https://"):
                assert element.get("rel") == "external" or name in DOCUMENTS.values(), target
                continue
            file, _, anchor = urllib.parse.unquote(target).partition("#")
            file = file.removeprefix("../") or name
            assert file in whole_site, (name, target)
            assert not anchor or anchor in ids[file], (name, target)


def test_a_document_has_its_title_and_the_names_of_its_parts_in_its_language(whole_site):
    for name in DOCUMENTS.values():
        found = Tree(whole_site[name]).found
        (title,) = [e["text"] for e in found if e["tag"] == "title"]
        labels = [e["aria-label"] for e in found if e["tag"] == "nav"]
        of = int(".zh-CN." in name)
        assert title.endswith(f" – {words.WORDS['title'][of]}")
        assert labels == [words.WORDS[word][of] for word in ("title", "sections")]


def test_chinese_documents_have_no_spaces_where_their_lines_end(whole_site):
    names = [name for name in DOCUMENTS.values() if ".zh-CN." in name]
    assert len(names) > 15
    for name in names:
        wrapped = "[一-鿿，。]\n[一-鿿]|[，。；：、）]\n(<a|<code|\\w)"
        assert not re.search(wrapped, whole_site[name]), name


def test_the_guide_keeps_every_section_and_names_no_file_that_is_not_there(whole_site, checkout):
    found = guide_titles(ROOT)
    assert len(found) > 60
    for anchor, (page, _) in found.items():
        file = DOCUMENTS[f"docs/porting/{page}.md"]
        assert anchor in {e.get("id") for e in Tree(whole_site[file]).found}
    name = "docs/porting/loss.md"
    (checkout.root / name).write_text(
        "# P\n\n[a](../x.py) [b](../../../etc/p) [c](../check.md#d)\n"
    )
    body = pages.guide(name, checkout.root)
    links = [e.get("href") for e in Tree(body).found if e["tag"] == "a"]
    assert "check.html#d" in links
    assert not [link for link in links if link and ("etc" in link or "x.py" in link)]
    (checkout.root / name).unlink()
    assert pages.guide(name, checkout.root) is None
    assert DOCUMENTS[name] not in pages.site(checkout.root)


def test_every_link_of_the_page_has_its_anchor(html):
    for text in html.values():
        found = Tree(text).found
        ids = [element["id"] for element in found if "id" in element]
        assert len(set(ids)) == len(ids)
        links = {e["href"][1:] for e in found if e.get("href", "").startswith("#")}
        assert links <= set(ids)


# ---- English and Chinese


def shape(html):
    """Elements in order with what must not depend on the language."""
    kept = ("id", "class", "data-at", "data-kind", "data-column", "colspan", "d", "points")
    found = []
    for element in Tree(html).found:
        if element["tag"] in ("code", "strong") and "pre" not in element:
            continue  # the order of the words depends on the language
        found.append((element["tag"], *(element.get(name) for name in kept)))
    return found


def test_both_languages_have_the_same_structure(html):
    one, other = (shape(html[language]) for language in LANGUAGES)
    assert one == other


def test_both_languages_show_the_same_code(html):
    one, other = (
        [element["text"] for element in Tree(text).found if element["tag"] == "pre"]
        for text in html.values()
    )
    assert one == other
    assert len(one) > 40


def every_text():
    yield from words.WORDS.items()
    yield from words.SPEED_HEADS.items()
    yield from ((topic.id, topic.title) for topic in topics.TOPICS)
    yield from ((topic.id, topic.about) for topic in topics.TOPICS)
    yield from ((call.what[0], call.what) for call in topics.CALLS)
    yield from topics.WITHOUT.items()


@pytest.mark.parametrize(("key", "pair"), list(every_text()))
def test_a_text_and_its_translation_hold_the_same_code_and_numbers(key, pair):
    english, chinese = pair
    assert english.strip()
    assert chinese.strip()
    assert re.findall(r"`[^`]+`", english) == re.findall(r"`[^`]+`", chinese)
    assert english.count("{}") == len(re.findall(r"{\d?}", chinese))


def test_every_bug_and_check_has_a_chinese_name(page):
    assert set(words.BUGS) == set(INJECTED_BUGS)
    checks = {check for _, group in page.parity().groups for check in group["checks"]}
    assert checks <= set(words.CHECKS)


def markdown(name):
    """Headings, code blocks, tables and links of a document, in order."""
    text = (ROOT / name).read_text()
    blocks = re.findall(r"^```.*?^```", text, re.M | re.S)
    prose = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
    # a block without a language is a list of places: only the first words of its lines count
    texts = [r" *#.*" if block[3].isalpha() else r"(?<=\S) .*| {5}.*" for block in blocks]
    code = [re.sub(words, "", block) for words, block in zip(texts, blocks, strict=True)]
    tables = [
        (len(table.splitlines()), {len(re.findall(r"(?<!\\)\|", r)) for r in table.splitlines()})
        for table in re.findall(r"(?:^\|.*\n)+", prose, re.M)
    ]
    return {
        "headings": [len(marks) for marks in re.findall(r"^(#+) ", prose, re.M)],
        "code": code,
        "tables": tables,
        # a heading is named by its words, in either language
        "links": sorted(re.findall(r"\]\((#|[^#)][^)]*)", prose)),
        "marks": re.findall(r"<!-- .*? -->", prose),
        "words": sorted(set(re.findall(r"`[^`\n]+`", prose))),
    }


def test_the_chinese_readme_has_the_structure_of_the_english_one():
    english, chinese = markdown("README.md"), markdown("README.zh-CN.md")
    links = [each.replace(".zh.md", ".md") for each in chinese["links"]]
    links = ["README.zh-CN.md" if each == "README.md" else each for each in links]
    assert sorted(links) == english["links"]
    for part in ("headings", "code", "tables", "marks", "words"):
        assert chinese[part] == english[part], part


def test_a_link_to_the_guide_says_the_language_of_the_guide(html, language):
    links = [e for e in Tree(html[language]).found if "guide-" in (e.get("href") or "")]
    said = [e for e in links if "hreflang" in e]
    assert len(said) > 50
    for link in said:
        assert link["hreflang"] == language
        assert (".zh-CN." in link["href"]) == (language == "zh-CN")


def test_every_pitfall_of_the_guide_has_a_chinese_title():
    assert {*guide_titles(ROOT)} <= {*words.PITFALLS}


def test_the_page_takes_its_words_from_the_reference_in_its_language(html):
    assert "paper" in section(html["en"], "words")
    assert "论文" in section(html["zh-CN"], "words")


# ---- the command


def run(*arguments):
    command = [sys.executable, "-m", "common.cli", "page", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)


def test_every_mistake_of_check_has_a_row_that_leads_to_its_section(whole_site):
    for language, name in enumerate(pages.FILES.values()):
        text = whole_site[name]
        for mistake in MISTAKES.values():
            row = text.partition(f'<li data-mistake="{mistake.name}">')[2].partition("</li>")[0]
            (target, anchor) = re.search(r'href="([\w.-]+\.html)#([^"]+)"', row).groups()
            assert f'id="{anchor}"' in whole_site[target], mistake.name
            assert (".zh-CN." in target) == (language == 1)
            assert escape(sentence(mistake.name, language))[:12] in row
            assert row.count("<code") in (0, 4), mistake.name
    assert set(LINES) <= set(MISTAKES)


#: what only one framework has, in the wrong lines
OWN = {
    "torch": r"\b[A-Z]\w+2d\(|torch\.",
    "tf": r"Pooling2D|ZeroPadding2D|BatchNormalization|Concatenate|Dense\(10, ",
    "mxnet": r"\bnpx?\.|autograd|softrelu|GlobalMaxPool2D",
    "paddle": r"paddle\.|bias_attr|exclusive|AdaptiveMaxPool2D|SAME|use_global_stats",
}


def test_every_wrong_line_stands_in_the_column_of_its_framework():
    assert [*OWN] == [*results.TITLES]
    for name, lines in LINES.items():
        for backend, line in zip(OWN, lines, strict=True):
            others = [other for other in OWN if other != backend and re.search(OWN[other], line)]
            assert not others, (name, line)
    for backend, lines in zip(OWN, zip(*LINES.values(), strict=True), strict=True):
        assert sum(bool(re.search(OWN[backend], line)) for line in lines) > 5, backend


def test_a_run_s_row_says_what_is_not_the_recipe_s():
    found, unusable = results.runs(ROOT)
    assert not unusable
    published = len(results.PUBLISHED)
    rows = dict(
        zip((run.name for run in found), results.training_rows(found)[published:], strict=True)
    )
    assert rows["d2l-torch"][0] == "`d2l`, batch 128"
    assert rows["best-96-torch"][0] == "`best` at 96, batch 128"
    assert rows["best-torch-1"][0] == "`best`, batch 128, seed 1"


def test_a_number_of_seeds_is_chinese_in_chinese():
    amounts = ["10 epochs at 96, 1 seed", "2 epochs at 48, 3 seeds"]
    chinese = ["10 轮，尺寸 96，1 个种子", "2 轮，尺寸 48，3 个种子"]
    assert [words.run_in_chinese(amount) for amount in amounts] == chinese
    assert words.run_in_chinese("`best`, batch 128, seed 1") == "`best`，批量 128，随机种子 1"


def test_the_pages_are_where_they_are_said_to_be(tmp_path):
    made = pages.write(tmp_path)
    assert [path.name for path in made] == [*pages.FILES.values()]
    assert all(path.parent == tmp_path and path.is_file() for path in made)


def test_the_command_writes_both_files(tmp_path):
    done = run("--out", tmp_path / "deep" / "site")
    assert done.returncode == 0, done.stderr
    made = {p.name for p in (tmp_path / "deep" / "site").iterdir()}
    assert made == {*pages.FILES.values(), *DOCUMENTS.values(), "source"}


def test_the_command_refuses_in_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    for arguments in ((), ("--out", tmp_path / "file")):
        done = run(*arguments)
        assert done.returncode == 2
        assert done.stderr.startswith("googlenet: ")
        assert len(done.stderr.splitlines()) == 1


def test_the_server_gives_the_pages_to_this_machine_alone(monkeypatch):
    monkeypatch.setattr(pages, "site", site)
    with pages.server(0) as server:
        host, port = server.server_address
        assert host == "127.0.0.1"
        Thread(target=server.serve_forever, daemon=True).start()
        try:
            listing = "source/backends-tf-train.py.html"
            for path in ("", "index.zh-CN.html#idioms", "?show=tf", "guide.html", listing):
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}") as answer:
                    assert b"</html>" in answer.read()
            for path in ("pyproject.toml", "../pyproject.toml"):
                with pytest.raises(urllib.error.HTTPError, match="404") as refused:
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}")
                refused.value.close()
            with pytest.raises(PageError, match="--port"):
                pages.server(port)
        finally:
            server.shutdown()


@pytest.fixture
def server(monkeypatch):
    """A server of the page; its `server_close` waits for all that it has begun."""
    monkeypatch.setattr(pages, "site", site)
    with pages.server(0) as server:
        server.daemon_threads = False
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


@pytest.mark.parametrize(("path", "status"), [("/", 200), ("/index.zh-CN.html", 200), ("/no", 404)])
def test_head_gets_the_header_of_get_without_the_page(server, path, status):
    answers = []
    for method in ("GET", "HEAD"):
        with socket.create_connection(server.server_address) as client:
            client.sendall(f"{method} {path} HTTP/1.0\r\n\r\n".encode())
            answers.append(client.makefile("rb").read())
    (head, _, body), alone = answers[0].partition(b"\r\n\r\n"), answers[1]
    assert f" {status} ".encode() in head.splitlines()[0]
    assert f"Content-Length: {len(body)}".encode() in head.splitlines()
    without_date = [
        [line for line in each.splitlines() if b"Date" not in line] for each in (head, alone)
    ]
    assert without_date[1] == [*without_date[0], b""]


@pytest.mark.parametrize("request_", [b"GET / HTTP/1.1\r\n\r\n", b"GET / HT", b""])
def test_a_client_that_resets_prints_nothing(server, capsys, request_):
    for _ in range(3):
        with socket.create_connection(server.server_address) as client:
            client.sendall(request_)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    with urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}/") as answer:
        assert b"</html>" in answer.read()
    server.shutdown()
    server.server_close()
    assert capsys.readouterr() == ("", "")


def test_another_error_of_the_server_is_not_hidden(server, capsys, monkeypatch):
    monkeypatch.setattr(pages.BaseHTTPRequestHandler, "send_header", None)
    with pytest.raises(RemoteDisconnected):
        urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}/")
    assert "TypeError" in capsys.readouterr().err
